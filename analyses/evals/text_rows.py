"""Tables for the terminal in which a name is never broken: one that is too long has a line of its own."""

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

#: The line above and below the rows of a table.
RULE = "─" * 80


def row(labels: Sequence[str], cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return the lines of a row: labels below each other on the left, then cells of one or more lines.

    Args:
        labels: names; those up to the last that is too long stand on lines of their own, above the cells.
        cells: aligned to the right.
        widths: of the labels and of the cells.
    """
    too_long = [place for place, label in enumerate(labels) if cell_len(label) > widths[0]]
    own = list(labels[: too_long[-1] + 1]) if too_long else []
    columns = [list(labels[len(own) :]), *(cell.split("\n") for cell in cells)]
    height = max(map(len, columns))
    for column in columns:
        column += [""] * (height - len(column))
    return [*own, *(_line(line, widths) for line in zip(*columns, strict=True))]


def as_text(lines: Sequence[str]) -> Text:
    """Return lines that are printed as they are, however narrow the terminal."""
    return Text("\n".join(lines), no_wrap=True, overflow="ignore")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    label, *values = cells
    right = [" " * (width - cell_len(value)) + value for value, width in zip(values, widths[1:], strict=True)]
    return " ".join([set_cell_size(label, widths[0]), *right]).rstrip()
