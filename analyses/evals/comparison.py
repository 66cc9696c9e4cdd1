"""Which arm of evaluation logs forgot less, at the end and where arms have learnt alike? Table and figure."""

import json
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import RenderableType
from rich.text import Text

from analyses.core import figures, tables
from analyses.evals import text_rows
from inference.intervals import interval, interval_percent
from inference.measurement.evals.compare_evals import ALL, COMPARED, MOST_BEFORE_FIRST, compare_evals
from inference.measurement.verdict.kinds import GOOD, UNTRUSTED, kind_of, of_kind, worst
from mixture_models.validation import InputError

#: The group of the tree that holds the comparison, over (at, task, run, other).
GROUP = "comparison"

#: Rows of the table at most; with more it shows the mean over tasks alone.
MOST_ROWS = 30

# Widths of the label and of probability and difference of two quantities: 80 with the gaps between them.
_WIDTHS = (24, 9, 17, 9, 17)

# What is shown, the direction in which it is better, and its headings.
_SHOWN = {
    "lost": ("smaller", "P(lost\nless)", "lost:\ndifference"),
    "old_weight": ("larger", "P(kept\nmore)", "old weight:\ndifference"),
    "accuracy_change": ("larger", "P(change\nlarger)", "accuracy change:\ndifference"),
}

# Attribute of the group, or of the root where there is none, that says why something is not compared.
_WHY_NOT = "not_compared"


def add(tree: xr.DataTree) -> xr.DataTree:
    """Give a measured tree ``/comparison`` of its arms, where there are two or more.

    Over ``at`` it is the last checkpoint of each run and, where there are new tasks, the matched gain. What
    cannot be compared is said by the root's attribute ``not_compared``.
    """
    is_run = (tree["sample_stats"]["is_retest"] == 0).any(["task", "seed", "checkpoint"])
    if int(is_run.sum()) < 2:
        return tree
    found, why_not = [], []
    for at in ("final", "matched_gain") if tree["constant_data"].sizes["new"] else ("final",):
        try:
            compared = compare_evals(tree, at=at)[GROUP].to_dataset()
        except InputError as error:
            why_not.append(str(error))
            continue
        level = xr.DataArray(compared.attrs["level"], attrs={"long_name": "matched gain", "units": "1"})
        found.append((at, compared.assign(level=level)))
    if found:
        names = xr.DataArray([at for at, _ in found], dims="at", name="at")
        whole = xr.concat([part for _, part in found], names, join="outer", combine_attrs="override")
        whole.attrs = {}
        whole["at"].attrs = {"long_name": "where runs are read", "units": "1"}
        tree[GROUP] = xr.DataTree(whole)
    if why_not:
        tree.attrs[_WHY_NOT] = json.dumps(why_not, ensure_ascii=False)
    return tree


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a pair of arms, task and place: means, differences, probabilities and the verdict."""
    data = tree[GROUP].to_dataset()
    columns: dict[str, xr.DataArray] = {"level": data["level"], "reached": data["reached"]}
    for name in (name for name in COMPARED if name in data):
        columns[name] = data[name]
        columns[f"{name}_of_other"] = data[name].rename(run="other")
        columns[f"{name}_difference"] = data[f"{name}_difference"]
        columns |= tables.bounds(f"{name}_difference", data[f"{name}_difference_interval"])
        for side in ("smaller", "larger"):
            columns[f"{name}_probability_{side}"] = data[f"{name}_probability_{side}"]
    columns["words"], columns["words_of_other"] = data["words"], data["words"].rename(run="other")
    frame = xr.Dataset(columns).to_dataframe().reset_index()
    frame = frame[(frame["run"] != frame["other"]) & frame["lost"].notna()]
    order = ["at", "level", "task", "run", "other"]
    return frame[[*order, *(name for name in columns if name not in order)]].reset_index(drop=True)


def parts(tree: xr.DataTree) -> list[RenderableType]:
    """Return the comparison for the terminal, a part a place; none where nothing is compared."""
    if GROUP not in tree.children:
        return []
    frame, data = summary(tree), tree[GROUP].to_dataset()
    arms = list(data["run"].to_numpy())
    pairs = [(a, b) for i, a in enumerate(arms) for b in arms[i + 1 :]]
    tasks = [ALL, *(task for task in data["task"].to_numpy() if task != ALL)]
    if len(pairs) * len(tasks) > MOST_ROWS:
        tasks = [ALL]
    elif len(tasks) == 2:
        # One old task is the mean of all.
        tasks = tasks[1:]
    names = _names(data)
    found: list[RenderableType] = []
    for at in data["at"].to_numpy():
        rows = frame[frame["at"] == at].set_index(["run", "other", "task"])
        heading = text_rows.row([""], [text for name in names for text in _SHOWN[name][1:]], _WIDTHS)
        lines = ["", _title(at, float(data["level"].sel(at=at))), *heading, text_rows.RULE]
        for a, b in pairs:
            lines.append(f"{a} against {b}")
            for task in tasks:
                if (a, b, task) in rows.index:
                    lines += _row(rows.loc[(a, b, task)], str(task), names)
        found.append(text_rows.as_text([*lines, text_rows.RULE]))
    words = f"Difference: the first arm less the second, mean and {interval_percent()} interval."
    if len(tasks) == 1 and data.sizes["task"] > 2:
        words += " Each task is in comparison.csv."
    return [*found, Text(words)]


def _names(data: xr.Dataset) -> list[str]:
    """Return the two quantities that are shown: what was lost, and the old weight if it is known of any."""
    weight = "old_weight" in data and bool(data["old_weight"].notnull().any())
    return ["lost", "old_weight" if weight else "accuracy_change"]


def _title(at: str, level: float) -> str:
    if at == "final":
        return "Which arm forgot less? At the last checkpoints"
    return f"Which arm forgot less? Where each has gained {level:.3g} on the new tasks"


def _row(row: pd.Series, task: str, names: Sequence[str]) -> list[str]:
    cells = []
    for name in names:
        better = row[f"{name}_probability_{_SHOWN[name][0]}"]
        mean, low, high = (row[f"{name}_difference{part}"] for part in ("", "_lower", "_upper"))
        known = np.isfinite(mean)
        cells.append(_probability(better) if known else "n/a")
        cells.append(f"{mean:.3f}\n[{low:.3f}, {high:.3f}]" if known else "n/a")
    kind = kind_of(worst([row["words"], row["words_of_other"]]))
    labels = [f"  {task}", *([] if kind == GOOD else [f"  {kind}"])]
    return text_rows.row(labels, cells, _WIDTHS)


def _probability(p: float) -> str:
    return "> 0.99" if p > 0.995 else "< 0.01" if p < 0.005 else f"{p:.2f}"


def remarks(tree: xr.DataTree) -> list[str]:
    """Return one sentence for what could not be compared, and for arms that are read before a checkpoint."""
    found = [f"Not compared: {why}." for why in json.loads(tree.attrs.get(_WHY_NOT, "[]"))]
    if GROUP not in tree.children:
        return found
    data = tree[GROUP].to_dataset()
    shares = data["before_first"].max(["at", "task"]).to_numpy()
    named = zip(data["run"].to_numpy(), shares, strict=True)
    arms = [f"{arm} ({100 * share:.0f} %)" for arm, share in named if share > MOST_BEFORE_FIRST]
    if arms:
        found.append(
            "At matched gain, draws are read between the base and the first checkpoint, as if what was lost "
            f"grew in proportion to the gain: {', '.join(arms)}. Checkpoints along training would tell."
        )
    return found


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``frontier``, forgetting against learning, where several arms have new tasks."""
    new = [str(task) for task in tree["constant_data"]["new_task"].to_numpy()]
    if not new or "over_tasks" not in tree.children or GROUP not in tree.children:
        return {}
    over, posterior = tree["over_tasks"].to_dataset(), tree["posterior"].to_dataset()
    gain = posterior["accuracy_change"].sel(task=new).mean("task")
    stats = tree["sample_stats"].to_dataset()
    repeated = bool((stats["num_answers"].drop_sel(task=new) > 1.0).any())
    names = ["old_weight" if repeated and "old_weight" in over else "accuracy_change", "lost"]
    untrusted = xr.apply_ufunc(of_kind, stats["words"], UNTRUSTED).any("task")
    arms = list(tree[GROUP]["run"].to_numpy())
    looks = figures.line_style(arms)
    figure, panels = plt.subplots(1, 2, figsize=(9.0, 4.6))
    for axes, name in zip(panels, names, strict=True):
        for arm in arms:
            for seed in over["seed"].to_numpy():
                at = {"arm": arm, "seed": seed}
                _path(axes, gain.sel(at), over[name].sel(at), untrusted.sel(at), looks[arm], name)
        axes.plot(0.0, _AT_BASE[name], "*", color="0.35", markersize=10, zorder=3)
        for level in tree[GROUP]["level"].to_numpy():
            if np.isfinite(level):
                axes.axvline(level, color="0.35", linestyle=":", linewidth=1.0)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set(xlabel="change of the mean success on the new tasks\nlearnt →")
        axes.set(ylabel=figures.label(posterior[name]))
    for arm in arms:
        panels[0].plot([], [], label=figures.entry(arm), markersize=4.5, **looks[arm])
    panels[0].plot([], [], "*", color="0.35", markersize=10, label="base")
    if np.isfinite(tree[GROUP]["level"].to_numpy()).any():
        panels[0].plot([], [], color="0.35", linestyle=":", label="matched gain")
    if bool(untrusted.any()):
        panels[0].plot(
            [], [], "x", color=figures.UNTRUSTED, markersize=8, label="not to be trusted on some task"
        )
    words = f"point: a checkpoint, mean over tasks; thin lines: {interval_percent()} intervals"
    figure.suptitle(f"Forgetting on the old tasks against learning\n{words}")
    figures.legend_below(figure, *panels[0].get_legend_handles_labels())
    return {"frontier": figure}


