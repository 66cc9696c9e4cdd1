"""A measurement in words: its answer, and what its figures show."""

import xarray as xr

from analyses.core import tables
from analyses.measure.measure import summary

#: What the figures show, for those who read a report.
MEANINGS = {
    "old_weight": (
        "How much of what the checkpoints produce is old behaviour: its fall is mass forgetting. A cross "
        "marks a checkpoint whose weight is not to be trusted."
    ),
    "weight": "How much of what the checkpoints produce belongs to each task.",
    "drift": (
        "How far each behaviour has moved from its reference, in standard deviations within the references. "
        "In the grey band noise alone moves it as far."
    ),
    "samples": (
        "Samples of some checkpoints, and where the modes were fitted. Samples far from every circle belong "
        "to no task."
    ),
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: what is left at the last checkpoint, and what has moved."""
    frame = summary(tree)
    first, last = frame.index[0], frame.index[-1]
    if "task" in frame:
        found = []
        for _, row in frame.loc[[last]].iterrows():
            found.append(
                f"At checkpoint {last} {row['task']} has a weight of {tables.inline(dict(row), 'weight')} "
                f"and has drifted by {tables.inline(dict(row), 'task_drift')}; P(it has not moved) "
                f"{tables.probability(float(row['unmoved_probability']))}."
            )
        return found
    row = dict(frame.loc[last])
    kept = f"At checkpoint {last} the old weight is {tables.inline(row, 'old_weight')}"
    if first != last:
        kept += f", at {first} it was {tables.inline(dict(frame.loc[first]), 'old_weight')}"
    moved = (
        f"What is left of the old behaviour has drifted by {tables.inline(row, 'old_drift')}; P(it has not "
        f"moved) {tables.probability(float(row['old_unmoved_probability']))}."
    )
    groups = tree["posterior"].coords.get("prompt_group", xr.DataArray([])).to_numpy()
    of_groups = [
        f"On prompts of {group} the old weight is {tables.inline(row, f'old_weight_of_{group}')}."
        for group in groups
    ]
    gap = f"The new behaviour is {tables.inline(row, 'new_gap')} from its reference."
    return [kept + ".", *of_groups, moved, gap]
