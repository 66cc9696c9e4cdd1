"""What a run says of its evaluation: table, words and figure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import RenderableType

from analyses.core import figures as house
from analyses.core import tables
from analyses.digits.evals_layout import KNOWN, columns, coverage, old_tasks
from analyses.digits.evaluation import NUM_TRUTH
from inference.intervals import interval, interval_percent

# Of logarithmic axes, as probabilities are written.
_TICKS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)

_POOLED = ["seed", "chain", "draw"]


def final(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row an objective: its last checkpoint, the networks' draws put together."""
    last = {name: values.isel(checkpoint=-1, drop=True) for name, values in columns(tree, _POOLED).items()}
    if "evals_truth" in tree.children:
        truth = old_tasks(tree["evals_truth"].to_dataset()).isel(checkpoint=-1, drop=True).mean("seed")
        last |= {f"true_{name}": truth[name] for name in KNOWN}
    return xr.Dataset(last).to_dataframe().loc[tree["evals"]["objective"].to_numpy()]


def table(tree: xr.DataTree) -> RenderableType:
    """Return the last checkpoints as a table for the terminal, an objective a column."""
    rows: list[tables.Column] = []
    for label, name in (("accuracy change", "accuracy_change"), ("lost", "lost"), ("won", "won")):
        rows.append((f"old tasks: {label}", f"answers_{name}"))
        rows.append((f"{label}, by brute force", f"true_{name}"))
    rows += [
        ("old tasks: old weight, 1 - m", "answers_old_weight"),
        ("old weight of images over the start's", "kept_share"),
        ("new task: accuracy change", "answers_gain"),
    ]
    return tables.by_name(
        final(tree),
        rows,
        title="What the answers say: digits of which the upper half is given",
        caption=f"Last checkpoint against the start; mean and {interval_percent()} interval "
        "over the draws of all networks. Old tasks: their mean.",
    )


def words(tree: xr.DataTree) -> str:
    """Return how the instrument stands to brute force, empty where that is not known."""
    if "evals_truth" not in tree.children:
        return ""
    found = coverage(tree)
    each = []
    for name in KNOWN:
        held = found[name].to_numpy()
        off = np.sqrt(float((found[f"{name}_off"] ** 2).mean()))
        each.append(
            f"{name.replace('_', ' ')} {held.sum()} of {held.size} (root mean square of the difference "
            f"{off:.3f}, mean width {float(found[f'{name}_width'].mean()):.3f})"
        )
    return (
        f"Brute force ({NUM_TRUTH:,} completions an item) lies in the {interval_percent()} "
        f"intervals: {'; '.join(each)}. They are intervals of the task, of which the items are a sample; the "
        "truth is that of the items, so more should be held."
    )


def plot(tree: xr.DataTree) -> Figure:
    """Draw what was lost over training, against the images' old weight, and against brute force."""
    known = "evals_truth" in tree.children
    figure, panels = plt.subplots(1, 2 + known, figsize=(9.5 + 3.5 * known, 4.8))
    looks = house.line_style([str(n) for n in tree["evals"]["objective"].to_numpy()])
    _over_training(panels[0], tree, looks)
    _against_images(panels[1], tree, looks)
    if known:
        _against_truth(panels[2], tree, looks)
    figure.suptitle(f"Forgetting in answers: upper half of a digit given, the lower drawn\n{house.points()}")
    house.legend_below(figure, *panels[0].get_legend_handles_labels(), columns=6)
    return figure


def _over_training(axes: Axes, tree: xr.DataTree, looks: house.Styles) -> None:
    found = columns(tree, _POOLED)
    steps = found["answers_lost"]["checkpoint"].to_numpy().astype(float)
    truth = (
        old_tasks(tree["evals_truth"].to_dataset())["lost"].mean("seed")
        if "evals_truth" in tree.children
        else None
    )
    for number, (objective, look) in enumerate(looks.items()):
        at = steps + (number - 0.5 * len(looks)) * 0.008 * steps[-1]
        mean, low, high = (
            found[name].sel(objective=objective).sel(checkpoint=steps)
            for name in ("answers_lost", "answers_lost_lower", "answers_lost_upper")
        )
        axes.vlines(at, low, high, color=look["color"], alpha=0.5, linewidth=1.5)
        axes.plot(at, mean, label=objective, markersize=4, linewidth=1.2, **look)
        if truth is not None:
            places = np.searchsorted(steps, truth["checkpoint"].to_numpy())
            axes.plot(
                at[places],
                truth.sel(objective=objective),
                "_",
                color=look["color"],
                markersize=13,
                markeredgewidth=2,
            )
    axes.set(xlabel="post-training step", ylabel="success lost, E max(p_base - p_run, 0)")
    axes.set_ylim(bottom=0.0)
    title = "Lost of the old tasks"
    axes.set_title(title + (" (bar: brute force)" if truth is not None else ""), fontsize=9)


def _against_images(axes: Axes, tree: xr.DataTree, looks: house.Styles) -> None:
    found = columns(tree, ["chain", "draw"])
    steps = found["answers_lost"]["checkpoint"].to_numpy()
    for objective, look in looks.items():
        where = {"objective": objective, "checkpoint": steps}
        x, y = (found[name].sel(where).to_numpy().ravel() for name in ("kept_share", "answers_old_weight"))
        sides: house.Look = {
            name: np.abs(
                [
                    found[f"{column}_{bound}"].sel(where).to_numpy().ravel() - value
                    for bound in ("lower", "upper")
                ]
            )
            for name, column, value in (("xerr", "kept_share", x), ("yerr", "answers_old_weight", y))
        }
        style = {name: value for name, value in look.items() if name != "linestyle"}
        axes.errorbar(x, y, **sides, linestyle="none", markersize=3.5, elinewidth=0.7, alpha=0.75, **style)
    axes.axline((0.0, 0.0), slope=1.0, color="0.5", linestyle=":")
    axes.set(
        xlabel="old weight of images over the start's (measure)",
        ylabel="old weight of answers, 1 - m (measure_evals)",
        xlim=(0.0, 1.15),
        ylim=(0.0, 1.03),
    )
    axes.set_title("Two old weights, each network and checkpoint", fontsize=9)


def _against_truth(axes: Axes, tree: xr.DataTree, looks: house.Styles) -> None:
    truth = tree["evals_truth"].to_dataset()
    draws = tree["evals"].to_dataset().sel({name: truth[name] for name in ("seed", "checkpoint")})
    limits, mean = interval(draws["lost"]), draws["lost"].mean(["chain", "draw"])
    low, high = (limits.sel(ci_bound=bound, drop=True) for bound in ("lower", "upper"))
    for objective, look in looks.items():
        x, y, below, above = (
            values.sel(objective=objective).transpose("seed", "checkpoint", "task").to_numpy().ravel()
            for values in (truth["lost"], mean, low, high)
        )
        style = {name: value for name, value in look.items() if name != "linestyle"}
        axes.errorbar(
            x,
            y,
            yerr=[y - below, above - y],
            linestyle="none",
            markersize=4,
            elinewidth=1.0,
            alpha=0.8,
            **style,
        )
    ends = [0.6 * float(truth["lost"].min()), 1.5 * float(mean.max())]
    axes.plot(ends, ends, color="0.5", linestyle=":")
    house.log_scale(axes, "xy")
    axes.set(xlabel="lost, by brute force", ylabel="lost, measured")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
        axis.set_ticks([], minor=True)
    axes.set(xlim=ends, ylim=(0.2 * ends[0], ends[1]))
    axes.set_title("Each network and task, last checkpoint", fontsize=9)
