"""A comparison of runs in words: its answer, and what its figure shows."""

import xarray as xr

from analyses.compare_runs.compare_runs import summary
from analyses.compare_runs.shared import NAMES
from analyses.core import tables
from inference.comparison.runs import DISTANCE

#: What the figures show, for those who read a report.
MEANINGS = {
    "runs": (
        "What each run has kept, and how far it has drifted, against what it has learnt or task by task. "
        "Compare runs where they have learnt as much."
    ),
    "forward_kl": (
        "What each run has kept against how far it is from the base on the new task. If the forward KL alone "
        "decided what is forgotten, the runs would lie on one curve."
    ),
}

# What a larger value of a compared variable means, or a smaller one.
_BETTER = {
    "old_weight": "kept more old mass",
    "old_drift": "drifted less",
    "weight": "kept more",
    "task_drift": "drifted less",
    DISTANCE: "is closer to the base",
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: what each run has kept, and how surely more than the first."""
    frame = summary(tree)
    first = frame.index[0]
    found = []
    for name, row in frame.iterrows():
        of_task = f" of {row['task']}" if "task" in row else ""
        compared = ["weight", "task_drift"] if "task" in row else ["old_weight", "old_drift"]
        if "task" not in row or row["task"] == frame["task"].iloc[0]:
            compared.append(DISTANCE)
        parts = []
        for variable in (one for one in compared if one in row):
            what = NAMES.get(variable, variable.replace("_", " ") + of_task)
            said = f"{what} {tables.inline(dict(row), variable)}"
            if name != first:
                better = tables.probability(float(row[f"{variable}_better"]))
                said += f", P(it {_BETTER[variable]} than {first}) {better}"
            parts.append(said)
        found.append(f"{name}: {'; '.join(parts)}.")
    return found
