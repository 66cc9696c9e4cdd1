"""The layout of a result: the one place that knows the DataTree's groups, names and files."""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import xarray as xr

from inference.storage import files
from inference.storage.reading import reading
from inference.storage.versions import version_of
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.validation import InputError, one_of, path_of

#: Version of the layout that `open` reads.
LAYOUT = 1

_LONG_NAME_AND_UNITS = {
    "old_weight": ("old weight, β", "1"),
    "old_logit": ("old logit, φ", "nat"),
    "retention": ("retention of old behaviour", "1"),
    "old_coverage": ("coverage of the old mode", "1"),
    "old_drift": ("old drift, δ(m_o, μ_o)", "Mahalanobis"),
    "new_gap": ("new gap, δ(m_n, μ_n)", "Mahalanobis"),
    "old_mean": ("old mean, m_o", "feature"),
    "new_mean": ("new mean, m_n", "feature"),
    "mean": ("mean of the single mode", "feature"),
    "scale": ("square root of the covariance", "feature"),
    "old_scale": ("square root of the old mode's covariance", "feature"),
    "new_scale": ("square root of the new mode's covariance", "feature"),
    "old_overlap": ("share of the target's old mode that is covered", "1"),
    "new_overlap": ("share of the target's new mode that is covered", "1"),
    "drop": ("drop in overlap with the old mode", "1"),
    "gain": ("gain in overlap with the new mode", "1"),
    "learnt_drop": ("drop where the gain first reaches 0.9", "1"),
    "learnt_step": ("step where the gain first reaches 0.9", "step"),
    "method": ("training method", "1"),
    "learning_rate": ("learning rate", "1"),
    "factor": ("factor on the updates of the old mode and of the weight", "1"),
    "loss": ("divergence, minibatch estimate", "nat"),
    "deviation": ("largest deviation from the exact descent", "standard error"),
    "noise_limit": ("what noise alone explains", "standard error"),
    "deviation_step": ("step of the largest deviation", "step"),
    "discretisation": ("largest distance of the exact descent from the flow, in retention", "1"),
    "old_drift_bound": ("bound of the flow's old drift", "Mahalanobis"),
    "integration_error": ("estimated error of the integrals", "1"),
    "old_weight_mean": ("posterior mean of the old weight", "1"),
    "old_weight_sd": ("posterior standard deviation of the old weight", "1"),
    "old_weight_quantile": ("posterior quantile of the old weight", "1"),
    "old_weight_density": ("posterior density of the old weight", "1"),
    "node_old_weight": ("old weight at which the density is given", "1"),
    "num_samples": ("samples of the checkpoint", "1"),
    "information": ("information on the old weight a sample, 1: its mode is known", "1"),
    "words": ("what a reader must know", "1"),
    "new_weight": ("new weight", "1"),
    "old_displacement": ("displacement of the old mean, Δ_o", "feature"),
    "new_displacement": ("displacement of the new mean, Δ_n", "feature"),
    "old_resolution": ("old drift that can be told from none", "Mahalanobis"),
    "new_resolution": ("new gap that can be told from none", "Mahalanobis"),
    "old_unmoved_probability": ("probability that the old mode has not moved", "1"),
    "new_unmoved_probability": ("probability that the new mode has not moved", "1"),
    "streamed": ("1: the samples were read piece by piece, 0: they were held in memory", "1"),
    "weight_information": ("information on the old weight a sample, 1: its mode is known", "1"),
    "k_hat": ("Pareto shape of the importance weights, k-hat", "1"),
    "efficiency": ("effective share of the importance draws", "1"),
    "r_hat": ("largest R-hat", "1"),
    "ess": ("smallest effective sample size", "1"),
    "divergences": ("divergent transitions", "1"),
    "reference_share": ("part of the variance of the old weight that the references' error makes", "1"),
    "reference_draw": ("draw of what the references say, which all checkpoints share", "1"),
    "weight_words": ("what a reader must know of the weight", "1"),
    "drift_words": ("what a reader must know of the drift", "1"),
    "contaminated_old": ("share of the old reference that looks like the new task", "1"),
    "contaminated_new": ("share of the new reference that looks like the old task", "1"),
    "old_along_axis": ("displacement of the old mean along the axis, away from the new task", "Mahalanobis"),
    "new_along_axis": ("displacement of the new mean along the axis, toward the old task", "Mahalanobis"),
    "num_repeated": ("samples that are equal to an earlier one", "1"),
    "near_rows": ("log ratio of the distance between nearest samples to that of the references'", "1"),
    "near_rows_error": ("its standard error", "1"),
    "lag_correlation": ("correlation of neighbours in the file", "1"),
    "lag_correlation_error": ("its standard error", "1"),
    "drift": ("drift of the items' logits, δ", "nat"),
    "drift_spread": ("spread of the drift over items, τ", "nat"),
    "accuracy": ("mean success on the task", "1"),
    "accuracy_change": ("change of the mean success on the task", "1"),
    "accuracy_change_of_items": ("change of the mean success on these items alone", "1"),
    "lost": ("success lost, E max(p_base - p_run, 0)", "1"),
    "won": ("success won, E max(p_run - p_base, 0)", "1"),
    "lost_uncertainty": ("half the range in which brute force puts what is lost", "1"),
    "won_uncertainty": ("half the range in which brute force puts what is won", "1"),
    "known_kept": ("share of items known before and after", "1"),
    "forgotten": ("share of items known before and not after", "1"),
    "acquired": ("share of items known after and not before", "1"),
    "persistence": ("probability that the guess of an unknown item stays", "1"),
    "kind": ("kind of answers: repeats, or one of several choices", "1"),
    "num_items": ("items", "1"),
    "num_answers": ("answers an item, the fewer of base and run", "1"),
    "mean_choices": ("mean number of choices", "1"),
    "mass_lost_width": ("width of the interval of the mass lost", "1"),
    "answers_wanted": ("answers an item that would tell the mass lost", "1"),
    "num_left_out": ("items that are left out", "1"),
    "num_seeds": ("training seeds of the arm", "1"),
    "is_retest": ("1: another evaluation of the base", "1"),
    "retest_differs": ("1: an evaluation of the base differs by more than chance", "1"),
    "fractional": ("1: scores between 0 and 1", "1"),
    "share_compared": ("share of the items that are checked", "1"),
    "deviation_base": ("deviation of the base's counts from prediction, in standard deviations", "1"),
    "deviation_together": ("deviation of the joint counts from prediction, in standard deviations", "1"),
    "deviation_always_right": (
        "deviation of the counts of items that the base always solves, in standard deviations",
        "1",
    ),
    "deviation_never_right": (
        "deviation of the counts of items that the base never solves, in standard deviations",
        "1",
    ),
    "deviation_from_base": ("deviation of the joint counts from no change, in standard deviations", "1"),
    "observed_accuracy": ("mean score of the run", "1"),
    "observed_base_accuracy": ("mean score of the base", "1"),
    "observed_change": ("mean difference of the items' scores", "1"),
    "observed_change_error": ("its standard error, by item", "1"),
    "mcnemar_p": ("p of McNemar's exact test", "1"),
    "forgotten_share": ("share of items right before and wrong after, F", "1"),
    "forgotten_beyond_guessing": ("F_true of Harmon et al.", "1"),
    "acquired_beyond_guessing": ("BT_true of Harmon et al.", "1"),
    "deviation_left_out": ("deviation of the mean in what a projection leaves out", "1"),
    "deviation_spread_along_axis": (
        "deviation of the spread along the axis from its prediction, in standard deviations",
        "1",
    ),
    "deviation_skewness_along_axis": (
        "deviation of the skewness along the axis from its prediction, in standard deviations",
        "1",
    ),
    "deviation_kurtosis_along_axis": (
        "deviation of the kurtosis along the axis from its prediction, in standard deviations",
        "1",
    ),
    "deviation_places_along_axis": (
        "deviation of the places along the axis from its prediction, in standard deviations",
        "1",
    ),
    "deviation_spread_across_axis_old": (
        "deviation of the old side's spread across the axis from its prediction, in standard deviations",
        "1",
    ),
    "deviation_spread_across_axis_new": (
        "deviation of the new side's spread across the axis from its prediction, in standard deviations",
        "1",
    ),
    "deviation_widest_across_axis": (
        "deviation of the largest variance across the axis from its prediction, in standard deviations",
        "1",
    ),
    "deviation_far_from_both": (
        "deviation of the distance from both references from its prediction, in standard deviations",
        "1",
    ),
    "check_statistic": ("statistic of the predictive check", "1"),
    "statistic": ("statistic of the predictive check", "1"),
    "sample_mean": ("mean of the samples", "feature"),
    "sample_sd": ("standard deviation of the samples", "feature"),
    "reference_mean": ("mean of the reference", "feature"),
    "frame_mean": ("mean of the reference in the frame", "Mahalanobis"),
    "frame_origin": ("origin of the frame", "feature"),
    "frame_forward": ("from features to the frame", "1/feature"),
    "projection": ("from the given features to the measured ones", "1"),
    "source_feature": ("given feature", "1"),
    "coordinate": ("coordinate of the frame", "1"),
    "mode": ("mode", "1"),
    "row": ("sample", "1"),
    "sample": ("sample", "1"),
    "samples": ("samples in the frame", "Mahalanobis"),
    "reference_samples": ("reference samples in the frame", "Mahalanobis"),
    "shown_checkpoint": ("checkpoint", "1"),
    "plane": ("coordinate of the discriminant plane", "1"),
    "y": ("log-likelihood of a sample", "nat"),
    "checkpoint": ("checkpoint", "1"),
    "probability": ("probability", "1"),
    "node": ("node of the density", "1"),
    "diverged_step": ("first step out of the sensible range, or not finite, -1: none", "step"),
    "chain": ("chain", "1"),
    "draw": ("draw: a replicate training, or one of the posterior", "1"),
    "step": ("training step", "step"),
    "time": ("time, steps times learning rate", "1"),
    "setting": ("setting", "1"),
    "separation": ("separation of the modes, δ(μ_o, μ_n)", "Mahalanobis"),
    "target_weight": ("target's old weight, α", "1"),
    "means": ("whether the means are held or move", "1"),
    "old_weight_separated": ("old weight of modes apart, ~ 1/t", "1"),
    "old_weight_rare": ("old weight of a rare old mode, ~ t^(-1/2)", "1"),
    "crossover_weight": ("old weight where the two asymptotes of the velocity meet", "1"),
    "crossover_time": ("time at which the old weight is the crossover's", "1"),
    "start": ("where the flow starts", "1"),
    "peak_old_drift": ("peak old drift", "Mahalanobis"),
    "integrated_old_drift": ("integral of the old drift over time", "Mahalanobis"),
    "noise_floor": ("mean peak of the old drift that noise alone makes", "Mahalanobis"),
    "measure": ("measure of drift", "1"),
    "fit_from": ("least separation of the regression", "Mahalanobis"),
    "centre": ("log drift at the mean δ² and log δ", "1"),
    "decay_rate": ("decay rate k of drift ~ exp(-k δ²)", "1"),
    "log_power": ("power b of drift ~ δ^b", "1"),
    "residual_sd": ("standard deviation of the residual", "1"),
    "residual_length": ("correlation length of the residual", "Mahalanobis"),
    "log_drift": ("logarithm of a measure of drift", "1"),
    "diverging": ("whether the step diverged", "1"),
    "acceptance_rate": ("acceptance probability", "1"),
    "n_steps": ("leapfrog steps", "1"),
    "tree_depth": ("depth of the tree", "1"),
    "reached_max_tree_depth": ("whether the tree reached its greatest depth", "1"),
    "measured_rate": ("rate of convergence fitted to the flow's tail", "1"),
    "local_rate": ("smallest eigenvalue of the Fisher information", "1"),
    "distance": ("distance of the whitened parameters from the target", "1"),
    "fit_from_time": ("start of the tail that is fitted", "1"),
    "replay": ("replayed share, λ", "1"),
    "optimum": ("old weight at the population optimum", "1"),
    "end": ("old weight at the end of the exact flow", "1"),
    "learner_weight": ("learner's old weight, β", "1"),
    "starvation": ("probability of a batch without an old behaviour", "1"),
    "starved_share": ("share of drawn batches without an old behaviour", "1"),
    "effective_fraction": ("effective sample fraction, 1/E[w²]", "1"),
    "effective_fraction_bound": ("lower bound of the effective sample fraction", "1"),
    "starved_share_interval": ("interval of the share of drawn batches without an old behaviour", "1"),
    "ci_bound": ("bound of the interval", "1"),
    "drawn_fraction": ("effective sample fraction of drawn behaviours", "1"),
    "recovery_step": ("step at which half of the missing weight is back", "step"),
    "batch_size": ("batch size", "1"),
    "knob": ("setting that is turned to keep old behaviour", "1"),
    "knob_setting": ("value of the knob that is planned with", "1"),
    "knob_value": ("value of the knob", "1"),
    "knob_index": ("place on the knob's curve", "1"),
    "smallest_knob": ("smallest value of the knob that keeps the wanted retention", "1"),
    "knob_crossing": ("value of the knob at which the final retention is the wanted one", "1"),
    "planned_old_weight": ("final old weight at the smallest value of the knob", "1"),
    "planned_retention": ("final retention at the smallest value of the knob", "1"),
    "planned_peak_old_drift": ("peak old drift at the smallest value of the knob", "Mahalanobis"),
    "answer": ("what keeps the wanted retention", "1"),
    "final_old_weight": ("old weight after the last step", "1"),
    "final_old_weight_lower": ("final old weight, lowest over what was estimated", "1"),
    "final_old_weight_upper": ("final old weight, highest over what was estimated", "1"),
    "final_retention": ("retention of old behaviour after the last step", "1"),
    "final_retention_lower": ("final retention, lowest over what was estimated", "1"),
    "final_retention_upper": ("final retention, highest over what was estimated", "1"),
    "peak_old_drift_lower": ("peak old drift, lowest over what was estimated", "Mahalanobis"),
    "peak_old_drift_upper": ("peak old drift, highest over what was estimated", "Mahalanobis"),
    "separation_interval": ("interval of the separation", "Mahalanobis"),
    "plug_in_separation": ("separation of the samples, with their noise", "Mahalanobis"),
    "start_old_weight": ("old weight at the start", "1"),
    "start_old_weight_interval": ("interval of the old weight at the start", "1"),
    "covariance": ("covariance within the tasks, pooled", "feature squared"),
    "spread_ratio": ("new task's spread over the old one's, along their axis", "1"),
    "kept_share": ("final retention over that at the start", "1"),
    "starvation_largest": ("largest probability on the path of a batch without an old behaviour", "1"),
    "starvation_ever": ("probability of at least one batch without an old behaviour", "1"),
    "counted_by_kind": ("old weight counted by one kind of classifier", "1"),
    "agrees_with_kind": ("whether the interval of the difference from one kind's count holds 0", "1"),
    "distinct": ("whether these images are counted here for the first time", "1"),
    "counted_interval": ("counted old weight, interval", "1"),
    "difference": ("measured minus counted old weight", "1"),
    "difference_interval": ("measured minus counted old weight, interval", "1"),
    "agrees": ("whether the interval of the difference holds 0", "1"),
    "seed": ("network, trained by itself", "1"),
    "image": ("generated image", "level of grey"),
    "real_image": ("real image", "level of grey"),
    "image_number": ("image", "1"),
    "pixel_row": ("row of pixels", "1"),
    "pixel_column": ("column of pixels", "1"),
    "exponent": ("exponent of the decay, -d log β / d log t", "1"),
    "feature": ("coordinate of a behaviour", "1"),
    "feature_bis": ("coordinate of a behaviour", "1"),
    "anchor": ("anchor λ of SDFT", "1"),
    "ema": ("rate a step of SDFT's teacher", "1"),
    "demonstrated_weight": ("old weight of the demonstrations", "1"),
    "demonstrated_drift": ("old drift of the demonstrations", "Mahalanobis"),
    "kl_weight": ("KL weight λ of TTT-Discover", "1"),
    "eta": ("temperature η of TTT-Discover", "1"),
    "beta": ("temperature β₁ = β₂ of OAPL", "1"),
    "lag": ("steps between two syncs of OAPL", "step"),
    "retains": ("whether old mass is kept in the long run", "1"),
    "resting_old_weight": ("old weight in the long run", "1"),
    "mean_displacement": ("old drift of the mean over trainings", "Mahalanobis"),
    "mean_displacement_error": ("root mean square error of that drift", "Mahalanobis"),
    "answers": ("answers of the run to each item", "1"),
    "seeds": ("training seeds of the arm", "1"),
    "items": ("items of the task", "1"),
    "cost": ("generated answers, of base and runs", "1"),
    "width": ("expected width of the interval", "1"),
    "power": ("probability to see the loss", "1"),
    "false_alarm": ("probability to see a loss where there is none", "1"),
    "items_tried": ("items of the task", "1"),
    "cost_tried": ("generated answers, of base and runs", "1"),
    "width_tried": ("expected width of the interval", "1"),
    "power_tried": ("probability to see the loss", "1"),
    "objective": ("post-training objective", "1"),
    "objective_model": ("what the learner is pulled toward", "1"),
    "sampling_law": ("whose behaviours are seen", "1"),
    "divergence": ("divergence that is minimised", "1"),
    "direction": ("direction of the divergence", "1"),
}

