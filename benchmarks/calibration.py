"""Where the measurement can be trusted: coverage and ranks over simulated runs, on and off its model.

``python -m benchmarks.calibration --num 500 --out runs/calibration.csv`` prints and writes the table of
docs/measurement-model.md.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from tqdm.auto import tqdm

from inference.intervals import interval_probability
from inference.measurement.checkpoints import measure
from inference.measurement.posterior import laplace
from inference.measurement.posterior.prior import SCALE_DOF, STILL_PROBABILITY, Prior
from inference.storage import files


class Truth(NamedTuple):
    """A simulated run of one checkpoint and what is true of it; lengths in the true covariance's metric."""

    old_weight: float
    displacements: np.ndarray
    lengths: np.ndarray
    samples: np.ndarray
    old: np.ndarray
    new: np.ndarray


class Scenario(NamedTuple):
    """How runs are simulated.

    Attributes:
        words: what a row of the table is called.
        dimension: d.
        separation: range of δ.
        displace: draws both displacements in whitened coordinates, from a generator, d and the axis.
        noise: draws samples of a mode around 0, of scatter 1.
        old_scale: what the old mode's are multiplied by.
        outliers: share of samples of an unmodelled third mode.
        tails: of the fit.
        covariance: of the fit.
        old_weight: range of β.
    """

    words: str
    dimension: int = 8
    separation: tuple[float, float] = (2.0, 6.0)
    displace: Callable[..., np.ndarray] | None = None
    noise: Callable[..., np.ndarray] | None = None
    old_scale: float = 1.0
    outliers: float = 0.0
    tails: str = "auto"
    covariance: str = "auto"
    old_weight: tuple[float, float] = (0.02, 0.98)


def of_prior(rng: np.random.Generator, d: int, axis: np.ndarray) -> np.ndarray:
    """Draw displacements from the measurement's own prior, of which some are none."""
    scale = Prior().displacement_scale
    along = scale * rng.standard_t(SCALE_DOF, 2)
    across = np.abs(scale * rng.standard_t(SCALE_DOF, 2))[:, None] * rng.standard_normal((2, d))
    moved = across - (across @ axis)[:, None] * axis + along[:, None] * axis
    return np.where(rng.uniform(size=(2, 1)) < STILL_PROBABILITY, 0.0, moved)


def none(rng: np.random.Generator, d: int, axis: np.ndarray) -> np.ndarray:
    """Return no displacement."""
    return np.zeros((2, d))


def moderate(rng: np.random.Generator, d: int, axis: np.ndarray) -> np.ndarray:
    """Draw displacements of random direction and a length between 0.3 and 1."""
    directions = rng.standard_normal((2, d))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True) * rng.uniform(0.3, 1.0, (2, 1))


def _gaussian(rng: np.random.Generator, num: int, d: int) -> np.ndarray:
    return rng.standard_normal((num, d))


def _heavy(rng: np.random.Generator, num: int, d: int) -> np.ndarray:
    return rng.standard_normal((num, d)) / np.sqrt(rng.chisquare(5.0, (num, 1)) / 5.0)


#: The rows of the table.
SCENARIOS = [
    Scenario("on the model, d = 2, displacements of the prior", 2, displace=of_prior),
    Scenario("on the model, d = 8, displacements of the prior", displace=of_prior),
    Scenario("on the model, d = 32, displacements of the prior", 32, displace=of_prior),
    Scenario("d = 2, lengths 0.3 to 1", 2, displace=moderate),
    Scenario("d = 8, lengths 0.3 to 1", displace=moderate),
    Scenario("d = 32, lengths 0.3 to 1", 32, displace=moderate),
    Scenario("d = 2, nothing moved", 2, displace=none),
    Scenario("d = 8, nothing moved", displace=none),
    Scenario("d = 32, nothing moved", 32, displace=none),
    Scenario("overlap, δ = 1 to 2, lengths 0.3 to 1", separation=(1.0, 2.0), displace=moderate),
    Scenario("unequal spreads, fitted as shared", displace=moderate, old_scale=1.4, covariance="shared"),
    Scenario("the same, fitted as unequal", displace=moderate, old_scale=1.4, covariance="unequal"),
    Scenario("the same, the fit chosen", displace=moderate, old_scale=1.4),
    Scenario(
        "Student-t with 5 dof, fitted as Gaussian",
        displace=moderate,
        noise=_heavy,
        tails="gaussian",
        covariance="shared",
    ),
    Scenario("the same, the fit chosen", displace=moderate, noise=_heavy),
    Scenario("5 % of samples in a third mode, not fitted", displace=moderate, outliers=0.05),
]


