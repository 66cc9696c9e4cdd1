"""What tables and figures of both kinds of measurement have in common."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from inference.measurement.verdict.kinds import UNTRUSTED, of_kind

#: Columns of a summary that a checkpoint has, from `/sample_stats`.
OF_CHECKPOINTS = (
    "method",
    "k_hat",
    "r_hat",
    "ess",
    "divergences",
    "words",
    "weight_words",
    "drift_words",
)


def not_counted(attrs: Mapping[Hashable, Any]) -> str:
    """Return what a caption says of rows that are copies or have missing values."""
    found = ""
    if int(attrs.get("num_reference_copies", 0)):
        found += f" {int(attrs['num_reference_copies'])} reference rows are copies of others, and count once."
    if int(attrs["num_dropped"]):
        found += f" {int(attrs['num_dropped'])} rows with missing values were left out."
    return found


def untrusted(tree: xr.DataTree) -> np.ndarray:
    """Return whether each checkpoint is not to be trusted."""
    return of_kind(tree["sample_stats"]["words"], UNTRUSTED)
