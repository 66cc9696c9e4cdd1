"""One answer an item before and after: draws of what is known, forgotten and acquired.

The shares have the prior Dirichlet(1, 1, 1, 1), the persistence of guesses is uniform. Both are quantiles
of standard normal scores (shares by breaking a stick), of which a normal law is learnt from weighted draws,
round by round, until the weights are even.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from inference.measurement.evals.importance import (
    k_hat,
    log_standard,
    moments,
    normal_draws,
    systematic,
    tempered,
    uniform,
)
from inference.measurement.evals.model import choice_probabilities

# Proposals a round, least effective number that a law is learnt from, and the rounds at most.
_PROPOSALS, _LEAST, _MOST_ROUNDS = 2048, 200.0, 16

# Runs that are computed together.
_TOGETHER = 64


class ChoiceDraws(NamedTuple):
    """Equally weighted draws of runs.

    Attributes:
        shares: KK, KU, UK, UU.
        persistence: s.
        k_hat: Pareto shape of the last round's weights.
        efficiency: effective share of its proposals.
        by_nuts: R̂, effective sample size and divergences of runs that NUTS has drawn, NaN of others.
    """

    shares: Float[np.ndarray, "R D 4"]
    persistence: Float[np.ndarray, "R D"]
    k_hat: Float[np.ndarray, "R"]
    efficiency: Float[np.ndarray, "R"]
    by_nuts: Float[np.ndarray, "R 3"]


def draw_choices(
    counts: Float[np.ndarray, "R group 5"],
    num_choices: Float[np.ndarray, "group"],
    num: int,
    rng: np.random.Generator,
) -> ChoiceDraws:
    """Return draws of each run.

    Args:
        counts: items of each number of choices in the cells of `pairing.CELLS`.
        num_choices: k of each group.
        num: draws a run.
        rng: of all that is random.
    """
    parts = [
        _draw(counts[start : start + _TOGETHER], num_choices, num, rng)
        for start in range(0, len(counts), _TOGETHER)
    ]
    return ChoiceDraws(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _draw(counts: np.ndarray, num_choices: np.ndarray, num: int, rng: np.random.Generator) -> ChoiceDraws:
    size = len(counts)
    mean, covariance = np.zeros((size, 4)), np.broadcast_to(np.eye(4), (size, 4, 4))
    for _ in range(_MOST_ROUNDS):
        u = (uniform(_PROPOSALS, 5, rng) + rng.uniform(size=(size, 1, 5))) % 1.0
        scores, log_q = normal_draws(u, mean[:, None], covariance[:, None])
        shares, persistence = unknowns_of(scores)
        log_p = log_likelihood(counts, shares, persistence, num_choices) + log_standard(scores)
        weights, power = tempered(log_p - log_q, _LEAST)
        mean, covariance = moments(weights, scores, 1e-9)
        efficiency = 1.0 / np.square(weights).sum(axis=1) / _PROPOSALS
        if power.min() == 1.0 and efficiency.min() > 0.25:
            break
    shapes = np.array([k_hat(row) for row in log_p - log_q])
    # Those of a tempered round are not draws of the posterior.
    shapes = np.where(power < 1.0, np.inf, shapes)
    chosen = rng.permuted(systematic(weights, num, rng), axis=1)
    taken = np.arange(size)[:, None], chosen
    return ChoiceDraws(shares[taken], persistence[taken], shapes, efficiency, np.full((size, 3), np.nan))


def unknowns_of(
    scores: Float[np.ndarray, "*b 4"],
) -> tuple[Float[np.ndarray, "*b 4"], Float[np.ndarray, "*b"]]:
    """Return shares and persistence at scores, whose prior is standard normal."""
    # Breaks of a stick: the first is Beta(1, 3), then Beta(1, 2), then uniform.
    left = special.ndtr(-scores[..., :3]) ** (1.0 / np.array([3.0, 2.0, 1.0]))
    rest = np.cumprod(left, axis=-1)
    before = np.concatenate([np.ones((*rest.shape[:-1], 1)), rest[..., :-1]], axis=-1)
    return np.concatenate([before - rest, rest[..., 2:]], axis=-1), special.ndtr(scores[..., 3])


def log_likelihood(
    counts: Float[np.ndarray, "R group 5"],
    shares: Float[np.ndarray, "R n 4"],
    persistence: Float[np.ndarray, "R n"],
    num_choices: Float[np.ndarray, "group"],
) -> Float[np.ndarray, "R n"]:
    """Return the log-likelihood of each run's counts."""
    log_p = np.log(np.maximum(choice_probabilities(shares, persistence, num_choices), 1e-300))
    return np.einsum("rgc,rngc->rn", counts, log_p)
