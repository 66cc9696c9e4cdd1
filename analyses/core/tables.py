"""How tables are printed: a row a setting, means above their intervals, no name broken."""

import math
import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from rich import box
from rich import table as rich_table
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from inference.intervals import SAMPLE_DIMS, interval, interval_name
from inference.measurement.verdict.kinds import GOOD, UNMEASURED, UNTRUSTED, kind_of

#: A row of a summary: what is known of each of its columns.
Row = Mapping[str, Any]
#: How a cell is written, of its row and the name of its column.
Cell = Callable[[Row, str], str]
#: Heading, column of a frame, and how its cells are written, where that is not `written`.
type Column = tuple[str, str] | tuple[str, str, Cell]

#: What a cell shows where a value does not exist.
MISSING = "n/a"


def number(value: float) -> str:
    """Write a number with three significant digits, ``n/a`` where there is none."""
    if math.isnan(value):
        return MISSING
    return f"{value:.3g}" if value == 0.0 or 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"


def interval_columns(
    name: str, values: xr.DataArray, dims: Sequence[str] = SAMPLE_DIMS
) -> dict[str, xr.DataArray]:
    """Return mean and interval along the dims of draws, as columns ``name``, ``_lower`` and ``_upper``."""
    return {name: values.mean(dims, skipna=True)} | bounds(name, interval(values, dims))


