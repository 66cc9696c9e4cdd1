"""A comparison in words: its answer, and what its figures show."""

import xarray as xr

from analyses.compare.compare import summary
from analyses.core import tables

#: What the figures show, for those who read a report.
MEANINGS = {
    "old_weight": (
        "The weight of the learner's old mode over training: its fall is mass forgetting. The dashed line is "
        "retention, the share of old behaviour that is left wherever the means have gone."
    ),
    "old_drift": (
        "How far the learner's old mode is from where it was right. It stays low where training holds it in "
        "place. The dotted line is the exact flow, which has no noise."
    ),
    "forward_kl": (
        "What is kept against the forward KL of the start from the learner. If this KL alone decided what is "
        "forgotten, all paths would lie on one curve. An old mode that moves and a new one that is learnt "
        "raise it too, whatever becomes of the old weight."
    ),
    "frontier": (
        "What is kept against what is learnt: a path goes from the start to the point at its end. Of two "
        "objectives that learnt as much, the one that kept more forgot less."
    ),
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: who keeps how much, and how surely more than the first."""
    frame = summary(tree)
    kept = "old_weight" if "old_weight" in frame else "retention"
    what = {"old_weight": "of the old mass", "retention": "of the old behaviour"}[kept]
    first = frame.index[0]
    found = []
    for name, row in frame.sort_values(kept, ascending=False, kind="stable").iterrows():
        sentence = f"{name} keeps {tables.inline(dict(row), kept)} {what}"
        if "old_drift" in frame:
            sentence += f" and its old mode drifts by {tables.inline(dict(row), 'old_drift')}"
        if name != first and "probability_retains_more" in frame:
            better = tables.probability(float(row["probability_retains_more"]))
            sentence += f"; P(it retains more than {first}) {better}"
        found.append(sentence + ".")
    return found
