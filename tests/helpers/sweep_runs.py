"""A small sweep, trainings of its points, and processes that sweep and are killed."""

import os
import signal
import subprocess
import sys
import time

import numpy as np

from inference import open_sweep, sweep, train
from mixture_models import TwoMode, objectives

TARGET = TwoMode.create(old_weight=0.4, old_mean=0.0, new_mean=3.0)
CHOSEN = [objectives.sft(replay=0.2), objectives.reverse_kl()]
SETTINGS = {"num_steps": 9, "batch_size": 8, "learning_rate": 0.1, "num_replicates": 3, "seed": 4}
GRID = {
    "target.separation": [2.0, 3.5],
    "start.old_weight": list(np.linspace(0.2, 0.8, 33)),
    "learning_rate": [0.02, 0.1, 0.3],
    "num_steps": [4, 9],
}
GROUPS = ("trajectory", "final", "trajectory_stats")


def start_of(target):
    return target.replace(old_weight=0.8, new_mean=target.new_mean - 0.7)


def run(store, grid=GRID, chosen=CHOSEN, **changes):
    settings = SETTINGS | {"start": start_of, "target": TARGET, "record_every": 3, "progress": False}
    return sweep(chosen, grid, store=store, **(settings | changes))


def numbers(store):
    """Return everything that was trained, as bytes by group and variable."""
    tree = open_sweep(store)
    return {(g, n): v.to_numpy().tobytes() for g in GROUPS for n, v in tree[g].data_vars.items()}


def point(grid, chosen, precision="float64", **at):
    """Train one point of a grid by `train`, and return its tree."""
    target = TARGET
    if "target.separation" in at:
        target = target.replace(new_mean=target.old_mean + at["target.separation"])
    start = start_of(target)
    if "start.old_weight" in at:
        start = start.replace(old_weight=at["start.old_weight"])
    changes = {name: at[name] for name in ("learning_rate", "num_steps", "batch_size", "seed") if name in at}
    changes |= {"record_every": 3, "progress": False, "precision": precision}
    return train(chosen, start, target, **(SETTINGS | changes))


def assert_agrees(tree, single, at, tolerance=1e-10):
    """Assert that a sweep at a point is a training, in every variable, step and replicate."""
    steps = single["trajectory"]["step"].to_numpy()
    inside = {name: value for name, value in at.items() if name != "num_steps"}
    swept = tree["trajectory"].to_dataset().sel(inside).sel(step=steps)
    length = {"num_steps": at["num_steps"]} if "num_steps" in tree["final"].dims else {}
    ended = tree["final"].to_dataset().sel(inside | length)
    for name, values in single["trajectory"].data_vars.items():
        np.testing.assert_allclose(swept[name].to_numpy(), values, rtol=0.0, atol=tolerance, err_msg=name)
        np.testing.assert_allclose(ended[name].to_numpy(), values.isel(step=-1), rtol=0.0, atol=tolerance)
    there = tree["trajectory_stats"]["diverged_step"].sel(inside | length)
    np.testing.assert_array_equal(there, single["trajectory_stats"]["diverged_step"])


SCRIPT = """
import sweep_runs
sweep_runs.run({store!r})
"""


def killed(store, wait):
    """Run the sweep in another process and kill it after a chunk; return whether it was still at work."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    process = subprocess.Popen([sys.executable, "-c", SCRIPT.format(store=str(store))], env=environment)
    try:
        begun = time.monotonic()
        while process.poll() is None and not committed(store):
            assert time.monotonic() - begun < 300.0
            time.sleep(0.02)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    return process.returncode == -signal.SIGKILL


def committed(store):
    return sum(path.is_file() for path in (store / "commits" / "checksum").glob("c/**/*"))
