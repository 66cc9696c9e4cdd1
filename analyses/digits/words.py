"""The digits in words: the answer, and what the figures show."""

import xarray as xr

from analyses.digits.digits import remarks

#: What the figures show, for those who read a report.
MEANINGS = {
    "images": "Digits that the networks draw, before and after post-training, beside real ones.",
    "training": "What is left and what is learnt over post-training, as counted and as measured.",
    "lens": "What the mixture predicts against what the networks do.",
    "answers": "What was lost of the evaluation's items, as measured and by brute force.",
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: what the run says of the lens and of the instruments."""
    return remarks(tree)
