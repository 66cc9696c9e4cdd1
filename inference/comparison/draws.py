"""Draws of one run against those of another: differences, probabilities and intervals."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats
from jaxtyping import Float

from inference import results
from inference.intervals import interval_kind, interval_probability

#: Dims and values of variables of ``/comparison``, by their names.
type Entries = dict[str, tuple[tuple[str, ...], np.ndarray]]


def compare_draws(
    variable: str,
    values: list[Float[np.ndarray, "n"]],
    groups: list[np.ndarray | None],
    rope: float,
) -> Entries:
    """Return the entries of ``/comparison`` of one variable.

    Args:
        variable: its name.
        values: draws of each run, NaN where there is nothing to compare.
        groups: of the draws of each run: those of two runs are paired within a group; None pairs all.
        rope: half width of the region of practical equivalence.
    """
    size = len(values)
    larger, smaller, equivalent, mean = (np.zeros((size, size)) for _ in range(4))
    bounds = np.zeros((size, size, 2))
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            if i == j:
                # A run against itself: no difference, not two independent measurements.
                larger[i, j] = smaller[i, j] = 0.5 if rope == 0.0 else 0.0
                equivalent[i, j] = 0.0 if rope == 0.0 else 1.0
                continue
            difference = _differences(a, b, groups[i], groups[j])
            ties = 0.5 * np.mean(difference == 0.0) if rope == 0.0 else 0.0
            larger[i, j] = np.mean(difference > rope) + ties
            smaller[i, j] = np.mean(difference < -rope) + ties
            # Counted, for 1 less the others leaves their rounding.
            equivalent[i, j] = 0.0 if rope == 0.0 else np.mean(np.abs(difference) <= rope)
            mean[i, j] = difference.mean()
            bounds[i, j] = _bounds(difference)
    pair = ("run", "other")
    finite = [v[np.isfinite(v)] for v in values]
    return {
        variable: (("run",), np.array([v.mean() for v in finite])),
        f"{variable}_interval": (("run", "ci_bound"), np.stack([_bounds(v) for v in finite])),
        f"{variable}_probability_larger": (pair, larger),
        f"{variable}_probability_smaller": (pair, smaller),
        f"{variable}_probability_equivalent": (pair, equivalent),
        f"{variable}_difference": (pair, mean),
        f"{variable}_difference_interval": ((*pair, "ci_bound"), bounds),
    }


def _differences(
    a: np.ndarray, b: np.ndarray, of_a: np.ndarray | None, of_b: np.ndarray | None
) -> np.ndarray:
    """Return the differences of all finite draws under the same draw of the references."""
    if of_a is None or of_b is None:
        of_a, of_b = np.zeros(len(a), int), np.zeros(len(b), int)
    if np.array_equal(of_a, of_b) and len(np.unique(of_a)) == len(of_a):
        # One draw a group: thousands of groups need no loop.
        difference = a - b
        found = difference[np.isfinite(difference)]
        return found if found.size else _differences(a, b, None, None)
    parts = []
    for group in np.unique(of_a):
        one, other = a[of_a == group], b[of_b == group]
        one, other = one[np.isfinite(one)], other[np.isfinite(other)]
        parts.append((one[:, None] - other[None, :]).ravel())
    found = np.concatenate(parts)
    if not found.size:
        return _differences(a, b, None, None)
    return found


def _bounds(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "2"]:
    """Return the interval of many draws, of the kind and width that ArviZ is set to."""
    compute = array_stats.eti if interval_kind() == "eti" else array_stats.hdi
    return compute(values, interval_probability())


def compare_by_task(
    variable: str,
    values: dict[str, list[Float[np.ndarray, "n"]]],
    groups: list[np.ndarray | None],
    rope: float,
) -> Entries:
    """Return what `compare_draws` does of every task, along a last dim ``task``.

    Args:
        variable: its name.
        values: of every task draws of each run.
        groups: of the draws of each run.
        rope: half width of the region of practical equivalence.
    """
    parts = [compare_draws(variable, of_task, groups, rope) for of_task in values.values()]
    found: Entries = {}
    for name, (dims, _) in parts[0].items():
        found[name] = ((*dims, "task"), np.stack([part[name][1] for part in parts], axis=-1))
    return found


def described(dataset: xr.Dataset, variables: Sequence[str]) -> xr.Dataset:
    """Give what `compare_draws` has found of some variables its ``long_name`` and ``units``, in place."""
    words = {
        "": "",
        "interval": ", interval",
        "probability_larger": ": probability to be larger",
        "probability_smaller": ": probability to be smaller",
        "probability_equivalent": ": probability of practical equivalence",
        "difference": ": difference",
        "difference_interval": ": difference, interval",
    }
    results.describe(dataset)
    for variable in variables:
        owner = dataset[variable].attrs
        if f"{variable}_words" in dataset:
            dataset[f"{variable}_words"].attrs = {
                "long_name": f"what a reader must know of {owner['long_name']}",
                "units": "1",
            }
        for suffix, text in words.items():
            name = f"{variable}_{suffix}".rstrip("_")
            units = "1" if suffix.startswith("probability") else owner["units"]
            dataset[name].attrs = {"long_name": owner["long_name"] + text, "units": units}
    dataset["reached"].attrs = {"long_name": "share of draws that reach the matched gap", "units": "1"}
    dataset["run"].attrs = {"long_name": "measured run", "units": "1"}
    dataset["other"].attrs = {"long_name": "run compared with", "units": "1"}
    return dataset
