"""The tables of `benchmarks.rivals`: made of rows of methods and checkpoints, and how they are shown."""

from typing import Any

import numpy as np
import pandas as pd


def of_weights(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row a setting and method: bias, error, coverage, width and time.

    ``coverage where good`` counts the checkpoints whose verdict on the weight is good, ``good`` is their
    share; of a method without a verdict both are missing.
    """
    error = rows["estimate"] - rows["old_weight"]
    covered = (rows["lower"] <= rows["old_weight"]) & (rows["old_weight"] <= rows["upper"])
    good = (rows["word"] == "good").where(rows["word"] != "")
    found = rows.assign(
        error=error,
        squared=error**2,
        covered=covered.astype(float),
        width=rows["upper"] - rows["lower"],
        good=good.astype(float),
        covered_good=covered.where(good.eq(True)).astype(float),
    )
    groups = found.groupby(["setting", "method"], sort=False)
    return pd.DataFrame(
        {
            "checkpoints": groups.size(),
            "bias": groups["error"].mean(),
            "bias_error": groups["error"].sem(),
            "rmse": np.sqrt(groups["squared"].mean()),
            "coverage": groups["covered"].mean(),
            "width": groups["width"].mean(),
            "seconds": groups["seconds"].median(),
            "good": groups["good"].mean(),
            "coverage where good": groups["covered_good"].mean(),
        }
    ).reset_index()


def side_by_side(table: pd.DataFrame) -> pd.DataFrame:
    """Return bias and coverage, a row a setting and a column a method, from the table `of_weights`."""
    cells = [f"{bias:+.3f}, {held:.2f}" for bias, held in zip(table["bias"], table["coverage"], strict=True)]
    shown = table.assign(cell=cells).pivot(index="setting", columns="method", values="cell")
    shown = shown.loc[table["setting"].unique(), table["method"].unique()]
    return shown.fillna("").reset_index()


def by_method(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table `of_weights` of a method where nothing has moved, and where the old mode has.

    Settings with a third behaviour are in neither.
    """
    plain = rows[~rows["setting"].str.startswith("third")]
    moved = np.where(plain["setting"].str.contains("old moved"), "old moved", "nothing moved")
    return of_weights(plain.assign(setting=moved).sort_values("setting", kind="stable"))


def of_agreement(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row a method: how its old weights of the digits' checkpoints agree with the count."""
    groups = rows.assign(squared=rows["error"] ** 2).groupby("method", sort=False)
    return pd.DataFrame(
        {
            "checkpoints": groups.size(),
            "bias": groups["error"].mean(),
            "rmse": np.sqrt(groups["squared"].mean()),
            "agrees": groups["agrees"].mean(),
            "holds the count": groups["held"].mean(),
            "width": groups["width"].mean(),
            "seconds": groups["seconds"].median(),
        }
    ).reset_index()


def of_changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row for the digits' start and each last checkpoint, means over networks."""
    shown = ["counted", "old_weight", "old_drift", "squared_mmd", "mmd_p", "frechet", "coverage", "density"]
    return rows.groupby("checkpoint", sort=False)[shown].mean().reset_index()


def text(table: pd.DataFrame) -> str:
    """Return a table as the docs show it."""
    head = f"| {' | '.join(table.columns)} |\n|{'---|' * len(table.columns)}"
    rows = (f"| {' | '.join(map(_shown, row))} |" for row in table.itertuples(index=False))
    return "\n".join([head, *rows])


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "" if np.isnan(value) else f"{value:.3f}"
