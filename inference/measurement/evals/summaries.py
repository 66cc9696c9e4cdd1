"""Draws of what a reader asks for, of every run, from the draws of the unknowns."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from inference.engine.chunks import num_threads
from inference.measurement.evals.cells import TaskCells
from inference.measurement.evals.choices import ChoiceDraws
from inference.measurement.evals.derived import derive
from inference.measurement.evals.fit import TaskDraws
from inference.measurement.evals.item_integral import (
    NODES,
    Patterns,
    answers_side,
    base_side,
    drifted,
    log_cells,
    log_multiplicity,
    success,
)
from inference.measurement.evals.likelihood import compiled
from inference.measurement.evals.pairing import CELLS
from inference.measurement.evals.prior import run_of, task_of

#: Variables of ``/posterior`` of runs with repeats, and of runs with one answer of several choices.
REPEATS = ("old_weight", "drift", "drift_spread", "retention", "accuracy", "accuracy_change", "lost", "won")
CHOICES = ("known_kept", "forgotten", "acquired", "persistence", "accuracy", "accuracy_change", "lost", "won")

# Draws at which the items that were asked are looked at one by one: fewer where there are many runs.
_AT_ITEMS, _AT_ITEMS_OF_MANY, _MANY = 128, 16, 64


@compiled
def _summaries(
    tasks: Float[Array, "D 3"], runs: Float[Array, "D 3"], inverse_choices: Array
) -> dict[str, Float[Array, "D"]]:
    def one(given: tuple[Array, Array]) -> dict[str, Array]:
        run = run_of(given[1])
        kept = 1.0 - run.mass_lost
        own = {"old_weight": kept, "drift": run.drift, "drift_spread": run.drift_spread, "retention": kept}
        return own | derive(task_of(given[0]), run, inverse_choices)._asdict()

    return jax.lax.map(one, (tasks, runs))


@compiled
def _of_items(
    cells: TaskCells, counts: Float[Array, "cell"], tasks: Float[Array, "D 3"], runs: Float[Array, "D 3"]
) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
    """Return mean and variance, given the answers, of the mean change of the items that were asked."""

    def one(given: tuple[Array, Array]) -> tuple[Array, Array]:
        task, run = task_of(given[0]), run_of(given[1])
        side = base_side(task, cells.base)
        ends = jnp.array([-jnp.inf, jnp.inf])
        outcome = answers_side(task.guess_share, run.mass_lost, cells.answers)

        def right(patterns: Patterns, mass_lost: Array, x: Array) -> Array:
            guess = (task.guess_share * patterns.inverse_choices)[:, None]
            return patterns.at_choices(success(guess, mass_lost, x)[0])

        after = right(cells.answers, run.mass_lost, jnp.concatenate([jnp.asarray(NODES), ends]))
        before, at_ends = (right(cells.base, jnp.zeros(()), x) for x in (jnp.asarray(NODES), ends))

        def mean_of(power_before: int, power_after: int) -> Array:
            weighted = side._replace(
                on_grid=side.on_grid * before**power_before, tails=side.tails * at_ends**power_before
            )
            law = drifted(weighted, run.drift, run.drift_spread)
            return (law @ (outcome * after**power_after).T)[cells.of_base, cells.of_run]

        total = jnp.maximum(mean_of(0, 0), 1e-12)
        mean = (mean_of(0, 1) - mean_of(1, 0)) / total
        square = (mean_of(0, 2) - 2.0 * mean_of(1, 1) + mean_of(2, 0)) / total
        num = counts.sum()
        variance = jnp.maximum(square - mean**2, 0.0)
        return counts @ mean / num, counts @ variance / num**2

    return jax.lax.map(one, (tasks, runs))


def of_repeats(
    drawn: TaskDraws, num_runs: int, rng: np.random.Generator
) -> dict[str, Float[np.ndarray, "R D"]]:
    """Return draws of `REPEATS`, and of the change of accuracy on the items that were asked."""
    cells, at = drawn.cells, _AT_ITEMS if num_runs <= _MANY else _AT_ITEMS_OF_MANY
    of_patterns = cells.answers.inverse_choices[cells.answers.choices]
    inverse = [float(counts @ of_patterns[cells.of_run] / counts.sum()) for counts in cells.counts]

    def of_run(r: int) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        tasks, runs = drawn.task_scores[r], drawn.run_scores[r]
        at_items = _of_items(cells, cells.counts[r], tasks[:at], runs[:at])
        return _summaries(tasks, runs, np.asarray(inverse[r])), at_items

    with ThreadPoolExecutor(num_threads()) as pool:
        found = list(pool.map(of_run, range(len(cells.counts))))
    values = {name: np.stack([run[name] for run, _ in found]) for name in REPEATS}
    num = drawn.run_scores.shape[1]
    which = np.arange(num) % at
    values["accuracy_change_of_items"] = np.stack(
        [mean[which] + np.sqrt(variance[which]) * rng.standard_normal(num) for _, (mean, variance) in found]
    )
    return values


def of_choices(drawn: ChoiceDraws, choices: pd.DataFrame, runs: np.ndarray) -> dict[str, np.ndarray]:
    """Return draws of `CHOICES`: an item that is not known is right with probability 1/k."""
    items = choices[list(CELLS)].sum(axis=1)
    guesses = (items / choices["num_choices"]).groupby(choices["run"]).sum()
    guess = (guesses / items.groupby(choices["run"]).sum()).loc[runs].to_numpy()[:, None]
    kept, forgotten, acquired, _ = np.moveaxis(drawn.shares, -1, 0)
    known = kept + acquired
    return {
        "known_kept": kept,
        "forgotten": forgotten,
        "acquired": acquired,
        "persistence": drawn.persistence,
        "accuracy": known + (1.0 - known) * guess,
        "accuracy_change": (acquired - forgotten) * (1.0 - guess),
        "lost": forgotten * (1.0 - guess),
        "won": acquired * (1.0 - guess),
    }


@compiled
def log_likelihood(
    cells: TaskCells, tasks: Float[Array, "D 3"], runs: Float[Array, "D 3"]
) -> Float[Array, "D cell"]:
    """Return the log probability of the run's answers given the base's, of an item of each cell."""
    many = log_multiplicity(cells.answers)[cells.of_run]

    def one(given: tuple[Array, Array]) -> Array:
        task, run = task_of(given[0]), run_of(given[1])
        return log_cells(task, run, cells.base, cells.answers, cells.of_base, cells.of_run) + many

    return jax.lax.map(one, (tasks, runs), batch_size=16)
