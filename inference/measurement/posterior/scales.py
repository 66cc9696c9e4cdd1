"""The posterior of the scales of displacement, and of *not moved*, by the quadratic around the mode.

Given the scales the posterior of the means is Gaussian, and what the scales explain of the likelihood is a
closed form, along the axis and across it. Across the axis the quadratic is replaced by its mean over
coordinates, which makes the evidence a product of equal factors. It only proposes: draws are weighted.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from inference.measurement.posterior.prior import STILL_PROBABILITY, Prior, scale_grid
from inference.measurement.references.anchors import Anchors

# A little of the prior keeps the proposal from missing what the quadratic misses.
_OF_PRIOR, _OF_ANY = 0.05, 0.1

#: Whether (old, new) have moved.
CONFIGURATIONS = ((False, False), (False, True), (True, False), (True, True))


class Quadratic(NamedTuple):
    """The log posterior around its modes, without the Gaussian prior of the means, whose scales vary.

    Attributes:
        flat: the modes, shape (R, D).
        slope: shape (R, D).
        precision: shape (R, D, D).
        likelihood: the samples' part of the precision, shape (R, D, D).
    """

    flat: Float[np.ndarray, "R D"]
    slope: Float[np.ndarray, "R D"]
    precision: Float[np.ndarray, "R D D"]
    likelihood: Float[np.ndarray, "R D D"]


class ScalePosterior(NamedTuple):
    """Probabilities of what has moved, and of the scales of what has.

    Attributes:
        tau: the grid, its first value 0 for what has not moved, shape (G,).
        prior: log probabilities on the grid of τ_a and of τ_p of what has moved, shape (2, G).
        evidence: log evidence of (τ of old, τ of new), along and across the axis, shape (2, G, G).
        outside: whether what is across the axis is no part of the rows' likelihood, so that its evidence
            weighs a draw by itself.
    """

    tau: Float[np.ndarray, "G"]
    prior: Float[np.ndarray, "2 G"]
    evidence: Float[np.ndarray, "2 G G"]
    outside: bool

    def _given(self, moved: tuple[bool, bool]) -> Float[np.ndarray, "2 G G"]:
        """Return log prior times evidence of the scales where these modes have moved."""
        still = np.where(np.arange(len(self.tau)) == 0, 0.0, -np.inf)
        old, new = (self.prior if m else np.stack([still, still]) for m in moved)
        result: np.ndarray = old[:, :, None] + new[:, None, :] + self.evidence
        return result

    @property
    def typical(self) -> Float[np.ndarray, "2 2"]:
        """The geometric means of (τ_a, τ_p) of both modes, were both to have moved."""
        log_tau = np.log(self.tau[1:])
        found = []
        for joint in self._given((True, True))[:, 1:, 1:]:
            grid = np.exp(joint - special.logsumexp(joint))
            found.append([np.exp(np.sum(grid.sum(axis=1 - k) * log_tau)) for k in (0, 1)])
        return np.array(found).T

    def propose(
        self, num: int, rng: np.random.Generator, shares: Float[np.ndarray, "configuration"] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw scales, shape (draw, 2, 2), and configurations; return also log prior over log proposal.

        Where what is across the axis is no part of the rows' likelihood, its evidence counts with the prior.

        Args:
            num: of draws.
            rng: of all that is random.
            shares: of the configurations, None for what the quadratic says.
        """
        given = [self._given(moved) for moved in CONFIGURATIONS]
        chances = np.array(
            [np.prod(np.where(moved, 1.0 - STILL_PROBABILITY, STILL_PROBABILITY)) for moved in CONFIGURATIONS]
        )
        if shares is None:
            logs = np.array([special.logsumexp(joint, axis=(1, 2)).sum() for joint in given])
            shares = special.softmax(logs + np.log(chances))
        probability = (1.0 - _OF_ANY) * shares + _OF_ANY / len(shares)
        picked = rng.choice(len(probability), size=num, p=probability)
        scales, log_odds = np.zeros((num, 2, 2)), np.log(chances / probability)[picked]
        for index in range(len(CONFIGURATIONS)):
            rows = np.flatnonzero(picked == index)
            for part in (0, 1):
                joint = given[index][part]
                prior = joint - self.evidence[part]
                proposal = (1.0 - _OF_PRIOR) * special.softmax(joint) + _OF_PRIOR * np.exp(prior)
                place = rng.choice(proposal.size, size=len(rows), p=proposal.ravel() / proposal.sum())
                places = np.unravel_index(place, proposal.shape)
                scales[rows, :, part] = self.tau[np.stack(places)].T
                log_odds[rows] += prior.ravel()[place] - np.log(proposal.ravel()[place])
                if part == 1 and self.outside:
                    log_odds[rows] += self.evidence[part].ravel()[place]
        return scales, picked, log_odds


