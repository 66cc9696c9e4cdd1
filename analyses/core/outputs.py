"""Where a command writes: one folder, whole or not at all, and what it has finished when it is stopped."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.core.analysis import Analysis, extras_of, frame_of
from inference.storage import files
from mixture_models.validation import InputError, one_of

if TYPE_CHECKING:  # these take seconds to load, and what is checked here needs none of them
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

#: Every output folder holds this file; a folder without it is never overwritten.
MARKER = "results.zarr"

#: What every output folder calls its report.
REPORT = "report.html"

#: Formats in which figures can be written, and those in which they are unless told otherwise.
FORMATS, DEFAULT_FORMATS = ("png", "svg", "pdf"), ("png", "svg")

# Those in which figures are written now.
_formats: ContextVar[tuple[str, ...]] = ContextVar("formats of figures", default=DEFAULT_FORMATS)

# The attribute of `MARKER` that lists what was written beside it, and what every version wrote.
_WRITTEN, _ALWAYS = "written_beside", {"summary.csv", "settings.toml"}


# Where the command that runs keeps what it has finished.
_keeping: list[Path] = []


def forget() -> None:
    """Forget the places of an earlier command."""
    _keeping.clear()


def end() -> None:
    """Delete what is of no use to the next command, before this one ends without another word."""
    clean(*(keep for keep in _keeping if files.is_hidden(keep)))
    files.clean_own()


def words_of_kept() -> str:
    """Say what is kept of a command that is stopped."""
    from inference.storage import kept

    for keep in _keeping:
        if kept.any_in(keep):
            return f"what was finished is kept in {keep}, and the same command goes on from there"
    return "nothing was finished yet"


def check(path: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that may not or cannot be written, before anything is computed.

    Raises:
        InputError: something stands there that may not be replaced, or nothing can be written there.
    """
    path = files.place(path)
    files.check_new(path, foreign, overwrite=overwrite)
    with files.parents_of(path):
        pass


