"""Intervals of evaluation logs beside those of older methods: do they cover, and how wide are they?

``python -m benchmarks.evals_rivals --num 200`` draws logs from the model of docs/evals-model.md (pass rates
are U-shaped) with 1, 4 and 16 answers an item, of a run that has changed and of one that has not, and prints
coverage, mean width and mean lower end of 89 % intervals of the change of accuracy and of what was lost.

- McNemar: of one answer, the exact interval of the share of flips that are losses, given how many flips there
  are (Clopper and Pearson), as a change of accuracy.
- paired t: mean and standard error of the items' differences.
- beta-binomial: the base's and the run's pass rates each have a beta law, fitted by maximum likelihood; given
  the answers each item's two rates are drawn from their posteriors, and items are weighted as in the Bayesian
  bootstrap.
- flips: what was lost as the mean of max(score before - score after, 0), with its standard error.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from inference.measurement.evals.measure_evals import measure_paired
from inference.measurement.evals.pairing import Paired

LEVEL = 0.89
_TAILS = (0.5 - 0.5 * LEVEL, 0.5 + 0.5 * LEVEL)

# Logs that are measured in one call, draws of the beta-binomial law, and items by which a truth is found.
_TOGETHER, _DRAWS, _MANY = 20, 1000, 2_000_000

Interval = tuple[float, float]


class Setting(NamedTuple):
    """A law of logs."""

    name: str
    num_answers: int
    mass_lost: float
    drift: float
    spread: float
    num_items: int = 500
    mean: float = 1.0
    sd: float = 4.0


SETTINGS = [
    Setting(name, n, *unknowns)
    for name, unknowns in (("changed", (0.05, -0.3, 1.0)), ("unchanged", (0.0, 0.0, 0.0)))
    for n in (1, 4, 16)
]


def success(rng: np.random.Generator, s: Setting, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the success of base and run at some items."""
    a = rng.normal(s.mean, s.sd, size)
    b = a + s.drift + s.spread * rng.normal(size=size)
    return special.expit(a), (1.0 - s.mass_lost) * special.expit(b)


def mcnemar(before: np.ndarray, after: np.ndarray, num: int, rng: np.random.Generator) -> dict[str, Interval]:
    """Return the interval of the change given the number of flips; nothing of several answers."""
    if num > 1:
        return {}
    lost, won = int(np.sum(before > after)), int(np.sum(after > before))
    flips = lost + won
    if not flips:
        return {"accuracy_change": (0.0, 0.0)}
    shares = stats.binomtest(won, flips).proportion_ci(LEVEL, method="exact")
    return {"accuracy_change": tuple((2.0 * np.array(shares) - 1.0) * flips / len(before))}


def paired_t(
    before: np.ndarray, after: np.ndarray, num: int, rng: np.random.Generator
) -> dict[str, Interval]:
    """Return the interval of the mean difference."""
    return {"accuracy_change": _of_mean((after - before) / num)}


def flips(before: np.ndarray, after: np.ndarray, num: int, rng: np.random.Generator) -> dict[str, Interval]:
    """Return the interval of the mean of observed losses."""
    return {"lost": _of_mean(np.maximum(before - after, 0.0) / num)}


