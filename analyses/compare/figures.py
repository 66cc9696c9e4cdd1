"""The figures of a comparison: a small panel an objective over training, and the frontier of all of them."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analyses.core import figures
from inference import results
from inference.intervals import interval, interval_percent

# Drifts below this are not drawn: reverse KL has no noise at its optimum and falls without end.
_LEAST_DRIFT = 1e-4

# Panels side by side.
_COLUMNS = 4

# How a variable beside the one that a figure is of is drawn.
_BESIDE: figures.Look = {"color": "black", "linestyle": (0, (6, 2)), "linewidth": 1.0}


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return ``old_drift``, ``frontier``, and of two modes ``old_weight`` and ``forward_kl``."""
    kept = tree["trajectory"].to_dataset().where(results.converged(tree))
    styles = figures.line_style([str(name) for name in kept["objective"].to_numpy()])
    with figures.style():
        drawn = {"old_drift": _plot_drift(tree, kept, styles), "frontier": _plot_frontier(kept, styles)}
        if "old_weight" in kept:
            drawn["old_weight"] = _plot_weight(tree, kept, styles)
        if "forward_kl" in kept:
            drawn["forward_kl"] = _plot_forward_kl(tree, kept, styles)
    return drawn


def _over_steps(
    tree: xr.DataTree,
    values: xr.DataArray,
    styles: figures.Styles,
    title: str,
    beside: xr.DataArray | None = None,
) -> tuple[Figure, list[Axes]]:
    """Draw each objective's trainings over steps in a panel of its own, the others' means in grey behind.

    On top are the exact flow and its bound, where theory has one, and the mean of a variable ``beside``. The
    panel after the last holds the legend.
    """
    columns = min(_COLUMNS, len(styles) + 1)
    rows = -(-(len(styles) + 1) // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(max(5.4, 2.4 * columns), 1.0 + 2.1 * rows),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    panels, empty = list(grid.flat[: len(styles)]), list(grid.flat[len(styles) :])
    means, limits = values.mean(["chain", "draw"], skipna=True), interval(values)
    step, name = values["step"], str(values.name)
    bounded = False
    for axes, (objective, look) in zip(panels, styles.items(), strict=True):
        for other in styles:
            if other != objective:
                axes.plot(step, means.sel(objective=other), color="0.85", linewidth=0.8, zorder=1)
        band = [limits.sel(objective=objective, ci_bound=bound) for bound in ("lower", "upper")]
        axes.fill_between(step, *band, color=look["color"], alpha=0.3, linewidth=0, zorder=2)
        # The panel's title names it here, a legend in reports.
        named = {"label": objective, "color": look["color"], "linewidth": 1.8, "zorder": 3}
        axes.plot(step, means.sel(objective=objective), **named)
        for curve in _exact(tree, "population", name, objective):
            axes.plot(curve["step"], curve, linestyle=":", color="black", linewidth=1.2, zorder=4)
        for curve in _exact(tree, "theory", f"{name}_bound", objective):
            bounded = True
            axes.plot(curve["step"], curve, linestyle="--", color="black", linewidth=0.8, zorder=4)
        if beside is not None:
            mean = beside.sel(objective=objective).mean(["chain", "draw"], skipna=True)
            axes.plot(step, mean, **_BESIDE, zorder=5)
        axes.set_title(objective, fontsize=9)
    panels[0].set_xlim(0, float(step.max()))
    figure.supxlabel("training step")
    figure.supylabel(figures.label(values))
    figures.heading(figure, title)
    for axes in empty:
        axes.set_axis_off()
    for axes in panels[-columns:]:
        axes.tick_params(labelbottom=True)
    figure.get_layout_engine().set(rect=(0.015, 0.0, 0.985, 1.0))  # type: ignore[union-attr, call-arg]
    handles = _legend(tree, bounded)
    if beside is not None:
        handles.insert(2, Line2D([], [], label=f"{beside.name}, mean", **_BESIDE))
    empty[0].legend(handles=handles, loc="center", fontsize=8)
    return figure, panels


def _legend(tree: xr.DataTree, bounded: bool) -> list[Line2D | Patch]:
    percent = interval_percent()
    handles: list[Line2D | Patch] = [
        Line2D([], [], color="0.3", linewidth=1.8, label="mean of the replicates"),
        Patch(color="0.3", alpha=0.3, linewidth=0, label=f"their {percent} interval"),
    ]
    if "population" in tree.children:
        handles.append(Line2D([], [], color="black", linestyle=":", linewidth=1.2, label="exact flow"))
    if bounded:
        words = "bound of the flow"
        handles.append(Line2D([], [], color="black", linestyle="--", linewidth=0.8, label=words))
    return [*handles, Line2D([], [], color="0.85", linewidth=0.8, label="the other objectives")]


def _exact(
    tree: xr.DataTree, group: str, variable: str, objective: str, *, positive: bool = True
) -> list[xr.DataArray]:
    """Return an objective's curve of a group, for a log axis where it is positive; none where it has none."""
    if group not in tree.children or variable not in tree[group].data_vars:
        return []
    values = tree[group].to_dataset()[variable].dropna("objective", how="all")
    if objective not in values["objective"]:
        return []
    curve = values.sel(objective=objective)
    return [curve.where(curve > 0.0) if positive else curve]


def _plot_weight(tree: xr.DataTree, kept: xr.Dataset, styles: figures.Styles) -> Figure:
    target_weight = results.two_mode(tree, "target").old_weight
    title = f"Mass forgetting: does the old weight survive? (grey line: the target's, {target_weight:g})"
    # Where the means move the weight can lie, and retention tells.
    figure, panels = _over_steps(tree, kept["old_weight"], styles, title, kept["retention"])
    for axes in panels:
        axes.axhline(target_weight, color="0.5", linewidth=0.8)
    panels[0].set_ylim(0.0, 1.0)
    return figure


def _plot_drift(tree: xr.DataTree, kept: xr.Dataset, styles: figures.Styles) -> Figure:
    drift = kept["old_drift"]
    # A log axis cannot show the drift of zero at which an old mode that is right starts.
    figure, panels = _over_steps(
        tree, drift.where(drift > 0.0), styles, "Old-component drift: does the old mode move?"
    )
    figures.log_scale(panels[0], "y")
    panels[0].minorticks_off()  # of all panels, which are small: eight a decade would blacken the axis
    panels[0].set_ylim(bottom=max(_LEAST_DRIFT, panels[0].get_ylim()[0]))
    return figure


def _draw_paths(
    axes: Axes, kept: xr.Dataset, styles: figures.Styles, across: str, up: str, width: float = 1.2
) -> None:
    """Draw each objective's mean over training, and its end with intervals, one variable against another."""
    both = [kept[variable] for variable in (across, up)]
    means = [values.mean(["chain", "draw"], skipna=True) for values in both]
    limits = [interval(values.isel(step=-1)) for values in both]
    for objective, look in styles.items():
        path = [mean.sel(objective=objective) for mean in means]
        axes.plot(*path, color=look["color"], linestyle=look["linestyle"], alpha=0.6, linewidth=width)
        end = [float(values[-1]) for values in path]
        spans = [
            np.abs(limit.sel(objective=objective).to_numpy() - mean)[:, None]
            for limit, mean in zip(limits, end, strict=True)
        ]
        marker: figures.Look = {
            "fmt": look["marker"],
            "color": look["color"],
            "markersize": 5,
            "capsize": 3,
        }
        axes.errorbar(end[0], end[1], xerr=spans[0], yerr=spans[1], label=objective, **marker)


def _plot_forward_kl(tree: xr.DataTree, kept: xr.Dataset, styles: figures.Styles) -> Figure:
    figure, panels = plt.subplots(1, 2, figsize=(9.4, 4.6), sharex=True)
    paths = {name: {**look, "linestyle": "-"} for name, look in styles.items()}
    exact = False
    for axes, name in zip(panels, ("old_weight", "retention"), strict=True):
        _draw_paths(axes, kept, paths, "forward_kl", name, width=3.5)
        for objective in styles:
            curves = [_exact(tree, "population", v, objective, positive=False) for v in ("forward_kl", name)]
            if all(curves):
                exact = True
                axes.plot(curves[0][0], curves[1][0], color="black", linestyle=":", linewidth=1.0)
        axes.set(xlabel=figures.label(kept["forward_kl"]) + "\nfarther from the start →")
        axes.set_ylabel(figures.label(kept[name]))
        axes.set_xlim(left=0.0)
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.0)
    words = f"path: mean over training, point: end with {interval_percent()} interval"
    words += ", dotted: exact flow" if exact else ""
    figure.suptitle(f"Forgetting against the forward KL of the start from the learner\n{words}")
    figures.legend_below(figure, *panels[0].get_legend_handles_labels(), fontsize=9)
    return figure


def _plot_frontier(kept: xr.Dataset, styles: figures.Styles) -> Figure:
    shown = [name for name in ("retention", "old_coverage", "old_drift") if name in kept]
    figure, panels = plt.subplots(1, len(shown), figsize=(4.5 * len(shown), 4.4), squeeze=False)
    for axes, name in zip(panels[0], shown, strict=True):
        _draw_paths(axes, kept, styles, "new_gap", name)
        axes.set(xlabel=figures.label(kept["new_gap"]) + "\nlearnt →", ylabel=figures.label(kept[name]))
        # Behaviour can be newer than the new task's own: retention is then below 0.
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), None if name == "old_drift" else 1.0)
        axes.invert_xaxis()
    words = f"path: mean over training, point: end with {interval_percent()} interval"
    figure.suptitle(f"Forgetting against learning ({words})")
    figures.legend_below(figure, *panels[0, 0].get_legend_handles_labels(), fontsize=9)
    return figure
