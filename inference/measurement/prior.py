"""What is believed of a checkpoint before its samples are seen, with the scales of displacement on a grid.

A mode has not moved, Δ = 0, with probability one half. Else its displacement is Δ ~ N(0, T), T = τ_a² along the
axis that separates the references and τ_p² across it. A mode's mean is m ~ N(μ̂, V + T), V the uncertainty of
the reference mean. Across the axis τ_p is half-Student-t with 3 degrees of freedom, whose tail does not hold
back what has moved far. Along the axis τ_a² is inverse-gamma, which makes that coordinate of Δ Student-t: it is
one number, weakly seen where the modes overlap, and a density that peaks at 0 would there make intervals too
short.

What lies on the new reference's side of the middle is not old: without that, an old mode that has walked over
to the new one explains samples of the new task alone as well as no old mode does, at any weight.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import special, stats

from inference.measurement.anchors import Anchors
from inference.measurement.law import Unknowns

#: Degrees of freedom of the Student-t laws of displacement.
SCALE_DOF = 3.0

#: Prior probability that a mode has not moved.
STILL_PROBABILITY = 0.5

#: Shapes of the Beta prior of the share that belongs to neither task.
NEITHER_SHARE = (1.0, 9.0)

#: Prior standard deviation of the third component's mean in the frame, and of its log scale around log 2.
NEITHER_SPREAD, NEITHER_LOG_SCALE = 3.0, (float(np.log(2.0)), 0.5)


# Steepness of the prior's step at the middle between the references: a tenth of their distance wide.
_SIDE_STEEPNESS = 40.0


class Prior(NamedTuple):
    """Numbers of the prior; a pytree.

    Attributes:
        weight_shapes: (a, b) of the Beta prior of the old mode's share.
        displacement_scale: scale of the Student-t laws of displacement [Mahalanobis].
    """

    weight_shapes: tuple[Any, Any] = (1.0, 1.0)
    displacement_scale: Any = 0.5


def scale_grid(prior: Prior) -> tuple[Float[np.ndarray, "g"], Float[np.ndarray, "2 g"]]:
    """Return the values of τ of what has moved, equal steps in log τ, and the log probabilities of τ_a, τ_p."""
    ratio = np.geomspace(1e-3, 60.0, 56)
    axis = -SCALE_DOF * np.log(ratio) - 0.5 * SCALE_DOF / ratio**2
    across = stats.t(SCALE_DOF).logpdf(ratio) + np.log(ratio)
    log_probability = np.stack([axis, across])
    log_probability -= special.logsumexp(log_probability, axis=1, keepdims=True)
    return prior.displacement_scale * ratio, log_probability


def mean_covariance(anchors: Anchors, mode: int, scales: Float[Any, "... 2"]) -> Float[Any, "... d d"]:
    """Return V + T of a mode, given (τ_a, τ_p)."""
    xp = scales.__array_namespace__()
    d = anchors.means.shape[1]
    squared = xp.concat(
        [scales[..., :1] ** 2, xp.broadcast_to(scales[..., 1:] ** 2, (*scales.shape[:-1], d - 1))], axis=-1
    )
    return anchors.mean_covariances[mode] + squared[..., None] * xp.eye(d)


def log_prior(
    anchors: Anchors, prior: Prior, unknowns: Unknowns, factors: Float[Array, "2 d d"]
) -> Float[Array, ""]:
    """Return the log prior density of the unknowns given the scales, up to a constant of neither.

    Args:
        anchors: the modes at the references.
        prior: the numbers of the prior.
        unknowns: where to evaluate.
        factors: Cholesky factors of V + T of both modes.
    """
    a, b = prior.weight_shapes
    total = _log_logistic_beta(unknowns.old_logit, a, b)
    for mode, mean in enumerate((unknowns.old_mean, unknowns.new_mean)):
        z = jax.scipy.linalg.solve_triangular(factors[mode], mean - anchors.means[mode], lower=True)
        total += -0.5 * z @ z - jnp.sum(jnp.log(jnp.diagonal(factors[mode])))
    total += log_sides(anchors, unknowns)
    total += -0.5 * jnp.sum(anchors.tilt_dof[:, None] * unknowns.tilt**2)
    if unknowns.neither is not None:
        third = unknowns.neither
        total += _log_logistic_beta(third.logit, *NEITHER_SHARE)
        total += -0.5 * jnp.sum((third.mean - anchors.means.mean(0)) ** 2) / NEITHER_SPREAD**2
        total += -0.5 * ((third.log_scale - NEITHER_LOG_SCALE[0]) / NEITHER_LOG_SCALE[1]) ** 2
    return total


def log_sides(anchors: Anchors, unknowns: Unknowns) -> Float[Array, ""]:
    """Return the log of the step that keeps each mode on its own reference's side of the middle."""
    near, far = anchors.means[0, 0], anchors.means[1, 0]
    sides = jnp.stack([unknowns.old_mean[0] - 0.5 * (near + far), 0.5 * (near + far) - unknowns.new_mean[0]])
    return jnp.sum(jax.nn.log_sigmoid(_SIDE_STEEPNESS / (near - far) * sides))


def _log_logistic_beta(logit: Array, a: Any, b: Any) -> Array:
    """Return the log density of logit(p), p ~ Beta(a, b), up to a constant."""
    return a * jax.nn.log_sigmoid(logit) + b * jax.nn.log_sigmoid(-logit)
