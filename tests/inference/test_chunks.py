"""Chunks cover the replicates; tasks run side by side, in order, and stop together."""

import contextlib
import signal
import threading
import time
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from inference.engine import chunks
from inference.engine.chunks import chunk_sizes, num_threads, run_together


def together(*tasks, settings=contextlib.nullcontext, progress=lambda amount: None):
    return run_together(tasks, settings, progress)


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(chunks, "num_threads", lambda: 2)


def until_stopped(ended, report):
    """Report for 30 s at most, and note the time of the end."""
    try:
        for _ in range(3000):
            report(1)
            time.sleep(0.01)
    finally:
        ended.append(time.perf_counter())


@pytest.mark.parametrize("num_replicates", [1, 2, 31, 32, 33, 64, 65, 100, 256, 1000])
def test_chunks_cover_the_replicates_with_few_to_spare(num_replicates):
    count, size = chunk_sizes(num_replicates)
    assert 0 <= count * size - num_replicates < count
    assert size <= 32


def test_the_chunks_do_not_depend_on_the_cores(monkeypatch):
    sizes = chunk_sizes(256)
    monkeypatch.setattr(chunks, "num_threads", lambda: 7)
    assert chunk_sizes(256) == sizes


def test_an_accelerator_gets_one_chunk(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert chunk_sizes(256) == (1, 256)
    assert num_threads() == 1


def test_what_tasks_return_comes_in_their_order(two_threads):
    def task(index, report):
        time.sleep(0.02 * (5 - index))
        return index

    assert together(*[partial(task, index) for index in range(5)]) == [0, 1, 2, 3, 4]


def test_tasks_run_side_by_side(two_threads):
    meeting = threading.Barrier(2, timeout=10.0)
    together(*[lambda report: meeting.wait()] * 2)


def test_what_is_reported_is_passed_on_by_the_calling_thread(two_threads):
    told = []

    def task(report):
        for _ in range(3):
            report(7)
            time.sleep(0.1)

    together(task, task, progress=lambda amount: told.append((amount, threading.current_thread())))
    assert sum(amount for amount, _ in told) == 42
    assert {thread for _, thread in told} == {threading.main_thread()}
    assert len(told) > 1


def test_every_thread_enters_the_settings(two_threads):
    def task(report):
        return jnp.zeros(1, float).dtype

    assert together(task, task) == [jnp.float32] * 2
    assert together(task, task, settings=partial(jax.enable_x64, True)) == [jnp.float64] * 2


def test_an_error_stops_the_others_and_is_raised(two_threads):
    ended, failed = [], []

    def fail(report):
        time.sleep(0.1)
        failed.append(time.perf_counter())
        raise ValueError("what went wrong")

    with pytest.raises(ValueError, match="what went wrong"):
        together(partial(until_stopped, ended), fail, partial(until_stopped, ended))
    # The running one, and the third where it was begun at all.
    assert 1 <= len(ended) <= 2
    assert max(ended) - failed[0] < 5.0


def test_control_c_stops_all_threads_before_it_is_raised(two_threads):
    ended, interrupted = [], []

    def interrupt(report):
        time.sleep(0.1)
        interrupted.append(time.perf_counter())
        signal.raise_signal(signal.SIGINT)
        until_stopped(ended, report)

    # Whoever runs the tests may have chosen to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            together(partial(until_stopped, ended), interrupt, partial(until_stopped, ended))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(ended) == 2
    assert max(ended) - interrupted[0] < 5.0
