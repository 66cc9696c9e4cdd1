"""Tables: CSV, TSV, JSON Lines, JSON records and parquet with the columns of the long form."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from inference.measurement.evals.readers import long_form
from inference.measurement.evals.readers.log import Labels, Log, Options, json_file
from inference.storage.reading import json_lines
from mixture_models.validation import InputError


def columns_of(path: Path, kind: str) -> list[str]:
    """Return the names of a table's columns, from its first row."""
    if kind == "parquet":
        return list(pq.read_schema(path).names)
    if kind == "lines":
        return list(next(json_lines(path)))
    if kind == "records":
        rows = json_file(path)
        return list(rows[0]) if rows and isinstance(rows[0], dict) else []
    return list(_csv(path).column_names)


def read(path: Path, options: Options, kind: str, labels: Labels) -> Log:
    """Read a table; only the columns that the long form has are held.

    Args:
        path: of the file.
        options: the columns' names.
        kind: ``parquet``, ``lines``, ``records`` or ``csv``.
        labels: what the run's name and its folders say.

    Raises:
        InputError: as `long_form.long_form` says, or a file that is cut off.
    """
    wanted = {options.columns.get(name, name) for name in long_form.COLUMNS}
    if kind in ("parquet", "csv"):
        found = pq.read_table(path) if kind == "parquet" else _csv(path)
        shown = found.column_names
        if len(set(shown)) < len(shown):
            raise InputError(f"{path} must have columns of different names; it has {', '.join(shown)}")
        table = found.select([name for name in shown if name in wanted]).to_pandas()
    else:
        rows = json_lines(path) if kind == "lines" else iter(json_file(path))
        kept, seen = [], dict[str, None]()
        for row in rows:
            if not isinstance(row, dict):
                raise InputError(f"{path} must be a list of objects; it has a {type(row).__name__}")
            seen.update(dict.fromkeys(row))
            kept.append({name: row.get(name) for name in wanted if name in row})
        shown = list(seen)
        table = pd.DataFrame(kept, dtype=object)
    # The names that are not read are still told in an error.
    for name in shown:
        if name not in table:
            table[name] = None
    frame = long_form.long_form(
        table,
        columns=options.columns,
        num_choices=options.num_choices,
        given=labels.given,
        default=labels.default,
        name=str(path),
    )
    return Log(frame, numbered=options.numbered)


def _csv(path: Path) -> pa.Table:
    """Return a table of texts, so that an item 007 stays one; a row that was cut off is an error."""
    # pyarrow, as pandas fills a row that is too short.
    options = csv.ConvertOptions(strings_can_be_null=True, null_values=[""], quoted_strings_can_be_null=True)
    parsing = csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",", newlines_in_values=True)
    try:
        with csv.open_csv(path, parse_options=parsing) as head:
            names = head.schema.names
        options.column_types = dict.fromkeys(names, pa.string())
        return csv.read_csv(path, parse_options=parsing, convert_options=options)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path} must be a table with a header and rows of one length; {reason}") from None
