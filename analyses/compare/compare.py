"""Which objective forgets, how much, and in which of the two ways? The main comparison."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import RenderableType

from analyses.compare.settings import Settings
from analyses.core import tables
from inference import results
from inference.comparison import replicates as comparison
from inference.comparison.deviation import deviation, discretisation
from inference.comparison.forward_kl import forward_kl
from inference.exact.descent import population_descent
from inference.exact.flow import gradient_flow
from inference.exact.population import Parameters, has_exact
from inference.training.train import train
from mixture_models import objectives
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.objectives import Objective
from mixture_models.theory.predictions import drift_bound
from mixture_models.validation import InputError


def run(settings: Settings, *, progress: bool = True) -> xr.DataTree:
    """Train every objective and compare their replicates.

    Returns:
        The DataTree of `inference.training.train` with ``/comparison`` (of ``retention``, see
        `inference.comparison.replicates`) and ``/coverage_comparison`` (of ``old_coverage``) and, for the
        objectives with an exact form, ``/population`` (the gradient flow), ``/descent`` (the exact gradient
        in steps of training), ``/deviation`` (how far the trainings stray from it) and ``/theory``. Where the
        flow cannot be followed the attribute ``no_exact_side`` says why. Groups that record the parameters of
        two modes have ``forward_kl``, of the start from the learner.
    """
    chosen = [objectives.parse(text) for text in settings.objectives]
    start, target, dimension = settings.placed(chosen)
    tree = train(
        chosen,
        start,
        target,
        num_steps=settings.num_steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        precision=settings.precision,
        num_replicates=settings.num_replicates,
        seed=settings.seed,
        record_every=settings.record_every,
        common_random_numbers=settings.common_random_numbers,
        dimension=dimension,
        progress=progress,
    )
    tree["comparison"] = xr.DataTree(comparison.compare(tree))
    if "old_coverage" in tree["final"]:
        tree["coverage_comparison"] = xr.DataTree(comparison.compare(tree, "old_coverage"))
    exact = [objective for objective in chosen if has_exact(objective, start, target)]
    if exact:
        try:
            groups = _exact_side(tree, exact, start, target, settings)
        except InputError as error:  # trainings stand by themselves where their flow cannot be followed
            tree.attrs["no_exact_side"] = str(error)
        else:
            for name, group in groups.items():
                tree[name] = xr.DataTree(group)
    if "old_mean" in tree["final"] and not {"scale", "old_scale", "new_scale"} & set(tree["final"].data_vars):
        for name in {"trajectory", "population", "descent"} & set(tree.children):
            tree[name]["forward_kl"] = forward_kl(tree, name)
        tree["final"]["forward_kl"] = tree["trajectory"]["forward_kl"].isel(step=-1, drop=True)
    return tree


def _exact_side(
    tree: xr.DataTree, exact: Sequence[Objective], start: TwoMode, target: TwoMode, settings: Settings
) -> dict[str, xr.Dataset]:
    """Return the groups that hold what trainings are held against."""
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
    """Return what the flow's old drift cannot exceed, where theory has a bound.

    The covariance is the identity, so that the flow of training is the whitened one.
    """
    bounds = np.full((flow.sizes["objective"], flow.sizes["time"]), np.nan)
    for row, objective in zip(bounds, exact, strict=True):
        bound = drift_bound(objective)
        if bound is not None:
            path = flow.sel(objective=objective.name)
            old_logit, old_mean, new_mean = (path[name].to_numpy() for name in Parameters._fields)
            learner = TwoMode(old_logit, old_mean, new_mean, target.scale)
            row[:] = bound(learner, target, path["time"].to_numpy())
    coords = {name: flow[name] for name in ("objective", "time", "step")}
    return results.describe(xr.Dataset({"old_drift_bound": (("objective", "time"), bounds)}, coords))


# What the summary says mean and interval of, and what the table calls it.
_MEANS = {
    "old_weight": "final old weight",
    "retention": "final retention",
    "old_coverage": "final old coverage",
    "peak_old_drift": "peak old drift",
    "old_drift": "final old drift",
    "new_gap": "final new gap",
    "forward_kl": "final forward KL of the start [nat]",
}


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row an objective: means and intervals of what is left and what has moved.

    Columns ``X``, ``X_lower``, ``X_upper`` for the final ``old_weight``, ``retention``, ``old_coverage``,
    ``old_drift``, ``new_gap`` and ``forward_kl`` and for ``peak_old_drift``; ``probability_retains_more`` and
    ``retention_difference``, ``probability_covers_more`` and ``old_coverage_difference`` against the first
    objective; ``mean_displacement`` with its ``_error``; ``deviation``, ``noise_limit`` and
    ``discretisation`` where there is an exact form; ``num_diverged``, left out of the rest.
    Variables that the learner does not have are left out.
    """
    kept = results.converged(tree)
    final = tree["final"].to_dataset().where(kept)
    peak = tree["trajectory"].to_dataset()["old_drift"].max("step", skipna=False).where(kept)
    columns: dict[str, xr.DataArray] = {}
    for name, values in {**final, "peak_old_drift": peak}.items():
        if name in _MEANS:
            columns |= tables.interval_columns(str(name), values)
    for group, verb, variable in (
        ("comparison", "retains", "retention"),
        ("coverage_comparison", "covers", "old_coverage"),
    ):
        if group in tree.children:
            against = tree[group].to_dataset().isel(other=0, drop=True)
            columns[f"probability_{verb}_more"] = against["probability_larger"]
            columns[f"{variable}_difference"] = against["mean_difference"]
            columns |= tables.bounds(f"{variable}_difference", against["mean_difference_interval"])
    if "old_mean" in final:
        displacement = comparison.systematic_displacement(tree)
        columns["mean_displacement"] = displacement["displacement"]
        columns["mean_displacement_error"] = displacement["error"]
    if "deviation" in tree.children:
        held = tree["deviation"].to_dataset().reindex(objective=final["objective"])
        columns |= {name: held[name] for name in ("deviation", "noise_limit", "discretisation")}
    columns["num_diverged"] = (~kept).sum(["chain", "draw"])
    return tables.frame_of(columns, pd.Index(final["objective"].to_numpy(), name="objective"))


