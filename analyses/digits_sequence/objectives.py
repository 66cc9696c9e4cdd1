"""What is trained in a stage: of networks by images, and of the mixture by its modes."""

from analyses.digits.choices import Choice, choices
from analyses.digits_sequence.settings import Settings
from inference.training.stages import Stage
from mixture_models.mixture.mixture import TaskMixture
from mixture_models.objectives import Objective


def choices_of(settings: Settings) -> dict[str, Choice]:
    """Return what is trained, by name: the objectives of `massdrift digits`."""
    return choices(settings, replay=settings.replay, num_steps=settings.steps[-1])


def names_of(settings: Settings) -> tuple[str, ...]:
    """Return the names of what is trained."""
    return tuple(choices_of(settings))


def of_networks(settings: Settings, choice: Choice, task: str) -> Objective:
    """Return the objective of a network in the stage of a task; what is new earns 1, all else nothing."""
    return choice.on_task(task, settings.seen_before(task))


def of_mixture(
    settings: Settings,
    choice: Choice,
    task: str,
    begins: TaskMixture,
    right: TaskMixture,
    demonstrations: TaskMixture,
) -> Stage:
    """Return the same stage of a mixture.

    Args:
        settings: of the run.
        choice: what is trained.
        task: that the stage teaches.
        begins: the mixture at the stage's start.
        right: its modes lie where the tasks do.
        demonstrations: the mixture that demonstrates the tasks, where they are demonstrated.
    """
    wanted = demonstrations if choice.demonstrated else right
    objective, target = choice.of_mixture(task, settings.seen_before(task), begins, wanted)
    return Stage(task, objective, target, settings.steps[-1])
