"""Forgetting from evaluation logs: a posterior of every run that was asked the same items as the base."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from tqdm.auto import tqdm

from inference import results
from inference.intervals import SAMPLE_DIMS, interval
from inference.measurement.evals import checks, classical, fast, nuts, planning, summaries, verdict
from inference.measurement.evals.choices import ChoiceDraws, draw_choices
from inference.measurement.evals.dependence import Dependence
from inference.measurement.evals.fit import TaskDraws, fit_repeats
from inference.measurement.evals.model import choice_probabilities
from inference.measurement.evals.pairing import CELLS, PARTLY, Paired, order_of, pair
from inference.measurement.evals.readers import read
from inference.measurement.evals.variables import VARIABLES
from inference.measurement.posterior.laplace import MOST_K_HAT
from inference.storage import kept
from mixture_models.validation import InputError, integer, one_of

results.register(**VARIABLES)

#: How the posterior is computed.
METHODS = ("auto", "laplace", "nuts")

#: Dims of a run.
RUN_DIMS = ("task", "arm", "seed", "checkpoint")

_CHAINS = 4

# Items whose log-likelihood is kept where nothing else is said: those of all runs, if they are no more.
_FEW_ITEMS = 5000


def measure_evals(
    logs: Any,
    *,
    base: str | int = "base",
    metric: str | Sequence[str] = (),
    filter: str | Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    num_choices: int | None = None,
    new_tasks: Sequence[str] = (),
    seed: int = 0,
    method: str = "auto",
    num_log_likelihood_items: int | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """Return the posterior of what checkpoints have forgotten, from graded answers of theirs and of the base.

    Args:
        logs: paths, globs or tables, or a mapping of runs' names to them, as `readers.read` takes them; so
            are the settings down to ``num_choices``.
        base: name of the base, as an arm or as a checkpoint.
        metric: names of metrics, of which the first that a log has is read.
        filter: names of lm-evaluation-harness' filters, in the same way.
        columns: names of a table's columns, by that of the long form.
        num_choices: how many answers every item of a table offers.
        new_tasks: tasks that were learnt, as in `measure_paired`, like the settings that follow.
        seed: of all random numbers.
        method: ``"auto"``, ``"laplace"`` or ``"nuts"``.
        num_log_likelihood_items: items of each run whose log-likelihood is kept.
        progress: whether to show progress bars.

    Returns:
        The DataTree of `measure_paired`, with ``/left_out``: items that could not be paired, with reasons.
        Its attribute ``metrics`` is the metric that was read of each task, as JSON.

    Raises:
        InputError: logs that cannot be read or paired, or an unusable setting.
    """
    one_of("method", method, METHODS)
    answers = read(
        logs,
        base=base,
        metric=metric,
        filter=filter,
        columns=columns,
        num_choices=num_choices,
        progress=progress,
    )
    metrics = json.dumps(answers.attrs["metrics"], ensure_ascii=False)
    paired = pair(answers, base=base)
    del answers
    tree = measure_paired(
        paired,
        new_tasks=new_tasks,
        seed=seed,
        method=method,
        num_log_likelihood_items=num_log_likelihood_items,
        progress=progress,
    )
    tree.attrs["metrics"] = metrics
    if len(paired.left_out):
        tree["left_out"] = xr.DataTree(results.describe(_left_out(paired.left_out)))
    return tree


def measure_paired(
    paired: Paired,
    *,
    new_tasks: Sequence[str] = (),
    seed: int = 0,
    method: str = "auto",
    num_log_likelihood_items: int | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """Return the posterior of what every run has forgotten, from answers that are paired with the base's.

    With repeats, item i of a task has the logit a_i ~ N(μ, σ²) under the base and b_i = a_i + δ + τ ε_i in
    the run; the base is right with probability g + (1-g) s(a_i), the run with (1-m) (g + (1-g) s(b_i)) + m g.
    With one answer of several choices an item is known or not before and after (KK, KU, UK, UU), and a guess
    persists with probability s.

    Args:
        paired: the cells.
        new_tasks: tasks that were learnt: neither pooled with the others nor in the mean over tasks.
        seed: of all random numbers.
        method: ``"laplace"`` (fast), ``"nuts"``, or ``"auto"``: fast, and NUTS for the runs whose k̂ says that
            the fast path cannot be trusted.
        num_log_likelihood_items: items of each run whose log-likelihood is kept, for ``az.loo``; None keeps
            all if there are at most 5,000 in all runs, else none.
        progress: whether to show a progress bar.

    Returns:
        DataTree with ``/posterior`` (dims chain, draw, task, arm, seed, checkpoint; NaN where there is no
        such run), ``/over_tasks``, the mean over the old tasks of each run, ``/over_seeds``, that over the
        training seeds of an arm, ``/sample_stats`` with diagnostics, older measures and the verdict in
        ``words``, ``/base_counts``, the shares of items by the base's right answers beside what is predicted,
        ``/observed_data``, the cells, ``/constant_data``, the new tasks, and ``/log_likelihood``
        of items; described in docs/evals.md.

    Raises:
        InputError: an unusable setting, or a new task that is not there.
    """
    one_of("method", method, METHODS)
    seed = integer("seed", seed, at_least=0)
    runs = paired.runs.reset_index(drop=True)
    unknown = sorted(set(new_tasks) - set(runs["task"]))
    if unknown:
        raise InputError(f"new_tasks must name tasks of the logs; got {', '.join(unknown)}")
    rng = np.random.default_rng([seed, len(runs)])
    values: dict[str, np.ndarray] = {}
    stats: list[dict[str, Any]] = [{} for _ in range(len(runs))]
    likelihoods: list[tuple[np.ndarray, np.ndarray]] = []
    base_counts: list[dict[str, Any]] = []
    num_kept = _kept_items(paired, runs, num_log_likelihood_items)
    with tqdm(total=3 * len(runs), desc="measuring", unit="step", disable=not progress) as bar:
        repeated = runs[runs["kind"] == "repeats"]
        if len(repeated):
            of_run = dict(list(paired.repeats.groupby("run")))
            settings = {"method": method, "seed": seed, "report": bar.update}
            for drawn in fit_repeats(paired.repeats, repeated, new_tasks, **settings):
                found = summaries.of_repeats(drawn, len(repeated), rng)
                _put(values, found, drawn.runs, len(runs))
                base_counts += _base_counts(drawn, of_run, str(runs["task"][drawn.runs[0]]), seed)
                widths = _widths(found["old_weight"])
                for r, number in enumerate(drawn.runs):
                    is_retest = bool(runs["is_retest"][number])
                    stats[number] = _repeat_stats(
                        drawn, r, widths[r], of_run[number], rng, is_retest=is_retest
                    )
                if num_kept:
                    likelihoods += _item_likelihoods(drawn, num_kept)
                bar.update(len(drawn.runs))
        for numbers, of_choices, frame in _choice_draws(paired.choices, runs, method, seed):
            _put(values, summaries.of_choices(of_choices, frame, numbers), numbers, len(runs))
            for r, number in enumerate(numbers):
                stats[number] = _choice_stats(of_choices, r, frame[frame["run"] == number])
            if num_kept:
                likelihoods += _choice_likelihoods(of_choices, frame, numbers, num_kept)
            bar.update(3 * len(numbers))
    _say(stats, runs, paired.left_out)
    settings = {
        "seed": seed,
        "method": method,
        "new_tasks": list(new_tasks),
        "num_log_likelihood_items": num_kept,
    }
    tree = _tree(paired, runs, values, stats, likelihoods, settings)
    if base_counts:
        columns = pd.DataFrame(base_counts)
        rows = {
            name: ("row", column.to_numpy(str if name == "task" else None))
            for name, column in columns.items()
        }
        tree["base_counts"] = xr.DataTree(results.describe(xr.Dataset(rows)))
    return tree


def _base_counts(
    drawn: TaskDraws, of_run: Mapping[int, pd.DataFrame], task: str, seed: int
) -> list[dict[str, Any]]:
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


def _left_out(frame: pd.DataFrame) -> xr.Dataset:
    """Return what is left out, a row a task, run and reason, with names as text."""
    text = [name for name in frame if name != "num_items"]
    columns = {name: ("row", frame[name].astype(str).to_numpy(dtype=str)) for name in text}
    return xr.Dataset(columns | {"num_items": ("row", frame["num_items"].to_numpy(dtype=np.int64))})


def _kept_items(paired: Paired, runs: pd.DataFrame, asked: int | None) -> int:
    if asked is not None:
        return integer("num_log_likelihood_items", asked, at_least=0, at_most=10_000)
    return _FEW_ITEMS if float(runs["num_items"].sum()) <= _FEW_ITEMS else 0


def _put(
    values: dict[str, np.ndarray], found: dict[str, np.ndarray], numbers: np.ndarray, num_runs: int
) -> None:
    for name, draws in found.items():
        values.setdefault(name, np.full((num_runs, fast.NUM_DRAWS), np.nan))[numbers] = draws


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
) -> dict[str, Any]:
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
        found = nuts.sample_choices(num_choices, counts[r], fast.NUM_DRAWS, seed[0])
        drawn.shares[r], drawn.persistence[r] = found.sites["shares"], found.sites["persistence"]
        drawn.by_nuts[r] = found.r_hat, found.ess, found.divergences
    return drawn._asdict()


def _choice_stats(drawn: ChoiceDraws, r: int, cells: pd.DataFrame) -> dict[str, Any]:
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


def _say(stats: list[dict[str, Any]], runs: pd.DataFrame, left_out: pd.DataFrame) -> None:
    """Give every run its verdict."""
    numeric = {f"deviation_{name}" for name in checks.STATISTICS} | {
        *("r_hat", "ess", "divergences", "mass_lost_width", "answers_wanted", "deviation_from_base"),
        "share_compared",
    }
    whole = left_out[~left_out["reason"].astype(str).str.endswith(PARTLY)]
    missing = whole.groupby(list(RUN_DIMS), sort=False)["num_items"].sum() if len(whole) else {}
    seeds = runs[~runs["is_retest"]].groupby(["task", "arm"])["seed"].nunique()
    for entry, (_, run) in zip(stats, runs.iterrows(), strict=True):
        entry |= {name: np.nan for name in numeric - set(entry)}
        entry["is_retest"] = int(run["is_retest"])
        entry["num_left_out"] = float(missing.get(tuple(run[name] for name in RUN_DIMS), 0.0))
        entry |= {name: float(run.get(name, np.nan)) for name in Dependence._fields}
        entry["num_seeds"] = int(seeds.get((run["task"], run["arm"]), 1))
    differs = {
        run["task"]
        for entry, (_, run) in zip(stats, runs.iterrows(), strict=True)
        if entry["is_retest"] and entry["deviation_from_base"] > verdict.MOST_DEVIATION
    }
    for entry, task in zip(stats, runs["task"], strict=True):
        entry["retest_differs"] = int(task in differs)
        entry["words"] = verdict.words_of(entry)


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


def _tree(
    paired: Paired,
    runs: pd.DataFrame,
    values: dict[str, np.ndarray],
    stats: list[dict[str, Any]],
    likelihoods: list[tuple[np.ndarray, np.ndarray]],
    settings: dict[str, Any],
) -> xr.DataTree:
    coords = {name: pd.unique(runs[name]) for name in RUN_DIMS}
    # Arms may have different ones: by their order in one arm those of another could go back and forth.
    coords["checkpoint"] = np.array(sorted(coords["checkpoint"], key=order_of), dtype=object)
    places = tuple(pd.Index(coords[name]).get_indexer(runs[name]) for name in RUN_DIMS)
    if not all(isinstance(c, int | np.integer) for c in coords["checkpoint"]):
        coords["checkpoint"] = np.array([str(c) for c in coords["checkpoint"]])
    coords = {name: np.array(list(labels)) for name, labels in coords.items()}
    shape = tuple(len(coords[name]) for name in RUN_DIMS)
    per_chain = fast.NUM_DRAWS // _CHAINS
    sample = {"chain": np.arange(_CHAINS), "draw": np.arange(per_chain)}
    posterior: dict[str, Any] = {}
    for name, draws in values.items():
        dense = np.full((fast.NUM_DRAWS, *shape), np.nan)
        dense[(slice(None), *places)] = draws.T
        posterior[name] = (("chain", "draw", *RUN_DIMS), dense.reshape(_CHAINS, per_chain, *shape))
    groups = {"posterior": xr.Dataset(posterior, sample | coords)}
    old = [task for task in coords["task"] if task not in settings["new_tasks"]]
    if old:
        groups["over_tasks"] = groups["posterior"].sel(task=old).mean("task", skipna=True)
    groups["over_seeds"] = groups["posterior"].mean("seed", skipna=True)
    groups["sample_stats"] = xr.Dataset(
        {
            name: (RUN_DIMS, _dense([entry[name] for entry in stats], places, shape))
            for name in sorted(stats[0])
        },
        coords,
    )
    groups["observed_data"] = _observed(paired)
    groups["constant_data"] = xr.Dataset({"new_task": ("new", np.array(settings["new_tasks"], dtype=str))})
    if likelihoods:
        of_item = np.concatenate([numbers for numbers, _ in likelihoods])
        log_p = np.concatenate([part for _, part in likelihoods], axis=1)
        groups["log_likelihood"] = xr.Dataset(
            {"y": (("chain", "draw", "item"), log_p.reshape(_CHAINS, per_chain, -1))},
            sample | {"item": np.arange(len(of_item)), "run": ("item", of_item)},
        )
    attrs = results.provenance(settings) | {"kind": "evaluation logs"}
    return xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs=attrs)} | {f"/{name}": results.describe(data) for name, data in groups.items()}
    )


def _dense(entries: list[Any], places: tuple[np.ndarray, ...], shape: tuple[int, ...]) -> np.ndarray:
    text = any(isinstance(entry, str) for entry in entries)
    dense = np.full(shape, "", dtype=object) if text else np.full(shape, np.nan)
    dense[places] = entries
    return dense.astype(str) if text else dense


def _observed(paired: Paired) -> xr.Dataset:
    """Return the cells, of repeats along ``cell`` and of choices along ``choice_cell``."""
    variables: dict[str, Any] = {}
    for dim, frame in (("cell", paired.repeats), ("choice_cell", paired.choices)):
        prefix = "" if dim == "cell" else "choice_"
        for name in frame.columns if len(frame) else ():
            variables[f"{prefix}{name}"] = (dim, frame[name].to_numpy(float))
    return xr.Dataset(variables)
