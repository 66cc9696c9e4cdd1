"""The figures of a run."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.core import figures as house
from analyses.core import tables
from analyses.digits import evals_report
from analyses.digits.report import final
from inference.intervals import interval_percent

# Images in a row and rows of a grid.
_COLUMNS, _ROWS = 8, 5


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figures ``images``, ``training``, ``lens`` and ``answers``."""
    with house.style():
        return {
            "images": _images(tree),
            "training": _training(tree),
            "lens": _lens(tree),
            "answers": evals_report.plot(tree),
        }


def _grid(axes: Axes, images: np.ndarray, title: str) -> None:
    """Draw some images as one picture, a pixel apart."""
    count, side = _COLUMNS * _ROWS, images.shape[-1]
    framed = np.pad(images[:count].astype(float), ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    joined = framed.reshape(_ROWS, _COLUMNS, side + 1, side + 1).swapaxes(1, 2)
    axes.imshow(joined.reshape(_ROWS * (side + 1), -1), cmap="gray", interpolation="nearest")
    axes.set_title(title, loc="center", fontsize=9)
    axes.set_axis_off()


def _images(tree: xr.DataTree) -> Figure:
    shown = tree["shown"].to_dataset()
    names, last = [str(n) for n in shown["objective"].to_numpy()], shown["checkpoint"].to_numpy()[-1]
    real = [(f"real digits, {m} task", shown["real_image"].sel(mode=m).to_numpy()) for m in ("old", "new")]
    before = [("before post-training", shown["image"].isel(objective=0, checkpoint=0).to_numpy())]
    after = [
        (f"{n}, step {last}", shown["image"].sel(objective=n).isel(checkpoint=-1).to_numpy()) for n in names
    ]
    everything = real + before + after
    rows = -(-len(everything) // 3)
    figure, panels = plt.subplots(rows, 3, figsize=(9.0, 2.15 * rows + 0.4))
    for axes, (title, images) in zip(panels.ravel(), everything, strict=False):
        _grid(axes, images, title)
    for axes in panels.ravel()[len(everything) :]:
        axes.set_visible(False)
    figure.suptitle("Images of one network before and after post-training on the new digits 5 to 9")
    return figure


def _training(tree: xr.DataTree) -> Figure:
    posterior, count = tree["posterior"].to_dataset(), tree["count"].to_dataset()
    looks = house.line_style([str(n) for n in posterior["objective"].to_numpy()])
    steps = posterior["checkpoint"].to_numpy().astype(float)
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 4.6))
    for axes, name in zip(panels, ("old_weight", "old_drift"), strict=True):
        for number, (objective, look) in enumerate(looks.items()):
            values = posterior[name].sel(objective=objective)
            mean, low, high = tables.interval_columns(name, values, ["seed", "chain", "draw"]).values()
            # A little apart, so that intervals do not hide one another.
            at = steps + (number - 0.5 * len(looks)) * 0.006 * steps[-1]
            axes.vlines(at, low, high, color=look["color"], alpha=0.5, linewidth=1.5)
            axes.plot(at, mean, label=objective, markersize=4, linewidth=1.2, **look)
            if name == "old_weight":
                counted = count["counted_old_weight"].sel(objective=objective).mean("seed")
                axes.plot(at, counted, "_", color=look["color"], markersize=11, markeredgewidth=2)
        axes.set(xlabel="post-training step", ylabel=house.label(posterior[name]))
    panels[0].set_ylim(0.0, 1.0)
    panels[0].set_title("Mass: old digits' share (bars: count by classifiers)", fontsize=9)
    panels[1].set_ylim(bottom=0.0)
    panels[1].set_title("Drift: distance of the old mode from real old digits", fontsize=9)
    figure.suptitle(f"Points: mean, lines: {interval_percent()} interval over all seeds")
    house.legend_below(figure, *panels[0].get_legend_handles_labels(), columns=3)
    return figure


def _lens(tree: xr.DataTree) -> Figure:
    posterior, frame = tree["posterior"].to_dataset(), final(tree)
    looks = house.line_style([str(n) for n in posterior["objective"].to_numpy()])
    figure, (frontier, lens) = plt.subplots(1, 2, figsize=(9.5, 4.6))
    dims = ["seed", "chain", "draw"]
    for objective, look in looks.items():
        values = posterior.sel(objective=objective)
        x, y = values["new_gap"].mean(dims), values["old_weight"].mean(dims)
        frontier.plot(x, y, label=objective, markersize=4, linewidth=1.2, **look)
        row = frame.loc[objective]
        beside, above = (
            [[row[name] - row[f"{name}_lower"]], [row[f"{name}_upper"] - row[name]]]
            for name in ("new_gap", "old_weight")
        )
        frontier.errorbar(x[-1], y[-1], above, beside, color=look["color"], alpha=0.5)
        style = {name: look[name] for name in ("color", "marker")}
        lens.errorbar(row["predicted"], row["old_weight"], above, **style)
    frontier.invert_xaxis()
    frontier.set(xlabel="new gap [Mahalanobis]\nlearnt →", ylabel="old weight", ylim=(0.0, 1.0))
    frontier.set_title("Retention against learning (interval: last checkpoint)", fontsize=9)
    lens.plot([0.0, 1.0], [0.0, 1.0], color="0.5", linestyle=":", label="as predicted")
    lens.set(
        xlabel="old weight at which the two-mode lens ends",
        ylabel="measured old weight",
        xlim=(-0.05, 1.0),
        ylim=(0.0, 1.0),
    )
    lens.set_title("The lens against the transformer, last checkpoint", fontsize=9)
    handles, labels = frontier.get_legend_handles_labels()
    more = lens.get_legend_handles_labels()
    house.legend_below(figure, handles + more[0], labels + more[1])
    return figure
