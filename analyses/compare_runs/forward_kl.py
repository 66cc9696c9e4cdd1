"""The old weight of measured runs against their forward KL from the base."""

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.figure import Figure

from analyses.compare_runs.shared import untrusted
from analyses.core import crosses, figures
from inference.comparison.runs import DISTANCE
from inference.intervals import interval_percent


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``forward_kl``, where all runs have one and an old weight."""
    runs = tree["runs"].children
    if DISTANCE not in tree["comparison"] or "old_weight" not in tree["comparison"]:
        return {}
    with figures.style():
        figure, axes = plt.subplots(figsize=(7.0, 4.6))
        any_bad = False
        for name, look in figures.line_style(list(runs)).items():
            bad = untrusted(runs[name], "kl") | untrusted(runs[name], "weight")
            any_bad |= bool(bad.any())
            posterior = runs[name]["posterior"].to_dataset()
            crosses.draw(axes, posterior, (DISTANCE, "old_weight"), look, bad, figures.entry(name))
        axes.set_ylim(0.0, 1.0)
        axes.set_xlabel(axes.get_xlabel() + "\nfarther from the base →")
        words = f"point: a checkpoint's mean, lines: {interval_percent()} intervals"
        words += ", ×: not to be trusted" if any_bad else ""
        axes.set_title(f"Forgetting against distance from the base\n{words}")
        figures.legend_below(figure, *axes.get_legend_handles_labels(), title="run")
    return {"forward_kl": figure}
