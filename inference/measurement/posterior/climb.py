"""The posterior mode of a checkpoint's unknowns given scales of displacement, by Newton steps.

A batch of draws of the anchors is climbed at once: every pass over the rows serves them all.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from scipy import special

from inference.measurement.posterior import law
from inference.measurement.posterior.curvature import derivatives
from inference.measurement.posterior.law import Seen, Unknowns
from inference.measurement.posterior.pieces import total
from inference.measurement.posterior.prior import (
    Prior,
    log_prior,
    log_sides,
    mean_covariance,
    prior_derivatives,
)
from inference.measurement.posterior.scales import Quadratic, scale_posterior
from inference.measurement.references.anchors import Anchors, unbatched

_STEPS = 60

# Gain in log posterior of a further step below which a climb has arrived [nat]: of the central anchors, and
# of the draws, whose modes only place proposals.
_TOLERANCE, _TOLERANCE_OF_DRAWS = 1e-7, 1e-2

# Blocks of rows that are climbed before all are.
_FIRST_BLOCKS = 8


class Modes(NamedTuple):
    """Posterior modes given scales, one for each draw of the anchors, and the log-likelihood around them.

    Attributes:
        flat: raveled unknowns, shape (R, D).
        gradient: of the log-likelihood, shape (R, D).
        hessian: of the log-likelihood, shape (R, D, D).
        height: log posterior up to a constant, shape (R,).
        prior_gradient: shape (R, D).
        prior_hessian: shape (R, D, D).
        scales: (τ_a, τ_p) of the old and of the new mode, shape (2, 2).
        converged: shape (R,).
    """

    flat: Float[np.ndarray, "R D"]
    gradient: Float[np.ndarray, "R D"]
    hessian: Float[np.ndarray, "R D D"]
    height: Float[np.ndarray, "R"]
    prior_gradient: Float[np.ndarray, "R D"]
    prior_hessian: Float[np.ndarray, "R D D"]
    scales: Float[np.ndarray, "2 2"]
    converged: np.ndarray

    def quadratic(self, anchors: Anchors) -> Quadratic:
        """Return the log posterior around the modes without the Gaussian prior of the means."""
        d = anchors.means.shape[-1]
        likelihood = concave(-self.hessian)
        slope, precision = self.gradient + self.prior_gradient, likelihood - self.prior_hessian
        factors = mean_factors(anchors, self.scales)
        for k, factor in enumerate(factors):
            place = slice(1 + k * d, 1 + (k + 1) * d)
            inverse = np.linalg.inv(factor @ factor.T)
            slope[:, place] += (self.flat[:, place] - anchors.means[0, k]) @ inverse
            precision[:, place, place] -= inverse
        return Quadratic(self.flat, slope, precision, likelihood)


def find_mode(anchors: Anchors, prior: Prior, rows: Iterable[Seen], *, neither: bool) -> Modes:
    """Return the posterior mode that starts at the references, its scales fitted along.

    Many rows are first climbed by some of them: the steps are many there and few at the end. Where modes have
    moved far across the axis, the climb may end with each on the other's side of the middle: then it is
    climbed from there with the two exchanged as well, and the higher end is taken.

    Args:
        anchors: a batch of 1.
        prior: the numbers of the prior.
        rows: the samples.
        neither: whether there is a third component.
    """
    scales = np.full((2, 2), float(prior.displacement_scale))
    some = [jax.tree.map(lambda a: a[:_FIRST_BLOCKS], next(iter(rows)))]
    one = unbatched(anchors)
    start = law.start_of(one, _first_logit(one, some[0]), neither)
    flat = raveled(start)[None]
    for climbed in (some, rows):
        mode = _climb(anchors, prior, climbed, start, flat, scales, _TOLERANCE)
        if climbed is some:
            exchanged = _exchanged(one, mode.flat)
            if _sides(one, start, exchanged) > _sides(one, start, mode.flat):
                other = _climb(anchors, prior, climbed, start, exchanged, scales, _TOLERANCE)
                mode = max(mode, other, key=lambda found: found.height[0])
        flat = mode.flat
        scales = scale_posterior(one, prior, mode.quadratic(anchors)).typical
    return _climb(anchors, prior, rows, start, flat, scales, _TOLERANCE)


def modes_of_draws(
    anchors: Anchors, prior: Prior, rows: Iterable[Seen], central: Modes, *, neither: bool
) -> Modes:
    """Return the posterior modes under draws of the anchors, climbed from the central one."""
    start = law.start_of(unbatched(anchors), 0.0, neither)
    flat = np.repeat(central.flat, len(anchors.axis_precision), axis=0)
    return _climb(anchors, prior, rows, start, flat, central.scales, _TOLERANCE_OF_DRAWS)


def _first_logit(anchors: Anchors, rows: Seen) -> float:
    """Return the logit of the old share with the modes at the references, by EM steps."""
    y = np.asarray(rows.y).reshape(-1, rows.y.shape[-1])
    weights = np.ravel(rows.weights)
    odds, logit = log_odds(anchors, y), 0.0
    for _ in range(30):
        share = special.expit(odds + logit)
        logit = float(np.log(weights @ share + 1.0) - np.log(weights @ (1.0 - share) + 1.0))
    return logit


def log_odds(anchors: Anchors, y: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n"]:
    """Return log p_o(y) - log p_n(y) with the modes at the references."""
    start = law.start_of(anchors, 0.0, False)
    at = law.coordinates(anchors, start, law.Squares.of_rows(anchors, y))
    old, new = law.log_densities(anchors, law.Settled.of(start), at)
    return np.asarray(old - new)


def _climb(
    anchors: Anchors,
    prior: Prior,
    rows: Iterable[Seen],
    start: Unknowns,
    flat: Float[np.ndarray, "R D"],
    scales: Float[np.ndarray, "2 2"],
    tolerance: float,
) -> Modes:
    """Maximise likelihood times prior given the scales."""
    factors = mean_factors(anchors, scales)

    def evaluate(flat: np.ndarray) -> list[np.ndarray]:
        return _evaluate(anchors, prior, rows, start, flat, factors)

    flat, here, converged = newton(evaluate, flat, tolerance)
    return Modes(flat, here[1], here[2], here[0], here[3], here[4], scales, converged)


def newton(
    evaluate: Callable[[np.ndarray], list[np.ndarray]], flat: Float[np.ndarray, "R D"], tolerance: float
) -> tuple[Float[np.ndarray, "R D"], list[np.ndarray], np.ndarray]:
    """Climb a batch of log posteriors by Newton steps, damped where they fail.

    Args:
        evaluate: returns log posterior, gradient and Hessian of the log-likelihood, then of the log prior.
        flat: where to start.
        tolerance: gain of a further step below which a climb has arrived [nat].

    Returns:
        Where it ends, what `evaluate` returns there, and which climbs have arrived.
    """
    here = evaluate(flat)
    damping, converged = np.zeros(len(flat)), np.zeros(len(flat), bool)
    for _ in range(_STEPS):
        gradient, hessian = here[1] + here[3], here[2] + here[4]
        eigenvalues, vectors = np.linalg.eigh(-hessian)
        largest = np.abs(eigenvalues).max(axis=1)
        # A direction in which the posterior is not concave is climbed with the steepness it has.
        curvature = np.maximum(np.abs(eigenvalues), 1e-6 * largest[:, None]) + damping[:, None]
        slope = np.einsum("rij,ri->rj", vectors, gradient)
        step = np.einsum("rij,rj->ri", vectors, slope / curvature)
        gain = 0.5 * np.sum(slope**2 / curvature, axis=1)
        converged = (gain < tolerance) & (eigenvalues.min(axis=1) > 0.0)
        if converged.all():
            break
        step[converged] = 0.0
        tried = evaluate(flat + step)
        better = (tried[0] >= here[0]) & ~converged
        flat = np.where(better[:, None], flat + step, flat)
        here = [
            np.where(better.reshape(-1, *[1] * (a.ndim - 1)), b, a) for a, b in zip(here, tried, strict=True)
        ]
        damping = np.where(
            better,
            np.where(damping > 1e-3, damping / 4.0, 0.0),
            np.maximum(4.0 * damping, 0.05 * largest),
        )
    return flat, here, converged


def _evaluate(
    anchors: Anchors,
    prior: Prior,
    rows: Iterable[Seen],
    start: Unknowns,
    flat: np.ndarray,
    factors: np.ndarray,
) -> list[np.ndarray]:
    """Return the log posterior, and gradient and Hessian of the log-likelihood, then of the log prior."""
    unknowns = restored(start, flat)
    value, gradient, hessian = (
        np.asarray(part) for part in total(lambda piece: derivatives(anchors, unknowns, piece), rows)
    )
    one = unbatched(anchors)
    height = value + log_prior(one, prior, unknowns, factors)
    parts = [gradient, hessian, *prior_derivatives(one, prior, unknowns, factors)]
    finite = np.isfinite(height)
    for part in parts:
        finite &= np.isfinite(part).all(axis=tuple(range(1, part.ndim)))
    return [np.where(finite, height, -np.inf), *(np.nan_to_num(part) for part in parts)]


def mean_factors(anchors: Anchors, scales: Float[np.ndarray, "... 2 2"]) -> Float[np.ndarray, "2 ... d d"]:
    """Return the Cholesky factors of V + T of both modes; V is that of every draw of the anchors."""
    one = unbatched(anchors)
    return np.stack([np.linalg.cholesky(mean_covariance(one, k, scales[..., k, :])) for k in (0, 1)])


def concave(precision: Float[np.ndarray, "R D D"]) -> Float[np.ndarray, "R D D"]:
    """Return the nearest positive semidefinite matrices."""
    eigenvalues, vectors = np.linalg.eigh(precision)
    return np.asarray((vectors * np.maximum(eigenvalues, 0.0)[:, None, :]) @ np.swapaxes(vectors, 1, 2))


def _exchanged(anchors: Anchors, flat: np.ndarray) -> np.ndarray:
    """Return unknowns with the means of the two modes, and their shares, exchanged."""
    d = anchors.means.shape[1]
    return np.concatenate(
        [-flat[:, :1], flat[:, 1 + d : 1 + 2 * d], flat[:, 1 : 1 + d], flat[:, 1 + 2 * d :]], axis=1
    )


def _sides(anchors: Anchors, start: Unknowns, flat: np.ndarray) -> float:
    return float(log_sides(anchors, restored(start, flat[0])))


def restored(start: Unknowns, flat: Float[np.ndarray, "*batch D"]) -> Unknowns:
    """Return raveled unknowns as they were, each leaf with the axes of the batch first."""
    leaves, structure = jax.tree.flatten(start)
    ends = np.cumsum([np.size(leaf) for leaf in leaves])[:-1]
    parts = np.split(flat, ends, axis=-1)
    result: Unknowns = jax.tree.unflatten(
        structure,
        [
            np.reshape(part, (*flat.shape[:-1], *np.shape(leaf)))
            for part, leaf in zip(parts, leaves, strict=True)
        ],
    )
    return result


def raveled(unknowns: Unknowns) -> Float[np.ndarray, "D"]:
    """Return all numbers of some unknowns, one after the other."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(unknowns)])
