"""Where does which objective forget? The phase diagram over separation, batch size, and replay or anchor.

A learner whose old mode has become rare is trained at every point. Two lines of theory part the diagram:
below a batch size most batches hold no old sample (starvation), left of a separation the modes overlap so
much that old samples are claimed by the new mode (misassignment).
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.optimize import brentq

from analyses.core import figures, outputs, tables
from analyses.core.settings import (
    BaseSettings,
    each,
    seed_setting,
    separations_setting,
    setting,
    workers_setting,
)
from inference import results
from inference.sweeps import sweep
from mixture_models import objectives, theory
from mixture_models.metrics import retention
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.objectives import Objective
from mixture_models.objectives.registry import arguments_of, changed
from mixture_models.theory.paths import Setting
from mixture_models.theory.predictions import Prediction, prediction
from mixture_models.validation import (
    InputError,
    increasing_array,
    integer,
    not_negative,
    open_interval,
    positive,
)

results.register(
    misassignment=("misassignment at the start", "1"),
)

# What is swept.
_OBJECTIVES = ("sft", "reverse_kl", "sdft")

#: At the lines: probability of a batch without an old sample, and of an old one claimed by the new mode.
STARVED, CLAIMED = 0.5, 0.1

# What is kept: nine trainings in ten have more.
_SAFE = 0.1

_LEAST_DRIFT = 1e-3


def _sizes(name: str, value: object) -> tuple[int, ...]:
    sizes: tuple[int, ...] = each(partial(integer, at_least=2))(name, value)
    increasing_array(name, sizes, "[2, 1000000]")
    return sizes


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """The settings of `run`; the learner's old mean is right at the start."""

    separations: tuple[float, ...] = separations_setting(
        "[1.5, 100]", np.arange(1.5, 7.25, 0.5), show="1.5 2 … 7"
    )
    batch_sizes: tuple[int, ...] = setting(
        _sizes, "Samples in an update; may be repeated.", (2, 4, 8, 32, 64), option="batch_size"
    )
    knobs: tuple[float, ...] = setting(
        partial(increasing_array, interval="[0, 0.95]"),
        "Replay of SFT and RL, anchor of SDFT; may be repeated.",
        (0.0, 0.05, 0.2),
        option="knob",
    )
    old_weight: float = setting(open_interval, "Target's mass of the old mode.", 0.5)
    start_old_weight: float = setting(open_interval, "Old weight at the start.", 0.02)
    start_new_gap: float = setting(
        not_negative, "Distance of the new mean from the target's at the start.", 1.0
    )
    num_steps: int = setting(integer, "Updates of a training.", 100)
    learning_rate: float = setting(positive, "Learning rate of plain SGD.", 0.2)
    num_replicates: int = setting(integer, "Trainings at every point.", 40)
    seed: int = seed_setting()
    workers: int | None = workers_setting()

    def __post_init__(self) -> None:
        super().__post_init__()
        gap, least = self.start_new_gap, self.separations[0]
        if gap >= least:
            raise InputError(f"start_new_gap must be less than every separation; got {gap:g} and {least:g}")


def run(settings: Settings, *, out: Path | None = None, progress: bool = True) -> xr.DataTree:
    """Sweep the grid, and compute the lines of theory.

    Args:
        settings: of the grid and the trainings.
        out: place of an output, beside which the sweeps' stores are kept, so that an interrupted run goes on.
        progress: whether a terminal shows progress.

    Returns:
        DataTree with ``/final`` and ``/trajectory_stats`` over (objective, separation, batch_size, knob,
        chain, draw), and ``/theory``: ``starvation`` over (objective, batch_size, knob) and
        ``misassignment`` over (separation).
    """
    if out is None:
        with TemporaryDirectory() as keep:
            return _run(settings, Path(keep), progress)
    return _run(settings, outputs.kept_beside(out), progress)


