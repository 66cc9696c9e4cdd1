"""Did one measured run forget less than another? Table, figure and files of a comparison of runs."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from rich.console import RenderableType

from analyses.compare_runs import by_task, forward_kl, two_modes
from analyses.compare_runs.shared import NAMES
from analyses.core import outputs
from analyses.core.analysis import shown_by
from analyses.core.settings import BaseSettings, each, setting, text
from inference import results
from inference.comparison.joined import with_forward_kl
from inference.comparison.runs import (
    DISTANCE,
    KINDS,
    compare_runs,
    compared,
    compared_draws,
    verdicts,
)
from inference.measurement.verdict.kinds import GOOD
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
    weight_rope: float = setting(not_negative, "Differences of a weight within it count as none.", 0.0)
    drift_rope: float = setting(not_negative, "Differences of a drift within it count as none.", 0.0)
    scores: tuple[str, ...] = setting(
        each(lambda name, given: str(given)),
        "Output of measure-scores with answers, as NAME=FOLDER, of a run of that name that measure has "
        "measured: its forward KL is compared too; may be repeated.",
        (),
        metavar="NAME=FOLDER",
    )
    kl_rope: float = setting(
        not_negative, "Differences of the forward KL within it count as none [nat].", 0.0
    )


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
    names, folders = zip(*map(outputs.named, settings.folders), strict=True)
    scored = [outputs.named(given) for given in settings.scores]
    if out is not None and out.resolve() in {folder.resolve() for _, folder in scored} | {
        folder.resolve() for folder in folders
    }:
        raise InputError(f"{out} must not be one of the runs that are compared")
    if len(set(names)) < len(names):
        raise InputError(f"runs must have different names, as NAME=FOLDER gives them; got {', '.join(names)}")
    for name, _ in scored:
        if name not in names:
            raise InputError(f"scores must name a run that is compared ({', '.join(names)}); got {name}")
    for folder in (*folders, *(folder for _, folder in scored)):
        if not (folder / outputs.MARKER).exists():
            raise InputError(
                f"{folder} must be an output of massdrift measure or measure-scores; there is no "
                f"{outputs.MARKER} in it"
            )
    trees = {name: results.open(folder / outputs.MARKER) for name, folder in zip(names, folders, strict=True)}
    for name, folder in scored:
        trees[name] = with_forward_kl(trees[name], results.open(folder / outputs.MARKER))
    widths = {"weight": settings.weight_rope, "drift": settings.drift_rope, "kl": settings.kl_rope}
    ropes = {name: widths[KINDS[name]] for name in compared(next(iter(trees.values())))}
    if settings.kl_rope > 0.0 and DISTANCE not in ropes:
        raise InputError("runs that were measured without answers have no forward KL, and so no rope of it")
    if settings.drift_rope > 0.0 and not any(KINDS[name] == "drift" for name in ropes):
        raise InputError("runs that were measured from scores have no drift, and so no rope of it")
    tree = compare_runs(trees, at=settings.at, gain=settings.gain, rope=ropes)
    for name, measured in trees.items():
        tree[f"runs/{name}/posterior"] = xr.DataTree(compared_draws(measured))
        tree[f"runs/{name}/sample_stats"] = xr.DataTree(verdicts(measured))
    return tree


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a run (and task): weight and drift with intervals, and how it compares with the first.

    ``X_equivalent``, the probability of practical equivalence, is there where a rope was given, and drift
    where runs were measured from samples; the forward KL where all were measured with answers.
    """
    return shown_by(tree["comparison"].dims, two_modes, by_task).summary(tree)


def table(tree: xr.DataTree) -> RenderableType:
    """Return the summary as a table for the terminal."""
    return shown_by(tree["comparison"].dims, two_modes, by_task).table(tree)


def remarks(tree: xr.DataTree) -> list[str]:
    """Return one sentence for each run whose weight, drift or forward KL is not measured well."""
    data = tree["comparison"].to_dataset()
    # Of tasks by name the old weight is a sum of weights, and its verdict theirs.
    own = ("weight", "task_drift") if "task" in data.dims else ("old_weight", "old_drift")
    said = (*own, DISTANCE)
    found = []
    for run in data["run"].to_numpy():
        for name in (one for one in said if one in data):
            words = str(data[f"{name}_words"].sel(run=run).item())
            if words != GOOD:
                found.append(f"The {NAMES.get(name, name.replace('_', ' '))} of {run} is {words}.")
    return found


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return ``runs``, weight and drift against the new gap or of every task, and perhaps ``forward_kl``."""
    return shown_by(tree["comparison"].dims, two_modes, by_task).plot(tree) | forward_kl.plot(tree)
