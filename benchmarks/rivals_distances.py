"""What is measured between two sets of samples to say that something changed, and neither what nor how much.

MMD with its permutation test, the Fréchet distance, and density and coverage. All take samples of a first
model and of a second one, shape (sample, feature).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial import distance
from sklearn.neighbors import NearestNeighbors

Samples = Float[np.ndarray, "sample feature"]

# Neighbours of density and coverage, as published.
_NEIGHBOURS = 5


class TwoSampleTest(NamedTuple):
    """An estimated squared MMD, and the probability of one at least as large where both laws are equal."""

    squared_mmd: float
    p_value: float


def mmd_test(
    first: Samples,
    second: Samples,
    rng: np.random.Generator,
    *,
    bandwidth: float | None = None,
    num_permutations: int = 200,
) -> TwoSampleTest:
    """Return the unbiased squared MMD of a Gaussian kernel, and its permutation p.

    MMD² = E k(x, x') + E k(y, y') - 2 E k(x, y),  k(x, y) = exp(-|x - y|² / (2 h²))

    Args:
        first: samples x.
        second: samples y.
        rng: of the permutations.
        bandwidth: h; the median distance of all samples unless given.
        num_permutations: of the samples' labels; the least p is 1 / (num_permutations + 1).

    Source: Gretton et al. 2012, JMLR 13:723-773.
    """
    squares = distance.pdist(np.concatenate([first, second]), "sqeuclidean")
    scale = np.median(squares) if bandwidth is None else bandwidth**2
    # Pairs of a sample with itself do not count.
    kernel = distance.squareform(np.exp(-0.5 * squares / scale))
    is_first = np.arange(len(kernel)) < len(first)
    labels = np.stack([is_first, *(rng.permutation(is_first) for _ in range(num_permutations))]).astype(float)
    of_first, all_pairs = labels @ kernel, kernel.sum()
    within = np.sum(of_first * labels, axis=1)
    between = of_first.sum(axis=1) - within
    n, m = len(first), len(second)
    values = (
        within / (n * (n - 1))
        + (all_pairs - within - 2.0 * between) / (m * (m - 1))
        - 2.0 * between / (n * m)
    )
    # A permutation that changes nothing must not be above the value by its rounding.
    reached = np.sum(values[1:] >= values[0] - 1e-12)
    return TwoSampleTest(float(values[0]), float((1 + reached) / (1 + num_permutations)))


def frechet_distance(first: Samples, second: Samples) -> float:
    """Return the squared Fréchet distance of the Gaussians of both means and covariances.

    |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½)

    Source: Heusel et al. 2017, arXiv:1706.08500.
    """
    a, b = (np.atleast_2d(np.cov(samples, rowvar=False)) for samples in (first, second))
    # The eigenvalues of the product of two covariances are real and not negative but for rounding.
    roots = np.sqrt(np.maximum(np.linalg.eigvals(a @ b).real, 0.0))
    shift = first.mean(axis=0) - second.mean(axis=0)
    return float(shift @ shift + np.trace(a) + np.trace(b) - 2.0 * roots.sum())


class Neighbourhood(NamedTuple):
    """Density (1 where laws are equal) and coverage (at most 1) of second samples among the first."""

    density: float
    coverage: float


def neighbourhood(first: Samples, second: Samples, num_neighbours: int = _NEIGHBOURS) -> Neighbourhood:
    """Return density and coverage of the second samples in balls around the first ones.

    A ball reaches to the k-th neighbour of its sample among the first. Density is the mean number of balls
    in which a second sample lies, over k; coverage the share of balls in which one lies.

    Source: Naeem et al. 2020, arXiv:2002.09797.
    """
    # The first neighbour of a sample is itself.
    radii = NearestNeighbors(n_neighbors=num_neighbours + 1).fit(first).kneighbors(first)[0][:, -1]
    inside = distance.cdist(first, second) <= radii[:, None]
    return Neighbourhood(float(inside.sum(axis=0).mean() / num_neighbours), float(inside.any(axis=1).mean()))
