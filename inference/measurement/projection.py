"""Fewer coordinates for long embeddings: the discriminant and what varies most in the references."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.covariance import ledoit_wolf

from mixture_models.validation import InputError


class Projection(NamedTuple):
    """A linear map of features, and the reference samples that it was not learnt on, mapped.

    Attributes:
        matrix: projected = y @ matrix, shape (feature, d).
        names: of the projected coordinates, or None where the features are kept as they are.
        old: the old reference, shape (sample, d).
        new: the new reference, shape (sample, d).
        information_kept: squared Mahalanobis distance of the held-out references in the projection, over
            that by all features with the covariance that it was learnt with; 1 where nothing is projected.
    """

    matrix: Float[np.ndarray, "feature d"]
    names: list[str] | None
    old: Float[np.ndarray, "n d"]
    new: Float[np.ndarray, "m d"]
    information_kept: float

    def apply(self, y: Float[np.ndarray, "n feature"]) -> Float[np.ndarray, "n d"]:
        """Return samples in the projected coordinates."""
        return y if self.names is None else y @ self.matrix


def project(old: np.ndarray, new: np.ndarray, max_features: int) -> Projection:
    """Return the features as they are if they are few, else their discriminant projection.

    The first coordinate is the linear discriminant w = Σ̂⁻¹ (ȳ_o - ȳ_n) with the covariance of Ledoit and
    Wolf, the others the principal components within the modes, uncorrelated with it. It is learnt on every
    second reference sample; the others alone anchor the modes, or the references would look further apart
    than they are.

    Source: Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".
    """
    d = old.shape[1]
    if d <= max_features:
        return Projection(np.eye(d), None, old, new, 1.0)
    learnt, kept = [[y[start::2] for y in (old, new)] for start in (0, 1)]
    least = max_features + 5
    if min(len(y) for y in kept) < 5 or sum(len(y) for y in kept) - 2 < least:
        raise InputError(
            f"projecting {d} features to {max_features} takes half of the references, and the other half "
            f"must have {least + 2} samples; got {len(old)} and {len(new)} in all: give more, or a smaller "
            "max_features"
        )
    within = np.concatenate([y - y.mean(0) for y in learnt])
    covariance = ledoit_wolf(within, assume_centered=True)[0]
    difference = learnt[0].mean(0) - learnt[1].mean(0)
    direction = np.linalg.solve(covariance, difference)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    # In coordinates where the covariance is the identity: first the discriminant, then the rest.
    root = vectors * np.sqrt(eigenvalues)
    first = root.T @ direction
    first /= np.linalg.norm(first)
    # Components by their variance, made orthogonal to the discriminant; one is lost in that.
    candidates = np.eye(d)[:, ::-1][:, :max_features]
    basis, _ = np.linalg.qr(np.column_stack([first, candidates]))
    inverse_root = vectors / np.sqrt(eigenvalues)
    matrix = inverse_root @ basis[:, :max_features]
    held_out = [y @ matrix for y in kept]
    gap = (kept[0].mean(0) - kept[1].mean(0)) @ inverse_root
    full = _distance(gap, np.eye(d), kept)
    projected = _distance(gap @ basis[:, :max_features], np.eye(max_features), kept)
    names = ["discriminant", *(f"component_{i}" for i in range(1, max_features))]
    share = float(np.clip(projected / full, 0.0, 1.0)) if full > 0.0 else 0.0
    return Projection(matrix, names, held_out[0], held_out[1], share)


def _distance(gap: np.ndarray, covariance: np.ndarray, samples: list[np.ndarray]) -> float:
    """Return the squared distance of two means less what the noise of the means adds to it."""
    noise = np.trace(covariance) * sum(1.0 / len(y) for y in samples)
    return float(max(gap @ gap - noise, 0.0))
