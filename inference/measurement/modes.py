"""Where a measurement says that the modes lie: read from its result, in the frame of the references."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float


class Modes(NamedTuple):
    """The modes of one checkpoint in the frame, by the means of the posterior.

    Attributes:
        references: means of the references, shape (mode, coordinate).
        shifts: how far each mode has moved from its own, shape (mode, coordinate).
        moved: probability that it has moved at all, shape (mode,).
    """

    references: Float[np.ndarray, "mode d"]
    shifts: Float[np.ndarray, "mode d"]
    moved: Float[np.ndarray, "mode"]

    @property
    def means(self) -> Float[np.ndarray, "mode d"]:
        """Where the modes are now."""
        return self.references + self.shifts


def of_tasks(tree: xr.DataTree) -> bool:
    """Return whether a measurement is of tasks by name, not of an old and a new mode."""
    return "task" in tree["posterior"].dims


def names_of_modes(tree: xr.DataTree) -> list[str]:
    """Return ``["old", "new"]``, or the names of the tasks."""
    return list(map(str, tree["posterior"]["task"].to_numpy())) if of_tasks(tree) else ["old", "new"]


def in_frame(tree: xr.DataTree, y: Float[np.ndarray, "n feature"]) -> Float[np.ndarray, "n d"]:
    """Return samples in the coordinates of the frame, whose unit is the spread within the references."""
    constant = tree["constant_data"].to_dataset()
    if "projection" in constant:
        y = y @ constant["projection"].to_numpy()
    found: np.ndarray = (y - constant["frame_origin"].to_numpy()) @ constant["frame_forward"].to_numpy().T
    return found


def modes_of(tree: xr.DataTree, index: int) -> Modes:
    """Return where the modes of a checkpoint are, in the order of `names_of_modes`."""
    constant = tree["constant_data"].to_dataset()
    forward, names = constant["frame_forward"].to_numpy(), names_of_modes(tree)
    references = constant["frame_mean"].sel({"task" if of_tasks(tree) else "mode": names}).to_numpy()
    posterior = tree["posterior"].to_dataset().isel(checkpoint=index)
    if of_tasks(tree):
        displacement = (
            posterior["displacement"].mean(["chain", "draw"]).transpose("task", "feature").to_numpy()
        )
        lengths = [posterior["task_drift"].sel(task=name) for name in names]
    else:
        both = posterior["old_displacement"], posterior["new_displacement"]
        displacement = np.stack([one.mean(["chain", "draw"]).to_numpy() for one in both])
        lengths = [posterior["old_drift"], posterior["new_gap"]]
    # With fewer coordinates than features displacements are in the frame's, see `frame.Frame`.
    square = forward.shape[1] == displacement.shape[1]
    shifts = displacement @ forward.T if square else displacement
    return Modes(references, shifts, np.array([float((one > 0.0).mean()) for one in lengths]))
