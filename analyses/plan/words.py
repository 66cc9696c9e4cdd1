"""A plan in words: its answer, and what its figure shows."""

import xarray as xr

from analyses.core import tables
from analyses.plan.plan import summary

#: What the figures show, for those who read a report.
MEANINGS = {
    "plan": (
        "What each objective keeps of the old task over the training, without the noise of batches, and how "
        "far its old mode drifts meanwhile."
    ),
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: what each objective will keep, and what is enough."""
    wanted = tree.attrs["keep"] * tree.attrs["start_old_weight"]
    found = []
    for _, row in summary(tree).iterrows():
        found.append(
            f"{row['objective']} ends with a retention of {tables.number(row['final_retention'])} and "
            f"drifts by at most {tables.number(row['peak_old_drift'])}; smallest setting that retains "
            f"{wanted:.3g}: {row['answer']}."
        )
    return found