def _run(settings: Settings, keep: Path, progress: bool) -> xr.DataTree:
    apart, shares, sizes = np.array(settings.separations), np.array(settings.knobs), settings.batch_sizes
    alpha, beta, gap = settings.old_weight, settings.start_old_weight, settings.start_new_gap
    # What an interrupted run of other settings left is not in the way.
    mark = f"{zlib.crc32(json.dumps(settings.asdict()).encode()):08x}"

    keep.mkdir(parents=True, exist_ok=True)
    finals, stats = [], []
    chosen = [objectives.parse(name) for name in _OBJECTIVES]
    for argument in dict.fromkeys(map(_turned, chosen)):
        tree = sweep(
            [objective for objective in chosen if _turned(objective) == argument],
            {
                "target.separation": list(apart),
                "batch_size": list(sizes),
                f"objective.{argument}": list(shares),
            },
            start=partial(TwoMode.displaced, old_weight=beta, new_gap=gap),
            target=TwoMode.on_axis(alpha, float(apart[-1])),
            store=keep / f"{argument}-{mark}.zarr",
            num_steps=settings.num_steps,
            batch_size=sizes[0],
            learning_rate=settings.learning_rate,
            num_replicates=settings.num_replicates,
            seed=settings.seed,
            workers=settings.workers,
            progress=progress,
        )
        new_names = {"target.separation": "separation", f"objective.{argument}": "knob"}
        finals.append(tree["final"].to_dataset().rename(new_names).load())
        stats.append(tree["trajectory_stats"].to_dataset().rename(new_names).load())
    groups = {
        "final": xr.concat(finals, "objective"),
        "trajectory_stats": xr.concat(stats, "objective"),
        "theory": _theory(apart, sizes, shares, beta, gap),
    }
    return outputs.result(settings.asdict(), groups)


def _turned(objective: Objective) -> str:
    """Return the hyperparameter that is the `knob`: the replayed share, else what moves the end."""
    moves = _course(objective).hyperparameter
    return "replay" if moves is None or "replay" in arguments_of(objective) else moves.name


def turned(name: str, value: float) -> Objective:
    """Return an objective at a value of its `knob`."""
    objective = objectives.parse(name)
    return changed(objective, **{_turned(objective): float(value)})


def _course(objective: Objective) -> Prediction:
    found = prediction(objective)
    if found is None:
        raise InputError(f"phase needs an objective whose course theory predicts; got {objective.name}")
    return found


def _theory(
    apart: np.ndarray, sizes: Sequence[int], shares: np.ndarray, beta: float, gap: float
) -> xr.Dataset:
    """Return starvation and misassignment at the start."""
    none_drawn = np.array([[_none_drawn(turned(n, share), beta) for share in shares] for n in _OBJECTIVES])
    starvation = none_drawn[:, None] ** np.array(sizes)[:, None]
    return xr.Dataset(
        {
            "starvation": (("objective", "batch_size", "knob"), starvation),
            "misassignment": ("separation", theory.misassignment(beta, apart - gap)),
        },
        {"objective": list(_OBJECTIVES), "batch_size": list(sizes), "knob": shares, "separation": apart},
    )


def _none_drawn(objective: Objective, beta: float) -> float:
    """Return the probability that a batch's sample is no old one at the start, where the learner is at β."""
    course = _course(objective)
    # A step on; of the first batch nothing but β matters.
    path = course.follow(Setting(4.0, 0.5, beta, num_steps=1, learning_rate=0.1), [course.value])
    return float(theory.starvation_probability(path.sampled_weight[0, 0], 1))


def starved_below(objective: Objective, beta: float) -> float:
    """Return the batch size below which half of the batches hold no old sample; infinite where all do."""
    none = _none_drawn(objective, beta)
    return np.inf if none == 1.0 else float(np.log(STARVED) / np.log(none))


def overlapping_below(beta: float, gap: float) -> float:
    """Return the separation below which the new mode claims a tenth of the old samples at the start."""
    return gap + float(brentq(lambda d: theory.misassignment(beta, d) - CLAIMED, 1e-6, 50.0))


def start_retention(tree: xr.DataTree) -> np.ndarray:
    """Return the retention at the start at every separation: a new mode that starts off also acts old."""
    alpha, beta, gap = (tree.attrs[name] for name in ("old_weight", "start_old_weight", "start_new_gap"))
    found = []
    with jax.enable_x64(True):
        for apart in tree["final"]["separation"].to_numpy():
            target = TwoMode.on_axis(alpha, apart)
            found.append(float(retention(target.displaced(beta, new_gap=gap).law(), target)))
    return np.array(found)


