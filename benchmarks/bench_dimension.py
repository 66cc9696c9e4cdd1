"""Speed in 4,096 dimensions, as ratios measured side by side: ``pytest -n 0 -m benchmark -s -k dimension``.

Nothing timed is asserted. A step sees 1,000 samples. The straightforward loop and the library's training
in all coordinates take few steps of one trajectory, the training in the span of the means 200 of 256 at once.
"""

import time

import numpy as np
import pytest

from benchmarks.bench_training import machine
from inference import train
from mixture_models import TwoMode, objectives
from mixture_models.losses.precision import PRECISIONS

DIMENSION, BATCH, RATE, STEPS, REPLICATES = 4_096, 1_000, 0.05, 200, 256
TARGET = TwoMode.create(0.5, [0.0, 0.0], [4.0, 0.0])
START = TARGET.replace(old_weight=0.9, new_mean=[2.5, 1.0])
CHOSEN = {"sft": objectives.sft(), "reverse_kl": objectives.reverse_kl()}


def by_numpy(name, dimension, batch, num_steps, rng):
    """Train in all coordinates; return the old weight, and the distances of the means from the target's."""

    def log_joint(y, logit, old, new):
        log_weights = -np.logaddexp(0, -logit), -np.logaddexp(0, logit)
        return [
            w - 0.5 * ((y - mean) ** 2).sum(axis=1) for w, mean in zip(log_weights, (old, new), strict=True)
        ]

    def padded(mixture):
        means = mixture.old_mean, mixture.new_mean
        return mixture.old_logit, *(np.pad(mean, (0, dimension - len(mean))) for mean in means)

    logit, old, new = padded(START)
    target = padded(TARGET)
    for _ in range(num_steps):
        z = rng.standard_normal((batch, dimension))
        if name == "sft":
            y = target[2] + z
        else:
            y = np.where((rng.uniform(size=batch) < 1 / (1 + np.exp(-logit)))[:, None], old, new) + z
        log_old, log_new = log_joint(y, logit, old, new)
        log_q = np.logaddexp(log_old, log_new)
        r_old, r_new = np.exp(log_old - log_q), np.exp(log_new - log_q)
        if name == "sft":
            c = np.full(batch, -1 / batch)
        else:
            ratio = log_q - np.logaddexp(*log_joint(y, *target))
            c = (ratio - (ratio.sum() - ratio) / (batch - 1)) / batch
        share = 1 / (1 + np.exp(-logit))
        by_logit = c @ (r_old - share)
        by_old, by_new = (c * r_old) @ (y - old), (c * r_new) @ (y - new)
        logit, old, new = logit - RATE * by_logit, old - RATE * by_old, new - RATE * by_new
    return np.array(
        [1 / (1 + np.exp(-logit)), np.linalg.norm(old - target[1]), np.linalg.norm(new - target[2])]
    )


def by_library(name, num_steps, num_replicates, batch=BATCH, **changes):
    start, target = (
        m if "dimension" in changes else m.replace(
            old_mean=np.pad(m.old_mean, (0, DIMENSION - 2)), new_mean=np.pad(m.new_mean, (0, DIMENSION - 2))
        )
        for m in (START, TARGET)
    )  # fmt: skip
    final = train(
        CHOSEN[name],
        start,
        target,
        num_steps=num_steps,
        record_every=num_steps,
        batch_size=batch,
        learning_rate=RATE,
        num_replicates=num_replicates,
        seed=1,
        progress=False,
        **changes,
    )["final"].to_dataset()
    return np.stack([final[n].to_numpy().ravel() for n in ("old_weight", "old_drift", "new_gap")], axis=1)


def fastest(action, rounds):
    best = np.inf
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - began)
    return best


@pytest.mark.benchmark
@pytest.mark.parametrize("name", CHOSEN)
def test_speed_in_many_dimensions(name, capsys):
    rng = np.random.default_rng(0)
    # The same work: the loop's trajectories in 64 dimensions are those of the library within five errors.
    mine = np.stack([by_numpy(name, 64, 20, 10, rng) for _ in range(400)])
    ours = by_library(name, 10, 400, batch=20, dimension=64)
    errors = np.sqrt(mine.var(axis=0) / len(mine) + ours.var(axis=0) / len(ours))
    assert np.all(np.abs(mine.mean(axis=0) - ours.mean(axis=0)) < 5 * errors)
    spans = {
        p: lambda p=p: by_library(name, STEPS, REPLICATES, dimension=DIMENSION, precision=p)
        for p in PRECISIONS
    }
    for action in spans.values():
        action()  # compiles
    by_library(name, 2, 1)
    each = {
        "random numbers of the loop alone": fastest(lambda: rng.standard_normal((BATCH, DIMENSION)), 5),
        "straightforward NumPy loop": fastest(lambda: by_numpy(name, DIMENSION, BATCH, 2, rng), 3) / 2,
        # The last loss takes one more step.
        "train(...) in all coordinates": fastest(lambda: by_library(name, 2, 1), 3) / 3,
    }
    for precision, action in spans.items():
        each[f"train(..., dimension), {precision}"] = fastest(action, 3) / (STEPS + 1) / REPLICATES
    with capsys.disabled():
        print(f"\n{name}, {BATCH} samples a step in {DIMENSION} dimensions\n  {machine()}")
        print(f"  {'':36}{'µs a step':>12}   faster than the loop by")
        loop = each["straightforward NumPy loop"]
        for what, seconds in each.items():
            print(f"  {what:36}{1e6 * seconds:12.1f}{loop / seconds:12.1f}")