class Gaussian(NamedTuple):
    """What is known of the means in some coordinates, its mean over these.

    Attributes:
        precision: of both means in a coordinate, shape (2, 2).
        linear: precision times estimate less the references', shape (2, p).
        noise: variance of a coordinate of the reference means, shape (2,).
    """

    precision: Float[np.ndarray, "2 2"]
    linear: Float[np.ndarray, "2 p"]
    noise: Float[np.ndarray, "2"]


def scale_posterior(
    anchors: Anchors, prior: Prior, quadratic: Quadratic, across: Gaussian | None = None
) -> ScalePosterior:
    """Return the posterior of the scales around one mode.

    Args:
        anchors: of that mode, unbatched.
        prior: the numbers of the prior.
        quadratic: a batch of 1.
        across: what is known of the means across the axis, where the quadratic does not hold them.
    """
    moved, log_probability = scale_grid(prior)
    tau = np.concatenate([[0.0], moved])
    log_prior = np.column_stack([[-np.inf, -np.inf], log_probability])
    d = anchors.means.shape[1]
    precision, linear = means_quadratic(quadratic, np.arange(1, 1 + 2 * d), anchors.means.ravel())
    known = []
    for coordinates in (slice(0, 1), slice(1, d)):
        num = max(len(range(d)[coordinates]), 1)
        blocks = precision.reshape(2, d, 2, d)[:, coordinates, :, coordinates]
        noise = np.array([np.trace(v[coordinates, coordinates]) / num for v in anchors.mean_covariances])
        h = np.trace(blocks, axis1=1, axis2=3) / num
        known.append(Gaussian(h, linear.reshape(2, d)[:, coordinates], noise))
    evidence = []
    for h, g, noise in (known[0], known[1] if across is None else across):
        num = g.shape[1]
        t = np.zeros((len(tau), len(tau), 2, 2))
        t[..., 0, 0], t[..., 1, 1] = (noise[0] + tau**2)[:, None], (noise[1] + tau**2)[None, :]
        # T (1 + h T)⁻¹ = (h + T⁻¹)⁻¹, without the inverse of a small T.
        factor = np.eye(2) + h @ t
        volume = np.linalg.det(factor)
        if not np.all(volume > 0.0):
            raise np.linalg.LinAlgError("No scale of displacement has a posterior")
        spread = t @ np.linalg.inv(factor)
        evidence.append(0.5 * np.einsum("abij,ij->ab", spread, g @ g.T) - 0.5 * num * np.log(volume))
    return ScalePosterior(tau, log_prior, np.stack(evidence), across is not None)


def steadied(precision: Float[np.ndarray, "R D D"], num_means: int) -> Float[np.ndarray, "R D D"]:
    """Return precisions by which the means, all else integrated, have none below 0.

    What a prior says of them beside its Gaussian part can bend upward, and then no wide scale of displacement
    has a posterior. A direction that bends upward is taken to say nothing: what is drawn by a precision is
    weighted by its exact density.

    Args:
        precision: the means last; where none is below 0, it is returned as it is.
        num_means: how many unknowns they are.
    """
    found = precision.copy()
    for one in found:
        means, beside = one[-num_means:, -num_means:], one[:-num_means, -num_means:]
        marginal = means - beside.T @ np.linalg.solve(one[:-num_means, :-num_means], beside)
        values, vectors = np.linalg.eigh(marginal)
        if values[0] < 0.0:
            means += (vectors * np.maximum(-values, 0.0)) @ vectors.T
    return found


def means_quadratic(
    quadratic: Quadratic, means: Int[np.ndarray, "m"], references: Float[np.ndarray, "m"]
) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and linear term of the likelihood in m - μ̂, the rest integrated.

    Args:
        quadratic: a batch of 1.
        means: places of m among the unknowns.
        references: μ̂, the references' means.
    """
    flat, slope, precision = (part[0] for part in quadratic[:3])
    others = np.setdiff1d(np.arange(len(flat)), means)
    inner = np.linalg.solve(
        precision[np.ix_(others, others)],
        np.column_stack([precision[np.ix_(others, means)], slope[others]]),
    )
    coupling = precision[np.ix_(means, others)]
    schur = precision[np.ix_(means, means)] - coupling @ inner[:, :-1]
    return schur, slope[means] - coupling @ inner[:, -1] + schur @ (flat[means] - references)
