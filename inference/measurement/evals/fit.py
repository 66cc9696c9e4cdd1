"""Draws of all runs that have repeats: tasks side by side, and the runs of one in chunks.

What is learnt and drawn of a task is kept, within `inference.storage.kept.keeping`: an interrupted call goes
on.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from inference.engine.chunks import num_threads, run_together
from inference.measurement.evals import fast, nuts
from inference.measurement.evals.cells import TaskCells, coarse, padded, task_cells
from inference.measurement.evals.model import repeats_model
from inference.measurement.evals.pooling import Groups, Pooled, pool
from inference.measurement.posterior.laplace import MOST_K_HAT
from inference.storage import kept

# Runs of a chunk: the least of these that holds all of a task, or the last.
_CHUNKS = (1, 4, 16)


class TaskDraws(NamedTuple):
    """Draws of the runs of one task.

    Attributes:
        runs: their numbers, rows of `Paired.runs`.
        cells: of the task.
        task_scores: of each run's draws: the same for all runs but those that NUTS has drawn.
        run_scores: of (δ, τ, m).
        method: ``"laplace"`` or ``"nuts"``, of each run.
        k_hat: of the fast path; NaN where NUTS alone was asked for.
        efficiency: effective share of the fast path's proposals.
        r_hat: of NUTS, NaN elsewhere, as the next two.
        ess: smallest effective sample size.
        divergences: divergent transitions.
    """

    runs: np.ndarray
    cells: TaskCells
    task_scores: Float[np.ndarray, "R D 3"]
    run_scores: Float[np.ndarray, "R D 3"]
    method: np.ndarray
    k_hat: Float[np.ndarray, "R"]
    efficiency: Float[np.ndarray, "R"]
    r_hat: Float[np.ndarray, "R"]
    ess: Float[np.ndarray, "R"]
    divergences: Float[np.ndarray, "R"]


def fit_repeats(
    repeats: pd.DataFrame,
    runs: pd.DataFrame,
    new_tasks: Sequence[str],
    *,
    method: str,
    seed: int,
    report: Callable[[int], object],
) -> list[TaskDraws]:
    """Return draws of every task whose runs have repeats.

    Args:
        repeats: cells, as `Paired.repeats`.
        runs: those of kind ``"repeats"``, rows of `Paired.runs`.
        new_tasks: tasks that are not pooled with the others.
        method: ``"auto"``, ``"laplace"`` or ``"nuts"``.
        seed: of all random numbers.
        report: is told of how many runs a step was done; there are two steps a run.
    """
    by_task = [(task, frame.index.to_numpy()) for task, frame in runs.groupby("task", sort=False)]
    lanes = fast.num_lanes(len(runs))
    all_cells = [_of_few_shapes(task_cells(repeats, numbers)) for _, numbers in by_task]
    most = max(len(numbers) for _, numbers in by_task)
    size = next((size for size in _CHUNKS if size >= most), _CHUNKS[-1])
    chunks = [_chunks(cells, size) for cells in all_cells]
    folder = kept.folder()
    with ThreadPoolExecutor(num_threads()) as pool:

        def law(place: int, report: Callable[[int], None]) -> fast.Law:
            facts = ("law of a task", chunks[place], lanes, seed, place)
            rng = np.random.default_rng([seed, place, 0])
            learnt = fast.Law(
                **kept.arrays(
                    facts, lambda: fast.learn(chunks[place], lanes, rng, pool)._asdict(), folder=folder
                )
            )
            report(len(by_task[place][1]))
            return learnt

        places = range(len(by_task))
        laws = run_together([partial(law, place) for place in places], nullcontext, report)
        pooled = _pooled(runs, laws, by_task, new_tasks, lanes, np.random.default_rng([seed, len(laws)]))

        def draws(place: int, report: Callable[[int], None]) -> TaskDraws:
            numbers = by_task[place][1]
            prior = None if pooled is None else _prior(pooled, runs, numbers, len(laws[place].mean))
            facts = ("draws of a task", chunks[place], laws[place], prior, lanes, seed, place, method)

            def compute() -> dict[str, np.ndarray]:
                rng = np.random.default_rng([seed, place, 1])
                found = fast.draw(chunks[place], laws[place], prior, lanes, rng, pool)
                return _with_nuts(all_cells[place], found, method, seed)

            drawn = kept.arrays(facts, compute, folder=folder)
            report(len(numbers))
            return TaskDraws(numbers, all_cells[place], **drawn)

        return run_together([partial(draws, place) for place in places], nullcontext, report)


def _chunks(cells: TaskCells, size: int) -> list[TaskCells]:
    """Return the runs of a task in parts of so many."""
    shape = (len(cells.base.num), len(cells.answers.num), len(cells.of_base), size)
    return [
        padded(cells._replace(counts=cells.counts[start : start + size]), *shape)
        for start in range(0, len(cells.counts), size)
    ]


def _of_few_shapes(cells: TaskCells) -> TaskCells:
    """Return cells of one of few shapes: what is compiled for a shape serves all tasks that have it."""
    base, answers, num = (coarse(len(a)) for a in (cells.base.num, cells.answers.num, cells.of_base))
    return padded(cells, base, answers, num, len(cells.counts))


def groups_of(runs: pd.DataFrame, new_tasks: Sequence[str]) -> Groups:
    """Return which runs belong together; new tasks are an arm of their own."""
    keys = runs.assign(new=runs["task"].isin(list(new_tasks)), checkpoint=runs["checkpoint"].astype(str))
    arm = keys.groupby(["arm", "checkpoint", "new"], sort=False).ngroup().to_numpy()
    return Groups(arm, keys.groupby(["task", "arm", "checkpoint"], sort=False).ngroup().to_numpy())


def _pooled(
    runs: pd.DataFrame,
    laws: Sequence[fast.Law],
    by_task: Sequence[tuple[str, np.ndarray]],
    new_tasks: Sequence[str],
    lanes: int,
    rng: np.random.Generator,
) -> Pooled | None:
    """Return the pooled law of all runs, in their order; None where no two belong together."""
    numbers = np.concatenate([of_task for _, of_task in by_task])
    rows = runs.loc[numbers]
    taken = ~rows["is_retest"].to_numpy(bool)
    if not taken.any():
        return None
    groups = groups_of(rows[taken], new_tasks)
    if groups.alone:
        return None
    of_runs = [slice(0, len(of_task)) for _, of_task in by_task]
    mean = np.concatenate([law.mean[s, 3:] for law, s in zip(laws, of_runs, strict=True)])
    covariance = np.concatenate([law.covariance[s, 3:, 3:] for law, s in zip(laws, of_runs, strict=True)])
    found = pool(mean[taken], covariance[taken], groups, lanes, rng)
    # In the order of `runs`; what is not pooled keeps the standard prior.
    means, sds = np.zeros((lanes, len(runs), 3)), np.ones((lanes, len(runs), 3))
    place = runs.index.get_indexer(numbers[taken])
    means[:, place], sds[:, place] = found.mean, found.sd[:, None]
    return Pooled(means, sds, found.shares)


def _prior(pooled: Pooled, runs: pd.DataFrame, numbers: np.ndarray, size: int) -> fast.Prior:
    place = runs.index.get_indexer(numbers)
    mean, sd = (np.moveaxis(a[:, place], 0, 1) for a in (pooled.mean, pooled.sd))
    missing = ((0, size - len(place)), (0, 0), (0, 0))
    return fast.Prior(np.pad(mean, missing), np.pad(sd, missing, constant_values=1.0))


def _with_nuts(cells: TaskCells, drawn: fast.Draws, method: str, seed: int) -> dict[str, np.ndarray]:
    """Draw anew, by NUTS and each by itself, the runs of which the fast path cannot be trusted."""
    count = len(drawn.runs)
    tasks, runs = np.repeat(drawn.tasks[None], count, axis=0), drawn.runs.copy()
    methods, k_hat = ["laplace"] * count, drawn.k_hat
    r_hat, ess, divergences = (np.full(count, np.nan) for _ in range(3))
    bad = np.ones(count, bool) if method == "nuts" else (k_hat > MOST_K_HAT) & (method == "auto")
    for r in np.flatnonzero(bad):
        found = nuts.sample(repeats_model, fast.NUM_DRAWS, seed, cells, cells.counts[r])
        tasks[r], runs[r] = nuts.scores_of(found)
        methods[r], r_hat[r], ess[r], divergences[r] = "nuts", found.r_hat, found.ess, found.divergences
    return {
        "task_scores": tasks,
        "run_scores": runs,
        "method": np.array(methods),
        "k_hat": k_hat,
        "efficiency": drawn.efficiency,
        "r_hat": r_hat,
        "ess": ess,
        "divergences": divergences,
    }
