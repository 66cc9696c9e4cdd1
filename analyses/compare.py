"""Which objective forgets, how much, and in which of the two ways? The main comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table
from scipy.integrate import cumulative_trapezoid

from analyses import figures, outputs, tables
from analyses.settings import Settings
from inference import comparison, results
from inference.descent import population_descent
from inference.deviation import deviation, discretisation
from inference.flow import gradient_flow
from inference.intervals import interval, interval_kind, interval_probability
from inference.population import Parameters, has_exact
from inference.training import train
from mixture_models import objectives
from mixture_models.objectives import Objective
from mixture_models.two_mode import TwoMode
from mixture_models.validation import InputError

# Drifts below this are not drawn: reverse KL has no noise at its optimum and falls without end.
_LEAST_DRIFT = 1e-4


def run(settings: Settings, *, progress: bool = True) -> xr.DataTree:
    """Train every objective and compare their replicates.

    Returns:
        The DataTree of `inference.training.train` with ``/comparison`` (see `inference.comparison.compare`)
        and, for the objectives with an exact form, ``/population`` (the gradient flow), ``/descent`` (the
        exact gradient in steps of training), ``/deviation`` (how far the trainings stray from it) and
        ``/theory``. Where the flow cannot be followed the attribute ``no_exact_side`` says why.
    """
    start, target = settings.mixtures()
    chosen = [objectives.parse(text) for text in settings.objectives]
    tree = train(
        chosen,
        start,
        target,
        num_steps=settings.num_steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        num_replicates=settings.num_replicates,
        seed=settings.seed,
        record_every=settings.record_every,
        common_random_numbers=settings.common_random_numbers,
        progress=progress,
    )
    tree["comparison"] = xr.DataTree(comparison.compare(tree))
    exact = [objective for objective in chosen if has_exact(objective, start, target)]
    if exact:
        try:
            groups = _exact_side(tree, exact, settings)
        except InputError as error:  # trainings stand by themselves where their flow cannot be followed
            tree.attrs["no_exact_side"] = str(error)
        else:
            for name, group in groups.items():
                tree[name] = xr.DataTree(group)
    return tree


def _exact_side(tree: xr.DataTree, exact: Sequence[Objective], settings: Settings) -> dict[str, xr.Dataset]:
    """Return the groups that hold what trainings are held against."""
    start, target = settings.mixtures()
    rate = settings.learning_rate
    descent, flow = (
        result["population"].to_dataset()
        for result in (
            population_descent(
                exact,
                start,
                target,
                num_steps=settings.num_steps,
                learning_rate=rate,
                record_every=settings.record_every,
            ),
            gradient_flow(
                exact, start, target, times=rate * tree["trajectory"]["step"].to_numpy(), learning_rate=rate
            ),
        )
    )
    flow = flow.assign_coords(step=descent["step"])
    held = xr.merge([deviation(tree, descent), discretisation(descent, flow)])
    groups = {"population": flow, "descent": descent, "deviation": held}
    if "old_mean" in flow:
        groups["theory"] = _drift_bounds(exact, flow, target)
    return groups


def _drift_bounds(exact: Sequence[Objective], flow: xr.Dataset, target: TwoMode) -> xr.Dataset:
    """Return δ(m_o(0), μ_o) + ∫ bound of the old mean's speed dt along the flow, where theory has a bound.

    The covariance is the identity, so that the flow of training is the whitened one.
    """
    bounds = np.full((flow.sizes["objective"], flow.sizes["time"]), np.nan)
    for row, objective in zip(bounds, exact, strict=True):
        if objective.companion is None and hasattr(objective.divergence, "old_mean_speed_bound"):
            path = flow.sel(objective=objective.name)
            old_logit, old_mean, new_mean = (path[name].to_numpy() for name in Parameters._fields)
            learner = TwoMode(old_logit, old_mean, new_mean, target.scale)
            speed = objective.divergence.old_mean_speed_bound(learner, target)
            row[:] = float(path["old_drift"][0]) + cumulative_trapezoid(speed, path["time"], initial=0.0)
    coords = {name: flow[name] for name in ("objective", "time", "step")}
    return results.describe(xr.Dataset({"old_drift_bound": (("objective", "time"), bounds)}, coords))


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row an objective: means and intervals of what is left and what has moved.

    Columns ``X``, ``X_lower``, ``X_upper`` for the final ``old_weight``, ``retention``, ``old_drift`` and
    ``new_gap`` and for ``peak_old_drift``; ``probability_retains_more`` and ``retention_difference`` against
    the first objective; ``mean_displacement`` with its ``_error``; ``deviation``, ``noise_limit`` and
    ``discretisation`` where there is an exact form; ``num_diverged``, left out of the rest.
    Variables that the learner does not have are left out.
    """
    kept = results.converged(tree)
    final = tree["final"].to_dataset().where(kept)
    peak = tree["trajectory"].to_dataset()["old_drift"].max("step", skipna=False).where(kept)
    columns: dict[str, Any] = {}
    for name, values in {**final, "peak_old_drift": peak}.items():
        if name in ("old_weight", "retention", "peak_old_drift", "old_drift", "new_gap"):
            limits = interval(values)
            columns[name] = values.mean(["chain", "draw"], skipna=True)
            columns[f"{name}_lower"] = limits.sel(ci_bound="lower", drop=True)
            columns[f"{name}_upper"] = limits.sel(ci_bound="upper", drop=True)
    against = tree["comparison"].to_dataset().isel(other=0, drop=True)
    columns["probability_retains_more"] = against["probability_larger"]
    columns["retention_difference"] = against["mean_difference"]
    columns["retention_difference_lower"] = against["mean_difference_interval"].sel(
        ci_bound="lower", drop=True
    )
    columns["retention_difference_upper"] = against["mean_difference_interval"].sel(
        ci_bound="upper", drop=True
    )
    if "old_mean" in final:
        displacement = comparison.systematic_displacement(tree)
        columns["mean_displacement"] = displacement["displacement"]
        columns["mean_displacement_error"] = displacement["error"]
    if "deviation" in tree.children:
        held = tree["deviation"].to_dataset().reindex(objective=final["objective"])
        columns |= {name: held[name] for name in ("deviation", "noise_limit", "discretisation")}
    columns["num_diverged"] = (~kept).sum(["chain", "draw"])
    return pd.DataFrame(
        {name: column.to_numpy() for name, column in columns.items()}, index=final["objective"]
    )


