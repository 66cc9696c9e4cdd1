"""BLAS on one thread: where a step is small its threads wait for each other, on busy cores for very long."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, wraps
from threading import Lock

import scipy.linalg  # noqa: F401  SciPy has a BLAS of its own, which can only be limited once it is loaded
from threadpoolctl import ThreadpoolController

_lock = Lock()
_held = ExitStack()
_calls = 0

# To look for the libraries takes longer than many a call.
_libraries = cache(ThreadpoolController)


def on_one_thread[**P, T](function: Callable[P, T]) -> Callable[P, T]:
    """Hold BLAS to one thread while a function runs; after the last of such calls it has its own again.

    The number of BLAS's threads is one for the whole process: calls that overlap are counted.
    """

    @wraps(function)
    def held(*args: P.args, **kwargs: P.kwargs) -> T:
        _begin()
        try:
            return function(*args, **kwargs)
        finally:
            _end()

    return held


def _begin() -> None:
    global _calls
    with _lock:
        if _calls == 0:
            _held.enter_context(_libraries().limit(limits=1, user_api="blas"))
        _calls += 1


def _end() -> None:
    global _calls
    with _lock:
        _calls -= 1
        if _calls == 0:
            _held.close()
