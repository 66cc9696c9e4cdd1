"""Intervals over replicates, as ArviZ computes them: kind and width follow ``arviz.rcParams``."""

import numpy as np
import xarray as xr
from arviz_base import rcParams
from jaxtyping import Float
from scipy.special import stdtrit

SAMPLE_DIMS = ("chain", "draw")


def interval_probability() -> float:
    """Return the probability of every interval, ``arviz.rcParams["stats.ci_prob"]``."""
    return float(rcParams["stats.ci_prob"])


def interval_kind() -> str:
    """Return ``"eti"`` (equal tails) or ``"hdi"`` (highest density), as ``arviz.rcParams`` says."""
    return str(rcParams["stats.ci_kind"])


def interval(values: xr.DataArray) -> xr.DataArray:
    """Return lower and upper bound over the replicates, along a new dim ``ci_bound``; NaN are left out.

    One value has no interval: the bounds are NaN.

    Args:
        values: an array with dims chain and draw.
    """
    import arviz as az  # here: it takes a second, and a plan needs the settings alone

    compute = az.hdi if interval_kind() == "hdi" else az.eti
    dims = list(SAMPLE_DIMS)
    # ArviZ cannot take the interval of no value at all: those places are filled first and emptied after.
    present = values.notnull().sum(dims) > 1
    result: xr.DataArray = compute(
        values.where(present, 0.0), dim=dims, prob=interval_probability(), skipna=True
    ).where(present)
    return result


def mean_interval(values: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """Return the Student-t interval of the mean of independent values; NaN with fewer than two."""
    return (
        _around(values.mean(), values.var(ddof=1) / values.size, values.size - 1)
        if values.size > 1
        else _NONE
    )


def mean_difference_interval(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "m"]) -> tuple[float, float]:
    """Return Welch's interval of the difference of two means; NaN with fewer than two values of either."""
    if min(a.size, b.size) < 2:
        return _NONE
    parts = a.var(ddof=1) / a.size, b.var(ddof=1) / b.size
    weight = parts[0] ** 2 / (a.size - 1) + parts[1] ** 2 / (b.size - 1)
    return _around(a.mean() - b.mean(), sum(parts), sum(parts) ** 2 / weight if weight > 0.0 else 1.0)


_NONE = (np.nan, np.nan)


def _around(
    centre: float | np.floating, variance: float | np.floating, degrees_of_freedom: float
) -> tuple[float, float]:
    half = stdtrit(degrees_of_freedom, 0.5 + 0.5 * interval_probability()) * np.sqrt(variance)
    return float(centre - half), float(centre + half)
