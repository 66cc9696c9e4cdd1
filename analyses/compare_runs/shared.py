"""What tables and figures of both kinds of comparison have in common."""

from collections.abc import Iterable

import numpy as np
import xarray as xr

from inference.comparison.runs import DISTANCE, KINDS
from inference.measurement.verdict.kinds import UNTRUSTED, of_kind

#: What compared variables are called, where not by their name.
NAMES = {DISTANCE: "forward KL"}


def columns_of(data: xr.Dataset, names: Iterable[str]) -> dict[str, xr.DataArray]:
    """Return what a summary says of compared variables: values, intervals, and how the first run compares.

    ``X_better`` is the probability of a larger weight, a smaller drift or a smaller forward KL,
    ``X_equivalent`` that of practical equivalence, where a rope was given: within one of no width nothing
    lies.
    """
    against = data.isel(other=0, drop=True)
    columns: dict[str, xr.DataArray] = {}
    for name in names:
        columns[name] = data[name]
        better = "larger" if KINDS[name] == "weight" else "smaller"
        columns[f"{name}_better"] = against[f"{name}_probability_{better}"]
        if data.attrs[f"{name}_rope"] > 0.0:
            columns[f"{name}_equivalent"] = against[f"{name}_probability_equivalent"]
        columns[f"{name}_difference"] = against[f"{name}_difference"]
        for bound in ("lower", "upper"):
            for key in (name, f"{name}_difference"):
                columns[f"{key}_{bound}"] = against[f"{key}_interval"].sel(ci_bound=bound, drop=True)
        columns[f"{name}_words"] = data[f"{name}_words"]
    return columns | {"reached": data["reached"]}


def title_of(tree: xr.DataTree) -> str:
    """Return the title of the table: where the runs were read."""
    at, level = str(tree["comparison"].attrs["at"]), float(tree["comparison"].attrs["level"])
    where = {"final": "At the last checkpoint", "matched_gain": f"Where the new gap is {level:.3g}"}.get(
        at, f"At checkpoint {at}"
    )
    return f"Which run forgot less? {where}"


def untrusted(run: xr.DataTree, word: str) -> np.ndarray:
    """Return whether the weight or the drift at each checkpoint of a run is not to be trusted."""
    return of_kind(run["sample_stats"][f"{word}_words"], UNTRUSTED)