_EVENT_DIMS = ("feature", "feature_bis")

_ENGINES: Any = {".zarr": "zarr", ".nc": "netcdf4"}


def describe(dataset: xr.Dataset) -> xr.Dataset:
    """Give every variable and coordinate of the layout its ``long_name`` and ``units``, in place."""
    for name, variable in dataset.variables.items():
        owner, _, field = str(name).partition("_")
        if name in _LONG_NAME_AND_UNITS:
            variable.attrs["long_name"], variable.attrs["units"] = _LONG_NAME_AND_UNITS[str(name)]
        elif field in _LONG_NAME_AND_UNITS:
            long_name, variable.attrs["units"] = _LONG_NAME_AND_UNITS[field]
            variable.attrs["long_name"] = f"{owner}: {long_name}"
    return dataset


def training_tree(
    objectives: Sequence[Any],
    trajectories: Sequence[Mapping[str, np.ndarray]],
    diverged_steps: Sequence[np.ndarray],
    steps: np.ndarray,
    mixtures: Mapping[str, TwoMode],
    settings: Mapping[str, Any],
) -> xr.DataTree:
    """Assemble the result of a training.

    Args:
        objectives: one `mixture_models.Objective` an entry.
        trajectories: for each objective its variables, each of shape (replicate, step, *event).
        diverged_steps: for each objective an integer array of shape (replicate,).
        steps: the recorded steps, shape (step,).
        mixtures: ``"start"`` and ``"target"``, kept in ``/constant_data``.
        settings: the other arguments of the training, for the root's attributes.

    Returns:
        DataTree with groups ``/trajectory``, ``/final``, ``/trajectory_stats`` and ``/constant_data``.
    """
    first = trajectories[0]
    coords = objective_coords(objectives) | {"chain": [0], "draw": np.arange(len(diverged_steps[0]))}
    variables = {
        name: (
            ("objective", "chain", "draw", "step", *_EVENT_DIMS[: array.ndim - 2]),
            np.stack([trajectory[name] for trajectory in trajectories])[:, None],
        )
        for name, array in first.items()
    }
    trajectory = _with_features(xr.Dataset(variables, coords | {"step": steps}))
    stats = xr.Dataset(
        {"diverged_step": (("objective", "chain", "draw"), np.stack(diverged_steps)[:, None])}, coords
    )
    final = trajectory.isel(step=-1, drop=True)
    root = xr.Dataset(attrs=provenance(settings))
    groups = {
        "trajectory": trajectory,
        "final": final,
        "trajectory_stats": stats,
        "constant_data": _constant_data(mixtures),
    }
    return xr.DataTree.from_dict(
        {"/": root} | {f"/{name}": describe(group) for name, group in groups.items()}
    )


