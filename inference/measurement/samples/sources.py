"""Samples of checkpoints and references: arrays, tables or files in, one kind of source out."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from inference.measurement.samples import formats, stored
from inference.measurement.samples.stored import Stored
from mixture_models.types import AnyArray
from mixture_models.validation import InputError, as_array, path_of, real_array

# The column of a table that may hold a sample's features as one list.
_EMBEDDING = "embedding"

#: The column, variable or coordinate that names the prompts of samples.
PROMPT = "prompt"


@dataclass(frozen=True)
class Samples:
    """Samples of one or more checkpoints, each read when it is asked for.

    Attributes:
        names: of the checkpoints, in their order.
        features: their names, or None where the source has none.
        stored: returns the samples of one checkpoint by its place, where they are stored.
        prompts: returns the labels of the prompts of one checkpoint's samples, or None where there are none.
    """

    names: list[Hashable]
    features: list[str] | None
    stored: Callable[[int], Stored]
    prompts: Callable[[int], np.ndarray] | None = None

    def load(self, index: int) -> Float[np.ndarray, "sample feature"]:
        """Return all samples of one checkpoint by its place."""
        return self.stored(index).load()

    def pieces(self, index: int, features: list[str]) -> Iterator[Float[np.ndarray, "n feature"]]:
        """Yield the samples of one checkpoint by its place, their features in this order."""
        order: slice | list[int] = slice(None)
        if self.features is not None and self.features != features:
            order = [self.features.index(f) for f in features]
        for piece in self.stored(index).pieces():
            yield piece[:, order]


#: What samples are given as: see `samples_of`.
type Source = (
    str
    | Path
    | ArrayLike
    | Sequence[ArrayLike]
    | Mapping[Any, ArrayLike]
    | xr.DataArray
    | xr.Dataset
    | pd.DataFrame
    | Samples
)


def samples_of(name: str, source: Source) -> Samples:
    """Return the checkpoints of an array, a list, a mapping, an xarray object or a file.

    Args:
        name: what to call the source in an error.
        source: shape (checkpoint, sample, feature); or (sample, feature), which is one checkpoint; or a list
            or mapping of (sample, feature) arrays; or a DataArray, Dataset or DataFrame with a
            ``checkpoint`` dimension, coordinate or column, the features of a DataFrame in a column each or as
            lists in a column ``embedding``; or the path of a file that holds one of these. A column, variable
            or coordinate ``prompt`` names the prompt of every sample.

    Raises:
        InputError: a source that is none of these, or holds nothing.
    """
    if isinstance(source, str | Path):
        path = path_of(name, source)
        found = samples_of(name, formats.read(name, path))
        # What is read later is read from there.
        return replace(found, stored=lambda index: replace(found.stored(index), path=path))
    if isinstance(source, Samples):
        return source
    if isinstance(source, pd.DataFrame):
        return _of_frame(name, source)
    if isinstance(source, xr.Dataset):
        prompts = {PROMPT: source[PROMPT]} if PROMPT in source.data_vars else {}
        source = _variable(name, source).assign_coords(prompts)
    if isinstance(source, xr.DataArray):
        return _of_labelled(name, source)
    if isinstance(source, Mapping):
        return _of_mapping(name, source)
    if isinstance(source, list | tuple) and source and len(_shape(name, source[0])) == 2:
        return _listed(list(range(len(source))), list(source), None)
    shape = _shape(name, source)
    if len(shape) == 3:
        return _stacked(list(range(shape[0])), source, None)
    if len(shape) == 2:
        return _listed([0], [source], None)
    raise InputError(
        f"{name} must be of shape (checkpoint, sample, feature), a list of (sample, feature), or a file; "
        f"got shape {shape}"
    )


def reference_of(name: str, source: Source) -> tuple[Float[np.ndarray, "n d"], list[str] | None]:
    """Return the samples of a reference and the names of their features; checkpoints are put together."""
    samples = samples_of(name, source)
    return rows_of_reference(name, samples), samples.features


def rows_of_reference(name: str, samples: Samples) -> Float[np.ndarray, "n d"]:
    """Return the samples of a reference; checkpoints are put together."""
    parts = [samples.load(i) for i in range(len(samples.names))]
    widths = sorted({part.shape[1] for part in parts})
    if len(widths) != 1:
        raise InputError(f"{name} must have samples of as many features each; got {widths or 'no samples'}")
    return np.concatenate(parts)


def _listed(names: list[Hashable], arrays: Sequence[object], features: list[str] | None) -> Samples:
    return Samples(names, features, lambda i: stored.of_array(f"checkpoint {names[i]}", arrays[i]))


def _stacked(names: list[Hashable], array: object, features: list[str] | None) -> Samples:
    return Samples(names, features, lambda i: stored.of_array(f"checkpoint {names[i]}", array, i))


def _of_mapping(name: str, source: Mapping[Hashable, AnyArray]) -> Samples:
    if "samples" in source:
        values = source["samples"]
        values = values if hasattr(values, "ndim") else real_array(name, values)
        features = [str(f) for f in np.atleast_1d(source["features"])] if "features" in source else None
        labels = labels_of(name, source["checkpoint"]) if "checkpoint" in source else None
        prompts = None if PROMPT not in source else as_array(f"the prompts of {name}", source[PROMPT])
        if values.ndim == 2:
            rows = stored.of_array(name, values)
            of_rows = np.zeros(len(values), int) if labels is None else labels
            return _grouped(name, of_rows, rows, features, prompts)
        if values.ndim != 3 or (labels is not None and len(labels) != len(values)):
            raise InputError(
                f"{name}: samples must be (sample, feature) or (checkpoint, sample, feature), with one "
                f"checkpoint a row or an entry; got shape {values.shape}"
                + ("" if labels is None else f" and {len(labels)} checkpoints")
            )
        names: list[Hashable] = list(range(len(values))) if labels is None else _different(name, labels)
        stacked = _stacked(names, values, features)
        if prompts is None:
            return stacked
        if np.shape(prompts)[:1] != (len(names),):
            raise InputError(
                f"the prompts of {name} must be of shape (checkpoint, sample); got shape {np.shape(prompts)}"
            )
        return replace(stacked, prompts=lambda index: np.asarray(prompts[index]))
    if not source:
        raise InputError(f"{name} must hold at least one checkpoint; got none")
    words = [str(key) for key in source]
    numeric = all(word.isdecimal() for word in words)
    keys: list[Hashable] = [int(word) for word in words] if numeric else list(words)
    return _listed(keys, list(source.values()), None)


def _of_frame(name: str, frame: pd.DataFrame) -> Samples:
    columns = [str(c) for c in frame.columns]
    twice = sorted({c for c in columns if columns.count(c) > 1})
    if twice:
        raise InputError(f"the columns of {name} must differ; got {', '.join(twice[:8])} twice")
    features = [c for c in columns if c not in ("checkpoint", PROMPT)]
    prompts = frame[PROMPT].to_numpy(object) if PROMPT in frame else None
    labels = labels_of(name, frame["checkpoint"]) if "checkpoint" in frame else np.zeros(len(frame), int)
    if _EMBEDDING in features and not pd.api.types.is_numeric_dtype(frame[_EMBEDDING]):
        others = [c for c in features if c != _EMBEDDING]
        if others:
            raise InputError(
                f"{name} must have no column beside {_EMBEDDING}, checkpoint and {PROMPT}; got "
                f"{', '.join(others[:8])}"
            )
        embeddings = _embeddings(name, frame[_EMBEDDING])
        return _grouped(name, labels, stored.of_array(name, embeddings), None, prompts)
    values = frame.drop(columns=["checkpoint", PROMPT], errors="ignore")
    wrong = [str(c) for c in values.columns if not pd.api.types.is_numeric_dtype(values[c])]
    if wrong or not features:
        raise InputError(
            f"{name} must have numeric feature columns or a column {_EMBEDDING} of lists and, optionally, a "
            "column checkpoint; "
            + (f"not numeric: {', '.join(wrong[:8])}" if wrong else "got no feature column")
        )
    # A nullable column has its own kind of missing value.
    nullable = any(pd.api.types.is_extension_array_dtype(kind) for kind in values.dtypes)
    rows = values.to_numpy(np.float64, na_value=np.nan) if nullable else values.to_numpy()
    return _grouped(name, labels, stored.of_array(name, rows), features, prompts)


def _embeddings(name: str, column: pd.Series) -> np.ndarray:
    """Return the lists of a column as rows, NaN where there is none."""
    what = f"the {_EMBEDDING} of {name}"
    absent = column.isna()
    rows = [
        None if lacks else _row(what, cell)
        for cell, lacks in zip(column.to_numpy(object), absent, strict=True)
    ]
    lengths = sorted({len(row) for row in rows if row is not None})
    if len(lengths) != 1 or not lengths[0]:
        found = " and ".join(map(str, lengths[:8])) or "none"
        raise InputError(f"{what} must be lists of as many numbers each, at least one; got {found}")
    missing = np.full(lengths[0], np.nan)
    return np.stack([missing if row is None else row for row in rows])


def _row(what: str, cell: object) -> np.ndarray:
    row = cell if isinstance(cell, np.ndarray) and cell.dtype.kind in "fiu" else None
    if row is None and isinstance(cell, list | tuple | np.ndarray):
        # A missing number in a list is None.
        row = real_array(what, [np.nan if entry is None else entry for entry in cell])
    if row is None or row.ndim != 1:
        shown = repr(cell) if row is None else f"shape {row.shape}"
        raise InputError(f"{what} must be lists of numbers; got {shown[:40]}")
    return row


def _of_labelled(name: str, array: xr.DataArray) -> Samples:
    if "feature" not in array.dims or array.ndim not in (2, 3):
        raise InputError(
            f"{name} must have dims (checkpoint, sample, feature) or (sample, feature); got {array.dims}"
        )
    features = [str(f) for f in array["feature"].to_numpy()] if "feature" in array.coords else None
    others = [str(d) for d in array.dims if d != "feature"]
    if array.ndim == 2:
        (sample,) = others
        rows = stored.of_labelled("checkpoint 0", array, sample)
        if "checkpoint" in array.coords and array["checkpoint"].dims == (sample,):
            prompts = array[PROMPT].to_numpy() if PROMPT in array.coords else None
            return _grouped(name, labels_of(name, array["checkpoint"]), rows, features, prompts)
        return Samples([0], features, lambda _: rows, _labelled_prompts(name, array, sample))
    if "checkpoint" not in others:
        raise InputError(f"{name} must have a dim checkpoint; got {array.dims}")
    (sample,) = (d for d in others if d != "checkpoint")
    size = array.sizes["checkpoint"]
    labels = labels_of(name, array["checkpoint"]) if "checkpoint" in array.coords else np.arange(size)
    names = _different(name, labels)

    def of_checkpoint(index: int) -> Stored:
        words = f"checkpoint {names[index]}"
        return stored.of_labelled(words, array, sample, padded=True, checkpoint=index)

    return Samples(names, features, of_checkpoint, _labelled_prompts(name, array, sample))


def _labelled_prompts(name: str, array: xr.DataArray, sample: str) -> Callable[[int], np.ndarray] | None:
    """Return what returns the prompts of a checkpoint, those of its samples without any number left out."""
    if PROMPT not in array.coords:
        return None
    labels = array[PROMPT]
    if sample not in labels.dims or set(labels.dims) - {"checkpoint", sample}:
        raise InputError(
            f"the prompts of {name} must have the dims (checkpoint, {sample}) or ({sample},); got "
            f"{labels.dims}"
        )

    def of_checkpoint(index: int) -> np.ndarray:
        one = array.isel(checkpoint=index) if "checkpoint" in array.dims else array
        padding = one.isnull().all("feature").to_numpy()
        own = labels.isel(checkpoint=index) if "checkpoint" in labels.dims else labels
        found: np.ndarray = own.to_numpy()
        return found[~padding] if "checkpoint" in array.dims else found

    return of_checkpoint


def _shape(name: str, values: AnyArray) -> tuple[int, ...]:
    try:
        return np.shape(values)
    except ValueError:  # lists of several lengths
        raise InputError(
            f"{name} must have rows of as many numbers each; got rows of several lengths"
        ) from None


def labels_of(name: str, values: object) -> np.ndarray:
    """Return the labels of checkpoints, shape (n,), or refuse what has another shape or lacks some."""
    labels = np.atleast_1d(as_array(name, values))
    if labels.ndim != 1:
        raise InputError(f"the checkpoints of {name} must have one axis; got shape {labels.shape}")
    missing = int(np.ma.count_masked(labels) + np.sum(pd.isna(np.ma.compressed(labels))))
    if missing:
        raise InputError(f"{name} must name the checkpoint of every row or entry; {missing} have none")
    return np.asarray(labels)


def _different(name: str, labels: np.ndarray) -> list[Hashable]:
    """Return the labels as a list, or refuse two that are equal."""
    names: list[Hashable] = labels.tolist()
    if len(set(names)) < len(names):
        twice = sorted({str(n) for n in names if names.count(n) > 1})
        raise InputError(
            f"the checkpoints of {name} must have different names; got {', '.join(twice[:8])} twice"
        )
    return names


def _grouped(
    name: str,
    labels: np.ndarray,
    rows: Stored,
    features: list[str] | None,
    prompts: np.ndarray | None = None,
) -> Samples:
    if len(labels) != rows.shape[0]:
        raise InputError(
            f"{name} must have one checkpoint a row; got {len(labels)} labels and {rows.shape[0]} rows"
        )
    if not len(labels):
        raise InputError(f"{name} must hold at least one sample; got none")
    codes, unique = pd.factorize(labels, use_na_sentinel=False)
    names = unique.tolist()

    def of_checkpoint(index: int) -> Stored:
        return rows.picked(f"checkpoint {names[index]}", np.flatnonzero(codes == index))

    if prompts is None:
        return Samples(names, features, of_checkpoint)
    if np.shape(prompts) != (len(labels),):
        raise InputError(
            f"{name} must have one prompt a row; got prompts of shape {np.shape(prompts)} and "
            f"{len(labels)} rows"
        )
    return Samples(names, features, of_checkpoint, lambda index: prompts[codes == index])


def _variable(name: str, dataset: xr.Dataset) -> xr.DataArray:
    found = [str(v) for v in dataset.data_vars if "feature" in dataset[v].dims]
    if "samples" in found:
        return dataset["samples"]
    if len(found) != 1:
        raise InputError(
            f"{name} must hold one variable with a dim feature, or one called samples; got "
            + (", ".join(found) or "none")
        )
    return dataset[found[0]]
