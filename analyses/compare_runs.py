"""Did one measured run forget less than another? Table, figure and files of a comparison of runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from rich.console import RenderableType

from analyses.core import checkpoint_axis, figures, outputs, tables
from analyses.core.settings import BaseSettings, each, setting, text
from inference import results
from inference.comparison.runs import COMPARED, compare_runs, compared_draws, verdicts
from inference.intervals import interval, interval_probability
from mixture_models.validation import InputError, not_negative, number


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """The settings of `run`, those of `inference.compare_runs`."""

    folders: tuple[str, ...] = setting(
        each(lambda name, given: str(given)),
        "Outputs of measure or measure-scores, as FOLDER or NAME=FOLDER; the first is the base.",
        argument=True,
        metavar="FOLDER...",
    )
    at: str = setting(text, "final, matched_gain, or the name of a checkpoint.", "final")
    gain: float | None = setting(number, "New gap at which runs are matched.", None)
    weight_rope: float = setting(not_negative, "Differences of old weight within it count as none.", 0.0)
    drift_rope: float = setting(not_negative, "Differences of old drift within it count as none.", 0.0)


def run(settings: Settings, *, out: Path | None = None) -> xr.DataTree:
    """Compare the measurements in some folders.

    Args:
        settings: of the comparison.
        out: place of the output, which is none of the folders.

    Returns:
        DataTree with ``/comparison`` and each run's ``/runs/NAME/posterior``.

    Raises:
        InputError: folders of the same name, that hold no measurement, or that cannot be compared.
    """
    names, folders = zip(*map(named, settings.folders), strict=True)
    if out is not None and out.resolve() in {folder.resolve() for folder in folders}:
        raise InputError(f"{out} must not be one of the runs that are compared")
    if len(set(names)) < len(names):
        raise InputError(f"runs must have different names, as NAME=FOLDER gives them; got {', '.join(names)}")
    for folder in folders:
        if not (folder / outputs.MARKER).exists():
            raise InputError(
                f"{folder} must be an output of massdrift measure or measure-scores; there is no "
                f"{outputs.MARKER} in it"
            )
    trees = {name: results.open(folder / outputs.MARKER) for name, folder in zip(names, folders, strict=True)}
    tree = compare_runs(
        trees,
        at=settings.at,
        gain=settings.gain,
        rope={"old_weight": settings.weight_rope, "old_drift": settings.drift_rope},
    )
    for name, measured in trees.items():
        tree[f"runs/{name}/posterior"] = xr.DataTree(compared_draws(measured))
        tree[f"runs/{name}/sample_stats"] = xr.DataTree(verdicts(measured))
    return tree


def named(given: str) -> tuple[str, Path]:
    """Return a run's name and folder."""
    name, equals, folder = given.partition("=")
    if not equals or Path(given).exists():
        return Path(given).resolve().name, Path(given)
    if not name or "/" in name or not folder:
        raise InputError(f"a run must be FOLDER or NAME=FOLDER, the name without a slash; got {given!r}")
    return name, Path(folder)


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a run: weight and drift with intervals, and how it compares with the first run.

    ``X_equivalent``, the probability of practical equivalence, is there where a rope was given, and drift
    where runs were measured from samples.
    """
    data = tree["comparison"].to_dataset()
    against = data.isel(other=0, drop=True)
    columns: dict[str, Any] = {}
    for name in _compared(tree):
        columns[name] = data[name]
        better = "larger" if name == "old_weight" else "smaller"
        columns[f"{name}_better"] = against[f"{name}_probability_{better}"]
        if data.attrs[f"{name}_rope"] > 0.0:  # within a rope of no width nothing lies
            columns[f"{name}_equivalent"] = against[f"{name}_probability_equivalent"]
        columns[f"{name}_difference"] = against[f"{name}_difference"]
        for bound in ("lower", "upper"):
            columns[f"{name}_{bound}"] = data[f"{name}_interval"].sel(ci_bound=bound, drop=True)
            columns[f"{name}_difference_{bound}"] = against[f"{name}_difference_interval"].sel(
                ci_bound=bound, drop=True
            )
        columns[f"{name}_words"] = data[f"{name}_words"]
    columns["reached"] = data["reached"]
    frame = pd.DataFrame(
        {name: column.to_numpy() for name, column in columns.items()}, index=data["run"].to_numpy()
    )
    frame.index.name = "run"
    return frame


def table(tree: xr.DataTree) -> RenderableType:
    """Return the summary as a table for the terminal."""
    frame = summary(tree)
    first = frame.index[0]
    at, level = str(tree["comparison"].attrs["at"]), float(tree["comparison"].attrs["level"])
    where = {"final": "At the last checkpoint", "matched_gain": f"Where the new gap is {level:.3g}"}.get(
        at, f"At checkpoint {at}"
    )

    def against_first(write: tables.Cell) -> tables.Cell:
        return lambda row, name: "(reference)" if row["objective"] == first else write(row, name)

    return tables.transposed(
        frame,
        [
            ("old weight", "old_weight", tables.with_interval),
            (
                f"probability to have kept more old mass than {first}",
                "old_weight_better",
                against_first(tables.plain),
            ),
            ("probability of practical equivalence", "old_weight_equivalent", against_first(tables.plain)),
            (
                f"old weight minus that of {first}",
                "old_weight_difference",
                against_first(tables.with_interval),
            ),
            ("verdict on it", "old_weight_words", _kind),
            ("old drift", "old_drift", tables.with_interval),
            (
                f"probability to have drifted less than {first}",
                "old_drift_better",
                against_first(tables.plain),
            ),
            ("probability of practical equivalence ", "old_drift_equivalent", against_first(tables.plain)),
            (f"old drift minus that of {first}", "old_drift_difference", against_first(tables.with_interval)),
            ("verdict on it ", "old_drift_words", _kind),
            ("share of draws that reach the level", "reached", tables.plain),
        ],
        title=f"Which run forgot less? {where}",
        caption=f"Mean and {100 * interval_probability():g} % interval of the posterior."
        + ("" if "old_drift" in frame else " Scores see no drift: the old weight alone is compared."),
    )


def _compared(tree: xr.DataTree) -> list[str]:
    return [name for name in COMPARED if name in tree["comparison"]]


def _kind(row: Any, name: str) -> str:
    """Return a verdict without its reasons."""
    return str(row[name]).partition(":")[0]


def remarks(tree: xr.DataTree) -> list[str]:
    """Return one sentence for each run whose weight or drift is not measured well."""
    found = []
    for run, row in summary(tree).iterrows():
        for name in _compared(tree):
            words = row[f"{name}_words"]
            if words != "good":
                found.append(f"The {name.replace('_', ' ')} of {run} is {words}.")
    return found


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``runs``: weight and drift against the new gap; of scores, over checkpoints."""
    runs = {name: child["posterior"].to_dataset() for name, child in tree["runs"].children.items()}
    with figures.style():
        if "old_drift" not in tree["comparison"]:
            return {"runs": _plot_scores(runs)}
        figure, panels = plt.subplots(1, 2, figsize=(9.0, 4.4))
        for axes, variable in zip(panels, COMPARED, strict=True):
            for name, look in figures.line_style(list(runs)).items():
                posterior = runs[name]
                x, y = (posterior[v].mean(["chain", "draw"]).to_numpy() for v in ("new_gap", variable))
                limits = interval(posterior[variable])
                axes.vlines(
                    x, *(limits.sel(ci_bound=b) for b in ("lower", "upper")), color=look["color"], alpha=0.5
                )
                axes.plot(x, y, label=figures.entry(name), markersize=4, linewidth=1.2, **look)
                bad = _untrusted(tree["runs"].children[name], variable)
                axes.plot(x[bad], y[bad], "x", color=figures.UNTRUSTED, markersize=8, zorder=3)
            level = float(tree["comparison"].attrs["level"])
            if level == level:
                axes.axvline(level, color="0.35", linestyle=":", label="matched gap")
            axes.set(
                xlabel=figures.label(posterior["new_gap"]) + "\nlearnt →",
                ylabel=figures.label(posterior[variable]),
            )
            axes.set_ylim(0.0, 1.0 if variable == "old_weight" else None)
            axes.invert_xaxis()
        words = f"point: a checkpoint's mean, line: {100 * interval_probability():g} % interval"
        if any(_untrusted(child, v).any() for child in tree["runs"].children.values() for v in COMPARED):
            words += ", ×: not to be trusted"
        figure.suptitle(f"Forgetting against learning ({words})", fontsize=10)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return {"runs": figure}


