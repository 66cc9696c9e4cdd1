"""Where a sweep lies: a zarr store, created whole, filled block by block, each committed at once.

Every block has one zarr chunk of every array to itself. A chunk ends in its own checksum (zarr's ``crc32c``
codec), so that every reader is told of damage; and the group ``/commits`` holds, an entry a block and array,
the checksum of the chunk's file, written last and at once: a block counts once its entry is there and all of
its files are what the entry says. A file is written under another name and moved: none is half there.
"""

import asyncio
import json
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import psutil
import xarray as xr
import zarr
from zarr.core.buffer import Buffer
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import LocalStore

from inference import results
from inference.storage import files
from inference.storage.reading import JsonObject
from inference.sweeps.blocks import Trained
from inference.sweeps.cuts import Block, Geometry, blocks, positions
from inference.sweeps.grid import Grid
from inference.sweeps.identity import difference, identity
from inference.sweeps.layout import COMMITS, STATS, empty
from inference.sweeps.sequences import derived
from mixture_models.validation import InputError, path_of

#: Added to a checksum of 32 bits: an entry of 0 is none.
_PRESENT = 2**32

# The share of free memory that a group's numbers may take without being cut into Dask's chunks.
_WHOLE = 0.25


class _WholeFiles(LocalStore):
    """zarr's store on disk, whose files are written in this project's way."""

    async def set(self, key: str, value: Buffer) -> None:
        """Write a file under a name that says whose it is, and move it."""
        await asyncio.to_thread(files.write, self.root / key, value.to_bytes())


@dataclass(frozen=True)
class SweepStore:
    """A sweep's store on disk.

    Attributes:
        path: folder, ends in ``.zarr``.
        cut: how the sweep is cut into blocks.
        axes: the names of the grid's axes.
        files: the arrays that blocks are written into, in the order of the commits' entries.
    """

    path: Path
    cut: Geometry
    axes: tuple[str, ...]
    files: tuple[str, ...]

    @classmethod
    def create(cls, path: Path, grid: Grid, cut: Geometry) -> "SweepStore":
        """Create the store whole, with every array and coordinate, under another name, and move it."""
        with files.folder_beside(path) as folder:
            part = folder / path.name
            for name, contents in empty(grid, cut).items():
                files.write(part / name, contents)
            try:
                part.rename(path)
            except OSError:  # another run was first
                if not path.exists():
                    raise
        return cls.find(path, grid)

    @classmethod
    def find(cls, path: Path, grid: Grid) -> "SweepStore":
        """Return the store of a sweep that was begun.

        Raises:
            InputError: it is none, or one of other settings or of another version; says what differs.
        """
        stored = _identity(path)
        differs = difference(stored, identity(grid))
        if differs is not None:
            raise InputError(f"{path} must hold a sweep of these settings to be resumed; {differs}")
        block, replicates, settings = stored["cut"]
        cut = Geometry(tuple(block), int(replicates), int(settings))
        return cls(path, cut, tuple(stored["axes"]), tuple(stored["files"]))

    @cached_property
    def arrays(self) -> dict[str, zarr.Array[ArrayV3Metadata]]:
        """The arrays that blocks are written into, by path."""
        store = _WholeFiles(self.path)
        return {name: zarr.open_array(store, path=name, mode="r+") for name in self.files}

    @cached_property
    def commits(self) -> zarr.Array[ArrayV3Metadata]:
        """The checksums of every block's files."""
        return zarr.open_array(_WholeFiles(self.path), path=COMMITS, mode="r+")

    def write(self, grid: Grid, block: Block, trained: Trained) -> None:
        """Write a block into its place, and commit it.

        Raises:
            OSError: it cannot be written; the block does not count then.
        """
        contents = _contents(grid, self.cut, block, trained)
        sums = [
            self._put(name, self.arrays[name], self._chunk(name, block), contents[name])
            for name in self.files
        ]
        entry = np.array(sums, np.int64).reshape(self.commits.chunks)
        self._put(COMMITS, self.commits, (*_entry(block), 0), entry)
        shutil.rmtree(self.stages_of(block), ignore_errors=True)

    @property
    def unfinished(self) -> Path:
        """The folder of the finished stages of blocks that are not finished."""
        return self.path / "unfinished"

    def stages_of(self, block: Block) -> Path:
        """Return the folder where finished stages of a block are kept until it is committed."""
        return self.unfinished / "-".join(map(str, _entry(block)))

    def _put(
        self, name: str, array: zarr.Array[ArrayV3Metadata], chunk: tuple[int, ...], values: np.ndarray
    ) -> int:
        """Write one chunk of an array, cut off at the array's end, and return the checksum of its file."""
        corner = np.multiply(chunk, array.chunks)
        place = tuple(map(slice, corner, corner + values.shape))
        # A chunk that holds nothing but the fill value has a file too, or it would seem to be lost.
        array.with_config({"write_empty_chunks": True})[place] = values
        return _checksum((self.path / name / array.metadata.encode_chunk_key(chunk)).read_bytes())

    def mend(self, grid: Grid) -> None:
        """Write again what is not trained, metadata and coordinates, where it is not what it was."""
        files.clean_within(self.path)
        for name, contents in empty(grid, self.cut).items():
            file = self.path / name
            # The root says when the sweep was begun, and was read to get here.
            if file.parent != self.path and not (file.is_file() and file.read_bytes() == contents):
                files.write(file, contents)

    def missing(self, grid: Grid) -> tuple[list[Block], int]:
        """Return the blocks that are not committed or are damaged, and how many are damaged."""
        committed, lost, damaged = self.commits, [], 0
        for block in blocks(grid, self.cut):
            try:
                entry = np.asarray(committed[_entry(block)])
            except Exception:  # whatever zarr raises on an entry that is damaged itself
                entry = np.full(len(self.arrays), -1)
            on_disk = [self._checksum_on_disk(name, block) for name in self.files] if entry.any() else None
            if on_disk is None or np.any(entry != on_disk):
                lost.append(block)
                damaged += on_disk is not None
        return lost, damaged

    def _chunk(self, name: str, block: Block) -> tuple[int, ...]:
        """Return the number of a block's chunk along every dim of an array."""
        array = self.arrays[name]
        where = dict(zip(self.axes, block.place, strict=True))
        where |= {"objective": block.objective, "draw": block.replicates}
        dims: Sequence[str] = getattr(array.metadata, "dimension_names", ())
        return tuple(where.get(dim, 0) for dim in dims)

    def _checksum_on_disk(self, name: str, block: Block) -> int:
        """Return the checksum of what the disk holds of a block in an array, -1 where it holds nothing."""
        key = self.arrays[name].metadata.encode_chunk_key(self._chunk(name, block))
        try:
            return _checksum((self.path / name / key).read_bytes())
        except OSError:
            return -1


