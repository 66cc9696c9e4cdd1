"""The other divergences of SDFT, on the learner's own samples: forward KL, and what lies between.

Published is a divergence a token: at every prefix that the student sampled, the laws of the next token are
compared over the whole vocabulary. In the mixture a sample is one token, with the empty prefix: the
divergence is the one between the two laws, whoever is sampled. What is left of sampling the student is how
it is *estimated*, on its own samples with importance weights, blind to what the student no longer does.
"""

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.lax import stop_gradient
from jaxtyping import Array
from numpyro.distributions import Distribution

from mixture_models.integrals.tensor_rule import expectation, same_covariance, span_of
from mixture_models.losses.expectations import MonteCarlo, Quadrature
from mixture_models.losses.kl import ForwardKL
from mixture_models.losses.loss import (
    Loss,
    at_least_two,
    leave_one_out,
    weighted_log_prob,
    with_gradient_of,
)
from mixture_models.losses.sampling import OfLearner
from mixture_models.mixture.law import MixtureLaw, log_add
from mixture_models.types import Arguments, Index, Scalar


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["expectation"])
@dataclass
class OnPolicyForwardKL(ForwardKL):
    """KL(p ‖ q) = E_q[w log w], w = p/q, of the model's law p from the learner's law q, on samples of q.

    Its gradient is -E_q[(w - 1) ∇ log q], unbiased. Where q has lost a mode of p its samples show nothing of
    it: the weights are heavy-tailed.

    Args:
        expectation: where E_q comes from.

    Source: arXiv:2601.19897 for the runs on samples of the student; derivation: docs/theory.md.
    """

    sampling = OfLearner()  # type: ignore[assignment]

    def on_batch(self, y: Array, target: Distribution, learner: Distribution, args: Arguments) -> Array:
        """Return the loss on a batch, see `Loss.on_batch`."""
        log_weight = _log_ratio(y, target, learner)
        weight = jnp.exp(log_weight)
        surrogate = -weighted_log_prob(learner, y, (weight - 1.0) / len(y))
        return with_gradient_of(jnp.mean(weight * log_weight), surrogate)


@partial(jax.tree_util.register_dataclass, data_fields=["alpha"], meta_fields=["expectation"])
@dataclass
class JensenShannon(Loss):
    """α KL(p ‖ M) + (1-α) KL(q ‖ M), M = (1-α) q + α p, of the model's law p and the learner's law q.

    Its gradient is (1-α) E_q[log(q/M) ∇ log q], estimated on samples of q with a leave-one-out baseline; no
    importance weight enters it, and log(q/M) ≤ -log(1-α). Divided by α it tends to the forward KL for α → 0,
    by 1-α to the reverse KL for α → 1; as published it is not divided.

    Args:
        alpha: α in (0, 1).
        expectation: where E_q comes from.

    Raises:
        InputError: fewer than two samples.

    Source: the interpolation in the code of arXiv:2601.19897; derivation: docs/theory.md.
    """

    alpha: Scalar = 0.5
    expectation: MonteCarlo | Quadrature = field(default_factory=MonteCarlo)
    direction = "Jensen-Shannon"
    of_ratios = True
    has_exact = True
    sampling = OfLearner()

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_two("the leave-one-out baseline", self.expectation)

    def on_batch(self, y: Array, target: Distribution, learner: Distribution, args: Arguments) -> Array:
        """Return the loss on a batch, see `Loss.on_batch`."""
        log_weight = _log_ratio(y, target, learner)
        excess = self._excess(log_weight)
        ones = jnp.ones_like(excess)
        advantage = (1.0 - self.alpha) * (excess - leave_one_out(excess, ones))
        surrogate = weighted_log_prob(learner, y, advantage / len(y))
        teacher = self.alpha * jnp.mean(jnp.exp(log_weight) * (log_weight + excess))
        student = (1.0 - self.alpha) * jnp.mean(excess)
        return with_gradient_of(teacher + student, surrogate)

    def _excess(self, log_weight: Array) -> Array:
        """Return log(q/M) for log w = log(p/q)."""
        return -log_add(jnp.log1p(-self.alpha), jnp.log(self.alpha) + log_weight)

    def in_population(
        self, resolution: Index, target: MixtureLaw, learner: MixtureLaw, args: Arguments
    ) -> Array:
        """Return the loss, see `Loss.in_population`."""
        span = span_of(learner.scale(0), jnp.concatenate([learner.means, target.means]))
        p, q = stop_gradient(span.law(target)), span.law(learner)
        means = jnp.concatenate([q.means, p.means])

        def student(y: Array) -> Array:
            log_q = q.log_prob(y)
            excess = self._excess(stop_gradient(p.log_prob(y) - log_q))
            return excess + excess * (log_q - stop_gradient(log_q))

        def teacher(y: Array) -> Array:
            log_weight = p.log_prob(y) - stop_gradient(q).log_prob(y)
            return log_weight + self._excess(log_weight)

        many = q.num_modes > 2
        value = (1.0 - self.alpha) * expectation(stop_gradient(q), student, means, resolution, many=many)
        value = value + self.alpha * stop_gradient(expectation(p, teacher, means, resolution, many=many))
        return jnp.where(same_covariance(learner, target), value, jnp.nan)


def _log_ratio(y: Array, target: Distribution, learner: Distribution) -> Array:
    """Return log w = log p - log q at samples, without a gradient."""
    log_weight: Array = lax.optimization_barrier(stop_gradient(target.log_prob(y) - learner.log_prob(y)))
    return log_weight