# What the table shows at first sight.
_BRIEF = ("old_weight", "retention", "peak_old_drift", "new_gap", "probability_retains_more", "num_diverged")


def table(tree: xr.DataTree) -> RenderableType:
    """Return the summary as a table for the terminal."""
    frame = summary(tree)
    first = frame.index[0]
    against_first = tables.against(first)

    over = tables.over_replicates(tree, one="training of each objective", many="replicates")
    return tables.by_name(
        frame,
        [
            *((heading, name) for name, heading in _MEANS.items()),
            ("old drift of the mean displacement", "mean_displacement"),
            (f"probability to retain more than {first}", "probability_retains_more", against_first),
            (f"retention minus that of {first}", "retention_difference", against_first),
            (
                f"probability to cover more of the old mode than {first}",
                "probability_covers_more",
                against_first,
            ),
            (f"old coverage minus that of {first}", "old_coverage_difference", against_first),
            ("deviation from exact descent, in standard errors", "deviation", _against_noise),
            ("exact descent from flow, in retention", "discretisation"),
            ("diverged replicates (not finite or out of range), left out", "num_diverged"),
        ],
        title="What is left of the old task, and what has moved",
        brief=_BRIEF,
        caption=(
            f"{_started(tree)}{over}; the interval of a difference is that of its mean. Retention: old "
            "behaviour left, as seen along the axis between the tasks. Old coverage: the learner's share at "
            "the target's old mode, 0 where it left that mode in any direction. Drift and gap are "
            "Mahalanobis distances. The norm of a noisy displacement has a floor; that of the mean "
            "displacement, given with its root mean square error, has almost none. The forward KL is "
            "KL(start ‖ learner), on all samples. The deviation is the largest of any parameter at any "
            "recorded step, beside what noise alone explains."
        ),
    )


def _started(tree: xr.DataTree) -> str:
    """Say where the learners start, from what is recorded there."""
    first = tree["trajectory"].to_dataset().isel(objective=0, chain=0, draw=0, step=0)
    if "old_weight" not in first:
        return ""
    target = results.two_mode(tree, "target").old_weight
    weight, drift, gap = (tables.number(float(first[n])) for n in ("old_weight", "old_drift", "new_gap"))
    return (
        f"Started at old weight {weight} (target's: {tables.number(float(target))}), the old mean {drift} "
        f"and the new mean {gap} off. "
    )


def _against_noise(row: tables.Row, name: str) -> str:
    """Write a deviation above what noise explains, and say when it is more."""
    if np.isnan(row[name]):
        return tables.MISSING
    limit = tables.number(row["noise_limit"])
    words = f"noise: {limit}" if row[name] <= row["noise_limit"] else f"more than\nnoise: {limit}"
    return f"{tables.number(row[name])}\n{words}"


def remarks(tree: xr.DataTree) -> list[str]:
    """Say why there is no exact side, where trainings stand by themselves."""
    reason = tree.attrs.get("no_exact_side")
    return [] if reason is None else [f"No exact flow beside the trainings: {reason}."]
