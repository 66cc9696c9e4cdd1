"""The posterior density of an old weight, given how much likelier each sample is under the old reference."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.polynomial import legendre
from numpy.typing import ArrayLike
from scipy.special import expit

#: Nodes of a panel.
NODES = 16

# Outside the panels the density has dropped below exp(-_DROP) of its height.
_DROP = 40.0

# Panels before any is halved, so many that a trapezoid sum over the nodes is right to 1e-3; and how often one
# may be halved.
_PANELS, _HALVINGS = 40, 8

# What the last terms of a panel's Legendre series may be, relative to the height.
_RESOLVED = 1e-12

# Logits of weights that float64 holds, steps toward an extremum among them, and how well an edge is found,
# relative to its distance from the mode.
_FARTHEST, _SECTIONS, _EDGE = 700.0, 60, 0.02
_GOLDEN = 0.5 * (5.0**0.5 - 1.0)

# Samples evaluated at once, so that memory stays small; factors whose product is formed before its logarithm.
_BLOCK, _FACTORS = 4096, 8


class WeightPosterior(NamedTuple):
    """The posterior density of one old weight on the nodes of a composite Gauss-Legendre rule in logit β.

    Attributes:
        edges: of the panels, values of φ = logit β, shape (panel + 1,).
        logit_density: p(φ | scores) = β (1-β) p(β | scores) at the nodes of every panel, shape (panel, node).
    """

    edges: Float[np.ndarray, "panels+1"]
    logit_density: Float[np.ndarray, "panels nodes"]

    @property
    def weights(self) -> Float[np.ndarray, "panels nodes"]:
        """The nodes, values of β in (0, 1)."""
        result: np.ndarray = expit(_nodes(self.edges))
        return result

    @property
    def density(self) -> Float[np.ndarray, "panels nodes"]:
        """p(β | scores) at the nodes."""
        logit = _nodes(self.edges)
        result: np.ndarray = self.logit_density / (expit(logit) * expit(-logit))
        return result

    @property
    def mean(self) -> float:
        """E[β]."""
        return float(np.sum(self._masses * self.weights))

    @property
    def sd(self) -> float:
        """Standard deviation of β."""
        return float(np.sqrt(np.sum(self._masses * (self.weights - self.mean) ** 2)))

    def quantiles(self, probabilities: ArrayLike) -> Float[np.ndarray, "n"]:
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
        result: np.ndarray = expit(self.edges[panel] + 0.5 * width * (0.5 * (low + high) + 1.0))
        return result

    @property
    def _masses(self) -> Float[np.ndarray, "panels nodes"]:
        _, rule = legendre.leggauss(NODES)
        return self.logit_density * rule * 0.5 * np.diff(self.edges)[:, None]

    def _integrals(self) -> Float[np.ndarray, "order panels"]:
        """Return the Legendre series of the mass from the start of each panel on."""
        return legendre.legint(_series(self.logit_density), lbnd=-1.0) * 0.5 * np.diff(self.edges)


def weight_posterior(
    difference: Float[np.ndarray, "n"], shapes: tuple[float, float] = (1.0, 1.0)
) -> WeightPosterior:
    """Return the density of the old weight given log p_o(y_i) - log p_n(y_i), which may be ±inf.

    In φ = logit β the density is p(β) β (1-β), whose poles lie at distance π from the real axis whatever the
    shapes of the prior, also where p(β) has a singularity at an end of (0, 1). It rises to one maximum and
    falls, as β (1-β) p(β) is log-concave in β. Panels cover where it is within 40 nats of its maximum (what
    lies outside weighs less than 1e-15) and are halved until their series have converged.

    Args:
        difference: log p_o(y_i) - log p_n(y_i) [nat].
        shapes: of the Beta prior, each at least 1.
    """

    def log_density(logit: ArrayLike) -> Float[np.ndarray, "..."]:
        return _log_density(np.asarray(logit, float), difference, shapes)

    mode = _largest(log_density)
    height = log_density([mode])[0]

    def edge(end: float) -> float:
        """Return where the density has dropped by exp(-_DROP) between the mode and an end."""
        inside, outside = mode, end
        while abs(outside - inside) > _EDGE * abs(outside - mode):
            middle = 0.5 * (inside + outside)
            dropped = log_density([middle])[0] < height - _DROP
            inside, outside = (inside, middle) if dropped else (middle, outside)
        return outside

    edges, values = _resolved(
        np.linspace(edge(-_FARTHEST), edge(_FARTHEST), _PANELS + 1),
        lambda logit: np.exp(log_density(logit) - height),
        # A sum of many logarithms is no better than the rounding of each and of the sum.
        _RESOLVED + 2.0 * np.finfo(float).eps * (difference.size + abs(height)),
    )
    total = WeightPosterior(edges, values)._masses.sum()
    return WeightPosterior(edges, values / total)


def _largest(function: Callable[[ArrayLike], np.ndarray]) -> float:
    """Return where a function of a logit, which rises and then falls, is largest: by golden sections."""
    low, high = -_FARTHEST, _FARTHEST
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function([left, right])
    for _ in range(_SECTIONS):
        if at_left > at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function([left])[0]
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function([right])[0]
    return 0.5 * (low + high)


def _resolved(
    edges: Float[np.ndarray, "n+1"], function: Callable[[np.ndarray], np.ndarray], tolerance: float
) -> tuple[Float[np.ndarray, "panels+1"], Float[np.ndarray, "panels nodes"]]:
    """Return the edges of panels, halved until Legendre series resolve a function, and its values there."""
    left, right = edges[:-1], edges[1:]
    done: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for turn in range(_HALVINGS + 1):
        values = function(_between(left, right))
        rough = np.abs(_series(values)[-3:]).max(axis=0) > tolerance
        rough &= turn < _HALVINGS
        done.append((left[~rough], right[~rough], values[~rough]))
        middle = 0.5 * (left + right)[rough]
        left, right = np.concatenate([left[rough], middle]), np.concatenate([middle, right[rough]])
        if not rough.any():
            break
    left, right, values = (np.concatenate(parts) for parts in zip(*done, strict=True))
    order = np.argsort(left)
    return np.append(left[order], right[order][-1]), values[order]


def _nodes(edges: Float[np.ndarray, "panels+1"]) -> Float[np.ndarray, "panels nodes"]:
    return _between(edges[:-1], edges[1:])


def _between(left: Float[np.ndarray, "n"], right: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n nodes"]:
    """Return the nodes of panels."""
    nodes, _ = legendre.leggauss(NODES)
    result: np.ndarray = left[:, None] + 0.5 * (right - left)[:, None] * (nodes + 1.0)
    return result


def _series(values: Float[np.ndarray, "panels nodes"]) -> Float[np.ndarray, "order panels"]:
    """Return the Legendre series on [-1, 1] of values at the nodes of panels."""
    nodes, rule = legendre.leggauss(NODES)
    degree = np.arange(NODES)
    result: np.ndarray = (degree + 0.5)[:, None] * (legendre.legvander(nodes, NODES - 1).T * rule) @ values.T
    return result


def _log_density(
    logit: Float[np.ndarray, "*shape"], difference: Float[np.ndarray, "n"], shapes: tuple[float, float]
) -> Float[np.ndarray, "*shape"]:
    """Return the log density of φ up to a constant: each sample relative to its likelier reference."""
    flat = logit.ravel()
    total = -shapes[0] * np.logaddexp(0.0, -flat) - shapes[1] * np.logaddexp(0.0, flat)
    weight, rest = expit(flat)[:, None], expit(-flat)[:, None]
    for old in (True, False):
        chosen = difference[difference > 0.0] if old else difference[difference <= 0.0]
        likelier, other = (weight, rest) if old else (rest, weight)
        for start in range(0, chosen.size, _BLOCK):
            share = np.exp(-np.abs(chosen[start : start + _BLOCK]))
            total += _log_product(likelier, other, share)
    result: np.ndarray = total.reshape(logit.shape)
    return result


def _log_product(
    likelier: Float[np.ndarray, "k 1"], other: Float[np.ndarray, "k 1"], share: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "k"]:
    """Return Σ_i log(likelier + other · share_i): the sum of positive terms loses no digits."""
    factors = likelier + other * share
    whole = share.size - share.size % _FACTORS
    grouped = factors[:, :whole].reshape(len(factors), -1, _FACTORS)
    # Products of few factors, each at least `likelier`, so that none underflows.
    if likelier.min() > 1e-30:
        whole_groups, rest = np.log(grouped.prod(axis=-1)), np.log(factors[:, whole:])
        total: np.ndarray = whole_groups.sum(axis=-1) + rest.sum(axis=-1)
        return total
    total = np.log(factors).sum(axis=-1)
    return total
