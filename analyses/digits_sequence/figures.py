"""The figures of a run: tasks over all stages, the matrix R, and the order in which tasks are lost."""

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.core import figures
from analyses.digits_sequence.layout import AT_ONCE, COUNT, EACH, NO_ORDER, order
from analyses.digits_sequence.report import of_source
from analyses.sequence.figures import over_stages, performance
from inference import results
from inference.intervals import interval, interval_percent

# Of each measurement at the end of a stage the marker, and how far it stands beside, as a share of all steps.
_MEASURED = {EACH: ("o", -0.015), AT_ONCE: ("x", 0.015)}

# How far the two points of a pair stand apart, as a share of all predictions' range.
_APART = 0.012

_POOLED = ["chain", "draw"]


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figures ``shares``, ``performance`` and ``order``."""
    with figures.style():
        counted = of_source(tree, COUNT)
        return {
            "shares": _shares(tree, counted),
            "performance": performance(counted, results.converged(counted)),
            "order": _order(tree),
        }


def _shares(tree: xr.DataTree, counted: xr.DataTree) -> Figure:
    weight = tree["stages"].to_dataset()["weight"]
    names = [str(task) for task in weight["task"].to_numpy()]
    looks, last = figures.line_style(names), float(tree["trajectory"]["step"].to_numpy()[-1])
    legend = [
        Line2D([], [], color="0.3", marker=marker, linestyle="-", label=f"measured, {source}")
        for source, (marker, _) in _MEASURED.items()
    ]
    figure, panels = over_stages(
        counted,
        results.converged(counted),
        "counted_weight",
        "Share of every task, counted (lines) and measured (points)",
        dotted=("task_retention", "the mixture"),
        more=legend,
    )
    ends = weight["stage"].to_numpy() / weight["stage"].to_numpy()[-1]
    for objective, axes in panels.items():
        for source, (marker, beside) in _MEASURED.items():
            own = weight.sel(objective=objective, source=source)
            mean, limits = own.mean(_POOLED), interval(own)
            for task, look in looks.items():
                at = last * (ends + beside)
                low, high = (limits.sel(task=task, ci_bound=bound) for bound in ("lower", "upper"))
                axes.vlines(at, low, high, color=look["color"], linewidth=1.0)
                axes.plot(at, mean.sel(task=task), marker, color=look["color"], markersize=4)
        axes.set_xlim(-0.04 * last, 1.04 * last)
    return figure


def _order(tree: xr.DataTree) -> Figure:
    """Draw how the found change of a pair stands to the predicted one, a panel a stage."""
    frame = order(tree)
    stages = sorted(frame["stage"].unique())
    looks = figures.line_style(list(dict.fromkeys(frame["objective"])))
    figure, panels = plt.subplots(
        1, len(stages), figsize=(4.6 * len(stages), 4.4), sharex=True, sharey=True, squeeze=False
    )
    taught = tree["stages"]["stage_task"].to_numpy()
    apart = _APART * (frame["predicted"].max() - frame["predicted"].min())
    for axes, stage in zip(panels[0], stages, strict=True):
        own = frame[frame["stage"] == stage]
        for source, filled, beside in ((COUNT, True, 0.0), (EACH, False, apart)):
            for objective, look in looks.items():
                rows = own[(own["source"] == source) & (own["objective"] == objective)]
                x = rows["predicted"] + beside
                fill = look["color"] if filled else "white"
                axes.vlines(x, rows["found_lower"], rows["found_upper"], color=look["color"], alpha=0.6)
                axes.plot(
                    x,
                    rows["found"],
                    marker=look["marker"],
                    color=look["color"],
                    markerfacecolor=fill,
                    linestyle="none",
                    label=objective if filled else None,
                )
        axes.axvspan(-NO_ORDER, NO_ORDER, color="0.9", zorder=0)
        axes.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
        axes.axline((0.0, 0.0), slope=1.0, color="0.5", linestyle=":")
        axes.set(xlabel="predicted by the mixture [nat]")
        axes.set_title(f"stage {stage}, which teaches {taught[int(stage)]}", fontsize=9)
    panels[0, 0].set_ylabel("found: change of log(larger/smaller) [nat]")
    percent = interval_percent()
    figures.heading(
        figure,
        "Which of two tasks that are not taught loses more: below 0 the one that held more",
        f"filled: counted, hollow: measured, each against the rest; mean and {percent} interval of all "
        "networks; grey: the mixture predicts no order; dotted: as predicted",
    )
    figures.legend_below(figure, *panels[0, 0].get_legend_handles_labels(), columns=6, fontsize=9)
    return figure
