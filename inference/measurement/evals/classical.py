"""The older measures: paired change of accuracy, McNemar's test, shares of forgotten items."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from inference.measurement.evals.pairing import CELLS


class Classical(NamedTuple):
    """Of the items of one run, as they were answered.

    Attributes:
        observed_accuracy: mean score of the run.
        observed_base_accuracy: mean score of the base.
        observed_change: mean difference of items' mean scores.
        observed_change_error: standard error of it, items as clusters of their answers; NaN of one item.
        mcnemar_p: two-sided exact p of as many items lost as won; NaN where items have several answers.
        forgotten_share: F = n₁₀/N (Harmon et al., arXiv:2510.17776); NaN likewise.
        forgotten_beyond_guessing: F_true = max(F - (1-a_base)(1-a_run)/(k-1), 0); NaN without choices.
        acquired_beyond_guessing: BT_true, the same of n₀₁.
    """

    observed_accuracy: float
    observed_base_accuracy: float
    observed_change: float
    observed_change_error: float
    mcnemar_p: float
    forgotten_share: float
    forgotten_beyond_guessing: float
    acquired_beyond_guessing: float


def of_repeats(cells: pd.DataFrame) -> Classical:
    """Return the measures of a run from its rows of `Paired.repeats`."""
    items = cells["num_items"].to_numpy(float)
    before = cells["right_base"].to_numpy(float) / cells["num_base"].to_numpy(float)
    after = cells["right_run"].to_numpy(float) / cells["num_run"].to_numpy(float)
    choices = cells["num_choices"].to_numpy(float)
    single = bool((cells["num_base"] == 1).all() and (cells["num_run"] == 1).all())
    return _classical(before, after, items, choices, single=single)


def of_choices(cells: pd.DataFrame) -> Classical:
    """Return the measures of a run from its rows of `Paired.choices`."""
    counts = cells[list(CELLS)].to_numpy(float)
    before, after = np.array([1.0, 1.0, 0.0, 0.0, 0.0]), np.array([1.0, 0.0, 1.0, 0.0, 0.0])
    rows = len(counts)
    choices = np.repeat(cells["num_choices"].to_numpy(float), 5)
    return _classical(np.tile(before, rows), np.tile(after, rows), counts.ravel(), choices, single=True)


def _classical(
    before: np.ndarray, after: np.ndarray, items: np.ndarray, choices: np.ndarray, *, single: bool
) -> Classical:
    num = items.sum()
    a_base, a_run = (float(np.average(a, weights=items)) for a in (before, after))
    change = after - before
    mean = float(np.average(change, weights=items))
    spread = float(items @ np.square(change - mean)) / (num - 1.0) if num > 1 else np.nan
    p = share = forgotten = acquired = np.nan
    whole = np.isin(before, (0.0, 1.0)).all() and np.isin(after, (0.0, 1.0)).all()
    if single and whole:
        lost, won = float(items[change < 0.0].sum()), float(items[change > 0.0].sum())
        p = float(stats.binomtest(round(lost), round(lost + won)).pvalue) if lost + won else 1.0
        share = lost / num
        if np.isfinite(choices).all() and np.all(choices > 1.0):
            by_guess = (
                (1.0 - a_base) * (1.0 - a_run) * float(np.average(1.0 / (choices - 1.0), weights=items))
            )
            forgotten, acquired = max(share - by_guess, 0.0), max(won / num - by_guess, 0.0)
    return Classical(a_run, a_base, mean, float(np.sqrt(spread / num)), p, share, forgotten, acquired)
