"""Do items change independently? By clusters that the log names, and by neighbours in the order of the log.

The model takes items for independent given the task. Paraphrases, items of one text or of one template are
not: their changes are shared, and an interval that counts them one by one is too narrow by the square root
of the design effect. Counts of items hold no trace of this; which items belong together, and where they
stand in the log, do.

With change d_i of item i, its deviation e_i from the mean, and clusters c of n_c items the clustered standard
error of the mean is sqrt(C/(C-1) Σ_c (Σ_{i in c} e_i)²)/N (Liang and Zeger, Biometrika 73, 1986), and the
design effect is the square of its ratio to that of independent items. Under independence ν times the design
effect is nearly chi-squared with ν = N²/Σ_c n_c (n_c - 1) - 1 degrees of freedom. Correlations of
neighbours, of what the base's score does not explain, have the standard error N^(-1/2).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

# Pairs of changed items that independent items would have in common: with fewer, chance decides.
_LEAST_PAIRS = 1.0

# Fewest items of which anything is said, how far the correlation of neighbours is followed, and how much that
# of items one and two apart counts.
_LEAST_ITEMS, _LAGS, _WEIGHTS = 50, 20, np.array([1.0, 0.5])


class Dependence(NamedTuple):
    """What items' changes say of their dependence; NaN where nothing can be said.

    Attributes:
        num_clusters: clusters that the log names, with items of none as one each.
        clustered_error: standard error of the mean change of independent clusters.
        design_effect: its square over that of independent items.
        cluster_p: of a design effect so large, were items independent.
        neighbour_correlation: of the changes of items next to each other, beyond what the base explains.
        neighbour_errors: that, with half the correlation of items two apart, in standard errors.
        neighbour_design_effect: of the mean change, were items near each other a cluster.
    """

    num_clusters: float = np.nan
    clustered_error: float = np.nan
    design_effect: float = np.nan
    cluster_p: float = np.nan
    neighbour_correlation: float = np.nan
    neighbour_errors: float = np.nan
    neighbour_design_effect: float = np.nan


def dependence(
    base: Float[np.ndarray, "N"], run: Float[np.ndarray, "N"], cluster: Int[np.ndarray, "N"]
) -> Dependence:
    """Return how the changes of items depend on each other.

    Args:
        base: mean score of each item, in the order of the log.
        run: the same of the run.
        cluster: number of its cluster; -1 of none.
    """
    if len(base) < _LEAST_ITEMS:
        return Dependence()
    return Dependence(*_clusters(run - base, cluster), *_neighbours(base, run))


def _clusters(change: np.ndarray, cluster: np.ndarray) -> tuple[float, float, float, float]:
    if (cluster < 0).all():
        return (np.nan,) * 4
    own = cluster < 0
    cluster = np.where(own, cluster.max() + 1 + np.cumsum(own), cluster)
    _, cluster, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    size, num = len(change), len(sizes)
    pairs = float(np.sum(sizes * (sizes - 1.0)))
    away = change - change.mean()
    squares = float(away @ away)
    if num < 2 or not pairs or not squares:
        return float(num), np.nan, np.nan, np.nan
    sums = np.bincount(cluster, weights=away)
    error = np.sqrt(num / (num - 1.0) * float(sums @ sums)) / size
    effect = error**2 / (squares / (size * (size - 1.0)))
    changed = float(np.mean(change != 0.0))
    if 0.5 * pairs * changed**2 < _LEAST_PAIRS:
        return float(num), float(error), float(effect), np.nan
    freedom = max(size**2 / pairs - 1.0, 1.0)
    return float(num), float(error), float(effect), float(stats.chi2.sf(freedom * effect, freedom))


def _neighbours(base: np.ndarray, run: np.ndarray) -> tuple[float, float, float]:
    # Items in order of difficulty change alike, and are none the less independent.
    _, level = np.unique(base, return_inverse=True)
    residual = run - (np.bincount(level, weights=run) / np.bincount(level))[level]
    size, squares = len(run), float(residual @ residual)
    changed = float(np.mean(run != base))
    if not squares or 0.5 * size * changed**2 < _LEAST_PAIRS:
        return (np.nan,) * 3
    lags = np.arange(1, min(_LAGS, size // 4) + 1)
    correlations = np.array([residual[:-lag] @ residual[lag:] for lag in lags]) / squares
    effect = 1.0 + 2.0 * float((1.0 - lags / (lags[-1] + 1.0)) @ correlations)
    errors = float(_WEIGHTS @ correlations[: len(_WEIGHTS)] / np.linalg.norm(_WEIGHTS) * np.sqrt(size))
    return float(correlations[0]), errors, max(effect, 1.0)
