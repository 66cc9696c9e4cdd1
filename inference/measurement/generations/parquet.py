"""Parquet files of completions: rows with their numbers, a batch held at a time."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mixture_models.validation import InputError

# Rows of a batch: texts may be long.
_ROWS = 1024


def numbered_rows(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield the number of each row, from 1 on, and the row.

    Raises:
        InputError: no row, or two columns of one name.
    """
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise InputError(f"{path} must have columns of different names; it has {', '.join(names)}")
        number = 0
        for batch in file.iter_batches(batch_size=_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    if not number:
        raise InputError(f"{path} must hold at least one row; it is empty")


def holds_texts(path: Path) -> bool:
    """Return whether some column beside ``checkpoint`` is of texts or of chat messages."""
    schema = pq.read_schema(path)
    return any(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or (pa.types.is_list(kind) and pa.types.is_struct(kind.value_type))
        for name, kind in zip(schema.names, schema.types, strict=True)
        if name != "checkpoint"
    )
