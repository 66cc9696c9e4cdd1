"""Means beside the discriminants, where these alone tell which task a sample belongs to.

With the responsibilities r_i of a draw and the references' slopes Γ_k, least squares in

    y_ip = Σ_k r_ik (m_kp + Γ_kᵀ (u_i - m_k)) + e_i

as in `posterior.across`; that it is not known which task a sample is of adds Σ_jk r_ij r_ik (m_j - m_k)(m_j
- m_k)ᵀ over pairs to the covariance of e_i.
"""

from collections.abc import Iterable

import jax
import numpy as np
from jaxtyping import Float

from inference.measurement.posterior.across import LEAST_MASS, Estimates, draw_means
from inference.measurement.posterior.law import Rows
from inference.measurement.posterior.pieces import total
from inference.measurement.tasks import law
from inference.measurement.tasks.draws import TaskDraws
from inference.measurement.tasks.law import TaskUnknowns
from inference.measurement.tasks.references import TaskModes, TaskReferences
from inference.measurement.tasks.scales import Beside

# Draws for each draw of the modes whose responsibilities are summed over all samples; the means beside the
# discriminants, over which there are fewer.
_SETS, _MANY = 4, 300


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
    found = _estimate(references, [(modes, unknowns)], rows)
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
    sets = [
        (
            jax.tree.map(lambda a, r=r: a[r], references.draws),
            TaskUnknowns(*(part[r, j] for part in draws.unknowns)),
        )
        for r in range(count)
        for j in range(size)
    ]
    estimates = _estimate(references, sets, rows)
    which = np.arange(count)[:, None] * size + np.arange(each) % size
    prior = references.means[:, q:], references.mean_covariances[:, q:, q:]
    scales = draws.scales[..., 1].reshape(-1, num)
    beside = draw_means(*prior, estimates, which.ravel(), scales, rng).reshape(count, each, num, -1)
    means = np.concatenate([draws.unknowns.means, beside], axis=-1)
    return draws._replace(unknowns=draws.unknowns._replace(means=means))


def _estimate(
    references: TaskReferences, sets: list[tuple[TaskModes, TaskUnknowns]], rows: Iterable[Rows]
) -> Estimates:
    """Return the estimates for sets of responsibilities, in one pass over the samples."""
    q = references.space.num
    num, p = len(references.means), references.means.shape[1] - q
    products, along, sums = total(lambda piece: _sums(sets, piece, q), rows)
    products, along, sums = np.asarray(products), np.asarray(along), np.asarray(sums)
    # Σ r_a r_b r_c r_d, whose sum over c and d is Σ r_a r_b: shares add to 1.
    mass = products.sum(axis=(3, 4)) + LEAST_MASS * np.eye(num)
    places = np.stack([unknowns.means for _, unknowns in sets])
    turned = along - products.sum(axis=4).sum(axis=3)[..., None] * places[:, None]
    inverse = np.linalg.inv(mass)
    seen = sums - np.einsum("sjkq,kqp->sjp", turned, references.slopes)
    means = inverse @ seen
    # Σ r_k r rᵀ of every task, and Σ r_j r_k r rᵀ of every pair.
    own = np.einsum("sab,skbc,scd->skad", inverse, products.sum(axis=4).transpose(0, 3, 1, 2), inverse)
    covariances = np.einsum("skab,kpr->sapbr", own, references.residuals)
    pairs = np.einsum("sab,sjkbc,scd->sjkad", inverse, products.transpose(0, 3, 4, 1, 2), inverse)
    apart = means[:, :, None] - means[:, None]
    left = pairs.reshape(len(sets), num * num, num * num).transpose(0, 2, 1)
    right = (apart[..., :, None] * apart[..., None, :]).reshape(len(sets), num * num, p * p)
    between = (0.5 * left @ right).reshape(len(sets), num, num, p, p)
    return Estimates(means, covariances + between.transpose(0, 1, 3, 2, 4))


def _sums(sets: list[tuple[TaskModes, TaskUnknowns]], piece: Rows, q: int) -> tuple[np.ndarray, ...]:
    """Return Σ r_a r_b r_c r_d, Σ r_a r_b u and Σ r_a y_p, of every set."""
    y = np.asarray(piece.y).reshape(-1, piece.y.shape[-1])
    y = y[np.asarray(piece.weights).ravel() > 0.0]
    found: list[tuple[Float[np.ndarray, ...], ...]] = []
    for modes, unknowns in sets:
        held = law.responsibilities(modes, unknowns, y[:, :q])
        num = held.shape[1]
        pairs = (held[:, :, None] * held[:, None, :]).reshape(-1, num * num)
        found.append(
            (
                (pairs.T @ pairs).reshape(num, num, num, num),
                (pairs.T @ y[:, :q]).reshape(num, num, q),
                held.T @ y[:, q:],
            )
        )
    return tuple(np.stack(part) for part in zip(*found, strict=True))
