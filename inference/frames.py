"""Fewer dimensions: the affine span of the means, which an exact flow never leaves.

A population gradient lies in the span of the differences of the means (whitened gradients in the whitened span).
So a flow in the whitened metric, and one in the Euclidean metric where Σ is a multiple of the identity, is a
flow in at most three dimensions whatever d is.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mixture_models import covariance as cov
from mixture_models.two_mode import TwoMode

METRICS = ("euclidean", "whitened")


class Frame(NamedTuple):
    """Coordinates u of behaviours y = origin + basis u; basis None stands for y = u."""

    origin: Float[np.ndarray, "d"]
    basis: Float[np.ndarray, "d k"] | None

    def embed(self, u: Any) -> Any:
        """Return y for coordinates u of shape (..., k)."""
        return u if self.basis is None else self.origin + u @ self.basis.T


def frame_of(mixtures: list[TwoMode], metric: str) -> tuple[Frame, list[TwoMode]]:
    """Return a frame in which the Euclidean flow is the one wanted, and the mixtures in it.

    Args:
        mixtures: all of one dimension and one covariance Σ, for example the start and the target.
        metric: ``"euclidean"`` in the user's coordinates, or ``"whitened"``.
    """
    scale = mixtures[0].scale
    whitened = metric == "whitened"
    if scale.ndim and not whitened:
        return Frame(np.zeros(mixtures[0].dim), None), mixtures
    means = np.stack([mean for m in mixtures for mean in (m.old_mean, m.new_mean)])
    origin = means[-1]
    points = cov.whiten(scale, means - origin) if whitened else means - origin
    # Two mixtures span at most three dimensions; the number is the same for all settings of one dimension.
    rank = min(points.shape[1], len(points) - 1)
    basis = np.linalg.svd(points, full_matrices=False)[2][:rank].T
    coordinates = points @ basis
    inner_scale = np.ones(()) if whitened else scale
    reduced = [
        replace(m, old_mean=old, new_mean=new, scale=inner_scale)
        for m, old, new in zip(mixtures, coordinates[::2], coordinates[1::2], strict=True)
    ]
    outer = cov.colour(scale, basis.T).T if whitened else basis
    return Frame(origin, outer), reduced
