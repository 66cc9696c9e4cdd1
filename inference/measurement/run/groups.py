"""The groups of a result that are the same whatever modes are measured."""

from collections.abc import Hashable, Sequence

import numpy as np
import xarray as xr

from inference.measurement.references.anchors import NUM_DRAWS
from inference.measurement.run.measured import Measured

#: Of the posterior.
CHAINS = 4


def stacked(measured: Sequence[Measured], part: str) -> dict[str, np.ndarray]:
    """Return the arrays of a part with a first axis over the checkpoints."""
    arrays = [getattr(found, part) for found in measured]
    return {name: np.stack([np.asarray(one[name]) for one in arrays]) for name in arrays[0]}


def drawn(array: np.ndarray) -> np.ndarray:
    """Return (checkpoint, draw, ...) as (chain, draw, checkpoint, ...)."""
    return np.moveaxis(array.reshape(len(array), CHAINS, -1, *array.shape[2:]), 0, 2)


def coords_of(names: Sequence[Hashable], num_draws: int) -> dict[str, object]:
    """Return the coordinates of all draws, and the draw of the references that each of them belongs to."""
    draw = np.arange(num_draws // CHAINS)
    return {
        "chain": np.arange(CHAINS),
        "draw": draw,
        "checkpoint": names,
        "reference_draw": ("draw", draw % NUM_DRAWS),
    }


def checks_of(
    measured: Sequence[Measured], names: Sequence[Hashable], statistics: Sequence[str]
) -> dict[str, xr.Dataset]:
    """Return the predictive check of every checkpoint, and log-likelihoods where they are kept."""
    check, coords = stacked(measured, "check"), {"checkpoint": names, "statistic": list(statistics)}
    observed, replicated = check["observed"], np.moveaxis(check["replicated"], 0, 1)
    sample = {"chain": [0], "draw": np.arange(len(replicated))}
    dims = ("checkpoint", "statistic")
    found = {
        "observed_data": xr.Dataset({"check_statistic": (dims, observed)}, coords),
        "posterior_predictive": xr.Dataset(
            {"check_statistic": (("chain", "draw", *dims), replicated[None])}, sample | coords
        ),
    }
    for name, array in stacked(measured, "log_likelihood").items():
        values = drawn(array)
        places = [np.arange(size) for size in values.shape]
        found["log_likelihood"] = xr.Dataset(
            {name: (("chain", "draw", "checkpoint", "row"), values)},
            {"chain": places[0], "draw": places[1], "checkpoint": names, "row": places[3]},
        )
    return found
