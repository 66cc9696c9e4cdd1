"""What a sweep of sequences stores beside its trajectories: performance R[stage, task] and forgetting."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from inference.results.sequence import forgetting_of, own_stages, retained, shares_of
from inference.sweeps.grid import Grid, Position

_TASK = ("task",)

#: The arrays that are made of the retention at the ends of stages, with the dims of one value.
DERIVED = {
    "stages/task_performance": _TASK,
    "forgetting/forgetting_from_best": _TASK,
    "forgetting/forgetting_from_own_stage": _TASK,
    "forgetting/backward_transfer": (),
    "forgetting/average_performance": (),
    "forgetting/plasticity": (),
}


def derived(
    grid: Grid, objective: int, positions: Sequence[Position], retention: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the arrays of `DERIVED` at some positions, each of shape (setting, replicate, ...).

    Args:
        grid: of sequences.
        objective: its number.
        positions: one a setting.
        retention: of every task at the start and after every stage, shape (setting, replicate, stage, task).
    """
    names = grid.target.names
    own = own_stages(names, grid.new_tasks)
    targets = [grid.stage_targets(objective, position) for position in positions]
    # At the start the first stage's target is wanted.
    shares = np.stack([shares_of([of[0], *of], own).to_numpy() for of in targets])
    coords = {"stage": np.arange(shares.shape[1]), "task": list(names)}
    performance = retained(
        xr.DataArray(retention, coords, ("setting", "draw", "stage", "task")),
        xr.DataArray(shares, coords, ("setting", "stage", "task")),
    )
    found = {"stages/task_performance": performance.transpose("setting", "draw", "stage", "task")}
    for name, values in forgetting_of(performance, own).data_vars.items():
        found[f"forgetting/{name}"] = values.transpose("setting", "draw", ...)
    return {name: values.to_numpy() for name, values in found.items()}
