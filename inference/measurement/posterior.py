"""From draws in the frame to what is reported: weight, displacements, drift and gap, and their resolution."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import special, stats

from inference.measurement import law
from inference.measurement.anchors import Anchors, Frame
from inference.measurement.laplace import Draws, Mode
from inference.measurement.law import Unknowns
from inference.measurement.prior import mean_covariance


class Reported(NamedTuple):
    """Draws of one checkpoint, each array with the draw first.

    Attributes:
        old_weight: share of the old mode among all samples.
        new_weight: share of the new mode.
        old_displacement: in the user's coordinates, shape (draw, feature).
        new_displacement: in the user's coordinates, shape (draw, feature).
        old_drift: length of the old displacement [Mahalanobis].
        new_gap: length of the new displacement [Mahalanobis].
    """

    old_weight: np.ndarray
    new_weight: np.ndarray
    old_displacement: np.ndarray
    new_displacement: np.ndarray
    old_drift: np.ndarray
    new_gap: np.ndarray


def report(anchors: Anchors, frame: Frame, draws: Draws, rng: np.random.Generator) -> Reported:
    """Draw the reference means given the checkpoint's, and report displacements as their difference.

    Given m and T, Δ ~ N(T (V + T)⁻¹ (m - μ̂), V (V + T)⁻¹ T). The squared length of a displacement across
    the axis is that in the metric B Bᵀ of the references times χ²_ν/ν, which is how far the length of any one
    vector in it is off.
    """
    unknowns = jax.tree.map(np.asarray, draws.unknowns)
    share = special.expit(unknowns.old_logit)
    left = special.expit(-unknowns.neither.logit) if unknowns.neither is not None else 1.0
    found: list[np.ndarray] = []
    for mode, mean in enumerate((unknowns.old_mean, unknowns.new_mean)):
        noise = anchors.mean_covariances[mode]
        total = mean_covariance(anchors, mode, draws.scales[:, mode])
        # T is diagonal.
        spread = np.diagonal(total - noise, axis1=1, axis2=2)
        centre = spread * np.linalg.solve(total, (mean - anchors.means[mode])[..., None])[..., 0]
        covariance = noise @ np.linalg.inv(total) * spread[:, None, :]
        eigenvalues, vectors = np.linalg.eigh(0.5 * (covariance + np.swapaxes(covariance, 1, 2)))
        z = rng.standard_normal(mean.shape) * np.sqrt(np.maximum(eigenvalues, 0.0))
        found.append(centre + (vectors @ z[..., None])[..., 0])
    dofs = np.broadcast_to(anchors.tilt_dof, 2)
    metric = rng.chisquare(dofs, (len(draws.scales), 2)) / dofs
    lengths = np.asarray(_lengths(anchors, draws.unknowns, np.stack(found), metric))
    displacements = [displacement @ frame.backward.T for displacement in found]
    return Reported(share * left, (1.0 - share) * left, *displacements, *lengths)


@jax.jit
def _lengths(
    anchors: Anchors,
    unknowns: Unknowns,
    displacements: Float[Array, "2 draw d"],
    metric: Float[Array, "draw 2"],
) -> Float[Array, "2 draw"]:
    def one(unknowns: Unknowns, displacement: Array, metric: Array) -> Array:
        lengths = []
        for mode in (0, 1):
            kappa, tilt, b = law.precision_columns(anchors, unknowns, mode)
            x = displacement[mode]
            along = kappa * x[0] + tilt @ x[1:]
            lengths.append(jnp.sqrt(along**2 + metric[mode] * jnp.sum((b.T @ x[1:]) ** 2)))
        return jnp.stack(lengths)

    return jax.vmap(one, in_axes=(0, 1, 0), out_axes=1)(unknowns, displacements, metric)


class Precision(NamedTuple):
    """How well a checkpoint can be measured, by the curvature of its likelihood.

    Attributes:
        old_resolution: the length that an estimated old displacement exceeds by noise alone once in 20
            when nothing has moved, without shrinkage [Mahalanobis].
        new_resolution: the same of the new displacement.
        weight_information: variance of the weight were every sample's mode known, over its variance.
    """

    old_resolution: float
    new_resolution: float
    weight_information: float


def precision_of(anchors: Anchors, num_samples: int, mode: Mode) -> Precision:
    """Return the resolution of the displacements and the information on the weight at the posterior mode.

    The covariance of an unshrunk displacement is that of the checkpoint's mean by the likelihood, all else
    free, plus that of the reference mean; its squared length is a sum of scaled chi-squared variables, whose
    95 % quantile is that of the scaled chi-squared law with its two first moments (Satterthwaite 1946).
    """
    d = anchors.means.shape[1]
    flat = mode.flat
    # Where a mode has no samples, its displacement is as uncertain as a scale of 10 leaves it.
    information = -mode.hessian + np.diag(np.r_[1e-8, np.full(2 * d, 1e-2), np.zeros(len(flat) - 1 - 2 * d)])
    others = slice(1 + 2 * d, None)
    extra = np.zeros(len(flat) - 1 - 2 * d)
    covariances = len(anchors.dof)
    extra[:covariances] = 2.0 * anchors.dof
    extra[covariances : covariances * d] = np.repeat(anchors.tilt_dof, d - 1)
    extra[covariances * d :] = 1e-2
    information[others, others] += np.diag(extra)
    eigenvalues, vectors = np.linalg.eigh(information)
    inverse = (vectors / np.maximum(eigenvalues, 1e-6)) @ vectors.T
    resolutions = []
    for k in (0, 1):
        place = slice(1 + k * d, 1 + (k + 1) * d)
        covariance = inverse[place, place] + anchors.mean_covariances[k]
        first, second = np.trace(covariance), np.sum(covariance**2)
        scale, dof = second / first, first**2 / second
        resolutions.append(float(np.sqrt(scale * stats.chi2(dof).ppf(0.95))))
    share = special.expit(flat[0])
    known = 1.0 / max(num_samples * share * (1.0 - share), 1e-12)
    return Precision(resolutions[0], resolutions[1], float(min(known / inverse[0, 0], 1.0)))