def population_tree(
    objectives: Sequence[Any],
    populations: Sequence[Mapping[str, np.ndarray]],
    coords: Mapping[str, Any],
    mixtures: Mapping[str, Sequence[TwoMode]],
    settings: Mapping[str, Any],
    *,
    batched: bool,
) -> xr.DataTree:
    """Assemble the result of exact dynamics.

    Args:
        objectives: one `mixture_models.Objective` an entry.
        populations: for each objective its variables, each of shape (setting, time, *event).
        coords: coordinate ``time`` and what else goes along it.
        mixtures: ``"start"`` and ``"target"`` of every setting, kept in ``/constant_data``.
        settings: the other arguments, for the root's attributes.
        batched: whether the result has a dimension ``setting``.

    Returns:
        DataTree with groups ``/population`` and ``/constant_data``.
    """
    dims = ("objective", "setting", "time")
    variables = {
        name: ((*dims, *_EVENT_DIMS[: array.ndim - 2]), np.stack([p[name] for p in populations]))
        for name, array in populations[0].items()
    }
    count = len(mixtures["start"])
    population = _with_features(
        xr.Dataset(variables, objective_coords(objectives) | {"setting": np.arange(count), **coords})
    )
    describe(population)["loss"].attrs["long_name"] = "divergence, exact"
    constant = xr.concat(
        [_constant_data({name: mixtures[name][i] for name in mixtures}) for i in range(count)],
        xr.DataArray(np.arange(count), dims="setting", name="setting"),
    )
    groups = {"population": population, "constant_data": describe(constant)}
    if not batched:
        groups = {name: group.isel(setting=0, drop=True) for name, group in groups.items()}
    root = xr.Dataset(attrs=provenance(settings))
    return xr.DataTree.from_dict({"/": root} | {f"/{name}": group for name, group in groups.items()})


