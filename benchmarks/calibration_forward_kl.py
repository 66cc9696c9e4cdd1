"""How right the forward KL from log-likelihoods of answers is, and which estimator of it.

    python -m benchmarks.calibration_forward_kl --num 2000

Log ratios of base and run are normal, as those of Gaussians of one width are, so that the KL is half of their
variance; or the base does one of two things, of which the run has nearly lost the first. Answers of the base
give the plain mean, and a + r - 1, r = run/base; answers of the run give weights. By prompt, every prompt has
a KL of its own, exponential, and one to twelve answers.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from inference.intervals import interval_probability
from inference.measurement.scores.answers import Answers
from inference.measurement.scores.forward_kl import Estimate, divergences, estimate, verdict

_DIVERGENCES, _SIZES, _LOST = (0.01, 0.1, 0.5, 2.0, 8.0), (50, 500), (0.3, 0.02)

# Distance of the two things that the base does, nine times of ten the first.
_APART, _FIRST = 6.0, 0.9

# By whose they are, log base - log run of answers.
type Draw = Callable[[str, int, np.random.Generator], np.ndarray]


class Tally(NamedTuple):
    """Some intervals: which hold the truth, by how much estimates miss it, and which are good."""

    held: list[bool]
    errors: list[float]
    good: list[bool]

    def add(self, found: Estimate, truth: float, said: str = "good") -> None:
        """Count one estimate."""
        tail = 0.5 * (1.0 - interval_probability())
        low, high = found.quantiles(np.array([tail, 1.0 - tail]))
        self.held.append(bool(low <= truth <= high))
        self.errors.append(found.value - truth)
        self.good.append(said == "good")


def normal(kl: float) -> Draw:
    """Return how to draw normal log ratios."""
    sd = np.sqrt(2.0 * kl)
    return lambda source, num, rng: (kl if source == "base" else -kl) + sd * rng.normal(size=num)


def lost(share: float) -> tuple[Draw, float]:
    """Return how to draw log ratios where the run does the first thing with a share, and the KL."""

    def ratio(y: np.ndarray) -> np.ndarray:
        logs = stats.norm.logpdf(y), stats.norm.logpdf(y, _APART)
        of = [np.logaddexp(np.log(b) + logs[0], np.log1p(-b) + logs[1]) for b in (_FIRST, share)]
        return of[0] - of[1]

    def draw(source: str, num: int, rng: np.random.Generator) -> np.ndarray:
        first = rng.uniform(size=num) < (_FIRST if source == "base" else share)
        return ratio(rng.normal(size=num) + np.where(first, 0.0, _APART))

    y = np.linspace(-10.0, _APART + 10.0, 20_001)
    base = _FIRST * stats.norm.pdf(y) + (1.0 - _FIRST) * stats.norm.pdf(y, _APART)
    return draw, float(np.trapezoid(base * ratio(y), y))


def row(name: str, draw: Draw, kl: float, size: int, num: int) -> dict[str, object]:
    """Simulate one setting."""
    rng = np.random.default_rng([size, int(1000 * kl)])
    plain, other, weighted = (Tally([], [], []) for _ in range(3))
    alone = np.arange(size)
    for _ in range(num):
        ratio = draw("base", size, rng)
        plain.add(estimate(ratio, np.ones(size), alone), kl)
        other.add(estimate(ratio + np.exp(-ratio) - 1.0, np.ones(size), alone), kl)
        answers = Answers(draw("run", size, rng), np.zeros(size), alone, None, labelled=False)
        found = divergences(answers, "run")
        weighted.add(found.estimates["forward_kl"], kl, verdict(found, answers))
    good = np.array(weighted.good)
    told: dict[str, object] = {"log ratios": name, "KL [nat]": f"{kl:.2f}", "answers": size}
    for label, tally in (("mean", plain), ("a + r - 1", other), ("weights", weighted)):
        told[f"{label}: error"] = f"{np.sqrt(np.mean(np.square(tally.errors))):.2g}"
        told[f"{label}: held"] = f"{np.mean(tally.held):.2f}"
    told["good"] = f"{good.mean():.2f}"
    told["held where good"] = f"{np.array(weighted.held)[good].mean():.2f}" if good.mean() > 0.02 else "-"
    return told


def by_prompt(num_prompts: int, num: int) -> dict[str, object]:
    """Simulate prompts with a KL of their own, of mean 0.8, with labels and without."""
    rng = np.random.default_rng(num_prompts)
    with_labels, without = Tally([], [], []), Tally([], [], [])
    for _ in range(num):
        codes = np.repeat(np.arange(num_prompts), rng.integers(1, 13, size=num_prompts))
        kl = rng.exponential(0.8, size=num_prompts)[codes]
        ratio = kl + np.sqrt(2.0 * kl) * rng.normal(size=codes.size)
        with_labels.add(estimate(ratio, np.ones(codes.size), codes), 0.8)
        without.add(estimate(ratio, np.ones(codes.size), np.arange(codes.size)), 0.8)
    return {
        "prompts": num_prompts,
        "held with labels": f"{np.mean(with_labels.held):.2f}",
        "held without": f"{np.mean(without.held):.2f}",
    }


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num", type=int, default=2000, help="simulations a row")
    num = parser.parse_args().num
    rows = [row("normal", normal(kl), kl, size, num) for kl in _DIVERGENCES for size in _SIZES]
    rows += [row(f"0.9 to {share:g}", *lost(share), size, num) for share in _LOST for size in _SIZES]
    print(pd.DataFrame(rows).to_string(index=False))
    print()
    prompts = [by_prompt(count, 4 * num) for count in (10, 20, 60, 200)]
    print(pd.DataFrame(prompts).to_string(index=False))


if __name__ == "__main__":
    main()
