"""The samples of a measurement that are worth a look, as a table for a file and one for the terminal."""

import pandas as pd
import xarray as xr
from rich import box
from rich.table import Table
from rich.text import Text

from analyses.core import tables

# Samples that the terminal shows for every reason to look at them.
_MOST = 3


def frame(tree: xr.DataTree) -> pd.DataFrame:
    """Return the samples to look at, one a row."""
    data = tree["examples"].to_dataset()
    for name in _tasks(data):
        data[f"{name}_distance"] = data["task_distance"].sel(task=name, drop=True)
    listed = data.drop_dims("task", errors="ignore").to_dataframe().reset_index()
    return listed[listed["sample_row"] >= 0].reset_index(drop=True)


def table(tree: xr.DataTree) -> Table:
    """Return a few samples of the last checkpoint to look at, their texts as wide as the terminal."""
    shown = frame(tree)
    data = tree["examples"].to_dataset()
    last = data["checkpoint"].to_numpy()[-1]
    shown = shown[(shown["checkpoint"] == last) & (shown["example"] < _MOST)]
    with_texts = "sample_text" in shown
    modes = _tasks(data) or ["old", "new"]
    which, each = ("the old and the new mode", "either") if modes == ["old", "new"] else ("each mode", "each")
    caption = (
        f"Nearest to {which}, farthest from all of them, and on {each} mode's side furthest along its "
        "displacement where it has one; distances from the modes [Mahalanobis]."
    )
    title = f"What checkpoint {last} looks like"
    result = Table(title=title, caption=caption, box=box.HORIZONTALS, expand=with_texts)
    for name in ("why", "row", *(f"from {mode}" for mode in modes)):
        result.add_column(name, justify="left" if name == "why" else "right", no_wrap=True)
    if with_texts:
        result.add_column("text", justify="left", no_wrap=True, overflow="ellipsis", ratio=1)
    for _, row in shown.iterrows():
        cells = [row["reason"], row.get("sample_id") or row["sample_row"]]
        cells += [tables.number(row[f"{mode}_distance"]) for mode in modes]
        cells += [_on_a_line(row["sample_text"])] if with_texts else []
        # Brackets in a text are no markup, and colons no emoji.
        result.add_row(*(Text(str(cell)) for cell in cells))
    return result


def _tasks(data: xr.Dataset) -> list[str]:
    """Return the tasks from whose modes distances are told, none of an old and a new mode."""
    return [str(name) for name in data["task"].to_numpy()] if "task" in data.dims else []


def _on_a_line(text: str) -> str:
    """Return a text on one line, without the characters by which one could write over the terminal."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())
