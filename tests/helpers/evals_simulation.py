"""Answers drawn from the models of evaluation logs, as the cells that a measurement starts from."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy import special

from inference.measurement.evals.pairing import Paired


class Truth(NamedTuple):
    """A task and its items' law."""

    num_items: int = 500
    num_base: int = 8
    num_run: int = 8
    mean: float = 1.0
    sd: float = 3.0
    guess: float = 0.0
    num_choices: float = np.nan


_COLUMNS = ["right_base", "num_base", "right_run", "num_run"]


def repeats(rng: np.random.Generator, truth: Truth, runs: list[tuple[float, float, float]]) -> pd.DataFrame:
    """Return the cells of runs (m, δ, τ) of one task; all are asked the items that the base was asked."""
    known = special.expit(a := rng.normal(truth.mean, truth.sd, truth.num_items))
    base = rng.binomial(truth.num_base, truth.guess + (1.0 - truth.guess) * known)
    frames = []
    for number, (mass_lost, drift, spread) in enumerate(runs):
        b = a + drift + spread * rng.normal(size=truth.num_items)
        success = truth.guess + (1.0 - truth.guess) * (1.0 - mass_lost) * special.expit(b)
        frames.append(cells_of(base, rng.binomial(truth.num_run, success), truth, number))
    return pd.concat(frames, ignore_index=True)


def cells_of(base: Any, run: Any, truth: Truth, number: int = 0) -> pd.DataFrame:
    """Return the cells of one run from the right answers to its items."""
    items = pd.DataFrame(dict(zip(_COLUMNS, (base, truth.num_base, run, truth.num_run), strict=True)))
    cells = items.value_counts().rename("num_items").reset_index()
    return cells.assign(run=number, num_choices=truth.num_choices)


def paired(frames: pd.DataFrame, **labels: Any) -> Paired:
    """Return what is measured: cells of repeats, and what their runs are called (one value or one a run)."""
    size = int(frames["run"].max()) + 1
    names = {"task": "task", "arm": "arm", "seed": "0", "checkpoint": 1, "is_retest": False} | labels
    runs = pd.DataFrame({k: v if isinstance(v, list) else [v] * size for k, v in names.items()})
    runs["num_items"] = frames.groupby("run")["num_items"].sum().to_numpy()
    runs["kind"] = "repeats"
    none = pd.DataFrame(columns=["task", "arm", "seed", "checkpoint", "reason", "num_items", "examples"])
    return Paired(runs, frames, pd.DataFrame(columns=["run", "num_choices"]), none)


def choices(
    rng: np.random.Generator, num_items: int, k: int, shares: list[float], persistence: float
) -> pd.DataFrame:
    """Return the row of one run with one answer of k choices an item; shares of KK, KU, UK, UU."""
    state = rng.choice(4, num_items, p=shares)
    before, after = rng.integers(k, size=(2, num_items))
    after = np.where((state == 3) & (rng.uniform(size=num_items) < persistence), before, after)
    # Answer 0 is right.
    before = np.where(np.isin(state, (0, 1)), 0, before)
    after = np.where(np.isin(state, (0, 2)), 0, after)
    counts = {
        "right_right": (before == 0) & (after == 0),
        "right_wrong": (before == 0) & (after != 0),
        "wrong_right": (before != 0) & (after == 0),
        "wrong_same": (before != 0) & (after == before),
        "wrong_other": (before != 0) & (after != 0) & (after != before),
    }
    return pd.DataFrame(
        {"run": [0], "num_choices": [float(k)]} | {n: [int(c.sum())] for n, c in counts.items()}
    )


def paired_choices(frame: pd.DataFrame, **labels: Any) -> Paired:
    """Return what is measured of runs with one answer of several choices an item."""
    numbers = np.unique(frame["run"])
    names = {"task": "task", "arm": "arm", "seed": "0", "checkpoint": 1, "is_retest": False} | labels
    runs = pd.DataFrame({k: v if isinstance(v, list) else [v] * len(numbers) for k, v in names.items()})
    runs["num_items"] = frame.drop(columns="num_choices").groupby("run").sum().sum(axis=1).to_numpy()
    runs["kind"] = "choices"
    none = pd.DataFrame(columns=["task", "arm", "seed", "checkpoint", "reason", "num_items", "examples"])
    return Paired(runs, pd.DataFrame(columns=["run"]), frame, none)


RUN = ("task", "arm", "seed", "checkpoint")
NUM = 400


def tree_of(values, new=(), words=None, retests=(), **coords):
    """Return a measured tree: variables by name, each of shape (draw, task, arm, seed, checkpoint)."""
    sizes = next(iter(values.values())).shape[1:]
    labels = {"task": ["x", "y", "z"], "arm": ["a", "b", "c"], "seed": ["0", "1", "2"], "checkpoint": [1, 2]}
    labels = {name: (labels | coords)[name][:size] for name, size in zip(RUN, sizes, strict=True)}
    posterior = {name: (("chain", "draw", *RUN), array[None]) for name, array in values.items()}
    words = np.full(sizes, "good", dtype=object) if words is None else words
    retest = np.broadcast_to(np.isin(labels["arm"], retests)[:, None, None], sizes).astype(float)
    stats = {"words": (RUN, words.astype(str)), "is_retest": (RUN, retest)}
    return xr.DataTree.from_dict(
        {
            "/posterior": xr.Dataset(posterior, labels),
            "/sample_stats": xr.Dataset(stats, labels),
            "/constant_data": xr.Dataset({"new_task": ("new", np.array(new, dtype=str))}),
        }
    )


def at_gain(late=0.5):
    """An old task and a new one; arm a gains 0.1, then 0.3 or (half its draws) `late`, b 0.4, then `late`."""
    lost, change = np.zeros((2, NUM, 2, 2, 1, 2))
    lost[:, 0, :, 0], change[:, 1, :, 0] = ([0.02, 0.06], [0.2, 0.5]), ([0.1, 0.3], [0.4, late])
    change[NUM // 2 :, 1, 0] = 0.1, late
    change[:, 0] = -lost[:, 0]
    return tree_of({"lost": lost, "old_weight": 1.0 - lost, "accuracy_change": change}, new=["y"])
