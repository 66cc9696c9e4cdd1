"""Exact answers by brute force, in NumPy and SciPy alone: nothing here calls the library.

A mixture is given by raw numbers (weights, means, dense covariances). Every expectation under a mode is a
sum over a dense grid in the mode's own whitened coordinates: for smooth functions the trapezoid rule
converges geometrically. `test_estimators.py` checks the gradients below against finite differences of the
values.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logsumexp
from scipy.stats import multivariate_normal, norm

# Points along an axis of a grid that covers _REACH standard deviations on either side.
_POINTS = {1: 3001, 2: 301}
_REACH = 9.0


# Two covariances that do not commute.
MATRIX = np.array([[2.0, 0.6], [0.6, 0.5]])
OTHER = np.array([[0.7, -0.3], [-0.3, 1.1]])


class Mixture(NamedTuple):
    """Weights (K,), means (K, d) and dense covariances (K, d, d)."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


class Setting(NamedTuple):
    """Raw numbers of two modes; covariances in any form that `TwoMode.create` takes."""

    old_weight: float
    old_mean: np.ndarray
    new_mean: np.ndarray
    covariance: object = None
    new_covariance: object = None

    def mixture(self) -> Mixture:
        """Return the two modes with dense covariances."""
        return two_modes(*self)


def dense(covariance: object, dim: int) -> np.ndarray:
    """Return None, a variance, variances or a matrix as a matrix."""
    value = np.asarray(1.0 if covariance is None else covariance, dtype=np.float64)
    return value if value.ndim == 2 else np.diag(np.broadcast_to(value, (dim,)))


def two_modes(old_weight, old_mean, new_mean, covariance=None, new_covariance=None) -> Mixture:
    means = np.stack([np.atleast_1d(np.asarray(m, np.float64)) for m in (old_mean, new_mean)])
    old = dense(covariance, means.shape[1])
    new = old if new_covariance is None else dense(new_covariance, means.shape[1])
    return Mixture(np.array([old_weight, 1.0 - old_weight]), means, np.stack([old, new]))


def mode(mixture: Mixture, k: int) -> Mixture:
    return Mixture(np.ones(1), mixture.means[k : k + 1], mixture.covariances[k : k + 1])


def log_joint(mixture: Mixture, y: np.ndarray) -> np.ndarray:
    """Return log w_k + log N(y; m_k, Σ_k), shape (K, ...)."""
    modes = [
        np.reshape(multivariate_normal(mean, cov).logpdf(y), y.shape[:-1])
        for mean, cov in zip(mixture.means, mixture.covariances, strict=True)
    ]
    with np.errstate(divide="ignore"):
        return np.stack([np.log(w) + m for w, m in zip(mixture.weights, modes, strict=True)])


def log_density(mixture: Mixture, y: np.ndarray) -> np.ndarray:
    return logsumexp(log_joint(mixture, y), axis=0)


def posterior(mixture: Mixture, y: np.ndarray) -> np.ndarray:
    """Return the probability of every mode given y, shape (K, ...)."""
    joint = log_joint(mixture, y)
    return np.exp(joint - logsumexp(joint, axis=0))


def box(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, float]:
    """Return points (N, d) that fill a box, and the volume of a cell."""
    dim = len(low)
    axes = [np.linspace(a, b, _POINTS[dim]) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dim)
    # Not the difference of two points, which has lost four digits.
    return points, float(np.prod((np.asarray(high) - low) / (_POINTS[dim] - 1)))


def expectation(law: Mixture, values_at) -> np.ndarray:
    """Return E[values_at(y)] for y ~ law, the last axis of the values running over y."""
    dim = law.means.shape[1]
    z, cell = box(np.full(dim, -_REACH), np.full(dim, _REACH))
    density = np.exp(-0.5 * np.sum(z * z, axis=1)) * cell / np.sqrt(2.0 * np.pi) ** dim
    return sum(
        weight * np.sum(density * values_at(mean + z @ np.linalg.cholesky(covariance).T), axis=-1)
        for weight, mean, covariance in zip(*law, strict=True)
        if weight > 0.0
    )


def training_data(target: Mixture, replay: float) -> Mixture:
    """Return (1-λ) N(μ_n) + λ N(μ_o)."""
    return target._replace(weights=np.array([replay, 1.0 - replay]))


def kl(p: Mixture, q: Mixture) -> float:
    """Return KL(p ‖ q) in nats."""
    return float(expectation(p, lambda y: log_density(p, y) - log_density(q, y)))


def mixed(learner: Mixture, teacher: Mixture, alpha: float) -> Mixture:
    """Return M = (1-α) q + α p, of the modes of both."""
    parts = (teacher, alpha), (learner, 1.0 - alpha)
    return Mixture(
        np.concatenate([share * law.weights for law, share in parts]),
        np.concatenate([law.means for law, _ in parts]),
        np.concatenate([law.covariances for law, _ in parts]),
    )


