"""What has a checkpoint forgotten, by its graded answers and the base's? Table, figures and files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Group, RenderableType
from rich.text import Text

from analyses.core import figures, tables
from analyses.core.settings import BaseSettings, setting, text, texts
from analyses.evals import comparison, text_rows
from inference.intervals import interval_percent
from inference.measurement.evals.measure_evals import METHODS, measure_evals
from inference.measurement.evals.readers.long_form import FINAL
from inference.measurement.verdict.kinds import GOOD, UNTRUSTED, kind_of, of_kind
from mixture_models.validation import InputError, integer, one_of

_RUN = ["task", "arm", "seed", "checkpoint"]

#: Rows of the table at most; with more runs it shows the means over tasks.
MOST_ROWS = 30

#: What the table shows of repeats and of single answers of several choices, with the decimals of each.
REPEATS = {"old_weight": 3, "drift": 2, "accuracy_change": 3, "lost": 3}
CHOICES = {"forgotten": 3, "acquired": 3, "accuracy_change": 3, "lost": 3}

# Characters of a run's name: an interval's four columns take the rest of 80.
_LABELS = 18

# Panels of the base's figure at most.
_MOST_PANELS = 12

#: Verdicts at most that are told below the table.
_MOST_REMARKS = 12


def logs_of(
    paths: Sequence[str], runs: Iterable[str], base: str = "base"
) -> dict[str, list[str]] | list[str]:
    """Return the logs that a command names: those of the base, and ``NAME=PATH`` of each run.

    Raises:
        InputError: a run that is not written so.
    """
    named: dict[str, list[str]] = {}
    for run in runs:
        name, equals, path = run.partition("=")
        if not (name and equals and path):
            raise InputError(f"a run must be given as NAME=PATH; got {run}")
        named.setdefault(name, []).append(path)
    # Without runs, folders or columns tell the base from them.
    return {base: list(paths)} | named if named else list(paths)


def columns_of(columns: Iterable[str]) -> dict[str, str]:
    """Return names of columns that are given as ``NAME=COLUMN``.

    Raises:
        InputError: one that is not written so.
    """
    pairs = [column.partition("=") for column in columns]
    if bad := [f"{a}{b}{c}" for a, b, c in pairs if not (a and b and c)]:
        raise InputError(f"a column must be given as NAME=COLUMN; got {bad[0]}")
    return {name: column for name, _, column in pairs}


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """The settings of `run`, those of `inference.measure_evals`."""

    base: tuple[str, ...] = setting(
        texts,
        "Logs of the base: folders, files or globs. Without --run, of the runs too.",
        argument=True,
    )
    run: tuple[str, ...] = setting(texts, "NAME=PATH: logs of a run, as sft=logs/sft; may be repeated.", ())
    base_name: str = setting(text, "What folders or columns call the base.", "base")
    new_task: tuple[str, ...] = setting(texts, "A task that was learnt, not to be kept; may be repeated.", ())
    metric: tuple[str, ...] = setting(
        texts,
        "Metric or scorer to read, the first that a log has; may be repeated.",
        (),
        show="the one that says right or wrong",
    )
    filter: tuple[str, ...] = setting(
        texts,
        "Filter of lm-evaluation-harness; may be repeated.",
        (),
        show="none, strict-match, flexible-extract",
    )
    column: tuple[str, ...] = setting(
        texts, "NAME=COLUMN of a table, as item=question_id; may be repeated.", ()
    )
    num_choices: int | None = setting(
        partial(integer, at_least=2), "Answers that every item of a table offers.", None, show="free answers"
    )
    method: str = setting(
        partial(one_of, known=METHODS), "laplace (fast), nuts, or auto: fast where it can be trusted.", "auto"
    )
    seed: int = setting(partial(integer, at_least=0), "Seed of all random numbers.", 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        logs_of(self.base, self.run, self.base_name)
        columns_of(self.column)


def run(settings: Settings, *, progress: bool = True) -> xr.DataTree:
    """Measure what was forgotten, by `inference.measure_evals`, and compare the arms."""
    measured = measure_evals(
        logs_of(settings.base, settings.run, settings.base_name),
        base=settings.base_name,
        metric=settings.metric,
        filter=settings.filter,
        columns=columns_of(settings.column),
        num_choices=settings.num_choices,
        new_tasks=settings.new_task,
        method=settings.method,
        seed=settings.seed,
        progress=progress,
    )
    return comparison.add(measured)


def summary(tree: xr.DataTree, group: str = "posterior") -> pd.DataFrame:
    """Return one row a task and run: means and intervals, older measures and the verdict in words.

    Args:
        tree: of `run`.
        group: ``posterior``, or ``over_tasks``, which has no verdicts.
    """
    posterior = tree[group].to_dataset()
    dims = [name for name in _RUN if name in posterior.dims]
    columns: dict[str, xr.DataArray] = {}
    for name, values in posterior.data_vars.items():
        columns |= tables.interval_columns(str(name), values)
    if group == "posterior":
        columns |= {str(name): values for name, values in tree["sample_stats"].to_dataset().data_vars.items()}
    frame = xr.Dataset(columns).to_dataframe().reset_index()
    found = frame["accuracy"].notna()
    frame = frame[found].reset_index(drop=True)
    return frame[[*dims, *columns]]


def last(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the last checkpoint of each run."""
    dims = [name for name in _RUN if name in frame and name != "checkpoint"]
    if pd.api.types.is_numeric_dtype(frame["checkpoint"]):
        frame = frame.sort_values("checkpoint", kind="stable")
    rows = frame.groupby(dims, sort=False).tail(1)
    return rows.sort_index()


