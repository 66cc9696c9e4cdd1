"""Draws of a checkpoint's posterior: a Laplace approximation under every draw of the modes, by importance.

As `posterior.laplace`, with one mode a task. The logits against the heaviest task are proposed by a Gaussian
copula whose marginals are those of two tasks there, logits of Beta laws of equal mode and curvature.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np
from jax.lax.linalg import triangular_solve
from jaxtyping import Bool, Float
from scipy import special

from inference.measurement.posterior.laplace import best_attempt, cholesky, resampled_rows
from inference.measurement.posterior.law import Rows
from inference.measurement.posterior.pieces import total
from inference.measurement.posterior.scales import Quadratic
from inference.measurement.references.anchors import unbatched
from inference.measurement.tasks import law
from inference.measurement.tasks.climb import TaskMode, restored
from inference.measurement.tasks.law import TaskUnknowns
from inference.measurement.tasks.prior import TaskPrior, log_prior, mean_factors, neither_slope
from inference.measurement.tasks.references import TaskModes
from inference.measurement.tasks.scales import TaskScales

# Shapes of a Beta law together: at least, and above which its logit is as good as Gaussian.
_LEAST_COUNT, _MOST_COUNT = 1e-2, 1e5

# Unknowns of which the proposals are as wide as `ATTEMPTS` says.
_UNKNOWNS = 30

# Samples of neither task below which the share of these is proposed down to none.
_FEW = 6.0

# Steps by which the chances of having moved are made the same under all draws of the modes.
_RAKINGS = 10


class TaskDraws(NamedTuple):
    """Draws of a checkpoint's posterior, equally weighted, J for each of R draws of the modes.

    Attributes:
        unknowns: batch (R, J) of `TaskUnknowns`; where `across` has added to them, of all coordinates.
        scales: (τ_a, τ_p) of every mode, 0 where it has not moved, shape (R, J, K, 2).
        k_hat: Pareto shape of the importance weights.
        efficiency: effective sample size of the weights over their number.
        neither_beside: covariance of what belongs to neither task beside the discriminants, or None where
            `across` has not added it.
    """

    unknowns: TaskUnknowns
    scales: Float[np.ndarray, "R J K 2"]
    k_hat: float
    efficiency: float
    neither_beside: Float[np.ndarray, "p p"] | None = None


def draw(
    modes: TaskModes,
    prior: TaskPrior,
    rows: Iterable[Rows],
    scales: TaskScales,
    found: TaskMode,
    *,
    num: int,
    rng: np.random.Generator,
) -> TaskDraws:
    """Return draws of the posterior by importance resampling from the approximation around the modes.

    Arguments as those of `posterior.laplace.draw`; ``found`` are the posterior modes under the draws.
    """
    one, count = unbatched(modes), len(modes.means)
    # With more unknowns the same excess of width would spread the weights wider.
    excess = min(1.0, np.sqrt(_UNKNOWNS / found.quadratic.flat.shape[1]))

    def attempt(width: float, times: int, chances: np.ndarray | None) -> tuple[TaskDraws, np.ndarray]:
        width = 1.0 + (width - 1.0) * excess
        drawn = scales.propose(count * times * num, rng, chances)
        tau, moved, log_odds = (a.reshape(count, times * num, *a.shape[1:]) for a in drawn)
        factors = mean_factors(one, tau[..., 0])
        parts = [
            _propose(one, Quadratic(*(a[r] for a in found.quadratic)), factors[r], found.base, rng, width)
            for r in range(count)
        ]
        flat, log_q = (np.stack(part) for part in zip(*parts, strict=True))
        unknowns = restored(flat, found.base, one.means.shape)
        log_p = log_prior(one, prior, unknowns, factors)
        log_likelihood = total(lambda piece: law.log_likelihoods(modes, unknowns, piece), rows)
        log_weight = np.asarray(log_likelihood) + log_p - log_q + log_odds
        log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
        if not np.isfinite(log_weight).any(axis=1).all():
            kept = jax.tree.map(lambda part: part[:, :num], unknowns)
            return TaskDraws(kept, tau[:, :num], np.inf, 0.0), scales.moved
        shared, chances = _shared_odds(log_weight, moved)
        taken, k_hat, efficiency = resampled_rows(shared, num, rng)
        kept = jax.tree.map(lambda part: part[taken], unknowns)
        return TaskDraws(kept, tau[taken], k_hat, efficiency), chances

    return best_attempt(attempt)


def _shared_odds(
    log_weight: Float[np.ndarray, "R P"], moved: Bool[np.ndarray, "R P K"]
) -> tuple[Float[np.ndarray, "R P"], Float[np.ndarray, "K"]]:
    """Return log weights by which each draw of the modes counts alike, and chances of having moved.

    Whether a mode has moved is judged under all draws of the modes together, each by its evidence, as in
    `posterior.laplace`: the weights under every draw are raked to the chances so found, mode by mode.
    """
    together = special.softmax(log_weight)
    chances = np.einsum("rp,rpk->k", together, moved)
    found = log_weight - special.logsumexp(log_weight, axis=1, keepdims=True)
    for _ in range(_RAKINGS):
        for k, chance in enumerate(chances):
            here = np.einsum("rp,rp->r", np.exp(found), moved[..., k])
            # A draw under which all or none has moved cannot be raked.
            can = (here > 0.0) & (here < 1.0) & (0.0 < chance < 1.0)
            safe = np.where(can, here, 0.5)
            target = chance if 0.0 < chance < 1.0 else 0.5
            ratios = np.log(np.stack([(1.0 - target) / (1.0 - safe), target / safe], axis=1))
            change = np.where(moved[..., k], ratios[:, 1:], ratios[:, :1])
            found = found + np.where(can[:, None], change, 0.0)
            found = found - special.logsumexp(found, axis=1, keepdims=True)
    return found, chances


def _propose(
    modes: TaskModes,
    quadratic: Quadratic,
    factors: Float[np.ndarray, "P K q q"],
    base: int,
    rng: np.random.Generator,
    width: float,
) -> tuple[Float[np.ndarray, "P D"], Float[np.ndarray, "P"]]:
    """Draw the unknowns given scales; return them and their log density up to a constant.

    Args:
        modes: one draw, unbatched.
        quadratic: under it, unbatched.
        factors: Cholesky factors of V + T of every mode.
        base: the task whose logit is 0.
        rng: of all that is random.
        width: how much wider than the quadratic says the unknowns are drawn.
    """
    num, q = modes.means.shape
    # Other logits, then unknowns of the component for neither task, if there is one, then means.
    others = quadratic.flat.shape[0] - num * q
    free = num - 1 if others == num - 1 else num
    third, size, count = others - free, quadratic.flat.shape[0] - free, len(factors)
    # The weights are put last: the factor of the rest and their marginal then lie in one triangle.
    likelihood = quadratic.likelihood[free:, free:]
    precision = np.repeat(np.roll(quadratic.precision, -free, (0, 1))[None], count, axis=0)
    slope = np.repeat(np.roll(quadratic.slope, -free)[None], count, axis=0)
    inverses = np.linalg.inv(factors @ np.swapaxes(factors, -1, -2))
    away = quadratic.flat[others:].reshape(num, q) - modes.means
    for k in range(num):
        place = slice(third + k * q, third + (k + 1) * q)
        precision[:, place, place] += inverses[:, k]
        slope[:, place] -= inverses[:, k] @ away[k]
    rest = precision[:, :size, :size].copy()
    factor = cholesky(precision)
    u = _solved(factor, slope)
    corner = np.linalg.inv(factor[:, size:, size:])
    covariance = np.swapaxes(corner, 1, 2) @ corner
    centre = quadratic.flat[:free] + np.einsum("pji,pj->pi", corner, u[:, size:])
    spread = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    correlation = covariance / spread[:, :, None] / spread[:, None, :]
    wide = spread.copy()
    if third:
        # As many samples as the share of neither is worth: few are none as well, at any mean and scale.
        worth = 1.0 / (spread[:, -1] ** 2 * special.expit(-np.clip(centre[:, -1], -30.0, 30.0)))
        wide[:, -1] *= np.sqrt(worth / np.minimum(worth, np.maximum(1.0, 2.0 * worth - _FEW)))
    logits, log_q = copula(centre, wide, correlation, width, rng)
    # The rest given the weights: samples of a mode are as many as its weight says.
    shift = np.clip(
        logits - quadratic.flat[:free],
        centre - quadratic.flat[:free] - 4.0 * spread,
        centre - quadratic.flat[:free] + 4.0 * spread,
    )
    pulled = u[:, :size] - np.einsum("pam,pa->pm", factor[:, size:, :size], shift)
    mean = _solved(factor[:, :size, :size], pulled, transposed=True)
    ratios = law.log_shares(np.insert(logits, base, 0.0, axis=-1)) - law.log_shares(
        np.insert(quadratic.flat[:free], base, 0.0)
    )
    held = np.clip(np.exp(ratios), 0.2, 5.0)
    sizes = [q] * num
    if third:
        # In the order of the unknowns, of which those of neither task come first. It may hold nothing: then
        # its prior alone says where it is.
        held, sizes = np.roll(held, 1, axis=-1), [third, *sizes]
        held[:, 0] = np.clip(np.exp(ratios[:, -1]), 1e-6, 5.0)
    root = np.repeat(np.sqrt(held), sizes, axis=-1)
    conditional = rest - likelihood + root[:, :, None] * likelihood * root[:, None, :]
    factor = cholesky(conditional) / width
    z = rng.standard_normal((count, size))
    drawn = _solved(factor, z, transposed=True)
    if third:
        pulled = (1.0 - held[:, :1]) * neither_slope(modes, quadratic.flat[free:others])
        centred = np.linalg.solve(conditional[:, :third, :third], pulled[..., None])[..., 0]
        # What is linear in the logits is right near the mode.
        centred = np.where(held[:, :1] < 0.2, centred, mean[:, :third])
        mean = np.concatenate([centred, mean[:, third:]], axis=1)
    log_q += np.sum(np.log(np.diagonal(factor, axis1=1, axis2=2)), axis=1) - 0.5 * np.sum(z * z, axis=1)
    return np.column_stack([logits, quadratic.flat[free:] + mean + drawn]), log_q


def _solved(
    lower: Float[np.ndarray, "P D D"], right: Float[np.ndarray, "P D"], *, transposed: bool = False
) -> Float[np.ndarray, "P D"]:
    """Solve batches of triangular systems."""
    found = triangular_solve(lower, right[..., None], left_side=True, lower=True, transpose_a=transposed)
    return np.asarray(found)[..., 0]


def copula(
    mode: Float[np.ndarray, "P a"],
    spread: Float[np.ndarray, "P a"],
    correlation: Float[np.ndarray, "P a a"],
    width: float,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "P a"], Float[np.ndarray, "P"]]:
    """Draw logits with marginals that are logits of Beta laws of these modes and spreads; return log density.

    Args:
        mode: of the marginals.
        spread: curvature of their log densities at the mode, to the power of -1/2.
        correlation: of the normal variables that they are made of.
        width: how much wider they are drawn.
        rng: of the draws.
    """
    factor = cholesky(correlation)
    e = rng.standard_normal(mode.shape)
    z = np.clip(np.einsum("pij,pj->pi", factor, e), -7.0, 7.0)
    log_q = -0.5 * np.sum(e * e, axis=1) - np.sum(np.log(np.diagonal(factor, axis1=1, axis2=2)), axis=1)
    log_q += 0.5 * np.sum(z * z, axis=1)
    share = special.expit(np.clip(mode, -30.0, 30.0))
    count = np.maximum(1.0 / ((width * spread) ** 2 * share * (1.0 - share)), _LEAST_COUNT)
    a, b = count * share, count * (1.0 - share)
    # Both parts by themselves, so that the smaller is not rounded.
    part = np.maximum(special.betaincinv(a, b, special.ndtr(z)), 1e-300)
    rest = np.maximum(special.betaincinv(b, a, special.ndtr(-z)), 1e-300)
    skewed = np.log(part) - np.log(rest)
    of_skewed = -a * np.logaddexp(0.0, -skewed) - b * np.logaddexp(0.0, skewed) - special.betaln(a, b)
    straight = mode + width * spread * z
    of_straight = -0.5 * z * z - np.log(width * spread) - 0.5 * np.log(2.0 * np.pi)
    is_skewed = count < _MOST_COUNT
    log_q += np.sum(np.where(is_skewed, of_skewed, of_straight), axis=1)
    return np.where(is_skewed, skewed, straight), log_q
