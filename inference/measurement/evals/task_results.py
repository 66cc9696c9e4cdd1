"""What is told of the runs of one task: draws, statistics of each run, items by the base's right answers."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from inference.intervals import SAMPLE_DIMS, interval
from inference.measurement.evals import checks, classical, fast, nuts, planning, summaries, verdict
from inference.measurement.evals.choices import ChoiceDraws, draw_choices
from inference.measurement.evals.fit import TaskDraws
from inference.measurement.evals.model import choice_probabilities, choices_model
from inference.measurement.evals.pairing import CELLS
from inference.measurement.posterior.laplace import MOST_K_HAT
from inference.storage import kept


class TaskResults(NamedTuple):
    """What is told of the runs of one task.

    Attributes:
        runs: their numbers, rows of `Paired.runs`.
        values: draws of every variable.
        stats: a row a run, by the names of ``/sample_stats``.
        base_counts: a row a number of the base's right answers.
        likelihoods: the run's number of some of its items, and their log-likelihoods.
    """

    runs: np.ndarray
    values: dict[str, Float[np.ndarray, "R D"]]
    stats: list[dict[str, object]]
    base_counts: list[dict[str, object]]
    likelihoods: list[tuple[np.ndarray, np.ndarray]]


def of_repeats(
    drawn: TaskDraws,
    of_run: Mapping[int, pd.DataFrame],
    runs: pd.DataFrame,
    num_kept: int,
    seed: int,
    report: Callable[[int], None],
) -> TaskResults:
    """Return what is told of runs that have repeats.

    Args:
        drawn: their draws.
        of_run: rows of `Paired.repeats` of each run.
        runs: all runs.
        num_kept: items of each run whose log-likelihood is kept.
        seed: of all random numbers.
        report: is told of how many runs this was done.
    """
    first = int(drawn.runs[0])
    rng = np.random.default_rng([seed, len(runs), first])
    values = summaries.of_repeats(drawn, int((runs["kind"] == "repeats").sum()), rng)
    widths = _widths(values["old_weight"])
    stats = [
        _repeat_stats(drawn, r, widths[r], of_run[number], rng, is_retest=bool(runs["is_retest"][number]))
        for r, number in enumerate(drawn.runs)
    ]
    base_counts = _base_counts(drawn, of_run, str(runs["task"][first]), seed)
    likelihoods = _item_likelihoods(drawn, num_kept) if num_kept else []
    report(len(drawn.runs))
    return TaskResults(drawn.runs, values, stats, base_counts, likelihoods)


def of_choices(
    choices: pd.DataFrame, runs: pd.DataFrame, num_kept: int, method: str, seed: int
) -> Iterator[TaskResults]:
    """Give what is told of runs with one answer an item, task by task.

    Args:
        choices: rows of `Paired.choices`.
        runs: all runs.
        num_kept: items of each run whose log-likelihood is kept.
        method: ``"auto"``, ``"laplace"`` or ``"nuts"``.
        seed: of all random numbers.
    """
    for numbers, drawn, frame in _choice_draws(choices, runs, method, seed):
        values = summaries.of_choices(drawn, frame, numbers)
        stats = [_choice_stats(drawn, r, frame[frame["run"] == number]) for r, number in enumerate(numbers)]
        likelihoods = _choice_likelihoods(drawn, frame, numbers, num_kept) if num_kept else []
        yield TaskResults(numbers, values, stats, [], likelihoods)


def _base_counts(
    drawn: TaskDraws, of_run: Mapping[int, pd.DataFrame], task: str, seed: int
) -> list[dict[str, object]]:
    """Return a row a number of the base's right answers, of a task of which it has several an item."""
    numbers = [float(of_run[number]["num_items"].sum()) for number in drawn.runs]
    r = int(np.argmax(numbers))
    found = checks.base_counts(of_run[drawn.runs[r]], drawn.task_scores[r], np.random.default_rng([seed, r]))
    if found is None or len(found.observed) < 3:
        return []
    limits = interval(xr.DataArray(found.replicated[None], dims=(*SAMPLE_DIMS, "right")))
    low, high = (limits.sel(ci_bound=bound).to_numpy() for bound in ("lower", "upper"))
    columns = zip(found.observed, found.predicted, low, high, strict=True)
    return [
        {"task": task, "num_base": len(found.observed) - 1, "right_base": right}
        | dict(zip(("observed", "predicted", "predicted_lower", "predicted_upper"), row, strict=True))
        for right, row in enumerate(columns)
    ]


def _widths(draws: Float[np.ndarray, "R D"]) -> Float[np.ndarray, "R"]:
    """Return the width of the interval of each run's draws."""
    limits = interval(xr.DataArray(draws[:, None], dims=("run", *SAMPLE_DIMS)))
    return (limits.sel(ci_bound="upper") - limits.sel(ci_bound="lower")).to_numpy()


