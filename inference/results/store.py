"""Results on disk: written whole or not at all, and read where they are massdrift's."""

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr

from inference.results.schema import LAYOUT
from inference.storage import files
from inference.storage.reading import reading
from mixture_models.validation import InputError, one_of, path_of

_ENGINES: dict[str, Literal["zarr", "netcdf4"]] = {".zarr": "zarr", ".nc": "netcdf4"}


def save(tree: xr.DataTree, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a result to ``path`` (``.zarr`` or ``.nc``) whole or not at all.

    Raises:
        InputError: another suffix, no folder that can be written to, or an existing output without
            ``overwrite``; with it, one that is not a massdrift result or holds something else.
        OSError: the disk is full, or fails.
    """
    if not isinstance(tree, xr.DataTree):
        raise InputError(f"tree must be an xarray.DataTree; got {type(tree).__name__}")
    path = files.place(path_of("path", path))
    one_of("the suffix of a result", path.suffix, _ENGINES)
    files.check_new(path, foreign, overwrite=overwrite)
    if not path.resolve().parent.is_dir():
        raise InputError(f"{path} must lie in an existing folder; there is no {path.resolve().parent}")
    files.check_writable(path)
    with files.folder_beside(path) as folder:
        part = folder / path.name
        if path.suffix == ".zarr":
            import zarr  # here: what only prints does not wait for it

            with warnings.catch_warnings():
                # Without it a bare `xarray.open_datatree` warns on every reading.
                warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
                # xarray would consolidate anew after every group.
                tree.to_zarr(part, zarr_format=3, consolidated=False)
                zarr.consolidate_metadata(part)
        else:
            try:
                tree.to_netcdf(part, engine="netcdf4")
            except RuntimeError as error:  # what netCDF4 says of a full disk
                raise OSError(f"{path} cannot be written: {error}") from error
        files.check_new(path, foreign, overwrite=overwrite)  # again: what came since is not ours to replace
        files.replace(part, path)
    return path


def open(path: str | Path) -> xr.DataTree:
    """Read a result that `save` wrote, whole, into memory.

    Raises:
        InputError: no such file, not readable, or not a massdrift result of this layout.
    """
    path = path_of("path", path)
    one_of("the suffix of a result", path.suffix, _ENGINES)
    if not path.exists():
        raise InputError(f"{path} must be a massdrift result; there is no such file")
    with (
        reading(path, f"{path} must be a massdrift result"),
        xr.open_datatree(path, engine=_ENGINES[path.suffix]) as lazy,
    ):
        tree = lazy.load()
    layout = tree.attrs.get("massdrift_layout")
    if layout != LAYOUT:
        found = "another file" if layout is None else f"layout {layout}"
        raise InputError(f"{path} must be a massdrift result of layout {LAYOUT}; got {found}")
    if "commits" in tree.children:
        check_complete(path, tree["commits"]["checksum"].to_numpy())
    return tree


def check_complete(path: Path, commits: np.ndarray) -> None:
    """Refuse a sweep of which chunks, the last axis being the arrays, are not trained."""
    there = np.all(commits != 0, axis=-1)
    if not there.all():
        raise InputError(
            f"{path} must be finished to be read; {there.size - int(there.sum())} of {there.size} chunks are "
            "missing: run the sweep again to complete it"
        )


def foreign(path: Path) -> str | None:
    """Say why a file or a zarr store is not a massdrift result, and nothing else; None where it is."""
    if path.suffix == ".zarr":
        return files.foreign_in_zarr(path, "massdrift_layout")
    if not path.is_file():
        return "it is a folder"
    import netCDF4  # only asked when a file is overwritten

    try:
        with netCDF4.Dataset(path) as file:
            ours = "massdrift_layout" in file.ncattrs()
    except OSError:
        ours = False
    return None if ours else "it is another file"
