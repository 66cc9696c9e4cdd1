"""Where something is written: a place is checked first, and what stands there is whole or not there at all.

What is not finished has a name of its own beside its place, which says whose it is: the machine, the process
and when it began. What a process that is no more left behind is deleted by the next that writes there.
"""

import json
import os
import platform
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import RLock
from uuid import uuid4

import psutil

from inference.storage.reading import JsonObject
from mixture_models.validation import InputError

# In the name of everything that is not finished.
_MARK = ".massdrift-"

_PARTIAL = ".partial"

# Seconds by which two processes see a third begin at different times, as a clock is set.
_CLOCK = 60

# Seconds after which what another machine has not touched is left behind: it cannot be asked.
_LONG_AGO = 30 * 86400

# What operating systems put into every folder that is looked at.
_OF_THE_SYSTEM = (".DS_Store", "Thumbs.db", "desktop.ini")

#: Held while a finished folder takes the place of an earlier one: a process must not end in between.
moving = RLock()

# What this process has not finished, and folders that it removes again where they stay empty.
_unfinished: set[Path] = set()
_perhaps_empty: list[Path] = []


def place(path: Path) -> Path:
    """Return where ``path`` is when it is written: what a link points to, and a name in the place of dots."""
    moved = os.path.islink(path) or path.name in ("", "..")  # Path's own raises for too long a name
    return Path(os.path.realpath(path)) if moved else path


def beside(path: Path, what: str) -> Path:
    """Return the hidden place beside ``path`` that is called by it and by ``what``."""
    name = os.fsencode(path.name)
    # A name may have 255 bytes.
    label = path.name if len(name) <= 100 else f"{path.name[:20]}-{zlib.crc32(name):08x}"
    return path.with_name(f".{label}{_MARK}{what}")


def is_hidden(path: Path) -> bool:
    """Return whether a place was named by `beside`."""
    return path.name.startswith(".") and _MARK in path.name


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Give a new folder beside ``path`` to prepare it in; it is deleted at the end, with what is in it.

    Raises:
        OSError: it cannot be made or written into.
    """
    clean_beside(path)
    with _owned(beside(path, _owner())) as folder:
        folder.mkdir()
        # A full disk takes the folder, not its contents.
        probe = folder / "probe"
        probe.write_bytes(bytes(4096))
        probe.unlink()
        yield folder


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name to write a file under; it moves to ``path`` when the block ends without an error."""
    part = beside(path, f"{_owner()}{_PARTIAL}")
    with _owned(part):
        yield part
        part.replace(path)


def write(path: Path, contents: bytes) -> None:
    """Write a file whole or not at all; its folder is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_bytes(contents)


@contextmanager
def _owned(path: Path) -> Iterator[Path]:
    _unfinished.add(path)
    try:
        yield path
    finally:
        _remove(path)
        _unfinished.discard(path)


def clean_own() -> None:
    """Delete what this process has not finished, before it ends without another word."""
    for path in list(_unfinished):
        _remove(path)
    _remove_empty(0)


def clean_beside(path: Path) -> None:
    """Delete what processes that are no more left of ``path``.

    An earlier result that one of them had taken aside comes back.
    """
    with suppress(OSError):
        prefix = beside(path, "").name
        for left in path.parent.iterdir():
            if left.name.startswith(prefix) and _left_behind(left, left.name.removeprefix(prefix)):
                aside = left / _ASIDE
                if aside.exists() and not path.exists():
                    aside.rename(path)
                _remove(left)


def clean_within(folder: Path) -> None:
    """Delete the unfinished files of processes that are no more, in a folder and all within."""
    for left in list(folder.rglob(f".*{_MARK}*{_PARTIAL}")):
        if _left_behind(left, left.name.rpartition(_MARK)[2].removesuffix(_PARTIAL)):
            _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@cache
def _machine() -> str:
    """Name the machine, or the container, in which a process's number is its own."""
    name = platform.node()
    with suppress(OSError):
        name += str(os.stat("/proc/self/ns/pid").st_ino)
    return f"{zlib.crc32(name.encode()):08x}"


@cache
def _process(pid: int) -> str:
    return f"{_machine()}-{pid:x}-{int(psutil.Process(pid).create_time()):x}"


def _owner() -> str:
    """Name something new of this process."""
    return f"{_process(os.getpid())}-{uuid4().hex[:8]}"


def _left_behind(path: Path, name: str) -> bool:
    """Return whether the process that a name tells of is no more."""
    try:
        machine, pid, began, _ = name.split("-")
        if machine != _machine():
            return time.time() - path.lstat().st_mtime > _LONG_AGO
        return abs(psutil.Process(int(pid, 16)).create_time() - int(began, 16)) > _CLOCK
    except psutil.NoSuchProcess:
        return True
    except (ValueError, OSError, psutil.Error):  # not one of ours, or no longer there
        return False


