"""Ctrl-C: heard soon, one sentence, what was finished is kept, and the same command goes on from it."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr
from small_runs import SMALL
from threadpoolctl import threadpool_info

import inference
from analyses.core import interruption, outputs
from inference.engine import blas
from inference.storage import kept
from inference.training import replicates
from inference.training import train as training
from mixture_models import TwoMode, objectives

LONG = {
    "compare": ["--num-steps=200000"],
    "near-on-policy": [],
    "reproduce": ["chen2025"],
    "replay": ["--num-replicates=2000"],
    "drift": [],
    "plan": ["--check", "--num-steps=500000"],
    "phase": [],
    "digits": [],
}


def counting(monkeypatch, stop_at=None):
    """Count the chunks that are trained; Ctrl-C comes at one of them."""
    real, done = replicates.run, []

    def run(batched, keys, setting, rate, plan, report=None):
        if report is not None:
            if len(done) == stop_at:
                raise KeyboardInterrupt
            done.append(1)
        return real(batched, keys, setting, rate, plan, report)

    monkeypatch.setattr(replicates, "run", run)
    return done


def invented(monkeypatch):
    """Count the chunks that are trained, which return random records: nothing is compiled."""
    rng, done = np.random.default_rng(0), []

    def run(batched, keys, setting, rate, plan, report=None):
        shapes = training._recorded(batched.program, setting) | {"loss": ()}
        if report is not None:
            done.append(1)
        size = (len(keys), np.count_nonzero(plan.counts))
        records = {name: rng.normal(size=size + shape) for name, shape in shapes.items()}
        return replicates.Ended(records, {}, np.full(len(keys), -1))

    monkeypatch.setattr(replicates, "run", run)
    return done


@pytest.mark.parametrize(
    "chosen",
    [
        # They differ in a number alone, and share what is compiled; neither exact side nor figures.
        ["sft", "sft:replay=0.2", "sft:replay=0.3"],
        pytest.param(["sft", "reverse_kl", "sdft"], marks=pytest.mark.slow),
    ],
    ids=["trainings", "all"],
)
def test_finished_objectives_are_kept_and_the_same_command_goes_on(massdrift, tmp_path, monkeypatch, chosen):
    monkeypatch.setattr("inference.engine.chunks.num_threads", lambda: 1)
    whole_command = "sdft" in chosen
    if not whole_command:
        monkeypatch.setattr("analyses.compare.compare.has_exact", lambda *a: False)
        monkeypatch.setattr("analyses.compare.plot", lambda tree: {})
    arguments = ["compare", *chosen, *SMALL, "--out", tmp_path / "deep" / "out"]
    with monkeypatch.context() as patch:
        done = counting(patch, stop_at=2)
        code, printed, error = massdrift(*arguments)
    keep = tmp_path / "deep" / ".out.massdrift-kept"
    assert (code, printed, len(done)) == (130, "", 2)
    assert error == (
        f"massdrift: stopped: interrupted; what was finished is kept in {keep}, and the same command goes on "
        "from there\n"
    )
    assert len(list(keep.iterdir())) == 2
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [keep.name]

    done = counting(monkeypatch)
    assert massdrift(*arguments)[0] == 0
    assert len(done) == 1
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert massdrift(*arguments[:-1], tmp_path / "whole")[0] == 0
    assert len(done) == 4
    first, whole = (inference.open(tmp_path / p / "results.zarr") for p in ("deep/out", "whole"))
    groups = ["trajectory", "trajectory_stats", *(["population", "descent"] if whole_command else [])]
    for group in groups:
        xr.testing.assert_identical(first[group].to_dataset(), whole[group].to_dataset())


def test_nothing_is_left_where_nothing_was_finished(massdrift, tmp_path, monkeypatch):
    counting(monkeypatch, stop_at=0)
    code, _, error = massdrift("compare", "sft", *SMALL, "--out", tmp_path / "deep" / "out")
    assert code == 130
    assert error == "massdrift: stopped: interrupted; nothing was finished yet\n"
    assert list(tmp_path.iterdir()) == []


def trained(folder, chosen, start, target, **changes):
    settings = {"num_steps": 4, "batch_size": 4, "learning_rate": 0.1, "num_replicates": 3, "seed": 1}
    with kept.keeping(folder):
        return inference.train(chosen, start, target, progress=False, **(settings | changes))


def test_what_is_kept_is_of_the_same_training_alone(tmp_path, monkeypatch):
    """A changed number anywhere is another training: nothing of the first is taken for it."""
    target = TwoMode.create(0.5, 0.0, 4.0)
    start = target.replace(old_weight=0.9)
    done = invented(monkeypatch)
    base = trained(tmp_path, objectives.sft(), start, target)
    again = trained(tmp_path, objectives.sft(), start, target)
    xr.testing.assert_identical(base["trajectory"].to_dataset(), again["trajectory"].to_dataset())
    assert len(done) == 1
    rate = 0.1
    others = [
        lambda: trained(tmp_path, objectives.sft(replay=0.2), start, target),
        lambda: trained(tmp_path, objectives.sft(replay=0.3), start, target),
        lambda: trained(tmp_path, objectives.sft(), start.replace(old_weight=0.8), target),
        lambda: trained(tmp_path, objectives.sft(), start, target.replace(old_weight=0.4)),
        *(
            (lambda changes=changes: trained(tmp_path, objectives.sft(), start, target, **changes))
            for changes in (
                {"learning_rate": 0.2},
                {"num_steps": 5},
                {"batch_size": 5},
                {"seed": 2},
                {"record_every": 2},
                {"num_replicates": 4},
                {"learning_rate_factors": {"old_mean": 0.5}},
                {"precision": "float32"},
                {"optimizer": training.optax.sgd(rate)},
                {"optimizer": training.optax.sgd(3.0 * rate)},
                {"optimizer": training.optax.sgd(rate, momentum=0.5)},
            )
        ),
    ]
    for number, other in enumerate(others, 2):
        other()
        assert len(done) == number


@pytest.mark.slow
def test_an_exact_flow_is_kept_too(tmp_path, monkeypatch):
    target = TwoMode.create(0.5, [0.0, 0.0], [4.0, 0.0])
    start = target.replace(old_weight=0.9)

    def flow(**changes):
        with kept.keeping(tmp_path):
            return inference.gradient_flow(
                objectives.sft(), start, target, **({"times": [0.0, 1.0]} | changes)
            )

    first = flow()
    assert len(list(tmp_path.iterdir())) == 1
    xr.testing.assert_identical(first["population"].to_dataset(), flow()["population"].to_dataset())
    assert len(list(tmp_path.iterdir())) == 1
    flow(times=[0.0, 2.0])
    flow(rtol=1e-4)
    flow(metric="whitened")
    assert len(list(tmp_path.iterdir())) == 4


STUCK = """
import signal, sys
from pathlib import Path
import numpy as np
from analyses.core import interruption, outputs
signal.signal(signal.SIGINT, signal.default_int_handler)
with interruption.heard(), outputs.folder(Path(sys.argv[1]), overwrite=False):
    while True:
        try:
            print("begun", flush=True)
            for _ in range(1000):
                np.linalg.eigh(np.eye(300))
        except KeyboardInterrupt:
            pass  # as code that is called back from a native call
