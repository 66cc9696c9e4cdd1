"""Samples of checkpoints and references: arrays or files in, checked float64 matrices out."""

import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from mixture_models.validation import InputError, one_of

#: The kinds of files that are read.
SUFFIXES = (".npz", ".npy", ".parquet", ".nc", ".zarr")

# A checkpoint is held in memory with what is computed of it; this share of the machine's may be used.
_MEMORY_SHARE = 0.4


@dataclass(frozen=True)
class Samples:
    """Samples of one or more checkpoints, each loaded when it is asked for.

    Attributes:
        names: of the checkpoints, in their order.
        features: their names, or None where the source has none.
        load: returns the samples of one checkpoint by its place, shape (sample, feature).
    """

    names: list[Any]
    features: list[str] | None
    load: Callable[[int], np.ndarray]


def samples_of(name: str, source: Any) -> Samples:
    """Return the checkpoints of an array, a list, a mapping, an xarray object or a file.

    Args:
        name: what to call the source in an error.
        source: shape (checkpoint, sample, feature); or (sample, feature), which is one checkpoint; or a list
            or mapping of (sample, feature) arrays; or a DataArray, Dataset or DataFrame with a
            ``checkpoint`` dimension, coordinate or column; or the path of a file that holds one of these.

    Raises:
        InputError: a source that is none of these, or holds nothing.
    """
    if isinstance(source, str | Path):
        source = _read(name, Path(source))
    if isinstance(source, Samples):
        return source
    if isinstance(source, pd.DataFrame):
        return _of_frame(name, source)
    if isinstance(source, xr.Dataset):
        source = _variable(name, source)
    if isinstance(source, xr.DataArray):
        return _of_labelled(name, source)
    if isinstance(source, Mapping):
        return _of_mapping(name, source)
    if isinstance(source, list | tuple) and source and np.ndim(source[0]) == 2:
        return _listed(list(range(len(source))), list(source), None)
    shape = np.shape(source)
    if len(shape) == 3:
        return _listed(list(range(shape[0])), source, None)
    if len(shape) == 2:
        return _listed([0], [source], None)
    raise InputError(
        f"{name} must be of shape (checkpoint, sample, feature), a list of (sample, feature), or a file; "
        f"got shape {shape}"
    )


def reference_of(name: str, source: Any) -> tuple[Float[np.ndarray, "n d"], list[str] | None]:
    """Return the samples of a reference and the names of their features; checkpoints are put together."""
    samples = samples_of(name, source)
    return np.concatenate([samples.load(i) for i in range(len(samples.names))]), samples.features


@dataclass(frozen=True)
class Checked:
    """What `check` found fit to be measured.

    Attributes:
        samples: the checkpoints; `load` gives finite float64 matrices.
        old: reference of the old task, shape (sample, feature).
        new: reference of the new task, shape (sample, feature).
        features: names of the features.
        num_dropped: rows left out for a missing value: of each checkpoint, of the old and the new reference.
    """

    samples: Samples
    old: Float[np.ndarray, "n d"]
    new: Float[np.ndarray, "m d"]
    features: list[str]
    num_dropped: list[int]


