"""The post-training objectives that are compared on networks: one list, for two tasks and for a sequence.

Nothing here is an objective's arithmetic: the constructors are those of `mixture_models.objectives`, told
that the learner is a network, and `regularised_reward`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from analyses.digits.objectives import network_learner, regularised_reward
from analyses.digits.settings import NetworkSettings
from mixture_models import objectives, rewards, theory
from mixture_models.mixture.mixture import TaskMixture
from mixture_models.objectives import Objective
from mixture_models.objectives.registry import changed
from mixture_models.objectives.tasks import on_task


@dataclass(frozen=True)
class Choice:
    """An objective, where the two-mode lens says that it ends, and how it teaches one of several tasks.

    Attributes:
        objective: a model, a guide, a divergence and a companion, for two tasks.
        predicted: the old weight at which training ends, as a function of that at its start.
        demonstrates: whether what it makes of each network demonstrates the tasks to the objectives after it.
        demonstrated: whether the tasks are demonstrated to it, by the last one before it that demonstrates.
    """

    objective: Objective
    predicted: Callable[[Any], Any]
    demonstrates: bool = field(default=False, kw_only=True)
    demonstrated: bool = field(default=False, kw_only=True)

    def on_task(self, task: str, seen: Sequence[str]) -> Objective:
        """Return the objective as it teaches a network one of several tasks.

        Args:
            task: that is taught; it earns 1 where there is a reward, all others nothing.
            seen: the tasks that were seen before.
        """
        return on_task(self.objective, task, seen)

    def of_mixture(
        self, task: str, seen: Sequence[str], begins: TaskMixture, wanted: TaskMixture
    ) -> tuple[Objective, TaskMixture]:
        """Return what says the same of a mixture: an objective, and its target.

        Args:
            task: that is taught.
            seen: the tasks that were seen before.
            begins: the mixture at the start.
            wanted: what demonstrates the tasks where they are demonstrated, else the tasks as they are.
        """
        return on_task(changed(self.objective, learner="mixture"), task, seen), wanted


@dataclass(frozen=True)
class RewardChoice(Choice):
    """Reinforcement learning with a KL-regularised reward, which the mixture has as a target.

    Attributes:
        kl_weight: τ, per unit of reward.
    """

    kl_weight: float = field(kw_only=True)

    def on_task(self, task: str, seen: Sequence[str]) -> Objective:
        """Return the objective as it teaches a network one of several tasks."""
        return regularised_reward(self.kl_weight, rewards.task_reward({task: 1.0}))

    def of_mixture(
        self, task: str, seen: Sequence[str], begins: TaskMixture, wanted: TaskMixture
    ) -> tuple[Objective, TaskMixture]:
        """Return reverse KL to the start tilted by reward: of modes apart, a mixture of tilted weights."""
        tilted = np.asarray(begins.weights) * np.exp((np.array(begins.names) == task) / self.kl_weight)
        weights = dict(zip(begins.names, (tilted / tilted.sum()).tolist(), strict=True))
        return objectives.reverse_kl(), begins.replace(weights=weights)


def choices(settings: NetworkSettings, *, replay: float, num_steps: int) -> dict[str, Choice]:
    """Return the objectives that are compared, by name; of each what theory says for modes apart.

    Args:
        settings: hold the hyperparameters.
        replay: in (0, 1), the replayed share of SFT, and of two tasks the old one's in SDFT's demonstrations.
        num_steps: of a training, from which OAPL's number of syncs follows.
    """
    learner, num_syncs = network_learner, num_steps // settings.lag
    kl_weight, anchor, ema, beta = settings.kl_weight, settings.anchor, settings.ema, settings.beta
    utility_kl_weight = settings.utility_kl_weight
    return {
        "sft": Choice(objectives.sft(learner=learner), lambda start: 0.0 * start),
        "sft_replay": Choice(
            objectives.sft(replay=replay, learner=learner),
            lambda start: replay + 0.0 * start,
            demonstrates=True,
        ),
        "rl": RewardChoice(
            regularised_reward(kl_weight),
            lambda start: expit(_logit(start) - 1.0 / kl_weight),
            kl_weight=kl_weight,
        ),
        "sdft": Choice(
            objectives.sdft(anchor=anchor, ema=ema, learner=learner),
            lambda start: theory.sdft_fixed_point(anchor, start, replay),
            demonstrated=True,
        ),
        "ttt_discover": Choice(
            objectives.ttt_discover(kl_weight=utility_kl_weight, learner=learner),
            lambda start: expit(
                theory.ttt_discover_stationary_logit(start, reward_gap=1.0, kl_weight=utility_kl_weight)
            ),
        ),
        "oapl": Choice(
            objectives.oapl(beta1=beta, beta2=beta, lag=settings.lag, learner=learner),
            lambda start: expit(
                theory.oapl_logit_after(num_syncs, start, reward_gap=1.0, beta1=beta, beta2=beta)
            ),
        ),
    }


def _logit(weight: Any) -> Any:
    return jnp.log(weight) - jnp.log1p(-jnp.asarray(weight))
