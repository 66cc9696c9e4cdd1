"""Long tests of sweeps: every objective of the registry, clusters, kills by the hundred, memory, devices."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
from sweep_runs import CHOSEN, assert_agrees, committed, killed, numbers, point, run

from inference import open_sweep
from inference.sweeps import store as sweep_store
from mixture_models import TwoMode, objectives

pytestmark = pytest.mark.slow

# For every objective an argument as an axis, and values that change its program where there are such.
AXES = {
    "sft": ("replay", [0.0, 0.1, 0.4]),
    "reverse_kl": ("replay", [0.0, 0.3]),
    "sdft": ("anchor", [0.0, 0.2, 1.0]),
    "ttt_discover": ("kl_weight", [0.0, 0.5]),
    "oapl": ("lag", [2, 5]),
}


def environment(**changes):
    """Return the environment of another process that imports what this one does."""
    here = os.environ | {"JAX_PLATFORMS": "cpu"} | changes
    here["PYTHONPATH"] = os.pathsep.join(sys.path)
    return here


@pytest.mark.parametrize("name", objectives.registry)
def test_every_objective_of_the_registry_is_swept_as_it_is_trained(name, tmp_path):
    argument, values = AXES[name]
    chosen = [objectives.registry[name]()]
    grid = {
        f"objective.{argument}": values,
        "target.separation": [0.5, 4.0],
        "num_steps": [1, 9],
        "learning_rate": [0.05, 0.2],
    }
    tree = run(tmp_path / "store.zarr", grid, chosen)
    rng = np.random.default_rng(1)
    for value in values:
        at = {axis: of_axis[rng.integers(len(of_axis))] for axis, of_axis in grid.items()}
        at[f"objective.{argument}"] = value
        changed = [objectives.changed(chosen[0], **{argument: value})]
        assert_agrees(tree, point(grid, changed, **at), at)


def test_batch_sizes_are_an_axis_with_own_random_numbers_too(tmp_path):
    chosen, grid = [objectives.reverse_kl()], {"batch_size": [2, 5], "start.old_weight": [0.2, 0.7]}
    tree = run(tmp_path / "store.zarr", grid, chosen, common_random_numbers=False)
    for size in grid["batch_size"]:
        at = {"batch_size": size, "start.old_weight": 0.7}
        seed = int(tree["constant_data"]["seed_of_point"].sel(at).isel(objective=0))
        assert_agrees(tree, point(grid, chosen, **(at | {"seed": seed})), at)


def test_a_cluster_of_two_workers_gives_the_same_numbers_and_outlives_one(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    store, victims = tmp_path / "cluster.zarr", []

    def kill_one():
        while not committed(store):
            time.sleep(0.05)
        workers = [
            p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())
        ]
        victims.append(workers[0])
        workers[0].send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    run(store, workers=2)
    killer.join()
    assert victims
    assert numbers(store) == numbers(whole)


class Killed(Exception):
    """The moment of a simulated death."""


def dying(monkeypatch, moment, rng):
    """Let the process die in its file operation of this number: half of that file may be left."""
    original, lock, count = sweep_store.files.write, threading.Lock(), [0]

    def write(file, contents):
        with lock:
            count[0] += 1
            number = count[0]
        if number < moment:
            return original(file, contents)
        if number == moment and rng.random() < 0.7:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f"{file.name}.dead.partial")
            part.write_bytes(contents[: rng.integers(len(contents) + 1)])
        raise Killed

    monkeypatch.setattr(sweep_store.files, "write", write)
    return count


def test_a_hundred_interrupted_sweeps_end_as_if_they_had_not_been(tmp_path, monkeypatch):
    small = {"chosen": CHOSEN[:1], "grid": {"start.old_weight": list(np.linspace(0.1, 0.9, 150))}}
    with monkeypatch.context() as patched:
        total = dying(patched, np.inf, np.random.default_rng(0))
        run(tmp_path / "whole.zarr", **small)
    rng, wanted, deaths = np.random.default_rng(1), numbers(tmp_path / "whole.zarr"), 0
    for index in range(100):
        store = tmp_path / f"{index}.zarr"
        # Some die again and again.
        for _ in range(1 + index % 3):
            with monkeypatch.context() as patched:
                dying(patched, rng.integers(1, total[0] + 1), rng)
                try:
                    run(store, **small)
                except Killed:
                    deaths += 1
        run(store, **small)
        assert numbers(store) == wanted, index
        shutil.rmtree(store)
    assert deaths > 100


def test_sweeps_killed_at_random_moments_end_as_if_they_had_not_been(whole, tmp_path):
    rng, wanted = np.random.default_rng(0), numbers(whole)
    for index in range(10):
        store = tmp_path / f"{index}.zarr"
        killed(store, rng.uniform(0.0, 0.6))
        run(store)
        assert numbers(store) == wanted, index


MEMORY = """
import numpy as np
from inference import sweep
from mixture_models import TwoMode, objectives
target = TwoMode.create(0.4, np.zeros({dim}), 3.0 * np.eye({dim})[0])
sweep(
    [objectives.sft(replay=0.1), objectives.reverse_kl()],
    {{"start.old_weight": list(np.linspace(0.1, 0.9, 60)), "batch_size": [{batch}]}},
    start=target.replace(old_weight=0.8), target=target, store={store!r}, num_steps=20, batch_size=8,
    learning_rate=0.01, num_replicates=8, seed=0, record_every={every}, memory={memory},
)
print("peak", int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1024)
"""


@pytest.mark.parametrize(
    ("dim", "batch", "every", "memory"),
    [(2, 64, 20, None), (16, 1024, 20, None), (64, 2, 1, None), (64, 2048, 20, 1600 * 2**20)],
)
def test_the_estimate_of_memory_is_never_exceeded(dim, batch, every, memory, tmp_path):
    script = MEMORY.format(dim=dim, batch=batch, every=every, memory=memory, store=str(tmp_path / "m.zarr"))
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True
    )
    estimate = float(re.search(r"at most (\d+) MiB of memory", ended.stderr)[1])
    peak = float(re.search(r"peak (\S+)", ended.stdout)[1])
    print(f"dimension {dim}, batch {batch}: estimate {estimate:.0f} MiB, peak {peak:.0f} MiB")
    assert peak <= estimate
    assert memory is None or estimate <= memory / 2**20
    # An estimate that says nothing would pass too.
    assert estimate <= 2.5 * peak


def test_two_devices_share_the_settings_and_change_no_number(whole, tmp_path):
    store = tmp_path / "devices.zarr"
    script = f"import jax, sweep_runs; print(jax.local_device_count()); sweep_runs.run({str(store)!r})"
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(**flags),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.split() == ["2"]
    one, two = open_sweep(whole)["final"].to_dataset(), open_sweep(store)["final"].to_dataset()
    for name in one.data_vars:
        np.testing.assert_allclose(two[name], one[name], rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("name", ["sft", "reverse_kl", "oapl"])
def test_extremes_are_numbers_or_counted_as_diverged(name, tmp_path):
    grid = {
        "target.separation": [1e-6, 100.0],
        "target.old_weight": [1e-12, 0.5],
        "learning_rate": [1e-6, 1e3],
        "num_steps": [1, 9],
    }
    tree = run(tmp_path / "far.zarr", grid, [objectives.registry[name]()], num_replicates=1)
    diverged = tree["trajectory_stats"]["diverged_step"] >= 0
    for variable in ("old_weight", "retention", "old_drift", "new_gap"):
        values = tree["final"][variable]
        assert bool((np.isnan(values) == diverged).all()), variable
    assert np.all(tree["final"]["old_weight"].where(~diverged, 0.5) >= 0.0)
    target = TwoMode.create(0.5, np.zeros(10_000), np.eye(10_000)[0])
    tree = run(
        tmp_path / "wide.zarr",
        {"start.old_weight": [0.3]},
        [objectives.registry[name]()],
        target=target,
        start=target.replace(old_weight=0.8),
        num_steps=1,
        batch_size=2,
        num_replicates=1,
    )
    assert np.isfinite(tree["final"]["old_drift"]).all()
