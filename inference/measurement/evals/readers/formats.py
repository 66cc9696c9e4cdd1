"""Which format a file has, by what it holds."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from inference.measurement.evals.readers import every_eval_ever, helm, inspect_ai, lighteval, lm_eval, table
from inference.measurement.evals.readers.log import Labels, Log, Options
from inference.storage.reading import json_lines
from mixture_models.validation import InputError

#: Files of a folder that are looked into.
SUFFIXES = (".jsonl", ".json", ".eval", ".parquet", ".csv", ".tsv", ".ndjson")

#: Reads a file, given the options and the labels of its run.
Reader = Callable[[Path, Options, Labels], Log]

_HEAD = 1 << 16


def reader_of(path: Path, options: Options, *, listed: bool) -> Reader | None:
    """Return the reader of a file, None where it is no log.

    Args:
        path: of the file.
        options: the columns' names, by which a table is known to be one.
        listed: whether the file was only found in a folder, where a table without scores may lie too.

    Raises:
        InputError: a file that is empty or unreadable, or is no log and was not only found.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head.strip():
        raise InputError(f"a log must have answers; {path} is empty")
    if head.startswith(b"PK"):
        return _plain(inspect_ai.read)
    if head.startswith(b"PAR1"):
        return _parquet(path, options, listed)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"{":
        return _object(path, head, options, listed)
    if start == b"[":
        if b'"instance_id"' in head and b'"stats"' in head:
            return _plain(helm.read)
        return _table(path, "records", options, listed)
    if b"\0" in head or not _is_text(head):
        raise InputError(
            f"a log must be JSON, JSON Lines, CSV, parquet or an Inspect .eval; {path} is none of these"
        )
    return _table(path, "csv", options, listed)


def _plain(read: Callable[[Path, Options], Log]) -> Reader:
    return lambda path, options, labels: read(path, options)


def _table(path: Path, kind: str, options: Options, listed: bool) -> Reader | None:
    score = options.columns.get("score", "score")
    if listed and score not in table.columns_of(path, kind):
        return None
    return lambda path, options, labels: table.read(path, options, kind, labels)


def _parquet(path: Path, options: Options, listed: bool) -> Reader | None:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        raise InputError(f"{path} must be a whole parquet file; it is cut off or damaged") from None
    return _plain(lighteval.read) if lighteval.is_log(schema) else _table(path, "parquet", options, listed)


def _object(path: Path, head: bytes, options: Options, listed: bool) -> Reader | None:
    """Return the reader of a file that begins with an object: one over many lines, or one a line."""
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    one_line = path.suffix != ".json" or _is_object(first)
    if not one_line or (path.suffix == ".json" and len(head) == _HEAD and first == head):
        # A file of one object is a log where Inspect wrote it; others lie beside logs, as results do.
        if b'"version"' in head and b'"eval"' in head and b'"task"' in head:
            return _plain(inspect_ai.read_json)
        if listed:
            return None
        raise InputError(f"{path} is JSON, but no log with answers; name the file or folder with the samples")
    row = next(json_lines(path))
    if "eval" in row and "version" in row:
        return _plain(inspect_ai.read_json)
    if lm_eval.is_log(row):
        return _plain(lm_eval.read)
    if every_eval_ever.is_log(row):
        return _plain(every_eval_ever.read)
    if path.suffix == ".json" and listed and len(head) < _HEAD and head.strip().count(b"\n") == 0:
        return None
    return _table(path, "lines", options, listed)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _is_text(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The head may end within a character.
        return error.start > len(head) - 4
    return True
