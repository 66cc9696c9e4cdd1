"""A sequence in words: its answer, and what its figures show."""

import xarray as xr

from analyses.core import tables
from analyses.sequence.sequence import summary

#: What the figures show, for those who read a report.
MEANINGS = {
    "weights": (
        "The weight of every task over all stages, dashed where it is taught: bands are trainings, dotted "
        "lines the exact flow, which has no noise. A vertical line begins the stage of the task beside it."
    ),
    "retention": (
        "The part of behaviour that looks like each task, whatever the components are called. Where means "
        "move a weight can lie: a component may walk over to another task, and take its name along."
    ),
    "performance": (
        "The performance R on every task (column) after every stage (row): 1 where a task keeps all of its "
        "share in the target, 0 where nothing of it is left. A frame marks the task that the stage taught."
    ),
    "frontier": (
        "Forgetting, in both published senses, against plasticity: what earlier tasks have lost against how "
        "well new ones were learnt in their own stages. Lower right is better."
    ),
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: what became of earlier tasks, which is lowest, what is learnt."""
    frame = summary(tree)
    own = tree["constant_data"]["own_stage"]
    last = int(own.max())
    earlier = [str(task) for task in own["task"].to_numpy()[own.to_numpy() < last]]
    found = []
    for name, row in frame.sort_values("forgetting_from_own_stage", kind="stable").iterrows():
        left = row[[f"last_{task}" for task in earlier]].astype(float)
        if left.isna().all():
            found.append(f"{name}: all sequences diverged.")
            continue
        worst = str(left.idxmin()).removeprefix("last_")
        found.append(
            f"{name} changes the performance on an earlier task by "
            f"{tables.inline(dict(row), 'backward_transfer')} since its own stage (forgetting from its best: "
            f"{tables.inline(dict(row), 'forgetting_from_best')}); {worst} ends lowest, at "
            f"{tables.inline(dict(row), f'last_{worst}')}; a new task is learnt to "
            f"{tables.inline(dict(row), 'plasticity')}."
        )
    return found
