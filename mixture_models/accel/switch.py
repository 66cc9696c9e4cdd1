"""One switch for all that is made for CPUs by hand: ``MASSDRIFT_ACCEL=0`` uses plain JAX everywhere.

The environment variable is read once. What is on is asked while a function is traced.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps

import jax

from mixture_models.validation import InputError

VARIABLE = "MASSDRIFT_ACCEL"

#: The operations that are made by hand, by name.
OPERATIONS: set[str] = set()

# Operations that are plain JAX although the environment allows more.
_plain: set[str] = set()


def on_cpu() -> bool:
    """Return whether programs run on a CPU."""
    return jax.default_backend() == "cpu"


def is_on(name: str) -> bool:
    """Return whether an operation, or another thing that has this name, is the one that is made by hand."""
    return _wanted() and on_cpu() and name not in _plain


def turn_off(*names: str) -> None:
    """Use plain JAX from now on, for the operations named."""
    _plain.update(names)


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Use plain JAX for some operations in what is traced meanwhile, for benchmarks and tests."""
    before = set(_plain)
    _plain.update(names)
    try:
        yield
    finally:
        _plain.clear()
        _plain.update(before)


def beside[**P, T](
    plain: Callable[P, T], fits: Callable[P, bool] = lambda *_, **__: True
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator of an operation made by hand: where it is off or does not fit, it is ``plain``.

    Args:
        plain: the form in plain JAX, which takes the same arguments.
        fits: whether arguments are such that the operation can be done by hand.
    """

    def decorated(by_hand: Callable[P, T]) -> Callable[P, T]:
        name = by_hand.__name__
        OPERATIONS.add(name)

        @wraps(by_hand)
        def chosen(*args: P.args, **kwargs: P.kwargs) -> T:
            return (by_hand if is_on(name) and fits(*args, **kwargs) else plain)(*args, **kwargs)

        return chosen

    return decorated


@cache
def _wanted() -> bool:
    value = os.environ.get(VARIABLE, "1")
    if value not in ("0", "1"):
        raise InputError(f"{VARIABLE} must be 0 or 1; got {value!r}")
    return value == "1"
