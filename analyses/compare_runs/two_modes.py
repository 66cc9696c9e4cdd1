"""Table and figure of runs that were measured against an old and a new task."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from rich.console import RenderableType

from analyses.compare_runs.shared import columns_of, title_of, untrusted
from analyses.core import checkpoint_axis, figures, tables
from inference.comparison.runs import COMPARED, DISTANCE
from inference.intervals import interval, interval_percent

# What the caption says of runs that were measured from scores, without a forward KL and with one.
_OF_SCORES = (
    " Scores see no drift: the old weight alone is compared.",
    " Scores see no drift. The forward KL is that of the base from the run, of answers to the new task's "
    "prompts; runs that share the answers vary together: their difference is known better than is said.",
)


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a run: weight, drift and forward KL, and how it compares with the first run.

    ``X_equivalent``, the probability of practical equivalence, is there where a rope was given, and drift
    where runs were measured from samples.
    """
    data = tree["comparison"].to_dataset()
    columns = columns_of(data, _compared(tree))
    return tables.frame_of(columns, pd.Index(data["run"].to_numpy(), name="run"))


def table(tree: xr.DataTree) -> RenderableType:
    """Return the summary as a table for the terminal."""
    frame = summary(tree)
    first = frame.index[0]
    against_first = tables.against(first)

    return tables.by_name(
        frame,
        [
            ("old weight", "old_weight"),
            (f"probability to have kept more old mass than {first}", "old_weight_better", against_first),
            ("probability of practical equivalence", "old_weight_equivalent", against_first),
            (f"old weight minus that of {first}", "old_weight_difference", against_first),
            ("verdict on it", "old_weight_words", tables.said),
            ("old drift", "old_drift"),
            (f"probability to have drifted less than {first}", "old_drift_better", against_first),
            ("probability of practical equivalence ", "old_drift_equivalent", against_first),
            (f"old drift minus that of {first}", "old_drift_difference", against_first),
            ("verdict on it ", "old_drift_words", tables.said),
            ("forward KL [nat]", DISTANCE),
            (f"probability to be closer to the base than {first}", f"{DISTANCE}_better", against_first),
            ("probability of practical equivalence  ", f"{DISTANCE}_equivalent", against_first),
            (f"forward KL minus that of {first}", f"{DISTANCE}_difference", against_first),
            ("verdict on it  ", f"{DISTANCE}_words", tables.said),
            ("share of draws that reach the level", "reached"),
        ],
        title=title_of(tree),
        caption=f"Mean and {interval_percent()} interval of the posterior."
        + ("" if "old_drift" in frame else _OF_SCORES[DISTANCE in frame]),
    )


def _compared(tree: xr.DataTree) -> list[str]:
    return [name for name in (*COMPARED, DISTANCE) if name in tree["comparison"]]


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``runs``: weight and drift against the new gap; of scores, over checkpoints."""
    runs = {name: child["posterior"].to_dataset() for name, child in tree["runs"].children.items()}
    with figures.style():
        if "old_drift" not in tree["comparison"]:
            return {"runs": _plot_scores(runs)}
        figure, panels = plt.subplots(1, 2, figsize=(9.0, 4.4))
        for axes, variable in zip(panels, COMPARED, strict=True):
            for name, look in figures.line_style(list(runs)).items():
                posterior = runs[name]
                x, y = (posterior[v].mean(["chain", "draw"]).to_numpy() for v in ("new_gap", variable))
                limits = interval(posterior[variable])
                axes.vlines(
                    x, *(limits.sel(ci_bound=b) for b in ("lower", "upper")), color=look["color"], alpha=0.5
                )
                axes.plot(x, y, label=figures.entry(name), markersize=4, linewidth=1.2, **look)
                bad = untrusted(tree["runs"].children[name], variable.removeprefix("old_"))
                axes.plot(x[bad], y[bad], "x", color=figures.UNTRUSTED, markersize=8, zorder=3)
            level = float(tree["comparison"].attrs["level"])
            if level == level:
                axes.axvline(level, color="0.35", linestyle=":", label="matched gap")
            axes.set(
                xlabel=figures.label(posterior["new_gap"]) + "\nlearnt →",
                ylabel=figures.label(posterior[variable]),
            )
            axes.set_ylim(0.0, 1.0 if variable == "old_weight" else None)
            axes.invert_xaxis()
        words = f"point: a checkpoint's mean, line: {interval_percent()} interval"
        if any(untrusted(c, w).any() for c in tree["runs"].children.values() for w in ("weight", "drift")):
            words += ", ×: not to be trusted"
        figure.suptitle(f"Forgetting against learning ({words})")
        figures.legend_below(figure, *panels[0].get_legend_handles_labels())
    return {"runs": figure}


def _plot_scores(runs: dict[str, xr.Dataset]) -> Figure:
    """Draw the old weight of runs that were measured from scores over their checkpoints."""
    figure, axes = plt.subplots(figsize=(7.0, 4.4))
    labels = np.concatenate([posterior["checkpoint"].to_numpy() for posterior in runs.values()])
    numeric = all(np.issubdtype(p["checkpoint"].dtype, np.number) for p in runs.values())
    names = pd.unique(labels.astype(str))
    for (name, look), posterior in zip(figures.line_style(list(runs)).items(), runs.values(), strict=True):
        own = posterior["checkpoint"].to_numpy()
        at = own.astype(float) if numeric else pd.Index(names).get_indexer(own.astype(str)).astype(float)
        order = np.argsort(at)
        weight = posterior["old_weight"]
        low, high = (interval(weight).sel(ci_bound=bound).to_numpy() for bound in ("lower", "upper"))
        axes.vlines(at, low, high, color=look["color"], alpha=0.5)
        mean = weight.mean(["chain", "draw"]).to_numpy()
        axes.plot(at[order], mean[order], label=figures.entry(name), markersize=4, linewidth=1.2, **look)
    if not numeric:
        checkpoint_axis.name_ticks(axes, names)
    axes.set(xlabel="checkpoint", ylabel=figures.label(weight), ylim=(0.0, 1.0))
    words = f"point: a checkpoint's mean, line: {interval_percent()} interval"
    axes.set_title(f"How much old behaviour is left, by scores?\n{words}")
    figures.legend_below(figure, *axes.get_legend_handles_labels())
    return figure
