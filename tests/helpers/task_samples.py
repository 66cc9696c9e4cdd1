"""Samples and references of three tasks, which two features tell apart, and grids of their weights."""

import numpy as np

MEANS = np.array([[0.0, 0.0, 0.0, 0.0], [3.5, 0.0, 0.0, 0.0], [1.5, 3.0, 0.0, 0.0]])
NAMES = ("math", "code", "new")


def samples(rng, weights, num, means=MEANS):
    return means[rng.choice(len(means), size=num, p=weights)] + rng.normal(size=(num, means.shape[1]))


def references(rng, num=300, means=MEANS, names=NAMES):
    return {name: mean + rng.normal(size=(num, len(mean))) for name, mean in zip(names, means, strict=True)}


def on_simplex(num):
    """Return weights of three tasks on a grid, their logarithms, and the density of the grid."""
    edges = (np.arange(num) + 0.5) / num
    first, left = (one.ravel() for one in np.meshgrid(edges, edges, indexing="ij"))
    weights = np.stack([first, (1.0 - first) * left, (1.0 - first) * (1.0 - left)], axis=1)
    return weights, 1.0 - first
