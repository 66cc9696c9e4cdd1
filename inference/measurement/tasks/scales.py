"""Which modes have moved and by what scales: proposed mode by mode, by the quadratic around the mode.

Given the scales the posterior of the means is Gaussian. What a mode's own scale explains of the likelihood
is a closed form once the other modes' precisions are replaced by their means under their own scales (mean
field). It only proposes: every draw is weighted by the evidence of all its scales together.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import special

from inference.measurement.posterior.prior import STILL_PROBABILITY, scale_grid
from inference.measurement.posterior.scales import Quadratic, means_quadratic
from inference.measurement.tasks.prior import TaskPrior
from inference.measurement.tasks.references import TaskModes

# A little of the prior keeps the proposal from missing what the quadratic misses.
_OF_PRIOR, _OF_ANY = 0.05, 0.1

_ROUNDS = 5


class Beside(NamedTuple):
    """What is known of the means beside the discriminants, its mean over the p coordinates.

    Attributes:
        precision: of all means in a coordinate, shape (K, K).
        products: Σ g gᵀ over coordinates, g precision times estimate less the references', shape (K, K).
        noise: variance of a coordinate of the reference means, shape (K,).
        num: p.
    """

    precision: Float[np.ndarray, "K K"]
    products: Float[np.ndarray, "K K"]
    noise: Float[np.ndarray, "K"]
    num: int

    def log_evidence(self, scales: Float[np.ndarray, "n K"]) -> Float[np.ndarray, "n"]:
        """Return the log evidence of every mode's τ_p."""
        spread = (self.noise + scales**2)[:, :, None] * np.eye(len(self.noise))
        factor = np.eye(len(self.noise)) + self.precision @ spread
        explained = np.trace(spread @ np.linalg.solve(factor, self.products[None]), axis1=1, axis2=2)
        result: np.ndarray = 0.5 * explained - 0.5 * self.num * np.linalg.slogdet(factor)[1]
        return result


class TaskScales(NamedTuple):
    """Probabilities by which scales are proposed.

    Attributes:
        tau: the grid of what has moved, shape (g,).
        prior: log probabilities of τ_a and τ_p on it, shape (2, g).
        moved: probability that a mode has moved, shape (K,).
        given: of τ_a and τ_p of a mode that has moved, shape (K, 2, g).
        beside: what is known beside the discriminants, or None where there are no coordinates.
    """

    tau: Float[np.ndarray, "g"]
    prior: Float[np.ndarray, "2 g"]
    moved: Float[np.ndarray, "K"]
    given: Float[np.ndarray, "K 2 g"]
    beside: Beside | None

    @property
    def typical(self) -> Float[np.ndarray, "K"]:
        """The geometric mean of τ_a of every mode, were it to have moved."""
        result: np.ndarray = np.exp(self.given[:, 0] @ np.log(self.tau))
        return result

    def propose(
        self, num: int, rng: np.random.Generator, moved: Float[np.ndarray, "K"] | None = None
    ) -> tuple[Float[np.ndarray, "n K 2"], Bool[np.ndarray, "n K"], Float[np.ndarray, "n"]]:
        """Draw (τ_a, τ_p) of every mode and which have moved; return also log prior over log proposal.

        Args:
            num: of draws.
            rng: of all that is random.
            moved: probability that a mode has moved, None for what the quadratic says.
        """
        chances = (1.0 - _OF_ANY) * (self.moved if moved is None else moved) + 0.5 * _OF_ANY
        has = rng.uniform(size=(num, len(chances))) < chances
        log_odds = np.where(
            has, np.log((1.0 - STILL_PROBABILITY) / chances), np.log(STILL_PROBABILITY / (1.0 - chances))
        ).sum(axis=1)
        scales = np.zeros((num, len(chances), 2))
        for k, given in enumerate(self.given):
            rows = np.flatnonzero(has[:, k])
            for part in (0, 1):
                proposal = (1.0 - _OF_PRIOR) * given[part] + _OF_PRIOR * np.exp(self.prior[part])
                place = rng.choice(len(self.tau), size=len(rows), p=proposal / proposal.sum())
                scales[rows, k, part] = self.tau[place]
                log_odds[rows] += self.prior[part][place] - np.log(proposal[place])
        if self.beside is not None:
            log_odds += self.beside.log_evidence(scales[:, :, 1])
        return scales, has, log_odds


