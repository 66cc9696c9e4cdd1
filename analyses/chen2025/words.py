"""The reproduction in words: the answer, and what the figures show."""

import xarray as xr

from analyses.chen2025.chen2025 import conclusion

#: What the figures show, for those who read a report.
MEANINGS = {
    "drop_and_gain": "What is lost of the old mode for what is gained of the new one, by method and factor.",
    "densities": "The learners' densities at the end, beside the target's.",
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the conclusion."""
    return [conclusion(tree)]
