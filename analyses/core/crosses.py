"""Two measured variables of a run against each other, checkpoint by checkpoint, with intervals of both."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from analyses.core import figures
from inference.intervals import interval


def draw(
    axes: Axes,
    posterior: xr.Dataset,
    names: tuple[str, str],
    look: figures.Look,
    untrusted: np.ndarray,
    label: str | None = None,
) -> None:
    """Draw the path of the means, the last checkpoint named, and mark the checkpoints of no trust.

    Args:
        axes: to draw on; its labels become those of the variables.
        posterior: draws over chain, draw and checkpoint.
        names: of the variables across and up.
        look: colour, dash and marker.
        untrusted: whether a checkpoint is not to be trusted.
        label: for the legend.
    """
    x, y = (posterior[name].mean(["chain", "draw"]).to_numpy() for name in names)
    (left, right), (low, high) = (
        [limits.sel(ci_bound=bound).to_numpy() for bound in ("lower", "upper")]
        for limits in (interval(posterior[name]) for name in names)
    )
    axes.hlines(y, left, right, color=look["color"], alpha=0.5)
    axes.vlines(x, low, high, color=look["color"], alpha=0.5)
    axes.plot(x, y, label=label, markersize=4, linewidth=1.2, **look)
    axes.plot(x[untrusted], y[untrusted], "x", color=figures.UNTRUSTED, markersize=8, zorder=3)
    last = str(posterior["checkpoint"].to_numpy()[-1])
    axes.annotate(last, (x[-1], y[-1]), xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.set_xlabel(figures.label(posterior[names[0]]))
    axes.set_ylabel(figures.label(posterior[names[1]]))
