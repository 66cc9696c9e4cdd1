"""Trainings over the grid, and the table of what they keep."""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import xarray as xr

from analyses.core import outputs, tables
from analyses.core.settings import (
    BaseSettings,
    each,
    increasing,
    seed_setting,
    separations_setting,
    setting,
    workers_setting,
)
from analyses.phase.lines import (
    OBJECTIVES,
    hyperparameter_of,
    overlapping_below,
    started,
    starved_below,
    theory_of,
    turned,
)
from inference import results
from inference.sweeps import sweep
from mixture_models import objectives
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.validation import (
    InputError,
    increasing_array,
    integer,
    not_negative,
    open_interval,
    positive,
)

# What is kept: nine trainings in ten have more.
_SAFE = 0.1


def _sizes(name: str, value: object) -> tuple[int, ...]:
    sizes = each(partial(integer, at_least=2))(name, value)
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
        increasing("[0, 0.95]"),
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
    chosen = [objectives.parse(name) for name in OBJECTIVES]
    for argument in dict.fromkeys(map(hyperparameter_of, chosen)):
        tree = sweep(
            [objective for objective in chosen if hyperparameter_of(objective) == argument],
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
        "theory": theory_of(apart, sizes, shares, beta, gap),
    }
    return outputs.result(settings.asdict(), groups)


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row an objective and value of its hyperparameter.

    Columns ``objective``; ``knob``, that value; ``starved_below`` and ``overlapping_below``, the lines of
    theory;
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
            kept_there = kept_by_most(there["retention"].where(fine))
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
                    "kept_coverage": float(kept_by_most(there["old_coverage"].where(fine)).mean()),
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


def kept_by_most(final: xr.DataArray) -> xr.DataArray:
    """Return the final value that nine in ten trainings of a point exceed."""
    return final.quantile(_SAFE, ["chain", "draw"], skipna=True).drop_vars("quantile")


def _within(values: xr.DataArray, condition: xr.DataArray, statistic: Callable[[np.ndarray], float]) -> float:
    """Return a statistic of the values where a condition holds, NaN where there are none."""
    chosen = values.where(condition).to_numpy()
    return float(statistic(chosen)) if np.isfinite(chosen).any() else np.nan


def table(tree: xr.DataTree) -> tables.Table:
    """Return the summary as a table for the terminal."""
    settings = tree.attrs
    frame = summary(tree)
    columns: list[tables.Column] = [
        ("objec-\ntive", "objective", lambda row, name: str(row[name]).replace("_", "_\n")),
        ("replay or\nanchor", "knob"),
        ("starved\nbelow N", "starved_below"),
        ("kept,\nstarved", "kept_starved"),
        ("kept, not\nstarved", "kept_fed"),
        ("cover-\nage", "kept_coverage"),
        ("drift,\noverlap", "old_drift_overlapping"),
        ("drift,\napart", "old_drift_apart"),
        ("lost", "num_diverged"),
    ]
    return tables.listed(
        frame,
        columns,
        title="Where the old mode is lost, and where it moves",
        caption=(
            f"{int(frame['trainings'].sum())} trainings toward old weight {settings['old_weight']:g} from "
            f"{started(tree)}. Kept (coverage): the final retention (old coverage) that nine in ten "
            "trainings of a point exceed, its mean over points with batches smaller (starved) and larger "
            "than N, where half of the batches hold no old sample at the start. Drift: the median final "
            "one [Mahalanobis], "
            f"at separations below (overlap) and above {frame['overlapping_below'][0]:.3g}, where a "
            "tenth of the old samples is claimed by the new mode at the start. Lost: diverged, left out."
        ),
    )
