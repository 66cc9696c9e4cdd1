"""What is drawn over checkpoints: at their number where all are numbers, in their order otherwise."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.core import figures
from inference.intervals import interval


def places(checkpoints: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return where checkpoints stand on the axis, and whether that is at their number."""
    numeric = np.issubdtype(checkpoints.dtype, np.number)
    return (checkpoints.astype(float) if numeric else np.arange(len(checkpoints), dtype=float)), numeric


def draw(axes: Axes, posterior: xr.Dataset, names: list[str], untrusted: np.ndarray) -> None:
    """Draw mean and interval of some variables at every checkpoint, and mark the checkpoints of no trust."""
    checkpoints = posterior["checkpoint"].to_numpy()
    at, numeric = places(checkpoints)
    order = np.argsort(at)
    for name, look in figures.line_style(names).items():
        limits = interval(posterior[name])
        low, high = (limits.sel(ci_bound=bound).to_numpy()[order] for bound in ("lower", "upper"))
        mean = posterior[name].mean(["chain", "draw"]).to_numpy()[order]
        axes.vlines(at[order], low, high, color=look["color"], linewidth=2.0, alpha=0.6)
        axes.plot(at[order], mean, markersize=4, linewidth=1.2, label=figures.label(posterior[name]), **look)
    axes.set_xlabel("checkpoint")
    if not numeric:
        name_ticks(axes, checkpoints)
    if untrusted.any():
        axes.plot(
            at[untrusted],
            np.full(untrusted.sum(), 0.02),
            "x",
            color=figures.UNTRUSTED,
            transform=axes.get_xaxis_transform(),
            label="not to be trusted (see the table)",
            clip_on=False,
        )


def draw_tasks(values: xr.DataArray, untrusted: np.ndarray, label: str, title: str) -> Figure:
    """Draw a variable of every task over checkpoints, as `draw` does."""
    figure, axes = plt.subplots(figsize=(7.0, 4.2))
    parts = {
        str(name): values.sel(task=name, drop=True).assign_attrs(
            long_name=figures.entry(str(name)), units="1"
        )
        for name in values["task"].to_numpy()
    }
    draw(axes, xr.Dataset(parts), list(parts), untrusted)
    axes.set_ylabel(label)
    axes.set_title(f"{title}\n{figures.points()}")
    figures.legend_below(figure, *axes.get_legend_handles_labels(), title="task")
    return figure


def name_ticks(axes: Axes, checkpoints: np.ndarray) -> None:
    """Write the names of checkpoints below the axis, turned where there are many; long ones are broken."""
    many = len(checkpoints) > 6
    width = 24 if many else 60 // len(checkpoints)  # characters
    axes.set_xticks(
        range(len(checkpoints)),
        [fill(str(name), width) for name in checkpoints],
        rotation=45 if many else 0,
        ha="right" if many else "center",
    )
