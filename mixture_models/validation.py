"""Checks at the boundary: one sentence that says what was expected and what came."""

import math
import os
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np


class InputError(ValueError):
    """An input that cannot be used; its message is one sentence for the user."""


def number(name: str, value: Any) -> float:
    """Return ``value`` as a finite float, or raise `InputError`."""
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} must be a number; got {_shown(value)}") from None
    if not math.isfinite(result):
        raise InputError(f"{name} must be finite; got {result}")
    return result


def positive(name: str, value: Any) -> float:
    """Return ``value`` as a finite float greater than zero, or raise `InputError`."""
    result = number(name, value)
    if result <= 0.0:
        raise InputError(f"{name} must be greater than 0; got {result:g}")
    return result


def open_interval(name: str, value: Any, low: float = 0.0, high: float = 1.0) -> float:
    """Return ``value`` as a float strictly between ``low`` and ``high``, or raise `InputError`."""
    result = number(name, value)
    if not low < result < high:
        raise InputError(f"{name} must lie in ({low:g}, {high:g}); got {result:.17g}")
    return result


def fraction(name: str, value: Any) -> float:
    """Return ``value`` as a float in [0, 1), or raise `InputError`."""
    result = number(name, value)
    if not 0.0 <= result < 1.0:
        raise InputError(f"{name} must lie in [0, 1); got {result:.17g}")
    return result


def not_negative(name: str, value: Any) -> float:
    """Return ``value`` as a finite float of at least zero, or raise `InputError`."""
    result = number(name, value)
    if result < 0.0:
        raise InputError(f"{name} must be at least 0; got {result:g}")
    return result


def closed_interval(name: str, value: Any, low: float = 0.0, high: float = 1.0) -> float:
    """Return ``value`` as a float between ``low`` and ``high``, either included, or raise `InputError`."""
    result = number(name, value)
    if not low <= result <= high:
        raise InputError(f"{name} must lie in [{low:g}, {high:g}]; got {result:.17g}")
    return result


def integer(name: str, value: Any, *, at_least: int = 1, at_most: int | None = None) -> int:
    """Return ``value`` as an int between the bounds, or raise `InputError`."""
    try:
        result = int(value)
        # Whole numbers beyond 2⁵³ are no floats.
        exact = not isinstance(value, bool) and (isinstance(value, Integral) or result == float(value))
    except (TypeError, ValueError, OverflowError):
        exact = False
    if not exact:
        raise InputError(f"{name} must be a whole number; got {_shown(value)}")
    if result < at_least:
        raise InputError(f"{name} must be at least {at_least}; got {result}")
    if at_most is not None and result > at_most:
        raise InputError(f"{name} must be at most {at_most}; got {result}")
    return result


def finite_array(name: str, value: Any) -> np.ndarray:
    """Return ``value`` as a float64 array of finite entries, or raise `InputError`."""
    try:
        result = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} must be numeric with one shape; got {_shown(value)}") from None
    if not np.all(np.isfinite(result)):
        raise InputError(f"{name} must be finite; got {np.array2string(result, threshold=8)}")
    return result


def one_of(name: str, value: Any, known: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``known``, or raise `InputError` that lists them."""
    known = list(known)
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}; got {value!r}")
    return value


def bounded_array(name: str, value: Any, interval: str) -> np.ndarray:
    """Return ``value`` as float64 entries of an interval such as ``"[0, 1)"``, or raise `InputError`."""
    result = finite_array(name, value)
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = result > low if interval[0] == "(" else result >= low
    below = result < high if interval[-1] == ")" else result <= high
    if not np.all(above & below):
        worst = result[~(above & below)].flat[0]
        raise InputError(f"{name} must lie in {interval}; got {worst:.17g}")
    return result


def increasing_array(name: str, value: Any, interval: str) -> np.ndarray:
    """Return ``value`` as increasing numbers of an interval, shape (n,) with n ≥ 1, or raise `InputError`."""
    result = bounded_array(name, value, interval)
    if result.ndim != 1 or not result.size or np.any(np.diff(result) <= 0.0):
        raise InputError(f"{name} must be an increasing list of numbers; got {np.array2string(result)}")
    return result


def path_of(name: str, value: Any) -> Path:
    """Return ``value`` as a path, or raise `InputError`."""
    try:
        path = Path(value)
        os.stat(path)
    except FileNotFoundError:
        pass
    except (TypeError, ValueError):  # no path, or one with a null character
        raise InputError(f"{name} must be a path; got {_shown(value)}") from None
    except NotADirectoryError:  # a file among the parents: what it is for says so
        pass
    except OSError as error:
        raise InputError(
            f"{name} must be a path that can be read: {error.strerror}; got {_shown(value)}"
        ) from None
    return path


def folder_of(name: str, value: Any) -> Path:
    """Return ``value`` as the path of a folder that is there or can be made, or raise `InputError`."""
    path = path_of(name, value)
    stands = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not stands.is_dir():
        raise InputError(f"{name} must be a folder; {stands} is a file")
    return path


def _shown(value: Any) -> str:
    """Return a value as a sentence shows it: not all digits of one that is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
