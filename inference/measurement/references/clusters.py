"""Samples in clusters, as the answers to a prompt are: how alike they are, and what sums of them err by."""

from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Float, Int
from sklearn.covariance import ledoit_wolf

from inference.measurement.references.axis_shape import AxisShape
from mixture_models.types import AnyArray


class Likeness(NamedTuple):
    """What the analyses of variance of both references say of the share ρ that lies between prompts.

    With λ = 1 + m a ρ / (1 - a ρ) the ratio X of the mean squares between and within k prompts is λ F, F of
    k - 1 and n - k degrees of freedom (exact for Gaussian modes and prompts of equal size).

    Attributes:
        ratio: X of the old and of the new reference, 1 where one has no prompts, shape (2,).
        between: k - 1, 0 where it has none, shape (2,).
        within: n - k, likewise.
        size: m, samples of a prompt, shape (2,).
        factor: a, the share of ρ that the variance of all components together has, shape (2,).
    """

    ratio: Float[AnyArray, "2"]
    between: Float[AnyArray, "2"]
    within: Float[AnyArray, "2"]
    size: Float[AnyArray, "2"]
    factor: Float[AnyArray, "2"]

    @classmethod
    def of(
        cls, along: list[Float[np.ndarray, "n"]], prompts: list[Int[np.ndarray, "n"] | None], shape: AxisShape
    ) -> Self:
        """Return what two references say, given residuals along the axis, prompts and their shape."""
        weights = np.exp(shape.log_weight)
        variance = np.sum(weights * (shape.scale**2 + shape.location**2), axis=-1)
        factor = np.sum(weights * shape.scale, axis=-1) ** 2 / variance
        found = [
            (1.0, 0.0, 0.0, 1.0) if p is None else analysis_of_variance(x, p)
            for x, p in zip(along, prompts, strict=True)
        ]
        ratio, between, within, size = np.array(found).T
        return cls(ratio, between, within, size, factor)

    def log_likelihood(self, shift: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
        """Return the log-likelihood of ρ, unbatched, up to a constant."""
        xp = shift.__array_namespace__()
        total = xp.zeros_like(shift)
        for k in (0, 1):
            between = self.factor[k] * shift
            raised = 1.0 + self.size[k] * between / (1.0 - between)
            degrees = self.between[k], self.within[k]
            scaled = degrees[0] * self.ratio[k] / raised / xp.maximum(degrees[1], 1.0)
            total = total - 0.5 * degrees[0] * xp.log(raised) - 0.5 * sum(degrees) * xp.log1p(scaled)
        return total

    def derivatives(self, shift: Float[np.ndarray, "..."]) -> tuple[np.ndarray, np.ndarray]:
        """Return the first two derivatives of the log-likelihood in ρ, unbatched."""
        first, second = np.zeros_like(shift), np.zeros_like(shift)
        for k in (0, 1):
            left, m, a = 1.0 - self.factor[k] * shift, self.size[k], self.factor[k]
            raised = 1.0 + m * (1.0 - left) / left
            degrees = self.between[k], self.within[k]
            scaled = degrees[0] * self.ratio[k] / np.maximum(degrees[1], 1.0)
            whole = raised * (raised + scaled)
            slope = -0.5 * degrees[0] / raised + 0.5 * sum(degrees) * scaled / whole
            bend = 0.5 * degrees[0] / raised**2
            bend = bend - 0.5 * sum(degrees) * scaled * (2.0 * raised + scaled) / whole**2
            steep = m * a / left**2
            first = first + slope * steep
            second = second + bend * steep**2 + slope * 2.0 * m * a**2 / left**3
        return first, second


def analysis_of_variance(
    x: Float[np.ndarray, "n"], clusters: Int[np.ndarray, "n"]
) -> tuple[float, float, float, float]:
    """Return the ratio of mean squares, its degrees of freedom, and the size of a cluster."""
    _, codes = np.unique(clusters, return_inverse=True)
    counts = np.bincount(codes)
    k, n = len(counts), len(x)
    means = np.bincount(codes, x) / counts
    between = float(counts @ (means - x.mean()) ** 2) / max(k - 1, 1)
    within = float(np.sum((x - means[codes]) ** 2)) / max(n - k, 1)
    size = (n - np.sum(counts**2) / n) / max(k - 1, 1)
    return between / max(within, 1e-300), k - 1.0, float(n - k), float(size)


def likeness_of(y: Float[np.ndarray, "n p"], clusters: Int[np.ndarray, "n"]) -> Float[np.ndarray, "p"]:
    """Return the intraclass correlation of every column, at least 0, by the analysis of variance."""
    found = []
    for column in y.T:
        ratio, _, _, size = analysis_of_variance(column, clusters)
        found.append(np.clip((ratio - 1.0) / (ratio - 1.0 + size), 0.0, 1.0))
    return np.array(found)


def worth_of(x: Float[np.ndarray, "n"], clusters: Int[np.ndarray, "n"]) -> float:
    """Return how many independent samples the mean of clustered ones is worth."""
    correlation = float(likeness_of(x[:, None], clusters)[0])
    return len(x) / (1.0 + (concentration_of(clusters) * len(x) - 1.0) * correlation)


def concentration_of(clusters: Int[np.ndarray, "n"]) -> float:
    """Return Σ_p (n_p / n)², one over the number of clusters of equal size."""
    counts = np.unique(clusters, return_counts=True)[1]
    return float(np.sum((counts / len(clusters)) ** 2))


def sum_covariance(
    parts: Float[np.ndarray, "n q"], clusters: Int[np.ndarray, "n"], independent: Float[np.ndarray, "q q"]
) -> Float[np.ndarray, "q q"]:
    """Return the covariance of a sum of parts, of which those of a cluster depend on one another.

    The sums of the G clusters, in the metric of the covariance that independent parts would have, have a
    covariance that is shrunk toward a multiple of the identity: with more columns than clusters their own is
    singular. It is multiplied by G / (G - 1), for the parts are residuals.

    Args:
        parts: residuals, of mean 0.
        clusters: the number of each part's cluster.
        independent: covariance of the sum were all parts independent.

    Source: Liang and Zeger 1986; Ledoit and Wolf 2004.
    """
    _, codes = np.unique(clusters, return_inverse=True)
    count = int(codes.max()) + 1
    sums = np.zeros((count, parts.shape[1]))
    np.add.at(sums, codes, parts)
    root = np.linalg.cholesky(independent)
    standard = np.sqrt(count) * np.linalg.solve(root, sums.T).T
    shrunk = ledoit_wolf(standard, assume_centered=True)[0]
    result: np.ndarray = root @ shrunk @ root.T * count / (count - 1.0)
    return result


def cluster_weights(
    clusters: Int[np.ndarray, "n"] | None, num: int, draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "R n"]:
    """Return weights of a Bayesian bootstrap of samples, or of clusters where there are some, of mean 1."""
    if clusters is None:
        return rng.dirichlet(np.ones(num), draws) * num
    _, codes = np.unique(clusters, return_inverse=True)
    weights = rng.dirichlet(np.ones(int(codes.max()) + 1), draws)[:, codes]
    return np.asarray(weights * num / weights.sum(axis=1, keepdims=True))
