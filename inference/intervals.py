"""Intervals over replicates, as ArviZ computes them: kind and width follow ``arviz.rcParams``."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from arviz_base import rcParams
from jaxtyping import Float

SAMPLE_DIMS = ("chain", "draw")


def interval_probability() -> float:
    """Return the probability of every interval, ``arviz.rcParams["stats.ci_prob"]``."""
    return float(rcParams["stats.ci_prob"])


def interval_kind() -> str:
    """Return ``"eti"`` (equal tails) or ``"hdi"`` (highest density), as ``arviz.rcParams`` says."""
    return str(rcParams["stats.ci_kind"])


def interval_percent() -> str:
    """Return the probability of every interval in words, as ``94 %``."""
    return f"{100 * interval_probability():g} %"


def interval_name() -> str:
    """Return what every interval is called, as ``94 % equal-tailed interval``."""
    kind = {"eti": "equal-tailed", "hdi": "highest-density"}[interval_kind()]
    return f"{interval_percent()} {kind} interval"


def interval(values: xr.DataArray, dims: Sequence[str] = SAMPLE_DIMS) -> xr.DataArray:
    """Return lower and upper bound over the replicates, along a new dim ``ci_bound``; NaN are left out.

    One value has no interval: the bounds are NaN.

    Args:
        values: an array of numbers.
        dims: along which its replicates or draws lie.
    """
    import arviz as az  # here: it takes a second, and a plan needs the settings alone

    compute = az.hdi if interval_kind() == "hdi" else az.eti
    # ArviZ cannot take the interval of no value at all: those places are filled first and emptied after.
    given = values.notnull()
    present = given.sum(list(dims)) > 1
    # Leaving out what is not there takes NumPy many times as long.
    result: xr.DataArray = compute(
        values.where(present, 0.0), dim=list(dims), prob=interval_probability(), skipna=not given.all()
    ).where(present)
    return result


def mean_interval(values: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """Return the Student-t interval of the mean of independent values; NaN with fewer than two."""
    from scipy import stats  # here, as ArviZ above

    return _interval_of(partial(stats.ttest_1samp, values, 0.0))


def mean_difference_interval(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "m"]) -> tuple[float, float]:
    """Return Welch's interval of the difference of two means; NaN with fewer than two values of either."""
    from scipy import stats

    return _interval_of(partial(stats.ttest_ind, a, b, equal_var=False))


def _interval_of(test: Callable[[], Any]) -> tuple[float, float]:
    """Return the interval that one of SciPy's t tests has."""
    with warnings.catch_warnings():
        # Of samples that are equal, or too few: their intervals are right, of width 0 and NaN.
        warnings.simplefilter("ignore", RuntimeWarning)
        bounds = test().confidence_interval(interval_probability())
    return float(bounds.low), float(bounds.high)
