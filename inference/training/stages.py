"""The stages of a sequence of post-trainings, and what a sequence refuses."""

from collections.abc import Mapping, Sequence

import numpy as np

from inference.training.checks import MOST_STEPS, check_setting
from mixture_models.mixture.mixture import Mixture, TaskMixture, mixture_of
from mixture_models.objectives import Objective
from mixture_models.objectives.companions import params_at
from mixture_models.objectives.registry import given_to
from mixture_models.objectives.tasks import Stage as Stage
from mixture_models.objectives.tasks import on_task
from mixture_models.validation import InputError, integer, one_of


def stages_of(
    objective: Objective,
    start: TaskMixture,
    target: TaskMixture,
    new_tasks: Sequence[str],
    *,
    num_steps: int,
) -> list[Stage]:
    """Return the stages in which an objective teaches new tasks, one after the other.

    A stage's target holds the tasks seen so far, its own included, in the proportions of ``target``. A task
    that is not seen yet has in it the weight and the mean of ``start``: nothing asks for it, or takes it
    away. What the objective says of replay and of rewards is said of these tasks, see
    `mixture_models.objectives.tasks.on_task`.

    Args:
        objective: what is trained in every stage.
        start: the learner before the first stage.
        target: what is wanted after the last one.
        new_tasks: names of the tasks that are taught, in this order; the others are known at the start.
        num_steps: updates of each stage.

    Raises:
        InputError: mixtures that are none of named tasks, no new task, one that the target lacks or that
            is taught twice, no task that is known at the start, or an objective that names its task itself.
    """
    for name, mixture in (("start", start), ("target", target)):
        if not isinstance(mixture, TaskMixture):
            raise InputError(
                f"{name} must be a mixture of named tasks, see Mixture.create; got a {type(mixture).__name__}"
            )
    check_setting(start, target)
    taught = [new_tasks] if isinstance(new_tasks, str) else list(new_tasks)
    for name in taught:
        target.index(name)
    if not 0 < len(set(taught)) == len(taught) < target.num_tasks:
        raise InputError(
            f"new_tasks must be different tasks, at least one and not all of {', '.join(target.names)}; "
            f"got {', '.join(taught) or 'none'}"
        )
    seen = [name for name in target.names if name not in taught]
    stages = []
    for task in taught:
        wanted = _seen_in(start, target, [*seen, task])
        stages.append(Stage(task, on_task(objective, task, seen), wanted, num_steps))
        seen.append(task)
    return stages


def _seen_in(start: TaskMixture, target: TaskMixture, seen: Sequence[str]) -> TaskMixture:
    """Return the target of the tasks seen so far, beside the others as they are at the start."""
    is_seen = np.array([name in seen for name in target.names])
    if is_seen.all():
        return target
    unseen = np.asarray(start.weights, np.float64)
    own = np.asarray(target.weights, np.float64)
    left = 1.0 - unseen[~is_seen].sum()
    weights = np.where(is_seen, left * own / own[is_seen].sum(), unseen)
    names = [str(name) for name in target.names]
    return target.replace(
        weights=dict(zip(names, weights.tolist(), strict=True)),
        means={name: start.means[k] for k, name in enumerate(names) if not is_seen[k]},
    )


def known_at_start(stages: Sequence[Stage], start: Mixture) -> tuple[str, ...]:
    """Return the tasks that no stage teaches: those that the start is taken to do already."""
    taught = {stage.task for stage in stages}
    return tuple(name for name in start.names if name not in taught)


def check_stages(stages: Sequence[Stage], start: Mixture) -> list[Stage]:
    """Return the stages as a list, checked.

    Raises:
        InputError: no stage, what is no `Stage`, a stage whose task its target lacks, a task that two stages
            teach, replay of a task that is not seen yet, or a learner that is not the mixture.
    """
    if not isinstance(stages, Sequence) or isinstance(stages, str | bytes) or not stages:
        raise InputError(f"stages must be a list of at least one Stage; got {stages!r}")
    for stage in stages:
        if not isinstance(stage, Stage):
            raise InputError(f"stages must be a list of Stage; got a {type(stage).__name__}")
    mixture_of("start", start)
    seen = set(known_at_start(stages, start))
    checked = []
    for number, stage in enumerate(stages, 1):
        if not isinstance(stage.objective, Objective):
            kind = type(stage.objective).__name__
            raise InputError(f"the objective of stage {number} must be an Objective; got {kind}")
        one_of(f"the task of stage {number}", stage.task, mixture_of("target", stage.target).names)
        check_setting(start, stage.target)
        if stage.task in seen:
            raise InputError(f"a task must be taught by one stage; stage {number} teaches {stage.task} again")
        replayed = given_to(stage.objective).get("replay")
        names = set(replayed) if isinstance(replayed, Mapping) else set()
        unseen = sorted(names - seen)
        if unseen:
            raise InputError(
                f"stage {number} must replay tasks that are seen before it"
                f" ({', '.join(sorted(seen)) or 'none'}); got {', '.join(unseen)}"
            )
        _check_learner(stage, start)
        steps = integer(f"num_steps of stage {number}", stage.num_steps, at_most=MOST_STEPS)
        checked.append(Stage(stage.task, stage.objective, stage.target, steps))
        seen.add(stage.task)
    integer("the steps of all stages", sum(stage.num_steps for stage in checked), at_most=MOST_STEPS)
    return checked


def _check_learner(stage: Stage, start: Mixture) -> None:
    """Refuse a learner from whose params the next stage cannot begin."""
    names = set(params_at(stage.objective.guide, start, stage.target))
    known = {*start.params(), *start.scale_params()}
    if not names <= known:
        raise InputError(
            "a sequence needs the mixture learner in every stage; that of "
            f"{stage.objective.name} has the params "
            f"{', '.join(sorted(names))}"
        )
