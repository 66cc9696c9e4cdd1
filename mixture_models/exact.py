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

from mixture_models import covariance as cov
from mixture_models.logistic_normal import softplus_mean
from mixture_models.mixture_law import MixtureLaw
from mixture_models.validation import InputError


def kl_divergence(p: MixtureLaw, q: MixtureLaw, num_nodes: int = 32) -> Float[Array, ""]:
    """Return KL(p ‖ q) in nats; NaN where their covariances differ.

    Args:
        p: mixture of one or two modes with one covariance.
        q: mixture of one or two modes with the same covariance.
        num_nodes: of the Gauss rule of `softplus_mean`.

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
    difference = jnp.stack(
        [
            _expected_log_density(p, centres, c, num_nodes) - _expected_log_density(q, others, c, num_nodes)
            for c in centres
        ]
    )
    # A mode of weight zero has an infinite log weight of its own.
    weights = jnp.exp(p.log_weights)
    value = jnp.sum(jnp.where(weights > 0.0, weights * difference, 0.0))
    same = p.scale(0).shape == q.scale(0).shape
    return jnp.where(same and jnp.all(p.scale(0) == q.scale(0)), value, jnp.nan)


def _expected_log_density(law: MixtureLaw, means: Array, centre: Array, num_nodes: int) -> Array:
    """Return E[log q(y)], whitened, up to a constant that mixtures of one covariance share."""
    log_joint = [
        log_weight - 0.5 * jnp.sum((centre - mean) ** 2)
        for log_weight, mean in zip(law.log_weights, means, strict=True)
    ]
    if len(log_joint) == 1:
        return log_joint[0]
    first, second = log_joint
    variance = jnp.sum((means[0] - means[1]) ** 2)
    claimed_by_first = second < first
    odds = jnp.where(claimed_by_first, second - first, first - second)
    return jnp.where(claimed_by_first, first, second) + softplus_mean(odds, variance, num_nodes)
