"""Replicates in chunks of one shape, side by side on the cores that this process may use.

A compiled program of small steps keeps one core busy, and JAX lets go of Python's lock while it runs: threads
that each run chunks of the replicates through the same program use the others. The chunks depend on the
number of replicates alone, so that results are the same on any number of cores.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from threading import Event
from typing import Protocol

import jax

# Few enough for a core's cache and for 64 replicates to keep two cores busy, many enough to be worth a call.
_REPLICATES = 32

# Seconds between two looks at what the threads have done.
_INTERVAL = 0.1


class Task[T](Protocol):
    """A piece of work that reports what it has done now and then, and may be stopped there."""

    def __call__(self, report: Callable[[int], None]) -> T:
        """Do the work."""


def chunk_sizes(num_replicates: int) -> tuple[int, int]:
    """Return the number of chunks and the replicates in each, the last of which may be superfluous.

    An accelerator is best kept busy by one chunk of all replicates.
    """
    most = _REPLICATES if jax.default_backend() == "cpu" else num_replicates
    num_chunks = -(-num_replicates // most)
    return num_chunks, -(-num_replicates // num_chunks)


def num_threads() -> int:
    """Return how many chunks run at once: the cores that this process may use, 1 on an accelerator."""
    if jax.default_backend() != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_together[T](
    tasks: Sequence[Task[T]],
    settings: Callable[[], AbstractContextManager[object]],
    progress: Callable[[int], object],
) -> list[T]:
    """Run tasks on as many threads as there are cores; return what they return, in their order.

    An error in one of them, or Ctrl-C, stops the others at their next report, and is raised once all have
    stopped.

    Args:
        tasks: what to run.
        settings: context entered by every thread: JAX's own settings are those of a thread.
        progress: called by the calling thread with what has been reported since the last call.
    """
    stopped, reported = Event(), [0] * len(tasks)

    def work(index: int) -> T:
        def report(amount: int) -> None:
            if stopped.is_set():
                raise CancelledError
            reported[index] += amount

        with settings():
            return tasks[index](report)

    told = 0
    with ThreadPoolExecutor(min(len(tasks), num_threads())) as pool:
        futures = [pool.submit(work, index) for index in range(len(tasks))]
        try:
            running = True
            while running:
                done, pending = wait(futures, timeout=_INTERVAL, return_when=FIRST_EXCEPTION)
                running = bool(pending) and all(future.exception() is None for future in done)
                total = sum(reported)
                progress(total - told)
                told = total
            return [future.result() for future in futures if future.done()]
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
