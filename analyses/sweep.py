"""A sweep from a file: the settings of a comparison, and the axes along which they vary."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import RenderableType

from analyses import compare
from analyses.core import tables
from analyses.core.settings import BaseSettings, read, setting, text, workers_setting
from inference.sweeps import sweep
from inference.training.checks import check_factors
from mixture_models import objectives
from mixture_models.validation import InputError, integer, number, one_of, path_of, positive

_SPACINGS = ("linear", "log")

_REPORTED = ("old_weight", "retention", "old_coverage", "old_drift", "new_gap")
# Values between two ends: every one of them is checked, and is a coordinate of the result.
_MOST_VALUES = 100_000


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """Which sweep is run, and what it may take of the machine."""

    grid: Path = setting(path_of, "TOML file: settings, and a table [grid] of axes.", argument=True)
    workers: int | None = workers_setting()
    scheduler: str | None = setting(text, "Address of a running Dask scheduler.", None, stored=False)
    memory: float | None = setting(
        positive, "GiB that a process may take.", None, show="half of what is free", stored=False
    )


def run(settings: Settings, *, out: Path, progress: bool = True) -> xr.DataTree:
    """Run the sweep that a file describes, or what is missing of it.

    The file holds the settings of `analyses.compare` (start and end are recorded unless
    ``record_every`` is given), a table ``learning_rate_factors``, and a table ``grid`` of axes (see
    `inference.sweeps.axes`): a list of values each, or a table with ``first``, ``last``, ``count`` and
    ``spacing`` (``linear`` or ``log``). The start follows the target, at ``start_new_gap`` and
    ``start_old_drift`` from it, unless an axis says otherwise.

    Args:
        settings: the file, and what `inference.sweep` may take.
        out: store to write, ends in ``.zarr``.
        progress: see `inference.sweep`.

    Raises:
        InputError: the file is missing, is not TOML, or holds an unknown or unusable setting.
    """
    trained, axes, factors, record_every = _read(settings.grid)

    chosen = [objectives.parse(text) for text in trained.objectives]
    _, target, dimension = trained.placed(chosen)
    return sweep(
        chosen,
        axes,
        start=trained.start,
        target=target,
        dimension=dimension,
        store=out,
        num_steps=trained.num_steps,
        batch_size=trained.batch_size,
        learning_rate=trained.learning_rate,
        num_replicates=trained.num_replicates,
        seed=trained.seed,
        record_every=record_every,
        learning_rate_factors=factors,
        common_random_numbers=trained.common_random_numbers,
        precision=trained.precision,
        workers=settings.workers,
        scheduler=settings.scheduler,
        memory=None if settings.memory is None else settings.memory * 2**30,
        progress=progress,
    )


def _read(path: Path) -> tuple[compare.Settings, dict[str, Any], dict[str, float], int | None]:
    """Return settings, axes, learning rate factors, and the steps between two records where given."""
    stored = read(path, [*compare.Settings.stored_fields(), "grid", "learning_rate_factors"])
    axes, factors = (_table(name, stored.pop(name, {})) for name in ("grid", "learning_rate_factors"))
    settings = compare.Settings.from_values(stored)
    record_every = settings.record_every if "record_every" in stored else None
    return settings, dict(_flat(axes)), check_factors(factors), record_every


def _table(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must be a table; got {value!r}")
    return value


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the axes of a table; in TOML a name with dots is a table in a table."""
    axes: list[tuple[str, Any]] = []
    for name, value in table.items():
        if (
            isinstance(value, Mapping)
            and value
            and all(isinstance(v, Mapping | list) for v in value.values())
        ):
            axes += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, Mapping):
            axes.append((f"{prefix}{name}", _range(f"{prefix}{name}", value)))
        else:
            axes.append((f"{prefix}{name}", value))
    return axes


def _range(name: str, table: Mapping[str, object]) -> list[float]:
    """Return the values between two ends."""
    needed = {"first", "last", "count"}
    if not needed <= set(table) <= needed | {"spacing"}:
        given = ", ".join(table) or "none of them"
        raise InputError(
            f"{name} must be a list, or have first, last, count and perhaps spacing; got {given}"
        )
    spacing = one_of(f"the spacing of {name}", table.get("spacing", "linear"), _SPACINGS)
    count = integer(f"the count of {name}", table["count"], at_most=_MOST_VALUES)
    check = number if spacing == "linear" else positive
    first, last = (check(f"the {end} value of {name}", table[end]) for end in ("first", "last"))
    values = np.linspace(first, last, count) if spacing == "linear" else np.geomspace(first, last, count)
    return [float(value) for value in values]


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row an objective: how many were trained, how many diverged, and the spread of what is left.

    Columns ``trainings`` and ``diverged``, and of ``old_weight``, ``retention``, ``old_coverage``,
    ``old_drift`` and ``new_gap``, those that the learner has, the median, ``_lowest`` and ``_highest`` final
    value over the points' means over replicates.
    """
    final = tree["final"].to_dataset()
    diverged = tree["trajectory_stats"]["diverged_step"] >= 0
    rows = []
    for name in final["objective"].to_numpy():
        lost = diverged.sel(objective=name).compute()
        row: dict[str, float] = {"trainings": lost.size, "diverged": int(lost.sum())}
        for variable in _REPORTED:
            if variable in final:
                means = final[variable].sel(objective=name).where(~lost).mean(["chain", "draw"], skipna=True)
                values = means.to_numpy()
                shown = values[np.isfinite(values)] if np.isfinite(values).any() else np.array([np.nan])
                row[f"{variable}_lowest"] = shown.min()
                row[variable] = np.median(shown)
                row[f"{variable}_highest"] = shown.max()
        rows.append(row)
    return pd.DataFrame(rows, index=final["objective"].to_numpy())


def table(tree: xr.DataTree) -> RenderableType:
    """Return the summary as a table for the terminal."""
    frame = summary(tree)

    def spread(row: tables.Row, name: str) -> str:
        return " … ".join(tables.number(row[n]) for n in (f"{name}_lowest", name, f"{name}_highest"))

    rows: list[tables.Column] = [("trainings", "trainings")]
    rows += [(f"final {name.replace('_', ' ')}", name, spread) for name in _REPORTED if name in frame]
    final = tree["final"]
    axes = [str(d) for d in final["old_drift"].dims if d not in ("objective", "chain", "draw")]
    over = ", ".join(f"{name} ({final.sizes[name]})" for name in axes) or "no axis"
    return tables.by_name(
        frame,
        [*rows, ("diverged, left out", "diverged")],
        title=f"Sweep over {over}",
        caption="Lowest … median … highest over the points of the grid, of means over replicates.",
    )
