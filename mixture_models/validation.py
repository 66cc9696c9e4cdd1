"""Checks at the boundary: one sentence that says what was expected and what came.

What is not a real number is never made one in silence: booleans, texts, dates and complex numbers are
refused, and so are whole numbers that float64 cannot hold. A masked entry is a missing value, which is NaN.
"""

import math
import os
from collections.abc import Iterable
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path
from typing import cast

import jax.numpy as jnp
import numpy as np

from mixture_models.types import Reals


class InputError(ValueError):
    """An input that cannot be used; its message is one sentence for the user."""


def number(name: str, value: object) -> float:
    """Return ``value`` as a finite float, or raise `InputError`."""
    result = float(_scalar(name, value, "a number"))
    if not math.isfinite(result):
        raise InputError(f"{name} must be finite; got {result}")
    return result


def positive(name: str, value: object) -> float:
    """Return ``value`` as a finite float greater than zero, or raise `InputError`."""
    result = number(name, value)
    if result <= 0.0:
        raise InputError(f"{name} must be greater than 0; got {result:g}")
    return result


def open_interval(name: str, value: object, low: float = 0.0, high: float = 1.0) -> float:
    """Return ``value`` as a float strictly between ``low`` and ``high``, or raise `InputError`."""
    result = number(name, value)
    if not low < result < high:
        raise InputError(f"{name} must lie in ({low:g}, {high:g}); got {result:.17g}")
    return result


def fraction(name: str, value: object) -> float:
    """Return ``value`` as a float in [0, 1), or raise `InputError`."""
    result = number(name, value)
    if not 0.0 <= result < 1.0:
        raise InputError(f"{name} must lie in [0, 1); got {result:.17g}")
    return result


def not_negative(name: str, value: object) -> float:
    """Return ``value`` as a finite float of at least zero, or raise `InputError`."""
    result = number(name, value)
    if result < 0.0:
        raise InputError(f"{name} must be at least 0; got {result:g}")
    return result


def closed_interval(name: str, value: object, low: float = 0.0, high: float = 1.0) -> float:
    """Return ``value`` as a float between ``low`` and ``high``, either included, or raise `InputError`."""
    result = number(name, value)
    if not low <= result <= high:
        raise InputError(f"{name} must lie in [{low:g}, {high:g}]; got {result:.17g}")
    return result


def integer(name: str, value: object, *, at_least: int = 1, at_most: int | None = None) -> int:
    """Return ``value`` as an int between the bounds, or raise `InputError`."""
    if isinstance(value, Integral) and not isinstance(value, bool | np.timedelta64):
        result = int(value)  # whatever its size
    else:
        whole = _scalar(name, value, "a whole number")
        if not math.isfinite(whole) or whole != int(whole):
            raise InputError(f"{name} must be a whole number; got {_shown(value)}")
        result = int(whole)
    if result < at_least:
        raise InputError(f"{name} must be at least {at_least}; got {result}")
    if at_most is not None and result > at_most:
        raise InputError(f"{name} must be at most {at_most}; got {result}")
    return result


