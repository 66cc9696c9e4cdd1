"""The figure of `analyses.near_on_policy`: maps, and the rows of them that were trained as curves."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect

from analyses.core import figures
from analyses.near_on_policy.maps import NAMES
from inference.intervals import interval, interval_probability

_AXES = {
    "ema": "teacher's rate a step, ema",
    "anchor": "anchor λ",
    "demonstrated_drift": "old drift of the demonstrations",
    "demonstrated_weight": "old weight of the demonstrations",
    "eta": "temperature η",
    "kl_weight": "KL weight λ",
    "beta": "temperature β₁ = β₂",
    "lag": "steps between two syncs, lag",
}
_SHORT = {"ema": "ema", "demonstrated_drift": "drift", "eta": "η", "beta": "β"}

# Colours of a measure, limits of its curves, and where theory's lines are drawn.
_MAPS: dict[str, dict[str, Any]] = {
    "retention": {"cmap": "viridis", "norm": PowerNorm(0.5, 0.0, 1.0, clip=True)},
    "old_drift": {"cmap": "cividis", "norm": LogNorm(1e-2, 3.0, clip=True)},
}
_LIMITS = {"retention": (-0.05, 1.0), "old_drift": (1e-3, 5.0)}
_LEVELS = {"retention": [0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.6, 0.8], "old_drift": [0.25, 0.5, 1.0, 1.5]}

# Retention is the old weight where the means are right, as theory takes them.
_PREDICTED = {"retention": "old_weight", "old_drift": "old_drift"}

_HALO: list[AbstractPathEffect] = [patheffects.withStroke(linewidth=2.2, foreground="black", alpha=0.6)]

# Values named on an axis.
_NUM_TICKS = 5


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``near_on_policy``: maps of retention and drift, and the rows that were trained."""
    with figures.style():
        figure, panels = plt.subplots(4, len(NAMES), figsize=(4.0 * len(NAMES), 13.5), sharex="col")
        for column, name in zip(panels.T, NAMES, strict=True):
            parts = {part: node.to_dataset() for part, node in tree[name].children.items()}
            for place, measure in enumerate(_MAPS):
                _draw_map(column[2 * place], parts, measure)
                _draw_rows(column[2 * place + 1], parts, measure)
            words = parts["theory"].attrs
            column[0].set_title(f"{words['title']}\nlines: theory, {words['words']}", loc="left", fontsize=10)
            column[-1].set_xlabel(_AXES[_dims(parts)[1]])
        measured = tree[NAMES[0]]["population"].to_dataset()
        for place, (measure, look) in enumerate(_MAPS.items()):
            bar = figure.colorbar(ScalarMappable(look["norm"], look["cmap"]), ax=panels[2 * place], pad=0.01)
            bar.set_label(figures.label(measured[measure]))
        _draw_adaptive(panels.T[NAMES.index("ttt_discover")], tree)
        figure.suptitle(_words(tree.attrs), fontsize=11)
    return {"near_on_policy": figure}


def _words(settings: Mapping[Any, Any]) -> str:
    """Return what the figure shows."""
    return (
        f"Retention and old drift after {settings['num_steps']} steps of rate "
        f"{settings['learning_rate']:g}, from old weight {settings['start_old_weight']:g} and a right old "
        f"mean, separation {settings['separation']:g}\n"
        "Maps and curves: exact descent. Dotted curves: theory. Circles: mean of "
        f"{settings['num_replicates']} trainings in batches of {settings['batch_size']}; bars: "
        f"{100 * interval_probability():g} % interval. Stars: adaptive η\n"
        "A circle of the drift is the drift of the mean training, which noise hardly moves; bars are of "
        "single trainings"
    )


def _dims(parts: Mapping[str, xr.Dataset]) -> list[str]:
    """Return the names of ordinate and abscissa."""
    return [str(dim) for dim in parts["population"]["old_weight"].dims]


def _place(parts: Mapping[str, xr.Dataset], dim: str) -> np.ndarray:
    """Return the places on an axis of the values that were trained: values are equidistant there."""
    return np.searchsorted(parts["population"][dim], parts["trained"][dim])


def _ticks(values: xr.DataArray) -> tuple[np.ndarray, list[str]]:
    """Return places and names of some values of an axis."""
    places = np.unique(np.round(np.linspace(0, values.size - 1, _NUM_TICKS)).astype(int))
    return places, [f"{values[i]:g}" for i in places]


