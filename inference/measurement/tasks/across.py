"""Means beside the discriminants, where these alone tell which task a sample belongs to.

With the responsibilities r_i of a draw and the references' slopes Γ_k, least squares in

    y_ip = Σ_k r_ik (m_kp + Γ_kᵀ (u_i - m_k)) + e_i

as in `posterior.across`; that it is not known which task a sample is of adds Σ_jk r_ij r_ik (m_j - m_k)(m_j
- m_k)ᵀ over pairs to the covariance of e_i.

What belongs to neither task has a column of responsibilities, a mean with the prior N(0, 3² I) and a
covariance of its own, and no slope, so that it does not pull the tasks' means.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from inference.measurement.posterior.across import LEAST_MASS, Estimates, draw_means, sets_of
from inference.measurement.posterior.law import Rows
from inference.measurement.posterior.pieces import total
from inference.measurement.posterior.prior import NEITHER_LOG_SCALE, NEITHER_SPREAD
from inference.measurement.tasks import law
from inference.measurement.tasks.draws import TaskDraws
from inference.measurement.tasks.law import TaskUnknowns
from inference.measurement.tasks.references import TaskModes, TaskReferences
from inference.measurement.tasks.scales import Beside

# Draws for each draw of the modes whose responsibilities are summed over all samples; the means beside the
# discriminants, over which there are fewer.
_SETS, _MANY = 4, 300


class NeitherBeside(NamedTuple):
    """What belongs to neither task beside the discriminants, for each of S sets of responsibilities.

    Attributes:
        means: shape (S, p).
        covariances: posterior means under an inverse-Wishart prior worth p + 2 samples, shape (S, p, p).
    """

    means: Float[np.ndarray, "S p"]
    covariances: Float[np.ndarray, "S p p"]


def beside_of(
    references: TaskReferences, modes: TaskModes, unknowns: TaskUnknowns, rows: Iterable[Rows]
) -> Beside | None:
    """Return what the samples say of the means beside the discriminants, or None where there are none.

    Args:
        references: what they say.
        modes: unbatched.
        unknowns: along the discriminants, unbatched.
        rows: the samples, all coordinates.
    """
    q = references.space.num
    p = references.means.shape[1] - q
    if not p:
        return None
    found, _ = _estimate(references, [(modes, unknowns)], rows)
    precision = np.linalg.inv(np.einsum("apbp->ab", found.covariances[0]) / p)
    linear = precision @ (found.means[0] - references.means[:, q:])
    noise = np.trace(references.mean_covariances[:, q:, q:], axis1=1, axis2=2) / p
    return Beside(precision, linear @ linear.T, noise, p)


def with_beside(
    references: TaskReferences, rows: Iterable[Rows], draws: TaskDraws, rng: np.random.Generator
) -> TaskDraws:
    """Return draws along the discriminants with the means beside them."""
    q = references.space.num
    num, d = references.means.shape
    if d == q:
        return draws
    count, each = draws.scales.shape[:2]
    size = min(_SETS if num * (d - q) <= _MANY else 1, each)
    sets = sets_of(references.draws, draws.unknowns, size)
    estimates, third = _estimate(references, sets, rows)
    which = np.arange(count)[:, None] * size + np.arange(each) % size
    prior = references.means[:, q:], references.mean_covariances[:, q:, q:]
    scales = draws.scales[..., 1].reshape(-1, num)
    beside = draw_means(*prior, estimates, which.ravel(), scales, rng).reshape(count, each, num, -1)
    means = np.concatenate([draws.unknowns.means, beside], axis=-1)
    unknowns = draws.unknowns._replace(means=means)
    if third is None or unknowns.neither is None:
        return draws._replace(unknowns=unknowns)
    mean = np.concatenate([unknowns.neither.mean, third.means[which]], axis=-1)
    unknowns = unknowns._replace(neither=unknowns.neither._replace(mean=mean))
    return draws._replace(unknowns=unknowns, neither_beside=third.covariances.mean(axis=0))


def _estimate(
    references: TaskReferences, sets: list[tuple[TaskModes, TaskUnknowns]], rows: Iterable[Rows]
) -> tuple[Estimates, NeitherBeside | None]:
    """Return the estimates for sets of responsibilities, in one pass over the samples."""
    q = references.space.num
    num, p = len(references.means), references.means.shape[1] - q
    products, along, sums, squares = total(lambda piece: _sums(sets, piece, q, num), rows)
    products, along, sums = np.asarray(products), np.asarray(along), np.asarray(sums)
    every = products.shape[1]
    # Σ r_a r_b r_c r_d, whose sum over c and d is Σ r_a r_b: shares add to 1.
    mass = products.sum(axis=(3, 4)) + LEAST_MASS * np.eye(every)
    # The prior of the mean of neither, in units of the variance of a coordinate within the references.
    mass[:, num:, num:] += NEITHER_SPREAD**-2.0
    places = np.stack([unknowns.means for _, unknowns in sets])
    turned = along[:, :, :num] - products.sum(axis=4).sum(axis=3)[:, :, :num, None] * places[:, None]
    inverse = np.linalg.inv(mass)
    seen = sums - np.einsum("sjkq,kqp->sjp", turned, references.slopes)
    means = inverse @ seen
    # Σ r_k r rᵀ of every component, and Σ r_j r_k r rᵀ of every pair.
    own = np.einsum("sab,skbc,scd->skad", inverse, products.sum(axis=4).transpose(0, 3, 1, 2), inverse)
    covariances = np.einsum("skab,kpr->sapbr", own[:, :num], references.residuals)
    third = None
    if every > num:
        third = NeitherBeside(means[:, num], _neither_covariances(means[:, num], np.asarray(squares)))
        covariances += np.einsum("sab,spr->sapbr", own[:, num], third.covariances)
    pairs = np.einsum("sab,sjkbc,scd->sjkad", inverse, products.transpose(0, 3, 4, 1, 2), inverse)
    apart = means[:, :, None] - means[:, None]
    left = pairs.reshape(len(sets), every * every, every * every).transpose(0, 2, 1)
    right = (apart[..., :, None] * apart[..., None, :]).reshape(len(sets), every * every, p * p)
    between = (0.5 * left @ right).reshape(len(sets), every, every, p, p)
    covariances = covariances + between.transpose(0, 1, 3, 2, 4)
    return Estimates(means[:, :num], covariances[:, :num, :, :num]), third


def _neither_covariances(
    means: Float[np.ndarray, "S p"], squares: Float[np.ndarray, "S p+1 p+1"]
) -> Float[np.ndarray, "S p p"]:
    """Return the covariances of what belongs to neither, from Σ r x xᵀ with x = (1, y_p)."""
    p = means.shape[1]
    cross = squares[:, 1:, :1] * means[:, None]
    spread = squares[:, 1:, 1:] - cross - np.swapaxes(cross, 1, 2)
    spread += squares[:, :1, :1] * means[:, :, None] * means[:, None]
    prior = (p + 2.0) * np.exp(2.0 * NEITHER_LOG_SCALE[0])
    result: np.ndarray = (spread + prior * np.eye(p)) / (squares[:, :1, :1] + p + 2.0)
    return result


def _sums(
    sets: list[tuple[TaskModes, TaskUnknowns]], piece: Rows, q: int, num: int
) -> tuple[np.ndarray, ...]:
    """Return Σ r_a r_b r_c r_d, Σ r_a r_b u, Σ r_a y_p and Σ r x xᵀ of neither, x = (1, y_p), of sets."""
    y = np.asarray(piece.y).reshape(-1, piece.y.shape[-1])
    y = y[np.asarray(piece.weights).ravel() > 0.0]
    x = np.column_stack([np.ones(len(y)), y[:, q:]])
    found: list[tuple[Float[np.ndarray, ...], ...]] = []
    for modes, unknowns in sets:
        held = law.responsibilities(modes, unknowns, y[:, :q])
        every = held.shape[1]
        pairs = (held[:, :, None] * held[:, None, :]).reshape(-1, every * every)
        beyond = held[:, num:]
        found.append(
            (
                (pairs.T @ pairs).reshape(every, every, every, every),
                (pairs.T @ y[:, :q]).reshape(every, every, q),
                held.T @ y[:, q:],
                (beyond * x).T @ x if beyond.shape[1] else np.zeros(0),
            )
        )
    return tuple(np.stack(part) for part in zip(*found, strict=True))
