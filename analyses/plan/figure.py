"""The figure of a plan: the paths, and what is kept against each objective's hyperparameter."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.core import figures

# How the old weight is drawn beside retention.
_WEIGHT: figures.Look = {"linewidth": 0.8, "alpha": 0.5}


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``plan``: the paths, and what is kept against each objective's hyperparameter.

    Lines are retention; the old weight is beside it, thin and pale.
    """
    plan, path, curve = (tree[name].to_dataset() for name in ("plan", "path", "curve"))
    wanted = tree.attrs["keep"]
    start = tree.attrs["start_old_weight"]
    styles = figures.line_style([str(name) for name in path["objective"].to_numpy()])
    turned = _turned(plan, curve)
    with figures.style():
        figure, (first, *others) = figures.panels(1 + len(turned), (3.2, 3.2), margin=(0.0, 1.2))
        for name, look in styles.items():
            line = figures.line_of(look)
            first.plot(path["time"], path["retention"].sel(objective=name), label=name, **line)
            first.plot(path["time"], path["old_weight"].sel(objective=name), **line | _WEIGHT)
        first.axhline(wanted * start, color="0.3", linestyle=":")
        first.set(xlabel=figures.label(path["time"]), ylabel="retention (thin: old weight)")
        first.set_ylim(min(0.0, float(path["retention"].min())), 1.0)
        for panel, (hyperparameter, names) in zip(others, turned.items(), strict=True):
            for name in names:
                _plot_curve(panel, curve.sel(objective=name), start, styles[name])
                panel.axvline(float(plan["knob_crossing"].sel(objective=name)), color="0.3", linestyle="--")
            panel.axhline(wanted, color="0.3", linestyle=":")
            title = ", ".join(dict.fromkeys(name.split(":")[0] for name in names))
            panel.set(xlabel=hyperparameter, ylabel="retention kept (thin: old weight)")
            panel.set_title(title, loc="center", fontsize="large")
            panel.set_ylim(min(0.0, panel.get_ylim()[0]), max(1.05 * wanted, panel.get_ylim()[1]))
        figures.heading(figure, "Dotted: what is to be kept; dashed: the setting that keeps just as much")
        figures.legend_below(figure, *first.get_legend_handles_labels(), fontsize=8)
    return {"plan": figure}


def _turned(plan: xr.Dataset, curve: xr.Dataset) -> dict[str, list[str]]:
    """Return by hyperparameter the objectives that turn it, but one of those whose curves are the same."""
    turned: dict[str, list[str]] = {}
    for objective, hyperparameter in plan["knob"].to_series().items():
        if hyperparameter:
            drawn, name = turned.setdefault(str(hyperparameter), []), str(objective)
            ends = curve["final_retention"].sel(objective=name)
            if not any(np.allclose(ends, curve["final_retention"].sel(objective=o), 1e-3) for o in drawn):
                drawn.append(name)
    return turned


def _plot_curve(panel: Axes, curve: xr.Dataset, start: float, look: figures.Look) -> None:
    values = curve["knob_value"].to_numpy()
    panel.plot(values, curve["final_retention"] / start, ".-", color=look["color"])
    panel.plot(values, curve["final_old_weight"] / start, color=look["color"], **_WEIGHT)
    if values[0]:
        figures.log_scale(panel, "x")
    else:
        figures.log_scale(panel, "x", linear_below=values[1])
        panel.set_xlim(left=0.0)
        # The power of ten below the first value would be written over the 0.
        powers = 10.0 ** np.arange(np.ceil(np.log10(values[1])), np.floor(np.log10(values[-1])) + 1)
        panel.set_xticks([0.0, *powers])