def check(samples: Any, old_reference: Any, new_reference: Any, *, drop_missing: bool) -> Checked:
    """Read everything once and refuse, in one sentence, what cannot be measured.

    Raises:
        InputError: features that do not match, missing values, too few samples, constant or collinear
            features, identical references, or a checkpoint without samples.
    """
    source = samples_of("samples", samples)
    old, old_features = reference_of("old_reference", old_reference)
    new, new_features = reference_of("new_reference", new_reference)
    known = [f for f in (old_features, new_features, source.features) if f is not None]
    if any(set(f) != set(known[0]) for f in known):
        one, other = next((known[0], f) for f in known if set(f) != set(known[0]))
        raise InputError(
            "samples and references must have the same features; "
            f"only in one of them: {', '.join(sorted(set(one) ^ set(other))[:8])}"
        )
    features = known[0] if known else [str(i) for i in range(old.shape[1])]

    def ordered(array: np.ndarray, names: list[str] | None) -> np.ndarray:
        return array if names is None or names == features else array[:, [names.index(f) for f in features]]

    old, new = ordered(old, old_features), ordered(new, new_features)
    if old.shape[1] != len(features) or new.shape[1] != len(features):
        raise InputError(
            f"both references must have the same features; got {old.shape[1]} and {new.shape[1]}"
        )
    counts = [_finite(array).sum() for array in (old, new)]
    missing = [len(old) - counts[0], len(new) - counts[1]]
    by_checkpoint = []
    for index, checkpoint in enumerate(source.names):
        array = source.load(index)
        if array.shape[1] != len(features):
            raise InputError(
                f"samples must have the {len(features)} features of the references; checkpoint {checkpoint} "
                f"has {array.shape[1]}"
            )
        if not array.shape[0] or not _finite(array).any():
            raise InputError(f"every checkpoint must have samples; checkpoint {checkpoint} has none")
        by_checkpoint.append(int(len(array) - _finite(array).sum()))
    total = int(sum(missing) + sum(by_checkpoint))
    if total and not drop_missing:
        worst = source.names[int(np.argmax(by_checkpoint))]
        raise InputError(
            f"samples must be finite, or be dropped explicitly (drop_missing); {total} rows are not: "
            f"{missing[0]} of the old reference, {missing[1]} of the new one, and {sum(by_checkpoint)} of "
            f"the checkpoints ({max(by_checkpoint)} of checkpoint {worst})"
        )
    old, new = old[_finite(old)], new[_finite(new)]
    _check_references(old, new, features)

    def load(index: int) -> np.ndarray:
        array = ordered(source.load(index), source.features)
        return array[_finite(array)]

    dropped = [*by_checkpoint, *(int(m) for m in missing)]
    return Checked(Samples(source.names, features, load), old, new, features, dropped)


def _check_references(old: np.ndarray, new: np.ndarray, features: list[str]) -> None:
    d = len(features)
    least = max(10, d + 5)
    for name, array in (("old", old), ("new", new)):
        if len(array) < 5:
            raise InputError(f"the {name} reference must have at least 5 samples; got {len(array)}")
        flat = np.flatnonzero(np.ptp(array, axis=0) <= 1e-12 * np.maximum(np.abs(array).max(axis=0), 1e-300))
        if flat.size:
            raise InputError(
                f"every feature must vary in both references; in the {name} one these are constant: "
                + ", ".join(features[i] for i in flat[:8])
            )
    if len(old) + len(new) - 2 < least:
        raise InputError(
            f"the references must have at least {least + 2} samples for {d} features; got {len(old)} and "
            f"{len(new)}"
        )
    if old.shape == new.shape and np.array_equal(old, new):
        raise InputError("the references must differ; old and new are the same samples")
    within = np.concatenate([old - old.mean(0), new - new.mean(0)])
    within = within / within.std(0)
    lowest = np.linalg.eigvalsh(within.T @ within / len(within)).min()
    if lowest < 1e-10:
        raise InputError(
            "the features must not be linear combinations of one another; the smallest eigenvalue of their "
            f"correlation is {lowest:.1e}"
        )


def _finite(array: np.ndarray) -> np.ndarray:
    return np.isfinite(array).all(axis=1)


def _listed(names: list[Any], arrays: Any, features: list[str] | None) -> Samples:
    def load(index: int) -> np.ndarray:
        return _matrix(f"checkpoint {names[index]}", arrays[index])

    return Samples(names, features, load)


def _matrix(name: str, values: Any) -> np.ndarray:
    shape = np.shape(values)
    if len(shape) != 2:
        raise InputError(f"the samples of {name} must be of shape (sample, feature); got shape {shape}")
    need = 8 * shape[0] * max(shape[1], 1)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * _MEMORY_SHARE
    if 2 * need > available:
        raise InputError(
            f"a checkpoint must fit into memory twice; {name} takes {need / 1e9:.1f} GB, and "
            f"{available / 1e9:.1f} GB can be used: give fewer samples of it"
        )
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"the samples of {name} must be numeric") from None


