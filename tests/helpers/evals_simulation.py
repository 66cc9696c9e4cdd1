"""Answers drawn from the models of evaluation logs, as the cells that a measurement starts from."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
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
