"""Whether two samples of vectors have one law, in NumPy and SciPy alone."""

import itertools

import numpy as np
from scipy import stats


def compared(a, b):
    """Return the largest |z| of moments and the smallest p value of Kolmogorov-Smirnov tests.

    Moments are all means, variances and covariances, of variables in units of their common deviation; the
    tests are those of every variable, and of the sum and the difference of every two, which see what a
    dependence does.

    Args:
        a: shape (n, k).
        b: shape (m, k).
    """
    together = np.concatenate([a, b])
    a, b = ((x - together.mean(axis=0)) / together.std(axis=0) for x in (a, b))
    k = a.shape[1]
    pairs = list(itertools.combinations_with_replacement(range(k), 2))
    z = [_z(a[:, i], b[:, i]) for i in range(k)] + [
        _z(a[:, i] * a[:, j], b[:, i] * b[:, j]) for i, j in pairs
    ]
    projections = [np.eye(k)[i] for i in range(k)]
    projections += [
        np.eye(k)[i] + s * np.eye(k)[j] for i, j in itertools.combinations(range(k), 2) for s in (-1, 1)
    ]
    p = [stats.ks_2samp(a @ e, b @ e).pvalue for e in projections]
    return max(z), min(p)


def _z(a, b):
    return abs(a.mean() - b.mean()) / np.sqrt(a.var() / len(a) + b.var() / len(b))
