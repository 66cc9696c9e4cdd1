"""A summary as the table of a page: a value and its interval in one cell, sorted by the value."""

import base64
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from inference.results.schema import attributes_of

# What follows the name of a value in those of its bounds and its error.
_ENDS = ("_lower", "_upper", "_error")


class Column(NamedTuple):
    """The head of a column: what it says, and the names of what it holds, for those who read the CSV."""

    label: str
    hint: str


class Cell(NamedTuple):
    """A cell: what it says, and by what it is sorted."""

    text: str
    value: str
    numeric: bool


class Table(NamedTuple):
    """A table of a page.

    Attributes:
        columns: its heads.
        rows: their cells.
        csv: the whole summary as CSV, in base64.
        caption: what stands above it.
    """

    columns: list[Column]
    rows: list[list[Cell]]
    csv: str
    caption: str


def table_of(frame: pd.DataFrame) -> Table:
    """Return the table of a summary; ``X``, ``X_lower`` and ``X_upper`` become one column."""
    names = [str(name) for name in frame.columns]
    shown = [name for name in names if not _is_part(name, names)]
    columns = [Column(_label(name), ", ".join(n for n in _parts(name) if n in names)) for name in shown]
    rows = [[_cell(dict(row), name) for name in shown] for _, row in frame.iterrows()]
    csv = base64.b64encode(frame.to_csv(index=False).encode()).decode()
    return Table(columns, rows, csv, f"{len(frame)} rows. A click on a heading sorts by it.")


def _is_part(name: str, names: list[str]) -> bool:
    """Return whether a column is a bound or an error of another."""
    return any(name.endswith(end) and name.removesuffix(end) in names for end in _ENDS)


def _parts(name: str) -> list[str]:
    """Return the names of a value, its bounds and its error."""
    return [name, *(f"{name}{end}" for end in _ENDS)]


def _label(name: str) -> str:
    found = attributes_of(name)
    if not found:
        return name.replace("_", " ")
    return found["long_name"] + ("" if found["units"] == "1" else f" [{found['units']}]")


def _cell(row: dict[str, Any], name: str) -> Cell:
    value = row[name]
    if isinstance(value, bool | np.bool_):
        return Cell("yes" if value else "no", str(int(value)), False)
    if not isinstance(value, int | float | np.number):
        return Cell("" if value is None else str(value), "" if value is None else str(value), False)
    if not np.isfinite(value):
        return Cell("n/a" if np.isnan(value) else str(value), "", True)
    text = _number(float(value)) if isinstance(value, float | np.floating) else f"{value:d}"
    low, high, error = (row.get(part, np.nan) for part in _parts(name)[1:])
    if np.isfinite(low) and np.isfinite(high):
        text += f" [{_number(float(low))}, {_number(float(high))}]"
    elif np.isfinite(error):
        text += f" ± {_number(float(error))}"
    return Cell(text, repr(float(value)), True)


def _number(value: float) -> str:
    return f"{value:.3g}" if value == 0.0 or 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"