def open_sweep(path: str | Path, *, incomplete: bool = False) -> xr.DataTree:
    """Open a sweep lazily: nothing but coordinates is read before it is asked for.

    What is read of a group that takes at most a quarter of the free memory stays in memory, and ArviZ, which
    takes no Dask arrays, reads such a group as it is. A larger one is of Dask arrays, which are reduced chunk
    by chunk.

    Args:
        path: the store.
        incomplete: whether a sweep that is not finished may be opened; what is missing is NaN, and
            ``diverged_step`` is -2 there.

    Raises:
        InputError: no sweep, or one that is not finished.
    """
    path = path_of("path", path)
    _identity(path)
    if not incomplete:
        results.check_complete(path, np.asarray(zarr.open_array(path, path=COMMITS, mode="r")[...]))
    tree, in_chunks = xr.open_datatree(path, engine="zarr"), xr.open_datatree(path, engine="zarr", chunks={})
    limit = _WHOLE * psutil.virtual_memory().available
    return tree.assign({name: group for name, group in in_chunks.children.items() if group.nbytes > limit})


def _entry(block: Block) -> tuple[int, ...]:
    """Return where the commits hold a block's entry."""
    return (block.objective, *block.place, block.replicates)


def _checksum(contents: bytes) -> int:
    return _PRESENT + zlib.crc32(contents)


def _contents(grid: Grid, cut: Geometry, block: Block, trained: Trained) -> dict[str, np.ndarray]:
    """Return what a block holds of every array, in the arrays' shapes."""
    sides = [
        len(axis) if name == "num_steps" else min((i + 1) * side, len(axis)) - i * side
        for (name, axis), i, side in zip(grid.axes.items(), block.place, cut.block, strict=True)
    ]
    of_steps = [side for name, side in zip(grid.axes, sides, strict=True) if name != "num_steps"]
    ends = np.searchsorted(grid.steps, grid.ends)
    place = list(grid.axes).index("num_steps") if "num_steps" in grid.axes else None
    contents = {}
    for name, values in trained.records.items():
        event = values.shape[3:]
        draws = values.shape[1]
        contents[f"trajectory/{name}"] = values.reshape(1, *of_steps, 1, draws, *values.shape[2:])
        at_end = values[:, :, ends].reshape(*of_steps, 1, draws, len(ends), *event)
        if not grid.new_tasks:
            contents[f"final/{name}"] = _length_first(at_end, len(of_steps) + 2, place)[None]
        elif name != "loss":
            contents[f"stages/{name}"] = at_end[None]
    if grid.new_tasks:
        inside = positions(grid, cut, block)
        retention = trained.records["task_retention"][:, :, ends]
        for name, values in derived(grid, block.objective, inside, retention).items():
            contents[name] = values.reshape(1, *of_steps, 1, *values.shape[1:])
        return contents | {STATS: trained.diverged_step.reshape(1, *of_steps, 1, -1).astype(np.int32)}
    diverged = trained.diverged_step[:, :, None]
    # A shorter training has not seen what happened later.
    seen = np.where(diverged <= grid.lengths, diverged, -1).reshape(
        *of_steps, 1, diverged.shape[1], len(ends)
    )
    contents[STATS] = _length_first(seen, len(of_steps) + 2, place)[None].astype(np.int32)
    return contents


def _length_first(values: np.ndarray, axis: int, place: int | None) -> np.ndarray:
    """Move the axis of the lengths to its place among the grid's, or take the only one."""
    return values.take(0, axis=axis) if place is None else np.moveaxis(values, axis, place)


def _identity(path: Path) -> JsonObject:
    """Return what a store says of its sweep."""
    try:
        text = zarr.open_group(path, mode="r", use_consolidated=False).attrs["sweep"]
        found: JsonObject = json.loads(str(text))
    except Exception as error:  # whatever zarr raises on what is no store
        raise InputError(f"{path} must be the store of a sweep; it is something else") from error
    return found