def flag(name: str, value: object) -> bool:
    """Return ``value`` if it is true or false, or raise `InputError`: any text would be true."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} must be true or false; got {_shown(value)}")
    return bool(value)


def as_array(name: str, value: object) -> np.ndarray:
    """Return ``value`` as an array of its own type, with its mask, or refuse what has no one shape."""
    try:
        return np.asanyarray(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} must be numeric with one shape; got {_shown(value)}") from None


def real_array(name: str, value: object) -> Reals:
    """Return ``value`` as a float64 array, NaN where it is masked, or refuse what holds no real numbers."""
    # One by one: among floats NumPy makes numbers of the booleans and durations in a list, and drops masks.
    if isinstance(value, list | tuple) and not all(type(entry) is float for entry in value):
        parts = [real_array(name, entry) for entry in value]
        if len({part.shape for part in parts}) > 1:
            raise InputError(f"{name} must be numeric with one shape; got {_shown(value)}")
        return np.stack(parts)
    array = as_array(name, value)
    kind, data = array.dtype.kind, np.ma.getdata(array)
    words = _KINDS.get(kind, "")
    if kind == "V" and jnp.issubdtype(array.dtype, jnp.floating):
        words = ""  # a machine-learning float such as bfloat16
    if kind == "O":
        # Whatever Python objects lie in an array are numbers one by one.
        entries = array.compressed() if isinstance(array, np.ma.MaskedArray) else array.ravel()
        if any(isinstance(e, bool | np.timedelta64) or not isinstance(e, Real | Decimal) for e in entries):
            words = "objects that are not"
    if words:
        raise InputError(f"{name} must be numeric, real numbers with one shape; got {words}: {_shown(value)}")
    try:
        result = np.asarray(data, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} must be numeric with one shape; got {_shown(value)}") from None
    if kind in "iuO" and _rounded(data):
        raise InputError(f"{name} must be numbers that float64 holds exactly; got {_shown(value)}")
    if np.ma.is_masked(array):
        result = np.where(np.ma.getmaskarray(array), np.nan, result)
    return result


def finite_array(name: str, value: object) -> Reals:
    """Return ``value`` as a float64 array of finite entries, or raise `InputError`."""
    result = real_array(name, value)
    if not np.all(np.isfinite(result)):
        raise InputError(f"{name} must be finite; got {np.array2string(result, threshold=8)}")
    return result


def one_of(name: str, value: object, known: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``known``, or raise `InputError` that lists them."""
    known = list(known)
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}; got {value!r}")
    return value


def bounded_array(name: str, value: object, interval: str) -> Reals:
    """Return ``value`` as float64 entries of an interval such as ``"[0, 1)"``, or raise `InputError`."""
    result = finite_array(name, value)
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = result > low if interval[0] == "(" else result >= low
    below = result < high if interval[-1] == ")" else result <= high
    if not np.all(above & below):
        worst = result[~(above & below)].flat[0]
        raise InputError(f"{name} must lie in {interval}; got {worst:.17g}")
    return result


def increasing_array(name: str, value: object, interval: str) -> Reals:
    """Return ``value`` as increasing numbers of an interval, shape (n,) with n ≥ 1, or raise `InputError`."""
    result = bounded_array(name, value, interval)
    if result.ndim != 1 or not result.size or np.any(np.diff(result) <= 0.0):
        raise InputError(f"{name} must be an increasing list of numbers; got {np.array2string(result)}")
    return result


# What a kind of NumPy arrays holds that is no real number.
_KINDS = {
    "b": "booleans",
    "c": "complex numbers",
    "S": "texts",
    "U": "texts",
    "T": "texts",
    "M": "dates",
    "m": "durations",
    "V": "records",
}


def _scalar(name: str, value: object, wanted: str) -> float:
    """Return one real number, NaN where it is masked, or refuse anything else, an array of one among it."""
    try:
        array = real_array(name, value)
    except InputError:
        array = None
    if array is None or array.ndim:
        raise InputError(f"{name} must be {wanted}; got {_shown(value)}")
    return float(array)


def _rounded(array: np.ndarray) -> bool:
    """Return whether float64 does not hold some whole number exactly, as may be beyond 2⁵³."""
    if array.dtype.kind == "O":
        large = [entry for entry in array.ravel() if isinstance(entry, Integral)]
    elif array.dtype.itemsize < 8 or not array.size or -(2**53) <= array.min() <= array.max() <= 2**53:
        return False
    else:
        large = array.ravel().tolist()
    return any(int(float(entry)) != int(entry) for entry in large)


def path_of(name: str, value: object) -> Path:
    """Return ``value`` as a path, or raise `InputError`."""
    try:
        path = Path(cast("str | os.PathLike[str]", value))
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


def folder_of(name: str, value: object) -> Path:
    """Return ``value`` as the path of a folder that is there or can be made, or raise `InputError`."""
    path = path_of(name, value)
    stands = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not stands.is_dir():
        raise InputError(f"{name} must be a folder; {stands} is a file")
    return path


def _shown(value: object) -> str:
    """Return a value as a sentence shows it: not all digits of one that is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
