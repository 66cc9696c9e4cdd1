"""The directions of training, as NumPyro ELBOs: forward and reverse Kullback-Leibler divergence.

NumPyro's own ``Trace_ELBO`` is silently wrong for a mixture guide: a mixture is not reparameterised,
so no gradient reaches its weights, and a weight that never moves looks like retention. The
losses here have unbiased gradients in every parameter, the weights included.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

import jax
import jax.numpy as jnp
from jax import lax
from jax.lax import stop_gradient
from jaxtyping import Array
from numpyro.distributions import Distribution

from mixture_models.integrals.divergences import kl_divergence
from mixture_models.integrals.logistic_normal import FINEST
from mixture_models.losses.expectations import MonteCarlo, Quadrature
from mixture_models.losses.loss import Loss, at_least_two, leave_one_out, weighted_log_prob, with_gradient_of
from mixture_models.losses.sampling import (
    OfLearner,
    OfLearnerWithReplay,
    OfLearnerWithReplayOfTasks,
    OfModel,
    SamplingLaw,
)
from mixture_models.mixture.law import MixtureLaw
from mixture_models.types import Arguments, Index, Scalar
from mixture_models.validation import InputError, fraction, one_of

ESTIMATORS = ("score", "pathwise")


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["expectation"])
@dataclass
class ForwardKL(Loss):
    """KL(p ‖ q) = E_p[log p(y) - log q(y)] of the model's law p from the learner's law q, in nats.

    Its gradient is -E_p[∇ log q(y)]: what supervised fine-tuning on samples of p follows.

    Args:
        expectation: where E_p comes from.
    """

    expectation: MonteCarlo | Quadrature = field(default_factory=MonteCarlo)
    direction = "forward"
    of_ratios = True
    sampling = OfModel()
    has_exact = True

    def on_batch(self, y: Array, target: Distribution, learner: Distribution, args: Arguments) -> Array:
        """Return the loss on a batch, see `Loss.on_batch`."""
        n = len(y)
        # Densities have the type of their samples, those of discrete ones float32 or wider.
        shares = jnp.full(n, 1.0 / n, jnp.result_type(y.dtype, jnp.float32))
        cross_entropy = -weighted_log_prob(learner, y, shares)
        return jnp.mean(stop_gradient(target.log_prob(y))) + cross_entropy

    def in_population(
        self, resolution: Index, target: MixtureLaw, learner: MixtureLaw, args: Arguments
    ) -> Array:
        """Return the loss, see `Loss.in_population`."""
        return kl_divergence(target, learner, resolution)


@partial(jax.tree_util.register_dataclass, data_fields=["replay"], meta_fields=["expectation", "estimator"])
@dataclass
class ReverseKL(Loss):
    """KL(q ‖ p) = E_q[ℓ(y)], ℓ = log q - log p, of the learner's law q from the model's law p, in nats.

    With replay λ the batch is drawn from b = (1-λ) q + λ N(μ_o, Σ), the old mode of the target (the
    last argument of model and guide), and every sample is weighted by
    w = q/b ≤ 1/(1-λ): the value and the gradient keep their expectation.

    ``estimator="score"`` is what reinforcement learning uses, the score function with a leave-one-out
    baseline: Σ_i w_i (ℓ_i - c_i) ∇ log q(y_i) / n, where c_i = Σ_{j≠i} w_j ℓ_j / Σ_{j≠i} w_j does not
    depend on y_i, so that the estimate is unbiased and unchanged by a constant added to ℓ.
    ``estimator="pathwise"`` differentiates through the samples, drawn in equal numbers from every
    mode and weighted by the mode's share, so that no gradient is lost through the choice of a mode.

    Args:
        estimator: ``"score"`` or ``"pathwise"``.
        replay: λ in [0, 1), the replayed share of a batch, of the target's old mode; or shares by the names
            of the target's tasks, with a sum below 1; None for none.
        expectation: where the expectation comes from.

    Raises:
        InputError: an unknown estimator, a share outside [0, 1), or a score estimator with fewer than two
            samples.
    """

    estimator: str = "score"
    replay: Scalar | Mapping[str, Scalar] | None = None
    expectation: MonteCarlo | Quadrature = field(default_factory=MonteCarlo)
    direction = "reverse"
    of_ratios = True
    has_exact = True

    def __post_init__(self) -> None:
        super().__init__()
        one_of("estimator", self.estimator, ESTIMATORS)
        if isinstance(self.replay, int | float):  # not while JAX passes its own leaves through
            self.replay = fraction("replay", self.replay) or None
        if self.estimator == "score":
            at_least_two("the score estimator's leave-one-out baseline", self.expectation)

    @property
    def sampling(self) -> SamplingLaw:
        """Whose samples a batch holds."""
        if self.replay is None:
            return OfLearner()
        if isinstance(self.replay, Mapping):
            return OfLearnerWithReplayOfTasks(self.replay)
        return OfLearnerWithReplay(self.replay)

    def exact(self, resolution: Index = FINEST) -> Self:
        """Return a copy whose value and gradient are those of the population, whatever the replay."""
        return replace(self, expectation=Quadrature(resolution), replay=None)

    def in_population(
        self, resolution: Index, target: MixtureLaw, learner: MixtureLaw, args: Arguments
    ) -> Array:
        """Return the loss, see `Loss.in_population`."""
        return kl_divergence(learner, target, resolution)

    def estimate(
        self, key: Array, n: int, target: Distribution, learner: Distribution, args: Arguments
    ) -> Array:
        """Return the loss on fresh samples, see `Loss.estimate`."""
        if self.estimator == "pathwise":
            return self._pathwise(key, n, target, learner, args)
        return super().estimate(key, n, target, learner, args)

    def on_batch(self, y: Array, target: Distribution, learner: Distribution, args: Arguments) -> Array:
        """Return the loss by the score estimator, see `Loss.on_batch`."""
        log_q = stop_gradient(learner.log_prob(y))
        weight = self.sampling.importance(y, log_q, args)
        # Without the barrier XLA evaluates both densities again inside every reduction that follows.
        log_ratio, weight = lax.optimization_barrier((log_q - target.log_prob(y), weight))
        advantage = weight * (log_ratio - leave_one_out(log_ratio, weight))
        surrogate = weighted_log_prob(learner, y, advantage / len(y))
        return with_gradient_of(jnp.mean(weight * log_ratio), surrogate)

    def _pathwise(
        self, key: Array, n: int, target: Distribution, learner: Distribution, args: Arguments
    ) -> Array:
        if not isinstance(learner, MixtureLaw):
            kind = type(learner).__name__
            raise InputError(f"the pathwise estimator needs a learner whose law is a MixtureLaw; got {kind}")
        sampler = self.sampling.law(target, learner, args)
        if n < sampler.num_modes:
            raise InputError(
                f"the pathwise estimator needs a sample for each of {sampler.num_modes} modes; "
                f"got a batch of {n}"
            )
        y, share = sampler.strata(key, n)
        log_q = learner.log_prob(y)
        weight = share * self.sampling.importance(y, log_q, args)
        return jnp.sum(weight * (log_q - target.log_prob(y)))
