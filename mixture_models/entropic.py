"""The entropic utility of TTT-Discover: reward that counts exponentially, anchored to a reference."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import stop_gradient
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from mixture_models.divergences import Divergence, at_least_two, weighted_log_prob
from mixture_models.expectations import MonteCarlo
from mixture_models.rewards import ModeReward, rewards_of

# The published constants: η is doubled from 1 until it reaches the cap, then bisected; 1e-12 is added to
# every normaliser.
_CAP, _BISECTIONS, _TINY = 1e6, 60, 1e-12


@partial(jax.tree_util.register_dataclass, data_fields=["eta"], meta_fields=[])
@dataclass(frozen=True)
class FixedTemperature:
    """One inverse temperature η for all batches.

    Args:
        eta: η > 0, per unit of reward.
    """

    eta: Any

    def on_batch(self, rewards: Float[Array, "n"]) -> Float[Array, ""]:
        """Return η."""
        return jnp.asarray(self.eta, rewards.dtype)


@partial(jax.tree_util.register_dataclass, data_fields=["kl_budget"], meta_fields=[])
@dataclass(frozen=True)
class AdaptiveTemperature:
    """The inverse temperature that spends a budget on each batch: KL(softmax(η r) ‖ uniform) = budget.

    η is doubled from 1 until the divergence reaches the budget or η the cap of 1e6, then bisected 60 times;
    a batch that cannot meet the budget, such as one of equal rewards, gets the last η of the doubling.

    Args:
        kl_budget: in nats.

    Source: arXiv:2601.16175.
    """

    kl_budget: Any

    def on_batch(self, rewards: Float[Array, "n"]) -> Float[Array, ""]:
        """Return η for the rewards of a batch."""
        below_best = rewards - jnp.max(rewards)

        def falls_short(eta: Array) -> Array:
            logits = eta * below_best
            weights = jnp.exp(logits)
            total = jnp.sum(weights)
            divergence = jnp.log(len(rewards) / total) + jnp.sum(weights * logits) / total
            return divergence < self.kl_budget

        def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bounds
            middle = 0.5 * (low + high)
            short = falls_short(middle)
            return jnp.where(short, middle, low), jnp.where(short, high, middle)

        one = jnp.ones((), rewards.dtype)
        # Where the budget is out of reach every middle falls short, and the upper bound stays.
        upper = lax.while_loop(lambda eta: (eta < _CAP) & falls_short(eta), lambda eta: 2.0 * eta, one)
        return lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(one), upper))[1]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["reward", "kl_weight", "temperature"],
    meta_fields=["expectation"],
)
@dataclass
class EntropicUtility(Divergence):
    """-J(q), J = log E_q[exp(η r(y))] - λ KL(q ‖ q_0): the entropic utility with an anchor, as a loss.

    The model's law is the reference q_0. The gradient of J is E_q[A ∇ log q] with the advantage
    A = w - 1 - λ log(q/q_0), w = exp(η r)/Z, Z = E_q[exp(η r)]. On a batch Z is the mean over the *other*
    behaviours, so the estimate is biased by O(1/n), and an adaptive η is held fixed in the gradient.

    Args:
        reward: function of (y, target, reference), see `mixture_models.rewards`.
        kl_weight: λ ≥ 0.
        temperature: where η comes from, `FixedTemperature` or `AdaptiveTemperature`.
        expectation: where the expectation comes from.

    Raises:
        InputError: fewer than two behaviours.

    Source: arXiv:2601.16175.
    """

    reward: Any = field(default_factory=lambda: ModeReward(0.0, 1.0))
    kl_weight: Any = 0.1
    temperature: Any = field(default_factory=lambda: FixedTemperature(1.0))
    expectation: Any = field(default_factory=MonteCarlo)
    direction = "entropic utility"
    sampling = "the learner"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_two("the leave-one-out normaliser", self.expectation)

    def between(
        self, key: Array, target: Distribution, learner: Distribution, args: tuple[Any, ...]
    ) -> Array:
        """Return the loss, see `Divergence.between`."""
        n = self.expectation.num_samples
        y = stop_gradient(learner).sample(key, (n,))
        rewards = rewards_of(self.reward, y, args, target)
        log_ratio = stop_gradient(learner.log_prob(y) - target.log_prob(y))
        rewards, log_ratio = lax.optimization_barrier((rewards, log_ratio))
        eta = self.temperature.on_batch(rewards)
        advantage = entropic_weights(rewards, eta) - 1.0 - self.kl_weight * log_ratio
        surrogate = -weighted_log_prob(learner, y, advantage / n)
        utility = jax.nn.logsumexp(eta * rewards) - np.log(n)
        value = self.kl_weight * jnp.mean(log_ratio) - utility
        return value + surrogate - stop_gradient(surrogate)


def entropic_weights(rewards: Float[Array, "n"], eta: Float[Array, ""]) -> Float[Array, "n"]:
    """Return w_i = exp(η r_i)/(Z_i + 1e-12), Z_i = Σ_{j≠i} exp(η r_j)/(n-1), after max r is taken off."""
    exponentials = jnp.exp(eta * (rewards - jnp.max(rewards)))
    others = (jnp.sum(exponentials) - exponentials) / (len(rewards) - 1)
    return exponentials / (others + _TINY)
