"""What tells that a model has changed, and in which way: distances beside `inference.measure`."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from benchmarks.rivals_distances import frechet_distance, mmd_test, neighbourhood
from benchmarks.rivals_settings import CHANGES, World
from inference import measure
from inference.intervals import interval

Samples = Float[np.ndarray, "sample feature"]

#: Of `statistics`, those that are larger where more has changed, by the name of the method.
METHODS = {
    "MMD": "squared_mmd",
    "Fréchet distance": "frechet",
    "coverage": "uncovered",
    "density": "density_off",
    "massdrift: mass": "mass",
    "massdrift: drift": "moved",
}

#: False alarms where nothing has changed.
FALSE_ALARMS = 0.05

# What checkpoints are called that are measured together with those after post-training.
_BEFORE = "before"


def distances(before: Samples, after: Samples, rng: np.random.Generator) -> dict[str, float]:
    """Return what is measured between two sets of samples, without references."""
    test, near = mmd_test(before, after, rng), neighbourhood(before, after)
    return {
        "squared_mmd": test.squared_mmd,
        "mmd_p": test.p_value,
        "frechet": frechet_distance(before, after),
        "coverage": near.coverage,
        "density": near.density,
        "uncovered": 1.0 - near.coverage,
        "density_off": abs(near.density - 1.0),
    }


def statistics(here: World, seed: int, method: str) -> pd.DataFrame:
    """Return a row a change of a world: the distances from before, and what is measured.

    ``mass`` is the posterior mean of what the old weight has lost, in standard deviations and without its
    sign; ``lost_mass`` whether its interval lies beside 0; ``moved`` the probability that the old mode has
    moved.

    Args:
        here: the world.
        seed: of the measurement and of permutations.
        method: of `inference.measure`.
    """
    tree = measure(
        {_BEFORE: here.before, **here.after}, here.old, here.new, seed=seed, method=method, progress=False
    )
    weight = tree["posterior"]["old_weight"]
    stats = tree["sample_stats"].to_dataset()
    rows = []
    for number, (change, samples) in enumerate(here.after.items()):
        lost = weight.sel(checkpoint=_BEFORE) - weight.sel(checkpoint=change)
        low, high = interval(lost).to_numpy()
        rows.append(
            {"change": change}
            | distances(here.before, samples, np.random.default_rng([seed, number]))
            | {
                "mass": abs(float(lost.mean() / lost.std())),
                "moved": 1.0 - float(stats["old_unmoved_probability"].sel(checkpoint=change)),
                "lost_mass": bool(low > 0.0 or high < 0.0),
                "lost": float(lost.mean()),
                "drift": float(tree["posterior"]["old_drift"].sel(checkpoint=change).mean()),
            }
        )
    return pd.DataFrame(rows)


def alarms(frame: pd.DataFrame) -> pd.DataFrame:
    """Return how often each method says that something has changed, a row a method and a column a change.

    All but those whose name holds a rule raise `FALSE_ALARMS` false alarms where nothing has changed, as
    simulated. ``massdrift: either`` raises one where mass or drift is rare. ``drift over mass`` is the
    probability that a method's statistic is larger where the old mode has moved than where mass alone has
    been lost, ties halved: at 1/2 it cannot tell the two.

    Args:
        frame: rows of `statistics` of many worlds.
    """
    null = frame[frame["change"] == "nothing"]
    # How often a value that is as large occurs where nothing has changed.
    rare = {
        name: _tail(frame[column].to_numpy(), null[column].to_numpy()) for name, column in METHODS.items()
    }
    scores = {name: frame[column].to_numpy() for name, column in METHODS.items()}
    scores["massdrift: either"] = -np.minimum(rare["massdrift: mass"], rare["massdrift: drift"])
    flags: dict[str, np.ndarray] = {"MMD, p < 0.05": frame["mmd_p"].to_numpy() < FALSE_ALARMS}
    for name, score in scores.items():
        limit = np.quantile(score[frame["change"] == "nothing"], 1.0 - FALSE_ALARMS)
        flags[name] = score > limit
    flags["massdrift: interval of mass beside 0"] = frame["lost_mass"].to_numpy()
    flags["massdrift: P(moved) > 1/2"] = frame["moved"].to_numpy() > 0.5
    rows = []
    for name, flag in flags.items():
        shares = {change: flag[frame["change"] == change].mean() for change in CHANGES}
        told = _larger(_of(frame, scores, name, drifted=True), _of(frame, scores, name, drifted=False))
        rows.append({"method": name} | shares | {"drift over mass": told})
    return pd.DataFrame(rows)


def _of(frame: pd.DataFrame, scores: Mapping[str, np.ndarray], name: str, *, drifted: bool) -> np.ndarray:
    if name not in scores:
        return np.array([])
    chosen = frame["change"].str.startswith("drift") if drifted else frame["change"] == "mass"
    return scores[name][chosen.to_numpy()]


def _tail(values: np.ndarray, null: np.ndarray) -> np.ndarray:
    return np.mean(null[None, :] >= values[:, None], axis=1)


def _larger(first: np.ndarray, second: np.ndarray) -> float:
    """Return the probability that one of the first is larger than one of the second, ties halved."""
    if not len(first):
        return float("nan")
    difference = first[:, None] - second[None, :]
    return float(np.mean(difference > 0.0) + 0.5 * np.mean(difference == 0.0))
