"""Which files hold completions, and what they are called as checkpoints: in natural order."""

import glob
import os
import re
from collections.abc import Hashable, Sequence
from pathlib import Path

from inference.measurement.generations.formats import OF_ARRAYS_TOO, READERS, suffix_of
from inference.storage.reading import reading
from mixture_models.validation import InputError, path_of

_GLOB = re.compile(r"[*?[]")


def is_of_texts(path: Path) -> bool:
    """Return whether a path is of completions, not of arrays: by its kind, and some files by what they hold.

    Raises:
        InputError: a file that cannot be read.
    """
    suffix = suffix_of(path)
    if suffix is not None and suffix not in OF_ARRAYS_TOO:
        return True
    if suffix is not None and path.is_file():
        with reading(path, f"a file of samples must be readable {suffix[1:]}"):
            return OF_ARRAYS_TOO[suffix](path)
    return path.suffix != ".zarr" and (path.is_dir() or _is_glob(path))


def files_of(name: str, source: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the files of a path, folder, glob or list of these, in natural order.

    In a folder, files that lie deeper are read only where none lies in it.

    Raises:
        InputError: nothing there, or a folder or glob without a file of the kinds that are read.
    """
    given = [source] if isinstance(source, str | Path) else list(source)
    found: list[Path] = []
    for path in (path_of(name, one) for one in given):
        if path.is_dir():
            inside = [file for file in path.iterdir() if _is_one(file)] or [
                file for file in path.rglob("*") if _is_one(file)
            ]
        elif not path.exists() and _is_glob(path):
            inside = [file for file in map(Path, glob.glob(str(path), recursive=True)) if _is_one(file)]
        elif not path.exists():
            raise InputError(f"{name} must be a file, a folder or a glob of completions; there is no {path}")
        else:
            found.append(path)
            continue
        if not inside:
            raise InputError(
                f"{name} must hold files whose names end with {', '.join(READERS)}; {path} has none"
            )
        found += sorted(inside, key=lambda file: natural(str(file)))
    if not found:
        raise InputError(f"{name} must be at least one file of completions; got none")
    return list(dict.fromkeys(found))


def names_of(files: Sequence[Path]) -> list[Hashable]:
    """Return what files without a column of checkpoints are called: numbers where they differ in one alone.

    Raises:
        InputError: two of one name.
    """
    names = [str(file)[: -len(suffix_of(file) or "")] for file in files]
    if len(names) == 1:
        return [Path(names[0]).name]
    parts = [re.split(r"(\d+)", name) for name in names]
    if len({len(one) for one in parts}) == 1:
        differing = [column for column in zip(*parts, strict=True) if len(set(column)) > 1]
        if len(differing) == 1 and all(part.isdecimal() for part in differing[0]):
            numbers: list[Hashable] = [int(part) for part in differing[0]]
            if len(set(numbers)) == len(numbers):
                return numbers
    folder = os.path.commonpath([file.absolute().parent for file in files])
    shorter = [os.path.relpath(name, folder) for name in names]
    if len(set(shorter)) < len(shorter):
        twice = next(name for name in shorter if shorter.count(name) > 1)
        raise InputError(f"files of checkpoints must have different names; got {twice} twice")
    return list(shorter)


def natural(text: str) -> list[tuple[int, str]]:
    """Return a key by which names are sorted as a reader counts: 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def _is_one(file: Path) -> bool:
    return suffix_of(file) is not None and file.is_file() and not file.name.startswith(".")


def _is_glob(path: Path) -> bool:
    return _GLOB.search(str(path)) is not None
