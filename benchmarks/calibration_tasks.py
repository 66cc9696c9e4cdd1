"""How often intervals of a measurement of several tasks hold what is true, and how long a checkpoint takes.

    python -m benchmarks.calibration_tasks --num 20

Modes have covariances of their own; a mode has moved in half of the checkpoints, by a length with heavy
tails, at most 1.2 in all features. Weights are uniform on the simplex. A row is a number of tasks.
"""

import argparse
import time
from typing import NamedTuple

import numpy as np
import pandas as pd

from inference import measure
from inference.intervals import interval

# Checkpoints that are measured against the same references, and samples of a reference.
_CHECKPOINTS, _REFERENCE = 6, 500

# Between the means of two tasks, in standard deviations of a feature; and bounds of what is a small drift.
_SEPARATION, _SIZES = 3.5, (0.0, 0.5, 1.0, np.inf)


class Setting(NamedTuple):
    """How many tasks, features and samples there are."""

    tasks: int
    features: int
    samples: int


SETTINGS = (Setting(3, 4, 500), Setting(5, 16, 1000), Setting(5, 32, 2000))


class World(NamedTuple):
    """The means of the tasks, and square roots of their covariances."""

    means: np.ndarray
    roots: np.ndarray


def world(setting: Setting, rng: np.random.Generator) -> World:
    """Draw the modes of tasks."""
    num, d = setting.tasks, setting.features
    means = rng.normal(size=(num, d))
    means *= _SEPARATION / np.sqrt(2.0) / np.linalg.norm(means, axis=1, keepdims=True)
    shapes = rng.normal(size=(num, d, d))
    return World(means, np.linalg.cholesky(0.5 / d * shapes @ np.swapaxes(shapes, 1, 2) + 0.6 * np.eye(d)))


def drawn(modes: World, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a sample of the task at every place."""
    z = rng.normal(size=(len(places), modes.means.shape[1]))
    return modes.means[places] + np.einsum("nij,nj->ni", modes.roots[places], z)


def moved(modes: World, rng: np.random.Generator) -> tuple[World, np.ndarray]:
    """Return modes of which half have moved, and how far [Mahalanobis]."""
    shape = modes.means.shape
    length = np.where(rng.uniform(size=shape[0]) < 0.5, 0.3 * np.abs(rng.standard_t(3, size=shape[0])), 0.0)
    change = length[:, None] * rng.normal(size=shape)
    change *= np.minimum(1.0, 1.2 / np.maximum(np.linalg.norm(change, axis=1, keepdims=True), 1e-9))
    drifts = np.linalg.norm(np.linalg.solve(modes.roots, change[..., None])[..., 0], axis=1)
    return modes._replace(means=modes.means + change), drifts


def measured(setting: Setting, number: int) -> pd.DataFrame:
    """Measure the checkpoints of one world; return a row a checkpoint and task."""
    rng = np.random.default_rng([setting.tasks, setting.features, number])
    modes, num = world(setting, rng), setting.tasks
    references = {f"task {k}": drawn(modes, np.full(_REFERENCE, k), rng) for k in range(num)}
    samples, weights, drifts = {}, [], []
    for checkpoint in range(_CHECKPOINTS):
        weights.append(rng.dirichlet(np.ones(num)))
        here, drift = moved(modes, rng)
        drifts.append(drift)
        samples[checkpoint] = drawn(here, rng.choice(num, size=setting.samples, p=weights[-1]), rng)
    start = time.perf_counter()
    tree = measure(samples, references, seed=number, progress=False)
    seconds = (time.perf_counter() - start) / _CHECKPOINTS
    columns = {"weight": np.ravel(weights), "drift": np.ravel(drifts), "seconds": seconds}
    for name, variable in (("weight", "weight"), ("drift", "task_drift")):
        limits = interval(tree["posterior"][variable]).transpose("checkpoint", "task", "ci_bound").to_numpy()
        low, high = limits.reshape(-1, 2).T
        columns[f"{name}_held"] = (low - 1e-9 <= columns[name]) & (columns[name] <= high + 1e-9)
    words = tree["sample_stats"]["words"].to_numpy().astype(str)
    columns["distrusted"] = np.repeat(np.char.startswith(words, "not to be trusted"), num)
    return pd.DataFrame(columns)


def row(setting: Setting, num: int) -> list[str]:
    """Return a row of the table of docs/measurement-model.md."""
    frame = pd.concat([measured(setting, number) for number in range(num)])
    size = pd.cut(frame["drift"], [-np.inf, *_SIZES], labels=False)
    held = [
        f"{found.mean():.2f} of {len(found)}" if len(found := frame["drift_held"][size == k]) else "n/a"
        for k in range(len(_SIZES))
    ]
    return [
        *map(str, setting),
        f"{frame['weight_held'].mean():.2f} of {len(frame)}",
        *held,
        f"{frame['distrusted'].mean():.2f}",
        f"{frame['seconds'].median():.1f}",
    ]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=20, help="worlds of six checkpoints a row")
    options = parser.parse_args()
    names = ["tasks", "features", "samples", "weight", "no drift", "below 0.5", "0.5 to 1", "above 1"]
    names += ["not to be trusted", "seconds"]
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for setting in SETTINGS:
        print(f"| {' | '.join(row(setting, options.num))} |", flush=True)


if __name__ == "__main__":
    main()