# Of the base.
_AT_BASE = {"old_weight": 1.0, "accuracy_change": 0.0, "lost": 0.0}


def _path(
    axes: Axes,
    gain: xr.DataArray,
    kept: xr.DataArray,
    untrusted: xr.DataArray,
    look: figures.Look,
    name: str,
) -> None:
    """Draw a run from the base over its checkpoints, with intervals on both axes."""
    there = (gain.notnull() & kept.notnull()).any(["chain", "draw"]).to_numpy()
    if not there.any():
        return
    gain, kept = gain.isel(checkpoint=there), kept.isel(checkpoint=there)
    x, y = (values.mean(["chain", "draw"]).to_numpy() for values in (gain, kept))
    spans = [
        np.abs(np.stack([interval(v).sel(ci_bound=b).to_numpy() for b in ("lower", "upper")]) - mean)
        for v, mean in ((gain, x), (kept, y))
    ]
    axes.errorbar(
        x, y, xerr=spans[0], yerr=spans[1], fmt="none", ecolor=look["color"], alpha=0.5, linewidth=1.2
    )
    axes.plot(
        np.insert(x, 0, 0.0),
        np.insert(y, 0, _AT_BASE[name]),
        linewidth=1.2,
        markersize=4.5,
        markevery=slice(1, None),
        **look,
    )
    bad = untrusted.isel(checkpoint=there).to_numpy()
    axes.plot(x[bad], y[bad], "x", color=figures.UNTRUSTED, markersize=8, zorder=4)
