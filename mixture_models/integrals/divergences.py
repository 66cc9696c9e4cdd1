"""Exact divergences between mixtures of Gaussian modes with one covariance, in any dimension.

Around component j, log q(y) = log w_j + log N(y; m_j) + softplus(t), where t, the log odds of the other
component against j, is linear in y. Under N(c, Σ) it is a scalar Gaussian with a mean a and the variance
v = ‖m_o - m_n‖², so

    E[log q(y)] = log w_j - ½‖c - m_j‖² + S(a, v) + const,

with the logistic-normal integral S. Taking for j the component that claims c, a ≤ 0: what is added is small
where modes are apart, and neither it nor its gradient is lost against larger terms.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mixture_models.integrals.logistic_normal import FINEST, softplus_mean
from mixture_models.mixture import covariance as cov
from mixture_models.mixture.law import MixtureLaw
from mixture_models.types import Index
from mixture_models.validation import InputError


def kl_divergence(p: MixtureLaw, q: MixtureLaw, resolution: Index = FINEST) -> Float[Array, ""]:
    """Return KL(p ‖ q) in nats; NaN where their covariances differ.

    Args:
        p: mixture of one or two modes with one covariance.
        q: mixture of one or two modes with the same covariance.
        resolution: of the integrals, see `softplus_mean`.

    Raises:
        InputError: a mixture of more than two modes, or with a covariance a mode.
    """
    for law in (p, q):
        if law.num_modes > 2 or len(law.scales) > 1:
            raise InputError(
                "an exact divergence needs mixtures of at most two modes with one covariance; "
                f"got {law.num_modes} modes with {len(law.scales)} covariances"
            )
    origin = p.means[-1]
    centres, others = (cov.whiten(p.scale(0), law.means - origin) for law in (p, q))
    parts = [_around_claiming_mode(law, means, centres) for law, means in ((p, centres), (q, others))]
    # One call for the integrals of both laws: they are what takes time, to compile and to run.
    odds, variances = (jnp.stack([part[k] for part in parts]) for k in (1, 2))
    expected = jnp.stack([part[0] for part in parts]) + softplus_mean(odds, variances, resolution)
    # A mode of weight zero has an infinite log weight of its own.
    weights = jnp.exp(p.log_weights)
    value = jnp.sum(jnp.where(weights > 0.0, weights * (expected[0] - expected[1]), 0.0))
    same = p.scale(0).shape == q.scale(0).shape
    return jnp.where(same and jnp.all(p.scale(0) == q.scale(0)), value, jnp.nan)


def _around_claiming_mode(
    law: MixtureLaw, means: Float[Array, "k d"], centres: Float[Array, "n d"]
) -> tuple[Array, Array, Array]:
    """Return for every centre, whitened, what E[log q(y)] is but for S(a, v), then a, then v.

    The former is up to a constant that mixtures of one covariance share.
    """
    log_joint = law.log_weights - 0.5 * jnp.sum((centres[:, None] - means) ** 2, axis=-1)
    if law.num_modes == 1:
        return log_joint[:, 0], jnp.full(len(centres), -jnp.inf), jnp.zeros(len(centres))
    first, second = log_joint.T
    claimed_by_first = second < first
    odds = jnp.where(claimed_by_first, second - first, first - second)
    variance = jnp.sum((means[0] - means[1]) ** 2)
    return jnp.where(claimed_by_first, first, second), odds, jnp.full(len(centres), variance)
