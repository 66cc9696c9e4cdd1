"""The stages of a sequence of post-trainings, and an objective on one of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from mixture_models import rewards
from mixture_models.mixture.mixture import Mixture
from mixture_models.objectives.objective import Objective
from mixture_models.objectives.registry import arguments_of, changed, given_to
from mixture_models.validation import InputError


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


def on_task(objective: Objective, task: str, seen: Sequence[str]) -> Objective:
    """Return an objective as it teaches one of several named tasks; its name stays.

    Of the arguments that its constructor takes

    * ``task`` becomes the task;
    * ``replay``, where it is a share, becomes equal shares of the tasks seen, with that sum;
    * ``reward``, where none is given, becomes `rewards.task_reward`: the task earns 1, others nothing.

    What else it is pulled toward is said by the target of the stage. One put together by hand takes no
    arguments, and is returned as it is.

    Args:
        objective: what is trained.
        task: the task that is taught.
        seen: those seen before, at least one.

    Raises:
        InputError: an objective that names its task itself.
    """
    taken, given = arguments_of(objective), given_to(objective)
    changes: dict[str, object] = {}
    if given.get("task") is not None:
        raise InputError(
            f"{objective.name} must leave its task to the stages of the sequence; got task={given['task']}"
        )
    if "task" in taken:
        changes["task"] = task
    replay = given.get("replay")
    if isinstance(replay, int | float):
        changes["replay"] = {name: replay / len(seen) for name in seen}
    if "reward" in taken and "reward" not in given:
        changes["reward"] = rewards.task_reward({task: 1.0})
    return changed(objective, **changes)
