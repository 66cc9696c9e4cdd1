"""What each thing that is made for CPUs by hand buys: ``pytest -n 0 -m benchmark -s -k accel``.

The work is a block of a sweep, on one core: 64 trainings of 200 steps of 1,000 samples that share no random
numbers. Each operation and each compiler option is switched off alone, and several together. The variants
take turns, so that a busy machine slows all. Nothing timed is asserted.
"""

import time

import jax
import numpy as np
import pytest

from benchmarks.bench_throughput import FACTORS, objective
from benchmarks.bench_training import BATCH, RATES, STEPS, fastest, machine
from inference.sweeps import blocks
from inference.sweeps.cuts import Block, geometry
from inference.sweeps.grid import Grid
from mixture_models import TwoMode, objectives
from mixture_models.accel import compiler, switch
from mixture_models.losses.precision import PRECISIONS
from mixture_models.objectives import published

TARGET = TwoMode.create(old_weight=0.5, old_mean=0.0, new_mean=3.0)
START = TARGET.replace(old_weight=0.9, new_mean=2.0)
PUBLISHED = (published.START, published.TARGET, FACTORS)
WORK = {method: (objective(method), *PUBLISHED) for method in RATES} | {
    name: (objectives.parse(name), START, TARGET, None) for name in ("sft:replay=0.2", "reverse_kl")
}
TRAJECTORIES, REPLICATES = 256, 8


def grid_of(name, precision):
    chosen, start, target, factors = WORK[name]
    return Grid.create(
        chosen,
        {"learning_rate": np.linspace(0.005, 0.01, TRAJECTORIES // REPLICATES)},
        start,
        target,
        num_steps=STEPS,
        batch_size=BATCH,
        learning_rate=0.01,
        num_replicates=REPLICATES,
        seed=0,
        record_every=1,
        learning_rate_factors=factors,
        common_random_numbers=False,
        precision=precision,
    )


def variants():
    """Return what is switched off in every variant."""
    operations, options = set(switch.OPERATIONS), set(compiler.OPTIONS)
    alone = {name: {name} for name in (*sorted(operations), *sorted(options))}
    together = {
        "random_bits, normal_quantile": {"random_bits", "normal_quantile"},
        "all operations": operations,
        "all options": options,
        "everything": operations | options,
    }
    return {"nothing": set()} | alone | together


def compiled(names, grid, monkeypatch):
    """Return what trains a block with some things switched off, and the seconds of a core to compile it."""
    programs, cut = {}, geometry(grid)

    def act(_=None):
        with monkeypatch.context() as patched, switch.without(*names):
            patched.setattr(blocks, "_COMPILED", programs)
            blocks.train_block(grid, cut, Block(0, (0,), 0), lambda _: None)

    jax.clear_caches()
    began = time.process_time()
    act()
    return act, time.process_time() - began


@pytest.mark.benchmark
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", WORK)
def test_what_is_made_by_hand_buys(name, precision, monkeypatch, capsys):
    grid = grid_of(name, precision)
    cut = geometry(grid)
    found = {what: compiled(names, grid, monkeypatch) for what, names in variants().items()}
    _, cpu = fastest({what: action for what, (action, _) in found.items()})
    count = cut.settings * cut.replicates
    with capsys.disabled():
        print(f"\n{name}, {precision}, {STEPS} steps of {BATCH} samples, {count} trajectories at once")
        print(f"  {machine()}")
        print(f"  {'switched off':38}{'ms of a core each':>19}{'ratio':>7}{'to compile, s':>15}{'ratio':>7}")
        kept = found["nothing"][1] - cpu["nothing"]
        for what, (_, first) in found.items():
            each, compiling = 1e3 * cpu[what] / count, first - cpu[what]
            ratios = cpu[what] / cpu["nothing"], compiling / kept
            print(f"  {what:38}{each:19.3f}{ratios[0]:7.2f}{compiling:15.2f}{ratios[1]:7.2f}")
