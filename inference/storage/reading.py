"""Where files are read: whatever a library raises on a damaged or foreign one becomes one sentence."""

import io
import json
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil

from mixture_models.validation import InputError

#: An object of a JSON or TOML file.
JsonObject = dict[str, Any]


@contextmanager
def reading(path: Path, wanted: str) -> Iterator[None]:
    """Read a file in this block.

    Args:
        path: the file or folder.
        wanted: what it must be, such as ``"old_reference must be a readable .npz file"``.

    Raises:
        InputError: whatever else was raised inside, in one sentence that names the file.
    """
    try:
        with warnings.catch_warnings():
            # What a library finds odd about a file is in the sentence or is of no matter.
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"{path} cannot be read without a package: {error}") from error
    except MemoryError as error:
        raise InputError(f"{wanted}; {path} does not fit into memory") from error
    except Exception as error:
        if not path.exists():
            raise InputError(f"{wanted}; there is no {path}") from None
        # An error of the system repeats the file's name.
        reason = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
        reason = reason.splitlines()[0].rstrip(".")
        raise InputError(f"{wanted}; {path} is not: {reason}") from error


def read_toml(path: Path) -> JsonObject:
    """Read a file of settings.

    Raises:
        InputError: it is missing or is not TOML.
    """
    with reading(path, "a file of settings must be readable TOML"):
        return tomllib.loads(path.read_text(encoding="utf-8"))


#: What the names of files end with that are unpacked while they are read.
PACKED = (".gz", ".zst")


def json_lines(path: Path) -> Iterator[JsonObject]:
    """Yield the objects of a JSON Lines file, one held at a time; see `numbered_lines`."""
    return (row for _, row in numbered_lines(path))


def numbered_lines(path: Path) -> Iterator[tuple[int, JsonObject]]:
    """Yield the number of each line of a JSON Lines file, packed or not, and its object, one held at a time.

    Raises:
        InputError: a line that is cut off, is no UTF-8 or is no object, or no line at all.
    """
    wanted = f"{path} must have one JSON object a line"
    found = False
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except UnicodeDecodeError:
                raise InputError(f"{wanted}, in UTF-8; line {number} is not") from None
            except (ValueError, RecursionError):
                raise InputError(f"{wanted}; line {number} is cut off or is not JSON") from None
            if not isinstance(row, dict):
                raise InputError(f"{wanted}; line {number} has a {type(row).__name__}")
            found = True
            yield number, row
    if not found:
        raise InputError(f"{wanted}; it is empty")


def _opened(path: Path) -> IO[bytes]:
    """Open a file to read what it holds, unpacked; a packed one that is cut off raises."""
    if path.suffix not in PACKED:
        return path.open("rb")
    import pyarrow as pa  # which a plain file does not need

    return io.BufferedReader(pa.input_stream(str(path)))


def check_size(path: Path, size: int) -> None:
    """Refuse a file that takes more memory, in bytes, than is free."""
    free = psutil.virtual_memory().available
    if size > free:
        raise InputError(
            f"{path} must fit into memory; it takes {size / 1e9:.2g} GB unpacked, and {free / 1e9:.2g} GB "
            "are free"
        )
