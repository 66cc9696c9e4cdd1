"""The figures of a sequence: tasks over all stages, the matrix R[stage, task], and the frontier."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from analyses.core import figures, tables
from analyses.sequence.sequence import SENSES
from inference import results
from inference.intervals import interval, interval_percent

# Panels side by side: of curves, and of the wider matrices.
_COLUMNS, _WIDE = 4, 2

# What the title above all panels takes [inch].
_ABOVE = 0.0, 0.8

# Of the matrix: white figures on what is darker than this, and the frame of the stage's own task.
_DARK, _FRAME = 0.55, "crimson"


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figures ``weights``, ``retention``, ``performance`` and ``frontier``."""
    kept = results.converged(tree)
    with figures.style():
        return {
            "weights": over_stages(tree, kept, "weight", "Weights over all stages")[0],
            "retention": over_stages(tree, kept, "task_retention", "Behaviour over all stages")[0],
            "performance": performance(tree, kept),
            "frontier": _plot_frontier(tree, kept),
        }


def over_stages(
    tree: xr.DataTree,
    kept: xr.DataArray,
    variable: str,
    title: str,
    *,
    dotted: tuple[str, str] | None = None,
    more: Sequence[Line2D] = (),
) -> tuple[Figure, dict[str, Axes]]:
    """Draw a variable of every task over all stages, a panel an objective.

    Args:
        tree: of a sequence.
        kept: the replicates that are drawn.
        variable: of ``/trajectory``, with a dim task.
        title: above the panels.
        dotted: the variable of ``/population`` that is drawn dotted, and its name; None for the same of the
            exact flow.
        more: what the legend names besides.

    Returns:
        The figure, and its panels by objective.
    """
    of_flow, flow = dotted or (variable, "exact flow")
    shown = tree["trajectory"].to_dataset()[variable].where(kept)
    names, tasks = ([str(n) for n in shown[dim].to_numpy()] for dim in ("objective", "task"))
    own = tree["constant_data"]["own_stage"]
    styles = {
        task: look | {"linestyle": "--" if int(own.sel(task=task)) else "-"}
        for task, look in figures.line_style(tasks).items()
    }
    mean, limits = shown.mean(["chain", "draw"], skipna=True), interval(shown)
    step, begins = shown["step"].to_numpy(), _begins(tree)
    figure, panels = figures.panels(
        len(names) + 1, (2.5, 2.1), columns=_COLUMNS, margin=_ABOVE, sharex=True, sharey=True
    )
    legend = panels.pop()
    legend.set_axis_off()
    for axes, name in zip(panels, names, strict=True):
        for task, look in styles.items():
            chosen = {"objective": name, "task": task}
            low, high = (limits.sel(chosen | {"ci_bound": bound}) for bound in ("lower", "upper"))
            axes.fill_between(step, low, high, color=look["color"], alpha=0.25, linewidth=0)
            line = figures.line_of(look)
            axes.plot(step, mean.sel(chosen), label=figures.entry(task), linewidth=1.5, **line)
            exact = _exact(tree, "population", of_flow, chosen)
            if exact is not None:
                axes.plot(exact["step"], exact, color="black", linestyle=":", linewidth=1.0, zorder=4)
        for place, task in begins:
            axes.axvline(place, color="0.6", linewidth=0.8, zorder=0)
            axes.annotate(
                task,
                (place, 1.0),
                (2, -2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                va="top",
                fontsize=8,
                color="0.35",
            )
        axes.set_title(name, fontsize=9)
    panels[0].set(xlim=(0, float(step[-1])), ylim=(min(0.0, float(mean.min())), 1.0))
    columns = min(_COLUMNS, len(names) + 1)
    for axes in panels[-columns:]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel("training step, over all stages")
    figure.supylabel(figures.label(shown))
    figures.heading(figure, f"{title} (a vertical line begins the stage of the task beside it)")
    figure.get_layout_engine().set(rect=(0.015, 0.0, 0.985, 1.0))  # type: ignore[union-attr, call-arg]
    handles: list[Line2D | Patch] = [
        Line2D(
            [], [], label=figures.entry(task), color=look["color"], linestyle=look["linestyle"], linewidth=1.5
        )
        for task, look in styles.items()
    ]
    handles.append(Patch(color="0.3", alpha=0.25, linewidth=0, label=f"{interval_percent()} interval"))
    if "population" in tree.children:
        handles.append(Line2D([], [], color="black", linestyle=":", linewidth=1.0, label=flow))
    legend.legend(handles=[*handles, *more], loc="center", fontsize=8)
    return figure, dict(zip(names, panels, strict=True))


def _begins(tree: xr.DataTree) -> list[tuple[float, str]]:
    """Return where each stage begins, in steps, and the task that it teaches."""
    stage, step = (tree["trajectory"][name].to_numpy() for name in ("stage", "step"))
    taught = [str(task) for task in tree["stages"]["stage_task"].to_numpy()]
    return [(float(step[stage < number][-1]), taught[number]) for number in range(1, len(taught))]


def _exact(tree: xr.DataTree, group: str, variable: str, chosen: dict[str, str]) -> xr.DataArray | None:
    """Return what the exact flow of an objective is, None where none was followed."""
    if group not in tree.children or chosen["objective"] not in tree[group]["objective"]:
        return None
    return tree[group].to_dataset()[variable].sel(chosen)


def performance(tree: xr.DataTree, kept: xr.DataArray) -> Figure:
    """Draw the matrix R[stage, task] of every objective."""
    found = tree["stages"]["task_performance"].where(kept)
    names, tasks = ([str(n) for n in found[dim].to_numpy()] for dim in ("objective", "task"))
    taught = [str(task) for task in tree["stages"]["stage_task"].to_numpy()]
    mean, limits = found.mean(["chain", "draw"], skipna=True), interval(found)
    size = 1.0 + 0.95 * len(tasks), 0.9 + 0.5 * len(taught)
    figure, panels = figures.panels(len(names), size, columns=_WIDE, margin=_ABOVE)
    rows = ["start", *(f"after {task}" for task in taught[1:])]
    for place, (axes, name) in enumerate(zip(panels, names, strict=True)):
        values = mean.sel(objective=name).transpose("stage", "task").to_numpy()
        low, high = (
            limits.sel(objective=name, ci_bound=bound).transpose("stage", "task").to_numpy()
            for bound in ("lower", "upper")
        )
        drawn = axes.pcolormesh(values, vmin=0.0, vmax=1.0, cmap="cividis", edgecolors="white", linewidth=0.5)
        axes.grid(False)
        for (row, column), value in np.ndenumerate(values):
            bounds = f"[{low[row, column]:.2f}, {high[row, column]:.2f}]"
            text = tables.MISSING if np.isnan(value) else f"{value:.2f}"
            if np.isfinite(low[row, column]):
                text += f"\n{bounds}"
            look: figures.Look = {"ha": "center", "va": "center", "fontsize": 8}
            axes.text(column + 0.5, row + 0.5, text, color="white" if value < _DARK else "black", **look)
            if row and taught[row] == tasks[column]:
                axes.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor=_FRAME, linewidth=1.6))
        axes.set_xticks(np.arange(len(tasks)) + 0.5, tasks, fontsize=8)
        axes.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize=8)
        axes.tick_params(labelleft=place % _WIDE == 0)
        axes.invert_yaxis()
        axes.set_title(name, fontsize=9)
    figure.colorbar(drawn, ax=panels, label="performance R", shrink=0.6, pad=0.01)
    words = f"mean with {interval_percent()} interval, the stage's own task framed"
    figures.heading(figure, f"Performance R on every task after every stage ({words})")
    return figure


