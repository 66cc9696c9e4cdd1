"""A law tilted by reward, q_η ∝ q exp(η r): its normaliser and how far it is from q, by integrals."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from mixture_models.integrals.tensor_rule import expectation
from mixture_models.mixture.law import MixtureLaw
from mixture_models.mixture.mixture import Mixture
from mixture_models.rewards import Reward
from mixture_models.types import Index, Scalar

# exp(η r) has no larger modulus than on the real axis while the log odds in r are turned by less than this.
_PHASE = 0.5 * np.pi


@dataclass(frozen=True)
class Tilted:
    """The family q_η ∝ q exp(η r) of a law q.

    Args:
        law: q, of one covariance.
        reward: with the methods ``modes`` and ``steepness``, see `mixture_models.rewards`.
        target: the true target.
        reference: the reward's.
        resolution: of the integrals, see `mixture_models.integrals.tensor_rule.expectation`.
    """

    law: MixtureLaw
    reward: Reward
    target: Mixture
    reference: MixtureLaw
    resolution: Index

    def log_normaliser(self, eta: Scalar) -> Float[Array, ""]:
        """Return log E_q[exp(η r)], differentiable in q."""
        shift = self._shift()
        return jnp.log(self._moments(eta, shift, 1)[0]) + eta * shift

    def divergence(self, eta: Scalar) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return KL(q_η ‖ q) = η E_{q_η}[r] - log E_q[exp(η r)] and its derivative in η, η Var_{q_η}[r]."""
        total, first, second = self._moments(eta, self._shift(), 3)
        mean = first / total
        return eta * mean - jnp.log(total), eta * (second / total - mean * mean)

    def _shift(self) -> Array:
        """Return the largest reward at any mean: what is taken off so that no exponential overflows."""
        places = jnp.concatenate([self.law.means, self._modes()])
        return jnp.max(stop_gradient(self.reward(places, self.target, self.reference)))

    def _modes(self) -> Array:
        return self.reward.modes(self.target, self.reference)

    def _moments(self, eta: Scalar, shift: Array, count: int) -> Array:
        """Return E_q[(r - shift)^k exp(η (r - shift))] for k below ``count``."""

        def powers(y: Array) -> Array:
            r = self.reward(y, self.target, self.reference) - shift
            return jnp.exp(eta * r)[:, None] * jnp.stack([r**k for k in range(count)], axis=-1)

        tilt = eta * self.reward.steepness(self.target, self.reference)
        return expectation(
            self.law,
            powers,
            self._modes(),
            self.resolution,
            phase=_PHASE,
            tilt=stop_gradient(tilt),
            many=self.law.num_modes > 2,
        )