@contextmanager
def parents_of(path: Path) -> Iterator[None]:
    """Make the folders that ``path`` lies in; those that are empty at the end go again.

    Raises:
        InputError: they cannot be made, or nothing can be written beside ``path``.
    """
    begun = len(_perhaps_empty)
    try:
        _make_parents(path)
        check_writable(path)
        yield
    finally:
        _remove_empty(begun)


def _make_parents(path: Path) -> None:
    try:
        for parent in reversed([parent for parent in path.parents if not parent.exists()]):
            parent.mkdir(exist_ok=True)
            _perhaps_empty.append(parent)
    except OSError as error:
        raise cannot_write(path, error) from None


def _remove_empty(begun: int) -> None:
    """Remove the folders noted since then that are empty, the last first."""
    while len(_perhaps_empty) > begun:
        with suppress(OSError):
            _perhaps_empty.pop().rmdir()


def cannot_write(path: Path, error: OSError) -> InputError:
    """Return the refusal of a place in which nothing can be written."""
    return InputError(f"{path} must lie in a folder that can be written to: {error.strerror or error}")


def check_writable(path: Path) -> None:
    """Refuse a place beside which nothing can be written, by writing there.

    Raises:
        InputError: nothing can be written.
    """
    try:
        with folder_beside(path):
            pass
    except OSError as error:
        raise cannot_write(path, error) from None


def check_new(path: Path, foreign: Callable[[Path], str | None], *, overwrite: bool) -> None:
    """Refuse a place where something stands that may not be replaced.

    Args:
        path: the file or folder to be written.
        foreign: names what in an earlier output was not written by this package, or None.
        overwrite: whether an earlier output may be replaced; anything else never is.

    Raises:
        InputError: something stands there; says what.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise cannot_write(path, error) from None
    empty = is_empty(path)
    if not overwrite and not empty:
        raise InputError(f"{path} must not exist yet, or be overwritten explicitly; it exists")
    other = None if empty else foreign(path)
    if other is not None:
        raise InputError(f"{path} must be an earlier result, and nothing else, to be overwritten; {other}")
    if path.is_mount() or Path.cwd().is_relative_to(path.resolve()):
        raise InputError(f"{path} must not be a mount or the folder that you are in; give one within it")


def is_empty(path: Path) -> bool:
    """Return whether a folder that is empty stands there."""
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


_ASIDE = "earlier"


def replace(part: Path, path: Path) -> None:
    """Move a finished file or folder to its name; what stood there is put aside first, then deleted."""
    with moving:
        if path.is_dir() and not path.is_symlink():
            aside = part.with_name(_ASIDE)
            try:
                path.rename(aside)
                part.rename(path)
            except BaseException:  # Ctrl-C too must not lose what stood there
                if aside.exists() and not path.exists():
                    aside.rename(path)
                raise
            shutil.rmtree(aside, ignore_errors=True)
        else:
            part.replace(path)


def foreign_in_zarr(store: Path, attribute: str) -> str | None:
    """Say what in a zarr store is not part of one with this attribute at its root, or None."""
    if not store.is_dir() or store.is_symlink():
        return f"{store.name} is no folder" if store.exists() else f"there is no {store.name} in it"
    if attribute not in _node(store).get("attributes", {}):
        return f"{store.name} is another one" if _node(store) else f"{store.name} is no zarr store"
    other = _foreign_in_node(store)
    return None if other is None else f"it also holds {other.relative_to(store.parent)}"


def foreign_in(folder: Path, store: str, names: set[str]) -> Path | None:
    """Return the first of a folder's entries that is neither its store nor a file of some names, or None."""
    for entry in sorted(folder.iterdir()):
        if entry.name == store:
            continue
        if entry.name not in names.union(_OF_THE_SYSTEM) or not entry.is_file():
            return entry
    return None


def _node(folder: Path) -> JsonObject:
    """Return the metadata of a zarr node, empty where it is none."""
    try:
        found = json.loads((folder / "zarr.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and "node_type" in found else {}


def _foreign_in_node(folder: Path) -> Path | None:
    """Return the first path that is neither metadata nor a chunk, or None."""
    kind = _node(folder).get("node_type")
    if kind is None:
        return folder
    for entry in sorted(folder.iterdir()):
        if entry.name in ("zarr.json", *_OF_THE_SYSTEM) or _unfinished_file(entry):
            continue
        if entry.is_symlink():
            return entry
        if kind == "array" and entry.name == "c":
            other = _foreign_in_chunks(entry)
        elif kind == "group" and entry.is_dir():
            other = _foreign_in_node(entry)
        else:
            other = entry
        if other is not None:
            return other
    return None


def _foreign_in_chunks(path: Path) -> Path | None:
    """Return the first path below an array's chunks that has not the name of one, or None."""
    if not path.is_dir():
        return None
    for entry in sorted(path.iterdir()):
        if entry.name in _OF_THE_SYSTEM or _unfinished_file(entry):
            continue
        if not entry.name.isdecimal() or entry.is_symlink():
            return entry
        other = _foreign_in_chunks(entry)
        if other is not None:
            return other
    return None


def _unfinished_file(path: Path) -> bool:
    return _MARK in path.name and path.name.endswith(_PARTIAL)
