"""What it costs to ignore prompts, and how often intervals hold what is true when they are modelled.

    python -m benchmarks.calibration_prompts --num 3

Every prompt has its own old share, whose logit spreads by σ, and its own shift of the features, a share of
their variance (its intraclass correlation). The references are of other prompts, labelled too. Half of the
checkpoints have drifted. A row pools 20 prompts of 16 samples and 50 of 4.
"""

import argparse
import time
from itertools import groupby, product
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

from inference import measure
from inference.intervals import interval

# Checkpoints that are measured against the same references; prompts and samples a prompt of a reference.
_CHECKPOINTS, _REFERENCE = 4, (40, 10)

# Features, distance of the modes and of what has moved, in standard deviations of a feature.
_FEATURES, _SEPARATION, _DRIFT = 6, 3.0, 0.8


class Setting(NamedTuple):
    """The prompts of a checkpoint.

    Attributes:
        spread: σ of the logits of their old shares.
        likeness: intraclass correlation of the features.
        prompts: how many there are.
        samples: of a prompt.
    """

    spread: float
    likeness: float
    prompts: int
    samples: int


class Simulated(NamedTuple):
    """Samples with the label of their prompt."""

    samples: np.ndarray
    prompts: np.ndarray


# Prompts and samples of a prompt: few with many, and many with few.
_SIZES = ((20, 16), (50, 4))

SETTINGS = [Setting(*one, *size) for one in product((0.0, 1.0, 2.0), (0.0, 0.3)) for size in _SIZES]


def drawn(setting: Setting, typical: float, drift: np.ndarray, rng: np.random.Generator) -> Simulated:
    """Draw samples of prompts; an infinite ``typical`` logit gives a reference."""
    codes = np.repeat(np.arange(setting.prompts), setting.samples)
    share = special.expit(typical + setting.spread * rng.normal(size=setting.prompts))
    old = rng.uniform(size=len(codes)) < share[codes]
    shift = np.sqrt(setting.likeness) * rng.normal(size=(setting.prompts, _FEATURES))
    within = np.sqrt(1.0 - setting.likeness) * rng.normal(size=(len(codes), _FEATURES))
    places = np.zeros((2, _FEATURES))
    places[1] = drift
    places[1, 0] += _SEPARATION
    return Simulated(places[old.astype(int)] + shift[codes] + within, codes)


def old_weight(setting: Setting, typical: float) -> float:
    """Return the mean old share of new prompts."""
    u = np.linspace(-8.0, 8.0, 2001)
    weights = stats.norm.pdf(u)
    return float(special.expit(typical + setting.spread * u) @ weights / weights.sum())


def measured(setting: Setting, number: int) -> pd.DataFrame:
    """Measure the checkpoints of one world; return a row a checkpoint and way of measuring."""
    rng = np.random.default_rng([number, *(int(10 * one) for one in setting)])
    of_references = setting._replace(spread=0.0, prompts=_REFERENCE[0], samples=_REFERENCE[1])
    still = np.zeros(_FEATURES)
    old, new = (drawn(of_references, typical, still, rng) for typical in (np.inf, -np.inf))
    runs, weights, drifts = {}, [], []
    for checkpoint in range(_CHECKPOINTS):
        typical = rng.uniform(-1.5, 1.5)
        direction = rng.normal(size=_FEATURES)
        drift = (checkpoint % 2) * _DRIFT * direction / np.linalg.norm(direction)
        runs[checkpoint] = drawn(setting, typical, drift, rng)
        weights.append(old_weight(setting, typical))
        drifts.append((checkpoint % 2) * _DRIFT)
    rows = []
    for modelled in (False, True):
        labels = (
            {
                "prompts": {name: run.prompts for name, run in runs.items()},
                "old_prompts": old.prompts,
                "new_prompts": new.prompts,
            }
            if modelled
            else {}
        )
        start = time.perf_counter()
        tree = measure(
            {name: run.samples for name, run in runs.items()},
            old.samples,
            new.samples,
            covariance="axis",
            seed=number,
            progress=False,
            **labels,
        )
        seconds = (time.perf_counter() - start) / _CHECKPOINTS
        stats_of = tree["sample_stats"].to_dataset()
        columns = {
            "modelled": modelled,
            "weight": weights,
            "drift": drifts,
            "seconds": seconds,
            "unmoved": stats_of["old_unmoved_probability"],
            "good": stats_of["words"].astype(str) == "good",
            "words": stats_of["words"].astype(str),
            "k_hat": stats_of["k_hat"],
            "method": stats_of["method"],
        }
        for name, variable in (("weight", "old_weight"), ("drift", "old_drift")):
            values = tree["posterior"][variable]
            low, high = interval(values).transpose("ci_bound", "checkpoint").to_numpy()
            columns[f"{name}_held"] = (low - 1e-9 <= columns[name]) & (columns[name] <= high + 1e-9)
            columns[f"{name}_error"] = values.mean(["chain", "draw"]).to_numpy() - columns[name]
            columns[f"{name}_width"] = high - low
        if modelled:
            for name in ("prompt_spread", "prompt_shift"):
                columns[name] = tree["posterior"][name].mean(["chain", "draw"]).to_numpy()
        rows.append(pd.DataFrame({k: np.asarray(v) if np.ndim(v) else v for k, v in columns.items()}))
    return pd.concat(rows)


def row(frame: pd.DataFrame) -> list[str]:
    """Return a row of the table of docs/measurement-model.md: ignoring prompts / modelling them."""
    pair = [frame[frame["modelled"] == modelled] for modelled in (False, True)]
    still = [one[one["drift"] == 0.0] for one in pair]
    moved = [one[one["drift"] > 0.0] for one in pair]

    def both(parts: list[pd.DataFrame], column: str) -> str:
        return " / ".join(f"{one[column].mean():.2f}" for one in parts)

    return [
        f"{len(pair[0])}",
        both(pair, "weight_held"),
        both(pair, "weight_width"),
        both(still, "unmoved"),
        both(still, "drift_held"),
        both(moved, "drift_held"),
        both(pair, "good"),
    ]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=3, help="worlds of four checkpoints a setting")
    options = parser.parse_args()
    names = [
        "σ",
        "correlation",
        "checkpoints",
        "weight",
        "its width",
        "P(unmoved)",
        "no drift",
        "drift",
        "good",
    ]
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for (spread, likeness), settings in groupby(SETTINGS, key=lambda setting: setting[:2]):
        frame = pd.concat([measured(s, number) for s in settings for number in range(options.num)])
        print(f"| {spread:g} | {likeness:g} | {' | '.join(row(frame))} |", flush=True)


if __name__ == "__main__":
    main()
