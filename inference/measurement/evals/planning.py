"""How well so many items and answers would measure a run: the expected information of the cells."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import stdtrit

from inference.intervals import interval_probability
from inference.measurement.evals.item_integral import (
    Patterns,
    log_base,
    log_cells,
    log_multiplicity,
    patterns_of,
)
from inference.measurement.evals.likelihood import compiled
from inference.measurement.evals.prior import run_of, task_of

#: Answers an item at most that are planned with.
MOST_ANSWERS = 32

_MOVE = 1e-3


def _information(
    scores: Float[Array, "6"], base: Patterns, answers: Patterns, real: Float[Array, "b r"]
) -> tuple[Float[Array, "6 6"], Float[Array, "3 3"]]:
    """Return the information of one item on all scores, and the slopes of (m, δ, τ) on those of the run."""
    of_base, of_run = (a.ravel() for a in jnp.indices(real.shape))

    def log_items(scores: Array) -> Array:
        task = task_of(scores[:3])
        of_cells = log_cells(task, run_of(scores[3:]), base, answers, of_base, of_run)
        return of_cells + log_base(task, base)[of_base]

    moves = _MOVE * jnp.eye(6)
    values = jax.lax.map(log_items, jnp.concatenate([scores + moves, scores - moves]))
    slopes = (values[:6] - values[6:]) / (2.0 * _MOVE)
    many = log_multiplicity(base)[of_base] + log_multiplicity(answers)[of_run]
    probabilities = jnp.exp(log_items(scores) + many) * real.ravel()
    run_slopes = jax.jacfwd(lambda s: jnp.stack(run_of(s)))(scores[3:])
    return (slopes * probabilities) @ slopes.T, run_slopes


_compiled_information = compiled(_information)


def information(
    scores: Float[np.ndarray, "6"], num_base: int, num_run: int, inverse_choices: float
) -> tuple[Float[np.ndarray, "6 6"], Float[np.ndarray, "3 3"]]:
    """Return the information of one item, and the slopes of (m, δ, τ) on the scores of a run.

    Args:
        scores: of task (3) and run (δ, τ, m).
        num_base: answers of the base.
        num_run: answers of the run.
        inverse_choices: 1/k, 0 for free answers.
    """
    size = MOST_ANSWERS + 1
    base, answers = (patterns_of(num, inverse_choices, size) for num in (num_base, num_run))
    real = np.outer(np.arange(size) <= num_base, np.arange(size) <= num_run).astype(float)
    return _compiled_information(scores, base, answers, real)


def expected_width(
    scores: Float[np.ndarray, "6"], num_items: float, num_base: int, num_run: int, inverse_choices: float
) -> float:
    """Return the expected width of the interval of the mass lost, of ArviZ's probability."""
    of_item, slopes = information(scores, num_base, num_run, inverse_choices)
    covariance = np.linalg.inv(num_items * of_item + np.eye(6))[3:, 3:]
    sd = float(np.sqrt(slopes[0] @ covariance @ slopes[0]))
    return 2.0 * float(stdtrit(np.inf, 0.5 + 0.5 * interval_probability())) * sd


def fewest_answers(
    scores: Float[np.ndarray, "6"],
    num_items: float,
    inverse_choices: float,
    width: float,
    tried: Sequence[int] = (2, 4, 8, 16, 32),
) -> int | None:
    """Return how many answers an item, of base and run, make the interval of the mass lost so narrow."""
    for num in tried:
        if expected_width(scores, num_items, num, num, inverse_choices) <= width:
            return num
    return None