def bounds(name: str, limits: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return the ends of an interval along ``ci_bound`` as columns ``name_lower`` and ``name_upper``."""
    return {f"{name}_{bound}": limits.sel(ci_bound=bound, drop=True) for bound in ("lower", "upper")}


def frame_of(columns: Mapping[str, object], index: pd.Index | None = None) -> pd.DataFrame:
    """Return columns of equal length, whatever coordinates they have, as a table."""
    return pd.DataFrame({name: np.asarray(column) for name, column in columns.items()}, index)


def with_interval(row: Row, name: str) -> str:
    """Write a mean above its interval."""
    low, high = number(row[f"{name}_lower"]), number(row[f"{name}_upper"])
    return number(row[name]) + ("" if MISSING in (low, high) else f"\n[{low}, {high}]")


def inline(row: Row, name: str) -> str:
    """Write a mean and its interval within a sentence."""
    return with_interval(row, name).replace("\n", " ")


def probability(value: float) -> str:
    """Write a probability after its name: ``= 0.93``, and no more than draws can tell at the ends."""
    if math.isnan(value):
        return f"= {MISSING}"
    return "> 0.99" if value > 0.99 else "< 0.01" if value < 0.01 else f"= {value:.2f}"


def with_error(row: Row, name: str) -> str:
    """Write a value above its error."""
    error = number(row[f"{name}_error"])
    return number(row[name]) + ("" if error == MISSING else f"\n± {error}")


def written(row: Row, name: str) -> str:
    """Write a text or a whole number as it is, another number above its interval or error if it has one."""
    if isinstance(row[name], str | int | np.integer):
        return str(row[name])
    if f"{name}_lower" in row:
        return with_interval(row, name)
    return with_error(row, name) if f"{name}_error" in row else number(row[name])


def against(first: object, itself: str = "(reference)") -> Cell:
    """Return how a comparison with the first objective or run is written, and what is of it with itself."""
    return lambda row, name: itself if row["objective"] == first else written(row, name)


def with_trained(trained: str) -> Cell:
    """Return how a prediction is written: above its range, and what was trained, if there are any."""

    def write(row: Row, name: str) -> str:
        lines = [number(row[name])]
        bounds = [row.get(f"{name}_{bound}", math.nan) for bound in ("lower", "upper")]
        if not any(map(math.isnan, bounds)):
            lines.append("{} to {}".format(*map(number, bounds)))
        if trained in row:
            lines.append(f"trained {with_interval(row, trained)}")
        return "\n".join(lines)

    return write


def over_replicates(tree: xr.DataTree, *, one: str, many: str) -> str:
    """Say what means and intervals of a result are over, which has none of one replicate."""
    count = tree["trajectory"].sizes["draw"]
    return (
        f"One {one}, which has no interval"
        if count == 1
        else f"Mean and {interval_name()} over {count} {many}"
    )


def verdict(words: object) -> str:
    """Return a verdict in one word, without its reasons."""
    kind = kind_of(words)
    return {UNTRUSTED: "untrusted", UNMEASURED: "unmeasured"}.get(kind, kind)


def said(row: Row, name: str) -> str:
    """Write a verdict in one word."""
    return verdict(row[name])


def as_text(row: Row, name: str) -> str:
    """Write a name, which may be a number."""
    return str(row[name])


def remarks(words: xr.DataArray, sentence: str = "Checkpoint {} is {}.") -> list[str]:
    """Return one sentence for each checkpoint whose verdict in words is not ``good``."""
    told = zip(words["checkpoint"].to_numpy(), words.to_numpy(), strict=True)
    return [sentence.format(name, text) for name, text in told if text != GOOD]


#: Whether a command prints all rows and what they mean, or what is needed at first sight.
_full: ContextVar[bool] = ContextVar("full tables", default=False)


@contextmanager
def printed(*, full: bool) -> Iterator[None]:
    """Print tables in full within the block, or what is needed at first sight."""
    before = _full.set(full)
    try:
        yield
    finally:
        _full.reset(before)


def is_full() -> bool:
    """Return whether tables are printed in full."""
    return _full.get()


@dataclass(frozen=True)
class Table:
    """A table that breaks no name and no number: columns that a terminal is too narrow for go on below.

    Attributes:
        heads: of the columns, in one or more lines.
        rows: cells as texts, in one or more lines.
        title: above the table.
        caption: below it; its first sentence, unless tables are printed in full.
        keys: how many columns on the left tell the rows apart; they are repeated in every part.
        left: columns beside these that are aligned to the left.
        ends: rows below which there is a line.
        hidden: columns that stand in the full table alone.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str
    caption: str
    keys: int = 1
    left: Collection[int] = ()
    ends: Collection[int] = ()
    hidden: int = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the parts of the table, and what is said below it."""
        yield Text(self.title, style="italic")
        for columns in self._parts(options.max_width):
            table = rich_table.Table(
                box=box.HORIZONTALS, padding=(0, 1, 0, 0), show_lines=self._tall(columns) and not self.ends
            )
            for place in columns:
                aligned = self._aligned(place)
                table.add_column(Text(self.heads[place]), justify=aligned, no_wrap=True)
            for place, row in enumerate(self.rows):
                table.add_row(*(Text(row[column]) for column in columns), end_section=place in self.ends)
            yield table
        yield Text(self._said())

    def _aligned(self, place: int) -> Literal["left", "right"]:
        return "left" if place < self.keys or place in self.left else "right"

    def _tall(self, columns: Sequence[int]) -> bool:
        """Return whether rows have several lines, which a line between them holds apart."""
        return any("\n" in row[column] for row in self.rows for column in columns)

    def _parts(self, width: int) -> Iterator[list[int]]:
        """Yield the columns of each part, the keys first; parts are of about one size."""
        sizes = [
            max(cell_len(line) for text in column for line in text.split("\n"))
            for column in zip(self.heads, *self.rows, strict=True)
        ]
        keys, others = list(range(self.keys)), list(range(self.keys, len(sizes)))
        # A column has a blank on either side.
        room = width - 1 - sum(sizes[key] + 2 for key in keys)
        for most in range(len(others), 0, -1):
            count = -(-len(others) // most)
            each = -(-len(others) // count)
            parts = [others[start : start + each] for start in range(0, len(others), each)]
            if most == 1 or all(sum(sizes[place] + 2 for place in part) <= room for part in parts):
                yield from ([*keys, *part] for part in parts)
                return
        yield keys

    def _said(self) -> str:
        """Return what stands below the table."""
        if is_full() or not self.caption:
            return self.caption
        first, *rest = _SENTENCE.split(self.caption, maxsplit=1)
        more = ["what they mean"] * bool(rest) + [f"{self.hidden} more columns"] * bool(self.hidden)
        return first + (f" With --full: {' and '.join(more)}." if more else "")


# Between two sentences of a caption.
_SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[A-Z])")


def listed(frame: pd.DataFrame, columns: Iterable[Column], *, title: str, caption: str) -> Table:
    """Return a table of ``frame``, one of its rows a row.

    Args:
        frame: one row a setting.
        columns: absent ones are left out. The first tells the rows apart.
        title: above the table.
        caption: below it.
    """
    present = _present(frame, columns)
    rows = [[write(dict(row), name) for _, name, write in present] for _, row in frame.iterrows()]
    left = [place for place, (_, name, _) in enumerate(present) if name.endswith("words")]
    return Table([heading for heading, _, _ in present], rows, title, caption, left=left)


def task_frame(columns: Mapping[str, xr.DataArray], along: str) -> pd.DataFrame:
    """Return what is known of tasks, a row an entry of the dim ``along``, the index, and task."""
    frame = xr.Dataset(columns).reset_coords(drop=True).to_dataframe(dim_order=[along, "task"])
    return frame.reset_index("task")


def by_task(
    frame: pd.DataFrame, columns: Iterable[Column], once: Collection[str], *, title: str, caption: str
) -> Table:
    """Return a table of what `task_frame` returns, a task a row, with a line below each group.

    Args:
        frame: a row a checkpoint or run, by its index, and task.
        columns: absent ones are left out.
        once: columns that say the same of all tasks, and are written in a group's first row.
        title: above the table.
        caption: below it.
    """
    present = _present(frame, columns)
    opens, ends = ~frame.index.duplicated(), ~frame.index.duplicated(keep="last")
    rows = [
        [str(name) if first else "", str(row["task"])]
        + [
            write({"objective": name} | dict(row), column) if first or column not in once else ""
            for _, column, write in present
        ]
        for first, (name, row) in zip(opens, frame.iterrows(), strict=True)
    ]
    heads = ["run" if frame.index.name == "run" else "", "task", *(heading for heading, _, _ in present)]
    left = [2 + place for place, (_, column, _) in enumerate(present) if column.endswith("words")]
    return Table(heads, rows, title, caption, keys=2, left=left, ends=np.flatnonzero(ends).tolist())


def _present(frame: pd.DataFrame, columns: Iterable[Column]) -> list[tuple[str, str, Cell]]:
    return [(one[0], one[1], one[2] if len(one) == 3 else written) for one in columns if one[1] in frame]


# Characters of a line of a heading.
_HEADING = 16


def by_name(
    frame: pd.DataFrame,
    columns: Iterable[Column],
    *,
    title: str,
    caption: str,
    brief: Collection[str] = (),
) -> Table:
    """Return a table of ``frame`` whose rows are told apart by its index, an objective or a run a row.

    Args:
        frame: one row an objective, as the analyses' ``summary`` returns it.
        columns: absent ones are left out.
        title: above the table.
        caption: below it.
        brief: columns of ``frame`` that are printed at first sight; none for all.
    """
    present = _present(frame, columns)
    kept = [column for column in present if is_full() or not brief or column[1] in brief]
    heads = [
        textwrap.fill(heading, _HEADING, break_long_words=False, break_on_hyphens=False)
        for heading, _, _ in kept
    ]
    rows = [
        [str(name), *(write({"objective": name} | dict(row), column) for _, column, write in kept)]
        for name, row in frame.iterrows()
    ]
    return Table(["", *heads], rows, title, caption, hidden=len(present) - len(kept))
