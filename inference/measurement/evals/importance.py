"""Normal laws learnt from weighted draws, and draws from them: the steps of adaptive importance sampling."""

import numpy as np
from arviz_stats.base import array_stats
from jaxtyping import Float
from scipy import special, stats

# How much wider than what was learnt is proposed, with which share: the second catches what the first missed.
_WIDTHS, _SHARES = np.array([1.25, 2.5]), np.array([0.8, 0.2])


def moments(
    weights: Float[np.ndarray, "R n"], scores: Float[np.ndarray, "#R n d"], ridge: float
) -> tuple[Float[np.ndarray, "R d"], Float[np.ndarray, "R d d"]]:
    """Return mean and covariance under weights that sum to 1."""
    scores = np.broadcast_to(scores, (len(weights), *scores.shape[1:]))
    mean = np.einsum("rn,rnd->rd", weights, scores)
    centred = scores - mean[:, None]
    covariance = np.swapaxes(centred * weights[..., None], 1, 2) @ centred
    return mean, covariance + ridge * np.eye(scores.shape[-1])


def tempered(
    log_weights: Float[np.ndarray, "R n"], least: float
) -> tuple[Float[np.ndarray, "R n"], Float[np.ndarray, "R"]]:
    """Return weights to the largest power that keeps an effective number, normalised, and the power."""
    top = np.maximum(log_weights.max(axis=1, keepdims=True), -1e300)
    shifted = np.maximum(np.nan_to_num(log_weights - top, nan=-1e9), -1e9)
    low, high = np.zeros(len(shifted)), np.ones(len(shifted))

    def effective(power: np.ndarray) -> np.ndarray:
        w = np.exp(shifted * power[:, None])
        return w.sum(axis=1) ** 2 / np.square(w).sum(axis=1)

    low = np.where(effective(high) >= least, high, low)
    for _ in range(24):
        middle = 0.5 * (low + high)
        enough = effective(middle) >= least
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    return special.softmax(shifted * low[:, None], axis=1), low


def uniform(num: int, dims: int, rng: np.random.Generator) -> Float[np.ndarray, "num d"]:
    """Return scrambled Sobol points, away from 0 and 1."""
    # They are balanced in powers of two.
    points = stats.qmc.Sobol(dims, rng=rng).random_base2((num - 1).bit_length())
    return np.clip(points[:num], 1e-9, 1.0 - 1e-9)


def normal_draws(
    u: Float[np.ndarray, "*n e"], mean: np.ndarray, covariance: np.ndarray
) -> tuple[Float[np.ndarray, "*n d"], Float[np.ndarray, "*n"]]:
    """Return draws of a mixture of a normal law and a wider one, and their log density.

    Args:
        u: uniform numbers, the last of which decides between the two.
        mean: of the law, shape (..., d).
        covariance: of the law, shape (..., d, d).
    """
    factor = np.linalg.cholesky(covariance)
    u = np.clip(u, 1e-9, 1.0 - 1e-9)
    z = special.ndtri(u[..., :-1]) * _WIDTHS[(u[..., -1] > _SHARES[0]).astype(int)][..., None]
    squared = np.sum(z * z, axis=-1)
    d = z.shape[-1]
    parts = [
        np.log(share) - 0.5 * squared / width**2 - d * np.log(width)
        for share, width in zip(_SHARES, _WIDTHS, strict=True)
    ]
    log_density = np.logaddexp(*parts) - 0.5 * d * np.log(2.0 * np.pi)
    log_det = np.sum(np.log(np.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
    return mean + np.einsum("...ab,...b->...a", factor, z), log_density - log_det


def log_standard(scores: np.ndarray) -> np.ndarray:
    """Return the log density of N(0, I) over the last axis."""
    return -0.5 * np.sum(scores * scores, axis=-1) - 0.5 * scores.shape[-1] * np.log(2.0 * np.pi)


def k_hat(log_weights: Float[np.ndarray, "n"]) -> float:
    """Return the Pareto shape of importance weights; infinite where hardly any are distinct."""
    found = np.maximum(np.nan_to_num(log_weights - log_weights.max(), nan=-700.0), -700.0)
    # Rounding must not rank the largest.
    found = np.round(found, 8)
    if len(np.unique(found)) <= 0.2 * len(found):
        return np.inf
    return float(array_stats.psislw(-found)[1])


def systematic(weights: Float[np.ndarray, "*n k"], num: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``num`` places a row by systematic resampling."""
    at = (np.arange(num) + rng.uniform(size=(*weights.shape[:-1], 1))) / num
    ends = np.cumsum(weights, axis=-1)
    return np.minimum(np.sum(at[..., :, None] > ends[..., None, :], axis=-1), weights.shape[-1] - 1)
