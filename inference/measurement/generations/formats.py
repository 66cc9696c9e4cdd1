"""Files of completions: which are read, and a reader for each suffix."""

from collections.abc import Callable, Iterator
from pathlib import Path

from inference.measurement.generations import parquet
from inference.storage import reading
from inference.storage.reading import JsonObject

#: What yields the number of each row of a file, from 1 on, and the row, a batch held at a time.
type Reader = Callable[[Path], Iterator[tuple[int, JsonObject]]]

#: By what the name of a file ends with.
READERS: dict[str, Reader] = {
    ".jsonl": reading.numbered_lines,
    **{f".jsonl{packed}": reading.numbered_lines for packed in reading.PACKED},
    ".parquet": parquet.numbered_rows,
}

#: Suffixes that files of arrays have too, and what tells whether a file is of completions.
OF_ARRAYS_TOO: dict[str, Callable[[Path], bool]] = {".parquet": parquet.holds_texts}


def suffix_of(path: Path) -> str | None:
    """Return which suffix of `READERS` a file's name ends with, or None."""
    return next((suffix for suffix in READERS if path.name.lower().endswith(suffix)), None)