def _started(tree: xr.DataTree) -> str:
    """Say where the learners start."""
    left = start_retention(tree)
    words = tables.number(left[0])
    if left.size > 1:
        words = f"{words} to {tables.number(left[-1])} from the smallest to the largest separation"
    return (
        f"old weight {tree.attrs['start_old_weight']:g}, the new mean {tree.attrs['start_new_gap']:g} off "
        f"toward the old one: retention {words}"
    )


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row an objective and value of its `knob`.

    Columns ``objective``, ``knob``; ``starved_below`` and ``overlapping_below``, the lines of theory;
    ``kept``, the final retention that nine in ten trainings of a point exceed, its mean over the points,
    ``kept_coverage``, the same of the old coverage, and ``old_drift``, the median final one, each over the
    grid, retention and drift also on both sides of a line (``kept_starved``, ``kept_fed``,
    ``old_drift_overlapping``, ``old_drift_apart``); ``trainings``; ``num_diverged``, left out
    of the rest.
    """
    final, kept = tree["final"].to_dataset(), results.converged(tree)
    beta, gap = tree.attrs["start_old_weight"], tree.attrs["start_new_gap"]
    rows = []
    for name in final["objective"].to_numpy():
        for share in final["knob"].to_numpy():
            at = {"objective": name, "knob": share}
            there, fine = final.sel(at), kept.sel(at)
            kept_there = _kept(there["retention"].where(fine))
            drift = there["old_drift"].where(fine)
            size, apart = starved_below(turned(name, share), beta), overlapping_below(beta, gap)
            starved, overlapping = final["batch_size"] < size, final["separation"] < apart
            rows.append(
                {
                    "objective": name,
                    "knob": share,
                    "starved_below": size,
                    "overlapping_below": apart,
                    "kept": float(kept_there.mean()),
                    "kept_coverage": float(_kept(there["old_coverage"].where(fine)).mean()),
                    "kept_starved": _within(kept_there, starved, np.nanmean),
                    "kept_fed": _within(kept_there, ~starved, np.nanmean),
                    "old_drift": _within(drift, fine, np.nanmedian),
                    "old_drift_overlapping": _within(drift, overlapping, np.nanmedian),
                    "old_drift_apart": _within(drift, ~overlapping, np.nanmedian),
                    "trainings": int(fine.size),
                    "num_diverged": int((~fine).sum()),
                }
            )
    return pd.DataFrame(rows)


def _kept(final: xr.DataArray) -> xr.DataArray:
    """Return the final value that nine in ten trainings of a point exceed."""
    return final.quantile(_SAFE, ["chain", "draw"], skipna=True).drop_vars("quantile")


def _within(values: xr.DataArray, condition: xr.DataArray, statistic: Any) -> float:
    """Return a statistic of the values where a condition holds, NaN where there are none."""
    chosen = values.where(condition).to_numpy()
    return float(statistic(chosen)) if np.isfinite(chosen).any() else np.nan


def table(tree: xr.DataTree) -> tables.Grid:
    """Return the summary as a table for the terminal."""
    settings = tree.attrs
    frame = summary(tree)
    columns: list[tuple[str, str, tables.Cell]] = [
        ("objec-\ntive", "objective", lambda row, name: str(row[name]).replace("_", "_\n")),
        ("replay or\nanchor", "knob", tables.plain),
        ("starved\nbelow N", "starved_below", tables.plain),
        ("kept,\nstarved", "kept_starved", tables.plain),
        ("kept, not\nstarved", "kept_fed", tables.plain),
        ("cover-\nage", "kept_coverage", tables.plain),
        ("drift,\noverlap", "old_drift_overlapping", tables.plain),
        ("drift,\napart", "old_drift_apart", tables.plain),
        ("lost", "num_diverged", tables.plain),
    ]
    return tables.listed(
        frame,
        columns,
        title="Where the old mode is lost, and where it moves",
        caption=(
            f"{int(frame['trainings'].sum())} trainings toward old weight {settings['old_weight']:g} from "
            f"{_started(tree)}. Kept (coverage): the final retention (old coverage) that nine in ten "
            "trainings of a point exceed, its mean over points with batches smaller (starved) and larger "
            "than N, where half of the batches hold no old sample at the start. Drift: the median final "
            "one [Mahalanobis], "
            f"at separations below (overlap) and above {frame['overlapping_below'][0]:.3g}, where a "
            "tenth of the old samples is claimed by the new mode at the start. Lost: diverged, left out."
        ),
    )


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return a figure ``phase_X`` an objective X: what is left of the old mode, and how far it has moved."""
    final = tree["final"].to_dataset().where(results.converged(tree))
    kept = _kept(final["retention"])
    drift = final["old_drift"].mean(["chain", "draw"], skipna=True)
    largest = max(2.0 * _LEAST_DRIFT, float(drift.max()))
    top = max(tree.attrs["old_weight"], float(kept.max()))
    # The same colours in all figures, which are looked at side by side.
    measures = (
        _Measure(kept, Normalize(0.0, top), "viridis", "retention that\n9 in 10 trainings exceed"),
        _Measure(
            drift.clip(_LEAST_DRIFT),
            LogNorm(_LEAST_DRIFT, largest),
            "cividis",
            "mean old drift\n[Mahalanobis]",
        ),
    )
    with figures.style():
        return {f"phase_{name}": _plot_phase(tree, measures, name) for name in final["objective"].to_numpy()}


