"""The maps of near-on-policy methods in words: the answer, and what the figures show."""

import xarray as xr

from analyses.near_on_policy.near_on_policy import summary

_NAMES = {
    "sdft": "SDFT",
    "demonstrations": "SDFT from demonstrations",
    "ttt_discover": "TTT-Discover",
    "oapl": "OAPL",
}

#: What the figures show, for those who read a report.
MEANINGS = {
    f"near_on_policy_{name}": (
        f"What {words} leaves of old behaviour, and how far the old mode drifts, at each pair of two "
        "settings: colours are exact, lines are theory, circles are means of trainings in batches. Below, "
        "the rows that were trained; dotted is theory."
    )
    for name, words in _NAMES.items()
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: over which range of its settings each method keeps how much."""
    frame = summary(tree)
    found = []
    for name, words in _NAMES.items():
        rows = frame[frame["map"] == name]
        low, high = rows["exact_retention"].min(), rows["exact_retention"].max()
        kept = int(rows["retains"].astype(bool).sum())
        found.append(
            f"{words}: retention from {low:.3g} to {high:.3g} over the settings; theory holds the old mass "
            f"in the long run at {kept} of {len(rows)}."
        )
    return found
