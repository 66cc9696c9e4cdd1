"""Fewer dimensions: the affine span of the means, which an exact flow never leaves.

A population gradient lies in the span of the differences of the means (whitened gradients in the whitened
span). So a flow in the whitened metric, and one in the Euclidean metric where Σ is a multiple of the
identity, is a flow in a few dimensions whatever d is: three for a learner and a target of two modes, two
more for every mixture besides.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from mixture_models.mixture import covariance as cov
from mixture_models.mixture.mixture import Mixture
from mixture_models.types import AnyArray

METRICS = ("euclidean", "whitened")


class Frame(NamedTuple):
    """Coordinates u of samples y = origin + basis u; basis None stands for y = u.

    ``dual`` takes gradients back: that of a function of the means is ``dual`` times the one in u.
    """

    origin: Float[np.ndarray, "d"]
    basis: Float[np.ndarray, "d k"] | None
    dual: Float[np.ndarray, "d k"] | None

    def embed(self, u: AnyArray) -> AnyArray:
        """Return y for coordinates u of shape (..., k)."""
        return u if self.basis is None else self.origin + u @ self.basis.T

    def gradient(self, g: AnyArray) -> AnyArray:
        """Return the gradient in y for one in the coordinates u, of shape (..., k)."""
        return g if self.dual is None else g @ self.dual.T


def in_frame[Things](things: Things, metric: str) -> tuple[Frame, Things]:
    """Return a frame in which the flow wanted is the Euclidean one, and a pytree with its mixtures in it.

    Args:
        things: pytree whose `Mixture` nodes have one dimension and one covariance Σ.
        metric: ``"euclidean"`` in the user's coordinates, or ``"whitened"``.
    """
    mixtures = mixtures_in(things)
    scale = mixtures[0].scales[0]
    whitened = metric == "whitened"
    if scale.ndim and not whitened:
        return Frame(np.zeros(mixtures[0].dim), None, None), things
    means = np.stack([mean for m in mixtures for mean in m.means])
    origin = means[-1]
    points = cov.whiten(scale, means - origin) if whitened else means - origin
    # As many rows as the mixtures can span, also where they span less: settings then share a program.
    rank = min(points.shape[1], len(points) - 1)
    basis = np.linalg.svd(points, full_matrices=False)[2][:rank].T
    inner_scale = np.ones(()) if whitened else scale

    def reduced(thing: object) -> object:
        if not isinstance(thing, Mixture):
            return thing
        moved = [
            (cov.whiten(scale, mean - origin) if whitened else mean - origin) @ basis for mean in thing.means
        ]
        return thing.moved(moved, inner_scale)

    outer, dual = basis, basis
    if whitened:
        outer, dual = (place(scale, basis.T).T for place in (cov.colour, cov.whiten_transposed))
    return Frame(origin, outer, dual), jax.tree.map(reduced, things, is_leaf=_is_mixture)


def mixtures_in(things: object) -> Sequence[Mixture]:
    """Return the mixtures among the nodes of a pytree."""
    return [node for node in jax.tree.leaves(things, is_leaf=_is_mixture) if _is_mixture(node)]


def _is_mixture(node: object) -> bool:
    return isinstance(node, Mixture)
