"""Files of samples, a reader for each suffix."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import xarray as xr

from inference.storage import reading
from mixture_models.validation import one_of

#: What a file holds.
type Contents = np.ndarray | Mapping[str, np.ndarray] | pd.DataFrame | xr.Dataset


def read(name: str, path: Path) -> Contents:
    """Return what a file of samples holds; what can be is read when it is asked for.

    Raises:
        InputError: a suffix that no reader knows, or a file that cannot be read.
    """
    reader = READERS[one_of(f"the suffix of {name}", path.suffix, tuple(READERS))]
    with reading.reading(path, f"{name} must be a readable {path.suffix} file"):
        return reader(path)


def _npz(path: Path) -> Contents:
    with zipfile.ZipFile(path) as archive:
        reading.check_size(path, sum(member.file_size for member in archive.infolist()))
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    # An array that was given a name is the checkpoint of that name; "arr_0" is NumPy's for none.
    if len(arrays) == 1 and "samples" not in arrays:
        ((key, array),) = arrays.items()
        return array if key == "arr_0" or array.ndim == 3 else arrays
    return arrays


def _npy(path: Path) -> Contents:
    return np.lib.format.open_memmap(path, mode="r")


def _parquet(path: Path) -> Contents:
    if path.is_file():
        reading.check_size(path, 8 * _num_values(pq.read_metadata(path)))
    table = pq.read_table(path)
    # pandas would look for the types that a frame had, and does not know those of lists.
    index = (table.schema.pandas_metadata or {}).get("index_columns", [])
    stored_index = [c for c in index if isinstance(c, str)]
    return table.drop_columns(stored_index).to_pandas(ignore_metadata=True)


def _zarr(path: Path) -> Contents:
    if not path.exists():
        raise FileNotFoundError
    return xr.open_dataset(path, engine="zarr", consolidated=False)


def _netcdf(path: Path) -> Contents:
    return xr.open_dataset(path, engine="netcdf4")


#: By suffix.
READERS: dict[str, Callable[[Path], Contents]] = {
    ".npz": _npz,
    ".npy": _npy,
    ".parquet": _parquet,
    ".nc": _netcdf,
    ".zarr": _zarr,
}


def _num_values(rows: pq.FileMetaData) -> int:
    """Return how many values a file holds, those of lists one by one."""
    groups = [rows.row_group(i) for i in range(rows.num_row_groups)]
    return sum(group.column(j).num_values for group in groups for j in range(group.num_columns))
