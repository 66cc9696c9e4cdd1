"""Table and figures of a measurement by log-likelihoods under an old and a new reference."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from analyses.core import checkpoint_axis, figures, tables
from analyses.measure_scores import forward_kl
from inference.intervals import interval, interval_kind, interval_percent, interval_probability
from inference.measurement.verdict.kinds import UNMEASURED, of_kind

# Checkpoints whose density is drawn.
_MOST_DENSITIES = 8


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a checkpoint: mean, sd and interval of the old weight, verdict, and the forward KL."""
    stats = tree["summary"].to_dataset()
    lower, upper = _limits(tree)
    columns = {
        "num_samples": stats["num_samples"],
        "old_weight": stats["old_weight_mean"],
        "old_weight_lower": lower,
        "old_weight_upper": upper,
        **{name: stats[name] for name in ("old_weight_sd", "information", "words")},
        **forward_kl.columns(tree),
    }
    return tables.frame_of(columns, pd.Index(stats["checkpoint"].to_numpy(), name="checkpoint"))


def _limits(tree: xr.DataTree) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval of every checkpoint: the exact one if it is asked for, or that of the draws."""
    quantiles = tree["summary"].to_dataset()["old_weight_quantile"].isel(probability=[0, -1])
    tail = 0.5 * (1.0 - interval_probability())
    if interval_kind() == "eti" and np.allclose(quantiles["probability"], [tail, 1.0 - tail]):
        lower, upper = quantiles.transpose("probability", "checkpoint").to_numpy()
        return lower, upper
    limits = interval(tree["posterior"].to_dataset()["old_weight"])
    return limits.sel(ci_bound="lower").to_numpy(), limits.sel(ci_bound="upper").to_numpy()


def table(tree: xr.DataTree) -> tables.Table:
    """Return the summary as a table for the terminal, a checkpoint a row."""
    caption = (
        f"Mean and {interval_percent()} interval. Both references are taken as they are: that "
        "the old behaviour has moved is not seen, so there is no drift."
    )
    return tables.listed(
        summary(tree).reset_index(),
        [
            ("", "checkpoint", tables.as_text),
            ("samples", "num_samples"),
            ("old weight", "old_weight"),
            ("information", "information"),
            ("verdict", "words", tables.said),
            *forward_kl.COLUMNS,
        ],
        title="What is left of the old task, by scores, by checkpoint",
        caption=caption + forward_kl.caption(tree),
    )


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figures ``old_weight``, over checkpoints, and ``density``, of some of them."""
    with figures.style():
        return {"old_weight": _plot_weight(tree), "density": _plot_density(tree)}


def _plot_weight(tree: xr.DataTree) -> Figure:
    figure, axes = plt.subplots(figsize=(7.0, 4.2))
    posterior = tree["posterior"].to_dataset()
    none = of_kind(tree["summary"]["words"], UNMEASURED)
    checkpoint_axis.draw(axes, posterior, ["old_weight"], none)
    axes.set_ylim(0.0, 1.0)
    axes.set_ylabel(figures.label(posterior["old_weight"]))
    axes.set_title(f"Mass forgetting, by scores: how much old behaviour is left?\n{figures.points()}")
    if none.any():
        axes.legend()
    return figure


def _plot_density(tree: xr.DataTree) -> Figure:
    density = tree["density"].to_dataset()
    count = density.sizes["checkpoint"]
    chosen = np.unique(np.linspace(0, count - 1, min(_MOST_DENSITIES, count)).round().astype(int))
    figure, axes = plt.subplots(figsize=(7.0, 4.2))
    looks = figures.line_style([str(name) for name in density["checkpoint"].to_numpy()[chosen]])
    for place, color in zip(chosen, figures.ordered_colours(len(chosen)), strict=True):
        one = density.isel(checkpoint=place)
        name = str(one["checkpoint"].item())
        look = {"linestyle": looks[name]["linestyle"], "color": color}
        axes.plot(one["node_old_weight"], one["old_weight_density"], label=figures.entry(name), **look)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel(figures.label(tree["posterior"].to_dataset()["old_weight"]))
    axes.set_ylabel(figures.label(density["old_weight_density"]))
    axes.set_title("Posterior of the old weight, by checkpoint")
    figures.legend_below(figure, *axes.get_legend_handles_labels(), title="checkpoint")
    return figure
