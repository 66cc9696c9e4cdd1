"""The figures of `analyses.near_on_policy`: maps, and the rows of them that were trained as curves."""

from collections.abc import Hashable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib import patheffects
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect

from analyses.core import figures
from analyses.near_on_policy.maps import NAMES
from inference.intervals import interval, interval_percent

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

# Colours of a measure and the ends that values lie beyond, limits of its curves, where theory's lines are.
_MAPS: dict[str, figures.Look] = {
    "retention": {"cmap": "viridis", "norm": PowerNorm(0.5, 0.0, 1.0, clip=True), "extend": "min"},
    "old_drift": {"cmap": "cividis", "norm": LogNorm(1e-2, 3.0, clip=True), "extend": "both"},
}
_LABELS = {"retention": "retention", "old_drift": "old drift [Mahalanobis]"}
_LIMITS = {"retention": (-0.05, 1.0), "old_drift": (1e-3, 5.0)}
_LEVELS = {"retention": [0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.6, 0.8], "old_drift": [0.25, 0.5, 1.0, 1.5]}

# Retention is the old weight where the means are right, as theory takes them.
_PREDICTED = {"retention": "old_weight", "old_drift": "old_drift"}

_CIRCLE: figures.Look = {"marker": "o", "linestyle": "", "markersize": 6, "markeredgecolor": "white"}

_HALO: list[AbstractPathEffect] = [patheffects.withStroke(linewidth=2.2, foreground="black", alpha=0.6)]

# Values named on an axis.
_NUM_TICKS = 5


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return a figure ``near_on_policy_X`` a map X: retention and drift on it, and its trained rows below."""
    with figures.style():
        return {f"near_on_policy_{name}": _plot_method(tree, name) for name in NAMES}


def _plot_method(tree: xr.DataTree, name: str) -> Figure:
    """Draw the maps of a method side by side, each above the rows of it that were trained."""
    parts = {part: node.to_dataset() for part, node in tree[name].children.items()}
    words = parts["theory"].attrs
    figure, panels = plt.subplots(2, len(_MAPS), figsize=(8.0, 6.2), sharex="col", height_ratios=(1.1, 1.0))
    for (above, below), (measure, look) in zip(panels.T, _MAPS.items(), strict=True):
        mesh = _draw_map(above, parts, measure)
        bar = figures.color_bar(figure, mesh, above, pad=0.02, extend=look["extend"])
        bar.set_label(_LABELS[measure])
        _draw_rows(below, parts, measure)
        below.set_xlabel(_AXES[_dims(parts)[1]])
    if name == "ttt_discover":
        _draw_adaptive(panels[1], tree)
    handles, labels = panels[1, 0].get_legend_handles_labels()
    handles += _handles(tree.attrs, words["words"])
    labels += [str(handle.get_label()) for handle in handles[len(labels) :]]
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    title = f"{words['title']}: what is left of old behaviour, and how far the old mode moves"
    figures.heading(figure, title, _words(tree.attrs))
    return figure


def _words(settings: Mapping[Hashable, object]) -> str:
    """Return where the learners start, and what they have done."""
    return (
        f"after {settings['num_steps']} steps of rate {settings['learning_rate']:g} from old weight "
        f"{settings['start_old_weight']:g} and a right old mean, separation {settings['separation']:g}"
    )


def _handles(settings: Mapping[Hashable, object], theory: str) -> list[Artist]:
    """Return what a legend says of the looks that all rows share."""
    trained = f"mean of {settings['num_replicates']} trainings in batches of {settings['batch_size']}"
    line: figures.Look = {"color": "0.3", "linewidth": 1.2}
    return [
        Line2D([], [], **line, label="colours and curves: exact descent"),
        Line2D([], [], color="white", linewidth=1.2, path_effects=_HALO, label=f"theory on a map: {theory}"),
        Line2D([], [], **(line | {"linestyle": ":"}), label="theory beside a curve: the same"),
        Line2D([], [], **_CIRCLE, color="0.3", label=f"{trained} (drift: of the mean training)"),
        Line2D(
            [],
            [],
            color="0.3",
            linestyle="",
            marker="|",
            markersize=10,
            markeredgewidth=1.5,
            label=f"{interval_percent()} interval of single trainings",
        ),
    ]


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


def _draw_map(axes: Axes, parts: Mapping[str, xr.Dataset], measure: str) -> ScalarMappable:
    """Draw the exact values, theory's lines over them, and the trainings in them; return what has colours."""
    ordinate, abscissa = _dims(parts)
    exact = parts["population"][measure].transpose(ordinate, abscissa)
    look = {name: _MAPS[measure][name] for name in ("cmap", "norm")}
    mesh = axes.pcolormesh(exact, **look, edgecolors="none", rasterized=True)
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
    return mesh


def _shifted(ticks: tuple[np.ndarray, list[str]]) -> tuple[np.ndarray, list[str]]:
    return 0.5 + ticks[0], ticks[1]


def _draw_rows(axes: Axes, parts: Mapping[str, xr.Dataset], measure: str) -> None:
    ordinate, abscissa = _dims(parts)
    rows = parts["trained"][ordinate].to_numpy()
    x = 0.5 + np.arange(parts["population"].sizes[abscissa])
    places = 0.5 + _place(parts, abscissa)
    for number, (value, colour) in enumerate(zip(rows, figures.ordered_colours(len(rows)), strict=True)):
        curve = parts["population"][measure].sel({ordinate: value})
        look: figures.Look = {"color": colour, "label": f"{_SHORT[ordinate]} {value:g}"}
        if measure == "old_drift":  # a log axis cannot show none
            curve = curve.where(curve > 0.0)
        axes.plot(x, curve, linestyle=("-", "--", "-.")[number % 3], **look)
        if _PREDICTED[measure] in parts["theory"]:
            predicted = parts["theory"][_PREDICTED[measure]].sel({ordinate: value})
            axes.plot(x, predicted, color=colour, linestyle=":", linewidth=1.2)
        shift = 0.12 * (number - 0.5 * (len(rows) - 1))
        _draw_trained(axes, places + shift, parts["trained"].sel({ordinate: value}), measure, color=colour)
    axes.set(ylim=_LIMITS[measure], ylabel=_LABELS[measure])
    if measure == "old_drift":
        figures.log_scale(axes, "y")


def _draw_trained(axes: Axes, x: np.ndarray, trained: xr.Dataset, measure: str, **look: object) -> None:
    """Draw what is comparable of trainings with the interval of single ones."""
    low, high = (interval(trained[measure]).sel(ci_bound=bound).to_numpy() for bound in ("lower", "upper"))
    axes.vlines(x, low, high, color=look["color"])
    axes.plot(x, _comparable(trained, measure).to_numpy(), **(_CIRCLE | look))


def _draw_adaptive(panels: Sequence[Axes], tree: xr.DataTree) -> None:
    """Draw the trainings with an adaptive η beside those with a fixed one."""
    trained = tree["adaptive"]["trained"].to_dataset()
    kl_weight = tree["ttt_discover"]["population"]["kl_weight"].to_numpy()
    x = 0.8 + np.searchsorted(kl_weight, trained["kl_weight"].to_numpy())
    for axes, measure in zip(panels, _MAPS, strict=True):
        look = {"color": "black", "marker": "*", "markersize": 8, "markeredgecolor": "black"}
        _draw_trained(axes, x, trained, measure, label="η adaptive, trainings", **look)
