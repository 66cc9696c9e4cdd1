"""What is believed of a checkpoint before its samples are seen, with the scales of displacement on a grid.

A mode has not moved, Δ = 0, with probability one half. Else its displacement is Δ ~ N(0, T), T = τ_a² along
the axis that separates the references and τ_p² across it. A mode's mean is m ~ N(μ̂, V + T), V the
uncertainty of the reference mean. Across the axis τ_p is half-Student-t with 3 degrees of freedom, whose tail
does not hold back what has moved far. Along the axis τ_a² is inverse-gamma, which makes that coordinate of Δ
Student-t: it is one number, weakly seen where the modes overlap, and a density that peaks at 0 would there
make intervals too short.

What lies on the new reference's side of the middle is not old: without that, an old mode that has walked over
to the new one explains samples of the new task alone as well as no old mode does, at any weight.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special, stats

from inference.measurement.posterior.law import Unknowns
from inference.measurement.prompts.effects import shift_of
from inference.measurement.references.anchors import Anchors
from mixture_models.types import AnyArray, Scalar

#: Degrees of freedom of the Student-t laws of displacement.
SCALE_DOF = 3.0

#: Prior probability that a mode has not moved.
STILL_PROBABILITY = 0.5

#: Shapes of the Beta prior of the share that belongs to neither task.
NEITHER_SHARE = (1.0, 9.0)

#: Prior standard deviation of the third component's mean in the frame, and of its log scale around log 2.
NEITHER_SPREAD, NEITHER_LOG_SCALE = 3.0, (float(np.log(2.0)), 0.5)


#: Steepness of the prior's step at the middle between the references: a tenth of their distance wide.
SIDE_STEEPNESS = 40.0


class Prior(NamedTuple):
    """Numbers of the prior; a pytree.

    Attributes:
        weight_shapes: (a, b) of the Beta prior of the old mode's share.
        displacement_scale: scale of the Student-t laws of displacement [Mahalanobis].
    """

    weight_shapes: tuple[Scalar, Scalar] = (1.0, 1.0)
    displacement_scale: AnyArray = 0.5


def scale_grid(prior: Prior) -> tuple[Float[np.ndarray, "g"], Float[np.ndarray, "2 g"]]:
    """Return the values of τ of what has moved, even in log τ, and the log probabilities of τ_a and τ_p."""
    ratio = np.geomspace(1e-3, 60.0, 56)
    axis = -SCALE_DOF * np.log(ratio) - 0.5 * SCALE_DOF / ratio**2
    across = stats.t(SCALE_DOF).logpdf(ratio) + np.log(ratio)
    log_probability = np.stack([axis, across])
    log_probability -= special.logsumexp(log_probability, axis=1, keepdims=True)
    return prior.displacement_scale * ratio, log_probability


def mean_covariance(
    anchors: Anchors, mode: int, scales: Float[AnyArray, "... 2"]
) -> Float[AnyArray, "... d d"]:
    """Return V + T of a mode, given (τ_a, τ_p)."""
    xp = scales.__array_namespace__()
    d = anchors.means.shape[1]
    squared = xp.concat(
        [scales[..., :1] ** 2, xp.broadcast_to(scales[..., 1:] ** 2, (*scales.shape[:-1], d - 1))], axis=-1
    )
    return anchors.mean_covariances[mode] + squared[..., None] * xp.eye(d)


def log_prior(
    anchors: Anchors, prior: Prior, unknowns: Unknowns, factors: Float[np.ndarray, "2 ... d d"]
) -> Float[np.ndarray, "..."]:
    """Return the log prior density of a batch of unknowns given the scales, up to a constant of neither.

    Args:
        anchors: the modes at the references, unbatched: what the prior takes of them no draw differs in.
        prior: the numbers of the prior.
        unknowns: where to evaluate, leaves (..., shape).
        factors: Cholesky factors of V + T of both modes.
    """
    a, b = prior.weight_shapes
    total: np.ndarray = _log_logistic_beta(unknowns.old_logit, a, b)
    for mode, mean in enumerate((unknowns.old_mean, unknowns.new_mean)):
        z = np.linalg.solve(factors[mode], (mean - anchors.means[mode])[..., None])[..., 0]
        diagonal = np.diagonal(factors[mode], axis1=-2, axis2=-1)
        total = total - 0.5 * np.sum(z * z, axis=-1) - np.sum(np.log(diagonal), axis=-1)
    total = total + log_sides(anchors, unknowns)
    total = total - 0.5 * np.sum(anchors.tilt_dof[:, None] * unknowns.tilt**2, axis=(-2, -1))
    if unknowns.neither is not None:
        third = unknowns.neither
        total = total + _log_logistic_beta(third.logit, *NEITHER_SHARE)
        away = np.sum((third.mean - anchors.means.mean(0)) ** 2, axis=-1)
        total = total - 0.5 * away / NEITHER_SPREAD**2
        total = total - 0.5 * ((third.log_scale - NEITHER_LOG_SCALE[0]) / NEITHER_LOG_SCALE[1]) ** 2
    if unknowns.prompts is not None and anchors.likeness is not None:
        spread, shift = unknowns.prompts
        total = total - 0.5 * (spread**2 + shift**2) + anchors.likeness.log_likelihood(shift_of(shift))
    return total


def prior_derivatives(
    anchors: Anchors, prior: Prior, unknowns: Unknowns, factors: Float[np.ndarray, "2 d d"]
) -> tuple[Float[np.ndarray, "R D"], Float[np.ndarray, "R D D"]]:
    """Return gradient and Hessian of `log_prior` in the raveled unknowns, a batch with one axis."""
    count, d = unknowns.old_mean.shape
    tilts = unknowns.tilt[0].size
    end = 1 + 2 * d + tilts
    size = end + (0 if unknowns.neither is None else d + 2) + (0 if unknowns.prompts is None else 2)
    gradient, bends = np.zeros((count, size)), np.zeros((count, size))
    gradient[:, 0], bends[:, 0] = _logistic_beta_derivatives(unknowns.old_logit, *prior.weight_shapes)
    precisions = [np.linalg.inv(f @ f.T) for f in factors]
    for mode, mean in enumerate((unknowns.old_mean, unknowns.new_mean)):
        place = slice(1 + mode * d, 1 + (mode + 1) * d)
        gradient[:, place] = -(mean - anchors.means[mode]) @ precisions[mode]
    tilt_dof = np.repeat(anchors.tilt_dof, d - 1)
    gradient[:, 1 + 2 * d : end] = -tilt_dof * unknowns.tilt.reshape(count, -1)
    bends[:, 1 + 2 * d : end] = -tilt_dof
    steepness, inside = _sides(anchors, unknowns)
    for first, sign, side in ((1, 1.0, inside[..., 0]), (1 + d, -1.0, inside[..., 1])):
        step = special.expit(-side)
        gradient[:, first] += sign * steepness * step
        bends[:, first] -= steepness**2 * step * (1.0 - step)
    if unknowns.neither is not None:
        third = unknowns.neither
        gradient[:, end], bends[:, end] = _logistic_beta_derivatives(third.logit, *NEITHER_SHARE)
        gradient[:, end + 1 : end + 1 + d] = -(third.mean - anchors.means.mean(0)) / NEITHER_SPREAD**2
        bends[:, end + 1 : end + 1 + d] = -1.0 / NEITHER_SPREAD**2
        gradient[:, -1] = -(third.log_scale - NEITHER_LOG_SCALE[0]) / NEITHER_LOG_SCALE[1] ** 2
        bends[:, -1] = -1.0 / NEITHER_LOG_SCALE[1] ** 2
    if unknowns.prompts is not None and anchors.likeness is not None:
        spread, shift = unknowns.prompts
        gradient[:, -2], bends[:, -2] = -spread, -1.0
        slope, bend = anchors.likeness.derivatives(shift_of(shift))
        density = stats.norm.pdf(shift)  # the derivative of ρ in its score, whose own is -score times it
        gradient[:, -1] = -shift + slope * density
        bends[:, -1] = -1.0 + bend * density**2 - slope * shift * density
    hessian = bends[:, :, None] * np.eye(size)
    for mode in (0, 1):
        place = slice(1 + mode * d, 1 + (mode + 1) * d)
        hessian[:, place, place] -= precisions[mode]
    return gradient, hessian


def log_sides(anchors: Anchors, unknowns: Unknowns) -> Float[AnyArray, "..."]:
    """Return the log of the step that keeps each mode on its own reference's side of the middle."""
    _, inside = _sides(anchors, unknowns)
    xp = inside.__array_namespace__()
    return -xp.sum(xp.logaddexp(xp.zeros_like(inside), -inside), axis=-1)


def _sides(anchors: Anchors, unknowns: Unknowns) -> tuple[AnyArray, Float[AnyArray, "... 2"]]:
    """Return the step's steepness, and how far each mode is on its own side, in units of the step."""
    near, far = anchors.means[0, 0], anchors.means[1, 0]
    xp = unknowns.old_mean.__array_namespace__()
    middle, steepness = 0.5 * (near + far), SIDE_STEEPNESS / (near - far)
    both = [unknowns.old_mean[..., 0] - middle, middle - unknowns.new_mean[..., 0]]
    return steepness, steepness * xp.stack(both, axis=-1)


def _log_logistic_beta(logit: np.ndarray, a: Scalar, b: Scalar) -> np.ndarray:
    """Return the log density of logit(p), p ~ Beta(a, b), up to a constant."""
    result: np.ndarray = -a * np.logaddexp(0.0, -logit) - b * np.logaddexp(0.0, logit)
    return result


def _logistic_beta_derivatives(logit: np.ndarray, a: Scalar, b: Scalar) -> tuple[np.ndarray, np.ndarray]:
    p = special.expit(logit)
    return a * (1.0 - p) - b * p, -(a + b) * p * (1.0 - p)
