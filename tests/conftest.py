"""What several test files share."""

import atexit
import gc
import logging
import os
import shutil
import sys
import tempfile

# Before JAX reads it: the processes of a test run, and the commands that they start, share what they compile,
# and nothing else does. However small: an operation outside of a program takes 20 ms to compile, 2 to read.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="massdrift-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import matplotlib
import pytest

from analyses import cli
from inference import train
from mixture_models import TwoMode, objectives

matplotlib.use("Agg")

# What JAX traces lives on: looking through it for what does not, as often as Python does, takes 6 % of a run.
gc.set_threshold(100_000, 20, 100)


@pytest.fixture
def x64():
    """Arithmetic in float64 while a test runs."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def runs():
    """A small comparison of two objectives, for tests of what is done with a result."""
    target = TwoMode.create(0.4, [0.0, 0.0], [3.0, 0.0], covariance=[[1.0, 0.2], [0.2, 2.0]])
    start = target.replace(old_weight=0.8, new_mean=[2.0, 0.5])
    chosen = [objectives.sft(), objectives.sft(replay=0.2)]
    return train(
        chosen,
        start,
        target,
        num_steps=20,
        batch_size=16,
        learning_rate=0.1,
        num_replicates=6,
        seed=3,
        record_every=5,
        progress=False,
    )


@pytest.fixture
def massdrift(monkeypatch, capsys):
    """Run the command in this process; return its exit code, output and error output."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["massdrift", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def compilations(caplog):
    """Return what a call compiled, on whichever thread: JAX's own context manager is that of one."""

    def of(call):
        caplog.clear()
        jax.config.update("jax_log_compiles", True)
        try:
            with caplog.at_level(logging.WARNING):
                call()
        finally:
            jax.config.update("jax_log_compiles", False)
        return [r.getMessage() for r in caplog.records if r.getMessage().startswith("Compiling")]

    return of
