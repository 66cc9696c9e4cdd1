"""Finished parts of long work, kept in a folder, so that what is interrupted goes on from them.

    with keeping(folder):
        train(...)

Every engine asks for the folder by itself: it reads what an earlier call of the same arguments finished under
the same versions, and keeps what it finishes.
"""

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import cloudpickle
import jax
import numpy as np
from numpy.typing import ArrayLike

from inference.storage import files
from inference.storage.versions import version_of

# Versions that can change a number.
VERSIONS = ("massdrift", "jax", "jaxlib", "numpyro", "optax", "numpy", "scipy")

_folder: ContextVar[Path | None] = ContextVar("folder of finished parts", default=None)


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Keep what engines finish within the block in a folder, made once there is something to keep."""
    if folder.is_dir():
        files.clean_within(folder)
    before = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(before)


def folder() -> Path | None:
    """Return the folder of the innermost `keeping`, or None."""
    return _folder.get()


def any_in(folder: Path) -> bool:
    """Return whether a folder holds a finished part: arrays, a result, or a chunk of a sweep."""
    return any(
        p.suffix in (".npz", ".nc") or "/commits/checksum/c/" in p.as_posix() for p in folder.rglob("*")
    )


def place(folder: Path, facts: object, suffix: str, name: str = "") -> Path:
    """Return where a part that the facts determine is kept under these versions, ``name`` for who looks."""
    return folder / f"{name}{'-' if name else ''}{fingerprint(facts)}{suffix}"


def arrays(
    facts: object, compute: Callable[[], Mapping[str, np.ndarray]], *, folder: Path | None, name: str = ""
) -> dict[str, np.ndarray]:
    """Return the arrays of a part: those that are kept, or computed now and kept.

    Args:
        facts: everything that determines them, which can be pickled.
        compute: computes them.
        folder: in which they are kept; None keeps nothing.
        name: of the part, for who looks into the folder.

    Raises:
        OSError: they cannot be written.
    """
    if folder is None:
        return dict(compute())
    path = place(folder, facts, ".npz", name)
    found = read(path)
    if found is None:
        found = dict(compute())
        write(path, found)
    return found


def groups(
    facts: object,
    names: Sequence[str],
    compute: Callable[[], Sequence[Mapping[str, ArrayLike]]],
    *,
    folder: Path | None,
) -> tuple[dict[str, np.ndarray], ...]:
    """Return groups of arrays as `arrays` does those of one: each of ``names`` calls one that is computed."""

    def flat() -> dict[str, np.ndarray]:
        computed = zip(names, compute(), strict=True)
        return {f"{group}.{name}": np.asarray(a) for group, part in computed for name, a in part.items()}

    found = arrays(facts, flat, folder=folder)
    return tuple(
        {name.removeprefix(f"{group}."): a for name, a in found.items() if name.startswith(f"{group}.")}
        for group in names
    )


def write(path: Path, found: Mapping[str, np.ndarray]) -> None:
    """Keep arrays in a file, whole or not at all; its folder is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.whole_file(path) as part, part.open("wb") as file:
        np.savez(file, **found)  # type: ignore[arg-type]


def read(path: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays that are kept in a file, None where none are or it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def fingerprint(facts: object) -> str:
    """Return what is the same for the same facts under the same versions, and for no others."""
    versions = [version_of(package) for package in VERSIONS]
    whole = cloudpickle.dumps((versions, jax.default_backend(), facts))
    return hashlib.sha256(whole).hexdigest()[:32]
