"""Where a command writes: one folder, whole or not at all."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import xarray as xr

from inference import results

if TYPE_CHECKING:  # matplotlib takes a second to load, and most of what is checked here draws nothing
    from matplotlib.figure import Figure

#: Every output folder holds this file; a folder without it is never overwritten.
MARKER = "results.zarr"


def check(path: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that may not be written, before anything is computed."""
    results.new_output(path, MARKER, overwrite=overwrite)


@contextmanager
def folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to write into; it moves to ``path`` when the block ends without an error."""
    check(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as temporary:
        part = Path(temporary) / path.name
        part.mkdir()
        yield part
        results.replace(part, path)


def write(tree: xr.DataTree, summary: pd.DataFrame, drawn: "Mapping[str, Figure]", folder: Path) -> None:
    """Write ``results.zarr``, ``summary.csv`` and the figures, by name, into a folder."""
    from analyses import figures

    results.save(tree, folder / MARKER)
    summary.to_csv(folder / "summary.csv", index=False)
    for name, figure in drawn.items():
        figures.save(figure, folder, name)
