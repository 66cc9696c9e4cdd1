"""What a trajectory of more tasks costs: ``pytest -n 0 -m benchmark -s benchmarks/bench_tasks.py``.

Nothing timed is asserted. Ratios to the two-mode training of the same objective, batch and number of steps,
measured side by side; start and end are recorded. Tasks lie on a line, in two dimensions.
"""

import time

import numpy as np
import pytest

from benchmarks.bench_training import machine
from inference import train
from mixture_models import Mixture, TwoMode, objectives

STEPS, BATCH, REPLICATES, ROUNDS = 200, 1_000, 64, 5
COUNTS = (2, 3, 5)


def two_modes():
    target = TwoMode.create(0.5, [0.0, 0.0], [4.0, 0.0])
    return target.replace(old_weight=0.9, new_mean=[3.0, 0.0]), target


def tasks(count):
    target = Mixture.create({f"t{k}": [4.0 * k, 0.0] for k in range(count)})
    return target.replace(means={f"t{count - 1}": [4.0 * count - 5.0, 0.0]}), target


def chosen(name, last, first):
    made = {
        "sft": lambda: objectives.sft(task=last, replay={first: 0.2}),
        "reverse_kl": objectives.reverse_kl,
    }
    return made[name]()


@pytest.mark.benchmark
@pytest.mark.parametrize("name", ["sft", "reverse_kl"])
@pytest.mark.parametrize("dimension", [None, 4_096])
def test_cost_of_more_tasks(name, dimension, capsys):
    problems = {"two modes": (chosen(name, "new", "old"), *two_modes())}
    problems |= {f"{n} tasks": (chosen(name, f"t{n - 1}", "t0"), *tasks(n)) for n in COUNTS}

    def run(problem):
        train(
            *problem,
            num_steps=STEPS,
            batch_size=BATCH,
            learning_rate=0.05,
            num_replicates=REPLICATES,
            seed=1,
            record_every=STEPS,
            dimension=dimension,
            progress=False,
        )

    best = dict.fromkeys(problems, np.inf)
    for turn in range(ROUNDS + 1):
        for what, problem in problems.items():
            began = time.perf_counter()
            run(problem)
            # The first call compiles.
            best[what] = min(best[what], time.perf_counter() - began) if turn else np.inf
    with capsys.disabled():
        where = "in all coordinates" if dimension is None else f"in the span, of {dimension} dimensions"
        print(f"\n{name}, {STEPS} steps of {BATCH} samples, {where}\n  {machine()}")
        print(f"  {'':12}{'ms a trajectory':>16}   times two modes")
        for what, seconds in best.items():
            print(f"  {what:12}{1e3 * seconds / REPLICATES:16.2f}{seconds / best['two modes']:12.2f}")
