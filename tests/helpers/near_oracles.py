"""Exact answers for the near-on-policy objectives by brute force, on top of `oracles`: no library code.

What an estimator with a leave-one-out normaliser or a group's V* has for its mean at a finite batch is exact
too. For positive e_1..e_m, independent with Laplace transform L(u) = E[exp(-u e)],

    E[1/mean(e)] = m ∫ L(u)^m du,        log x = ∫ (exp(-t) - exp(-t x))/t dt,   both over t, u > 0.
"""

import numpy as np
import oracles

# Nodes of the integrals over t = exp(x): the trapezoid rule converges geometrically.
_X = np.linspace(-32.0, 7.0, 500)
_T, _DX = np.exp(_X), _X[1] - _X[0]


def log_ratio(p, q):
    return lambda y: oracles.log_density(p, y) - oracles.log_density(q, y)


def entropic_loss(learner, reference, reward, kl_weight: float, eta: float) -> float:
    """Return λ KL(q ‖ q_0) - log E_q[exp(η r)]."""
    utility = np.log(oracles.expectation(learner, lambda y: np.exp(eta * reward(y))))
    return kl_weight * oracles.kl(learner, reference) - float(utility)


def entropic_gradient(learner, reference, reward, kl_weight: float, eta: float, batch: int | None = None):
    """Return the population's gradient, or the mean of the estimate on a batch with other samples' Z."""
    weighted = oracles.expectation(learner, lambda y: np.exp(eta * reward(y)) * oracles.score(learner, y))
    anchored = oracles.expectation(
        learner, lambda y: log_ratio(learner, reference)(y) * oracles.score(learner, y)
    )
    if batch is None:
        inverse = 1.0 / oracles.expectation(learner, lambda y: np.exp(eta * reward(y)))
    else:
        inverse = inverse_mean(learner, lambda y: np.exp(eta * reward(y)), batch - 1)
    return oracles.named(kl_weight * anchored - inverse * weighted)


def inverse_mean(law, value, m: int) -> float:
    """Return E[1/mean of m values]."""
    return float(m * np.sum(laplace(law, value, _T)[0] ** m * _T) * _DX)


def laplace(law, value, u: np.ndarray, weight=None) -> np.ndarray:
    """Return E[weight(y) exp(-u value(y))] for every u, shape (k, len(u)); without weights k = 1."""
    dim = law.means.shape[1]
    z, cell = oracles.box(np.full(dim, -9.0), np.full(dim, 9.0))
    density = np.exp(-0.5 * np.sum(z * z, axis=1)) * cell / np.sqrt(2.0 * np.pi) ** dim
    kept = density > 1e-18 * cell
    total = 0.0
    for share, mean, covariance in zip(*law, strict=True):
        y = mean + z[kept] @ np.linalg.cholesky(covariance).T
        e = value(y)
        w = (np.ones((1, len(y))) if weight is None else weight(y)) * density[kept]
        total = total + share * w @ np.exp(-np.outer(e, u))
    return total


def regression_loss(learner, lagged, reward, beta1: float, beta2: float) -> float:
    """Return E_lag[(β₂ log(q/π) - (r - V*))²]."""
    v = optimal_value(lagged, reward, beta1)
    return float(
        oracles.expectation(lagged, lambda y: (beta2 * log_ratio(learner, lagged)(y) - reward(y) + v) ** 2)
    )


def optimal_value(lagged, reward, beta1: float) -> float:
    return beta1 * float(np.log(oracles.expectation(lagged, lambda y: np.exp(reward(y) / beta1))))


def regression_gradient(learner, lagged, reward, beta1: float, beta2: float, group: int | None = None):
    """Return the population's gradient, or the mean of the estimate whose V* is that of a group."""

    def score(y):
        return oracles.score(learner, y)

    fitted = oracles.expectation(
        lagged, lambda y: (beta2 * log_ratio(learner, lagged)(y) - reward(y)) * score(y)
    )
    if group is None:
        value = optimal_value(lagged, reward, beta1) * oracles.expectation(lagged, score)
    else:
        value = group_value_times_score(lagged, reward, beta1, score, group)
    return oracles.named(2.0 * beta2 * (fitted + value))


def group_value_times_score(lagged, reward, beta1: float, score, group: int) -> np.ndarray:
    """Return E[β₁ log mean_j exp(r_j/β₁) · score(y_1)] over a group that holds y_1."""
    value = lambda y: np.exp(reward(y) / beta1)  # noqa: E731
    mean = oracles.expectation(lagged, score)[:, None]
    others = laplace(lagged, value, _T / group)[0] ** (group - 1)
    own = laplace(lagged, value, _T / group, score)
    return beta1 * np.sum(mean * np.exp(-_T) - own * others, axis=1) * _DX
