"""The folder of a run: what is finished is kept in it, and an interrupted run goes on from there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from analyses.core.settings import FILE, BaseSettings, write
from inference import results
from inference.storage import files, kept
from inference.storage.reading import read_toml
from mixture_models.validation import InputError


class Store:
    """The folder of a run: its settings, and every finished part, written whole or not at all.

    Args:
        folder: of the run; made where there is none.
        settings: of the run.

    Raises:
        InputError: a folder of other settings, or of something else.
    """

    def __init__(self, folder: Path, settings: BaseSettings) -> None:
        self.folder, self.parts, self.settings = folder, folder / "parts", settings.asdict()
        stored = folder / FILE
        if stored.exists():
            _same(folder, stored, settings)
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} must be a new folder or that of an earlier run; it is neither")
        write(settings.asdict(), stored)
        self.parts.mkdir(exist_ok=True)
        files.clean_within(self.parts)

    def arrays(self, name: str, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return the arrays of a part: those that are kept, or computed now and kept."""
        return kept.arrays((name, self.settings), compute, folder=self.parts, name=name)

    def tree(self, name: str, compute: Callable[[], xr.DataTree]) -> xr.DataTree:
        """Return the DataTree of a part: the one that is kept, or computed now and kept."""
        path = kept.place(self.parts, (name, self.settings), ".nc", name)
        if not path.exists():
            results.save(compute(), path)
        return results.open(path)


def _same(folder: Path, path: Path, settings: BaseSettings) -> None:
    stored = read_toml(path)
    wanted = settings.asdict()
    names = list(wanted)
    other = [
        name for name in [*names, *sorted(set(stored) - set(names))] if stored.get(name) != wanted.get(name)
    ]
    if other:
        differences = ", ".join(
            f"{name} is {stored.get(name)} there and {wanted.get(name)} here" for name in other
        )
        raise InputError(f"{folder} must hold a run of the same settings to go on with; {differences}")