def _repeat_stats(
    drawn: TaskDraws,
    r: int,
    width: float,
    cells: pd.DataFrame,
    rng: np.random.Generator,
    *,
    is_retest: bool,
) -> dict[str, object]:
    found = checks.check(cells, drawn.task_scores[r], drawn.run_scores[r], rng, is_retest=is_retest)
    items = cells["num_items"].to_numpy(float)
    right = cells[["right_base", "right_run"]].to_numpy(float)
    scores = np.concatenate([drawn.task_scores[r], drawn.run_scores[r]], axis=-1).mean(axis=0)
    choices = cells["num_choices"].to_numpy(float)
    stats = {
        "kind": "repeats",
        "method": str(drawn.method[r]),
        "k_hat": drawn.k_hat[r],
        "efficiency": drawn.efficiency[r],
        "r_hat": drawn.r_hat[r],
        "ess": drawn.ess[r],
        "divergences": drawn.divergences[r],
        "num_items": items.sum(),
        "num_answers": float(np.average(np.minimum(cells["num_base"], cells["num_run"]), weights=items)),
        "mean_choices": float(np.nanmean(choices)) if np.isfinite(choices).any() else np.nan,
        "fractional": int(not np.allclose(right % 1.0, 0.0)),
        "mass_lost_width": width,
        "deviation_from_base": found.null_deviation,
        "share_compared": found.share,
    }
    stats |= {f"deviation_{n}": z for n, z in zip(checks.STATISTICS, found.deviations, strict=True)}
    stats["answers_wanted"] = np.nan
    if stats["num_answers"] <= 1.0 or stats["mass_lost_width"] > verdict.WIDE:
        inverse = 0.0 if np.isnan(stats["mean_choices"]) else 1.0 / stats["mean_choices"]
        wanted = planning.fewest_answers(scores, items.sum(), inverse, verdict.WIDE)
        if wanted is not None and wanted > stats["num_answers"]:
            stats["answers_wanted"] = float(wanted)
    return stats | classical.of_repeats(cells)._asdict()


def _choice_stats(drawn: ChoiceDraws, r: int, cells: pd.DataFrame) -> dict[str, object]:
    items = cells[list(CELLS)].to_numpy(float).sum(axis=1)
    r_hat, ess, divergences = drawn.by_nuts[r]
    stats = {
        "kind": "choices",
        "method": "nuts" if np.isfinite(r_hat) else "laplace",
        "k_hat": drawn.k_hat[r],
        "efficiency": drawn.efficiency[r],
        "r_hat": r_hat,
        "ess": ess,
        "divergences": divergences,
        "num_items": items.sum(),
        "num_answers": 1.0,
        "mean_choices": float(np.average(cells["num_choices"], weights=items)),
        "fractional": 0,
    }
    return stats | classical.of_choices(cells)._asdict()


def _some(places: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many items, spread evenly over the cells, and the same in every measurement."""
    if len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).astype(int)]


def _item_likelihoods(drawn: TaskDraws, most: int) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for r, number in enumerate(drawn.runs):
        of_cells = summaries.log_likelihood(drawn.cells, drawn.task_scores[r], drawn.run_scores[r])
        places = np.repeat(np.arange(of_cells.shape[1]), drawn.cells.counts[r].astype(int))
        chosen = _some(places, most)
        found.append((np.full(len(chosen), number), of_cells[:, chosen]))
    return found


def _choice_likelihoods(
    drawn: ChoiceDraws, frame: pd.DataFrame, numbers: np.ndarray, most: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for r, number in enumerate(numbers):
        rows = frame[frame["run"] == number]
        p = choice_probabilities(
            drawn.shares[r], drawn.persistence[r], rows["num_choices"].to_numpy(float)
        ).reshape(fast.NUM_DRAWS, -1)
        counts = rows[list(CELLS)].to_numpy(float).ravel()
        places = np.repeat(np.arange(len(counts)), counts.astype(int))
        chosen = _some(places, most)
        found.append((np.full(len(chosen), number), np.log(np.maximum(p, 1e-300))[:, chosen]))
    return found


def _choice_draws(
    choices: pd.DataFrame, runs: pd.DataFrame, method: str, seed: int
) -> Iterator[tuple[np.ndarray, ChoiceDraws, pd.DataFrame]]:
    """Give runs of one answer an item, together those of one task."""
    tasks = runs[runs["kind"] == "choices"].groupby("task", sort=False)
    for task, (_, rows) in enumerate(tasks):
        numbers = rows.index.to_numpy()
        frame = choices[choices["run"].isin(numbers)]
        num_choices = np.unique(frame["num_choices"].to_numpy(float))
        counts = np.zeros((len(numbers), len(num_choices), 5))
        place = {number: i for i, number in enumerate(numbers)}
        of_run = frame["run"].map(place).to_numpy()
        of_group = np.searchsorted(num_choices, frame["num_choices"].to_numpy(float))
        np.add.at(counts, (of_run, of_group), frame[list(CELLS)].to_numpy(float))
        facts = ("draws of choices", counts, num_choices, method, seed, task)
        draw = partial(_drawn_choices, counts, num_choices, method, [seed, task, 2])
        yield numbers, ChoiceDraws(**kept.arrays(facts, draw, folder=kept.folder())), frame


def _drawn_choices(
    counts: np.ndarray, num_choices: np.ndarray, method: str, seed: list[int]
) -> dict[str, np.ndarray]:
    """Draw runs, and anew, by NUTS, those of which importance sampling cannot be trusted."""
    drawn = draw_choices(counts, num_choices, fast.NUM_DRAWS, np.random.default_rng(seed))
    bad = np.ones(len(counts), bool) if method == "nuts" else (drawn.k_hat > MOST_K_HAT) & (method == "auto")
    for r in np.flatnonzero(bad):
        found = nuts.sample(choices_model, fast.NUM_DRAWS, seed[0], num_choices, counts[r])
        drawn.shares[r], drawn.persistence[r] = found.sites["shares"], found.sites["persistence"]
        drawn.by_nuts[r] = found.r_hat, found.ess, found.divergences
    return drawn._asdict()
