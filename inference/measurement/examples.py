"""Samples to look at: the nearest to each mode, the farthest from both, the furthest along a drift."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from inference import results
from inference.measurement.modes import in_frame, modes_of, names_of_modes, of_tasks
from inference.measurement.samples.sources import Samples, Source, samples_of
from mixture_models.validation import integer

results.register(
    example=("place among the samples that are shown for the same reason", "1"),
    reason=("why a sample is shown", "1"),
    sample_row=("row of the sample in its checkpoint, from 0 on, -1: none", "1"),
    old_distance=("distance from the checkpoint's old mode", "Mahalanobis"),
    new_distance=("distance from the checkpoint's new mode", "Mahalanobis"),
    task_distance=("distance from the checkpoint's mode of the task", "Mahalanobis"),
    along_drift=("place along the drift of the sample's mode, from the mode on", "Mahalanobis"),
    sample_text=("what the checkpoint wrote", "1"),
    sample_prompt=("what it was asked", "1"),
    sample_id=("name of the sample", "1"),
)

# A mode has a direction to look along where it has moved with this probability.
_LEAST_MOVED = 0.5

# What samples are that are near to no mode, of two and of tasks by name.
_NEITHER, _NONE = "neither", "no task"


class Said(NamedTuple):
    """What is known of samples beside their features, None where nothing is.

    Attributes:
        texts: what the checkpoint wrote.
        prompts: what it was asked.
        ids: their names.
    """

    texts: Sequence[str] | None = None
    prompts: Sequence[str] | None = None
    ids: Sequence[str] | None = None


def reasons_of(tree: xr.DataTree) -> list[str]:
    """Return why samples are shown: each mode, none of them, and the drift of each."""
    if of_tasks(tree):
        names = names_of_modes(tree)
        return [*names, _NONE, *(f"{name} drift" for name in names)]
    return ["old", "new", _NEITHER, "old drift", "new gap"]


def examples(
    tree: xr.DataTree, samples: Source, *, num: int = 5, said: Callable[[int], Said] | None = None
) -> xr.Dataset:
    """Return some samples of every checkpoint, and why each is worth a look.

    ``old`` and ``new`` are the nearest to either mode where it is now, ``neither`` those whose distance to
    the nearer mode is largest, ``old drift`` and ``new gap`` those of a mode's side that lie furthest in the
    direction in which it has moved, where it is more likely to have moved than not. Of tasks by name these
    are ``NAME``, ``no task`` and ``NAME drift``. Distances are in the metric of the references, at the
    posterior means.

    Args:
        tree: of `inference.measure`.
        samples: that were measured.
        num: samples for every reason.
        said: returns texts, prompts and ids of a checkpoint's samples by its place.

    Returns:
        Dataset over (checkpoint, reason, example), of which ``sample_row`` is -1 where there is none, with
        ``old_distance`` and ``new_distance``, of tasks by name ``task_distance`` over (…, task).

    Raises:
        InputError: samples that cannot be read.
    """
    num = integer("the number of examples", num)
    source = samples_of("samples", samples)
    features = [str(f) for f in tree["constant_data"]["source_feature"].to_numpy()]
    reasons = reasons_of(tree)
    found = [_of_checkpoint(tree, source, index, features, num) for index in range(len(source.names))]
    dims = ("checkpoint", "reason", "example")
    rows, distances, along = (np.stack(part) for part in zip(*found, strict=True))
    variables: dict[str, object] = {"sample_row": (dims, rows), "along_drift": (dims, along)}
    coords: dict[str, object] = {"checkpoint": source.names, "reason": reasons, "example": np.arange(num)}
    if of_tasks(tree):
        variables["task_distance"] = ((*dims, "task"), distances)
        coords["task"] = names_of_modes(tree)
    else:
        variables |= {f"{name}_distance": (dims, distances[..., k]) for k, name in enumerate(("old", "new"))}
    if said is not None:
        each = [said(index) for index in range(len(source.names))]
        for name, field in (("sample_text", "texts"), ("sample_prompt", "prompts"), ("sample_id", "ids")):
            if any(getattr(one, field) is not None for one in each):
                known = [_picked(getattr(one, field), places) for one, places in zip(each, rows, strict=True)]
                variables[name] = (dims, np.stack(known))
    return results.describe(xr.Dataset(variables, coords))


def _of_checkpoint(
    tree: xr.DataTree, source: Samples, index: int, features: list[str], num: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, distances from all modes and places along drifts of the examples, (reason, example, …)."""
    modes = modes_of(tree, index)
    count = len(modes.means)
    sizes = np.linalg.norm(modes.shifts, axis=1, keepdims=True)
    has_moved = (modes.moved[:, None] > _LEAST_MOVED) & (sizes > 0.0)
    directions = np.where(has_moved, modes.shifts / np.maximum(sizes, 1e-300), np.nan)
    # Score, row, place along the drift, and distances.
    best = [np.empty((0, 3 + count)) for _ in range(2 * count + 1)]
    first = 0
    for piece in source.pieces(index, features):
        rows = np.flatnonzero(np.isfinite(piece).all(axis=1))
        from_modes = in_frame(tree, piece[rows])[:, None] - modes.means
        distances = np.sqrt(np.sum(from_modes**2, axis=2))
        along = np.einsum("nmd,md->nm", from_modes, directions)
        own = distances.argmin(axis=1)
        scores = [-distances[:, k] for k in range(count)] + [distances.min(axis=1)]
        scores += [np.where(own == k, along[:, k], np.nan) for k in range(count)]
        facts = np.column_stack([first + rows, along[np.arange(len(own)), own], distances])
        for reason, score in enumerate(scores):
            both = np.concatenate([best[reason], np.column_stack([score, facts])[np.isfinite(score)]])
            best[reason] = both[np.argsort(-both[:, 0], kind="stable")[:num]]
        first += len(piece)
    padded = np.full((len(best), num, 2 + count), np.nan)
    for reason, found in enumerate(best):
        padded[reason, : len(found)] = found[:, 1:]
    shown = np.where(np.isnan(padded[..., 0]), -1, padded[..., 0]).astype(int)
    return shown, padded[..., 2:], padded[..., 1]


def _picked(texts: Sequence[str] | None, rows: np.ndarray) -> np.ndarray:
    """Return the texts of some rows, empty where there is none."""
    if texts is None:
        return np.full(rows.shape, "", dtype=object)
    return np.array([[texts[row] if row >= 0 else "" for row in line] for line in rows], dtype=object)