def simulate(scenario: Scenario, rng: np.random.Generator, num_samples: int, num_reference: int) -> Truth:
    """Simulate a checkpoint and its references, in coordinates with a random covariance."""
    d = scenario.dimension
    noise = scenario.noise or _gaussian
    mixing = np.tril(0.5 * rng.standard_normal((d, d)), -1) + np.diag(rng.uniform(0.5, 2.0, d))
    axis = rng.standard_normal(d)
    axis /= np.linalg.norm(axis)
    new_mean = rng.uniform(*scenario.separation) * axis
    weight = rng.uniform(*scenario.old_weight)
    moved = (scenario.displace or none)(rng, d, axis)
    # Beyond the middle a mode is the other task's by definition; the prior says so too.
    middle = 0.5 * np.linalg.norm(new_mean)
    while moved[0] @ axis > middle or -moved[1] @ axis > middle:
        moved = (scenario.displace or none)(rng, d, axis)
    is_old = rng.uniform(size=num_samples) < weight
    y = np.where(
        is_old[:, None],
        moved[0] + scenario.old_scale * noise(rng, num_samples, d),
        new_mean + moved[1] + noise(rng, num_samples, d),
    )
    strange = rng.uniform(size=num_samples) < scenario.outliers
    y[strange] = 4.0 * np.linalg.qr(np.column_stack([axis, rng.standard_normal(d)]))[0][:, 1] + 0.5 * new_mean
    y[strange] += rng.standard_normal((int(strange.sum()), d))
    old = scenario.old_scale * noise(rng, num_reference, d)
    new = new_mean + noise(rng, num_reference, d)
    lengths = np.linalg.norm(moved, axis=1) / [scenario.old_scale, 1.0]
    return Truth(weight, moved @ mixing.T, lengths, *(a @ mixing.T for a in (y, old, new)))


def measure_once(
    scenario: Scenario, seed: list[int], num_samples: int, num_reference: int, num_draws: int
) -> dict[str, Any]:
    """Simulate one run and measure it by the fast path; return what is covered and the ranks of the truth."""
    truth = simulate(scenario, np.random.default_rng(seed), num_samples, num_reference)
    tree = measure(
        truth.samples,
        truth.old,
        truth.new,
        method="laplace",
        covariance=scenario.covariance,
        tails=scenario.tails,
        num_draws=num_draws,
        seed=seed[-1],
        progress=False,
    )
    stats = tree["sample_stats"].isel(checkpoint=0)
    found = {
        name: values.isel(checkpoint=0).to_numpy().reshape(num_draws, *values.shape[3:])
        for name, values in tree["posterior"].data_vars.items()
    }
    tail = 0.5 - 0.5 * interval_probability()

    def covered(values: np.ndarray, true: Any) -> Any:
        # Between these order statistics of n draws a further one lies with the interval's probability.
        low, high = np.quantile(values, [tail, 1.0 - tail], axis=0, method="weibull")
        return (low <= true) & (true <= high)

    result: dict[str, Any] = {
        "k_hat": float(stats["k_hat"]),
        "good": str(stats["words"].item()) == "good",
        "weight": bool(covered(found["old_weight"], truth.old_weight)),
        "old_weight_rank": float(np.mean(found["old_weight"] < truth.old_weight)),
        "old_drift_rank": rank_of(truth.lengths[0], found["old_drift"], np.random.default_rng([*seed, 1])),
        "weight_error": float(found["old_weight"].mean() - truth.old_weight),
    }
    for index, (name, length) in enumerate((("old", "old_drift"), ("new", "new_gap"))):
        resolution = float(stats[f"{name}_resolution"])
        moved = found[f"{name}_displacement"]
        result[name] = float(np.mean(covered(moved, truth.displacements[index])))
        result[f"{name}_seen"] = truth.lengths[index] > 3.0 * resolution
        result[f"{name}_reaches_none"] = bool(np.quantile(found[length], tail) < resolution)
    return result


