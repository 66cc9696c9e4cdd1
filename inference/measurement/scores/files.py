"""Scores in files: a log-likelihood a sample and task, a row a sample, in columns that the user names."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from inference.measurement.samples.sources import labels_of
from inference.storage import reading
from mixture_models.validation import InputError, one_of, path_of, real_array

#: The kinds of files that are read.
SUFFIXES = (".jsonl", ".csv", ".parquet")


# As it is read: a value of JSON a line, or an array.
_Column = list[object] | np.ndarray


#: The columns that are read unless others are named, by task.
COLUMNS = MappingProxyType({"old": "old_log_likelihood", "new": "new_log_likelihood"})


def read_scores(
    paths: Sequence[str | Path],
    *,
    columns: Mapping[str, str] = COLUMNS,
    checkpoint: str | None = None,
) -> dict[str, dict[Hashable, np.ndarray]]:
    """Return the scores in some files, a row a sample, as `measure_scores` takes them.

    Args:
        paths: ``.jsonl`` (an object a line), ``.csv`` or ``.parquet`` files.
        columns: of the log-likelihoods, by the task under whose reference they are.
        checkpoint: column of the checkpoints, whose rows may lie in several files; None is ``checkpoint``
            where all files have such a column, and where none has, each file is a checkpoint of its name.

    Returns:
        By task and checkpoint, in the order of their first rows, an array over samples [nat].

    Raises:
        InputError: a file that cannot be read, lacks a column or holds no sample; files of which only some
            have checkpoints, or have the same name; or a column that holds something else.
    """
    found, _ = _read(paths, columns, checkpoint, None)
    return found


def read_answers(
    paths: Sequence[str | Path],
    *,
    columns: Mapping[str, str],
    prompt: str | None = None,
    checkpoint: str | None = None,
) -> tuple[dict[str, dict[Hashable, np.ndarray]], dict[Hashable, np.ndarray] | None]:
    """Return numbers in some files, a row an answer, by what they are, and the prompts where they are named.

    Args:
        paths: as `read_scores` takes them.
        columns: of numbers, by what they are: ``log_base``, ``log_run``, perhaps ``tokens``.
        prompt: column of the prompts' labels, or None.
        checkpoint: as `read_scores` takes it.

    Raises:
        InputError: as `read_scores`.
    """
    return _read(paths, columns, checkpoint, prompt)


def _read(
    paths: Sequence[str | Path], columns: Mapping[str, str], checkpoint: str | None, prompt: str | None
) -> tuple[dict[str, dict[Hashable, np.ndarray]], dict[Hashable, np.ndarray] | None]:
    """Return numbers by what they are and checkpoint, and labels of prompts by checkpoint, as they are."""
    if not paths:
        raise InputError("at least one file of scores must be given; got none")
    files = [path_of("a file of scores", path) for path in paths]
    optional = checkpoint is None
    label = "checkpoint" if checkpoint is None else checkpoint
    read = [*columns.values(), *([] if prompt is None else [prompt])]
    if len({*read, label}) <= len(read):
        raise InputError(f"the columns that are read must differ; got {', '.join(read)} and {label}")
    tables = [_columns(path, read, label, optional=optional) for path in files]
    labelled = [label in table for table in tables]
    if any(labelled) and not all(labelled):
        lacking = files[labelled.index(False)]
        raise InputError(f"all files must have a column {label}, or none; {lacking} has none")
    names = [path.stem for path in files]
    if not any(labelled) and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"files without a column {label} must have different names; got {twice} twice")
    scores = {
        task: np.concatenate([_numbers(t, column, f) for t, f in zip(tables, files, strict=True)])
        for task, column in columns.items()
    }
    labels: list[int | float | str] = []
    for table, path, name in zip(tables, files, names, strict=True):
        labels += _labels(table[label], path) if label in table else [name] * len(table[read[0]])
    if len({isinstance(one, str) for one in labels}) > 1:
        labels = [str(one) for one in labels]
    codes, unique = pd.factorize(np.array(labels, dtype=object))

    def by_name(values: np.ndarray) -> dict[Hashable, np.ndarray]:
        return {name: values[codes == i] for i, name in enumerate(unique.tolist())}

    prompts = None if prompt is None else by_name(np.concatenate([_objects(t[prompt]) for t in tables]))
    return {task: by_name(values) for task, values in scores.items()}, prompts


def _columns(path: Path, needed: list[str], label: str, *, optional: bool) -> Mapping[str, _Column]:
    """Return the columns of a file that are needed, and that of the labels where it is there."""
    one_of(f"the suffix of {path}", path.suffix, SUFFIXES)
    with reading.reading(path, f"{path} must be a readable {path.suffix} file"):
        read = {".jsonl": _of_lines, ".csv": _of_csv, ".parquet": _of_parquet}[path.suffix]
        found, names = read(path, [*needed, label])
    twice = [name for name in found if names.count(name) > 1]
    if twice:
        raise InputError(f"the columns of {path} must differ; got {twice[0]} twice")
    lacking = [name for name in [*needed, *([] if optional else [label])] if name not in found]
    if lacking:
        raise InputError(
            f"{path} must have a column {lacking[0]}, or the name of another be given; got "
            + (", ".join(names[:8]) or "no column")
        )
    if not len(found[needed[0]]):
        raise InputError(f"{path} must hold at least one sample; got none")
    return found


def _of_lines(path: Path, wanted: list[str]) -> tuple[Mapping[str, _Column], list[str]]:
    """Read an object a line; all lines must have the columns of the first."""
    found: dict[str, list[object]] = {}
    names: list[str] = []
    for place, row in enumerate(reading.json_lines(path), start=1):
        if not names:
            names = list(row)
            found = {name: [] for name in wanted if name in row}
        for name in wanted:
            if (name in row) != (name in found):
                raise InputError(f"all lines of {path} must have {name}, or none; object {place} differs")
        for name, values in found.items():
            values.append(row[name])
    return found, names


def _of_csv(path: Path, wanted: list[str]) -> tuple[Mapping[str, _Column], list[str]]:
    parsed = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(path, parse_options=parsed) as head:
        names = head.schema.names
    present = [name for name in wanted if name in names]
    chosen = csv.ConvertOptions(include_columns=present, strings_can_be_null=True)
    table = csv.read_csv(path, parse_options=parsed, convert_options=chosen)
    return _of_table(table, present), names


def _of_parquet(path: Path, wanted: list[str]) -> tuple[Mapping[str, _Column], list[str]]:
    rows = pq.read_metadata(path)
    names = rows.schema.to_arrow_schema().names
    present = [name for name in wanted if name in names]
    reading.check_size(path, 8 * len(present) * rows.num_rows)
    return _of_table(pq.ParquetFile(path).read(columns=present), present), names


def _of_table(table: pa.Table, names: list[str]) -> dict[str, _Column]:
    return {name: table.column(table.column_names.index(name)).to_pandas().to_numpy() for name in names}


def _numbers(table: Mapping[str, _Column], name: str, path: Path) -> np.ndarray:
    """Return a column of log-likelihoods, NaN where one is missing."""
    values = table[name]
    if isinstance(values, list):
        # A float64 holds these; others are refused.
        values = [
            np.nan if v is None else float(v) if type(v) is int and abs(v) <= 2**53 else v for v in values
        ]
    numbers = real_array(f"{name} of {path}", values)
    if numbers.ndim != 1:
        raise InputError(f"{name} of {path} must be one number a row; got shape {numbers.shape}")
    return numbers


def _objects(column: _Column) -> np.ndarray:
    """Return what a column holds, one by one; a number stays a number."""
    found = np.empty(len(column), dtype=object)
    found[:] = [str(one) if isinstance(one, list | dict) else one for one in column]
    return found


def _labels(column: _Column, path: Path) -> list[int | float | str]:
    """Return checkpoints as they are where they are numbers, and as texts otherwise."""
    labels = labels_of(str(path), column).tolist()
    return [label if type(label) in (int, float) else str(label) for label in labels]
