"""The stages of a sequence of post-trainings, and what a sequence refuses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inference.training.checks import MOST_STEPS, check_setting
from mixture_models.mixture.mixture import Mixture, mixture_of
from mixture_models.objectives import Objective
from mixture_models.objectives.registry import given_to
from mixture_models.validation import InputError, integer, one_of


@dataclass(frozen=True)
class Stage:
    """One post-training of a sequence.

    Attributes:
        task: the name of the task that it is to teach.
        objective: what is trained.
        target: the true target of the stage.
        num_steps: updates, at least 1.
    """

    task: str
    objective: Objective
    target: Mixture
    num_steps: int


def known_at_start(stages: Sequence[Stage], start: Mixture) -> tuple[str, ...]:
    """Return the tasks that no stage teaches: those that the start is taken to do already."""
    taught = {stage.task for stage in stages}
    return tuple(name for name in start.names if name not in taught)


def check_stages(stages: Sequence[Stage], start: Mixture) -> list[Stage]:
    """Return the stages as a list, checked.

    Raises:
        InputError: no stage, what is no `Stage`, a stage whose task its target lacks, a task that two stages
            teach, or replay of a task that is not seen yet.
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
        steps = integer(f"num_steps of stage {number}", stage.num_steps, at_most=MOST_STEPS)
        checked.append(Stage(stage.task, stage.objective, stage.target, steps))
        seen.add(stage.task)
    integer("the steps of all stages", sum(stage.num_steps for stage in checked), at_most=MOST_STEPS)
    return checked
