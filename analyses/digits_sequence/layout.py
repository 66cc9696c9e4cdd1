"""The result of a run as one DataTree: what was counted, measured, answered and predicted of every task."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from analyses.core import outputs
from analyses.digits.judges import Count, panel_draws
from analyses.digits_sequence.objectives import names_of
from analyses.digits_sequence.settings import Settings
from inference import results
from inference.intervals import interval
from inference.results.sequence import forgetting_of, own_stages, retained, shares_of
from inference.training.stages import stages_of
from mixture_models import Mixture, objectives
from mixture_models.mixture.mixture import TaskMixture

results.register(
    source=("what tells the weight", "1"),
    network=("network", "1"),
    counted_weight=("weight of the task, counted by classifiers", "1"),
    log_change=("change of the logarithm of the task's weight over the stage", "nat"),
    predicted_log_change=("change of the logarithm of the task's weight that the mixture predicts", "nat"),
    pace=("time of the mixture a step of the network", "1"),
    is_taught=("whether the stage teaches the task", "1"),
    task_difference=("measured minus counted weight of the task", "1"),
    task_agrees=("whether the interval of the difference holds 0", "1"),
)

#: What the images of a network before its first stage are called; they are the same for all objectives.
START = "start"

#: What tells the weights of tasks: the count, `measure` of all tasks at once, or of each against the rest.
COUNT, AT_ONCE, EACH = SOURCES = ("count", "all at once", "each against the rest")

# Draws of a network, those of a measurement.
_DRAWS = 1000

#: Predicted differences of two tasks' log changes that are no order [nat].
NO_ORDER = 0.05

_POOLED = ("chain", "draw")


def checkpoint_name(objective: str, step: int) -> str:
    """Return what the images of a checkpoint are called, by its step over all stages."""
    return START if step == 0 else f"{objective}/{step}"


def stage_end(settings: Settings, objective: str, stage: int) -> str:
    """Return the name of the checkpoint at the end of a stage, 0 for the start."""
    return checkpoint_name(objective, stage * settings.steps[-1])


def ends_of(settings: Settings) -> list[str]:
    """Return the names of the start and of the ends of all stages of all objectives."""
    ends = [
        stage_end(settings, name, 1 + n) for name in names_of(settings) for n in range(len(settings.taught))
    ]
    return [START, *ends]


def all_steps(settings: Settings) -> list[int]:
    """Return the steps of all checkpoints, over all stages."""
    last = settings.steps[-1]
    return [
        0,
        *(number * last + step for number in range(len(settings.taught)) for step in settings.steps[1:]),
    ]


def counted_draws(
    settings: Settings, counts: Sequence[Mapping[str, list[list[Count]]]]
) -> Float[np.ndarray, "objective network step draw K"]:
    """Return draws of the counted weights of every checkpoint, each by one classifier of the panel."""
    found, all_names = [], names_of(settings)
    for name in all_names:
        for seed, of_network in enumerate(counts):
            names = list(of_network)
            for step in all_steps(settings):
                at = checkpoint_name(name, step)
                # One random state a network and checkpoint, whatever objective comes to it.
                rng = np.random.default_rng([settings.seed, seed, names.index(at)])
                drawn = panel_draws(of_network[at], _DRAWS, rng)
                found.append(drawn[rng.integers(len(drawn), size=_DRAWS), np.arange(_DRAWS)])
    shape = len(all_names), len(counts), len(all_steps(settings))
    return np.stack(found).reshape(*shape, _DRAWS, len(settings.tasks))


def assembled(
    settings: Settings,
    counted: Float[np.ndarray, "objective network step draw K"],
    at_once: Sequence[xr.DataTree],
    each: Sequence[Sequence[xr.DataTree]],
    answers: Sequence[Sequence[Mapping[str, xr.DataTree]]],
    courses: Mapping[str, Mapping[str, np.ndarray]],
) -> xr.DataTree:
    """Return the result of a run.

    Args:
        settings: of the run.
        counted: as `counted_draws` returns it.
        at_once: what `measure` says of each network's stages with a reference a task.
        each: what it says with a task's reference and that of all others, a task after the other.
        answers: what `measure_evals` says of each network, stage and objective.
        courses: of the mixture under each objective, see `prediction.course_of`.

    Returns:
        DataTree with the groups of a sequence, where a draw is one of a network's: ``/trajectory``,
        ``/stages``, ``/forgetting`` (these two with a dim source), ``/trajectory_stats``,
        ``/constant_data``, ``/population`` and ``/population_stages`` of the mixture; and ``/order`` (what
        each stage does to the tasks' logarithms), ``/evals``, ``/agreement`` and ``/sample_stats``.
    """
    names, tasks, last = list(names_of(settings)), list(settings.tasks), settings.steps[-1]
    num_stages = len(settings.taught)
    steps = np.array(all_steps(settings))
    ends = np.flatnonzero(steps % last == 0)
    draws = {"chain": [0], "draw": np.arange(settings.num_seeds * _DRAWS)}
    draws["network"] = ("draw", np.repeat(np.arange(settings.num_seeds), _DRAWS))
    axes = {"objective": names} | draws | {"task": tasks}
    taught = ["", *settings.taught]
    stage_axes = {"stage": np.arange(num_stages + 1), "stage_task": ("stage", taught)}
    own_stage = own_stages(tasks, settings.taught)
    networks = xr.Variable("network", np.arange(settings.num_seeds))

    def pooled(values: np.ndarray) -> np.ndarray:
        """Return (objective, network, step, draw, task) as (objective, chain, draw, step, task)."""
        moved = np.moveaxis(values, 2, 3)
        return moved.reshape(len(names), 1, -1, *moved.shape[3:])

    measured = {
        COUNT: counted[:, :, ends],
        AT_ONCE: np.stack([_at_once(settings, tree) for tree in at_once], axis=1),
        EACH: np.stack([_each(settings, trees) for trees in each], axis=1),
    }
    dims = ("objective", "chain", "draw", "stage", "task")
    weight = xr.DataArray(
        np.stack([pooled(measured[source]) for source in SOURCES]),
        {"source": list(SOURCES)} | axes | stage_axes,
        ("source", *dims),
    )
    wanted = shares_of(_targets(settings), own_stage)
    performance = retained(weight, wanted)
    course = np.stack([courses[name]["shares"] for name in names])
    course_steps = np.round(courses[names[0]]["steps"], 9)
    predicted = xr.DataArray(
        course, {"objective": names, "step": course_steps, "task": tasks}, ("objective", "step", "task")
    )
    predicted_ends = (
        predicted.sel(step=steps[ends].astype(float)).rename(step="stage").assign_coords(stage_axes)
    )
    change = _log_change(settings, weight)
    difference = (weight - weight.sel(source=COUNT, drop=True)).sel(source=[AT_ONCE, EACH])
    groups = {
        "trajectory": xr.Dataset(
            {"counted_weight": (("objective", "chain", "draw", "step", "task"), pooled(counted))},
            axes | {"step": steps, "stage": ("step", -(-steps // last))},
        ),
        "stages": xr.Dataset({"weight": weight, "task_performance": performance}),
        "forgetting": forgetting_of(performance, own_stage),
        "trajectory_stats": xr.Dataset(
            {
                "diverged_step": (
                    ("objective", "chain", "draw"),
                    np.full((len(names), 1, settings.num_seeds * _DRAWS), -1),
                )
            },
            {"objective": names} | draws,
        ),
        "constant_data": xr.Dataset({"own_stage": own_stage}),
        "population": xr.Dataset({"task_retention": predicted}),
        "population_stages": xr.Dataset(
            {"task_retention": predicted_ends, "task_performance": retained(predicted_ends, wanted)}
        ),
        "order": xr.Dataset(
            {
                "log_change": change,
                "predicted_log_change": _log_change(settings, predicted_ends),
                "is_taught": own_stage == change["stage"],
                "pace": ("objective", [float(courses[name]["pace"]) for name in names]),
            }
        ),
        "evals": _answers(settings, answers),
        "agreement": xr.concat(
            [
                _agreement(difference.isel(draw=difference["network"].to_numpy() == seed))
                for seed in range(settings.num_seeds)
            ],
            networks,
        ),
        "sample_stats": xr.concat([_checked(settings, tree) for tree in at_once], networks),
    }
    tree = outputs.result(settings.asdict(), groups)
    tree.attrs["kind"] = "digits in a sequence"
    return tree


def _log_change(settings: Settings, weight: xr.DataArray) -> xr.DataArray:
    """Return what each stage adds to the logarithm of a weight; half an image is the least weight."""
    change: xr.DataArray = xr.apply_ufunc(np.log, weight.clip(min=0.5 / settings.num_samples)).diff("stage")
    return change


def _targets(settings: Settings) -> list[TaskMixture]:
    """Return the shares that each stage wants, the first stage's also for the start: those of a sequence."""
    start: Mixture = Mixture.create(
        {name: float(place) for place, name in enumerate(settings.tasks)}, settings.start_weights
    )
    assert isinstance(start, TaskMixture)
    even = start.replace(weights=dict.fromkeys(settings.tasks, 1.0 / len(settings.tasks)))
    stages = stages_of(objectives.reverse_kl(), start, even, settings.taught, num_steps=1)
    targets = [stage.target for stage in stages]
    return [one for one in (targets[0], *targets) if isinstance(one, TaskMixture)]


def _of_stages(settings: Settings, values: xr.DataArray) -> np.ndarray:
    """Return draws (chain, draw, checkpoint, ...) as (objective, stage, one draw, ...)."""
    stacked = values.stack(one=("chain", "draw")).transpose("checkpoint", "one", ...)
    return np.stack(
        [
            stacked.sel(
                checkpoint=[stage_end(settings, name, stage) for stage in range(len(settings.taught) + 1)]
            ).to_numpy()
            for name in names_of(settings)
        ]
    )


def _at_once(settings: Settings, tree: xr.DataTree) -> np.ndarray:
    """Return the weights of all tasks with a reference a task, (objective, stage, draw, task)."""
    return _of_stages(settings, tree["posterior"].to_dataset()["weight"].sel(task=list(settings.tasks)))


def _each(settings: Settings, trees: Sequence[xr.DataTree]) -> np.ndarray:
    """Return the weights of all tasks, each measured against the rest, over their sum."""
    own = np.stack(
        [_of_stages(settings, tree["posterior"].to_dataset()["old_weight"]) for tree in trees], axis=-1
    )
    total: np.ndarray = own / own.sum(axis=-1, keepdims=True)
    return total


def _agreement(difference: xr.DataArray) -> xr.Dataset:
    """Return mean of the difference from the count, and whether its interval holds 0."""
    limits = interval(difference)
    low, high = (limits.sel(ci_bound=bound, drop=True) for bound in ("lower", "upper"))
    return xr.Dataset(
        {"task_difference": difference.mean(_POOLED), "task_agrees": (low <= 0.0) & (high >= 0.0)}
    )


def _checked(settings: Settings, tree: xr.DataTree) -> xr.Dataset:
    """Return the verdicts of one network's measurement of all tasks at once."""
    words = tree["sample_stats"]["weight_words"]
    of_each = [
        words.sel(checkpoint=[stage_end(settings, name, s) for s in range(len(settings.taught) + 1)])
        .rename(checkpoint="stage")
        .assign_coords(stage=np.arange(len(settings.taught) + 1))
        for name in names_of(settings)
    ]
    return xr.concat(of_each, xr.Variable("objective", list(names_of(settings)))).to_dataset(
        name="weight_words"
    )


def _answers(settings: Settings, answers: Sequence[Sequence[Mapping[str, xr.DataTree]]]) -> xr.Dataset:
    """Return what each stage has lost and won of the items of each task, draws of all networks together."""
    kept = ["accuracy", "accuracy_change", "lost", "won"]
    each = []
    for number in range(len(settings.taught)):
        of_stage = []
        for name in names_of(settings):
            draws = [
                network[number][name]["posterior"]
                .to_dataset()[kept]
                .isel(arm=0, seed=0, checkpoint=0, drop=True)
                .sel(task=list(settings.tasks))
                .stack(one=_POOLED)
                .drop_vars(["one", *_POOLED])
                for network in answers
            ]
            of_stage.append(xr.concat(draws, "one"))
        each.append(xr.concat(of_stage, xr.Variable("objective", list(names_of(settings)))))
    found = xr.concat(each, xr.Variable("stage", np.arange(1, len(settings.taught) + 1)))
    found = found.rename(one="draw").expand_dims(chain=[0])
    return found.assign_coords(draw=np.arange(found.sizes["draw"]))


def order(tree: xr.DataTree) -> pd.DataFrame:
    """Return what each stage does to every pair of tasks that it does not teach, by every source.

    Of a pair the task that has held more at the stage's start stands first. ``predicted`` and ``found`` are
    the change of log(first/second) over the stage [nat]: below 0 the first is lost first. ``probability`` is
    the share of draws, of all networks, with the predicted sign; ``is_order`` says whether the mixture
    predicts one at all.
    """
    found, held = tree["order"].to_dataset(), tree["stages"]["weight"].sel(source=COUNT).mean(_POOLED)
    rows = []
    for stage in found["stage"].to_numpy():
        others = found["task"].to_numpy()[~found["is_taught"].sel(stage=stage).to_numpy()]
        for pair in combinations(others.tolist(), 2):
            for name in found["objective"].to_numpy():
                begins = held.sel(objective=name, stage=stage - 1)
                first, second = sorted(pair, key=lambda task: -float(begins.sel(task=task)))
                at = found.sel(objective=name, stage=stage)
                predicted = _difference(at["predicted_log_change"], first, second).item()
                for source in SOURCES:
                    draws = _difference(at["log_change"].sel(source=source), first, second)
                    limits = interval(draws)
                    rows.append(
                        {
                            "objective": str(name),
                            "stage": int(stage),
                            "first": first,
                            "second": second,
                            "source": source,
                            "predicted": predicted,
                            "is_order": abs(predicted) > NO_ORDER,
                            "found": float(draws.mean()),
                            "found_lower": float(limits.sel(ci_bound="lower")),
                            "found_upper": float(limits.sel(ci_bound="upper")),
                            "probability": float((np.sign(draws) == np.sign(predicted)).mean()),
                        }
                    )
    return pd.DataFrame(rows)


def _difference(changes: xr.DataArray, first: str, second: str) -> xr.DataArray:
    return changes.sel(task=first, drop=True) - changes.sel(task=second, drop=True)
