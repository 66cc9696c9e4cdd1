"""Are the cells as the model says? Observed counts against counts that the posterior predicts.

Each statistic is a chi-squared distance of observed from expected counts under draws of the posterior, and
its deviation is how far it lies from the same distance of replicated counts, in their standard deviations.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from inference.measurement.evals.cells import coarse
from inference.measurement.evals.item_integral import (
    Patterns,
    answers_side,
    base_side,
    drifted,
    log_base,
    log_conditional,
    log_multiplicity,
    log_peak,
    patterns_of,
)
from inference.measurement.evals.likelihood import compiled
from inference.measurement.evals.prior import run_of, task_of

#: What is compared: the base's right answers; base and run together, coarsely; the run's answers to the items
#: that the base always solves, and to those that it never does.
STATISTICS = ("base", "together", "always_right", "never_right")

#: Draws of the posterior that replicate the counts, and bounds of the coarse bins of the share that is right.
NUM_REPLICATES, _BINS = 24, np.array([0.0, 0.4999, 0.5001, 1.0 - 1e-9])

# Scores (δ, τ, m) of a run that is the base: δ is 0, τ and m are next to nothing.
_UNCHANGED = np.array([0.0, -7.0, -7.0])

# Cells of fewer expected items are put together.
_LEAST_EXPECTED = 3.0


class Check(NamedTuple):
    """Deviations of the statistics, in standard deviations of the replicates.

    Attributes:
        deviations: of `STATISTICS`; NaN where there is nothing to compare.
        null_deviation: of base and run together from a run that is the base itself.
        share: of the items that are compared: those with the most common numbers of answers.
    """

    deviations: Float[np.ndarray, "4"]
    null_deviation: float
    share: float


class Counted(NamedTuple):
    """Items of one run by right answers, all with the same numbers of answers and choices."""

    counts: Float[np.ndarray, "b r"]
    inverse_choices: float
    share: float


def counted(cells: pd.DataFrame) -> Counted | None:
    """Return the items with the most common numbers of answers, or None where scores are no counts."""
    whole = np.isclose(cells["right_base"] % 1.0, 0.0) & np.isclose(cells["right_run"] % 1.0, 0.0)
    keys = ["num_base", "num_run", "num_choices"]
    kept = cells[whole]
    if kept.empty:
        return None
    sizes = kept.groupby(keys, dropna=False)["num_items"].sum()
    num_base, num_run, num_choices = sizes.idxmax()
    same = (kept["num_base"] == num_base) & (kept["num_run"] == num_run)
    same &= kept["num_choices"].isna() if np.isnan(num_choices) else kept["num_choices"] == num_choices
    kept = kept[same]
    counts = np.zeros((int(num_base) + 1, int(num_run) + 1))
    place = kept["right_base"].round().astype(int), kept["right_run"].round().astype(int)
    np.add.at(counts, place, kept["num_items"].to_numpy(float))
    inverse = 0.0 if np.isnan(num_choices) else 1.0 / float(num_choices)
    return Counted(counts, inverse, float(counts.sum() / cells["num_items"].sum()))


class BaseCounts(NamedTuple):
    """Items by the base's right answers, of those with the most common number of answers.

    Attributes:
        observed: share of the items.
        predicted: the posterior's mean share.
        replicated: shares of replicated counts.
    """

    observed: Float[np.ndarray, "b"]
    predicted: Float[np.ndarray, "b"]
    replicated: Float[np.ndarray, "D b"]


def base_counts(
    cells: pd.DataFrame, tasks: Float[np.ndarray, "D 3"], rng: np.random.Generator
) -> BaseCounts | None:
    """Return observed and predicted shares of items by the base's right answers; None where there are none.

    Args:
        cells: a run's rows of `Paired.repeats`.
        tasks: scores of the task.
        rng: of the replicates.
    """
    found = counted(cells)
    if found is None:
        return None
    observed = _base_counts(found.counts)
    patterns = patterns_of(len(observed) - 1, found.inverse_choices, coarse(len(observed)))
    predicted = np.exp(_log_of_base(tasks, patterns))[:, : len(observed)]
    predicted /= predicted.sum(axis=-1, keepdims=True)
    total = observed.sum()
    replicated = rng.multinomial(round(total), predicted) / total
    return BaseCounts(observed / total, predicted.mean(axis=0), replicated)


@compiled
def _log_of_base(tasks: Float[Array, "D 3"], base: Patterns) -> Float[Array, "D b"]:
    return jax.lax.map(lambda scores: log_base(task_of(scores), base) + log_multiplicity(base), tasks)


@compiled
def _tables(
    tasks: Float[Array, "D 3"], runs: Float[Array, "D 3"], base: Patterns, answers: Patterns
) -> Float[Array, "D b r"]:
    """Return probabilities of all outcomes."""

    def table(task_scores: Array, run_scores: Array) -> Array:
        task, run = task_of(task_scores), run_of(run_scores)
        side = base_side(task, base)
        of_base = log_base(task, base) + log_multiplicity(base)
        law = drifted(side, run.drift, run.drift_spread)
        outcome = answers_side(task.guess_share, run.mass_lost, answers)
        of_run = log_conditional(side, law, outcome) + log_peak(answers) + log_multiplicity(answers)
        return jnp.exp(of_base[:, None] + of_run)

    return jax.lax.map(lambda given: table(*given), (tasks, runs))


def check(
    cells: pd.DataFrame,
    tasks: Float[np.ndarray, "D 3"],
    runs: Float[np.ndarray, "D 3"],
    rng: np.random.Generator,
    *,
    is_retest: bool,
) -> Check:
    """Return the deviations of one run's counts from what draws of its posterior predict.

    Args:
        cells: the run's rows of `Paired.repeats`.
        tasks: scores of the task; the first `NUM_REPLICATES` draws are used.
        runs: scores of the run.
        rng: of the replicates.
        is_retest: whether the run is the base itself, so that its distance from it means something.
    """
    found = counted(cells)
    if found is None:
        return Check(np.full(4, np.nan), np.nan, 0.0)
    n_base, n_run = (size - 1 for size in found.counts.shape)
    base, answers = (patterns_of(n, found.inverse_choices, coarse(n + 1)) for n in (n_base, n_run))
    tables = _tables(tasks[:NUM_REPLICATES], runs[:NUM_REPLICATES], base, answers)
    tables = tables[:, : n_base + 1, : n_run + 1]
    deviations = [
        _deviation(part(found.counts), part(tables), rng)
        for part in (_base_counts, _together, lambda t: t[..., -1, :], lambda t: t[..., 0, :])
    ]
    from_base = np.nan
    if is_retest:
        unchanged = np.tile(_UNCHANGED, (len(tables), 1))
        null = _tables(tasks[:NUM_REPLICATES], unchanged, base, answers)
        from_base = _deviation(_together(found.counts), _together(null[:, : n_base + 1, : n_run + 1]), rng)
    return Check(np.array(deviations), from_base, found.share)


def _base_counts(table: Float[np.ndarray, "*d b r"]) -> Float[np.ndarray, "*d b"]:
    return table.sum(axis=-1)


def _together(table: Float[np.ndarray, "*d b r"]) -> Float[np.ndarray, "*d c"]:
    """Sum a table over coarse bins of the shares that are right: none, less than half, half, more, all."""
    for axis in (-1, -2):
        n = table.shape[axis] - 1
        bins = np.searchsorted(_BINS, np.arange(n + 1) / max(n, 1), side="left")
        member = (bins == np.arange(5)[:, None]).astype(float)
        table = np.moveaxis(np.moveaxis(table, axis, -1) @ member.T, -1, axis)
    return table.reshape(*table.shape[:-2], -1)


def _deviation(
    observed: Float[np.ndarray, "c"], probabilities: Float[np.ndarray, "D c"], rng: np.random.Generator
) -> float:
    """Return the deviation of counts given their total; NaN where there are too few items or cells."""
    total = observed.sum()
    probabilities = np.maximum(probabilities, 1e-12)
    probabilities = probabilities / probabilities.sum(axis=-1, keepdims=True)
    common = total * probabilities.mean(axis=0) >= _LEAST_EXPECTED
    if total < 10.0 or common.sum() < 2:
        return np.nan
    rest = ~common

    def grouped(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values[..., common], values[..., rest].sum(axis=-1, keepdims=True)], axis=-1)

    probabilities, observed = grouped(probabilities), grouped(observed)
    probabilities = np.maximum(probabilities, 1e-9)
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    replicated = rng.multinomial(round(total), probabilities)
    expected = total * probabilities
    # Where hardly anything is expected one item must not decide.
    distance = [
        np.sum(np.square(counts - expected) / np.maximum(expected, 0.5), axis=-1)
        for counts in (observed, replicated)
    ]
    freedom = max(len(observed) - 1.0, 1.0)
    spread = max(float(np.std(distance[1])), np.sqrt(2.0 * freedom))
    return float((distance[0].mean() - freedom) / spread)