def table(tree: xr.DataTree) -> RenderableType:
    """Return the last checkpoint of every run, a part a task; of many runs, the means over tasks."""
    frame = last(summary(tree))
    if len(frame) > MOST_ROWS and "over_tasks" in tree.children:
        frame = last(summary(tree, "over_tasks")).assign(
            task="mean over the old tasks; each is in summary.csv"
        )
    repeated = "old_weight" in frame
    caption = f"Mean and {interval_percent()} interval."
    if not repeated or frame["old_weight"].isna().any():
        caption += " One answer an item does not tell mass lost from drift"
        caption += ": n/a here, summary.csv has what was forgotten and acquired." if repeated else "."
    parts = [
        _part(rows, str(task), REPEATS if repeated else CHOICES)
        for task, rows in frame.groupby("task", sort=False)
    ]
    heading = Text("What the last checkpoints have forgotten", style="italic")
    return Group(heading, *parts, Text(caption), *comparison.parts(tree))


def _part(frame: pd.DataFrame, title: str, columns: Mapping[str, int]) -> RenderableType:
    widths = [_LABELS, *(16 if name == "accuracy_change" else 14 for name in columns)]
    heading = text_rows.row([""], [name.replace("_", " ") for name in columns], widths)
    lines = [title, *heading, text_rows.RULE]
    for _, row in frame.iterrows():
        labels = [f"{row['arm']}, seed {row['seed']}" if frame["seed"].nunique() > 1 else str(row["arm"])]
        if str(row["checkpoint"]) != FINAL:
            labels.append(str(row["checkpoint"]))
        if "words" in row and (kind := kind_of(row["words"])) != GOOD:
            labels.append(kind)
        cells = [_cell(row, name, digits) for name, digits in columns.items()]
        lines += text_rows.row(labels, cells, widths)
    return text_rows.as_text([*lines, text_rows.RULE, ""])


def _cell(row: pd.Series, name: str, digits: int) -> str:
    if name not in row or np.isnan(row[name]):
        return "n/a"
    low, high = row[f"{name}_lower"], row[f"{name}_upper"]
    return f"{row[name]:.{digits}f}\n[{low:.{digits}f}, {high:.{digits}f}]"