def _comparable(trained: xr.Dataset, measure: str) -> xr.DataArray:
    """Return what of the trainings is held against the exact map: of the drift, that of the mean training.

    The mean of the drifts has a floor, set by the noise of the batches.
    """
    if measure == "old_drift":
        return trained["mean_displacement"]
    return trained[measure].mean(["chain", "draw"], skipna=True)


def _draw_map(axes: Axes, parts: Mapping[str, xr.Dataset], measure: str) -> None:
    ordinate, abscissa = _dims(parts)
    exact = parts["population"][measure].transpose(ordinate, abscissa)
    look = _MAPS[measure]
    axes.pcolormesh(exact, **look, edgecolors="none", rasterized=True)
    axes.grid(False)
    if _PREDICTED[measure] in parts["theory"]:
        predicted = parts["theory"][_PREDICTED[measure]].transpose(ordinate, abscissa).to_numpy()
        levels = [level for level in _LEVELS[measure] if predicted.min() < level < predicted.max()]
        if levels:
            centres = [0.5 + np.arange(size) for size in exact.shape]
            lines = axes.contour(centres[1], centres[0], predicted, levels, colors="white", linewidths=1.2)
            lines.set_path_effects(_HALO)
            for text in axes.clabel(lines, fontsize=8, fmt="%g"):
                text.set_path_effects(_HALO)
    trained = _comparable(parts["trained"], measure).transpose(ordinate, abscissa).to_numpy()
    x, y = np.meshgrid(0.5 + _place(parts, abscissa), 0.5 + _place(parts, ordinate))
    axes.scatter(x, y, c=trained, **look, s=70, edgecolors="white", linewidths=1.2, zorder=3)
    axes.set_yticks(*_shifted(_ticks(exact[ordinate])))
    axes.set_xticks(*_shifted(_ticks(exact[abscissa])))
    axes.set_ylabel(_AXES[ordinate])


def _shifted(ticks: tuple[np.ndarray, list[str]]) -> tuple[np.ndarray, list[str]]:
    return 0.5 + ticks[0], ticks[1]


def _draw_rows(axes: Axes, parts: Mapping[str, xr.Dataset], measure: str) -> None:
    ordinate, abscissa = _dims(parts)
    rows = parts["trained"][ordinate].to_numpy()
    x = 0.5 + np.arange(parts["population"].sizes[abscissa])
    places = 0.5 + _place(parts, abscissa)
    for number, (value, colour) in enumerate(zip(rows, figures.ordered_colours(len(rows)), strict=True)):
        curve = parts["population"][measure].sel({ordinate: value})
        look = {"color": colour, "label": f"{_SHORT[ordinate]} {value:g}"}
        if measure == "old_drift":  # a log axis cannot show none
            curve = curve.where(curve > 0.0)
        axes.plot(x, curve, linestyle=("-", "--", "-.")[number % 3], **look)
        if _PREDICTED[measure] in parts["theory"]:
            predicted = parts["theory"][_PREDICTED[measure]].sel({ordinate: value})
            axes.plot(x, predicted, color=colour, linestyle=":", linewidth=1.2)
        shift = 0.12 * (number - 0.5 * (len(rows) - 1))
        _draw_trained(axes, places + shift, parts["trained"].sel({ordinate: value}), measure, color=colour)
    axes.set(ylim=_LIMITS[measure], ylabel=figures.label(parts["population"][measure]))
    if measure == "old_drift":
        axes.set_yscale("log")
    axes.legend(fontsize=8)


def _draw_trained(axes: Axes, x: np.ndarray, trained: xr.Dataset, measure: str, **look: Any) -> None:
    """Draw what is comparable of trainings with the interval of single ones."""
    low, high = (interval(trained[measure]).sel(ci_bound=bound).to_numpy() for bound in ("lower", "upper"))
    axes.vlines(x, low, high, color=look["color"])
    style: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 6, "markeredgecolor": "white"}
    axes.plot(x, _comparable(trained, measure).to_numpy(), **(style | look))


def _draw_adaptive(column: Any, tree: xr.DataTree) -> None:
    """Draw the trainings with an adaptive η beside those with a fixed one."""
    trained = tree["adaptive"]["trained"].to_dataset()
    kl_weight = tree["ttt_discover"]["population"]["kl_weight"].to_numpy()
    x = 0.8 + np.searchsorted(kl_weight, trained["kl_weight"].to_numpy())
    for axes, measure in zip(column[1::2], _MAPS, strict=True):
        look = {"color": "black", "marker": "*", "markersize": 8, "markeredgecolor": "black"}
        _draw_trained(axes, x, trained, measure, label="η adaptive", **look)
        axes.legend(fontsize=8)
