"""What is believed of a checkpoint of several tasks before its samples are seen.

β ~ Dirichlet(a). A mode has not moved with probability one half, else its displacement is Δ ~ N(0, T), τ_a²
along the discriminants and τ_p² beside them, with the laws of `posterior.prior`. A mode's mean is m ~ N(μ̂,
V + T), V the uncertainty of the reference mean. A mode lies nearer to its own reference than to another
one.

What belongs to neither task, if anything may, has the share ν ~ Beta(1, 9), and the mean and the scale that
`posterior.prior` says. With s = ((1-ν) β, ν) = softmax(φ), of which one φ is 0, the density of φ is, A = Σ a,

    Π_k s_k^a_k s_N^1 (1 - s_N)^(9 - A).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from inference.measurement.posterior.prior import (
    NEITHER_LOG_SCALE,
    NEITHER_SHARE,
    NEITHER_SPREAD,
    SIDE_STEEPNESS,
    Prior,
)
from inference.measurement.tasks.law import TaskNeither, TaskUnknowns, log_shares
from inference.measurement.tasks.references import TaskModes
from mixture_models.types import AnyArray


class TaskPrior(NamedTuple):
    """Numbers of the prior.

    Attributes:
        shapes: a of the Dirichlet law of the weights, shape (K,).
        displacement_scale: scale of the Student-t laws of displacement [Mahalanobis].
    """

    shapes: Float[np.ndarray, "K"]
    displacement_scale: float

    @property
    def of_scales(self) -> Prior:
        """The numbers that the laws of the scales depend on."""
        return Prior(displacement_scale=self.displacement_scale)


def mean_factors(modes: TaskModes, scales: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n K q q"]:
    """Return the Cholesky factors of V + τ² of every mode.

    Args:
        modes: the modes at the references, unbatched.
        scales: τ_a.
    """
    q = modes.means.shape[-1]
    return np.linalg.cholesky(modes.mean_covariances + scales[..., None, None] ** 2 * np.eye(q))


def log_prior(
    modes: TaskModes, prior: TaskPrior, unknowns: TaskUnknowns, factors: Float[np.ndarray, "*n K q q"]
) -> Float[np.ndarray, "*n"]:
    """Return the log prior density of a batch of unknowns given the scales, up to a constant of neither."""
    z = np.linalg.solve(factors, (unknowns.means - modes.means)[..., None])[..., 0]
    diagonal = np.diagonal(factors, axis1=-2, axis2=-1)
    shares, num = log_shares(unknowns.logits), len(prior.shapes)
    result: np.ndarray = (
        shares[..., :num] @ prior.shapes
        - 0.5 * np.sum(z * z, axis=(-2, -1))
        - np.sum(np.log(diagonal), axis=(-2, -1))
        + log_sides(modes, unknowns.means)
    )
    if unknowns.neither is not None:
        of_share, of_rest = NEITHER_SHARE
        rest = special.logsumexp(shares[..., :num], axis=-1)
        result = result + of_share * shares[..., num] + (of_rest - prior.shapes.sum()) * rest
        result = result + _log_neither(modes, unknowns.neither)
    return result


def _log_neither(modes: TaskModes, third: TaskNeither) -> Float[np.ndarray, "*n"]:
    """Return the log density of mean and log scale of the component for neither, up to a constant."""
    centre, spread = NEITHER_LOG_SCALE
    away = np.sum((third.mean - modes.means.mean(axis=0)) ** 2, axis=-1) / NEITHER_SPREAD**2
    result: np.ndarray = -0.5 * away - 0.5 * ((third.log_scale - centre) / spread) ** 2
    return result


def derivatives(
    modes: TaskModes, prior: TaskPrior, unknowns: TaskUnknowns
) -> tuple[Float[np.ndarray, "R D"], Float[np.ndarray, "R D D"]]:
    """Return gradient and Hessian of `log_prior` but for the means' Gaussian law, as `law.derivatives`."""
    count, num, q = unknowns.means.shape
    components, third = unknowns.logits.shape[-1], unknowns.neither
    first = components if third is None else components + q + 1
    size = first + num * q
    gradient, hessian = np.zeros((count, size)), np.zeros((count, size, size))
    shares, total = special.softmax(unknowns.logits, axis=-1), prior.shapes.sum()
    if third is None:
        gradient[:, :num] = prior.shapes - total * shares
        hessian[:, :num, :num] = -total * _spread(shares)
    else:
        of_share, of_rest = NEITHER_SHARE
        among = special.softmax(unknowns.logits[:, :num], axis=-1)
        gradient[:, :num] = prior.shapes + (of_rest - total) * among
        gradient[:, num] = of_share
        gradient[:, :components] -= (of_share + of_rest) * shares
        hessian[:, :num, :num] = (of_rest - total) * _spread(among)
        hessian[:, :components, :components] -= (of_share + of_rest) * _spread(shares)
        gradient[:, components:first] = neither_slope(modes, np.column_stack([third.mean, third.log_scale]))
        hessian[:, components:first, components:first] = -np.diag(_neither_precision(q))
    sides, axes = _sides(modes, unknowns.means)
    step = special.expit(-sides)
    gradient[:, first:] = np.einsum("rkj,kji->rki", step, axes).reshape(count, -1)
    bends = -np.einsum("rkj,kja,kjb->rkab", step * (1.0 - step), axes, axes)
    for k in range(num):
        place = slice(first + k * q, first + (k + 1) * q)
        hessian[:, place, place] = bends[:, k]
    return gradient, hessian


def neither_slope(modes: TaskModes, third: Float[np.ndarray, "*n q+1"]) -> Float[np.ndarray, "*n q+1"]:
    """Return the slope of the log prior of mean and log scale of the component for neither task."""
    centre = np.append(modes.means.mean(axis=0), NEITHER_LOG_SCALE[0])
    return -_neither_precision(modes.means.shape[-1]) * (third - centre)


def _neither_precision(q: int) -> Float[np.ndarray, "q+1"]:
    return np.append(np.full(q, NEITHER_SPREAD), NEITHER_LOG_SCALE[1]) ** -2.0


def _spread(shares: Float[np.ndarray, "R C"]) -> Float[np.ndarray, "R C C"]:
    """Return diag(s) - s sᵀ."""
    result: np.ndarray = (
        shares[:, :, None] * np.eye(shares.shape[1]) - shares[:, :, None] * shares[:, None, :]
    )
    return result


def log_sides(modes: TaskModes, means: Float[AnyArray, "*n K q"]) -> Float[AnyArray, "*n"]:
    """Return the log of the steps that keep each mode nearer to its own reference than to another one."""
    sides, _ = _sides(modes, means)
    xp = sides.__array_namespace__()
    num = sides.shape[-1]
    # A mode's place beside itself is 0, which counts log 2 a task.
    total: AnyArray = -xp.sum(xp.logaddexp(xp.zeros_like(sides), -sides), axis=(-2, -1))
    return total + num * np.log(2.0)


def _sides(
    modes: TaskModes, means: Float[AnyArray, "*n K q"]
) -> tuple[Float[AnyArray, "*n K K"], Float[np.ndarray, "K K q"]]:
    """Return how far each mode is on its own side of every middle, in units of the step, and gradients."""
    xp = means.__array_namespace__()
    apart = modes.means[:, None] - modes.means[None]
    squared = xp.sum(apart**2, axis=-1)
    axes = SIDE_STEEPNESS * apart / (squared + np.eye(len(squared)))[..., None]
    middles = 0.5 * (modes.means[:, None] + modes.means[None])
    return xp.sum((means[..., :, None, :] - middles) * axes, axis=-1), axes
