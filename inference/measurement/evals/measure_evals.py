"""Forgetting from evaluation logs: a posterior of every run that was asked the same items as the base."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from inference import results
from inference.engine.chunks import run_together
from inference.measurement.evals import checks, fast, verdict
from inference.measurement.evals.dependence import Dependence
from inference.measurement.evals.fit import fit_repeats
from inference.measurement.evals.pairing import PARTLY, Paired, order_of, pair
from inference.measurement.evals.readers import read
from inference.measurement.evals.readers.sources import Logs
from inference.measurement.evals.task_results import TaskResults, of_choices, of_repeats
from inference.measurement.evals.variables import VARIABLES
from inference.progress import hidden
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
    logs: Logs,
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
    num_kept = _kept_items(paired, runs, num_log_likelihood_items)
    with tqdm(total=3 * len(runs), desc="measuring", unit="step", disable=hidden(progress)) as bar:
        tasks: list[TaskResults] = []
        repeated = runs[runs["kind"] == "repeats"]
        if len(repeated):
            of_run = dict(list(paired.repeats.groupby("run")))
            how = {"method": method, "seed": seed, "report": bar.update}
            drawn = fit_repeats(paired.repeats, repeated, new_tasks, **how)
            jobs = [partial(of_repeats, of_task, of_run, runs, num_kept, seed) for of_task in drawn]
            tasks += run_together(jobs, nullcontext, bar.update)
        for of_task in of_choices(paired.choices, runs, num_kept, method, seed):
            tasks.append(of_task)
            bar.update(3 * len(of_task.runs))
    values: dict[str, np.ndarray] = {}
    stats: list[dict[str, object]] = [{} for _ in range(len(runs))]
    for of_task in tasks:
        for name, draws in of_task.values.items():
            every = values.setdefault(name, np.full((len(runs), fast.NUM_DRAWS), np.nan))
            every[of_task.runs] = draws
        for number, entry in zip(of_task.runs, of_task.stats, strict=True):
            stats[number] = entry
    base_counts = [row for of_task in tasks for row in of_task.base_counts]
    likelihoods = [part for of_task in tasks for part in of_task.likelihoods]
    _say(stats, runs, paired.left_out)
    settings = {
        "seed": seed,
        "method": method,
        "new_tasks": list(new_tasks),
        "num_log_likelihood_items": num_kept,
    }
    tree = _tree(paired, runs, values, stats, likelihoods, new_tasks, settings)
    if base_counts:
        columns = pd.DataFrame(base_counts)
        rows = {
            name: ("row", column.to_numpy(str if name == "task" else None))
            for name, column in columns.items()
        }
        tree["base_counts"] = xr.DataTree(results.describe(xr.Dataset(rows)))
    return tree


def _left_out(frame: pd.DataFrame) -> xr.Dataset:
    """Return what is left out, a row a task, run and reason, with names as text."""
    text = [name for name in frame if name != "num_items"]
    columns = {name: ("row", frame[name].astype(str).to_numpy(dtype=str)) for name in text}
    return xr.Dataset(columns | {"num_items": ("row", frame["num_items"].to_numpy(dtype=np.int64))})


def _kept_items(paired: Paired, runs: pd.DataFrame, asked: int | None) -> int:
    if asked is not None:
        return integer("num_log_likelihood_items", asked, at_least=0, at_most=10_000)
    return _FEW_ITEMS if float(runs["num_items"].sum()) <= _FEW_ITEMS else 0


def _say(stats: list[dict[str, object]], runs: pd.DataFrame, left_out: pd.DataFrame) -> None:
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
        if verdict.is_unlike_base(entry)
    }
    for entry, task in zip(stats, runs["task"], strict=True):
        entry["retest_differs"] = int(task in differs)
        entry["words"] = verdict.words_of(entry)


def _tree(
    paired: Paired,
    runs: pd.DataFrame,
    values: dict[str, np.ndarray],
    stats: list[dict[str, object]],
    likelihoods: list[tuple[np.ndarray, np.ndarray]],
    new_tasks: Sequence[str],
    settings: Mapping[str, object],
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
    posterior: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name, draws in values.items():
        dense = np.full((fast.NUM_DRAWS, *shape), np.nan)
        dense[(slice(None), *places)] = draws.T
        posterior[name] = (("chain", "draw", *RUN_DIMS), dense.reshape(_CHAINS, per_chain, *shape))
    groups = {"posterior": xr.Dataset(posterior, sample | coords)}
    old = [task for task in coords["task"] if task not in new_tasks]
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
    groups["constant_data"] = xr.Dataset({"new_task": ("new", np.array(new_tasks, dtype=str))})
    if likelihoods:
        of_item = np.concatenate([numbers for numbers, _ in likelihoods])
        log_p = np.concatenate([part for _, part in likelihoods], axis=1)
        groups["log_likelihood"] = xr.Dataset(
            {"y": (("chain", "draw", "item"), log_p.reshape(_CHAINS, per_chain, -1))},
            sample | {"item": np.arange(len(of_item)), "run": ("item", of_item)},
        )
    return results.assembled(groups, results.provenance(settings) | {"kind": "evaluation logs"})


def _dense(entries: list[object], places: tuple[np.ndarray, ...], shape: tuple[int, ...]) -> np.ndarray:
    text = any(isinstance(entry, str) for entry in entries)
    dense = np.full(shape, "", dtype=object) if text else np.full(shape, np.nan)
    dense[places] = entries
    return dense.astype(str) if text else dense


def _observed(paired: Paired) -> xr.Dataset:
    """Return the cells, of repeats along ``cell`` and of choices along ``choice_cell``."""
    variables: dict[str, tuple[str, np.ndarray]] = {}
    for dim, frame in (("cell", paired.repeats), ("choice_cell", paired.choices)):
        prefix = "" if dim == "cell" else "choice_"
        for name in frame.columns if len(frame) else ():
            variables[f"{prefix}{name}"] = (dim, frame[name].to_numpy(float))
    return xr.Dataset(variables)
