"""The nodes of `line`, shared by many mixtures, and the gradient of any loss at a mixture there.

The old mode of the target is at 0, the new one at δ; a mixture is (φ, m_o, m_n), an array of shape (3, n).
A path takes thousands of gradients, which need no relative accuracy in tails: one set of nodes serves them
all, and densities take the place of logarithms.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import expit

from mixture_models.integrals.line import REACH, spacing
from mixture_models.types import Reals

# Standard deviations that new nodes have to spare.
_SPARE = 1.0

# Responsibilities steepen with the distance of modes, but from here on where they change there is no mass.
_STEEPEST = 8.0

_NORMALISER = 1.0 / np.sqrt(2.0 * np.pi)

#: Keeps quotients and logarithms of densities finite where they underflow.
TINY = 1e-300


class Nodes(NamedTuple):
    """Equidistant nodes on the line; the old mode is at 0, the new one at δ.

    Attributes:
        y: the nodes.
        step: between two.
        moments: step times (1, y), which take integrals of a function and of y times it.
    """

    y: Float[Reals, "k"]
    step: float
    moments: Float[Reals, "k 2"]

    def density(self, mean: ArrayLike) -> Float[Reals, "n k"]:
        """Return the density of a mode at the nodes."""
        away = self.y - np.reshape(mean, (-1, 1))
        away *= away
        away *= -0.5
        density: Reals = np.exp(away, out=away)
        result: Reals = density * _NORMALISER
        return result

    def parts(self, mixture: Float[Reals, "3 n"]) -> Float[Reals, "2 n k"]:
        """Return β N(y; m_o) and (1-β) N(y; m_n)."""
        both = self.density(mixture[1:]).reshape(2, -1, self.y.size)
        both *= expit(np.stack([mixture[0], -mixture[0]]))[:, :, None]
        return both

    def law(self, mixture: Float[Reals, "3 n"]) -> Float[Reals, "n k"]:
        """Return the density of a mixture at the nodes."""
        law: Reals
        old, law = self.parts(mixture)
        law += old
        law += TINY
        return law

    def integral(self, values: Float[Reals, "n k"]) -> Float[Reals, "n"]:
        """Return the trapezoid sums of values at the nodes."""
        return values @ self.moments[:, 0]


def gradient(nodes: Nodes, learner: Reals, weigh: Callable[[Reals], Reals]) -> Reals:
    """Return ∫ c ∂log q/∂θ dy, shape (3, n), at a learner; ``weigh`` takes q at the nodes to c there."""
    old, law = nodes.parts(learner)
    law += old
    law += TINY
    weights = weigh(law)
    old /= law
    old *= weights
    (total, of_all), (mine, far) = (weights @ nodes.moments).T, (old @ nodes.moments).T
    phi, old_mean, new_mean = learner
    return np.stack(
        [mine - expit(phi) * total, far - old_mean * mine, of_all - far - new_mean * (total - mine)]
    )


def reaching(nodes: Nodes | None, separation: float, means: Reals) -> Nodes:
    """Return the nodes if they reach all means (..., 2, n), else wider ones; integrals are right to 1e-10."""
    old, new = means[..., 0, :], means[..., 1, :]
    finite = means[np.isfinite(means)]
    low, high = min(0.0, finite.min(initial=0.0)), max(separation, finite.max(initial=0.0))
    if nodes is not None and nodes.y[0] <= low - REACH and nodes.y[-1] >= high + REACH:
        return nodes
    apart = np.nanmax(np.abs(new - old), initial=separation, where=np.isfinite(new - old))
    step = spacing(min(apart, _STEEPEST))
    number = int(np.ceil((high - low + 2.0 * (REACH + _SPARE)) / step)) + 1
    y = low - REACH - _SPARE + step * np.arange(number)
    return Nodes(y, float(step), step * np.stack([np.ones_like(y), y], axis=-1))