def _plot_scores(runs: dict[str, xr.Dataset]) -> Figure:
    """Draw the old weight of runs that were measured from scores over their checkpoints."""
    figure, axes = plt.subplots(figsize=(7.0, 4.4))
    labels = np.concatenate([posterior["checkpoint"].to_numpy() for posterior in runs.values()])
    numeric = all(np.issubdtype(p["checkpoint"].dtype, np.number) for p in runs.values())
    names = pd.unique(labels.astype(str))
    for (name, look), posterior in zip(figures.line_style(list(runs)).items(), runs.values(), strict=True):
        own = posterior["checkpoint"].to_numpy()
        at = own.astype(float) if numeric else pd.Index(names).get_indexer(own.astype(str)).astype(float)
        order = np.argsort(at)
        weight = posterior["old_weight"]
        low, high = (interval(weight).sel(ci_bound=bound).to_numpy() for bound in ("lower", "upper"))
        axes.vlines(at, low, high, color=look["color"], alpha=0.5)
        mean = weight.mean(["chain", "draw"]).to_numpy()
        axes.plot(at[order], mean[order], label=figures.entry(name), markersize=4, linewidth=1.2, **look)
    if not numeric:
        checkpoint_axis.name_ticks(axes, names)
    axes.set(xlabel="checkpoint", ylabel=figures.label(weight), ylim=(0.0, 1.0))
    words = f"point: a checkpoint's mean, line: {100 * interval_probability():g} % interval"
    axes.set_title(f"How much old behaviour is left, by scores?\n{words}", loc="left", fontsize=10)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _untrusted(run: xr.DataTree, variable: str) -> np.ndarray:
    """Return whether what was measured at each checkpoint of a run is not to be trusted."""
    words = run["sample_stats"][f"{variable.removeprefix('old_')}_words"].to_numpy().astype(str)
    return np.char.startswith(words, "not to be trusted")