"""


def test_a_process_that_does_not_hear_is_ended(tmp_path):
    command = [sys.executable, "-c", STUCK, str(tmp_path / "deep" / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert time.monotonic() - begun < 10.0
    assert process.returncode == 130
    assert error == "massdrift: stopped: interrupted; nothing was finished yet\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", LONG)
def test_control_c_is_heard_soon(tmp_path, command):
    # A shell lets what runs in its background ignore Ctrl-C, and so do what that starts.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{heard}; from analyses.cli import main; main()"
    arguments = [command, *LONG[command], "--quiet", "--out", str(tmp_path / "deep" / "out")]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stderr=subprocess.PIPE,
        env=os.environ,
        text=True,
    )
    try:
        begun = time.monotonic()
        # The folder of what resumes is made where its work begins: late, on cores that others use too.
        working = tmp_path / "deep" / "out" if command == "digits" else tmp_path
        while process.poll() is None and (time.monotonic() - begun < 20.0 or not working.exists()):
            assert time.monotonic() - begun < 300.0
            time.sleep(0.1)
        assert process.poll() is None
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert time.monotonic() - sent < 10.0  # two seconds, on cores that others use too
    assert process.returncode == 130
    assert error.startswith("massdrift: stopped: interrupted; ")
    assert len(error.splitlines()) == 1
    left = [path.name for path in (tmp_path / "deep").iterdir()] if (tmp_path / "deep").exists() else []
    kept_in = ["out"] if command == "digits" else [".out.massdrift-kept"]
    assert left == (kept_in if "kept in" in error or command == "digits" else [])


# BLAS


def threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_blas_has_one_thread_within_and_its_own_after():
    before, seen = threads(), []

    @blas.on_one_thread
    def outer(fail):
        seen.append(threads())
        inner()
        seen.append(threads())
        if fail:
            raise ZeroDivisionError

    @blas.on_one_thread
    def inner():
        seen.append(threads())

    outer(False)
    with pytest.raises(ZeroDivisionError):
        outer(True)
    assert seen == [{1}] * 6
    assert threads() == before


def test_measure_holds_blas_to_one_thread_from_its_first_step(monkeypatch):
    from inference.measurement import checkpoints

    seen, rng, check = [], np.random.default_rng(0), checkpoints.inputs.check

    def first(*args, **kwargs):
        seen.append(threads())
        return check(*args, **kwargs)

    def last(*args, **kwargs):
        seen.append(threads())
        raise ZeroDivisionError

    monkeypatch.setattr(checkpoints.inputs, "check", first)
    monkeypatch.setattr(checkpoints, "measure_checkpoint", last)
    old, new = rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) + 4.0
    with pytest.raises(ZeroDivisionError):
        inference.measure([np.concatenate([old, new])], old, new, num_draws=100, progress=False)
    assert seen == [{1}, {1}]


def test_words_of_a_failing_disk(capsys):
    with pytest.raises(interruption.typer.Exit) as stop, interruption.heard():
        raise OSError(28, "No space left on device")
    assert stop.value.exit_code == 1
    assert capsys.readouterr().err == (
        "massdrift: stopped: No space left on device; nothing was finished yet\n"
    )
    assert outputs.words_of_kept() == "nothing was finished yet"
