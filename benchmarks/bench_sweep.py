"""Throughput of sweeps, as ratios measured side by side in one run, on a CPU or an accelerator.

A block of a sweep is what one call of its program trains. Beside it stands what its random numbers alone
cost: the same draws in the same loop, with nothing done to them but a sum.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from benchmarks.bench_training import machine
from inference.sweeps import cuts
from inference.sweeps.blocks import train_block
from inference.sweeps.cuts import Block, geometry
from inference.sweeps.grid import Grid
from inference.training.loop import arithmetic
from mixture_models import TwoMode, objectives
from mixture_models.accel.compiler import compiler_options
from mixture_models.losses.precision import PRECISIONS

STEPS, BATCH, ROUNDS = 200, 1000, 3
TARGET = TwoMode.create(old_weight=0.5, old_mean=0.0, new_mean=3.0)
START = TARGET.replace(old_weight=0.9, new_mean=2.0)


def grid_of(chosen, trainings, precision, common):
    """Return a grid of so many trainings, over learning rates and replicates."""
    replicates = min(cuts._REPLICATES, trainings)
    rates = np.geomspace(1e-3, 1e-1, -(-trainings // replicates))
    return Grid.create(
        chosen,
        {"learning_rate": rates},
        START,
        TARGET,
        num_steps=STEPS,
        batch_size=BATCH,
        learning_rate=0.1,
        num_replicates=replicates,
        seed=0,
        record_every=None,
        learning_rate_factors=None,
        common_random_numbers=common,
        precision=precision,
    )


def best(action):
    """Return the least seconds of an action that has been compiled."""
    action()
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def random_numbers(draws):
    """Return a program of a block's random numbers: of every draw a normal and an integer a sample."""

    def step(keys, _):
        both = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
        z = jax.vmap(lambda key: jax.random.normal(key, (BATCH,), jnp.float32))(both[:, 1])
        bits = jax.vmap(lambda key: jax.random.bits(key, (BATCH,), jnp.uint32))(both[:, 2])
        z, bits = lax.optimization_barrier((z, bits))
        return both[:, 0], (z.sum(), bits.max())

    program = jax.jit(lambda keys: lax.scan(step, keys, None, STEPS), compiler_options=compiler_options())
    keys = jax.random.split(jax.random.key(0, impl="threefry2x32"), draws)
    return lambda: jax.block_until_ready(program(keys))


@pytest.mark.benchmark
def test_throughput_of_a_block_against_its_random_numbers(capsys):
    rows = []
    for chosen in (objectives.sft(replay=0.2), objectives.reverse_kl()):
        for common in (True, False):
            for precision in PRECISIONS:
                grid = grid_of(chosen, 2**16, precision, common)
                cut = geometry(grid)
                trainings = cut.settings * cut.replicates
                block = Block(0, (0,), 0)
                seconds = best(lambda g=grid, c=cut, b=block: train_block(g, c, b, lambda amount: None))
                draws = cut.replicates if common else trainings
                with arithmetic():
                    alone = best(random_numbers(draws))
                rows.append((chosen.name, common, precision, trainings, seconds, alone))
    with capsys.disabled():
        device = jax.devices()[0]
        print(f"\na block of a sweep, {STEPS} steps of {BATCH} samples, one call at a time")
        print(f"  {device.device_kind if device.platform != 'cpu' else machine()}")
        head = ("draws", "", "trainings", "µs each", "samples/s", "draws alone")
        print(f"  {'':18}" + "".join(f"{h:>{w}}" for h, w in zip(head, (8, 9, 11, 9, 14, 13), strict=True)))
        for name, common, precision, trainings, seconds, alone in rows:
            rate = trainings * STEPS * BATCH / seconds
            kind = "shared" if common else "own"
            each, share = 1e6 * seconds / trainings, alone / seconds
            print(f"  {name:18}{kind:>8}{precision:>9}{trainings:11d}{each:9.1f}{rate:14.2e}{share:13.1%}")