def remarks(tree: xr.DataTree) -> list[str]:
    """Return one sentence for each verdict on the last checkpoints, with the runs it is on."""
    frame = last(summary(tree))
    found = []
    for words, rows in frame.groupby("words", sort=False):
        if words == GOOD:
            continue
        names = [f"{row['arm']} on {row['task']}" for _, row in rows.iterrows()]
        shown = ", ".join(dict.fromkeys(names[:3])) + (
            f" and {len(names) - 3} more" if len(names) > 3 else ""
        )
        found.append(f"What is measured of {shown} is {words}.")
    more = len(found) - _MOST_REMARKS
    found = found[:_MOST_REMARKS] + ([f"{more} more verdicts are in summary.csv."] if more > 0 else [])
    return found + comparison.remarks(tree)


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figures ``forgetting`` and ``transitions``.

    Where the base has several answers an item there is also ``base``, of several checkpoints ``checkpoints``,
    and of several arms with new tasks ``frontier``.
    """
    frame = summary(tree)
    with figures.style():
        drawn = {
            "forgetting": _plot_forgetting(tree, last(frame)),
            "transitions": _plot_transitions(tree, last(frame)),
        }
        if frame["checkpoint"].nunique() > 1 and pd.api.types.is_numeric_dtype(frame["checkpoint"]):
            drawn["checkpoints"] = _plot_checkpoints(tree, frame)
        if "base_counts" in tree.children:
            drawn["base"] = _plot_base(tree["base_counts"].to_dataset().to_dataframe())
        drawn |= comparison.plot(tree)
    return drawn


def extras(tree: xr.DataTree) -> dict[str, str]:
    """Return ``comparison.csv`` of several arms."""
    compared = comparison.GROUP in tree.children
    return {"comparison.csv": comparison.summary(tree).to_csv(index=False)} if compared else {}


def _measures(frame: pd.DataFrame) -> list[str]:
    """Return what the runs have: mass and drift of repeats, shares of items of single answers."""
    shown = [
        n for n in ("old_weight", "drift", "forgotten", "acquired") if n in frame and frame[n].notna().any()
    ]
    return shown or ["accuracy_change"]


def _label(tree: xr.DataTree, name: str) -> str:
    variable = tree["posterior"].to_dataset()[name]
    return figures.label(variable) if "units" in variable.attrs else name.replace("_", " ")


def _rows(axes: Axes, frame: pd.DataFrame, names: Sequence[str], looks: figures.Styles, look_of: str) -> None:
    """Draw means and intervals of some columns, a task a row, its runs beside each other."""
    tasks, runs = list(dict.fromkeys(frame["task"])), frame.drop_duplicates(["arm", "seed"])
    place = {(row.arm, row.seed): i for i, row in enumerate(runs.itertuples())}
    step = 0.7 / max(len(place) * len(names), 1)
    for number, name in enumerate(names):
        for row in frame[frame[name].notna()].to_dict("records"):
            offset = (place[row["arm"], row["seed"]] * len(names) + number + 0.5) * step - 0.35
            y = tasks.index(row["task"]) + offset
            look = {
                k: v for k, v in looks[row["arm"] if look_of == "arm" else name].items() if k != "linestyle"
            }
            axes.hlines(y, row[f"{name}_lower"], row[f"{name}_upper"], color=look["color"], linewidth=1.8)
            axes.plot(row[name], y, markersize=4.5, linestyle="none", **look)
            if kind_of(row.get("words", "")) == UNTRUSTED:
                axes.plot(row[name], y, "x", color=figures.UNTRUSTED, markersize=9, zorder=3)
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.set_yticks(range(len(tasks)), [_short(task) for task in tasks])
    axes.grid(axis="y", visible=False)
    for border in range(1, len(tasks)):
        axes.axhline(border - 0.5, color="0.85", linewidth=0.8)


def _short(task: str, most: int = 30) -> str:
    return task if len(task) <= most else f"{task[: most - 1]}…"


def _height(frame: pd.DataFrame, lines: int = 1) -> float:
    runs = len(frame.drop_duplicates(["arm", "seed"]))
    return 1.6 + frame["task"].nunique() * min(max(0.22 * runs * lines, 0.4), 3.0)


def _legend(figure: Figure, axes: Axes, looks: figures.Styles, frame: pd.DataFrame) -> None:
    for name, look in looks.items():
        axes.plot([], [], label=name, **{k: v for k, v in look.items() if k != "linestyle"}, linestyle="none")
    if of_kind(frame["words"], UNTRUSTED).any():
        axes.plot([], [], "x", color=figures.UNTRUSTED, label="not to be trusted (see the table)")
    figures.legend_below(figure, *axes.get_legend_handles_labels())


def _plot_forgetting(tree: xr.DataTree, frame: pd.DataFrame) -> Figure:
    names = _measures(frame)
    size = 3.0, _height(frame)
    figure, panels = figures.panels(len(names), size, columns=len(names), margin=(2.2, 0.0), sharey=True)
    looks = figures.line_style(list(dict.fromkeys(frame["arm"])))
    for axes, name in zip(panels, names, strict=True):
        _rows(axes, frame, [name], looks, "arm")
        nothing = {"old_weight": 1.0}.get(name, 0.0)
        axes.axvline(nothing, color="0.35", linestyle=":", linewidth=1.0)
        axes.set_xlabel(_label(tree, name))
    words = f"{figures.points()}, dotted: nothing forgotten"
    figure.suptitle(f"What the last checkpoints have forgotten\n{words}")
    _legend(figure, panels[0], looks, frame)
    return figure


def _plot_transitions(tree: xr.DataTree, frame: pd.DataFrame) -> Figure:
    figure, panels = plt.subplots(1, 2, figsize=(8.0, _height(frame)), sharey=True)
    looks = figures.line_style(list(dict.fromkeys(frame["arm"])))
    top = float(frame[["lost_upper", "won_upper"]].max(axis=None))
    for axes, name in zip(panels, ("lost", "won"), strict=True):
        _rows(axes, frame, [name], looks, "arm")
        axes.set_xlim(-0.02 * top, 1.05 * top or 1.0)
        axes.set_xlabel(_label(tree, name))
    panels[0].invert_xaxis()
    figure.suptitle(f"What an unchanged accuracy hides: lost and won\n{figures.points()}")
    _legend(figure, panels[0], looks, frame)
    return figure


def _plot_base(rows: pd.DataFrame) -> Figure:
    """Draw which share of the items the base has answered right how often, and what the model predicts."""
    tasks = list(rows.groupby("task", sort=False))
    shown = tasks[:_MOST_PANELS]
    across = min(len(shown), 4)
    figure, panels = figures.panels(
        len(shown), (max(2.6, 4.6 / across), 2.1), columns=across, margin=(0.0, 1.6)
    )
    for axes, (task, of_task) in zip(panels, shown, strict=True):
        x = of_task["right_base"].to_numpy()
        axes.bar(x, of_task["observed"], width=0.8, color="0.82", label="observed")
        span = [(of_task["predicted"] - of_task["predicted_lower"]).clip(lower=0.0)]
        span.append((of_task["predicted_upper"] - of_task["predicted"]).clip(lower=0.0))
        (colour,) = (look["color"] for look in figures.line_style(["predicted"]).values())
        look = {"fmt": "o", "color": colour, "markersize": 4.0, "capsize": 3}
        axes.errorbar(x, of_task["predicted"], yerr=np.stack(span), label="predicted", **look)
        axes.set_title(_short(str(task)), loc="center", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_ylim(0.0)
    for axes in panels[::across]:
        axes.set_ylabel("share of the items")
    for axes in panels[-across:]:
        axes.set_xlabel("right answers of the base")
    words = f"line: {interval_percent()} interval of replicated logs"
    more = f"; the first {_MOST_PANELS} of {len(tasks)} tasks" if len(tasks) > len(shown) else ""
    figure.suptitle(f"Is the base as the model says?\n{words}{more}")
    figures.legend_below(figure, *panels[0].get_legend_handles_labels(), columns=2)
    return figure


def _plot_checkpoints(tree: xr.DataTree, frame: pd.DataFrame) -> Figure:
    """Draw the mean over the old tasks against the checkpoint, a line a run."""
    over = summary(tree, "over_tasks") if "over_tasks" in tree.children else frame
    names = _measures(over)[:2]
    figure, panels = figures.panels(len(names), (4.0, 4.0), margin=(1.0, 0.0))
    looks = figures.line_style(list(dict.fromkeys(over["arm"])))
    for axes, name in zip(panels, names, strict=True):
        for (arm, _), rows in over[over[name].notna()].groupby(["arm", "seed"], sort=False):
            rows, look = rows.sort_values("checkpoint"), looks[str(arm)]
            x = rows["checkpoint"].astype(float)
            axes.vlines(x, rows[f"{name}_lower"], rows[f"{name}_upper"], color=look["color"], alpha=0.5)
            axes.plot(x, rows[name], markersize=4, linewidth=1.2, **look)
        axes.set(xlabel="checkpoint", ylabel=_label(tree, name))
    words = f"mean over the old tasks; line: {interval_percent()} interval"
    figure.suptitle(f"Forgetting over training ({words})")
    for name, look in looks.items():
        panels[0].plot([], [], label=name, **look)
    figures.legend_below(figure, *panels[0].get_legend_handles_labels())
    return figure
