"""The entropic utility of TTT-Discover: reward that counts exponentially, anchored to a reference policy."""

from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import stop_gradient
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from mixture_models.integrals.divergences import kl_divergence
from mixture_models.losses.expectations import MonteCarlo, Quadrature
from mixture_models.losses.loss import Loss, at_least_two, weighted_log_prob, with_gradient_of
from mixture_models.losses.sampling import OfLearner
from mixture_models.losses.tilted import Tilted
from mixture_models.mixture.law import MixtureLaw
from mixture_models.mixture.mixture import mixture_of
from mixture_models.rewards import ModeReward, Reward, rewards_of, target_of
from mixture_models.types import Arguments, Index, Scalar

# The published constants: η is doubled from 1 until it reaches the cap, then bisected; 1e-12 is added to
# every normaliser.
_CAP, _BISECTIONS, _TINY = 1e6, 60, 1e-12

# η's bounds, η, its last change, and the number of steps.
_Search = tuple[Array, Array, Array, Array, Array]

# Relative change of η in the population that is rounding error.
_SETTLED = 1e-14

_UNMET = "the adaptive eta must meet its kl_budget below its cap of 1e6"


@partial(jax.tree_util.register_dataclass, data_fields=["eta"], meta_fields=[])
@dataclass(frozen=True)
class FixedTemperature:
    """One inverse temperature η for all batches.

    Args:
        eta: η > 0, per unit of reward.
    """

    eta: Scalar

    def on_batch(self, rewards: Float[Array, "n"]) -> Float[Array, ""]:
        """Return η."""
        return jnp.asarray(self.eta, rewards.dtype)

    def in_population(self, tilted: Tilted) -> tuple[Scalar, dict[str, Array]]:
        """Return η, and what it falls short of: nothing."""
        return self.eta, {}


