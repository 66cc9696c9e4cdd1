"""The published simulation once more, in NumPy and SciPy alone: nothing here calls the library.

Written from the description of Chen et al. 2025 (arXiv:2510.18874), with densities where the library has
logarithms. A learner's parameters are (β, m_o, m_n, s_o, s_n), or (m, s) with one mode; ``_terms`` are what
every sample adds to the direction of ascent.
"""

import numpy as np
from scipy.stats import norm

EPS = 1e-12
NAMES = ("old_weight", "old_mean", "new_mean", "old_scale", "new_scale")
START = (0.75, -3.5, 0.5, 1.0, 0.7)
TARGET = (0.75, -3.0, 3.5, 1.0, 0.7)
NEW_TASK = (3.5, 0.7)
SLOWED = np.array([True, True, False, True, False])
LOW = np.array([1e-3, -np.inf, -np.inf, 1e-3, 1e-3])
HIGH = np.array([1 - 1e-3, np.inf, np.inf, np.inf, np.inf])


def forward_terms(x, parameters, floor=EPS):
    """Return ∇ log(q(x) + ε) for every sample of the new task, shape (5, ...)."""
    weight, old, new, s_old, s_new = parameters
    n_old, n_new = norm.pdf(x, old, s_old), norm.pdf(x, new, s_new)
    q = weight * n_old + (1 - weight) * n_new + floor
    r_old, r_new = weight * n_old / q, (1 - weight) * n_new / q
    return np.stack([(n_old - n_new) / q, *_scores(x, parameters, r_old, r_new)])


def rl_terms(x, parameters, new_task=NEW_TASK, floor=EPS):
    """Return reward times importance weight times ∇ log q(x) for samples of the new mode, shape (5, ...)."""
    weight, old, new, s_old, s_new = parameters
    q_old, q_new = weight * norm.pdf(x, old, s_old), (1 - weight) * norm.pdf(x, new, s_new)
    reward = np.log(norm.pdf(x, *new_task) / (q_new + floor) / 0.1 + floor)
    importance = (q_old + q_new) / (q_new + floor)
    r_old, r_new = q_old / (q_old + q_new), q_new / (q_old + q_new)
    score = np.stack([r_old / weight - r_new / (1 - weight), *_scores(x, parameters, r_old, r_new)])
    return reward * importance * score


def single_forward_terms(x, parameters):
    """Return ∇ log q(x) of one mode, shape (2, ...)."""
    mean, scale = parameters
    return np.stack([(x - mean) / scale**2, -1 / scale + (x - mean) ** 2 / scale**3])


def single_rl_terms(x, parameters, floor=EPS):
    """Return reward times ∇ log q(x) of one mode for its own samples, shape (2, ...)."""
    reward = np.log(norm.pdf(x, *NEW_TASK) / (norm.pdf(x, *parameters) + floor) / 0.1 + floor)
    return reward * single_forward_terms(x, parameters)


def _scores(x, parameters, r_old, r_new):
    _, old, new, s_old, s_new = parameters
    return (
        r_old * (x - old) / s_old**2,
        r_new * (x - new) / s_new**2,
        r_old * (-1 / s_old + (x - old) ** 2 / s_old**3),
        r_new * (-1 / s_new + (x - new) ** 2 / s_new**3),
    )


def expectation(terms, law):
    """Return the mean of ``terms(x)`` over x ~ N(law), by the trapezoid rule."""
    mean, scale = law
    x = np.linspace(mean - 9 * scale, mean + 9 * scale, 20_001)
    return np.trapezoid(norm.pdf(x, mean, scale) * terms(x), x)


def step(parameters, ascent, rate, factor):
    """Return the parameters after one step: slow the old mode and the weight, move, clip."""
    moved = parameters + rate * np.where(SLOWED, factor, 1.0).reshape(-1, *(1,) * (ascent.ndim - 1)) * ascent
    return np.clip(moved.T, LOW, HIGH).T


def grid_overlaps(parameters, target=TARGET, low=-8.0, high=8.0, points=500):
    """Return the overlap with the old and the new mode on the published grid; one mode has weight 1."""
    x = np.linspace(low, high, points)
    shares = []
    for k in (0, 1):
        p = abs(k - target[0]) * norm.pdf(x, target[1 + k], target[3 + k])
        if len(parameters) == 2:
            q = norm.pdf(x, *parameters)
        else:
            q = abs(k - parameters[0]) * norm.pdf(x, parameters[1 + k], parameters[3 + k])
        shares.append(np.trapezoid(np.minimum(p, q), x) / np.trapezoid(p, x))
    return np.array(shares)


def trajectory(method, rate, factor, rng, num_steps=200, num_samples=1000):
    """Return parameters and overlaps of one published bi-modal run, shape (num_steps + 1, 7).

    As straightforward as the publication: a density object call where a density is needed, and both overlap
    areas on the grid after every step.
    """
    parameters = np.array(START)
    rows = [np.append(parameters, grid_overlaps(parameters))]
    for _ in range(num_steps):
        if method == "forward":
            ascent = forward_terms(rng.normal(*NEW_TASK, num_samples), parameters).mean(axis=1)
        else:
            ascent = rl_terms(rng.normal(parameters[2], parameters[4], num_samples), parameters).mean(axis=1)
        parameters = step(parameters, ascent, rate, factor)
        rows.append(np.append(parameters, grid_overlaps(parameters)))
    return np.array(rows)