def _plot_frontier(tree: xr.DataTree, kept: xr.DataArray) -> Figure:
    found = tree["forgetting"].to_dataset().where(kept)
    styles = figures.line_style([str(name) for name in found["objective"].to_numpy()])
    figure, panels = figures.panels(len(SENSES), (4.6, 4.6), sharey=True)
    plasticity = found["plasticity"]
    for axes, sense in zip(panels, SENSES, strict=True):
        lost = found[sense].mean("task", skipna=True)
        for objective, look in styles.items():
            both = [values.sel(objective=objective) for values in (plasticity, lost)]
            x, y = (float(values.mean(skipna=True)) for values in both)
            beside, above = (
                np.abs(interval(values).to_numpy() - mean)[:, None]
                for values, mean in zip(both, (x, y), strict=True)
            )
            marker = {"fmt": look["marker"], "color": look["color"], "markersize": 6, "capsize": 3}
            axes.errorbar(x, y, xerr=beside, yerr=above, label=objective, **marker)
        axes.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
        words = {
            "forgetting_from_best": "best before, minus last",
            "forgetting_from_own_stage": "own stage, minus last",
        }
        axes.set(
            xlabel="plasticity: performance on a new task\nafter its own stage, learnt →",
            ylabel="forgetting of earlier tasks, mean",
        )
        axes.set_title(f"{sense.replace('_', ' ')}: {words[sense]}", loc="center", fontsize=9)
        axes.tick_params(labelleft=True)
    percent = interval_percent()
    figures.heading(figure, f"Forgetting against plasticity (mean and {percent} interval of the sequences)")
    figures.legend_below(figure, *panels[0].get_legend_handles_labels(), fontsize=9)
    return figure
