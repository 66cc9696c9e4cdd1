"""Exact values and gradients of objectives of several named tasks, by the dense grids of `oracles` alone."""

import numpy as np
import oracles
from scipy.special import logsumexp


def score(learner: oracles.Mixture, y: np.ndarray) -> np.ndarray:
    """Return ∂ log q(y) / ∂(φ_1..φ_K, m_1..m_K), rows, for y of shape (N, d)."""
    r = oracles.posterior(learner, y)
    by_mean = [
        r_k * (np.linalg.inv(covariance) @ (y - mean).T)
        for r_k, mean, covariance in zip(r, learner.means, learner.covariances, strict=True)
    ]
    return np.concatenate([r - learner.weights[:, None], *by_mean])


def split(vector: np.ndarray, num_tasks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the derivatives by the logits and by the means."""
    return vector[:num_tasks], vector[num_tasks:].reshape(num_tasks, -1)


def forward_kl_gradient(data: oracles.Mixture, learner: oracles.Mixture) -> np.ndarray:
    """Return -E_data[∂ log q]."""
    return -oracles.expectation(data, lambda y: score(learner, y))


def reverse_kl_gradient(learner: oracles.Mixture, target: oracles.Mixture) -> np.ndarray:
    """Return E_q[(log q - log p) ∂ log q]."""

    def values(y):
        return (oracles.log_density(learner, y) - oracles.log_density(target, y)) * score(learner, y)

    return oracles.expectation(learner, values)


def earned(target: oracles.Mixture, rewards: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Σ_k R_k s_k(y)."""
    return rewards @ oracles.posterior(target, y)


def entropic_utility(learner, reference, target, rewards, *, eta, kl_weight) -> float:
    """Return λ KL(q ‖ q_0) - log E_q[exp(η r)]."""
    mean = oracles.expectation(learner, lambda y: np.exp(eta * earned(target, rewards, y)))
    return kl_weight * oracles.kl(learner, reference) - float(np.log(mean))


def advantage_regression(learner, lagged, target, rewards, *, beta) -> float:
    """Return E_lag[(β log(q/π_lag) - (r - V*))²], V* = β log E_lag[exp(r/β)]."""
    best = beta * np.log(oracles.expectation(lagged, lambda y: np.exp(earned(target, rewards, y) / beta)))

    def squared(y):
        log_ratio = oracles.log_density(learner, y) - oracles.log_density(lagged, y)
        return (beta * log_ratio - earned(target, rewards, y) + best) ** 2

    return float(oracles.expectation(lagged, squared))


def difference(value, learner: oracles.Mixture, step: float = 1e-4) -> np.ndarray:
    """Return the central differences of ``value(learner)`` in (φ, m)."""
    num_tasks, dim = learner.means.shape

    def shifted(vector):
        by_logit, by_mean = split(vector, num_tasks)
        logits = np.log(learner.weights) + by_logit
        return value(
            learner._replace(weights=np.exp(logits - logsumexp(logits)), means=learner.means + by_mean)
        )

    steps = step * np.eye(num_tasks * (1 + dim))
    return np.array([(shifted(s) - shifted(-s)) / (2.0 * step) for s in steps])
