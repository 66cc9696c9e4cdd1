"""Results put together: the DataTree's groups from arrays, for trainings and exact dynamics."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import jax
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from inference.intervals import interval_name
from inference.results.schema import LAYOUT, describe
from inference.storage.versions import version_of
from mixture_models.metrics import TASK_DIMS
from mixture_models.mixture.mixture import Mixture, TaskMixture
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.objectives.objective import Objective
from mixture_models.validation import InputError

_EVENT_DIMS = ("feature", "feature_bis")


def training_tree(
    objectives: Sequence[Objective],
    trajectories: Sequence[Mapping[str, np.ndarray]],
    diverged_steps: Sequence[np.ndarray],
    steps: np.ndarray,
    mixtures: Mapping[str, Mixture],
    settings: Mapping[str, object],
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
    tasks = mixtures["target"].names
    variables = {
        name: (
            ("objective", "chain", "draw", "step", *event_dims(name, array.ndim - 2)),
            np.stack([trajectory[name] for trajectory in trajectories])[:, None],
        )
        for name, array in first.items()
    }
    trajectory = with_features(xr.Dataset(variables, coords | {"step": steps}), tasks)
    stats = xr.Dataset(
        {"diverged_step": (("objective", "chain", "draw"), np.stack(diverged_steps)[:, None])}, coords
    )
    final = trajectory.isel(step=-1, drop=True)
    groups = {
        "trajectory": trajectory,
        "final": final,
        "trajectory_stats": stats,
        "constant_data": constant_data(mixtures),
    }
    return assembled(groups, provenance(settings))


def population_tree(
    objectives: Sequence[Objective],
    populations: Sequence[Mapping[str, np.ndarray]],
    coords: Mapping[str, object],
    mixtures: Mapping[str, Sequence[Mixture]],
    settings: Mapping[str, object],
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
        name: ((*dims, *event_dims(name, array.ndim - 2)), np.stack([p[name] for p in populations]))
        for name, array in populations[0].items()
    }
    count = len(mixtures["start"])
    population = with_features(
        xr.Dataset(variables, objective_coords(objectives) | {"setting": np.arange(count), **coords}),
        mixtures["target"][0].names,
    )
    describe(population)["loss"].attrs["long_name"] = "divergence, exact"
    constant = xr.concat(
        [constant_data({name: mixtures[name][i] for name in mixtures}) for i in range(count)],
        xr.DataArray(np.arange(count), dims="setting", name="setting"),
    )
    groups = {"population": population, "constant_data": describe(constant)}
    if not batched:
        groups = {name: group.isel(setting=0, drop=True) for name, group in groups.items()}
    root = xr.Dataset(attrs=provenance(settings))
    return xr.DataTree.from_dict({"/": root} | {f"/{name}": group for name, group in groups.items()})


def assembled[Name](groups: Mapping[str, xr.Dataset], attrs: Mapping[Name, object]) -> xr.DataTree:
    """Return a result of groups, their variables described, with the attributes of its root."""
    described = {f"/{name}": describe(group) for name, group in groups.items()}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs)} | described)


def on_grid(dataset: xr.Dataset, axes: Mapping[str, ArrayLike]) -> xr.Dataset:
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


def recorded_steps(num_steps: int, record_every: int) -> np.ndarray:
    """Return the steps that are recorded: every so many from 0 on, and the last."""
    return np.unique(np.append(np.arange(0, num_steps, min(record_every, num_steps)), num_steps))


def objective_coords(objectives: Sequence[Objective]) -> dict[str, list[str] | tuple[str, list[str]]]:
    """Return the names of objectives and what they are made of, as coordinates."""
    return {
        "objective": [objective.name for objective in objectives],
        "objective_model": ("objective", [objective.description for objective in objectives]),
        "sampling_law": ("objective", [objective.sampling.words for objective in objectives]),
        "divergence": ("objective", [objective.loss.name for objective in objectives]),
        "direction": ("objective", [objective.loss.direction for objective in objectives]),
    }


def names(objectives: Iterable[Objective]) -> list[str]:
    """Return the objectives' names, or refuse two of one name, which a result could not tell apart."""
    result = [objective.name for objective in objectives]
    twice = sorted({name for name in result if result.count(name) > 1})
    if twice:
        raise InputError(f"objectives must have different names; got {', '.join(twice)} more than once")
    return result


def two_mode(tree: xr.DataTree, name: str) -> TwoMode:
    """Return the ``"start"`` or the ``"target"`` that a training used."""
    data = tree["constant_data"].to_dataset()
    stored = {field: data.get(f"{name}_{field}") for field in TwoMode.__dataclass_fields__}
    return TwoMode(**{field: None if array is None else array.to_numpy() for field, array in stored.items()})


def task_mixture(tree: xr.DataTree, name: str) -> TaskMixture:
    """Return the ``"start"`` or the ``"target"`` of named tasks that a training used."""
    data = tree["constant_data"].to_dataset()
    logits, means, scale = (data[f"{name}_{f}"].to_numpy() for f in ("task_logit", "task_mean", "scale"))
    return TaskMixture(tuple(str(task) for task in data["task"].to_numpy()), logits, means, scale)


def converged(tree: xr.DataTree) -> xr.DataArray:
    """Return which replicates stayed finite, booleans over (objective, chain, draw)."""
    return tree["trajectory_stats"].to_dataset()["diverged_step"] < 0


def provenance(settings: Mapping[str, object]) -> dict[str, str | int | float]:
    """Return the root attributes: settings, versions, backend and what intervals are, as plain values."""
    packages = ("massdrift", "jax", "numpyro", "optax", "arviz", "xarray", "numpy")
    flat = {name: value for name, value in settings.items() if isinstance(value, int | float | str)}
    return {
        "massdrift_layout": LAYOUT,
        **{name: int(value) if isinstance(value, bool) else value for name, value in flat.items()},
        "settings": json.dumps(settings, default=_jsonable),
        "versions": json.dumps({package: version_of(package) for package in packages}),
        "backend": jax.default_backend(),
        "intervals": interval_name(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def event_dims(name: str, rank: int) -> tuple[str, ...]:
    """Return the dims of one value of a variable: those of tasks, else of features."""
    return TASK_DIMS.get(name, _EVENT_DIMS[:rank])


def constant_data(mixtures: Mapping[str, Mixture]) -> xr.Dataset:
    """Return the parameters of the start and the target; scales keep their structure."""
    variables = {
        f"{name}_{field}": (event_dims(field, array.ndim), array)
        for name, mixture in mixtures.items()
        for field, array in mixture.arrays().items()
    }
    return with_features(xr.Dataset(variables), next(iter(mixtures.values())).names)


def with_features(dataset: xr.Dataset, tasks: Sequence[str]) -> xr.Dataset:
    """Give the event dimensions their coordinates."""
    coords = {d: np.arange(dataset.sizes[d]) for d in _EVENT_DIMS if d in dataset.sizes}
    return dataset.assign_coords(coords | ({"task": list(tasks)} if "task" in dataset.sizes else {}))


def _jsonable(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)