def rank_of(true: float, draws: np.ndarray, rng: np.random.Generator) -> float:
    """Return the share of draws below the truth, and a random part of those that are equal to it."""
    return float(np.mean(draws < true) + rng.uniform() * np.mean(draws == true))


def run(
    scenario: Scenario,
    num: int,
    *,
    num_samples: int = 1000,
    num_reference: int = 1000,
    num_draws: int = 400,
    seed: int = 0,
) -> pd.DataFrame:
    """Return one row a simulated run of a scenario."""
    return pd.DataFrame(
        [measure_once(scenario, [seed, i], num_samples, num_reference, num_draws) for i in range(num)]
    )


def row(scenario: Scenario, frame: pd.DataFrame) -> dict[str, Any]:
    """Return the table's row: coverage where k̂ trusts the fast path, and the share of runs where it does.

    ``old_weight_rank_p`` and ``old_drift_rank_p`` are p-values of chi-squared tests that the ranks of the
    truth are uniform (10 bins); they must not be small where the truth is drawn from the prior.
    """
    kept = frame[frame["k_hat"] <= laplace.MOST_K_HAT]
    seen = [kept[name][kept[f"{name}_seen"]] for name in ("old", "new")]
    p_values = {
        f"{name}_rank_p": stats.chisquare(np.histogram(kept[f"{name}_rank"], 10, (0.0, 1.0))[0]).pvalue
        if len(kept)
        else np.nan
        for name in ("old_weight", "old_drift")
    }
    return {
        "scenario": scenario.words,
        "runs": len(frame),
        "k_hat_good": len(kept) / len(frame),
        "good": frame["good"].mean(),
        "old_weight": kept["weight"].mean(),
        "old_displacement": kept["old"].mean(),
        "new_displacement": kept["new"].mean(),
        "displacement_beyond_3_resolutions": pd.concat(seen).mean(),
        "interval_reaches_none": kept["old_reaches_none"].mean(),
        "weight_bias": kept["weight_error"].mean(),
        **p_values,
    }


def _foreign(path: Path) -> str | None:
    """Say why a file is not an earlier table, or None."""
    ours = path.is_file() and path.read_bytes().startswith(b"scenario,")
    return None if ours else "it is something else"


def main() -> None:
    """Simulate every scenario, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=500, help="simulated runs a scenario")
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--num-reference", type=int, default=1000)
    parser.add_argument("--only", default="", help="scenarios whose name holds this text")
    parser.add_argument("--out", type=Path, default=Path("runs/calibration.csv"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    files.check_writable(options.out)
    files.check_new(options.out, _foreign, overwrite=True)
    rows = []
    for scenario in tqdm([s for s in SCENARIOS if options.only in s.words]):
        frame = run(
            scenario, options.num, num_samples=options.num_samples, num_reference=options.num_reference
        )
        rows.append(row(scenario, frame))
        table = pd.DataFrame(rows)
        # Written after every scenario, so that an interruption loses one at most.
        files.write(options.out, table.to_csv(index=False).encode())
        print(table.iloc[-1:].to_string(index=False, float_format="%.3f"), flush=True)


if __name__ == "__main__":
    main()
