"""The layout of a result: the one place that knows the DataTree's groups, names and files."""

import json
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from mixture_models.two_mode import TwoMode
from mixture_models.validation import InputError, one_of

#: Version of the layout that `open` reads.
LAYOUT = 1

_LONG_NAME_AND_UNITS = {
    "old_weight": ("old weight, β", "1"),
    "old_logit": ("old logit, φ", "nat"),
    "retention": ("retention of old behaviour", "1"),
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
    "old_unmoved_probability": ("probability that the old drift is below its resolution", "1"),
    "new_unmoved_probability": ("probability that the new gap is below its resolution", "1"),
    "weight_information": ("information on the old weight a sample, 1: its mode is known", "1"),
    "k_hat": ("Pareto shape of the importance weights, k-hat", "1"),
    "efficiency": ("effective share of the importance draws", "1"),
    "r_hat": ("largest R-hat", "1"),
    "ess": ("smallest effective sample size", "1"),
    "divergences": ("divergent transitions", "1"),
    "deviation_spread_along_axis": (
        "deviation of the spread along the axis from its prediction, in standard deviations",
        "1",
    ),
    "deviation_kurtosis_along_axis": (
        "deviation of the kurtosis along the axis from its prediction, in standard deviations",
        "1",
    ),
    "deviation_spread_across_axis": (
        "deviation of the spread across the axis from its prediction, in standard deviations",
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
    "diverged_step": ("first step with a value that is not finite, -1: none", "step"),
    "chain": ("chain", "1"),
    "draw": ("draw: a replicate training, or one of the posterior", "1"),
    "step": ("training step", "step"),
    "feature": ("coordinate of a behaviour", "1"),
    "feature_bis": ("coordinate of a behaviour", "1"),
    "objective": ("post-training objective", "1"),
    "objective_model": ("what the learner is pulled toward", "1"),
    "sampling_law": ("whose behaviours are seen", "1"),
    "divergence": ("divergence that is minimised", "1"),
    "direction": ("direction of the divergence", "1"),
}

_EVENT_DIMS = ("feature", "feature_bis")

_SUFFIXES = (".zarr", ".nc")


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
    num_replicates = len(diverged_steps[0])
    coords: dict[str, Any] = {
        "objective": [objective.name for objective in objectives],
        "chain": [0],
        "draw": np.arange(num_replicates),
        "objective_model": ("objective", [objective.description for objective in objectives]),
        "sampling_law": ("objective", [_word(objective.divergence, "sampling") for objective in objectives]),
        "divergence": ("objective", [type(objective.divergence).__name__ for objective in objectives]),
        "direction": ("objective", [_word(objective.divergence, "direction") for objective in objectives]),
    }
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
        "versions": json.dumps({package: _version(package) for package in packages}),
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
        InputError: another suffix, no such parent folder, or an existing output without ``overwrite``.
    """
    path = Path(path)
    one_of("the suffix of a result", path.suffix, _SUFFIXES)
    new_output(path, "zarr.json" if path.suffix == ".zarr" else None, overwrite=overwrite)
    if not path.resolve().parent.is_dir():
        raise InputError(f"{path} must lie in an existing folder; there is no {path.resolve().parent}")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        part = Path(folder) / path.name
        if path.suffix == ".zarr":
            with warnings.catch_warnings():
                # Without it a bare `xarray.open_datatree` warns on every reading.
                warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
                tree.to_zarr(part, zarr_format=3, consolidated=True)
        else:
            tree.to_netcdf(part, engine="netcdf4")
        replace(part, path)
    return path


def open(path: str | Path) -> xr.DataTree:
    """Read a result that `save` wrote, whole, into memory.

    Raises:
        InputError: no such file, not readable, or not a massdrift result of this layout.
    """
    path = Path(path)
    one_of("the suffix of a result", path.suffix, _SUFFIXES)
    if not path.exists():
        raise InputError(f"{path} must be a massdrift result; there is no such file")
    try:
        with xr.open_datatree(path) as lazy:
            tree = lazy.load()
    except Exception as error:  # whatever a backend raises on a damaged or foreign file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} must be a massdrift result; it cannot be read: {reason}") from error
    layout = tree.attrs.get("massdrift_layout")
    if layout != LAYOUT:
        found = "another file" if layout is None else f"layout {layout}"
        raise InputError(f"{path} must be a massdrift result of layout {LAYOUT}; got {found}")
    return tree


def new_output(path: Path, marker: str | None = None, *, overwrite: bool = False) -> None:
    """Check that ``path`` can be written before anything is computed.

    Args:
        path: the file or folder to be written.
        marker: a file that an earlier output in this place holds, where outputs are folders.
        overwrite: whether an earlier output may be replaced; a folder of anything else never is.

    Raises:
        InputError: something stands there that may not be replaced.
    """
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        raise InputError(f"{path} must not exist yet, or be overwritten explicitly; it exists")
    if path.is_dir() != (marker is not None) or (marker and not (path / marker).exists()):
        expected = "a file" if marker is None else f"an earlier result (a folder with {marker})"
        raise InputError(f"{path} must be {expected} to be overwritten; it is something else")


def replace(part: Path, path: Path) -> None:
    """Move a finished file or folder to its name; what stood there is put aside first, then deleted."""
    if path.is_dir() and not path.is_symlink():
        aside = part.with_name(part.name + ".old")
        path.rename(aside)
        try:
            part.rename(path)
        except OSError:
            aside.rename(path)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    else:
        part.replace(path)


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


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