class _Measure(NamedTuple):
    """Values over the grid and their colours."""

    values: xr.DataArray
    norm: Normalize
    colours: str
    label: str


def _plot_phase(tree: xr.DataTree, measures: Sequence[_Measure], name: str) -> Figure:
    """Draw an objective's maps over separation and batch size: a row a measure, a column a `knob`."""
    shares = tree["final"]["knob"].to_numpy()
    beta, gap = tree.attrs["start_old_weight"], tree.attrs["start_new_gap"]
    figure, panels = plt.subplots(
        len(measures),
        len(shares),
        figsize=(2.0 + 2.0 * len(shares), 5.8),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for row, measure in zip(panels, measures, strict=True):
        for axes, value in zip(row, shares, strict=True):
            shown = measure.values.sel(objective=name, knob=value).transpose("batch_size", "separation")
            mesh = axes.pcolormesh(
                shown["separation"],
                np.log2(shown["batch_size"]),
                shown,
                norm=measure.norm,
                cmap=measure.colours,
                shading="nearest",
            )
            axes.grid(visible=False)
            _lines(axes, starved_below(turned(name, value), beta), overlapping_below(beta, gap))
        figure.colorbar(mesh, ax=row, label=measure.label, extend="min")
    for axes, value in zip(panels[0], shares, strict=True):
        objective = turned(name, value)
        drawn = "" if np.isfinite(starved_below(objective, beta)) else "\n(no old sample in a batch)"
        axes.set_title(f"{_turned(objective)} {value:g}{drawn}", fontsize=9, loc="left")
    sizes = tree["final"]["batch_size"].to_numpy()
    for axes in panels[:, 0]:
        axes.set_yticks(np.log2(sizes), [f"{size:g}" for size in sizes])
        axes.set_ylabel("batch size")
    for axes in panels[-1]:
        axes.set_xlabel("separation δ\n[Mahalanobis]")
    figure.legend(handles=_handles(), loc="outside lower center", fontsize=9)
    title = (
        f"{name}: what is left of the old mode (target: {tree.attrs['old_weight']:g}), how far it has moved"
    )
    figures.heading(figure, title, f"start: {_started(tree)}")
    return figure


def _handles() -> list[Line2D]:
    """Return what a legend says of the lines of theory."""
    look: figures.Look = {"color": "black", "linewidth": 1.2}
    return [
        Line2D(
            [],
            [],
            **look,
            linestyle="--",
            label="below: more than half of the batches hold no old sample (start)",
        ),
        Line2D(
            [],
            [],
            **look,
            linestyle=":",
            label="left: the new mode claims more than a tenth of the old samples (start)",
        ),
    ]


def _lines(axes: Axes, size: float, separation: float) -> None:
    """Draw the lines of theory, in a colour that shows on every ground; a line outside is left out."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    for colour, width in (("white", 2.6), ("black", 1.2)):
        if np.isfinite(size) and low < np.log2(size) < high:
            axes.axhline(np.log2(size), color=colour, linewidth=width, linestyle="--" if width < 2.0 else "-")
        if left < separation < right:
            axes.axvline(separation, color=colour, linewidth=width, linestyle=":" if width < 2.0 else "-")
    axes.set(xlim=(left, right), ylim=(low, high))


#: What the figures show, for those who read a report.
MEANINGS = {
    f"phase_{name}": (
        f"What {name} leaves of the old behaviour, and how far its old mode has moved, at each separation "
        "and batch size. Below the dashed line more than half of the batches hold no old sample at the "
        "start; left of the dotted one the new mode claims more than a tenth of the old samples."
    )
    for name in _OBJECTIVES
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: what is kept on both sides of the line of starvation."""
    return [
        f"{row['objective']} at {row['knob']:g} keeps {tables.number(row['kept_fed'])} where batches hold "
        f"old samples and {tables.number(row['kept_starved'])} where they are starved; it drifts by "
        f"{tables.number(row['old_drift_overlapping'])} where modes overlap and "
        f"{tables.number(row['old_drift_apart'])} where they are apart."
        for _, row in summary(tree).iterrows()
    ]
