"""A plan of a sequence in words: its answer, and what its figure shows."""

import numpy as np
import xarray as xr

from analyses.core import tables
from analyses.plan_sequence.plan_sequence import summary

#: What the figures show, for those who read a report.
MEANINGS = {
    "plan": (
        "What is left of the earlier task that is kept least, and how well new tasks are learnt (dashed), "
        "against each objective's hyperparameter. The dotted line is what is to be kept."
    ),
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: which setting of each objective is enough."""
    found = []
    for name, row in summary(tree).iterrows():
        sentence = f"{name}: {row['answer']}"
        if np.isfinite(row["kept_part"]):
            sentence += (
                f"; it keeps {tables.number(row['kept_part'])} of {row['worst_task']}, the task kept "
                f"least, and learns a new task to {tables.number(row['plasticity'])}"
            )
        found.append(f"{sentence}.")
    return found
