"""What tables and figures of both kinds of comparison have in common."""

import numpy as np
import xarray as xr


def title_of(tree: xr.DataTree) -> str:
    """Return the title of the table: where the runs were read."""
    at, level = str(tree["comparison"].attrs["at"]), float(tree["comparison"].attrs["level"])
    where = {"final": "At the last checkpoint", "matched_gain": f"Where the new gap is {level:.3g}"}.get(
        at, f"At checkpoint {at}"
    )
    return f"Which run forgot less? {where}"


def untrusted(run: xr.DataTree, word: str) -> np.ndarray:
    """Return whether the weight or the drift at each checkpoint of a run is not to be trusted."""
    words = run["sample_stats"][f"{word}_words"].to_numpy().astype(str)
    return np.char.startswith(words, "not to be trusted")