def formats_of(given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the formats that were asked for, each once, or those of every figure."""
    return tuple(dict.fromkeys(one_of("a format", name, FORMATS) for name in given or DEFAULT_FORMATS))


def formats() -> tuple[str, ...]:
    """Return the formats in which figures are written now."""
    return _formats.get()


@contextmanager
def folder(path: Path, *, overwrite: bool, formats: tuple[str, ...] = DEFAULT_FORMATS) -> Iterator[Path]:
    """Give a folder to write into; it moves to ``path`` when the block ends without an error.

    What engines finish within the block is kept beside ``path`` until then, and is found by the same command.

    Args:
        path: of the folder.
        overwrite: whether an earlier output may be replaced.
        formats: in which figures are written within the block.

    Raises:
        InputError: something stands there that may not be replaced, or nothing can be written there.
        OSError: the disk is full, or fails; what was finished is kept.
    """
    from inference.storage import kept

    path = files.place(path)
    files.check_new(path, foreign, overwrite=overwrite)
    keep = kept_beside(path)
    _keeping.append(keep)
    with files.parents_of(path), _nothing_empty(keep), files.folder_beside(path) as temporary:
        part = temporary / "part"
        part.mkdir()
        with kept.keeping(keep), _drawn_as(formats):
            yield part
        _list_written(part)
        files.check_new(path, foreign, overwrite=overwrite)  # again: what came since is not ours
        with files.moving:
            if files.is_empty(path):
                path.rmdir()
            files.replace(part, path)
            shutil.rmtree(keep, ignore_errors=True)


@contextmanager
def _nothing_empty(keep: Path) -> Iterator[None]:
    """Leave no folder of finished parts in which there is none."""
    try:
        yield
    finally:
        clean(keep)


def clean(*folders: Path) -> None:
    """Delete folders of finished parts in which there is none."""
    from inference.storage import kept

    for keep in folders:
        if not kept.any_in(keep):
            shutil.rmtree(keep, ignore_errors=True)


@contextmanager
def resumed(path: Path, *, formats: tuple[str, ...] = DEFAULT_FORMATS) -> Iterator[None]:
    """Hold the place of an output that is written part by part and goes on where it was.

    Args:
        path: of the output.
        formats: in which figures are written within the block.

    Raises:
        InputError: nothing can be written there.
    """
    _keeping.append(path)
    with files.parents_of(files.place(path)), _drawn_as(formats):
        yield


@contextmanager
def _drawn_as(formats: tuple[str, ...]) -> Iterator[None]:
    before = _formats.set(formats)
    try:
        yield
    finally:
        _formats.reset(before)


def kept_beside(path: Path) -> Path:
    """Return the folder beside an output in which what is finished is kept until it is written."""
    return files.beside(files.place(path), "kept")


def foreign(path: Path) -> str | None:
    """Say what in a folder is not of an earlier output, or None."""
    from inference import results

    if not path.is_dir():
        return "it is a file"
    if not (path / MARKER).exists():
        return f"there is no {MARKER} in it"
    other = results.foreign(path / MARKER)
    if other is None:
        beside = files.foreign_in(path, MARKER, _ALWAYS | _written(path))
        other = None if beside is None else f"it also holds {beside.name}"
    return other


def _list_written(folder: Path) -> None:
    """List what lies in a folder in the attributes of its results, so that nothing else is ever replaced."""
    root = folder / MARKER / "zarr.json"
    if root.exists():
        contents = json.loads(root.read_bytes())
        contents["attributes"][_WRITTEN] = json.dumps(
            sorted(p.name for p in folder.iterdir() if p.name != MARKER)
        )
        root.write_text(json.dumps(contents, indent=2))


def _written(folder: Path) -> set[str]:
    try:
        contents = json.loads((folder / MARKER / "zarr.json").read_bytes())
        return set(json.loads(contents["attributes"].get(_WRITTEN, "[]")))
    except (OSError, ValueError, TypeError, AttributeError):
        return set()


def named(given: str) -> tuple[str, Path]:
    """Return the name and folder of an output that is given as FOLDER or NAME=FOLDER."""
    name, equals, folder = given.partition("=")
    if not equals or Path(given).exists():
        return Path(given).resolve().name, Path(given)
    if not name or "/" in name or not folder:
        raise InputError(f"a run must be FOLDER or NAME=FOLDER, the name without a slash; got {given!r}")
    return name, Path(folder)


def result(facts: "Mapping[str, object]", groups: "Mapping[str, xr.Dataset]") -> "xr.DataTree":
    """Return the result of an analysis: its groups, and the settings and facts that they come from."""
    from inference import results

    return results.assembled(groups, results.provenance(facts))


def write(tree: "xr.DataTree", summary: "pd.DataFrame", drawn: "Mapping[str, Figure]", folder: Path) -> None:
    """Write ``results.zarr``, ``summary.csv`` and the figures, by name, into a folder."""
    from analyses.core import figures
    from inference import results

    results.save(tree, folder / MARKER)
    summary.to_csv(folder / "summary.csv", index=False)
    for name, figure in drawn.items():
        figures.save(figure, folder, name)


def write_analysis(analysis: Analysis, tree: "xr.DataTree", folder: Path) -> None:
    """Write what `write` does of an analysis, and its own files, into a folder."""
    write(tree, frame_of(analysis, tree), analysis.plot(tree), folder)
    for name, text in extras_of(analysis, tree).items():
        (folder / name).write_text(text)


def rewrite_analysis(analysis: Analysis, tree: "xr.DataTree", folder: Path) -> None:
    """Write what `write_analysis` does in place of what is there, into a folder that holds more."""
    from inference import results

    files.check_new(folder / MARKER, results.foreign, overwrite=True)
    with files.folder_beside(folder / MARKER) as part:
        write_analysis(analysis, tree, part)
        for written in list(part.iterdir()):
            files.replace(written, folder / written.name)
