"""Log-likelihoods of many runs of a task at many values of the unknowns: what the fast path calls."""

from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from inference.engine.programs import traced_alone
from inference.measurement.evals.cells import TaskCells
from inference.measurement.evals.item_integral import (
    Numbers,
    answers_side,
    base_side,
    drifted,
    log_base,
    log_cells,
    log_conditional,
    log_peak,
)
from inference.measurement.evals.prior import run_of, task_of
from mixture_models.accel.compiler import compiler_options
from mixture_models.types import AnyArray


def compiled(function: Callable[..., object]) -> Callable[..., AnyArray]:
    """Compile a function in float64, at its first call with such shapes; threads may call it side by side.

    It takes and returns arrays of NumPy, in any pytree.
    """
    first, known = Lock(), set()

    @cache
    def jitted() -> Callable[..., object]:
        return jax.jit(traced_alone(function), compiler_options=compiler_options())

    def run(*args: object) -> AnyArray:
        # JAX's settings are those of a thread.
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, jitted()(*args))

    def call(*args: object) -> AnyArray:
        shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(args))
        if shapes not in known:
            # Threads that need it at once would each compile it.
            with first:
                found = run(*args)
                known.add(shapes)
                return found
        return run(*args)

    return call


@compiled
def of_base(cells: TaskCells, tasks: Float[Array, "S 3"]) -> Float[Array, "S"]:
    """Return the log-likelihood of the base's patterns at scores of the task."""
    return jax.vmap(lambda s: log_base(task_of(s), cells.base) @ cells.base_counts)(tasks)


def _at_lane(cells: TaskCells, task_scores: Array) -> Callable[[Array, Array], Array]:
    """Return the function that gives log probabilities of all cells at one (δ, τ) and several m."""
    task = task_of(task_scores)
    side = base_side(task, cells.base)
    peaks = log_peak(cells.answers)[cells.of_run]

    def at_pair(pair: Float[Array, "2"], masses: Float[Array, "M"]) -> Float[Array, "M cell"]:
        scores = jnp.stack([*(jnp.broadcast_to(p, masses.shape) for p in pair), masses], axis=-1)
        run = run_of(scores)
        law = drifted(side, run.drift[0], run.drift_spread[0])

        def at_mass(mass_lost: Array) -> Array:
            outcome = answers_side(task.guess_share, mass_lost, cells.answers)
            return log_conditional(side, law, outcome)[cells.of_base, cells.of_run] + peaks

        return jax.vmap(at_mass)(run.mass_lost)

    return at_pair


@compiled
def of_runs(
    cells: TaskCells,
    tasks: Float[Array, "S 3"],
    pairs: Float[Array, "R S L 2"],
    masses: Float[Array, "R S L M"],
) -> Float[Array, "R S L M"]:
    """Return the log-likelihood of every run given the base.

    It is at scores of the task (S), and for each at some (δ, τ) scores (L) with some scores of m (M).
    """

    def lane(given: tuple[Array, Array, Array]) -> Array:
        at_pair = _at_lane(cells, given[0])

        def of_run(counts: Numbers, pairs: Array, masses: Array) -> Array:
            return jax.vmap(lambda p, m: at_pair(p, m) @ counts)(pairs, masses)

        return jax.vmap(of_run)(cells.counts, given[1], given[2])

    lanes = jax.lax.map(lane, (tasks, jnp.moveaxis(pairs, 1, 0), jnp.moveaxis(masses, 1, 0)))
    return jnp.moveaxis(lanes, 0, 1)


@compiled
def table(
    cells: TaskCells, task: Float[Array, "3"], pairs: Float[Array, "N 2"], masses: Float[Array, "M"]
) -> Float[Array, "R N M"]:
    """Return the same at one task's scores, at (δ, τ) and at m that are the same for all runs."""
    at_pair = _at_lane(cells, task)
    return jnp.moveaxis(jax.lax.map(lambda p: at_pair(p, masses) @ cells.counts.T, pairs), -1, 0)


# Steps of the climb, the lengths of each that are tried, and what scores are moved by for their slopes.
_STEPS, _MOVE = 7, 1e-3
_LENGTHS = np.array([0.0, 1.5, 1.0, 0.7, 0.5, 0.35, 0.25, 0.12, 0.06, 0.03, 0.01, 0.002])


@compiled
def modes(cells: TaskCells, start: Float[Array, "R 6"]) -> tuple[Float[Array, "R 6"], Float[Array, "R 6 6"]]:
    """Climb to each run's mode of task (3), δ, τ and m scores; return it and the inverse information there.

    The information is the items' squared slopes of their log-likelihood, and the prior's. Slopes are central
    differences: they are exact to 1e-6, and compile in a fraction of the time of derivatives.
    """

    def log_items(scores: Float[Array, "6"]) -> Float[Array, "cell+p"]:
        task, run = task_of(scores[:3]), run_of(scores[3:])
        of_base = log_base(task, cells.base)
        of_cells = log_cells(task, run, cells.base, cells.answers, cells.of_base, cells.of_run)
        return of_cells + of_base[cells.of_base]

    moves = _MOVE * jnp.concatenate([jnp.eye(6), -jnp.eye(6)])

    def climb(given: tuple[Array, Array]) -> tuple[Array, Array]:
        start, counts = given

        # Slopes and lengths take turns in one body, so that what is expensive is compiled once.
        def turn(state: _Climb, is_slopes: Array) -> tuple[_Climb, None]:
            along = jnp.clip(state.scores + _LENGTHS[:, None] * state.direction, -6.0, 6.0)
            points = jnp.where(is_slopes, state.scores + moves, along)
            values = jax.vmap(log_items)(points)
            of_items = (values[:6] - values[6:]) / (2.0 * _MOVE)
            information = (of_items * counts) @ of_items.T + jnp.eye(6)
            direction = jnp.linalg.solve(information, of_items @ counts - state.scores)
            heights = values @ counts - 0.5 * jnp.sum(points * points, axis=-1)
            best = points[jnp.argmax(jnp.where(jnp.isfinite(heights), heights, -jnp.inf))]
            learnt = _Climb(state.scores, jnp.clip(direction, -2.0, 2.0), information)
            moved = _Climb(best, state.direction, state.information)
            return jax.tree.map(lambda x, y: jnp.where(is_slopes, x, y), learnt, moved), None

        turns = jnp.asarray([True, False] * _STEPS + [True])
        found, _ = jax.lax.scan(turn, _Climb(start, jnp.zeros(6), jnp.eye(6)), turns)
        return found.scores, jnp.linalg.inv(found.information)

    return jax.lax.map(climb, (start, cells.counts))


class _Climb(NamedTuple):
    """Where a climb stands, where it goes, and the information where it last looked."""

    scores: Float[Array, "6"]
    direction: Float[Array, "6"]
    information: Float[Array, "6 6"]