def scales_of(
    modes: TaskModes, prior: TaskPrior, quadratic: Quadratic, beside: Beside | None = None
) -> TaskScales:
    """Return by what scales are proposed.

    Args:
        modes: the modes at the references, unbatched.
        prior: the numbers of the prior.
        quadratic: a batch of 1, its means last.
        beside: what is known of the means beside the discriminants.
    """
    tau, log_probability = scale_grid(prior.of_scales)
    num, q = modes.means.shape
    places = np.arange(quadratic.flat.shape[1] - num * q, quadratic.flat.shape[1])
    h, g = means_quadratic(quadratic, places, np.ravel(modes.means))
    h, g = h.reshape(num, q, num, q), g.reshape(num, q)
    grid = np.concatenate([[0.0], tau])
    # V + T and its inverse at every value of the grid.
    spreads = np.asarray(modes.mean_covariances)[:, None] + grid[:, None, None] ** 2 * np.eye(q)
    inverses = np.linalg.inv(spreads)
    weights = np.full((num, len(grid)), 1.0 / len(grid))
    beside_weights = weights.copy()
    moved, given = np.full(num, 0.5), np.zeros((num, 2, len(tau)))
    for _ in range(_ROUNDS):
        for k in range(num):
            others = np.delete(np.arange(num), k)
            precisions = np.einsum("og,ogij->oij", weights[others], inverses[others])
            along = _log_evidence(*_given_others(h, g, k, precisions), spreads[k])
            across = np.zeros(len(grid))
            if beside is not None:
                variances = beside.noise[:, None] + grid**2
                across = _beside_evidence(beside, k, np.sum(beside_weights / variances, axis=1), variances[k])
            logs = np.stack([along, across])
            joint = log_probability + logs[:, 1:]
            mass = special.logsumexp(joint, axis=1)
            odds = np.log((1.0 - STILL_PROBABILITY) / STILL_PROBABILITY) + np.sum(mass - logs[:, 0])
            moved[k], given[k] = special.expit(odds), np.exp(joint - mass[:, None])
            weights[k], beside_weights[k] = (
                np.append(1.0 - moved[k], moved[k] * given[k, part]) for part in (0, 1)
            )
    return TaskScales(tau, log_probability, moved, given, beside)


def _given_others(
    h: Float[np.ndarray, "K q K q"],
    g: Float[np.ndarray, "K q"],
    k: int,
    precisions: Float[np.ndarray, "o q q"],
) -> tuple[Float[np.ndarray, "q q"], Float[np.ndarray, "q"]]:
    """Return precision and linear term of one mode's mean, the others' integrated under their precisions."""
    num, q = g.shape
    others = np.delete(np.arange(num), k)
    matrix = h[others][:, :, others].copy()
    for place, precision in enumerate(precisions):
        matrix[place, :, place] += precision
    size = len(others) * q
    coupling = h[k][:, others].reshape(q, size)
    inner = np.linalg.solve(
        matrix.reshape(size, size), np.column_stack([coupling.T, g[others].reshape(size)])
    )
    return h[k, :, k] - coupling @ inner[:, :-1], g[k] - coupling @ inner[:, -1]


def _log_evidence(
    h: Float[np.ndarray, "q q"], g: Float[np.ndarray, "q"], spreads: Float[np.ndarray, "g q q"]
) -> Float[np.ndarray, "g"]:
    """Return the log evidence of a mode's T, with V + T given."""
    factor = np.eye(len(g)) + h @ spreads
    sign, volume = np.linalg.slogdet(factor)
    if not np.all(sign > 0.0):
        raise np.linalg.LinAlgError("No scale of displacement has a posterior")
    explained = np.einsum(
        "i,gij,gj->g", g, spreads, np.linalg.solve(factor, np.tile(g[:, None], (len(spreads), 1, 1)))[..., 0]
    )
    result: np.ndarray = 0.5 * explained - 0.5 * volume
    return result


def _beside_evidence(
    beside: Beside, k: int, precisions: Float[np.ndarray, "K"], variances: Float[np.ndarray, "g"]
) -> Float[np.ndarray, "g"]:
    """Return the log evidence of one mode's τ_p, with the variance of a coordinate of its mean given."""
    others = np.delete(np.arange(len(precisions)), k)
    matrix = beside.precision[np.ix_(others, others)] + np.diag(precisions[others])
    weights = np.zeros(len(precisions))
    weights[k], weights[others] = 1.0, -np.linalg.solve(matrix, beside.precision[others, k])
    h = float(beside.precision[k] @ weights)
    squared = float(weights @ beside.products @ weights)
    factor = 1.0 + h * variances
    result: np.ndarray = 0.5 * variances / factor * squared - 0.5 * beside.num * np.log(factor)
    return result
