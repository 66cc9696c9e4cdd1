"""Table and figure of a measurement by log-likelihoods under the references of several tasks."""

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from analyses.core import checkpoint_axis, figures, tables
from analyses.measure_scores import forward_kl
from inference.intervals import interval_percent
from inference.measurement.verdict.kinds import UNMEASURED, UNTRUSTED, of_kind


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a checkpoint and task: mean, sd and interval of the weight, and the verdict in words."""
    stats, posterior = tree["summary"].to_dataset(), tree["posterior"].to_dataset()
    columns = tables.interval_columns("weight", posterior["weight"])
    columns["weight"] = stats["weight_mean"]
    columns |= {
        name: stats[name] for name in ("weight_sd", "task_information", "num_samples", "k_hat", "words")
    }
    if "old_weight" in posterior:
        columns |= tables.interval_columns("old_weight", posterior["old_weight"])
    columns |= forward_kl.columns(tree)
    return tables.task_frame(columns, "checkpoint")


def table(tree: xr.DataTree) -> tables.Table:
    """Return the summary as a table for the terminal, a checkpoint and task a row."""
    caption = (
        f"Mean and {interval_percent()} interval. The references are taken as they are: that a "
        "task's behaviour has moved is not seen, so there is no drift."
    )
    return tables.by_task(
        summary(tree),
        [
            ("samples", "num_samples"),
            ("weight", "weight"),
            ("information", "task_information"),
            ("verdict", "words", tables.said),
            *forward_kl.COLUMNS,
        ],
        once=("num_samples", "words", *(column[1] for column in forward_kl.COLUMNS)),
        title="What is left of every task, by scores, by checkpoint",
        caption=caption + forward_kl.caption(tree),
    )


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``weight``: that of every task over checkpoints."""
    with figures.style():
        bad = of_kind(tree["summary"]["words"], UNTRUSTED, UNMEASURED)
        title = "Mass forgetting, by scores: how much is left of every task?"
        weight = tree["posterior"].to_dataset()["weight"]
        figure = checkpoint_axis.draw_tasks(weight, bad, "weight of the task", title)
        figure.axes[0].set_ylim(0.0, 1.0)
    return {"weight": figure}