def table(tree: xr.DataTree) -> Table:
    """Return the summary as a table for the terminal."""
    frame = summary(tree)
    first = frame.index[0]

    def against_first(write: tables.Cell) -> tables.Cell:
        return lambda row, name: "(reference)" if row["objective"] == first else write(row, name)

    kind = {"eti": "equal-tailed", "hdi": "highest-density"}[interval_kind()]
    replicates = tree["final"].sizes["draw"]
    return tables.transposed(
        frame,
        [
            ("final old weight", "old_weight", tables.with_interval),
            ("final retention", "retention", tables.with_interval),
            ("peak old drift", "peak_old_drift", tables.with_interval),
            ("final old drift", "old_drift", tables.with_interval),
            ("old drift of the mean displacement", "mean_displacement", tables.with_error),
            ("final new gap", "new_gap", tables.with_interval),
            (
                f"probability to retain more than {first}",
                "probability_retains_more",
                against_first(tables.plain),
            ),
            (f"retention minus that of {first}", "retention_difference", against_first(tables.with_interval)),
            ("deviation from exact descent, in standard errors", "deviation", _against_noise),
            ("exact descent from flow, in retention", "discretisation", tables.plain),
            ("diverged replicates, left out", "num_diverged", tables.plain),
        ],
        title="What is left of the old task, and what has moved",
        caption=(
            f"Mean and {100 * interval_probability():g} % {kind} interval over {replicates} replicate "
            "trainings; the interval of a difference is that of its mean. Drift and gap are Mahalanobis "
            "distances. The norm of a noisy displacement has a floor; that of the mean displacement, given "
            "with its root mean square error, has almost none. The deviation is the largest of any parameter "
            "at any recorded step, beside what noise alone explains."
        ),
    )


