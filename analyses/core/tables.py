"""How tables are printed: a quantity a row, an objective a column, means above their intervals."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr
from rich import box, markup
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from inference.intervals import interval

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


def interval_columns(name: str, values: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return mean and interval of the draws, as columns ``name``, ``_lower`` and ``_upper``."""
    limits = interval(values)
    bounds = {f"{name}_{bound}": limits.sel(ci_bound=bound, drop=True) for bound in ("lower", "upper")}
    return {name: values.mean(["chain", "draw"], skipna=True)} | bounds


def with_interval(row: Mapping[str, Any], name: str) -> str:
    """Write a mean above its interval."""
    low, high = number(row[f"{name}_lower"]), number(row[f"{name}_upper"])
    return number(row[name]) + ("" if MISSING in (low, high) else f"\n[{low}, {high}]")


def inline(row: Mapping[str, Any], name: str) -> str:
    """Write a mean and its interval within a sentence."""
    return with_interval(row, name).replace("\n", " ")


def probability(value: float) -> str:
    """Write a probability after its name: ``= 0.93``, and no more than draws can tell at the ends."""
    if math.isnan(value):
        return f"= {MISSING}"
    return "> 0.99" if value > 0.99 else "< 0.01" if value < 0.01 else f"= {value:.2f}"


def with_error(row: Mapping[str, Any], name: str) -> str:
    """Write a value above its error."""
    error = number(row[f"{name}_error"])
    return number(row[name]) + ("" if error == MISSING else f"\n± {error}")


def with_trained(trained: str) -> Cell:
    """Return how a prediction is written: above its range, and what was trained, if there are any."""

    def write(row: Mapping[str, Any], name: str) -> str:
        lines = [number(row[name])]
        bounds = [row.get(f"{name}_{bound}", math.nan) for bound in ("lower", "upper")]
        if not any(map(math.isnan, bounds)):
            lines.append("{} to {}".format(*map(number, bounds)))
        if trained in row:
            lines.append(f"trained {with_interval(row, trained)}")
        return "\n".join(lines)

    return write


def shown(cell: Any) -> Text:
    """Return what a cell holds as it is: brackets in a name are no markup, and colons no emoji."""
    return Text(str(cell))


def remarks(words: pd.Series) -> list[str]:
    """Return one sentence for each checkpoint whose verdict in words is not ``good``."""
    return [f"Checkpoint {name} is {text}." for name, text in words.items() if text != "good"]


def new_table(title: str | None, caption: str | None, **options: Any) -> Table:
    """Return an empty table whose title and caption may hold names; ``options`` are those of rich's table."""
    title, caption = (None if text is None else markup.escape(text) for text in (title, caption))
    return Table(title=title, caption=caption, box=box.HORIZONTALS, **options)


def listed(
    frame: pd.DataFrame, columns: Iterable[tuple[str, str, Cell]], *, title: str, caption: str
) -> Table:
    """Build a table of ``frame``, one of its rows a row.

    Args:
        frame: one row a setting.
        columns: heading, column of ``frame`` and how a cell is written; absent columns are left out.
        title: above the table.
        caption: below it.
    """
    present = [(heading, name, write) for heading, name, write in columns if name in frame]
    table = new_table(title, caption, padding=(0, 1, 0, 0))
    for heading, _, _ in present:
        table.add_column(shown(heading), justify="right")
    for _, row in frame.iterrows():
        table.add_row(*(shown(write(dict(row), name)) for _, name, write in present))
    return table


def transposed(
    frame: pd.DataFrame, rows: Iterable[tuple[str, str, Cell]], *, title: str, caption: str
) -> RenderableType:
    """Build a table of ``frame``, one of its rows a column; what a terminal is too narrow for goes on below.

    Args:
        frame: one row an objective, as the analyses' ``summary`` returns it.
        rows: label, column of ``frame`` and how a cell is written; absent columns are left out.
        title: above the table.
        caption: below it.
    """
    return _Transposed(frame, [row for row in rows if row[1] in frame], title, caption)


# Characters of the labels and of an objective's column: an interval of two numbers and a gap.
_LABELS, _COLUMN = 12, 17


@dataclass(frozen=True)
class _Transposed:
    frame: pd.DataFrame
    rows: list[tuple[str, str, Cell]]
    title: str
    caption: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        count = len(self.frame)
        at_once = max(1, (options.max_width - _LABELS) // _COLUMN)
        # Parts of about one size: 4 and 3 rather than 6 and 1.
        at_once = -(-count // -(-count // at_once))
        for start in range(0, count, at_once):
            last = start + at_once >= count
            yield self._part(
                self.frame.iloc[start : start + at_once],
                title=None if start else self.title,
                caption=self.caption if last else None,
            )

    def _part(self, frame: pd.DataFrame, title: str | None, caption: str | None) -> Table:
        table = new_table(title, caption, show_lines=True, padding=(0, 1, 0, 0))
        table.add_column("", no_wrap=False)
        for name in frame.index:
            # An objective's name may break after its colon or comma.
            table.add_column(shown(str(name).replace(":", ":\n").replace(",", ",\n")), justify="right")
        for label, column, write in self.rows:
            cells = [write({"objective": name} | dict(row), column) for name, row in frame.iterrows()]
            table.add_row(*map(shown, [label, *cells]))
        return table
