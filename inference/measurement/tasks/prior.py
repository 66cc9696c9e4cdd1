"""What is believed of a checkpoint of several tasks before its samples are seen.

β ~ Dirichlet(a). A mode has not moved with probability one half, else its displacement is Δ ~ N(0, T), τ_a²
along the discriminants and τ_p² beside them, with the laws of `posterior.prior`. A mode's mean is m ~ N(μ̂,
V + T), V the uncertainty of the reference mean. A mode lies nearer to its own reference than to another
one.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from inference.measurement.posterior.prior import SIDE_STEEPNESS, Prior
from inference.measurement.tasks.law import TaskUnknowns, log_shares
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
    result: np.ndarray = (
        log_shares(unknowns.logits) @ prior.shapes
        - 0.5 * np.sum(z * z, axis=(-2, -1))
        - np.sum(np.log(diagonal), axis=(-2, -1))
        + log_sides(modes, unknowns.means)
    )
    return result


def derivatives(
    modes: TaskModes, prior: TaskPrior, unknowns: TaskUnknowns
) -> tuple[Float[np.ndarray, "R D"], Float[np.ndarray, "R D D"]]:
    """Return gradient and Hessian of `log_prior` without the means' Gaussian law, in φ and the means."""
    count, num, q = unknowns.means.shape
    size = num + num * q
    gradient, hessian = np.zeros((count, size)), np.zeros((count, size, size))
    shares, total = special.softmax(unknowns.logits, axis=-1), prior.shapes.sum()
    gradient[:, :num] = prior.shapes - total * shares
    hessian[:, :num, :num] = total * (
        shares[:, :, None] * shares[:, None, :] - shares[:, :, None] * np.eye(num)
    )
    sides, axes = _sides(modes, unknowns.means)
    step = special.expit(-sides)
    gradient[:, num:] = np.einsum("rkj,kji->rki", step, axes).reshape(count, -1)
    bends = -np.einsum("rkj,kja,kjb->rkab", step * (1.0 - step), axes, axes)
    for k in range(num):
        place = slice(num + k * q, num + (k + 1) * q)
        hessian[:, place, place] = bends[:, k]
    return gradient, hessian


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
