"""Which files are read, and which run each belongs to.

A run has a name such as ``sft``, ``sft/seed-1`` or ``sft/seed-1/checkpoint-500``. Parts such as ``seed_1``
and ``checkpoint-500``, ``step_500``, ``global_step500``, ``epoch-2`` say seed and checkpoint; the rest is the
arm. Folders below a named path say seed and checkpoint in the same way. Without names, the first folder that
is not the same for all logs, and says neither seed nor checkpoint, is the arm; ``__`` in a folder's name is
read as ``/``.
"""

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import xarray as xr

from inference.measurement.evals.readers import formats
from inference.measurement.evals.readers.long_form import Table, checkpoint_of
from mixture_models.validation import InputError

_SEED = re.compile(r"(?:^|[-_.])seed[-_=]?(\d+)(?=$|[-_.])", re.IGNORECASE)
_CHECKPOINT = re.compile(
    r"(?:^|[-_.])(?:checkpoint|ckpt|global[-_]?step|step|iter|epoch)[-_=]?(\d+)(?=$|[-_.])", re.IGNORECASE
)
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T[\d.:-]+$")


class Run(NamedTuple):
    """What names say of a run, None where they say nothing."""

    arm: str | None = None
    seed: str | None = None
    checkpoint: int | str | None = None


class Source(NamedTuple):
    """A file or a table.

    Attributes:
        content: path, DataFrame or xarray object.
        listed: whether it is a file that was only found in a folder.
        run: what the given name says.
        folders: what the folders say; arms only where no name is given.
    """

    content: Path | Table
    listed: bool = False
    run: Run = Run()
    folders: Run = Run()


def parsed(parts: Iterable[str]) -> tuple[list[str], Run]:
    """Return what is left of the parts of a name, and the seed and the checkpoint that they say."""
    seed = checkpoint = None
    rest = []
    for part in parts:
        left = part
        if match := _SEED.search(left):
            seed, left = match[1], left[: match.start()] + left[match.end() :]
        if match := _CHECKPOINT.search(left):
            checkpoint, left = checkpoint_of(match[1]), left[: match.start()] + left[match.end() :]
        left = left if left == part else left.strip("-_.")
        if left and not _TIME.match(left):
            rest.append(left)
    return rest, Run(None, seed, checkpoint)


def named(name: str) -> Run:
    """Return what the name of a run or a model says: what is neither seed nor checkpoint is the arm."""
    rest, run = parsed(name.split("/"))
    return run._replace(arm="/".join(rest) or None)


#: Files and tables of one run, or of several.
type LogsOfRun = str | Path | Table | Sequence[str | Path | Table]
type Logs = LogsOfRun | Mapping[str, LogsOfRun]

# What was found, whether only in a folder, and the folders that it lies in.
type _Found = tuple[Path | Table, bool, tuple[str, ...]]


def sources(logs: Logs) -> list[Source]:
    """Return the files and tables of ``logs``, sorted by path within a name.

    Args:
        logs: a path, a glob, a table, a list of these, or a mapping of runs' names to any of them.

    Raises:
        InputError: a path that is not there, a folder without a file that could be a log, or none at all.
    """
    # A Dataset is a mapping too.
    if not isinstance(logs, Mapping) or isinstance(logs, xr.Dataset):
        return _without_names(_listed(logs))
    if not logs:
        raise InputError("logs must name at least one run; got none")
    found = []
    for name, paths in logs.items():
        run = named(str(name))
        if run.arm is None:
            raise InputError(f"a run's name must have a part that says its arm; got {name!r}")
        found += [Source(content, listed, run, parsed(parts)[1]) for content, listed, parts in _listed(paths)]
    return found


def _without_names(found: Sequence[_Found]) -> list[Source]:
    split = [[piece for part in parts for piece in part.split("__") if piece] for _, _, parts in found]
    common = 0
    while all(len(parts) > common and parts[common] == split[0][common] for parts in split):
        common += 1
    result = []
    for (content, listed, _), parts in zip(found, split, strict=True):
        rest, run = parsed(parts[common:])
        result.append(Source(content, listed, Run(), run._replace(arm=rest[0] if rest else None)))
    return result


def _listed(paths: LogsOfRun) -> list[_Found]:
    """Return files and tables, whether each was only found in a folder, and the folders it lies in."""
    given = list(paths) if isinstance(paths, Sequence) and not isinstance(paths, str) else [paths]
    tables = [(item, False, ()) for item in given if not isinstance(item, str | Path)]
    expanded = [path for item in given if isinstance(item, str | Path) for path in _expanded(item)]
    if not expanded and not tables:
        raise InputError("logs must be paths or tables; got none")
    files: dict[Path, _Found] = {}
    for path in expanded:
        for file in _files(path):
            # Of several paths, each one's own folders say what it is.
            parts = file.parent.relative_to(path).parts if path.is_dir() else ()
            if len(expanded) > 1:
                parts = path.parts + parts if path.is_dir() else path.parent.parts
            files.setdefault(file, (file, path.is_dir(), parts))
    return [*tables, *(files[file] for file in sorted(files))]


def _expanded(path: str | Path) -> list[Path]:
    plain = Path(path).expanduser()
    if plain.exists():
        return [plain]
    found = sorted(Path(name) for name in glob.glob(str(plain), recursive=True))
    if not found:
        raise InputError(f"a path of logs must exist; {path} does not")
    return found


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in formats.SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not found:
        kinds = ", ".join(formats.SUFFIXES)
        raise InputError(f"a folder of logs must have files of the kinds {kinds}; {path} has none")
    return found
