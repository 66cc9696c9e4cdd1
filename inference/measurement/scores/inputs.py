"""Log-likelihoods as users give them: one array a checkpoint, checked."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from mixture_models.validation import InputError, as_array, real_array

#: Log-likelihoods as they are given: of one checkpoint or of several, by place or by name.
ScoresLike = ArrayLike | Sequence[ArrayLike] | Mapping[Hashable, ArrayLike] | xr.DataArray


def by_checkpoint(name: str, scores: ScoresLike | Mapping[str, ScoresLike]) -> dict[Hashable, np.ndarray]:
    """Return one float64 array of shape (sample,) a checkpoint."""
    items: dict[Hashable, object]
    if isinstance(scores, Mapping):
        items = {name: values for name, values in scores.items()}
    elif isinstance(scores, xr.DataArray) and "checkpoint" in scores.dims:
        labels = scores["checkpoint"].to_numpy().tolist()
        items = {label: scores.isel(checkpoint=i).to_numpy() for i, label in enumerate(labels)}
    else:
        if isinstance(scores, Sequence) and not isinstance(scores, str | bytes):
            rows: Sequence[ArrayLike] | np.ndarray = scores
        else:
            rows = np.ma.atleast_1d(as_array(name, scores))
        nested = len(rows) > 0 and np.ndim(rows[0]) == 1
        items = dict(enumerate(rows)) if nested else {0: rows}
    if not items:
        raise InputError(f"{name} must hold at least one checkpoint; got none")
    checked = {}
    for checkpoint, values in items.items():
        array = real_array(name, values)
        if array.ndim != 1 or array.size == 0:
            raise InputError(
                f"{name} must have at least one sample of checkpoint {checkpoint}, along one axis; "
                f"got shape {array.shape}"
            )
        bad = int(np.sum(np.isnan(array) | (array == np.inf)))
        if bad:
            raise InputError(f"{name} must be numbers or -inf; {bad} of checkpoint {checkpoint} are not")
        checked[checkpoint] = array
    return checked
