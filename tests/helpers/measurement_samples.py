"""Samples of two modes four apart, and how they are measured quickly."""

import numpy as np

QUIET = {"progress": False, "covariance": "shared", "tails": "gaussian"}


def simulated(num, weight, moved_old, new_mean, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    moved_old, new_mean = np.asarray(moved_old, float), np.asarray(new_mean, float)
    old = rng.uniform(size=num) < weight
    return noise * rng.normal(size=(num, new_mean.size)) + np.where(old[:, None], moved_old, new_mean)
