"""The figure of a plan of an evaluation: what is reached against the answers that it costs."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analyses.core import figures
from inference.intervals import interval_percent
from inference.measurement.evals.planning import QUANTITIES

# How far the axis of costs goes beyond the dearest design.
_BEYOND = 10.0


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``plan``: width or probability against the cost, a curve a number of answers."""
    curve, plan, settings = tree["curve"].to_dataset(), tree["plan"].to_dataset(), tree.attrs
    goal = settings["goal"]
    with figures.style():
        figure, axes = plt.subplots(figsize=(6.4, 4.4))
        colours = figures.ordered_colours(curve.sizes["answers"])
        for colour, num in zip(colours, curve["answers"].to_numpy(), strict=True):
            one, design = curve.sel(answers=num), plan.sel(answers=num)
            label = f"{num} answer{'s' if num > 1 else ''} an item"
            line = np.stack([one["cost_tried"], one[f"{goal}_tried"]])
            if np.isfinite(design["cost"]):
                line = np.append(line, [[design["cost"]], [design[goal]]], axis=1)
            axes.plot(*line[:, line[0].argsort()], color=colour, label=label, linewidth=1.6)
            axes.plot(design["cost"], design[goal], "o", color=colour, markersize=5)
            if num == settings["cheapest"]:
                axes.plot(design["cost"], design[goal], "o", color="none", mec="0.2", markersize=11)
        axes.axhline(settings["wanted"], color="0.3", linestyle=":")
        figures.log_scale(axes, "x")
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        reached = np.isfinite(plan["cost"])
        if reached.any():
            axes.set_xlim(float(curve["cost_tried"].min()), _BEYOND * float(plan["cost"].max()))
        percent = interval_percent()
        name = settings["of"].replace("_", " ")
        if goal == "width":
            figures.log_scale(axes, "y")
            for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                which(lambda y, _: f"{y:.2g}")
            axes.set_ylabel(f"expected width of the {percent} interval of {name}")
        else:
            size = abs(settings["value"] - QUANTITIES[settings["of"]][0])
            axes.set_ylabel(f"probability to see a loss of {size:.3g} in {name}")
            axes.set_ylim(-0.02, 1.02)
            axes.yaxis.set_major_locator(MaxNLocator(6))
        whose = f"{settings['seeds']} runs" if "seed_sd" in settings else "run"
        axes.set_xlabel(f"generated answers of base and {whose}")
        words = "dotted: wanted; ring: cheapest" if reached.any() else "dotted: wanted, not reached"
        axes.set_title(words, loc="center")
        figures.legend_below(figure, *axes.get_legend_handles_labels(), columns=3, fontsize=9)
    return {"plan": figure}
