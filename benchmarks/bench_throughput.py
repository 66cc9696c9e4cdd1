"""Throughput of many trajectories, side by side in one run: ``pytest -n 0 -m benchmark -s -k throughput``.

Nothing timed is asserted; that a new grid compiles nothing is. The work is that of `bench_training`:
published bi-modal runs of 200 steps of 1,000 samples, all recorded, here 1,024 at once. Sweeps have common
random numbers. Their trainings alone end in memory, as the loops' do; a sweep writes them into a store.
"""

import tempfile
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
from jax.tree_util import Partial

from analyses import chen2025
from benchmarks.bench_training import (
    BATCH,
    DIVERGENCES,
    LEARNER,
    RATES,
    STEPS,
    by_numpy,
    by_scipy,
    fastest,
    machine,
)
from inference import sweep, train
from inference.engine.chunks import run_together
from inference.sweeps.blocks import train_block
from inference.sweeps.cuts import blocks, geometry
from inference.sweeps.grid import Grid
from mixture_models.losses.precision import PRECISIONS
from mixture_models.objectives import Objective, new_data, published

TRAJECTORIES, MANY = 1_024, 8_192
REPLICATES = 8
LOOP = "straightforward loop, SciPy"
FACTORS = dict.fromkeys(("old_weight", "old_mean", "old_scale"), chen2025.FACTOR)


def objective(method):
    return Objective(method, Partial(new_data, None), LEARNER, DIVERGENCES[method])


def by_train(method, precision="float64", count=TRAJECTORIES, num_steps=STEPS, record_every=1, seed=0):
    train(
        objective(method),
        published.START,
        published.TARGET,
        num_steps=num_steps,
        record_every=record_every,
        batch_size=BATCH,
        learning_rate=RATES[method],
        num_replicates=count,
        seed=seed,
        optimizer=chen2025.published_steps(RATES[method], chen2025.FACTOR),
        precision=precision,
        progress=False,
    )


def swept(method, seed, precision, count):
    """Return the arguments of a sweep of learning rates below the published one, eight replicates of each."""
    rates = RATES[method] * np.linspace(0.5, 1.0, count // REPLICATES) * (1.0 - 1e-3 * seed)
    settings = {
        "num_steps": STEPS,
        "record_every": 1,
        "batch_size": BATCH,
        "learning_rate": RATES[method],
        "learning_rate_factors": FACTORS,
        "num_replicates": REPLICATES,
        "seed": seed,
        "precision": precision,
    }
    return objective(method), {"learning_rate": rates}, settings


def by_sweep(method, folder, seed, precision="float64", count=TRAJECTORIES):
    trained, axes, settings = swept(method, seed, precision, count)
    store = tempfile.mkdtemp(dir=folder) + "/store.zarr"
    sweep(
        trained, axes, start=published.START, target=published.TARGET, store=store, progress=False, **settings
    )


def by_blocks(method, seed, precision="float64", count=TRAJECTORIES):
    """Train what a sweep trains, without its store."""
    trained, axes, settings = swept(method, seed, precision, count)
    grid = Grid.create(
        trained, axes, published.START, published.TARGET, common_random_numbers=True, **settings
    )
    cut = geometry(grid)
    tasks = [partial(train_block, grid, cut, block) for block in blocks(grid, cut)]
    run_together(tasks, nullcontext, lambda _: None)


@pytest.mark.benchmark
@pytest.mark.parametrize("method", RATES)
def test_throughput_against_the_loop(method, tmp_path, capsys, compilations):
    sweep_of = partial(by_sweep, method, tmp_path)
    by_train(method)
    by_train(method, "float32")
    for precision in PRECISIONS:
        for count in (TRAJECTORIES, MANY):
            sweep_of(0, precision, count)
            assert not compilations(partial(sweep_of, 1, precision, count))
    actions = {
        LOOP: (lambda seed: by_scipy(method, seed), 1),
        "tight loop, NumPy": (lambda seed: by_numpy(method, seed), 1),
        "train, mixed precision": (lambda seed: by_train(method, seed=seed), TRAJECTORIES),
        "train, float32": (lambda seed: by_train(method, "float32", seed=seed), TRAJECTORIES),
    }
    for words, precision in (("mixed", "float64"), ("float32", "float32")):
        for count in (TRAJECTORIES, MANY):
            actions[f"trained by a sweep of {count}, {words}"] = (
                lambda seed, p=precision, n=count: by_blocks(method, seed, p, n),
                count,
            )
            actions[f"sweep of {count} and its store, {words}"] = (
                lambda seed, p=precision, n=count: sweep_of(seed, p, n),
                count,
            )
    wall, cpu = fastest({name: action for name, (action, _) in actions.items()})
    with capsys.disabled():
        print(f"\n{method}, {STEPS} steps of {BATCH} samples, {TRAJECTORIES} trajectories at once")
        print(f"  {machine()}")
        print(f"  {'':42}{'ms a trajectory':>16}{'of a core':>11}   faster than the loop by, and by core")
        for name, (_, count) in actions.items():
            each, core = 1e3 * wall[name] / count, 1e3 * cpu[name] / count
            ratios = f"{1e3 * wall[LOOP] / each:12.1f}{1e3 * cpu[LOOP] / core:12.1f}"
            print(f"  {name:42}{each:16.3f}{core:11.3f}{ratios}")


@pytest.mark.benchmark
def test_throughput_of_any_number_of_trajectories(capsys):
    """With a hundred steps each, of which the last is recorded."""
    method, num_steps = "forward KL", 100
    counts = [256, 1_024, 4_096, 16_384, 65_536]
    run = partial(by_train, method, num_steps=num_steps, record_every=num_steps)
    run(count=64)
    wall, cpu = fastest({count: lambda seed, n=count: run(count=n, seed=seed) for count in counts})
    with capsys.disabled():
        print(f"\n{method}, {num_steps} steps of {BATCH} samples, µs a step of one trajectory, and of a core")
        print(f"  {machine()}")
        for count in counts:
            each, core = (1e6 * seconds[count] / count / num_steps for seconds in (wall, cpu))
            print(f"  {count:6} trajectories at once: {each:8.2f}{core:8.2f}")
