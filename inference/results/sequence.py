"""Sequences of post-trainings put together: trajectories over all stages, R[stage, task], and forgetting."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from inference.results.build import assembled, constant_data, event_dims, provenance, with_features
from inference.results.schema import register
from mixture_models.mixture.mixture import Mixture
from mixture_models.objectives.tasks import Stage

register(
    stage=("stage of the sequence, 0: before the first", "1"),
    stage_task=("task that the stage teaches", "1"),
    own_stage=("stage that teaches the task, 0: known at the start", "1"),
    task_performance=("performance R on the task, the retained part of its share", "1"),
    forgetting_from_best=("best performance on the task before the last stage, minus the last", "1"),
    forgetting_from_own_stage=("performance on the task after its own stage, minus the last", "1"),
    backward_transfer=("mean over earlier tasks of the last performance, minus after their own stage", "1"),
    average_performance=("mean over the tasks of the last performance", "1"),
    plasticity=("mean over taught tasks of the performance after their own stage", "1"),
)

_DIMS = ("chain", "draw")


def sequence_tree(
    stages: Sequence[Stage],
    start: Mixture,
    records: Sequence[Mapping[str, np.ndarray]],
    steps: Sequence[np.ndarray],
    diverged_step: np.ndarray,
    settings: Mapping[str, object],
) -> xr.DataTree:
    """Assemble the result of a sequence.

    Args:
        stages: what was trained.
        start: the learner before the first stage, kept in ``/constant_data`` beside the last stage's target.
        records: for each stage its variables, each of shape (replicate, step, *event).
        steps: the recorded steps of each stage, from 0 to its last.
        diverged_step: over all stages, shape (replicate,).
        settings: the other arguments, for the root's attributes.

    Returns:
        DataTree with groups ``/trajectory``, ``/stages``, ``/forgetting``, ``/trajectory_stats`` and
        ``/constant_data``.
    """
    names, tasks = start.names, [stage.task for stage in stages]
    own_stage = own_stages(names, tasks)
    coords = {"chain": [0], "draw": np.arange(len(diverged_step))}
    offsets = np.concatenate([[0], np.cumsum([own[-1] for own in steps])])
    # The first record of a later stage is the state that the stage before it recorded last.
    parts = [(0 if s == 0 else 1, own) for s, own in enumerate(steps)]
    step = np.concatenate([own[skip:] + offsets[s] for s, (skip, own) in enumerate(parts)])
    number = np.concatenate([np.full(len(own) - skip, s + 1) for s, (skip, own) in enumerate(parts)])
    number[0] = 0

    def variable(name: str, arrays: Sequence[np.ndarray], dim: str) -> tuple[tuple[str, ...], np.ndarray]:
        joined = np.concatenate(arrays, axis=1)[None]
        return (*_DIMS, dim, *event_dims(name, joined.ndim - 3)), joined

    trajectory = {
        name: variable(
            name, [own[name][:, skip:] for own, (skip, _) in zip(records, parts, strict=True)], "step"
        )
        for name in records[0]
    }
    ends = {
        name: variable(name, [records[0][name][:, :1], *(own[name][:, -1:] for own in records)], "stage")
        for name in records[0]
        if name != "loss"
    }
    objectives = [stage.objective.name for stage in stages]
    at_ends = xr.Dataset(
        ends,
        coords
        | {"stage": np.arange(len(steps) + 1), "stage_task": ("stage", ["", *tasks])}
        | {"stage_objective": ("stage", ["", *objectives])},
    )
    groups = {
        "trajectory": with_features(
            xr.Dataset(trajectory, coords | {"step": step, "stage": ("step", number)}), names
        ),
        "stages": with_features(at_ends, names).assign_coords(task=list(names)),
        "trajectory_stats": xr.Dataset({"diverged_step": (_DIMS, diverged_step[None])}, coords),
        "constant_data": constant_data({"start": start, "target": stages[-1].target}).assign(
            own_stage=own_stage
        ),
    }
    performance = performance_of(at_ends, [stages[0].target, *(stage.target for stage in stages)], own_stage)
    if performance is not None:
        groups["stages"] = groups["stages"].assign(task_performance=performance)
        groups["forgetting"] = forgetting_of(groups["stages"]["task_performance"], own_stage)
    num_steps = [stage.num_steps for stage in stages]
    what = {"objectives": objectives, "tasks": tasks, "num_steps": num_steps}
    return assembled(groups, provenance(what | dict(settings)))


def own_stages(names: Sequence[str], taught: Sequence[str]) -> xr.DataArray:
    """Return the stage that teaches each task, 0 for one that is known at the start.

    Args:
        names: of all tasks.
        taught: one a stage.
    """
    own = [1 + list(taught).index(name) if name in taught else 0 for name in names]
    return xr.DataArray(own, {"task": list(names)}, "task")


def performance_of(
    stages: xr.Dataset, targets: Sequence[Mixture], own_stage: xr.DataArray
) -> xr.DataArray | None:
    """Return the performance R[stage, task] = min(max(retention/α, 0), 1), None without a retention.

    Retentions are shares of behaviour and sum to 1, so that a task which was all of it must give way to
    others: R = 1 as long as a task keeps the share α that the stage's target gives it, and 0 once nothing of
    it is left. Before a task's own stage α is its share in the target of that stage: targets may ask for
    little of what is not taught yet, and a little is then no performance.

    Args:
        stages: what is recorded, with a dim stage; ``task_retention``, or the ``retention`` of two modes.
        targets: one a stage, the first stage's also for the start.
        own_stage: the stage that teaches a task, by task, 0 for a task that was known at the start.
    """
    names = list(targets[0].names)
    if "task_retention" in stages:
        kept = stages["task_retention"].assign_coords(task=names)
    elif "retention" in stages:
        old = stages["retention"]
        kept = xr.concat([old, 1.0 - old], xr.DataArray(names, dims="task", name="task"))
    else:
        return None
    return retained(kept, shares_of(targets, own_stage.sel(task=names)))


def shares_of(targets: Sequence[Mixture], own_stage: xr.DataArray) -> xr.DataArray:
    """Return the share α[stage, task] of which R[stage, task] is the retained part, see `performance_of`."""
    weights = np.stack([np.asarray(target.weights, np.float64) for target in targets])
    wanted_at = np.maximum(np.arange(len(targets))[:, None], own_stage.to_numpy())
    coords = {"stage": np.arange(len(targets)), "task": own_stage["task"].to_numpy()}
    return xr.DataArray(np.take_along_axis(weights, wanted_at, axis=0), coords, ("stage", "task"))


def retained(retention: xr.DataArray, shares: xr.DataArray) -> xr.DataArray:
    """Return R = min(max(retention/α, 0), 1), with stage and task as its last dims."""
    result: xr.DataArray = (retention / shares).clip(0.0, 1.0)
    return result.transpose(..., "stage", "task")


def forgetting_of(performance: xr.DataArray, own_stage: xr.DataArray) -> xr.Dataset:
    """Return what R[stage, task] says of forgetting, in both published senses, by their names.

    With S the last stage and s_k the stage that taught task k:

    * ``forgetting_from_best``: max_{s < S} R[s, k] - R[S, k], of Chaudhry et al. 2018;
    * ``forgetting_from_own_stage``: R[s_k, k] - R[S, k], whose negative mean is backward transfer;
    * ``backward_transfer``: mean over tasks with s_k < S of R[S, k] - R[s_k, k], of Lopez-Paz et al. 2017;
    * ``average_performance``: mean over all tasks of R[S, k];
    * ``plasticity``: mean over the taught tasks, s_k > 0, of R[s_k, k]: the learning accuracy of Riemer et
      al. 2019.

    The first two are NaN for the task of the last stage, which had no time to be forgotten.

    Args:
        performance: R, with dims stage and task, from stage 0, the start, on.
        own_stage: s_k by task, 0 for a task that was known at the start.

    Source: arXiv:1801.10112 for the first sense, arXiv:1706.08840 for backward transfer, arXiv:1810.11910
    for learning accuracy.
    """
    last = performance.isel(stage=-1, drop=True)
    before = performance.isel(stage=slice(None, -1))
    earlier = own_stage < performance.sizes["stage"] - 1
    own = performance.isel(stage=own_stage).drop_vars(
        ["stage", "stage_task", "stage_objective"], errors="ignore"
    )
    best = before.max("stage", skipna=False)
    lost = (own - last).where(earlier)
    return xr.Dataset(
        {
            "forgetting_from_best": (best - last).where(earlier),
            "forgetting_from_own_stage": lost,
            # Of a replicate that diverged every task is NaN, and so is the mean.
            "backward_transfer": -(own - last)
            .isel(task=np.flatnonzero(earlier.to_numpy()))
            .mean("task", skipna=False),
            "average_performance": last.mean("task", skipna=False),
            "plasticity": own.isel(task=np.flatnonzero(own_stage.to_numpy() > 0)).mean("task", skipna=False),
        }
    )
