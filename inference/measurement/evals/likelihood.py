"""Log-likelihoods of many runs of a task at many values of the unknowns: what the fast path calls."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from inference.measurement.evals.cells import TaskCells
from inference.measurement.evals.item_integral import (
    answers_side,
    base_side,
    drifted,
    log_base,
    log_conditional,
    log_peak,
)
from inference.measurement.evals.prior import run_of, task_of
from inference.programs import compiler_options, traced_alone


def _compiled(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """Compile a function in float64, at its first call; threads may call it side by side."""

    @cache
    def jitted() -> Callable[..., Any]:
        return jax.jit(traced_alone(function), compiler_options=compiler_options())

    def call(*args: Any) -> np.ndarray:
        # JAX's settings are those of a thread.
        with jax.enable_x64(True):
            return np.asarray(jitted()(*args))

    return call


def _of_base(cells: TaskCells, tasks: Float[Array, "S 3"]) -> Float[Array, "S"]:
    return jax.vmap(lambda s: log_base(task_of(s), cells.base) @ cells.base_counts)(tasks)


def _at_lane(cells: TaskCells, task_scores: Array) -> Callable[[Array, Array], Array]:
    """Return the function that gives log probabilities of all cells at one (δ, τ) and several m."""
    task = task_of(task_scores)
    side = base_side(task, cells.base)
    peaks = log_peak(cells.answers)[cells.of_run]

    def at_pair(pair: Float[Array, "2"], masses: Float[Array, "M"]) -> Float[Array, "M cell"]:
        scores = jnp.stack([masses, *(jnp.broadcast_to(p, masses.shape) for p in pair)], axis=-1)
        run = run_of(scores)
        law = drifted(side, run.drift[0], run.drift_spread[0])

        def at_mass(mass_lost: Array) -> Array:
            outcome = answers_side(task.guess_share, mass_lost, cells.answers)
            return log_conditional(side, law, outcome)[cells.of_base, cells.of_run] + peaks

        return jax.vmap(at_mass)(run.mass_lost)

    return at_pair


def _of_runs(
    cells: TaskCells, tasks: Float[Array, "S 3"], pairs: Float[Array, "R S L 2"], masses: Float[Array, "R S L M"]
) -> Float[Array, "R S L M"]:
    def lane(given: tuple[Array, Array, Array]) -> Array:
        at_pair = _at_lane(cells, given[0])

        def of_run(counts: Array, pairs: Array, masses: Array) -> Array:
            return jax.vmap(lambda p, m: at_pair(p, m) @ counts)(pairs, masses)

        return jax.vmap(of_run)(cells.counts, given[1], given[2])

    lanes = jax.lax.map(lane, (tasks, jnp.moveaxis(pairs, 1, 0), jnp.moveaxis(masses, 1, 0)))
    return jnp.moveaxis(lanes, 0, 1)


def _table(
    cells: TaskCells, task: Float[Array, "3"], pairs: Float[Array, "N 2"], masses: Float[Array, "M"]
) -> Float[Array, "R N M"]:
    at_pair = _at_lane(cells, task)
    return jnp.moveaxis(jax.lax.map(lambda p: at_pair(p, masses) @ cells.counts.T, pairs), -1, 0)


#: Log-likelihood of the base's patterns at scores of the task.
of_base = _compiled(_of_base)

#: Log-likelihood of every run given the base, at scores of the task (S), for each some (δ, τ) scores (L), and
#: for each some scores of m (M).
of_runs = _compiled(_of_runs)

#: The same at one task's scores, at (δ, τ) scores and scores of m that are the same for all runs.
table = _compiled(_table)
