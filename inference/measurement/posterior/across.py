"""Means across the axis, where the axis alone tells which mode a sample belongs to.

Modes with their own shape along the axis make no claim on how they are spread across it. So the samples'
places across the axis say nothing of the weight, only of the means: with the responsibilities r_i of a draw
along the axis, and the references' slopes γ_k of the coordinates across it on the axis,

    y_ip = Σ_k r_ik (m_kp + γ_k (u_i - m_k1)) + e_i,    Cov e_i = Σ_k r_ik Σ_k,

whose least-squares estimate of (m_o, m_n) is Gaussian with covariance C = Σ_k (M⁻¹ Q_k M⁻¹) ⊗ Σ_k, where
M = Σ_i r_i r_iᵀ and Q_k = Σ_i r_ik r_i r_iᵀ. The posterior of the means is then Gaussian in closed form.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np
import scipy.linalg
from jaxtyping import Float, Int
from scipy import special

from inference.measurement.posterior import law
from inference.measurement.posterior.law import Rows, Unknowns
from inference.measurement.posterior.pieces import total
from inference.measurement.posterior.scales import Gaussian
from inference.measurement.references import clusters
from inference.measurement.references.anchors import Anchors, References

#: Draws for each draw of the anchors whose responsibilities are summed over all samples.
SETS = 4

# Numbers of the matrices of draws that are held at once, over four.
_NUMBERS = 1 << 20

#: What keeps the estimate of a mode without samples finite.
LEAST_MASS = 1e-6


class Estimates(NamedTuple):
    """Least-squares estimates of the means across the axis, for each of S sets of responsibilities.

    Attributes:
        means: of every mode, shape (S, K, p).
        covariances: C, shape (S, K, p, K, p).
    """

    means: Float[np.ndarray, "S K p"]
    covariances: Float[np.ndarray, "S K p K p"]


def estimate(
    references: References,
    sets: list[tuple[Anchors, Unknowns]],
    rows: Iterable[Rows],
    prompts: Int[np.ndarray, "n"] | None = None,
) -> Estimates:
    """Return the estimates for sets of responsibilities, in one pass over the samples.

    Args:
        references: what they say.
        sets: S pairs of anchors and unknowns along the axis, unbatched.
        rows: the samples, all coordinates.
        prompts: of the samples, which depend on one another in a prompt, or None; then in a second pass.
    """
    mass, third, turned, sums = total(lambda piece: _sums(sets, piece), rows)
    mass = np.asarray(mass) + LEAST_MASS * np.eye(2)
    inverse = np.linalg.inv(mass)
    seen = np.asarray(sums) - np.einsum("sjk,kp->sjp", turned, references.slopes)
    means = inverse @ seen
    apart = means[:, 0] - means[:, 1]
    covariances = np.einsum(
        "skab,kpq->sapbq",
        inverse[:, None] @ np.asarray(third)[:, :2] @ inverse[:, None],
        references.residuals,
    )
    covariances += np.einsum("sab,sp,sq->sapbq", inverse @ np.asarray(third)[:, 2] @ inverse, apart, apart)
    found = Estimates(means, covariances)
    return found if prompts is None else _by_prompt(references, sets, rows, prompts, found, mass)


def _by_prompt(
    references: References,
    sets: list[tuple[Anchors, Unknowns]],
    rows: Iterable[Rows],
    prompts: Int[np.ndarray, "n"],
    found: Estimates,
    mass: Float[np.ndarray, "S K K"],
) -> Estimates:
    """Return estimates whose covariance is that of sums of residuals over prompts, M⁻¹ K M⁻¹.

    K is that of Σ_i r_i ⊗ e_i, see `clusters.sum_covariance`, which begins with that of independent rows.
    """
    y = np.concatenate([_unpadded(piece) for piece in rows])
    shape = found.covariances.shape[1:]
    size = shape[0] * shape[1]
    least = LEAST_MASS * scipy.linalg.block_diag(*references.residuals)
    clustered = []
    for (anchors, unknowns), means, covariance, m in zip(sets, *found, mass, strict=True):
        held, _ = _responsibilities(anchors, unknowns, y[:, :1])
        left = residuals(references, (anchors, unknowns), means, y)
        parts = (held.T[:, :, None] * left[:, None]).reshape(len(y), size)
        turned = np.einsum("ab,bpcq,cd->apdq", m, covariance, m).reshape(size, size)
        summed = clusters.sum_covariance(parts, prompts, turned + least).reshape(shape)
        inverse = np.linalg.inv(m)
        clustered.append(np.einsum("ab,bpcq,cd->apdq", inverse, summed, inverse))
    return Estimates(found.means, np.stack(clustered))


def _unpadded(piece: Rows) -> Float[np.ndarray, "n d"]:
    y = np.asarray(piece.y).reshape(-1, piece.y.shape[-1])
    return y[np.ravel(piece.weights) > 0.0]


def _responsibilities(
    anchors: Anchors, unknowns: Unknowns, line: Float[np.ndarray, "n 1"]
) -> tuple[Float[np.ndarray, "K n"], Float[np.ndarray, "K n"]]:
    """Return responsibilities along the axis, and places less the mean of every mode."""
    at = law.coordinates(anchors, unknowns, law.Squares.of_rows(anchors, line))
    held = special.softmax(np.stack(law.log_densities(anchors, law.Settled.of(unknowns), at)), axis=0)
    return held, line[:, 0] - np.stack([unknowns.old_mean, unknowns.new_mean])


def residuals(
    references: References, pair: tuple[Anchors, Unknowns], means: Float[np.ndarray, "K p"], y: np.ndarray
) -> Float[np.ndarray, "n p"]:
    """Return samples across the axis less what is predicted of them."""
    held, from_mean = _responsibilities(*pair, y[:, :1])
    result: np.ndarray = y[:, 1:] - held.T @ means - (held * from_mean).T @ references.slopes
    return result


def _sums(sets: list[tuple[Anchors, Unknowns]], piece: Rows) -> tuple[np.ndarray, ...]:
    """Return M, then (Q_o, Q_n, Σ r_o r_n r rᵀ), Σ r_j r_k (u - m_k1) and Σ r_j y_p, of every set."""
    y = _unpadded(piece)
    found = []
    for anchors, unknowns in sets:
        held, from_mean = _responsibilities(anchors, unknowns, y[:, :1])
        factors = [held[0], held[1], held[0] * held[1]]
        found.append(
            (
                held @ held.T,
                np.stack([(f * held) @ held.T for f in factors]),
                held @ (held * from_mean).T,
                held @ y[:, 1:],
            )
        )
    return tuple(np.stack(part) for part in zip(*found, strict=True))


def draw_means(
    reference: Float[np.ndarray, "K p"],
    noise: Float[np.ndarray, "K p p"],
    estimates: Estimates,
    which: Int[np.ndarray, "N"],
    scales: Float[np.ndarray, "N K"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "N K p"]:
    """Draw the means across the axis given the scales of displacement, each by one of the estimates.

    With a draw m' of the prior N(μ̂, V + T) and ε of N(0, C), m' + (V + T) (V + T + C)⁻¹ (m̂ + ε - m') is one
    of the posterior.

    Args:
        reference: means of the references across the axis.
        noise: their covariances.
        estimates: S of them.
        which: the estimate that each draw goes by.
        scales: τ_p of every mode.
        rng: of all that is random.
    """
    count, (modes, p) = len(which), reference.shape
    roots = np.linalg.cholesky(noise)
    prior = reference + np.einsum("kij,nkj->nki", roots, rng.standard_normal((count, modes, p)))
    prior += scales[:, :, None] * rng.standard_normal((count, modes, p))
    size = modes * p
    covariances = estimates.covariances.reshape(-1, size, size)
    eigenvalues, vectors = np.linalg.eigh(covariances)
    spread = vectors * np.sqrt(np.maximum(eigenvalues, 0.0))[:, None, :]
    fixed = scipy.linalg.block_diag(*noise)
    found = prior.reshape(count, size)
    noises = rng.standard_normal((count, size))
    for some in np.array_split(np.arange(count), max(1, count * p * p // _NUMBERS)):
        of = which[some]
        variances = np.repeat(scales[some] ** 2, p, axis=1)
        total_prior = fixed + variances[:, :, None] * np.eye(size)
        seen = estimates.means[of].reshape(-1, size) + (spread[of] @ noises[some][..., None])[..., 0]
        away = np.linalg.solve(total_prior + covariances[of], (seen - found[some])[..., None])
        found[some] += (total_prior @ away)[..., 0]
    result: np.ndarray = found.reshape(count, modes, p)
    return result


def summary_of(references: References, estimates: Estimates) -> Gaussian:
    """Return what the first of some estimates says of the scales."""
    p = references.old.shape[1] - 1
    mean = np.einsum("apbp->ab", estimates.covariances[0]) / p
    precision = np.linalg.inv(mean)
    noise = np.trace(references.mean_covariances[:, 1:, 1:], axis1=1, axis2=2) / p
    return Gaussian(precision, precision @ (estimates.means[0] - references.means[:, 1:]), noise)


def sets_of[Modes, Fitted](modes: Modes, unknowns: Fitted, num: int) -> list[tuple[Modes, Fitted]]:
    """Return the first draws for each of a batch of modes, unbatched; that of draw r and j at r num + j."""
    return [
        (
            jax.tree.map(lambda a, r=r: a[r], modes),
            jax.tree.map(lambda a, r=r, j=j: np.asarray(a)[r, j], unknowns),
        )
        for r in range(len(jax.tree.leaves(modes)[0]))
        for j in range(num)
    ]
