"""The digits in a sequence in words: the answer, and what the figures show."""

import xarray as xr

from analyses.digits_sequence.report import remarks

#: What the figures show, for those who read a report.
MEANINGS = {
    "shares": (
        "The share of every task in what the networks draw, over all stages: lines and bands are the count "
        "by classifiers, points measurements at the ends of the stages, dotted lines the mixture's course."
    ),
    "performance": (
        "The performance R on every task (column) after every stage (row), by the count: 1 where a task "
        "keeps all of its share in the target, 0 where nothing of it is left. A frame marks the task that "
        "the stage taught."
    ),
    "order": "Which of two tasks that a stage does not teach loses more: as predicted against as found.",
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: whether the order is as predicted, and whether it is measured right."""
    return remarks(tree)