def _of_mapping(name: str, source: Mapping[Any, Any]) -> Samples:
    if "samples" in source:
        values = np.asarray(source["samples"])
        features = [str(f) for f in source["features"]] if "features" in source else None
        if "checkpoint" in source and values.ndim == 2:
            return _grouped(name, np.asarray(source["checkpoint"]), values, features)
        names = [0] if values.ndim == 2 else list(range(len(values)))
        if "checkpoint" in source:
            names = np.asarray(source["checkpoint"]).tolist()
        rows = values[None] if values.ndim == 2 else values
        if values.ndim not in (2, 3) or len(names) != len(rows):
            raise InputError(
                f"{name}: samples must be (sample, feature) or (checkpoint, sample, feature), with one "
                f"checkpoint a row or an entry; got shape {values.shape} and {len(names)} checkpoints"
            )
        return _listed(names, rows, features)
    if not source:
        raise InputError(f"{name} must hold at least one checkpoint; got none")
    words = [str(key) for key in source]
    numeric = all(word.isdecimal() for word in words)
    keys: list[Any] = [int(word) for word in words] if numeric else list(words)
    return _listed(keys, list(source.values()), None)


def _of_frame(name: str, frame: pd.DataFrame) -> Samples:
    features = [str(c) for c in frame.columns if c != "checkpoint"]
    values = frame.drop(columns="checkpoint", errors="ignore")
    wrong = [str(c) for c in values.columns if not pd.api.types.is_numeric_dtype(values[c])]
    if wrong or not features:
        raise InputError(
            f"{name} must have numeric feature columns and, optionally, a column checkpoint; "
            + (f"not numeric: {', '.join(wrong[:8])}" if wrong else "got no feature column")
        )
    labels = frame["checkpoint"].to_numpy() if "checkpoint" in frame else np.zeros(len(frame), int)
    return _grouped(name, labels, values.to_numpy(), features)


def _of_labelled(name: str, array: xr.DataArray) -> Samples:
    if "feature" not in array.dims or array.ndim not in (2, 3):
        raise InputError(
            f"{name} must have dims (checkpoint, sample, feature) or (sample, feature); got {array.dims}"
        )
    features = [str(f) for f in array["feature"].to_numpy()] if "feature" in array.coords else None
    if array.ndim == 2:
        (sample,) = (d for d in array.dims if d != "feature")
        ordered = array.transpose(sample, "feature")
        if "checkpoint" in array.coords and array["checkpoint"].dims == (sample,):
            return _grouped(name, array["checkpoint"].to_numpy(), ordered, features)
        return _listed([0], [ordered], features)
    if "checkpoint" not in array.dims:
        raise InputError(f"{name} must have a dim checkpoint; got {array.dims}")
    (sample,) = (d for d in array.dims if d not in ("feature", "checkpoint"))
    ordered = array.transpose("checkpoint", sample, "feature")
    names = (
        array["checkpoint"].to_numpy().tolist() if "checkpoint" in array.coords else list(range(len(ordered)))
    )

    def load(index: int) -> np.ndarray:
        # Rows that pad a ragged checkpoint are missing throughout.
        values = _matrix(f"checkpoint {names[index]}", ordered.isel(checkpoint=index))
        return values[~np.isnan(values).all(axis=1)]

    return Samples(names, features, load)


def _grouped(name: str, labels: np.ndarray, values: Any, features: list[str] | None) -> Samples:
    if len(labels) != len(values):
        raise InputError(
            f"{name} must have one checkpoint a row; got {len(labels)} labels and {len(values)} rows"
        )
    if not len(labels):
        raise InputError(f"{name} must hold at least one sample; got none")
    names = list(dict.fromkeys(labels.tolist()))
    places = [np.flatnonzero(labels == label) for label in names]

    def load(index: int) -> np.ndarray:
        return _matrix(f"checkpoint {names[index]}", values[places[index]])

    return Samples(names, features, load)


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


def _read(name: str, path: Path) -> Any:
    one_of(f"the suffix of {name}", path.suffix, SUFFIXES)
    if not path.exists():
        raise InputError(f"{name} must be a file; there is no {path}")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                arrays = {key: stored[key] for key in stored.files}
            if "samples" not in arrays and len(arrays) == 1:
                return next(iter(arrays.values()))
            return arrays
        # Lazily: a checkpoint is read when it is its turn.
        if path.suffix == ".zarr":
            return xr.open_dataset(path, engine="zarr", consolidated=False)
        return xr.open_dataset(path)
    except ImportError as error:
        raise InputError(f"{path} cannot be read without a package: {error}") from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{name} must be a readable {path.suffix} file; {path} is not: {reason}") from error
