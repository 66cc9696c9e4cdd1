"""How tables are printed: a quantity a row, an objective a column, means above their intervals."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table

#: How a cell is written, from a row of the summary and the name of its column.
Cell = Callable[[Mapping[str, Any], str], str]

#: What a cell shows where a value does not exist.
MISSING = "n/a"


def number(value: float) -> str:
    """Write a number with three significant digits, ``n/a`` where there is none."""
    if math.isnan(value):
        return MISSING
    return f"{value:.3g}" if value == 0.0 or 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"


def plain(row: Mapping[str, Any], name: str) -> str:
    """Write a value alone."""
    return number(row[name])


def with_interval(row: Mapping[str, Any], name: str) -> str:
    """Write a mean above its interval."""
    low, high = number(row[f"{name}_lower"]), number(row[f"{name}_upper"])
    return number(row[name]) + ("" if MISSING in (low, high) else f"\n[{low}, {high}]")


def with_error(row: Mapping[str, Any], name: str) -> str:
    """Write a value above its error."""
    error = number(row[f"{name}_error"])
    return number(row[name]) + ("" if error == MISSING else f"\n± {error}")


def listed(frame: pd.DataFrame, columns: Iterable[tuple[str, str, Cell]], **options: Any) -> Table:
    """Build a table of ``frame``, one of its rows a row.

    Args:
        frame: one row a setting.
        columns: heading, column of ``frame`` and how a cell is written; absent columns are left out.
        options: of `rich.table.Table`.
    """
    shown = [(heading, name, write) for heading, name, write in columns if name in frame]
    table = Table(box=box.HORIZONTALS, padding=(0, 1, 0, 0), **options)
    for heading, _, _ in shown:
        table.add_column(heading, justify="right")
    for _, row in frame.iterrows():
        table.add_row(*(write(dict(row), name) for _, name, write in shown))
    return table


def transposed(frame: pd.DataFrame, rows: Iterable[tuple[str, str, Cell]], **options: Any) -> Table:
    """Build a table of ``frame``, one of its rows a column.

    Args:
        frame: one row an objective, as the analyses' ``summary`` returns it.
        rows: label, column of ``frame`` and how a cell is written; absent columns are left out.
        options: of `rich.table.Table`.
    """
    table = Table(show_lines=True, box=box.HORIZONTALS, padding=(0, 1, 0, 0), **options)
    table.add_column("", no_wrap=False)
    for name in frame.index:
        # An objective's name may break after its colon or comma.
        table.add_column(str(name).replace(":", ":\n").replace(",", ",\n"), justify="right")
    for label, column, write in rows:
        if column in frame:
            cells = [write({"objective": name} | dict(row), column) for name, row in frame.iterrows()]
            table.add_row(label, *cells)
    return table
