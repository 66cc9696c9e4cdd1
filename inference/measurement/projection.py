"""Fewer coordinates for long embeddings: the discriminant and what varies most in the references."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.covariance import ledoit_wolf

from mixture_models.validation import InputError

# With as many degrees of freedom as this a feature the covariance is taken as it is, else it is shrunk.
_DOFS_A_FEATURE = 2.0

_FOLDS = 10


class Projection(NamedTuple):
    """A linear map of features, and the reference samples, mapped.

    Attributes:
        matrix: projected = y @ matrix, shape (feature, d).
        rest: a whitened basis of what is left out, shape (feature, feature - d).
        names: of the projected coordinates, or None where the features are kept as they are.
        old: the old reference, shape (sample, d).
        new: the new reference, shape (sample, d).
        information_kept: squared Mahalanobis distance of held-out references along the discriminant, over that
            by all features with the covariance that it was learnt with; 1 where nothing is projected.
    """

    matrix: Float[np.ndarray, "feature d"]
    rest: Float[np.ndarray, "feature e"]
    names: list[str] | None
    old: Float[np.ndarray, "n d"]
    new: Float[np.ndarray, "m d"]
    information_kept: float

    def apply(self, y: Float[np.ndarray, "n feature"]) -> Float[np.ndarray, "n d"]:
        """Return samples in the projected coordinates."""
        return y if self.names is None else y @ self.matrix


class _Whitened(NamedTuple):
    """A whitening map, y @ root whitened, and the discriminant in whitened coordinates, of length 1."""

    root: np.ndarray
    first: np.ndarray
    shrunk: bool


def project(old: np.ndarray, new: np.ndarray, max_features: int) -> Projection:
    """Return the features as they are if they are few, else their discriminant projection.

    Features are whitened by the references' covariance: as it is where the references are many, so that no
    affine map of the features changes the result, else shrunk toward the diagonal as Ledoit and Wolf do. The
    first coordinate is the linear discriminant, the others the directions in which the old reference varies
    most beside it. All reference samples are used: along the discriminant each stands where the others put
    it (cross-fitting), for a discriminant looks sharper on the samples that it was learnt on than it is.

    Raises:
        InputError: too few reference samples.

    Source: Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".
    """
    d = old.shape[1]
    if d <= max_features:
        return Projection(np.eye(d), np.zeros((d, 0)), None, old, new, 1.0)
    least = max_features + 5
    if min(len(old), len(new)) < _FOLDS or len(old) + len(new) - 2 < least:
        raise InputError(
            f"projecting {d} features to {max_features} takes {least + 2} reference samples, {_FOLDS} of either "
            f"task; got {len(old)} and {len(new)}: give more, or a smaller max_features"
        )
    whitened = _whitened(old, new)
    across = (old - old.mean(0)) @ whitened.root
    across = across - np.outer(across @ whitened.first, whitened.first)
    _, vectors = np.linalg.eigh(across.T @ across / len(old))
    # The discriminant itself is the direction without variance.
    basis = np.column_stack([whitened.first, vectors[:, ::-1][:, : d - 1]])
    basis, _ = np.linalg.qr(basis)
    basis *= np.where(np.mean((across @ basis) ** 3, axis=0) < 0.0, -1.0, 1.0)
    basis[:, 0] = whitened.first
    matrix, rest = whitened.root @ basis[:, :max_features], whitened.root @ basis[:, max_features:]
    along, kept = _crossfitted(old, new, whitened)
    mapped = [y @ matrix for y in (old, new)]
    for y, place in zip(mapped, along, strict=True):
        y[:, 0] = place
    names = ["discriminant", *(f"component_{i}" for i in range(1, max_features))]
    return Projection(matrix, rest, names, mapped[0], mapped[1], kept)


def _whitened(old: np.ndarray, new: np.ndarray, shrunk: bool | None = None) -> _Whitened:
    d = old.shape[1]
    within = np.concatenate([y - y.mean(0) for y in (old, new)])
    scale = np.sqrt(np.mean(within**2, axis=0))
    dof = len(within) - 2
    shrunk = dof < _DOFS_A_FEATURE * d if shrunk is None else shrunk
    standard = within / scale
    covariance = ledoit_wolf(standard, assume_centered=True)[0] if shrunk else standard.T @ standard / dof
    eigenvalues, vectors = np.linalg.eigh(covariance)
    root = (vectors / np.sqrt(eigenvalues)) / scale[:, None]
    difference = (old.mean(0) - new.mean(0)) @ root
    return _Whitened(root, difference / np.linalg.norm(difference), shrunk)


def _crossfitted(old: np.ndarray, new: np.ndarray, whitened: _Whitened) -> tuple[list[np.ndarray], float]:
    """Return where each reference sample stands along a discriminant that was learnt without it.

    Folds are by the place along the discriminant of all samples, so that the order of rows does not matter. The
    discriminant of a fold is scaled so that the midpoint and the distance of its own references' means agree
    with those of all.
    """
    direction = whitened.root @ whitened.first
    places = [y @ direction for y in (old, new)]
    folds = [np.argsort(np.argsort(place, kind="stable"), kind="stable") % _FOLDS for place in places]
    along = [np.zeros(len(y)) for y in (old, new)]
    for fold in range(_FOLDS):
        learnt = [y[f != fold] for y, f in zip((old, new), folds, strict=True)]
        other = _whitened(*learnt, shrunk=whitened.shrunk)
        axis = other.root @ other.first
        middle = 0.5 * sum(y.mean(0) for y in learnt) @ axis
        centre = 0.5 * sum(y.mean(0) for y in (old, new)) @ direction
        for task, y, f in zip(along, (old, new), folds, strict=True):
            task[f == fold] = y[f == fold] @ axis - middle + centre
    apart = along[0].mean() - along[1].mean()
    spread = np.sqrt(0.5 * sum(np.var(a) for a in along))
    whole = places[0].mean() - places[1].mean()
    return along, float(np.clip((apart / spread / max(whole, 1e-300)) ** 2, 0.0, 1.0))
