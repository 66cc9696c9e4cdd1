"""Table and figures of a measurement of several tasks."""

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Group, RenderableType

from analyses.core import checkpoint_axis, examples_shown, figures, tables
from analyses.measure import samples_shown
from analyses.measure.shared import OF_CHECKPOINTS, not_counted, untrusted
from inference.intervals import interval_percent

# Of `/sample_stats`, what is of the tasks.
_OF_TASKS = ("resolution", "unmoved_probability", "task_information", "task_reference_share")


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a checkpoint and task: means, intervals, resolutions and the verdict in words."""
    posterior, stats = tree["posterior"].to_dataset(), tree["sample_stats"].to_dataset()
    columns: dict[str, xr.DataArray] = {}
    for name in ("weight", "task_drift", *({"old_weight"} & set(posterior))):
        columns |= tables.interval_columns(name, posterior[name])
    columns |= {name: stats[name] for name in (*_OF_TASKS, "num_samples", *OF_CHECKPOINTS)}
    return tables.task_frame(columns, "checkpoint")


def table(tree: xr.DataTree) -> RenderableType:
    """Return the summary as a table for the terminal, a task a row, and examples of the last checkpoint."""
    return Group(_table(tree), *([examples_shown.table(tree)] if "examples" in tree.children else []))


def _table(tree: xr.DataTree) -> tables.Table:
    attrs = tree.attrs
    kept = float(attrs["information_kept"])
    caption = (
        f"Mean and {interval_percent()} interval. Modes: {attrs['covariance']} covariance, "
        f"{attrs['tails']} tails. Below its resolution a drift cannot be told from none; P(unmoved): "
        "probability of no drift at all. The verdicts are on all weights and on all drifts of a checkpoint."
    )
    if kept < 1.0:
        caption += f" Held-out references keep {100 * kept:.0f} % of their squared distances."
    caption += not_counted(attrs)
    return tables.by_task(
        summary(tree),
        [
            ("weight", "weight"),
            ("drift", "task_drift"),
            ("resolution", "resolution"),
            ("P(un-\nmoved)", "unmoved_probability"),
            ("verdict:\nweights", "weight_words", tables.said),
            ("\ndrifts", "drift_words", tables.said),
        ],
        once=("weight_words", "drift_words"),
        title="What is left of every task, and what has moved, by checkpoint",
        caption=caption,
    )


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figures ``weight`` and ``drift``, every task over checkpoints, and ``samples``."""
    with figures.style():
        posterior, bad = tree["posterior"].to_dataset(), untrusted(tree)
        title = "Mass forgetting: how much is left of every task?"
        weight = checkpoint_axis.draw_tasks(posterior["weight"], bad, "weight of the task", title)
        weight.axes[0].set_ylim(0.0, 1.0)
        label, title = "distance from the reference [Mahalanobis]", "Drift: how far has every task moved?"
        drift = checkpoint_axis.draw_tasks(posterior["task_drift"], bad, label, title)
        drift.axes[0].set_ylim(bottom=0.0)
        drawn = {"weight": weight, "drift": drift}
        if "shown" in tree.children:
            drawn["samples"] = samples_shown.plot(tree)
    return drawn
