"""Table and figure of a measurement by log-likelihoods under the references of several tasks."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from analyses.core import checkpoint_axis, figures, tables
from analyses.measure_scores import forward_kl
from inference.intervals import interval_probability


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


def table(tree: xr.DataTree) -> tables.Grid:
    """Return the summary as a table for the terminal, a checkpoint and task a row."""
    caption = (
        f"Mean and {100 * interval_probability():g} % interval. The references are taken as they are: that a "
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
        figure, axes = plt.subplots(figsize=(7.0, 4.2))
        weight = tree["posterior"].to_dataset()["weight"]
        parts: dict[str, object] = {}
        for name in map(str, weight["task"].to_numpy()):
            one = weight.sel(task=name, drop=True)
            parts[name] = one.assign_attrs(long_name=figures.entry(name), units="1")
        words = tree["summary"]["words"].to_numpy().astype(str)
        checkpoint_axis.draw(axes, xr.Dataset(parts), list(parts), np.char.startswith(words, "not "))
        axes.set(ylim=(0.0, 1.0), ylabel="weight of the task")
        shown = f"point: mean, line: {100 * interval_probability():g} % interval"
        axes.set_title(
            f"Mass forgetting, by scores: how much is left of every task?\n{shown}", loc="left", fontsize=10
        )
        figures.legend_below(figure, *axes.get_legend_handles_labels(), title="task")
    return {"weight": figure}
