"""Rows of one checkpoint where they are stored: read piece by piece, along the chunks that they lie in."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from inference.storage.reading import reading
from mixture_models.types import AnyArray
from mixture_models.validation import InputError, as_array, real_array

# Numbers of a piece: 8 MiB of them, as float64.
_NUMBERS = 1 << 20

# The share of the machine's memory that a checkpoint may take unless told otherwise.
_MEMORY_SHARE = 0.4


# One length an axis, as zarr has them, or all lengths, as Dask has them.
type Chunks = tuple[int | tuple[int, ...], ...]


@dataclass(frozen=True)
class Stored:
    """Samples of one checkpoint, in memory or not.

    Attributes:
        name: what to call them in an error.
        shape: (sample, feature), with the rows that only pad a ragged checkpoint.
        read: returns the rows of a slice or of ascending places, as an array.
        chunk_ends: places where a stored chunk ends, ascending, or None where any rows are read alike.
        chunk_bytes: what reading a chunk takes.
        padded: whether rows without any number pad a ragged checkpoint, and are no samples.
        path: of the file that they are read from, None for what is in memory.
    """

    name: str
    shape: tuple[int, int]
    read: Callable[[slice | np.ndarray], ArrayLike]
    chunk_ends: np.ndarray | None = None
    chunk_bytes: int = 0
    padded: bool = False
    path: Path | None = None

    def pieces(self) -> Iterator[Float[np.ndarray, "n feature"]]:
        """Yield the samples in order, about a million numbers at a time; each stored chunk is read once."""
        step = max(1, _NUMBERS // max(self.shape[1], 1))
        for start, stop in pairwise(self._cuts(step)):
            # A chunk may be longer than a piece.
            rows = self._numbers(slice(start, stop))
            for first in range(0, len(rows), step):
                yield rows[first : first + step]

    def load(self) -> Float[np.ndarray, "sample feature"]:
        """Return all samples.

        Raises:
            InputError: what does not fit into memory twice.
        """
        need, limit = 8 * self.shape[0] * self.shape[1], default_memory()
        if 2 * need > limit:
            raise InputError(
                f"the samples of {self.name} must fit into memory twice; they take {need / 1e9:.1f} GB, and "
                f"{limit / 1e9:.1f} GB can be used: give fewer"
            )
        return self._numbers(slice(0, self.shape[0]))

    def picked(self, name: str, places: np.ndarray) -> "Stored":
        """Return the samples at ascending places by themselves."""
        first, size = int(places[0]), len(places)
        together = int(places[-1]) - first + 1 == size

        def read(rows: slice | np.ndarray) -> ArrayLike:
            if together and isinstance(rows, slice):  # which is read faster than places
                return self.read(slice(first + rows.start, first + rows.stop))
            return self.read(places[rows])

        ends = self.chunk_ends
        if ends is not None:
            ends = np.unique(np.searchsorted(places, ends))
            ends = ends[ends > 0]
        return replace(self, name=name, shape=(size, self.shape[1]), read=read, chunk_ends=ends)

    def _cuts(self, step: int) -> list[int]:
        """Return where to cut so that a piece has at most ``step`` rows, or is a chunk that has more."""
        ends = np.arange(step, self.shape[0], step) if self.chunk_ends is None else self.chunk_ends
        cuts = [0]
        while cuts[-1] < self.shape[0]:
            after = ends[np.searchsorted(ends, cuts[-1], side="right") :]
            within = np.searchsorted(after, cuts[-1] + step, side="right")
            place = max(int(within) - 1, 0)
            cuts.append(min(int(after[place]), self.shape[0]) if len(after) else self.shape[0])
        return cuts

    def _numbers(self, rows: slice) -> np.ndarray:
        if self.path is None:
            found = self.read(rows)
        else:
            with reading(self.path, f"the samples of {self.name} must be readable"):
                found = self.read(rows)
        values = real_array(f"the samples of {self.name}", found)
        return values[~np.isnan(values).all(axis=1)] if self.padded else values


def of_array(name: str, values: AnyArray, *at: int) -> Stored:
    """Return the samples of an array, or of what is sliced as one, at the places ``at`` of its first axes.

    Raises:
        InputError: what is not (sample, feature) there.
    """
    if not isinstance(values, np.ndarray) and not hasattr(values, "chunks"):
        listed = isinstance(values, list | tuple)
        values = (real_array if listed else as_array)(f"the samples of {name}", values)
    shape = np.shape(values)[len(at) :]
    if len(shape) != 2 or not all(isinstance(n, int) for n in shape):
        raise InputError(f"the samples of {name} must be of shape (sample, feature); got shape {shape}")

    def read(rows: slice | np.ndarray) -> ArrayLike:
        result: ArrayLike = values[(*at, rows)]
        return result

    layout = _chunks(getattr(values, "chunks", None), len(at), values, shape[1])
    return Stored(name, shape, read, *layout)


def of_labelled(name: str, array: xr.DataArray, sample: str, *, padded: bool = False, **at: int) -> Stored:
    """Return the samples of a labelled array along a dim ``sample``, at the places ``at`` of other dims."""

    def read(rows: slice | np.ndarray) -> np.ndarray:
        # Taken first and turned round then: a file is read in the order that it is stored in.
        part = array.isel({sample: rows, **at}).compute()
        return part.transpose(sample, "feature").to_numpy()

    chunks: Chunks | None = array.chunks
    if chunks is None and "preferred_chunks" in array.encoding:
        preferred = array.encoding["preferred_chunks"]
        chunks = tuple(preferred.get(dim, array.sizes[dim]) for dim in array.dims)
    features = array.sizes["feature"]
    layout = _chunks(chunks, array.dims.index(sample), array, features)
    return Stored(name, (array.sizes[sample], features), read, *layout, padded)


def _chunks(
    chunks: Chunks | None, axis: int, array: AnyArray, features: int
) -> tuple[np.ndarray | None, int]:
    """Return where chunks end along the axis of the rows, and the bytes that reading one takes.

    Args:
        chunks: their lengths, or None.
        axis: of the rows.
        array: of any number of axes.
        features: of a row.
    """
    if chunks is None or not all(array.shape):
        return None, 0
    longest = [
        min(max(c) if isinstance(c, tuple) else c, n) for c, n in zip(chunks, array.shape, strict=True)
    ]
    rows, along = array.shape[axis], chunks[axis]
    ends = np.cumsum(along) if isinstance(along, tuple) else np.arange(along, rows + along, along)
    # As it is stored, and all features of its rows as float64.
    needed = max(math.prod(longest) * array.dtype.itemsize, 8 * longest[axis] * features)
    return np.minimum(ends, rows), needed


def take(arrays: Iterable[np.ndarray], places: np.ndarray) -> Float[np.ndarray, "place d"]:
    """Return the rows at some places of arrays that follow one another."""
    found: list[np.ndarray] = []
    order = np.argsort(places, kind="stable")
    ascending = places[order]
    start = 0
    for array in arrays:
        low, high = np.searchsorted(ascending, [start, start + len(array)])
        found.append(array[ascending[low:high] - start])
        start += len(array)
    return np.concatenate(found)[np.argsort(order)]


def row_hashes(samples: Float[np.ndarray, "n d"]) -> np.ndarray:
    """Return 64 bits of every row, which equal rows share."""
    factors = np.random.default_rng(0).integers(2**63, size=samples.shape[1], dtype=np.uint64) * 2 + 1
    bits = (samples + 0.0).view(np.uint64)
    return np.sum((bits ^ (bits >> np.uint64(29))) * factors, axis=1, dtype=np.uint64)


def default_memory() -> float:
    """Return the bytes that a checkpoint may take unless the user says otherwise."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * _MEMORY_SHARE
