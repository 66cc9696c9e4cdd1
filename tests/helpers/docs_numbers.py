"""Numbers that README.md and docs/*.md state, and where a command writes them: from comments in the text.

A comment names a command and, a line each, texts of the section above it and what in ``summary.csv`` they
state:

    <!-- numbers of `massdrift replay`
    from 0.022 | spread_old_weight | replay=0
    66 % | starvation | replay=0
    [209, 248] | recovery_step | replay=0
    -->

Numbers of a text are a value; an interval, of the columns with ``_lower`` and ``_upper``; or a value and its
interval. After a column ``max``, ``min`` or ``maxabs`` stand for all rows that are left, and a number is a
factor. A whole table is declared above it: for every column of the table what identifies a row (``=column``),
a column to compare, or ``-`` for none; without what identifies them rows come in the order of the file:

    <!-- table of `massdrift compare`: =objective | old_weight | retention | peak_old_drift | new_gap -->
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?:·10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?")
_EXPONENT = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_REDUCTIONS = {
    "": lambda values: values.squeeze(),
    "max": lambda values: values.max(),
    "min": lambda values: values.min(),
    "maxabs": lambda values: values.abs().max(),
}


@dataclass(frozen=True)
class Statement:
    """What a page says, and where a command's summary has it: a column, of rows or of one by its order."""

    page: str
    command: str
    text: str
    column: str
    rows: tuple[tuple[str, str], ...] = ()
    position: int | None = None
    reduction: str = ""
    factor: float = 1.0

    def wrong(self, summary: pd.DataFrame) -> str | None:
        """Say what is stated and what is so, or None where they agree to the digits that are stated."""
        stated = list(numbers(self.text))
        ends = {1: ("",), 2: ("_lower", "_upper"), 3: ("", "_lower", "_upper")}[len(stated)]
        kept = summary
        for name, value in self.rows:
            kept = kept[[_same(cell, value) for cell in kept[name]]]
        if self.position is not None:
            kept = kept.iloc[[self.position]]
        if not len(kept) or not (len(kept) == 1 or self.reduction):
            return f"{self.page}: {self.text!r} must be of one row {dict(self.rows)}; got {len(kept)}"
        for (value, half), end in zip(stated, ends, strict=True):
            found = float(_REDUCTIONS[self.reduction](kept[f"{self.column}{end}"]))
            found *= 100.0 if "%" in self.text else self.factor
            if not abs(found - value) <= half * (1.0 + 1e-6):
                return f"{self.page}: {self.text!r} is {found:.6g} ({self.column}{end} of {self.command})"
        return None


def numbers(text: str) -> Iterator[tuple[float, float]]:
    """Yield every number of a text and half a unit of its last digit."""
    for found in _NUMBER.findall(text):
        mantissa, _, power = found.replace(",", "").partition("·10")
        mantissa, _, exponent = mantissa.partition("e")
        scale = 10.0 ** (int(power.translate(_EXPONENT) or 0) + int(exponent or 0))
        digits = len(mantissa.partition(".")[2])
        yield float(mantissa) * scale, 0.5 * 10.0**-digits * scale


def statements(page: Path) -> list[Statement]:
    """Return all declared statements of a page.

    Raises:
        ValueError: a declaration that is none, or a text that its section does not hold.
    """
    text, found = page.read_text(), []
    for comment in re.finditer(r"<!-- (numbers|table) of `massdrift ([^`]+)`:?(.*?)-->", text, re.DOTALL):
        kind, command, body = comment.groups()
        if kind == "table":
            found += _of_table(page.name, command, body, text[comment.end() :])
            continue
        section = re.sub(r"<!--.*?-->", "", text[: comment.start()], flags=re.DOTALL).rpartition("\n## ")[2]
        section = " ".join(section.split())
        for line in filter(None, map(str.strip, body.splitlines())):
            said, where, *rows = [part.strip() for part in line.split("|")]
            if said not in section or not list(numbers(said)):
                raise ValueError(f"{page.name}: the section above must hold a number in {said!r}")
            column, _, word = where.partition(" ")
            pairs = tuple((row.split("=", 1)[0], row.split("=", 1)[1]) for row in rows)
            reduction = word if word in _REDUCTIONS else ""
            factor = float(word) if word not in _REDUCTIONS else 1.0
            found.append(Statement(page.name, command, said, column, pairs, None, reduction, factor))
    if len(re.findall(r"<!-- (?:numbers|table)\b", text)) != len(
        re.findall(r"<!-- (?:numbers|table) of `massdrift [^`]+`", text)
    ):
        raise ValueError(f"{page.name}: a comment must name its command as `massdrift ...`")
    return found


def _of_table(page: str, command: str, body: str, after: str) -> Iterator[Statement]:
    columns = [column.strip() for column in body.split("|")]
    block = after.strip().split("\n\n")[0].splitlines()
    lines = [[cell.strip().strip("`") for cell in re.split(r"\|", row)[1:-1]] for row in block[2:]]
    if not lines or any(len(cells) != len(columns) for cells in lines):
        raise ValueError(f"{page}: a table of {len(columns)} columns must follow; got {block[:1]}")
    for position, cells in enumerate(lines):
        rows = tuple((c[1:], cell) for c, cell in zip(columns, cells, strict=True) if c.startswith("="))
        for column, cell in zip(columns, cells, strict=True):
            if column[0] not in "=-" and list(numbers(cell)):
                yield Statement(page, command, cell, column, rows, None if rows else position)


def _same(cell: object, value: str) -> bool:
    try:
        return float(str(cell)) == float(value)
    except ValueError:
        return str(cell) == value
