"""Two references by other names than old and new: the measurement of two, and its result by task."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from inference import results
from inference.measurement.samples.sources import Source
from inference.measurement.tasks.names import check_names

# What is renamed of the old and of the new mode.
_BY_TASK = {
    "posterior": {
        "weight": ("old_weight", "new_weight"),
        "displacement": ("old_displacement", "new_displacement"),
        "task_drift": ("old_drift", "new_gap"),
    },
    "sample_stats": {
        "resolution": ("old_resolution", "new_resolution"),
        "unmoved_probability": ("old_unmoved_probability", "new_unmoved_probability"),
    },
}


def in_roles(
    references: Mapping[str, Source], new_task: str | None, shapes: tuple[float, ...]
) -> tuple[Source, Source, tuple[float, float]]:
    """Return the old and the new of two references, and the shapes of the weight's prior in this order."""
    old, new = _roles(references, new_task)
    by_name = dict(zip(references, shapes, strict=True))
    return references[old], references[new], (by_name[old], by_name[new])


def by_task(tree: xr.DataTree, references: Mapping[str, Source], new_task: str | None) -> xr.DataTree:
    """Return a measurement of two references with dims ``task`` in the place of names old and new.

    The numbers are those of `inference.measure` with an old and a new reference; ``old_weight`` stays where
    one of the tasks is new.
    """
    roles = _roles(references, new_task)
    new = check_names(references, new_task)
    found = {}
    for name, node in tree.children.items():
        data = node.to_dataset()
        for variable, both in _BY_TASK.get(name, {}).items():
            parts = [data[one] for one in both]
            task = xr.DataArray(list(roles), dims="task", name="task")
            together = xr.concat(parts, task, combine_attrs="drop")
            dims = [dim for dim in parts[0].dims if dim != "feature"]
            order = [*dims, "task", *(["feature"] if "feature" in parts[0].dims else [])]
            kept = [one for one in both if not (one == "old_weight" and new is not None)]
            data = data.drop_vars(kept).assign(
                {variable: together.sel(task=list(references)).transpose(*order)}
            )
        if "mode" in data.dims:
            data = data.rename({"mode": "task"}).assign_coords(task=np.array(roles))
        found[name] = data
    attrs = tree.attrs | {"kind": "measurement of tasks", "new_task": new or ""}
    return results.assembled(found, attrs)


def _roles(references: Mapping[str, Source], new_task: str | None) -> tuple[str, str]:
    """Return which of two tasks stands for the old and which for the new: the second where none is new."""
    names = list(references)
    new = check_names(references, new_task) or names[1]
    return next(name for name in names if name != new), new
