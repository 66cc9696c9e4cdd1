"""A measurement by scores in words: its answer, and what its figures show."""

import xarray as xr

from analyses.core import tables
from analyses.measure_scores.measure_scores import summary
from inference.measurement.verdict.kinds import kind_of

#: What the figures show, for those who read a report.
MEANINGS = {
    "old_weight": "How much of what the checkpoints produce is old behaviour: its fall is mass forgetting.",
    "forward_kl": (
        "How far the run is from the base on the new task, by KL(base ‖ run) of whole answers; and the old "
        "weight against it: of two runs at one KL, the one with more old weight forgot less for its change."
    ),
    "weight": "How much of what the checkpoints produce belongs to each task.",
    "density": "The posterior of the old weight, exactly: where it is wide, scores or samples tell little.",
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: what is left at the last checkpoint."""
    frame = summary(tree)
    last = frame.index[-1]
    if "task" in frame:
        found = [
            f"At checkpoint {last} {row['task']} has a weight of {tables.inline(dict(row), 'weight')}."
            for _, row in frame.loc[[last]].iterrows()
        ]
    else:
        found = [
            f"At checkpoint {last} the old weight is {tables.inline(dict(frame.loc[last]), 'old_weight')}."
        ]
    if "forward_kl" in frame:
        row = dict(frame.loc[[last]].iloc[0])
        found.append(
            f"There the forward KL of the base from the run is {tables.inline(row, 'forward_kl')} nats an "
            f"answer ({kind_of(row['kl_words'])})."
        )
    return found
