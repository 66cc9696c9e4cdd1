"""What a network is trained on and by: its tasks, the learner, and objectives that the mixture lacks.

In the place of the two mixtures ``start`` and ``target`` is a `DigitsTask`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int
from numpyro import handlers
from numpyro.distributions import Distribution

from analyses.digits.laws import ImagesLaw, NetworkLaw, TiltedLaw
from analyses.digits.transformer import Transformer
from mixture_models import objectives
from mixture_models.learners import Guide
from mixture_models.losses.kl import ForwardKL, ReverseKL
from mixture_models.losses.loss import SITE, law_of
from mixture_models.mixture.task import Task, TwoTasks
from mixture_models.objectives import Objective
from mixture_models.objectives.companions import Reference
from mixture_models.rewards import mode_reward


class NetworkTask(Task):
    """Tasks whose samples are images, and a network that does them.

    Attributes:
        network: what a learner is when it is started here.
    """

    network: Transformer


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["old_images", "new_images", "old_logit", "network", "verifier"],
    meta_fields=[],
)
@dataclass(frozen=True, eq=False)
class DigitsTask(NetworkTask, TwoTasks):
    """The two tasks as images, where a mixture has two Gaussian modes, and a network that does them.

    Attributes:
        old_images: of the old task, shape (n, pixel).
        new_images: of the new one, shape (m, pixel).
        old_logit: φ of the old task's share α.
        network: what a learner is when it is started here.
        verifier: log P(old)/P(new) of images by a classifier, a function of (n, pixel).
    """

    old_images: Int[Array, "n pixel"]
    new_images: Int[Array, "m pixel"]
    old_logit: Any
    network: Transformer
    verifier: Callable[[Any], Array]

    def mode_law(self, mode: str) -> ImagesLaw:
        """Return the law of one task's images, ``"old"`` or ``"new"``."""
        images = self.old_images if mode == "old" else self.new_images
        return ImagesLaw(images, jnp.zeros(len(images)))

    def law(self) -> ImagesLaw:
        """Return the law of both tasks' images, the old one's with the share α."""
        shares = jax.nn.log_sigmoid(self.old_logit), jax.nn.log_sigmoid(-jnp.asarray(self.old_logit))
        return ImagesLaw.of_tasks((self.old_images, self.new_images), shares)

    def log_odds(self, y: Int[Array, "n pixel"]) -> Float[Array, "n"]:
        """Return the verifier's log odds of the old task; `mode_reward` asks for them."""
        return self.verifier(y)


class NetworkLearner(Guide[NetworkTask]):
    """The guide: a network's law, its arrays ``numpyro.param`` sites that begin as ``start``'s."""

    def __call__(self, start: NetworkTask, target: NetworkTask) -> None:
        """Run the guide."""
        numpyro.sample(SITE, NetworkLaw(_network(start.network, numpyro.param)))

    def metrics(self, params: dict[str, Array], start: NetworkTask, target: NetworkTask) -> dict[str, Array]:
        """Return nothing: networks are measured by what they draw."""
        return {}


network_learner = NetworkLearner()


def network_of(params: dict[str, Array], like: Transformer) -> Transformer:
    """Return the network that a learner's params are."""
    return _network(like, lambda name, value: params[name])


def params_of(network: Transformer) -> dict[str, Array]:
    """Return a network's arrays by the names of the learner's params."""
    params: dict[str, Array] = {}
    _network(network, lambda name, leaf: params.setdefault(name, leaf))
    return params


def _network(like: Transformer, param: Callable[[str, Array], Any]) -> Transformer:
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    named = [param(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]
    return jax.tree.unflatten(structure, named)


def pretraining() -> Objective:
    """Maximum likelihood on the target's images of both tasks."""
    return Objective(
        name="pretraining",
        model=objectives.true_target,
        guide=network_learner,
        loss=ForwardKL(),
        description="images of both tasks",
    )


def regularised_reward(kl_weight: float, reward: Any = None) -> Objective:
    """Reinforcement learning with a KL-regularised reward: maximise E_q[r] - τ KL(q ‖ q_0), over τ.

    It is the reverse KL to q_0 exp(r/τ)/Z, q_0 the learner at the start, estimated as `ReverseKL` says: by
    the score function on the learner's own images with a leave-one-out baseline. For modes apart and a reward
    that is flat on each, its optimum lowers the old logit by Δ/τ.

    Args:
        kl_weight: τ > 0.
        reward: see `mixture_models.rewards`; None for 1 for the new task and 0 for the old.
    """
    reward = mode_reward(0.0, 1.0) if reward is None else reward
    return Objective(
        name="rl",
        model=Partial(tilted_reference, network_learner, reward, kl_weight),
        guide=network_learner,
        loss=ReverseKL(),
        description="the learner at the start, tilted by reward",
        companion=Reference(),
    )


def tilted_reference(
    guide: Callable[..., None],
    reward: Any,
    kl_weight: Any,
    start: NetworkTask,
    target: NetworkTask,
    companion: dict[str, Array] | None = None,
) -> None:
    """Run the model of reinforcement learning: the companion's law, tilted by reward."""
    with handlers.block():
        reference: Distribution = law_of(guide, companion or {}, start, target)
    numpyro.sample(SITE, TiltedLaw(reference, reward, target, kl_weight))
