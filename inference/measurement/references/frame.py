"""Coordinates in which the references have unit covariance, and one axis that separates their means."""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from mixture_models.validation import InputError


class Frame(NamedTuple):
    """An affine map from the user's features to the frame's coordinates.

    The new reference mean is the origin and the old one lies on the first axis, so that with one covariance
    the first coordinate alone tells the modes apart.

    Attributes:
        origin: in the user's features, shape (feature,).
        forward: frame = (y - origin) @ forward.T, shape (d, feature).
        backward: displacement = frame @ backward.T, shape (feature, d); with fewer coordinates than features
            it is the identity, and displacements stay in the frame's coordinates.
    """

    origin: Float[np.ndarray, "feature"]
    forward: Float[np.ndarray, "d feature"]
    backward: Float[np.ndarray, "feature d"]

    def coordinates(self, y: Float[np.ndarray, "n feature"]) -> Float[np.ndarray, "n d"]:
        """Return samples in the frame."""
        result: np.ndarray = (y - self.origin) @ self.forward.T
        return result


def frame_of(
    old_mean: Float[np.ndarray, "d"],
    new_mean: Float[np.ndarray, "d"],
    covariance: Float[np.ndarray, "d d"],
    old: Float[np.ndarray, "n d"],
) -> Frame:
    """Return the frame of two means and a pooled covariance.

    Across the axis its coordinates are the principal directions of the old reference there, each with its
    third moment at least 0: any affine map of the features leads to the same frame.

    Args:
        old_mean: of the old reference.
        new_mean: of the new reference.
        covariance: within the references.
        old: samples of the old reference, by which the directions across the axis are told apart.

    Raises:
        InputError: means that are the same.
    """
    scale = np.linalg.cholesky(covariance)
    direction = scipy.linalg.solve_triangular(scale, old_mean - new_mean, lower=True)
    length = np.linalg.norm(direction)
    if not length > 1e-8:
        raise InputError("the references must differ; old and new have the same mean")
    # A reflection that takes the direction to the first axis.
    first = np.eye(len(direction))[0]
    sign = 1.0 if direction[0] <= 0.0 else -1.0
    v = direction / length - sign * first
    rotation = sign * (np.eye(len(v)) - 2.0 * np.outer(v, v) / (v @ v))
    across = scipy.linalg.solve_triangular(scale, (old - old_mean).T, lower=True).T @ rotation.T[:, 1:]
    _, vectors = np.linalg.eigh(across.T @ across / len(old))
    thirds = np.mean((across @ vectors) ** 3, axis=0)
    rotation[1:] = (vectors * np.where(thirds < 0.0, -1.0, 1.0)).T @ rotation[1:]
    backward = scale @ rotation.T
    forward = scipy.linalg.solve_triangular(scale, rotation.T, lower=True, trans="T").T
    return Frame(new_mean, forward, backward)
