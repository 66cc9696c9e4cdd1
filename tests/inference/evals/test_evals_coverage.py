"""Intervals of evaluation logs over many runs hold truths that are drawn from the prior as often as they say.

Truths from the prior are held with the very probability of the interval, on average over runs. A truth that
is exactly 0 at the end of its range is in no interval with equal tails: it is asked how near they come to it.
"""

import numpy as np
import pandas as pd
import pytest
from evals_simulation import Truth, cells_of, choices, paired, paired_choices
from scipy import special, stats

from inference.measurement.evals.measure_evals import measure_paired

NUM, TOGETHER, LEVEL = 240, 40, 0.89
TAILS = [0.5 - 0.5 * LEVEL, 0.5 + 0.5 * LEVEL]
FAST = {"progress": False, "method": "laplace", "num_log_likelihood_items": 0}


def intervals(tree, names):
    """Return the ends of each run's interval, runs being tasks."""
    posterior = tree["posterior"].to_dataset()[names].squeeze(["seed", "checkpoint"])
    found = {}
    for name in names:
        draws = posterior[name].stack(sample=("chain", "draw")).to_numpy()
        found[name] = np.quantile(draws[np.arange(len(draws)), np.arange(len(draws))], TAILS, axis=-1).T
    return found


def measured(frames, pair):
    """Return intervals of runs that have nothing in common; words and k̂ of each."""
    whole = pd.concat([frame.assign(run=i) for i, frame in enumerate(frames)], ignore_index=True)
    labels = [str(i) for i in range(len(frames))]
    tree = measure_paired(pair(whole, task=labels, arm=labels), **FAST)
    names = [str(name) for name in tree["posterior"].data_vars]
    return intervals(tree, names)


def check(held):
    """Fail where intervals hold the truth in less than 85 % or more than 93 %, beyond binomial error."""
    for name, inside in held.items():
        num = len(inside)
        least, most = stats.binom.ppf(2e-3, num, 0.85), stats.binom.ppf(1.0 - 2e-3, num, 0.93)
        assert least <= np.sum(inside) <= most, (name, np.mean(inside))


def run_of_prior(rng, num_items, num_answers, k):
    """Draw a task and a run from the prior; return its cells and the truth."""
    sd = np.exp(np.log(4.0) + 0.7 * rng.normal())
    mean = 1.3 * rng.normal() * np.sqrt(sd**2 + 2.9)
    guess = rng.beta(1.0, 0.5) / k
    mass_lost = (1.0 - np.sqrt(rng.uniform())) ** 2  # Kumaraswamy(1/2, 2)
    drift, spread = rng.logistic(0.0, 0.6), rng.exponential(1.0)

    def success(rng, size):
        a = rng.normal(mean, sd, size)
        b = a + drift + spread * rng.normal(size=size)
        known, after = special.expit(a), (1.0 - mass_lost) * special.expit(b)
        return guess + (1.0 - guess) * known, guess + (1.0 - guess) * after

    before, after = success(rng, num_items)
    truth = Truth(num_items, num_answers, num_answers, num_choices=float(k))
    cells = cells_of(rng.binomial(num_answers, before), rng.binomial(num_answers, after), truth)
    p, q = success(np.random.default_rng(0), 400_000)
    return cells, {
        "old_weight": 1.0 - mass_lost,
        "drift": drift,
        "drift_spread": spread,
        "lost": np.mean(np.maximum(p - q, 0.0)),
        "won": np.mean(np.maximum(q - p, 0.0)),
        "accuracy_change": np.mean(q - p),
        "accuracy_change_of_items": np.mean(after - before),
    }


def held_by(found, truths):
    return {
        name: [low <= truth[name] <= high for (low, high), truth in zip(found[name], truths, strict=True)]
        for name in truths[0]
    }


def collect(draw, pair):
    held = {}
    for _ in range(NUM // TOGETHER):
        frames, truths = zip(*(draw() for _ in range(TOGETHER)), strict=True)
        for name, inside in held_by(measured(frames, pair), truths).items():
            held.setdefault(name, []).extend(inside)
    return held


@pytest.mark.slow
@pytest.mark.parametrize("num_answers", [1, 4])
def test_intervals_of_repeats_hold_truths_from_the_prior(num_answers):
    rng = np.random.default_rng(num_answers)
    held = collect(lambda: run_of_prior(rng, 300, num_answers, 4), paired)
    assert set(held) >= {"old_weight", "drift", "drift_spread", "lost", "won", "accuracy_change"}
    check(held)


@pytest.mark.slow
def test_intervals_of_choices_hold_truths_from_the_prior():
    rng = np.random.default_rng(2)

    def draw():
        k = int(rng.choice([3, 4, 10]))
        shares, persistence = rng.dirichlet(np.ones(4)), rng.uniform()
        names = ("known_kept", "forgotten", "acquired")
        truth = dict(zip(names, shares, strict=False)) | {"persistence": persistence}
        truth |= {"lost": shares[1] * (1.0 - 1.0 / k), "won": shares[2] * (1.0 - 1.0 / k)}
        truth["accuracy_change"] = truth["won"] - truth["lost"]
        return choices(rng, 300, k, list(shares), persistence), truth

    check(collect(draw, paired_choices))


@pytest.mark.slow
def test_where_nothing_has_changed_intervals_come_near_it():
    """A run that is the base: δ and the change of accuracy are held, the others nearly reach 0."""
    rng = np.random.default_rng(3)
    found = {}
    for _ in range(3):
        frames = []
        for _ in range(TOGETHER):
            p = special.expit(rng.normal(1.0, rng.uniform(2.0, 8.0), 400))
            frames.append(cells_of(rng.binomial(4, p), rng.binomial(4, p), Truth(400, 4, 4)))
        for name, ends in measured(frames, paired).items():
            found.setdefault(name, []).extend(ends)
    ends = {name: np.array(values) for name, values in found.items()}
    for name in ("drift", "accuracy_change"):
        inside = (ends[name][:, 0] <= 0.0) & (ends[name][:, 1] >= 0.0)
        assert np.sum(inside) >= stats.binom.ppf(2e-3, len(inside), 0.85), (name, inside.mean())
    # The prior has most of its density near 0, so that an interval may come as near as it likes.
    mass, spread = 1.0 - ends["old_weight"][:, 1], ends["drift_spread"][:, 0]
    for name, lower, near in (
        ("mass lost", mass, 0.01),
        ("spread", spread, 0.3),
        ("lost", ends["lost"][:, 0], 0.01),
        ("won", ends["won"][:, 0], 0.01),
    ):
        # 5.5 % may lie above, as of any truth.
        assert np.sum(lower > near) <= stats.binom.ppf(1.0 - 2e-3, len(lower), 0.055), (name, lower.max())
    assert np.median(1.0 - ends["old_weight"][:, 0]) < 0.05
