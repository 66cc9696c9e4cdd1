"""The samples of a measurement that are worth a look, as a table for a file and one for the terminal."""

import pandas as pd
import xarray as xr
from rich.table import Table

from analyses.core import tables

# Samples that the terminal shows for every reason to look at them.
_MOST = 3


def frame(tree: xr.DataTree) -> pd.DataFrame:
    """Return the samples to look at, one a row."""
    listed = tree["examples"].to_dataset().to_dataframe().reset_index()
    return listed[listed["sample_row"] >= 0].reset_index(drop=True)


def table(tree: xr.DataTree) -> Table:
    """Return a few samples of the last checkpoint to look at, their texts as wide as the terminal."""
    shown = frame(tree)
    last = tree["examples"]["checkpoint"].to_numpy()[-1]
    shown = shown[(shown["checkpoint"] == last) & (shown["example"] < _MOST)]
    with_texts = "sample_text" in shown
    caption = (
        "Nearest to the old and the new mode, farthest from both, and on either mode's side furthest along "
        "its displacement where it has one; distances from the modes [Mahalanobis]."
    )
    result = tables.new_table(f"What checkpoint {last} looks like", caption, expand=with_texts)
    for name in ("why", "row", "from old", "from new"):
        result.add_column(name, justify="left" if name == "why" else "right", no_wrap=True)
    if with_texts:
        result.add_column("text", justify="left", no_wrap=True, overflow="ellipsis", ratio=1)
    for _, row in shown.iterrows():
        cells = [row["reason"], row.get("sample_id") or row["sample_row"]]
        cells += [tables.number(row[name]) for name in ("old_distance", "new_distance")]
        cells += [_on_a_line(row["sample_text"])] if with_texts else []
        result.add_row(*map(tables.shown, cells))
    return result


def _on_a_line(text: str) -> str:
    """Return a text on one line, without the characters by which one could write over the terminal."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())