@partial(jax.tree_util.register_dataclass, data_fields=["kl_budget"], meta_fields=[])
@dataclass(frozen=True)
class AdaptiveTemperature:
    """The inverse temperature that spends a budget on each batch: KL(softmax(η r) ‖ uniform) = budget.

    η is doubled from 1 until the divergence reaches the budget or η the cap of 1e6, then bisected 60 times;
    a batch that cannot meet the budget, such as one of equal rewards, gets the last η of the doubling. In the
    population η solves KL(q_η ‖ q) = budget for q_η ∝ q exp(η r), with the same bounds.

    Args:
        kl_budget: in nats.

    Source: arXiv:2601.16175.
    """

    kl_budget: Scalar

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
        result: Array = lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(one), upper))[1]
        return result

    def in_population(self, tilted: Tilted) -> tuple[Scalar, dict[str, Array]]:
        """Return η for a family through which no gradient flows, and whether the budget is out of its reach.

        By Newton's method on the divergence, which increases with η, within bounds that it narrows.
        """
        budget = jnp.asarray(self.kl_budget, float)

        def falls_short(eta: Array) -> Array:
            return tilted.divergence(eta)[0] < budget

        upper = lax.while_loop(
            lambda eta: (eta < _CAP) & falls_short(eta), lambda eta: 2.0 * eta, jnp.ones(())
        )
        unmet = falls_short(upper)

        def improve(carry: _Search) -> _Search:
            low, high, eta, _, count = carry
            spent, rate = tilted.divergence(eta)
            low, high = jnp.where(spent < budget, eta, low), jnp.where(spent < budget, high, eta)
            newton = eta + (budget - spent) / rate
            following = jnp.where((newton > low) & (newton < high), newton, 0.5 * (low + high))
            return low, high, following, jnp.abs(following - eta), count + 1

        def unsettled(carry: _Search) -> Array:
            _, _, eta, change, count = carry
            return ~unmet & (change > _SETTLED * eta) & (count < _BISECTIONS)

        start = (jnp.zeros(()), upper, 0.75 * upper, upper, jnp.zeros((), int))
        eta = lax.while_loop(unsettled, improve, start)[2]
        return jnp.where(unmet, upper, eta), {_UNMET: unmet}


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["reward", "kl_weight", "temperature"],
    meta_fields=["expectation"],
)
@dataclass
class EntropicUtility(Loss):
    """-J(q), J = log E_q[exp(η r(y))] - λ KL(q ‖ q_0): the entropic utility with an anchor, as a loss.

    The model's law is the reference policy q_0. The gradient of J is E_q[A ∇ log q] with the advantage
    A = w - 1 - λ log(q/q_0), w = exp(η r)/Z, Z = E_q[exp(η r)]. On a batch Z is the mean over the *other*
    samples, so the estimate is biased by O(1/n), and an adaptive η is held fixed in the gradient.

    Args:
        reward: function of (y, target, reference), see `mixture_models.rewards`.
        kl_weight: λ ≥ 0.
        temperature: where η comes from, `FixedTemperature` or `AdaptiveTemperature`.
        expectation: where the expectation comes from.

    Raises:
        InputError: fewer than two samples.

    Source: arXiv:2601.16175.
    """

    reward: Reward = field(default_factory=lambda: ModeReward(0.0, 1.0))
    kl_weight: Scalar = 0.1
    temperature: FixedTemperature | AdaptiveTemperature = field(default_factory=lambda: FixedTemperature(1.0))
    expectation: MonteCarlo | Quadrature = field(default_factory=MonteCarlo)
    direction = "entropic utility"
    of_ratios = True
    has_exact = True
    sampling = OfLearner()

    def in_population(
        self, resolution: Index, target: MixtureLaw, learner: MixtureLaw, args: Arguments
    ) -> Array:
        """Return the loss, see `Loss.in_population`."""
        return self._population(resolution, target, learner, args)[0]

    def unmet(
        self, resolution: Index, target: MixtureLaw, learner: MixtureLaw, args: Arguments
    ) -> dict[str, Array]:
        """Return whether an adaptive η falls short of its budget, see `Loss.unmet`."""
        return self._population(resolution, target, learner, args)[1]

    def _population(
        self, resolution: Index, target: MixtureLaw, learner: MixtureLaw, args: Arguments
    ) -> tuple[Array, dict[str, Array]]:
        wanted = mixture_of("target", target_of(args))
        tilted = Tilted(learner, self.reward, wanted, stop_gradient(target), resolution)
        eta, unmet = self.temperature.in_population(replace(tilted, law=stop_gradient(learner)))
        anchor = kl_divergence(learner, target, resolution)
        return self.kl_weight * anchor - tilted.log_normaliser(eta), unmet

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_two("the leave-one-out normaliser", self.expectation)

    def on_batch(self, y: Array, target: Distribution, learner: Distribution, args: Arguments) -> Array:
        """Return the loss on a batch, see `Loss.on_batch`."""
        n = len(y)
        rewards = rewards_of(self.reward, y, args, target)
        log_ratio = stop_gradient(learner.log_prob(y) - target.log_prob(y))
        rewards, log_ratio = lax.optimization_barrier((rewards, log_ratio))
        eta = self.temperature.on_batch(rewards)
        advantage = entropic_weights(rewards, eta) - 1.0 - self.kl_weight * log_ratio
        surrogate = -weighted_log_prob(learner, y, advantage / n)
        utility = jax.nn.logsumexp(eta * rewards) - np.log(n)
        return with_gradient_of(self.kl_weight * jnp.mean(log_ratio) - utility, surrogate)


def entropic_weights(rewards: Float[Array, "n"], eta: Float[Array, ""]) -> Float[Array, "n"]:
    """Return w_i = exp(η r_i)/(Z_i + 1e-12), Z_i = Σ_{j≠i} exp(η r_j)/(n-1), after max r is taken off."""
    exponentials = jnp.exp(eta * (rewards - jnp.max(rewards)))
    others = (jnp.sum(exponentials) - exponentials) / (len(rewards) - 1)
    return exponentials / (others + _TINY)
