"""What is trained in a stage: of networks by images, and of the mixture by its modes."""

from collections.abc import Callable

import numpy as np

from analyses.digits.objectives import network_learner, regularised_reward
from analyses.digits_sequence.settings import Settings
from inference.training.stages import Stage
from mixture_models import objectives, rewards
from mixture_models.mixture.mixture import TaskMixture
from mixture_models.objectives import Objective
from mixture_models.objectives.tasks import on_task
from mixture_models.types import Program

#: What is trained, by name; what the second makes of each network demonstrates the tasks to `sdft`.
NAMES = ("sft", "sft_replay", "rl", "sdft", "ttt_discover", "oapl")
DEMONSTRATES, DEMONSTRATED = "sft_replay", "sdft"


def of_networks(settings: Settings, name: str, task: str) -> Objective:
    """Return the objective of a network in the stage of a task; what is new earns 1, all else nothing."""
    if name == "rl":
        return regularised_reward(settings.kl_weight, rewards.task_reward({task: 1.0}))
    return _stated(settings, name, task, network_learner)


def of_mixture(
    settings: Settings,
    name: str,
    task: str,
    begins: TaskMixture,
    right: TaskMixture,
    demonstrations: TaskMixture,
) -> Stage:
    """Return the same stage of a mixture.

    Args:
        settings: of the run.
        name: of the objective.
        task: that the stage teaches.
        begins: the mixture at the stage's start.
        right: its modes lie where the tasks do.
        demonstrations: what demonstrates, see `DEMONSTRATES`.
    """
    num_steps = settings.steps[-1]
    if name != "rl":
        target = demonstrations if name == DEMONSTRATED else right
        return Stage(task, _stated(settings, name, task, "mixture"), target, num_steps)
    # For modes apart the start tilted by the reward is the mixture of tilted weights.
    tilted = np.asarray(begins.weights) * np.exp((np.array(begins.names) == task) / settings.kl_weight)
    weights = dict(zip(begins.names, (tilted / tilted.sum()).tolist(), strict=True))
    return Stage(task, objectives.reverse_kl(), begins.replace(weights=weights), num_steps)


def _stated(settings: Settings, name: str, task: str, learner: str | Program) -> Objective:
    """Return an objective that says of a network and of a mixture the same."""
    made: dict[str, Callable[[], Objective]] = {
        "sft": lambda: objectives.sft(learner=learner),
        "sft_replay": lambda: objectives.sft(replay=settings.replay, learner=learner),
        "sdft": lambda: objectives.sdft(anchor=settings.anchor, ema=settings.ema, learner=learner),
        "ttt_discover": lambda: objectives.ttt_discover(
            kl_weight=settings.utility_kl_weight, learner=learner
        ),
        "oapl": lambda: objectives.oapl(
            beta1=settings.beta, beta2=settings.beta, lag=settings.lag, learner=learner
        ),
    }
    return on_task(made[name](), task, settings.seen_before(task))