def on_grid(dataset: xr.Dataset, axes: Mapping[str, Any]) -> xr.Dataset:
    """Give the settings of an exact result the dims of the grid that they ran over, the last one fastest.

    Args:
        dataset: with a dim ``setting``.
        axes: the coordinate of every new dim, in the order in which ``setting`` lists their product.
    """
    index = xr.Coordinates.from_pandas_multiindex(
        pd.MultiIndex.from_product(list(axes.values()), names=list(axes)), "setting"
    )
    grid = dataset.drop_vars("setting").assign_coords(index).unstack("setting").reindex(dict(axes))
    leading = [dim for dim in dataset.dims if dim == "objective"]
    return describe(grid.transpose(*leading, *axes, ...))


def attributes_of(name: str) -> dict[str, str]:
    """Return ``long_name`` and ``units`` of a variable of the layout, nothing of another one."""
    return dict(zip(("long_name", "units"), _LONG_NAME_AND_UNITS.get(name, ()), strict=False))


def recorded_steps(num_steps: int, record_every: int) -> np.ndarray:
    """Return the steps that are recorded: every so many from 0 on, and the last."""
    return np.unique(np.append(np.arange(0, num_steps, min(record_every, num_steps)), num_steps))


def objective_coords(objectives: Sequence[Any]) -> dict[str, Any]:
    """Return the names of objectives and what they are made of, as coordinates."""
    return {
        "objective": [objective.name for objective in objectives],
        "objective_model": ("objective", [objective.description for objective in objectives]),
        "sampling_law": ("objective", [_word(objective.divergence, "sampling") for objective in objectives]),
        "divergence": ("objective", [type(objective.divergence).__name__ for objective in objectives]),
        "direction": ("objective", [_word(objective.divergence, "direction") for objective in objectives]),
    }


