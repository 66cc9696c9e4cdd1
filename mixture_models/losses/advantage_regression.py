"""The squared regression of OAPL: log ratios to a lagged policy onto advantages."""

import math
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.lax import stop_gradient
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from mixture_models.integrals.tensor_rule import expectation, same_covariance, span_of
from mixture_models.losses.expectations import MonteCarlo, Quadrature
from mixture_models.losses.loss import Loss, weighted_log_prob, with_gradient_of
from mixture_models.losses.sampling import OfModel
from mixture_models.losses.tilted import Tilted
from mixture_models.mixture.law import MixtureLaw
from mixture_models.mixture.mixture import mixture_of
from mixture_models.rewards import ModeReward, Reward, rewards_of, target_of
from mixture_models.types import Arguments, Index, Scalar
from mixture_models.validation import InputError


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["reward", "beta1", "beta2"],
    meta_fields=["group_size", "expectation"],
)
@dataclass
class AdvantageRegression(Loss):
    """E_{π_lag}[(β₂ log(q/π_lag) - (r - V*))²], V* = β₁ log E_{π_lag}[exp(r/β₁)].

    The model's law is the lagged policy π_lag, which is sampled and is the reward's reference policy. With
    β₁ = β₂ = τ the loss vanishes at q = π_lag exp(r/τ)/Z; otherwise the target is no normalised policy. On a
    batch V* is that of the sample's group, so the gradient is biased by O(1/group size).

    Args:
        reward: function of (y, target, reference), see `mixture_models.rewards`.
        beta1: β₁ > 0, temperature of V*.
        beta2: β₂ > 0, weight of the log ratio.
        group_size: samples that share one V*; None for the whole batch.
        expectation: where the expectation comes from.

    Source: arXiv:2602.19362.
    """

    reward: Reward = field(default_factory=lambda: ModeReward(0.0, 1.0))
    beta1: Scalar = 1.0
    beta2: Scalar = 1.0
    group_size: int | None = None
    expectation: MonteCarlo | Quadrature = field(default_factory=MonteCarlo)
    direction = "squared regression"
    of_ratios = True
    has_exact = True
    sampling = OfModel("the lagged policy")

    def on_batch(self, y: Array, target: Distribution, learner: Distribution, args: Arguments) -> Array:
        """Return the loss on a batch, see `Loss.on_batch`."""
        n = len(y)
        size = n if self.group_size is None else self.group_size
        if n % size:
            raise InputError(f"group_size must divide the batch of {n}; got {size}")
        rewards = rewards_of(self.reward, y, args, target)
        log_ratio = stop_gradient(learner.log_prob(y) - target.log_prob(y))
        rewards, log_ratio = lax.optimization_barrier((rewards, log_ratio))
        grouped = rewards.reshape(-1, size)
        advantage = (grouped - optimal_value(grouped, self.beta1)[:, None]).reshape(n)
        residual = self.beta2 * log_ratio - advantage
        surrogate = weighted_log_prob(learner, y, 2.0 * self.beta2 / n * residual)
        return with_gradient_of(jnp.mean(residual**2), surrogate)

    def in_population(
        self, resolution: Index, target: MixtureLaw, learner: MixtureLaw, args: Arguments
    ) -> Array:
        """Return the loss, see `Loss.in_population`."""
        wanted = mixture_of("target", target_of(args))
        modes = jnp.concatenate([learner.means, target.means, self.reward.modes(wanted, target)])
        span = span_of(learner.scale(0), modes)
        q, lag, inside = span.law(learner), stop_gradient(span.law(target)), span.mixture(wanted)
        best = self.beta1 * Tilted(lag, self.reward, inside, lag, resolution).log_normaliser(1.0 / self.beta1)

        def squared(y: Array) -> Array:
            advantage = self.reward(y, inside, lag) - best
            return (self.beta2 * (q.log_prob(y) - lag.log_prob(y)) - stop_gradient(advantage)) ** 2

        places, many = stop_gradient(span.coordinates(modes)), q.num_modes > 2
        value = expectation(lag, squared, places, resolution, many=many)
        return jnp.where(same_covariance(learner, target), value, jnp.nan)


def optimal_value(rewards: Float[Array, "... n"], beta1: Scalar) -> Float[Array, "..."]:
    """Return V* = β₁ log mean exp(r/β₁) over the last axis."""
    return beta1 * (jax.nn.logsumexp(rewards / beta1, axis=-1) - math.log(rewards.shape[-1]))
