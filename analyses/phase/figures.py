"""The figures: maps of what is left of the old mode, and of how far it has moved."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.core import figures
from analyses.phase.lines import hyperparameter_of, overlapping_below, started, starved_below, turned
from analyses.phase.phase import kept_by_most
from inference import results

_LEAST_DRIFT = 1e-3


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return a figure ``phase_X`` an objective X: what is left of the old mode, and how far it has moved."""
    final = tree["final"].to_dataset().where(results.converged(tree))
    kept = kept_by_most(final["retention"])
    drift = final["old_drift"].mean(["chain", "draw"], skipna=True)
    largest = max(2.0 * _LEAST_DRIFT, float(drift.max()))
    top = max(tree.attrs["old_weight"], float(kept.max()))
    # The same colours in all figures, which are looked at side by side.
    measures = (
        _Measure(kept, Normalize(0.0, top), "viridis", "retention that\n9 in 10 trainings exceed"),
        _Measure(
            drift.clip(_LEAST_DRIFT),
            LogNorm(_LEAST_DRIFT, largest),
            "cividis",
            "mean old drift\n[Mahalanobis]",
        ),
    )
    with figures.style():
        return {f"phase_{name}": _plot_phase(tree, measures, name) for name in final["objective"].to_numpy()}


class _Measure(NamedTuple):
    """Values over the grid and their colours."""

    values: xr.DataArray
    norm: Normalize
    colours: str
    label: str


def _plot_phase(tree: xr.DataTree, measures: Sequence[_Measure], name: str) -> Figure:
    """Draw an objective's maps over separation and batch size.

    A row is a measure, a column a value of the objective's hyperparameter.
    """
    shares = tree["final"]["knob"].to_numpy()
    beta, gap = tree.attrs["start_old_weight"], tree.attrs["start_new_gap"]
    figure, panels = plt.subplots(
        len(measures),
        len(shares),
        figsize=(2.0 + 2.0 * len(shares), 5.8),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for row, measure in zip(panels, measures, strict=True):
        for axes, value in zip(row, shares, strict=True):
            shown = measure.values.sel(objective=name, knob=value).transpose("batch_size", "separation")
            mesh = axes.pcolormesh(
                shown["separation"],
                np.log2(shown["batch_size"]),
                shown,
                norm=measure.norm,
                cmap=measure.colours,
                shading="nearest",
            )
            axes.grid(visible=False)
            _lines(axes, starved_below(turned(name, value), beta), overlapping_below(beta, gap))
        figures.color_bar(figure, mesh, row, label=measure.label, extend="min")
    for axes, value in zip(panels[0], shares, strict=True):
        objective = turned(name, value)
        drawn = "" if np.isfinite(starved_below(objective, beta)) else "\n(no old sample in a batch)"
        axes.set_title(f"{hyperparameter_of(objective)} {value:g}{drawn}", fontsize=9)
    sizes = tree["final"]["batch_size"].to_numpy()
    for axes in panels[:, 0]:
        axes.set_yticks(np.log2(sizes), [f"{size:g}" for size in sizes])
        axes.set_ylabel("batch size")
    for axes in panels[-1]:
        axes.set_xlabel("separation δ\n[Mahalanobis]")
    figure.legend(handles=_handles(), loc="outside lower center", fontsize=9)
    title = (
        f"{name}: what is left of the old mode (target: {tree.attrs['old_weight']:g}), how far it has moved"
    )
    figures.heading(figure, title, f"start: {started(tree)}")
    return figure


def _handles() -> list[Line2D]:
    """Return what a legend says of the lines of theory."""
    look: figures.Look = {"color": "black", "linewidth": 1.2}
    return [
        Line2D(
            [],
            [],
            **look,
            linestyle="--",
            label="below: more than half of the batches hold no old sample (start)",
        ),
        Line2D(
            [],
            [],
            **look,
            linestyle=":",
            label="left: the new mode claims more than a tenth of the old samples (start)",
        ),
    ]


def _lines(axes: Axes, size: float, separation: float) -> None:
    """Draw the lines of theory, in a colour that shows on every ground; a line outside is left out."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    for colour, width in (("white", 2.6), ("black", 1.2)):
        if np.isfinite(size) and low < np.log2(size) < high:
            axes.axhline(np.log2(size), color=colour, linewidth=width, linestyle="--" if width < 2.0 else "-")
        if left < separation < right:
            axes.axvline(separation, color=colour, linewidth=width, linestyle=":" if width < 2.0 else "-")
    axes.set(xlim=(left, right), ylim=(low, high))