def two_mode(tree: xr.DataTree, name: str) -> TwoMode:
    """Return the ``"start"`` or the ``"target"`` that a training used."""
    data = tree["constant_data"].to_dataset()
    stored = {field: data.get(f"{name}_{field}") for field in TwoMode.__dataclass_fields__}
    return TwoMode(**{field: None if array is None else array.to_numpy() for field, array in stored.items()})


def provenance(settings: Mapping[str, Any]) -> dict[str, str | int | float]:
    """Return the root attributes: settings, versions and backend, as str, int or float."""
    packages = ("massdrift", "jax", "numpyro", "optax", "arviz", "xarray", "numpy")
    flat = {name: value for name, value in settings.items() if isinstance(value, int | float | str)}
    return {
        "massdrift_layout": LAYOUT,
        **{name: int(value) if isinstance(value, bool) else value for name, value in flat.items()},
        "settings": json.dumps(settings, default=_jsonable),
        "versions": json.dumps({package: version_of(package) for package in packages}),
        "backend": jax.default_backend(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _constant_data(mixtures: Mapping[str, TwoMode]) -> xr.Dataset:
    """Return the parameters of the start and the target; scales keep their structure."""
    arrays = {
        f"{name}_{field}": getattr(mixture, field)
        for name, mixture in mixtures.items()
        for field in TwoMode.__dataclass_fields__
        if getattr(mixture, field) is not None
    }
    return _with_features(xr.Dataset({name: (_EVENT_DIMS[: a.ndim], a) for name, a in arrays.items()}))


def _with_features(dataset: xr.Dataset) -> xr.Dataset:
    """Give the event dimensions their coordinates."""
    return dataset.assign_coords({d: np.arange(dataset.sizes[d]) for d in _EVENT_DIMS if d in dataset.sizes})


def converged(tree: xr.DataTree) -> xr.DataArray:
    """Return which replicates stayed finite, booleans over (objective, chain, draw)."""
    return tree["trajectory_stats"].to_dataset()["diverged_step"] < 0


def save(tree: xr.DataTree, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a result to ``path`` (``.zarr`` or ``.nc``) whole or not at all.

    Raises:
        InputError: another suffix, no folder that can be written to, or an existing output without
            ``overwrite``; with it, one that is not a massdrift result or holds something else.
        OSError: the disk is full, or fails.
    """
    if not isinstance(tree, xr.DataTree):
        raise InputError(f"tree must be an xarray.DataTree; got {type(tree).__name__}")
    path = files.place(path_of("path", path))
    one_of("the suffix of a result", path.suffix, _ENGINES)
    files.check_new(path, foreign, overwrite=overwrite)
    if not path.resolve().parent.is_dir():
        raise InputError(f"{path} must lie in an existing folder; there is no {path.resolve().parent}")
    files.check_writable(path)
    with files.folder_beside(path) as folder:
        part = folder / path.name
        if path.suffix == ".zarr":
            with warnings.catch_warnings():
                # Without it a bare `xarray.open_datatree` warns on every reading.
                warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
                tree.to_zarr(part, zarr_format=3, consolidated=True)
        else:
            try:
                tree.to_netcdf(part, engine="netcdf4")
            except RuntimeError as error:  # what netCDF4 says of a full disk
                raise OSError(f"{path} cannot be written: {error}") from error
        files.check_new(path, foreign, overwrite=overwrite)  # again: what came since is not ours to replace
        files.replace(part, path)
    return path


def open(path: str | Path) -> xr.DataTree:
    """Read a result that `save` wrote, whole, into memory.

    Raises:
        InputError: no such file, not readable, or not a massdrift result of this layout.
    """
    path = path_of("path", path)
    one_of("the suffix of a result", path.suffix, _ENGINES)
    if not path.exists():
        raise InputError(f"{path} must be a massdrift result; there is no such file")
    with (
        reading(path, f"{path} must be a massdrift result"),
        xr.open_datatree(path, engine=_ENGINES[path.suffix]) as lazy,
    ):
        tree = lazy.load()
    layout = tree.attrs.get("massdrift_layout")
    if layout != LAYOUT:
        found = "another file" if layout is None else f"layout {layout}"
        raise InputError(f"{path} must be a massdrift result of layout {LAYOUT}; got {found}")
    if "commits" in tree.children:
        check_complete(path, tree["commits"]["checksum"].to_numpy())
    return tree


def check_complete(path: Path, commits: np.ndarray) -> None:
    """Refuse a sweep of which chunks, the last axis being the arrays, are not trained."""
    there = np.all(commits != 0, axis=-1)
    if not there.all():
        raise InputError(
            f"{path} must be finished to be read; {there.size - int(there.sum())} of {there.size} chunks are "
            "missing: run the sweep again to complete it"
        )


def foreign(path: Path) -> str | None:
    """Say why a file or a zarr store is not a massdrift result, and nothing else; None where it is."""
    if path.suffix == ".zarr":
        return files.foreign_in_zarr(path, "massdrift_layout")
    if not path.is_file():
        return "it is a folder"
    import netCDF4  # only asked when a file is overwritten

    try:
        with netCDF4.Dataset(path) as file:
            ours = "massdrift_layout" in file.ncattrs()
    except OSError:
        ours = False
    return None if ours else "it is another file"


def names(objectives: Iterable[Any]) -> list[str]:
    """Return the objectives' names, or refuse two of one name, which a result could not tell apart."""
    result = [objective.name for objective in objectives]
    twice = sorted({name for name in result if result.count(name) > 1})
    if twice:
        raise InputError(f"objectives must have different names; got {', '.join(twice)} more than once")
    return result


def _word(owner: Any, name: str) -> str:
    return str(getattr(owner, name, "not stated"))


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)
