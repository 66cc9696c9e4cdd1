"""A plan of an evaluation in words: its answer, and what its figure shows."""

import xarray as xr

from analyses.plan_evals.plan_evals import remarks, summary

#: What the figures show, for those who read a report.
MEANINGS = {
    "plan": "What it costs to see as much with other numbers of answers an item.",
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: the cheapest plan."""
    frame = summary(tree)
    cheapest = frame[frame["cheapest"]]
    if cheapest.empty:
        return remarks(tree)[:1]
    row = cheapest.iloc[0]
    return [
        f"The cheapest plan takes {row['items']:,.0f} items with {row['answers']:g} answers each: "
        f"{row['cost']:,.0f} generated answers."
    ]