def jensen_shannon(learner: Mixture, teacher: Mixture, alpha: float) -> float:
    """Return α KL(p ‖ M) + (1-α) KL(q ‖ M), M = (1-α) q + α p."""
    middle = mixed(learner, teacher, alpha)
    return alpha * kl(teacher, middle) + (1.0 - alpha) * kl(learner, middle)


def mode_reward(target: Mixture, old: float, new: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return y -> R_o s_o(y) + R_n s_n(y)."""
    return lambda y: np.array([old, new]) @ posterior(target, y)


def forward_kl(learner: Mixture, target: Mixture, replay: float = 0.0) -> float:
    return kl(training_data(target, replay), learner)


def reverse_kl(learner: Mixture, target: Mixture) -> float:
    return kl(learner, target)


def score(learner: Mixture, y: np.ndarray) -> np.ndarray:
    """Return ∂ log q(y) / ∂(φ, m_o, m_n), rows, for y of shape (N, d)."""
    r = posterior(learner, y)
    rows = [r[0] - learner.weights[0]]
    for k in range(2):
        rows.extend(r[k] * (np.linalg.inv(learner.covariances[k]) @ (y - learner.means[k]).T))
    return np.stack(rows)


def forward_kl_gradient(learner: Mixture, target: Mixture, replay: float = 0.0) -> dict[str, np.ndarray]:
    """Return -E_p[∂ log q] in the user's coordinates (old_logit, old_mean, new_mean)."""
    return named(-expectation(training_data(target, replay), lambda y: score(learner, y)))


def reverse_kl_gradient(learner: Mixture, target: Mixture) -> dict[str, np.ndarray]:
    """Return E_q[(log q - log p) ∂ log q] in the user's coordinates."""

    def values(y):
        return (log_density(learner, y) - log_density(target, y)) * score(learner, y)

    return named(expectation(learner, values))


def named(vector: np.ndarray) -> dict[str, np.ndarray]:
    """Split (φ, m_o, m_n) by name."""
    old, new = np.split(vector[1:], 2)
    return {"old_logit": vector[0], "old_mean": old, "new_mean": new}


def finite_difference(value, learner: Mixture, step: float = 1e-4) -> dict[str, np.ndarray]:
    """Return the central differences of ``value(learner)`` in (φ, m_o, m_n)."""
    dim = learner.means.shape[1]

    def shifted(vector):
        logit = np.log(learner.weights[0] / learner.weights[1]) + vector[0]
        weight = 1.0 / (1.0 + np.exp(-logit))
        return value(
            learner._replace(
                weights=np.array([weight, 1.0 - weight]),
                means=learner.means + vector[1:].reshape(2, dim),
            )
        )

    steps = step * np.eye(1 + 2 * dim)
    return named(np.array([(shifted(s) - shifted(-s)) / (2.0 * step) for s in steps]))


def old_responsibility(target: Mixture, law: Mixture) -> float:
    """Return E_law[s_o], s_o the target's posterior of its old mode."""
    return float(expectation(law, lambda y: posterior(target, y)[0]))


def retention(learner: Mixture, target: Mixture) -> float:
    old, new = (old_responsibility(target, mode(target, k)) for k in range(2))
    return (old_responsibility(target, learner) - new) / (old - new)


def bhattacharyya(a, b, covariance=None, other_covariance=None) -> float:
    """Return ∫ √(N(y; a, Σ) N(y; b, Σ')) dy."""
    both = two_modes(0.5, a, b, covariance, other_covariance)
    widths = np.sqrt(np.diagonal(both.covariances, axis1=1, axis2=2))
    y, cell = box((both.means - _REACH * widths).min(axis=0), (both.means + _REACH * widths).max(axis=0))
    halves = [log_density(mode(both, k), y) / 2.0 for k in range(2)]
    return float(np.sum(np.exp(halves[0] + halves[1])) * cell)


def logistic_normal_mean(a: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return E[sigmoid(a + √v Z)] by a trapezoid rule with 20 nodes between poles at √v = 20."""
    z = np.linspace(-10.0, 10.0, 2501)
    density = norm.pdf(z) * (20.0 / 2500)
    return np.sum(density * expit(a[..., None] + np.sqrt(v)[..., None] * z), axis=-1)


def overlap(weight, mean, scale, other_weight, other_mean, other_scale, points: int = 2_000_001) -> float:
    """Return ∫ min(w N(x; m, s²), w' N(x; m', s'²)) dx; the kinks cost O(grid spacing²)."""
    low, high = (
        min(mean - 9 * scale, other_mean - 9 * other_scale),
        max(mean + 9 * scale, other_mean + 9 * other_scale),
    )
    x = np.linspace(low, high, points)
    smaller = np.minimum(
        weight * norm.pdf(x, mean, scale), other_weight * norm.pdf(x, other_mean, other_scale)
    )
    return float(np.sum(smaller) * (high - low) / (points - 1))


def spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard error over the leading axis."""
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))
