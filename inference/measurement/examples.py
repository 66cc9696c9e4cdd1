"""Samples to look at: the nearest to each mode, the farthest from both, the furthest along a drift."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from inference import results
from inference.measurement.samples.sources import Samples, Source, samples_of
from mixture_models.validation import integer

results.register(
    example=("place among the samples that are shown for the same reason", "1"),
    reason=("why a sample is shown", "1"),
    sample_row=("row of the sample in its checkpoint, from 0 on, -1: none", "1"),
    old_distance=("distance from the checkpoint's old mode", "Mahalanobis"),
    new_distance=("distance from the checkpoint's new mode", "Mahalanobis"),
    along_drift=("place along the drift of the sample's mode, from the mode on", "Mahalanobis"),
    sample_text=("what the checkpoint wrote", "1"),
    sample_prompt=("what it was asked", "1"),
    sample_id=("name of the sample", "1"),
)

# What is told of a sample beside its row.
_FACTS = ("old_distance", "new_distance", "along_drift")

#: Why a sample is shown.
REASONS = ("old", "new", "neither", "old drift", "new gap")

# A mode has a direction to look along where it has moved with this probability.
_LEAST_MOVED = 0.5


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


class _Modes(NamedTuple):
    """Where a checkpoint's modes lie in the frame.

    Attributes:
        means: shape (mode, coordinate).
        directions: of their displacements, of length 1, NaN where they are more likely not to have moved.
    """

    means: Float[np.ndarray, "2 d"]
    directions: Float[np.ndarray, "2 d"]


def examples(
    tree: xr.DataTree, samples: Source, *, num: int = 5, said: Callable[[int], Said] | None = None
) -> xr.Dataset:
    """Return some samples of every checkpoint, and why each is worth a look.

    ``old`` and ``new`` are the nearest to either mode where it is now, ``neither`` those whose distance to
    the nearer mode is largest, ``old drift`` and ``new gap`` those of a mode's side that lie furthest in the
    direction in which it has moved, where it is more likely to have moved than not. Distances are in the
    metric of the references, at the posterior means.

    Args:
        tree: of `inference.measure`.
        samples: that were measured.
        num: samples for every reason.
        said: returns texts, prompts and ids of a checkpoint's samples by its place.

    Returns:
        Dataset over (checkpoint, reason, example), of which ``sample_row`` is -1 where there is none.

    Raises:
        InputError: samples that cannot be read.
    """
    num = integer("the number of examples", num)
    source = samples_of("samples", samples)
    features = [str(f) for f in tree["constant_data"]["source_feature"].to_numpy()]
    found = [_of_checkpoint(tree, source, index, features, num) for index in range(len(source.names))]
    dims = ("checkpoint", "reason", "example")
    variables: dict[str, Any] = {name: (dims, np.stack([one[name] for one in found])) for name in found[0]}
    rows = variables["sample_row"][1]
    if said is not None:
        each = [said(index) for index in range(len(source.names))]
        for name, field in (("sample_text", "texts"), ("sample_prompt", "prompts"), ("sample_id", "ids")):
            if any(getattr(one, field) is not None for one in each):
                known = [_picked(getattr(one, field), places) for one, places in zip(each, rows, strict=True)]
                variables[name] = (dims, np.stack(known))
    coords = {"checkpoint": source.names, "reason": list(REASONS), "example": np.arange(num)}
    return results.describe(xr.Dataset(variables, coords))


def _of_checkpoint(
    tree: xr.DataTree, source: Samples, index: int, features: list[str], num: int
) -> dict[str, np.ndarray]:
    """Return rows and distances of the examples of a checkpoint, each (reason, example)."""
    constant = tree["constant_data"].to_dataset()
    modes = _modes(tree, index)
    matrix, origin, forward = (
        constant[n].to_numpy() for n in ("projection", "frame_origin", "frame_forward")
    )
    best = [np.empty((0, 2 + len(_FACTS))) for _ in REASONS]
    first = 0
    for piece in source.pieces(index, features):
        rows = np.flatnonzero(np.isfinite(piece).all(axis=1))
        from_modes = ((piece[rows] @ matrix - origin) @ forward.T)[:, None] - modes.means
        distances = np.sqrt(np.sum(from_modes**2, axis=2))
        along = np.einsum("nmd,md->nm", from_modes, modes.directions)
        own = distances.argmin(axis=1)
        scores = [-distances[:, 0], -distances[:, 1], distances.min(axis=1)]
        scores += [np.where(own == mode, along[:, mode], np.nan) for mode in (0, 1)]
        facts = np.column_stack([first + rows, distances, along[np.arange(len(own)), own]])
        for reason, score in enumerate(scores):
            both = np.concatenate([best[reason], np.column_stack([score, facts])[np.isfinite(score)]])
            best[reason] = both[np.argsort(-both[:, 0], kind="stable")[:num]]
        first += len(piece)
    padded = np.full((len(REASONS), num, 1 + len(_FACTS)), np.nan)
    for reason, found in enumerate(best):
        padded[reason, : len(found)] = found[:, 1:]
    shown = np.where(np.isnan(padded[..., 0]), -1, padded[..., 0]).astype(int)
    return {"sample_row": shown} | {name: padded[..., 1 + place] for place, name in enumerate(_FACTS)}


def _modes(tree: xr.DataTree, index: int) -> _Modes:
    """Return where the modes of a checkpoint are by the posterior's means, and where they have gone."""
    constant = tree["constant_data"].to_dataset()
    forward, means = constant["frame_forward"].to_numpy(), constant["frame_mean"].to_numpy()
    posterior = tree["posterior"].to_dataset().isel(checkpoint=index)
    moved = np.zeros_like(means)
    directions = np.full_like(means, np.nan)
    for mode, (name, length) in enumerate((("old", "old_drift"), ("new", "new_gap"))):
        displacement = posterior[f"{name}_displacement"].mean(["chain", "draw"]).to_numpy()
        # With fewer coordinates than features displacements are in the frame's, see `frame.Frame`.
        square = forward.shape[1] == len(displacement)
        moved[mode] = forward @ displacement if square else displacement
        size = np.linalg.norm(moved[mode])
        if float((posterior[length] > 0.0).mean()) > _LEAST_MOVED and size > 0.0:
            directions[mode] = moved[mode] / size
    return _Modes(means + moved, directions)


def _picked(texts: Sequence[str] | None, rows: np.ndarray) -> np.ndarray:
    """Return the texts of some rows, empty where there is none."""
    if texts is None:
        return np.full(rows.shape, "", dtype=object)
    return np.array([[texts[row] if row >= 0 else "" for row in line] for line in rows], dtype=object)
