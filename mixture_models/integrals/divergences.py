"""Exact divergences between mixtures of Gaussian modes with one covariance, in any dimension.

Around component j, log q(y) = log w_j + log N(y; m_j) + softplus(t), where t, the log odds of the other
component against j, is linear in y. Under N(c, Σ) it is a scalar Gaussian with a mean a and the variance
v = ‖m_o - m_n‖², so

    E[log q(y)] = log w_j - ½‖c - m_j‖² + S(a, v) + const,

with the logistic-normal integral S. Taking for j the component that claims c, a ≤ 0: what is added is small
where modes are apart, and neither it nor its gradient is lost against larger terms.

Of more than two modes it is log Σ_k exp(t_k) with K - 1 linear forms t_k, and its mean an integral over the
span of the means of q.
"""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from mixture_models.integrals.logistic_normal import FINEST, softplus_mean
from mixture_models.integrals.tensor_rule import expectation, same_covariance
from mixture_models.mixture import covariance as cov
from mixture_models.mixture.law import MixtureLaw
from mixture_models.types import Index
from mixture_models.validation import InputError

#: Most modes of an exact divergence.
MOST_MODES = 6


def kl_divergence(p: MixtureLaw, q: MixtureLaw, resolution: Index = FINEST) -> Float[Array, ""]:
    """Return KL(p ‖ q) in nats; NaN where their covariances differ.

    Args:
        p: mixture of one to six modes with one covariance.
        q: mixture of one to six modes with the same covariance.
        resolution: of the integrals, see `softplus_mean` and, for more than two modes, `expectation`.

    Raises:
        InputError: a mixture of more than six modes, or with a covariance a mode.
    """
    for law in (p, q):
        if law.num_modes > MOST_MODES or len(law.scales) > 1:
            raise InputError(
                f"an exact divergence needs mixtures of at most {MOST_MODES} modes with one covariance; "
                f"got {law.num_modes} modes with {len(law.scales)} covariances"
            )
    if max(p.num_modes, q.num_modes) > 2:
        value = _mean_log_density(p, p, resolution) - _mean_log_density(p, q, resolution)
        return jnp.where(same_covariance(p, q), value, jnp.nan)
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


def _mean_log_density(p: MixtureLaw, q: MixtureLaw, resolution: Index) -> Float[Array, ""]:
    """Return E_p[log q(y)], up to a constant that mixtures of one covariance share."""
    scale, origin = p.scale(0), stop_gradient(q.means[-1])
    centres, means = (cov.whiten(scale, law.means - origin) for law in (p, q))
    log_joint = q.log_weights - 0.5 * jnp.sum((centres[:, None] - means) ** 2, axis=-1)
    claims = stop_gradient(jnp.argmax(log_joint, axis=1))[:, None]
    weights = jnp.exp(p.log_weights)
    around = jnp.take_along_axis(log_joint, claims, axis=1)[:, 0]
    known = jnp.sum(jnp.where(weights > 0.0, weights * around, 0.0))
    if q.num_modes == 1:
        return known

    def excess(y: Array) -> Array:
        """Return log q - log(w_j N(y; m_j)), the samples of every mode of p against the j that claims it."""
        u = cov.whiten(scale, y - origin).reshape(p.num_modes, -1, y.shape[-1])
        forms = u @ means.T + (q.log_weights - 0.5 * jnp.sum(means**2, axis=-1))
        against = jnp.take_along_axis(forms, jnp.broadcast_to(claims[:, None], (*u.shape[:2], 1)), axis=-1)
        return jax.nn.logsumexp(forms - against, axis=-1).ravel()

    return known + expectation(p, excess, q.means, resolution, many=True)


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
