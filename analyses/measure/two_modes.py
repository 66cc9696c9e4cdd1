"""Table and figures of a measurement of two modes, old and new."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Group, RenderableType

from analyses.core import checkpoint_axis, examples_shown, figures, tables
from analyses.measure import samples_shown
from analyses.measure.shared import OF_CHECKPOINTS, not_counted, untrusted
from inference.intervals import interval_percent

# Of `/sample_stats`, what is of the modes.
_OF_MODES = (
    "old_resolution",
    "old_unmoved_probability",
    "new_resolution",
    "weight_information",
    "reference_share",
)


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a checkpoint: means, intervals, resolutions and the verdict in words."""
    posterior, stats = tree["posterior"].to_dataset(), tree["sample_stats"].to_dataset()
    columns = {"num_samples": stats["num_samples"]}
    for name in ("old_weight", "old_drift", "new_gap"):
        columns |= tables.interval_columns(name, posterior[name])
    for name in ("prompt_spread", "prompt_shift"):
        columns |= tables.interval_columns(name, posterior[name]) if name in posterior else {}
    for group in posterior.coords.get("prompt_group", xr.DataArray([])).to_numpy():
        of_group = posterior["group_weight"].sel(prompt_group=group, drop=True)
        columns |= tables.interval_columns(f"old_weight_of_{group}", of_group)
    for name in (*_OF_MODES, *OF_CHECKPOINTS):
        columns[name] = stats[name]
    return tables.frame_of(columns, pd.Index(posterior["checkpoint"].to_numpy(), name="checkpoint"))


def table(tree: xr.DataTree) -> RenderableType:
    """Return the summary as a table for the terminal, and examples of the last checkpoint."""
    return Group(_table(tree), *([examples_shown.table(tree)] if "examples" in tree.children else []))


def _table(tree: xr.DataTree) -> tables.Table:
    attrs = tree.attrs
    kept = float(attrs["information_kept"])
    caption = (
        f"Mean and {interval_percent()} interval. Modes: {attrs['covariance']} covariance, "
        f"{attrs['tails']} tails; the references are {float(attrs['separation']):.3g} Mahalanobis apart. "
        "Below its resolution a drift cannot be told from none; P(unmoved): probability of no drift at all. "
        "The verdicts are on the weight and on the drift."
    )
    if kept < 1.0:
        size = tree["posterior"].sizes["feature"]
        caption += (
            f" Features were projected to {size}: held-out references keep {100 * kept:.0f} % of their "
            "distance, and drift outside of the projection is not in the numbers."
        )
    caption += not_counted(attrs)
    return tables.listed(
        summary(tree).reset_index(),
        [
            ("", "checkpoint", tables.as_text),
            ("old weight", "old_weight"),
            ("old drift", "old_drift"),
            ("resolution", "old_resolution"),
            ("P(un-\nmoved)", "old_unmoved_probability"),
            ("new gap", "new_gap"),
            ("verdict:\nweight", "weight_words", tables.said),
            ("\ndrift", "drift_words", tables.said),
        ],
        title="What is left of the old task, and what has moved, by checkpoint",
        caption=caption,
    )


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figures ``old_weight``, ``drift`` and, where samples are shown, ``samples``."""
    with figures.style():
        drawn = {"old_weight": _plot_weight(tree), "drift": _plot_drift(tree)}
        if "shown" in tree.children:
            drawn["samples"] = samples_shown.plot(tree)
    return drawn


def _plot_weight(tree: xr.DataTree) -> Figure:
    figure, axes = plt.subplots(figsize=(7.0, 4.2))
    checkpoint_axis.draw(axes, tree["posterior"].to_dataset(), ["old_weight"], untrusted(tree))
    axes.set_ylim(0.0, 1.0)
    axes.set_ylabel(figures.label(tree["posterior"].to_dataset()["old_weight"]))
    axes.set_title(f"Mass forgetting: how much old behaviour is left?\n{figures.points()}")
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend()
    return figure


def _plot_drift(tree: xr.DataTree) -> Figure:
    figure, axes = plt.subplots(figsize=(7.0, 4.2))
    checkpoint_axis.draw(axes, tree["posterior"].to_dataset(), ["old_drift", "new_gap"], untrusted(tree))
    places, _ = checkpoint_axis.places(tree["posterior"]["checkpoint"].to_numpy())
    order = np.argsort(places)
    resolution = tree["sample_stats"]["old_resolution"].to_numpy()[order]
    top = axes.get_ylim()[1]
    axes.fill_between(
        places[order],
        0.0,
        resolution,
        color="0.6",
        alpha=0.25,
        linewidth=0,
        label="old drift cannot be told from none",
    )
    axes.set_ylim(0.0, top)
    axes.set_ylabel("distance from the reference [Mahalanobis]")
    axes.set_title(f"Drift: how far have the modes moved?\n{figures.points()}")
    figures.legend_below(figure, *axes.get_legend_handles_labels(), columns=2)
    return figure
