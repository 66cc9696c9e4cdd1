"""From draws in the frame to what is reported: weight, displacements, drift and gap, and their resolution."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy import special, stats

from inference.measurement.posterior import law
from inference.measurement.posterior.laplace import Draws
from inference.measurement.posterior.law import Unknowns
from inference.measurement.posterior.prompts import known_variance
from inference.measurement.references.anchors import Anchors, References

#: Prior precision of an unshrunk displacement: where a mode has no samples, a scale of 10 is left of it.
LEAST_INFORMATION = 1e-2


class Reported(NamedTuple):
    """Draws of one checkpoint, each array of shape (R, J, ...): J for each draw of the anchors.

    Attributes:
        old_weight: share of the old mode among all samples.
        new_weight: share of the new mode.
        old_displacement: in the user's coordinates, shape (R, J, feature).
        new_displacement: in the user's coordinates, shape (R, J, feature).
        old_drift: length of the old displacement [Mahalanobis].
        new_gap: length of the new displacement [Mahalanobis].
    """

    old_weight: np.ndarray
    new_weight: np.ndarray
    old_displacement: np.ndarray
    new_displacement: np.ndarray
    old_drift: np.ndarray
    new_gap: np.ndarray


def report(references: References, draws: Draws, rng: np.random.Generator) -> Reported:
    """Draw the reference means given the checkpoint's, and report displacements as their difference.

    With a draw μ + e of the reference mean, e ~ N(0, V), which all checkpoints share, and Δ' ~ N(0, T), the
    reference mean given the checkpoint's mean m is μ + e + V (V + T)⁻¹ (m - μ - e - Δ'). What has not moved
    has displacement 0. The squared length of a displacement is that in the metric of the references times
    χ²_ν/ν, which is how far the length of any one vector in it is off.
    """
    unknowns = jax.tree.map(np.asarray, draws.unknowns)
    share = special.expit(unknowns.old_logit)
    left = special.expit(-unknowns.neither.logit) if unknowns.neither is not None else 1.0
    found, lengths = [], []
    for mode, mean in enumerate((unknowns.old_mean, unknowns.new_mean)):
        scales = draws.scales[:, :, mode]
        spread = np.repeat(scales, [1, mean.shape[-1] - 1], axis=-1)
        reference = references.means[mode] + references.mean_errors[:, None, mode]
        displacement = displaced(mean, spread, reference, references.mean_covariances[mode], rng)
        length = np.linalg.norm(displacement @ references.metric[mode], axis=-1)
        lengths.append(length * np.sqrt(references.metric_factors[:, None, mode]))
        found.append(displacement @ references.frame.backward.T)
    return Reported(share * left, (1.0 - share) * left, *found, *lengths)


def displaced(
    mean: Float[np.ndarray, "R J d"],
    spread: Float[np.ndarray, "R J d"],
    reference: Float[np.ndarray, "R 1 d"],
    noise: Float[np.ndarray, "d d"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "R J d"]:
    """Draw displacements of a mode given its mean m, its scales and a draw μ + e of the reference mean."""
    total = noise + spread[..., None] ** 2 * np.eye(mean.shape[-1])
    moved = spread * rng.standard_normal(mean.shape)
    pulled = np.linalg.solve(total, (mean - reference - moved)[..., None])[..., 0] @ noise
    return np.where(spread.any(axis=-1, keepdims=True), mean - reference - pulled, 0.0)


class Precision(NamedTuple):
    """How well a checkpoint can be measured.

    Attributes:
        old_resolution: the length that an estimated old displacement exceeds by noise alone once in 20
            when nothing has moved, without shrinkage [Mahalanobis].
        new_resolution: the same of the new displacement.
        weight_information: variance of the weight were every sample's mode known, over its variance were the
            references known.
        reference_share: part of the variance of the weight that the references' own error makes.
    """

    old_resolution: float
    new_resolution: float
    weight_information: float
    reference_share: float


def precision_of(
    references: References,
    draws: Draws,
    y: Float[np.ndarray, "n d"],
    num_samples: int,
    prompts: Int[np.ndarray, "n"] | None = None,
    across: Float[np.ndarray, "2 p"] | None = None,
) -> Precision:
    """Return the resolutions and the information on the weight, from draws.

    In a coordinate across the axis the information of the samples on the two means is that of their
    responsibilities, Σ_i r_ij r_ik; along the axis the variance is that of the posterior of what has moved.
    The squared length of an unshrunk displacement is a sum of scaled chi-squared variables, whose 95 %
    quantile is that of the scaled chi-squared law with its two first moments (Satterthwaite 1946).

    Args:
        references: what they say.
        draws: of the posterior.
        y: some of the samples in the frame.
        num_samples: of all the samples.
        prompts: of all the samples, or None where samples have no prompts.
        across: variances of the estimated means across the axis, where samples have prompts.
    """
    share = special.expit(np.asarray(draws.unknowns.old_logit))
    within, between = share.var(axis=1).mean(), share.mean(axis=1).var()
    effects = draws.unknowns.prompts
    if prompts is None or effects is None:
        known = float(np.mean(share * (1.0 - share))) / max(num_samples, 1)
    else:
        known = known_variance(draws.unknowns, effects, num_samples, prompts)
    information = float(np.clip(known / max(within, 1e-300), 0.0, 1.0))
    seen = references.draws.means.shape[-1]
    products = np.mean(
        [
            _responsibility_products(
                jax.tree.map(lambda a, r=r: a[r], references.draws),
                _seen(jax.tree.map(lambda a, r=r: np.asarray(a)[r, 0], draws.unknowns), seen),
                y[:, :seen],
            )
            for r in range(len(share))
        ],
        axis=0,
    )
    inverse = np.linalg.inv(products * num_samples / len(y) + LEAST_INFORMATION * np.eye(2))
    resolutions = []
    for mode in (0, 1):
        noise = np.diagonal(references.mean_covariances[mode])
        variances = inverse[mode, mode] + noise
        if across is not None:
            variances[1:] = np.minimum(across[mode], 1.0 / LEAST_INFORMATION) + noise[1:]
        moved = draws.scales[:, :, mode, 0] > 0.0
        mean = np.asarray((draws.unknowns.old_mean, draws.unknowns.new_mean)[mode])[..., 0]
        if moved.sum() > 1:
            variances[0] = max(variances[0], mean[moved].var() + noise[0])
        scale, dof = np.sum(variances**2) / variances.sum(), variances.sum() ** 2 / np.sum(variances**2)
        resolutions.append(float(np.sqrt(scale * stats.chi2(dof).ppf(0.95))))
    shared = float(between / max(within + between, 1e-300))
    return Precision(resolutions[0], resolutions[1], information, shared)


def _seen(unknowns: Unknowns, seen: int) -> Unknowns:
    """Return unknowns with the coordinates of the means that the law sees."""
    return unknowns._replace(old_mean=unknowns.old_mean[:seen], new_mean=unknowns.new_mean[:seen])


def _responsibility_products(
    anchors: Anchors, unknowns: Unknowns, y: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "2 2"]:
    """Return Σ_i r_ij r_ik of the two modes, under one draw."""
    at = law.coordinates(anchors, unknowns, law.Squares.of_rows(anchors, y))
    held = special.softmax(np.stack(law.log_densities(anchors, law.Settled.of(unknowns), at)), axis=0)[:2]
    return np.asarray(held @ held.T)


def by_slot(array: ArrayLike) -> np.ndarray:
    """Return draws (R, J, ...) one after the other, each draw of the anchors at every R-th place."""
    values = np.swapaxes(np.asarray(array), 0, 1)
    return values.reshape(-1, *values.shape[2:])