def _against_noise(row: Mapping[str, Any], name: str) -> str:
    """Write a deviation above what noise explains, and say when it is more."""
    if np.isnan(row[name]):
        return tables.MISSING
    limit = tables.number(row["noise_limit"])
    words = f"noise: {limit}" if row[name] <= row["noise_limit"] else f"more than\nnoise: {limit}"
    return f"{tables.number(row[name])}\n{words}"


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figures ``old_drift``, ``frontier`` and, where learners have one, ``old_weight``."""
    kept = _kept(tree)
    styles = figures.line_style([str(name) for name in kept["objective"].to_numpy()])
    with figures.style():
        drawn = {"old_drift": _plot_drift(tree, kept, styles), "frontier": _plot_frontier(kept, styles)}
        if "old_weight" in kept:
            drawn["old_weight"] = _plot_weight(tree, kept, styles)
    return drawn


def write(tree: xr.DataTree, settings: Settings, folder: Path) -> None:
    """Write ``results.zarr``, ``summary.csv``, ``settings.toml`` and the figures into a folder."""
    results.save(tree, folder / outputs.MARKER)
    summary(tree).to_csv(folder / "summary.csv", index_label="objective")
    settings.write(folder / "settings.toml")
    for name, figure in plot(tree).items():
        figures.save(figure, folder, name)


def _kept(tree: xr.DataTree) -> xr.Dataset:
    """Return the trajectories of the replicates that stayed finite."""
    return tree["trajectory"].to_dataset().where(results.converged(tree))


def _over_steps(
    tree: xr.DataTree, values: xr.DataArray, styles: figures.Styles, title: str
) -> tuple[Figure, Axes]:
    """Draw trainings over steps with, on top of them, the exact flow and its bound where theory has one."""
    figure, axes = plt.subplots(figsize=(7.0, 4.2))
    figures.bands(axes, values, styles)
    name = str(values.name)
    for number, curve in enumerate(_distinct(tree, "population", name)):
        label = None if number else "exact flow"
        axes.plot(curve["step"], curve, label=label, linestyle=":", color="black", linewidth=1.2)
    for curve in _distinct(tree, "theory", f"{name}_bound"):
        objective = str(curve["objective"].item())
        look = styles[objective]["color"]
        axes.plot(curve["step"], curve, label=f"bound, {objective}", color=look, linewidth=0.9)
    axes.set(xlabel="training step", ylabel=figures.label(values), xlim=(0, values["step"].max()))
    words = f"line: mean, band: {100 * interval_probability():g} % interval of the replicates"
    axes.set_title(f"{title}\n{words}", loc="left", fontsize=10)
    figure.legend(loc="outside right upper", title="objective")
    return figure, axes


def _distinct(tree: xr.DataTree, group: str, variable: str) -> list[xr.DataArray]:
    """Return a variable's curves, but not those drawn before, as that of reverse KL with replay."""
    if group not in tree.children or variable not in tree[group].data_vars:
        return []
    kept: list[xr.DataArray] = []
    for curve in tree[group].to_dataset()[variable].dropna("objective", how="all"):
        if not any(np.allclose(curve, other, rtol=1e-6, atol=1e-9) for other in kept):
            kept.append(curve)
    return [curve.where(curve > 0.0) for curve in kept]


def _plot_weight(tree: xr.DataTree, kept: xr.Dataset, styles: figures.Styles) -> Figure:
    target_weight = results.two_mode(tree, "target").old_weight
    figure, axes = _over_steps(
        tree, kept["old_weight"], styles, "Mass forgetting: does the old weight survive?"
    )
    axes.set_ylim(0.0, 1.0)
    axes.axhline(target_weight, color="0.6", linewidth=0.8)
    place = axes.get_yaxis_transform()
    axes.text(
        0.99, target_weight + 0.01, f"target {target_weight:g}", transform=place, ha="right", color="0.35"
    )
    return figure


def _plot_drift(tree: xr.DataTree, kept: xr.Dataset, styles: figures.Styles) -> Figure:
    drift = kept["old_drift"]
    # A log axis cannot show the drift of zero at which an old mode that is right starts.
    figure, axes = _over_steps(
        tree, drift.where(drift > 0.0), styles, "Old-component drift: does the old mode move?"
    )
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(_LEAST_DRIFT, axes.get_ylim()[0]))
    return figure


def _plot_frontier(kept: xr.Dataset, styles: figures.Styles) -> Figure:
    figure, panels = plt.subplots(1, 2, figsize=(9.0, 4.4))
    for axes, name in zip(panels, ("retention", "old_drift"), strict=True):
        for objective, look in styles.items():
            x, y = (kept[variable].sel(objective=objective) for variable in ("new_gap", name))
            path = [values.mean(["chain", "draw"], skipna=True) for values in (x, y)]
            axes.plot(*path, color=look["color"], linestyle=look["linestyle"], alpha=0.6, linewidth=1.2)
            end = [float(values[-1]) for values in path]
            spans = [
                np.abs(interval(values.isel(step=-1)).to_numpy() - mean)[:, None]
                for values, mean in zip((x, y), end, strict=True)
            ]
            marker = {"fmt": look["marker"], "color": look["color"], "markersize": 5, "capsize": 3}
            axes.errorbar(*end, xerr=spans[0], yerr=spans[1], label=objective, **marker)
        axes.set(xlabel=figures.label(kept["new_gap"]) + "\nlearnt →", ylabel=figures.label(kept[name]))
        axes.set_ylim(0.0, 1.0 if name == "retention" else None)
        axes.invert_xaxis()
    words = f"path: mean over training, point: end with {100 * interval_probability():g} % interval"
    figure.suptitle(f"Forgetting against learning ({words})", fontsize=10)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, title="objective"
    )
    return figure