def _of_mean(values: np.ndarray) -> Interval:
    half = stats.t.ppf(_TAILS[1], len(values) - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def beta_binomial(
    before: np.ndarray, after: np.ndarray, num: int, rng: np.random.Generator
) -> dict[str, Interval]:
    """Return intervals from items' two pass rates, each drawn from its own posterior."""
    rates = []
    for right in (before, after):
        a, b = _fitted(right, num)
        rates.append(rng.beta(a + right, b + num - right, size=(_DRAWS, len(right))))
    weights = rng.dirichlet(np.ones(len(before)), _DRAWS)
    change = rates[1] - rates[0]
    found = {"accuracy_change": change, "lost": np.maximum(-change, 0.0)}
    return {
        name: tuple(np.quantile(np.sum(weights * values, axis=1), _TAILS)) for name, values in found.items()
    }


def _fitted(right: np.ndarray, num: int) -> np.ndarray:
    def loss(logs: np.ndarray) -> float:
        return -float(stats.betabinom.logpmf(right, num, *np.exp(logs)).sum())

    # One answer says nothing of the shape: then it stays near Beta(1/2, 1/2), as the bounds allow.
    found = optimize.minimize(loss, np.log([0.5, 0.5]), method="L-BFGS-B", bounds=[(-5.0, 5.0)] * 2)
    return np.exp(found.x)


RIVALS: dict[str, Callable[..., dict[str, Interval]]] = {
    "McNemar": mcnemar,
    "paired t": paired_t,
    "flips": flips,
    "beta-binomial": beta_binomial,
}


def rows_of(s: Setting, num: int, seed: int) -> pd.DataFrame:
    """Return a row a log, method and quantity: whether the interval holds the truth, and its width."""
    p, q = success(np.random.default_rng(seed), s, _MANY)
    truth = {"accuracy_change": float(np.mean(q - p)), "lost": float(np.mean(np.maximum(p - q, 0.0)))}
    rng, rows = np.random.default_rng([seed, s.num_answers, int(1e6 * s.spread)]), []

    def note(method: str, name: str, low: float, high: float) -> None:
        covered = low - 1e-12 <= truth[name] <= high + 1e-12
        rows.append({"method": method, "quantity": name, "covered": covered, "width": high - low, "low": low})

    for start in range(0, num, _TOGETHER):
        logs = []
        for _ in range(min(_TOGETHER, num - start)):
            p, q = success(rng, s, s.num_items)
            before, after = rng.binomial(s.num_answers, p), rng.binomial(s.num_answers, q)
            logs.append((before, after))
            for method, rival in RIVALS.items():
                for name, bounds in rival(before, after, s.num_answers, rng).items():
                    note(method, name, *bounds)
        tree = measure_paired(paired(logs, s), seed=start, method="laplace", progress=False)
        for i in range(len(logs)):
            posterior = tree["posterior"].to_dataset().sel(task=str(i), arm=str(i))
            for name in truth:
                note("massdrift", name, *np.quantile(posterior[name].to_numpy(), _TAILS))
    return pd.DataFrame(rows).assign(setting=s.name, answers=s.num_answers)


def paired(logs: list[tuple[np.ndarray, np.ndarray]], s: Setting) -> Paired:
    """Return logs as what is measured, each an arm and task of its own, so that nothing is pooled."""
    labels = [str(i) for i in range(len(logs))]
    runs = pd.DataFrame({"task": labels, "arm": labels}).assign(seed="0", checkpoint=1, is_retest=False)
    runs = runs.assign(num_items=s.num_items, kind="repeats")
    names: dict[str, Any] = {"num_base": s.num_answers, "num_run": s.num_answers, "num_choices": np.nan}
    items = pd.concat(
        [pd.DataFrame({"run": i, "right_base": b, "right_run": a}) for i, (b, a) in enumerate(logs)]
    )
    cells = items.value_counts(sort=False).rename("num_items").reset_index().assign(**names)
    none = pd.DataFrame(columns=["task", "arm", "seed", "checkpoint", "reason", "num_items", "examples"])
    return Paired(runs, cells, pd.DataFrame(columns=["run", "num_choices"]), none)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--num", type=int, default=200, help="logs a setting")
    parser.add_argument("--only", default="", help="changed or unchanged")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for s in [s for s in SETTINGS if options.only in ("", s.name)]:
        rows = rows_of(s, options.num, options.seed)
        by = ["setting", "answers", "quantity", "method"]
        found = rows.groupby(by, sort=False).agg(
            coverage=("covered", "mean"), width=("width", "mean"), low=("low", "mean")
        )
        print(found.reset_index().to_string(index=False, float_format="%.3f"), flush=True)


if __name__ == "__main__":
    main()
