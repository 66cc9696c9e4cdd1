"""The fast path: a Laplace approximation under every draw of the anchors, corrected by importance.

The log-likelihood is replaced by its quadratic at the posterior mode. Scales of displacement, and whether a
mode has moved at all, are drawn from their closed form on a grid, then the weight from the Beta law of equal
mode and curvature, then the means given the weight with a precision in proportion to it. Every draw is
weighted by its exact posterior density over that of the proposal, smoothed by a generalised Pareto fit to the
largest weights, whose shape k̂ says whether the draws can be trusted (Vehtari et al., arXiv:1507.02646).
Derivation: docs/measurement-model.md.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import jax
import numpy as np
from arviz_stats.base import array_stats
from jaxtyping import Float
from scipy import special

from inference.measurement.posterior import law
from inference.measurement.posterior.climb import Modes, mean_factors, restored
from inference.measurement.posterior.law import Seen, Unknowns
from inference.measurement.posterior.pieces import total
from inference.measurement.posterior.prior import Prior, log_prior, mean_covariance
from inference.measurement.posterior.scales import CONFIGURATIONS, Quadratic, ScalePosterior
from inference.measurement.references.anchors import Anchors, unbatched

#: Above this k̂ the importance weights have no useful mean.
MOST_K_HAT = 0.7

_SIGNS = np.array([-1.0, 1.0])

#: How much wider than the quadratic says the unknowns are proposed, and how many proposals there are a draw:
#: at first, and where k̂ was too large.
ATTEMPTS = ((1.1, 2), (1.15, 4), (1.25, 4))


# Standard deviation that a score of prompts is proposed with, unless that is more than twice its own.
_SCORE_SPREAD = 0.7


class Draws(NamedTuple):
    """Draws of a checkpoint's posterior in the frame, equally weighted, J for each of R draws of the anchors.

    Attributes:
        unknowns: batch (R, J) of `Unknowns`.
        scales: (τ_a, τ_p) of the old and of the new mode, 0 where it has not moved, shape (R, J, 2, 2).
        k_hat: Pareto shape of the importance weights, NaN where there were none.
        efficiency: effective sample size of the weights over their number.
    """

    unknowns: Unknowns
    scales: Float[np.ndarray, "R J 2 2"]
    k_hat: float
    efficiency: float


def draw(
    anchors: Anchors,
    prior: Prior,
    rows: Iterable[Seen],
    scales: ScalePosterior,
    modes: Modes,
    *,
    neither: bool,
    num: int,
    rng: np.random.Generator,
) -> Draws:
    """Return draws of the posterior by importance resampling from the approximation around the modes.

    Args:
        anchors: R draws of them.
        prior: the numbers of the prior.
        rows: the samples.
        scales: the posterior of the scales around the central mode, by which they are proposed.
        modes: under the draws of the anchors.
        neither: whether there is a third component.
        num: draws for each draw of the anchors.
        rng: of all that is random.
    """
    one = unbatched(anchors)
    start = law.start_of(one, 0.0, neither)
    count, quadratics = len(modes.flat), _of_scores(modes.quadratic(anchors), start)

    def attempt(width: float, times: int, shares: np.ndarray | None) -> tuple[Draws, np.ndarray]:
        drawn = scales.propose(count * times * num, rng, shares)
        tau, moved, log_odds = (a.reshape(count, times * num, *a.shape[1:]) for a in drawn)
        parts = [
            _propose_unknowns(one, Quadratic(*(a[r] for a in quadratics)), tau[r], rng, width)
            for r in range(count)
        ]
        flat, log_q = (np.stack(part) for part in zip(*parts, strict=True))
        unknowns = restored(start, flat)
        log_p = log_prior(one, prior, unknowns, mean_factors(anchors, tau))
        log_likelihood = total(lambda piece: law.log_likelihoods(anchors, unknowns, piece), rows)
        log_weight = np.asarray(log_likelihood) + np.asarray(log_p) - log_q + log_odds
        log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
        if not np.isfinite(log_weight).any(axis=1).all():
            kept = jax.tree.map(lambda a: np.asarray(a)[:, :num], unknowns)
            return Draws(kept, tau[:, :num], np.inf, 0.0), np.full(len(CONFIGURATIONS), 0.25)
        shared, shares = _shared_odds(log_weight, moved)
        taken, k_hat, efficiency = resampled_rows(shared, num, rng)
        kept = jax.tree.map(lambda a: np.asarray(a)[taken], unknowns)
        return Draws(kept, tau[taken], k_hat, efficiency), shares

    return best_attempt(attempt)


class Judged(Protocol):
    """Draws with the Pareto shape of their importance weights."""

    @property
    def k_hat(self) -> float:
        """The shape."""


def best_attempt[Found: Judged](
    attempt: Callable[[float, int, np.ndarray | None], tuple[Found, np.ndarray]],
) -> Found:
    """Return the draws of the first of `ATTEMPTS` that can be trusted, else those of the least k̂.

    Args:
        attempt: returns draws, and the chances of what has moved by which the next one proposes, given width,
            proposals a draw, and the chances by the one before.
    """
    found, chances = attempt(*ATTEMPTS[0], None)
    for width, times in ATTEMPTS[1:]:
        if found.k_hat <= MOST_K_HAT:
            break
        tried, chances = attempt(width, times, chances)
        found = min(found, tried, key=lambda draws: draws.k_hat)
    return found


def _of_scores(quadratic: Quadratic, start: Unknowns) -> Quadratic:
    """Widen the scores of prompts, the last two unknowns.

    Toward no spread and no shift a likelihood is flat, and the tail is that of the prior, where a score has
    standard deviation 1: what is narrow is proposed up to twice as wide.
    """
    if start.prompts is None:
        return quadratic
    spread = 1.0 / np.sqrt(np.maximum(np.diagonal(quadratic.precision, axis1=1, axis2=2)[:, -2:], 1e-6))
    wider = np.maximum(1.2 * spread, np.minimum(_SCORE_SPREAD, 2.0 * spread))
    root = np.ones(quadratic.flat.shape)
    root[:, -2:] = spread / wider
    both = root[:, :, None] * root[:, None, :]
    return quadratic._replace(
        slope=root * quadratic.slope,
        precision=both * quadratic.precision,
        likelihood=both * quadratic.likelihood,
    )


def _shared_odds(
    log_weight: Float[np.ndarray, "R P"], moved: Float[np.ndarray, "R P"]
) -> tuple[Float[np.ndarray, "R P"], Float[np.ndarray, "configuration"]]:
    """Return log weights by which each draw of the anchors counts alike, and what has moved with what chance.

    Whether a mode has moved is judged under all draws of the anchors together, each by its evidence: under
    one alone, which is never quite right, many samples would say that everything has moved.
    """
    count = len(CONFIGURATIONS)
    mass = np.full((len(log_weight), count), -np.inf)
    for z in range(count):
        masked = np.where(moved == z, log_weight, -np.inf)
        top = masked.max(axis=1)
        seen = np.isfinite(top)
        mass[seen, z] = top[seen] + np.log(np.exp(masked[seen] - top[seen, None]).sum(axis=1))
    evidence = special.logsumexp(mass, axis=0)
    evidence -= special.logsumexp(evidence)
    rows = np.arange(len(log_weight))[:, None]
    with np.errstate(invalid="ignore"):
        found = log_weight + np.where(np.isfinite(mass), evidence - mass, -np.inf)[rows, moved]
    found = np.where(np.isfinite(found), found, -np.inf)
    return found - special.logsumexp(found, axis=1, keepdims=True), np.exp(evidence)


def smoothed(log_weight: Float[np.ndarray, "R P"]) -> tuple[Float[np.ndarray, "R P"], float]:
    """Return log weights whose largest are smoothed by a Pareto law, and its shape k̂."""
    floor = log_weight[np.isfinite(log_weight)].min()
    # Draws that are each the only one of their configuration under their anchors weigh alike: rounding must
    # not rank them.
    log_weight = np.round(log_weight, 8)
    # It takes what has to be negated, as a log-likelihood has for leave-one-out.
    found, k_hat = array_stats.psislw(log_weight.max() - np.maximum(log_weight, floor).ravel())
    return np.asarray(found).reshape(log_weight.shape), float(k_hat)


def resampled_rows(
    log_weight: Float[np.ndarray, "R P"], num: int, rng: np.random.Generator
) -> tuple[tuple[np.ndarray, np.ndarray], float, float]:
    """Return places (r, p) of ``num`` draws a row by smoothed weights, and k̂ and efficiency of these."""
    log_shares, k_hat = smoothed(log_weight)
    weight = special.softmax(log_shares, axis=1)
    count = len(weight)
    chosen = np.stack([resampled(w, num, rng) for w in weight])
    efficiency = float(1.0 / np.sum((weight / count) ** 2) / weight.size)
    return (np.arange(count)[:, None], chosen), k_hat, efficiency


def resampled(weight: Float[np.ndarray, "P"], num: int, rng: np.random.Generator) -> np.ndarray:
    """Return places by systematic resampling, shuffled."""
    places = (np.arange(num) + rng.uniform()) / num
    return rng.permutation(np.minimum(np.searchsorted(np.cumsum(weight), places), len(weight) - 1))


def _propose_unknowns(
    anchors: Anchors,
    quadratic: Quadratic,
    scales: Float[np.ndarray, "P 2 2"],
    rng: np.random.Generator,
    width: float,
) -> tuple[Float[np.ndarray, "P D"], Float[np.ndarray, "P"]]:
    """Draw the unknowns given scales; return them and their log density.

    Args:
        anchors: one draw, unbatched.
        quadratic: under it, unbatched.
        scales: (τ_a, τ_p) of both modes.
        rng: of all that is random.
        width: how much wider than the quadratic says the unknowns are drawn.
    """
    precision, slope = _given_scales(anchors, quadratic, scales)
    factor = cholesky(precision)
    u = np.linalg.solve(factor, slope[..., None])[..., 0]
    spread = 1.0 / factor[:, -1, -1]
    centre = quadratic.flat[0] + spread * u[:, -1]
    logit, log_q_logit = _propose_logit(centre, width * spread, rng)
    # The mean of the rest given the weight is linear in the logit, which the quadratic knows near its mode.
    limits = (centre - quadratic.flat[0])[:, None] + 4.0 * spread[:, None] * _SIGNS
    shift = np.clip(logit - quadratic.flat[0], limits[:, 0], limits[:, 1])
    pulled = u[:, :-1] - factor[:, -1, :-1] * shift[:, None]
    mean = np.linalg.solve(np.swapaxes(factor[:, :-1, :-1], 1, 2), pulled[..., None])[..., 0]
    conditional = _precision_given_weight(quadratic, precision[:, :-1, :-1], logit, anchors.means.shape[1])
    away, log_q_rest = _propose_gaussian(cholesky(conditional) / width, rng)
    return np.column_stack([logit, quadratic.flat[1:] + mean + away]), log_q_logit + log_q_rest


def _given_scales(
    anchors: Anchors, quadratic: Quadratic, scales: Float[np.ndarray, "P 2 2"]
) -> tuple[Float[np.ndarray, "P D D"], Float[np.ndarray, "P D"]]:
    """Return precision and slope of the log posterior given scales: the likelihood's and the displacements'.

    The weight is put last: the factor of the rest and the weight's marginal then lie in one triangle.
    """
    d, num = anchors.means.shape[1], len(scales)
    precision = np.repeat(np.roll(quadratic.precision, -1, (0, 1))[None], num, axis=0)
    slope = np.repeat(np.roll(quadratic.slope, -1)[None], num, axis=0)
    for k in (0, 1):
        place = slice(k * d, (k + 1) * d)
        inverse = np.linalg.inv(mean_covariance(anchors, k, scales[:, k]))
        precision[:, place, place] += inverse
        slope[:, place] -= inverse @ (quadratic.flat[1 + k * d : 1 + (k + 1) * d] - anchors.means[k])
    return precision, slope


def _propose_logit(
    centre: Float[np.ndarray, "P"], spread: Float[np.ndarray, "P"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P"]]:
    """Draw the weight from the Beta law whose logit has a mode and a curvature; return it and its density.

    Args:
        centre: mode of the logit.
        spread: curvature of its log density there, to the power of -1/2.
        rng: of the draws.
    """
    share = special.expit(np.clip(centre, -30.0, 30.0))
    count = np.maximum(1.0 / (spread**2 * share * (1.0 - share)), 1e-3)
    shapes = count[:, None] * np.stack([share, 1.0 - share], axis=-1)
    logit = np.clip(np.subtract(*_log_gamma(shapes, rng).T), -600.0, 600.0)
    log_q = -shapes[:, 0] * np.logaddexp(0.0, -logit) - shapes[:, 1] * np.logaddexp(0.0, logit)
    return logit, log_q - special.betaln(shapes[:, 0], shapes[:, 1])


def _precision_given_weight(
    quadratic: Quadratic, rest: Float[np.ndarray, "P D-1 D-1"], logit: Float[np.ndarray, "P"], d: int
) -> Float[np.ndarray, "P D-1 D-1"]:
    """Return the precision of all but the weight, given it: samples of a mode are as many as it says."""
    likelihood = quadratic.likelihood[1:, 1:]
    log_ratios = np.stack(
        [np.logaddexp(0.0, -s * quadratic.flat[0]) - np.logaddexp(0.0, -s * logit) for s in (1.0, -1.0)],
        axis=-1,
    )
    root = np.ones(rest.shape[:2])
    root[:, : 2 * d] = np.repeat(np.sqrt(np.clip(np.exp(log_ratios), 0.2, 5.0)), d, axis=-1)
    return rest - likelihood + root[:, :, None] * likelihood * root[:, None, :]


def _propose_gaussian(
    factor: Float[np.ndarray, "P D D"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "P D"], Float[np.ndarray, "P"]]:
    """Draw from N(0, (L Lᵀ)⁻¹); return the draws and their log density but for a constant."""
    z = rng.standard_normal(factor.shape[:2])
    away = np.linalg.solve(np.swapaxes(factor, 1, 2), z[..., None])[..., 0]
    log_volume = np.sum(np.log(np.diagonal(factor, axis1=1, axis2=2)), axis=1)
    return away, log_volume - 0.5 * np.sum(z * z, axis=1)


def cholesky(precision: Float[np.ndarray, "P D D"]) -> Float[np.ndarray, "P D D"]:
    """Return Cholesky factors, NaN where a matrix is not positive definite."""
    try:
        return np.linalg.cholesky(precision)
    except np.linalg.LinAlgError:
        definite = np.linalg.eigvalsh(precision)[:, 0] > 0.0
        found = np.full(precision.shape, np.nan)
        found[definite] = np.linalg.cholesky(precision[definite])
        return found


def _log_gamma(shapes: Float[np.ndarray, "P 2"], rng: np.random.Generator) -> Float[np.ndarray, "P 2"]:
    """Return logs of gamma variables, by Γ(a) = Γ(a + 1) U^(1/a), which do not underflow at small a."""
    boosted = np.log(rng.standard_gamma(shapes + 1.0))
    result: np.ndarray = boosted - rng.standard_exponential(shapes.shape) / shapes
    return result
