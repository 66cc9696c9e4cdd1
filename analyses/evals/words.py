"""A measurement of evaluations in words: its answer, and what its figures show."""

import numpy as np
import xarray as xr

from analyses.core import tables
from analyses.evals.evals import last, summary

#: What the figures show, for those who read a report.
MEANINGS = {
    "forgetting": "What each run has lost on each task: mass that is gone, and drift of what is left.",
    "transitions": "What became of the items: known and kept, forgotten, acquired, never known.",
    "checkpoints": "What is left over the checkpoints of each run.",
    "frontier": "What is kept against what is learnt: of two runs that learnt as much, who forgot less?",
    "base": "Whether the base's answers follow the law by which items are read.",
}

# Sentences at most; the table has every run.
_MOST = 8


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: what the last checkpoints have lost."""
    frame = last(summary(tree))
    found = []
    for _, row in frame.iterrows():
        name = f"{row['arm']} on {row['task']}" + (
            f", seed {row['seed']}" if frame["seed"].nunique() > 1 else ""
        )
        parts = [f"accuracy changes by {tables.inline(dict(row), 'accuracy_change')}"]
        for variable, words in (
            ("old_weight", "old weight"),
            ("forgotten", "forgotten"),
            ("lost", "items lost"),
        ):
            if variable in row and np.isfinite(row[variable]):
                parts.append(f"{words} {tables.inline(dict(row), variable)}")
        found.append(f"{name}: {'; '.join(parts)}.")
    more = len(found) - _MOST
    return found[:_MOST] + ([f"{more} more rows are in the table."] if more > 0 else [])
