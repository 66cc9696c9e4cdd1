"""A plan from samples: what was estimated, in the result and in words, and the ends of its intervals."""

from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from analyses.core import tables
from inference.intervals import interval_percent
from inference.measurement.separation import EstimatedSetting
from mixture_models.theory.paths import Setting
from mixture_models.validation import InputError, number

#: Separations that are planned for: below they cannot be told apart, above overlaps underflow.
LEAST_SEPARATION, LARGEST_SEPARATION = 0.1, 26.0


def told_apart(estimated: EstimatedSetting) -> float:
    """Return the separation, or refuse one that cannot be told from none."""
    value, lower, upper = estimated.separation
    if value < LEAST_SEPARATION:
        raise InputError(
            f"the samples of the two tasks must be told apart; their separation is {value:.3g} "
            f"[{lower:.3g}, {upper:.3g}]"
        )
    return in_reach("the estimated separation", value)


def in_reach(name: str, separation: object) -> float:
    """Return a separation that can be planned for, or raise `InputError`, which says why it cannot."""
    value = number(name, separation)
    if not LEAST_SEPARATION <= value <= LARGEST_SEPARATION:
        reason = (
            "below, the modes are one"
            if value < LEAST_SEPARATION
            else "above, their overlap is smaller than a float, and drift and misassignment are 0"
        )
        raise InputError(
            f"{name} must lie in [{LEAST_SEPARATION:g}, {LARGEST_SEPARATION:g}]: {reason}; got {value:.4g}"
        )
    return value


def corners_of(estimated: EstimatedSetting | None, setting: Setting) -> list[Setting]:
    """Return the settings at the ends of the intervals of what was estimated."""
    if estimated is None:
        return []
    separations = np.clip(estimated.separation[1:], LEAST_SEPARATION, LARGEST_SEPARATION)
    weights = estimated.old_weight[1:] if estimated.old_weight else [setting.start_weight]
    return [
        setting._replace(separation=float(separation), start_weight=float(weight))
        for separation, weight in product(separations, weights)
    ]


def estimates(estimated: EstimatedSetting) -> xr.Dataset:
    """Return what was estimated as a group of the result."""
    scalars: dict[str, Any] = {"separation": estimated.separation}
    if estimated.old_weight is not None:
        scalars["start_old_weight"] = estimated.old_weight
    variables: dict[str, Any] = {name: value.value for name, value in scalars.items()}
    variables |= {f"{name}_interval": ("ci_bound", list(value[1:])) for name, value in scalars.items()}
    variables["plug_in_separation"] = estimated.plug_in_separation
    variables["covariance"] = (("feature", "feature_bis"), estimated.covariance)
    variables["spread_ratio"] = estimated.spread_ratio
    features = {name: estimated.features for name in ("feature", "feature_bis")}
    return xr.Dataset(variables, {"ci_bound": ["lower", "upper"]} | features)


def estimated_words(estimated: EstimatedSetting) -> str:
    """Say what was estimated, from how much, and how uncertain it is."""
    old, new, now = estimated.num_samples
    value, low, high = map(tables.number, estimated.separation)
    percent = interval_percent()
    words = (
        f"Estimated from {old} old and {new} new samples in {len(estimated.features)} features: separation "
        f"{value} ({percent} interval {low} to {high}; {tables.number(estimated.plug_in_separation)} before "
        "its noise is taken off)"
    )
    if estimated.old_weight is not None:
        value, low, high = map(tables.number, estimated.old_weight)
        words += f"; old weight now {value} ({low} to {high}) from {now} samples of the learner"
    return words + ". Ranges: over the ends of these intervals." + f" {estimated.remark}".rstrip()
