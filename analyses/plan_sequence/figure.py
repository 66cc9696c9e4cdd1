"""The figure of a plan of a sequence: what is kept and learnt against each objective's hyperparameter."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from analyses.core import figures


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``plan``: a panel a hyperparameter, and in it a colour an objective."""
    plan, curve = (tree[name].to_dataset() for name in ("plan", "curve"))
    names = [str(name) for name in plan["objective"].to_numpy()]
    styles = figures.line_style(names)
    by_hyperparameter: dict[str, list[str]] = {}
    for name in names:
        hyperparameter = str(plan["hyperparameter"].sel(objective=name).item())
        if np.isfinite(curve["kept_part"].sel(objective=name)).any():
            by_hyperparameter.setdefault(hyperparameter, []).append(name)
    count = max(1, len(by_hyperparameter))
    with figures.style():
        figure, panels = figures.panels(count, (3.8, 3.0), columns=2, margin=(0.0, 1.0), sharey=True)
        for axes, (hyperparameter, turned) in zip(panels, by_hyperparameter.items(), strict=False):
            for name in turned:
                one, look = curve.sel(objective=name), styles[name]
                x = one["hyperparameter_value"]
                marked = {"color": look["color"], "marker": look["marker"], "markersize": 4}
                axes.plot(x, one["kept_part"], label=name, **marked)
                axes.plot(x, one["plasticity"], linestyle="--", linewidth=1.0, color=look["color"])
                smallest = float(plan["smallest_value"].sel(objective=name))
                if np.isfinite(smallest):
                    axes.axvline(smallest, color=look["color"], linewidth=0.8, linestyle=(0, (1, 2)))
            if float(one["hyperparameter_value"][0]) > 0.0:
                figures.log_scale(axes, "x")
                values = one["hyperparameter_value"].dropna("value_index").to_numpy()
                axes.set_xticks(values, [f"{value:g}" for value in values])
                axes.set_xticks([], minor=True)
            axes.axhline(float(tree.attrs["keep"]), color="0.3", linestyle=":")
            axes.set(xlabel=hyperparameter, ylim=(-0.03, 1.03))
        for axes in panels[::2]:
            axes.set_ylabel("part kept of the task kept\nleast (solid), plasticity (dashed)")
        figures.heading(figure, "Dotted: what is to be kept, and the smallest setting that keeps it")
        handles, labels = [], []
        for axes in panels:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.append(handle)
                labels.append(label)
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    return {"plan": figure}
