"""The posterior density of an old weight, given how much likelier each sample is under the old reference."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.polynomial import legendre

#: Nodes of a panel.
NODES = 16

# Panels of the range that holds all but exp(-_DROP) of the density's height.
_PANELS, _DROP = 48, 45.0

# Samples evaluated at once, so that memory stays small.
_BLOCK = 4096


class WeightPosterior(NamedTuple):
    """The posterior density of one old weight on the nodes of a composite Gauss-Legendre rule.

    Attributes:
        edges: of the panels, shape (panel + 1,).
        density: p(β | scores) at the nodes of every panel, shape (panel, node).
    """

    edges: Float[np.ndarray, "panels+1"]
    density: Float[np.ndarray, "panels nodes"]

    @property
    def weights(self) -> Float[np.ndarray, "panels nodes"]:
        """The nodes, values of β in (0, 1)."""
        nodes, _ = legendre.leggauss(NODES)
        return self.edges[:-1, None] + 0.5 * np.diff(self.edges)[:, None] * (nodes + 1.0)

    @property
    def mean(self) -> float:
        """E[β]."""
        return float(np.sum(self._masses * self.weights))

    @property
    def sd(self) -> float:
        """Standard deviation of β."""
        return float(np.sqrt(np.sum(self._masses * (self.weights - self.mean) ** 2)))

    def quantiles(self, probabilities: Any) -> Float[np.ndarray, "n"]:
        """Return the values of β below which the posterior has these probabilities."""
        probabilities = np.atleast_1d(np.asarray(probabilities, float))
        panel_mass = self._masses.sum(axis=1)
        below = np.concatenate([[0.0], np.cumsum(panel_mass)])
        panel = np.clip(np.searchsorted(below, probabilities, side="right") - 1, 0, len(panel_mass) - 1)
        integrals = self._integrals()
        low, high = -np.ones(len(panel)), np.ones(len(panel))
        for _ in range(60):
            middle = 0.5 * (low + high)
            reached = legendre.legval(middle, integrals[:, panel], tensor=False)
            small = below[panel] + reached < probabilities
            low, high = np.where(small, middle, low), np.where(small, high, middle)
        width = np.diff(self.edges)[panel]
        return self.edges[panel] + 0.5 * width * (0.5 * (low + high) + 1.0)

    @property
    def _masses(self) -> Float[np.ndarray, "panels nodes"]:
        _, rule = legendre.leggauss(NODES)
        return self.density * rule * 0.5 * np.diff(self.edges)[:, None]

    def _integrals(self) -> Float[np.ndarray, "order panels"]:
        """Return the Legendre series of the mass from the start of each panel on."""
        nodes, rule = legendre.leggauss(NODES)
        degree = np.arange(NODES)
        values = legendre.legvander(nodes, NODES - 1)
        series = (degree + 0.5)[:, None] * (values.T * rule) @ self.density.T
        return legendre.legint(series, lbnd=-1.0) * 0.5 * np.diff(self.edges)


def weight_posterior(
    difference: Float[np.ndarray, "n"], shapes: tuple[float, float] = (1.0, 1.0)
) -> WeightPosterior:
    """Return the density of the old weight given log p_o(y_i) - log p_n(y_i), which may be ±inf.

    The log density is concave, so what lies outside the range in which it is within 45 nats of its maximum
    weighs less than 1e-19.
    """

    def log_density(beta: Any) -> Float[np.ndarray, "..."]:
        return _log_density(np.asarray(beta, float), difference, shapes)

    low, high = 0.0, 1.0
    for _ in range(64):
        third = (high - low) / 3.0
        left, right = log_density([low + third, high - third])
        low, high = (low, high - third) if left > right else (low + third, high)
    mode = 0.5 * (low + high)
    height = log_density([mode])[0]

    def edge(end: float) -> float:
        """Return where the density has dropped by exp(-_DROP) between the mode and an end of (0, 1)."""
        inside, outside = mode, end
        for _ in range(40):
            middle = 0.5 * (inside + outside)
            dropped = log_density([middle])[0] < height - _DROP
            inside, outside = (inside, middle) if dropped else (middle, outside)
        return outside

    start, stop = edge(0.0), edge(1.0)
    # Panels shrink toward the mode from both sides, so that a mode at an end of (0, 1) is resolved too.
    graded = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, _PANELS // 2)])
    edges = np.unique(np.concatenate([mode - (mode - start) * graded, mode + (stop - mode) * graded]))
    unnormalised = WeightPosterior(edges, np.ones((len(edges) - 1, NODES)))
    density = np.exp(log_density(unnormalised.weights) - height)
    total = WeightPosterior(edges, density)._masses.sum()
    return WeightPosterior(edges, density / total)


def _log_density(
    beta: Float[np.ndarray, "*shape"], difference: Float[np.ndarray, "n"], shapes: tuple[float, float]
) -> Float[np.ndarray, "*shape"]:
    """Return the log density up to a constant: each sample relative to its likelier reference."""
    flat = beta.ravel()
    (a, b), total = shapes, np.zeros(beta.size)
    with np.errstate(divide="ignore"):
        # Not (a - 1) log β at a = 1, which is NaN at 0.
        total += (a - 1.0) * np.log(flat) if a > 1.0 else 0.0
        total += (b - 1.0) * np.log1p(-flat) if b > 1.0 else 0.0
        for block in np.array_split(difference, max(1, -(-difference.size // _BLOCK))):
            old = block > 0.0
            other = np.expm1(-np.abs(block))
            share = np.where(old, 1.0 - flat[:, None], flat[:, None])
            total += np.log1p(share * other).sum(axis=1)
    return total.reshape(beta.shape)
