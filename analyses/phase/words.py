"""What the figures show, and the answer in sentences."""

import xarray as xr

from analyses.core import tables
from analyses.phase.lines import OBJECTIVES
from analyses.phase.phase import summary

#: What the figures show, for those who read a report.
MEANINGS = {
    f"phase_{name}": (
        f"What {name} leaves of the old behaviour, and how far its old mode has moved, at each separation "
        "and batch size. Below the dashed line more than half of the batches hold no old sample at the "
        "start; left of the dotted one the new mode claims more than a tenth of the old samples."
    )
    for name in OBJECTIVES
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: what is kept on both sides of the line of starvation."""
    return [
        f"{row['objective']} at {row['knob']:g} keeps {tables.number(row['kept_fed'])} where batches hold "
        f"old samples and {tables.number(row['kept_starved'])} where they are starved; it drifts by "
        f"{tables.number(row['old_drift_overlapping'])} where modes overlap and "
        f"{tables.number(row['old_drift_apart'])} where they are apart."
        for _, row in summary(tree).iterrows()
    ]
