"""Near-on-policy objectives by brute force, in NumPy and SciPy alone: values and gradients in (φ, m_o, m_n).

Every gradient is written down as the expectation that a batch estimates, not differentiated from a value;
`test_near_population.py` checks it against finite differences of the value where nothing but the companion is
held fixed.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import oracles
from oracles import Mixture, expectation, kl, log_density, mode, score
from scipy.optimize import brentq


class Loss(NamedTuple):
    """A population's loss and its gradient, one vector (φ, m_o, m_n)."""

    value: float
    gradient: np.ndarray


Reward = Callable[[np.ndarray], np.ndarray]


def log_ratio_reward(target: Mixture, reference: Mixture) -> Reward:
    return lambda y: log_density(target, y) - log_density(reference, y)


def linear_reward(target: Mixture, slope: float) -> Reward:
    old, new = target.means
    along = np.linalg.solve(target.covariances[0], new - old)
    return lambda y: slope * (y - old) @ along / np.sqrt((new - old) @ along)


def by_mode(law: Mixture) -> list[tuple[float, Mixture]]:
    return [(weight, mode(law, k)) for k, weight in enumerate(law.weights)]


def jensen_shannon(learner: Mixture, teacher: Mixture, alpha: float) -> Loss:
    """α KL(p ‖ M) + (1-α) KL(q ‖ M), M = (1-α) q + α p; gradient (1-α) E_q[log(q/M) ∇ log q]."""
    middle = oracles.mixed(learner, teacher, alpha)

    def terms(y):
        return (log_density(learner, y) - log_density(middle, y)) * score(learner, y)

    value = oracles.jensen_shannon(learner, teacher, alpha)
    return Loss(value, (1 - alpha) * expectation(learner, terms))


def tilted_divergence(learner: Mixture, reward: Reward, eta: float) -> float:
    """KL(q_η ‖ q), q_η ∝ q exp(η r)."""
    total, first = expectation(
        learner, lambda y: np.exp(eta * reward(y)) * np.stack([np.ones(len(y)), reward(y)])
    )
    return float(eta * first / total - np.log(total))


def adaptive_eta(learner: Mixture, reward: Reward, budget: float) -> float:
    return brentq(
        lambda eta: tilted_divergence(learner, reward, eta) - budget, 1e-6, 1e2, xtol=1e-14, rtol=1e-14
    )


def ttt_discover(learner: Mixture, reference: Mixture, reward: Reward, kl_weight: float, eta: float) -> Loss:
    """λ KL(q ‖ q_0) - log E_q[exp(η r)]; gradient -E_q[(w - 1 - λ log(q/q_0)) ∇ log q]."""
    total = expectation(learner, lambda y: np.exp(eta * reward(y)))

    def terms(y):
        log_ratio = log_density(learner, y) - log_density(reference, y)
        return (np.exp(eta * reward(y)) / total - 1 - kl_weight * log_ratio) * score(learner, y)

    return Loss(kl_weight * kl(learner, reference) - float(np.log(total)), -expectation(learner, terms))


def oapl(learner: Mixture, lagged: Mixture, reward: Reward, beta1: float, beta2: float) -> Loss:
    """E_lag[ρ²], ρ = β₂ log(q/π_lag) - r + V*; gradient 2 β₂ E_lag[ρ ∇ log q]."""
    best = beta1 * np.log(expectation(lagged, lambda y: np.exp(reward(y) / beta1)))

    def residual(y):
        return beta2 * (log_density(learner, y) - log_density(lagged, y)) - reward(y) + best

    gradient = expectation(lagged, lambda y: 2 * beta2 * residual(y) * score(learner, y))
    return Loss(float(expectation(lagged, lambda y: residual(y) ** 2)), gradient)
