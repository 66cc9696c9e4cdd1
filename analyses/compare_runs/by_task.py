"""Table and figure of runs that were measured against several tasks by name."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.console import RenderableType

from analyses.compare_runs.shared import columns_of, title_of
from analyses.core import figures, tables
from inference.comparison.runs import DISTANCE
from inference.intervals import interval_percent
from inference.measurement.verdict.kinds import UNTRUSTED, kind_of

# What is compared of a task.
_OF_TASKS = ("weight", "task_drift")


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a run and task: weight and drift with intervals, and how they compare with the first.

    ``X_better`` is the probability to have kept more weight, or drifted less, than the first run. Of the new
    task more weight is more learnt, not less forgotten.
    """
    data = tree["comparison"].to_dataset()
    columns = columns_of(data, [name for name in ("old_weight", *_OF_TASKS, DISTANCE) if name in data])
    return tables.task_frame(columns, "run")


def table(tree: xr.DataTree) -> RenderableType:
    """Return the summary as a table for the terminal, a run and task a row."""
    frame = summary(tree)
    first = frame.index[0]
    with_drift = "task_drift" in frame
    caption = (
        f"Mean and {interval_percent()} interval of the posterior. P: probability to have kept "
        f"more of the task, or to have drifted less, than {first}."
    ) + ("" if with_drift else " Scores see no drift: weights alone are compared.")
    against_first = tables.against(first, "")
    return tables.by_task(
        frame,
        [
            ("weight", "weight"),
            ("P(kept\nmore)", "weight_better", against_first),
            ("drift", "task_drift"),
            ("P(drifted\nless)", "task_drift_better", against_first),
            ("verdict:\nweights", "weight_words", tables.said),
            ("\ndrifts", "task_drift_words", tables.said),
            ("forward KL\n[nat]", DISTANCE),
            ("P(closer to\nthe base)", f"{DISTANCE}_better", against_first),
            ("verdict:\nKL", f"{DISTANCE}_words", tables.said),
        ],
        once=(
            "weight_words",
            "task_drift_words",
            *(f"{DISTANCE}{part}" for part in ("", "_better", "_words")),
        ),
        title=title_of(tree),
        caption=caption,
    )


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``runs``: weight and drift of every task, the runs side by side."""
    frame = summary(tree)
    compared = [name for name in _OF_TASKS if name in frame]
    labels = {"weight": "weight of the task", "task_drift": "drift of the task [Mahalanobis]"}
    with figures.style():
        figure, panels = plt.subplots(
            1, len(compared), figsize=(4.6 * len(compared) + 1.0, 4.2), squeeze=False
        )
        for axes, variable in zip(panels[0], compared, strict=True):
            _side_by_side(axes, frame, variable)
            axes.set(ylabel=labels[variable], xlabel="task")
            axes.set_ylim(0.0, 1.0 if variable == "weight" else None)
        figure.suptitle(f"{title_of(tree)}\n{figures.points()}")
        figures.legend_below(figure, *panels[0, 0].get_legend_handles_labels())
    return {"runs": figure}


def _side_by_side(axes: Axes, frame: pd.DataFrame, variable: str) -> None:
    """Draw mean and interval of every run at every task; an x where a verdict says not to trust it."""
    tasks, runs = list(dict.fromkeys(frame["task"])), list(dict.fromkeys(frame.index))
    doubtful: Line2D | None = None
    for place, (name, look) in enumerate(figures.line_style(runs).items()):
        one = frame.loc[[name]].set_index("task").loc[tasks]
        at = np.arange(len(tasks)) + 0.5 * (place - 0.5 * (len(runs) - 1)) / len(runs)
        axes.vlines(at, one[f"{variable}_lower"], one[f"{variable}_upper"], color=look["color"], alpha=0.6)
        style = {"color": look["color"], "marker": look["marker"], "linestyle": "none", "markersize": 5}
        axes.plot(at, one[variable], label=figures.entry(name), clip_on=False, **style)
        if kind_of(one[f"{variable}_words"].iloc[0]) == UNTRUSTED:
            doubtful = axes.plot(at, one[variable], "x", color=figures.UNTRUSTED, markersize=8, zorder=3)[0]
    if doubtful is not None:
        doubtful.set_label("not to be trusted (see the table)")
    axes.set_xticks(range(len(tasks)), [figures.entry(task) for task in tasks])
