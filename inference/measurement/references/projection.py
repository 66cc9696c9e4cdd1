"""Fewer coordinates for long embeddings: the discriminant and what varies most in the references."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.covariance import ledoit_wolf

from mixture_models.validation import InputError

# With as many degrees of freedom as this a feature the covariance is taken as it is, else it is shrunk.
_DOFS_A_FEATURE = 10.0

#: Of cross-fitting.
FOLDS = 10


class Projection(NamedTuple):
    """A linear map of features, and the reference samples, mapped.

    Attributes:
        matrix: projected = y @ matrix, shape (feature, d).
        rest: directions that are left out, shape (feature, feature - d).
        names: of the projected coordinates, or None where the features are kept as they are.
        old: the old reference, shape (sample, d).
        new: the new reference, shape (sample, d).
        information_kept: squared distance of held-out references along the discriminant, over that of the
            references that it was learnt on; 1 where nothing is projected.
        worth: share of the reference samples that their covariance is worth.
    """

    matrix: Float[np.ndarray, "feature d"]
    rest: Float[np.ndarray, "feature e"]
    names: list[str] | None
    old: Float[np.ndarray, "n d"]
    new: Float[np.ndarray, "m d"]
    information_kept: float
    worth: float

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

    The first coordinate is the linear discriminant, the others the directions beside it in which the old
    reference varies most. Features are whitened by the references' covariance, shrunk toward the diagonal as
    Ledoit and Wolf do unless the references are very many; the scale of a feature changes nothing, nor does
    the order of rows.

    Directions look better on the samples that they were learnt on than they are. So along the discriminant
    each reference sample stands where a discriminant puts it that was learnt without it (cross-fitting), and
    the directions beside it are learnt on one half of the references, whose covariance across the
    discriminant is then made that of the other half.

    Raises:
        InputError: too few reference samples.

    Source: Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".
    """
    d = old.shape[1]
    if d <= max_features:
        return Projection(np.eye(d), np.zeros((d, 0)), None, old, new, 1.0, 1.0)
    least = 2 * (max_features + 5)
    if min(len(old), len(new)) < 2 * FOLDS or len(old) + len(new) < least:
        raise InputError(
            f"projecting {d} features to {max_features} takes {least} reference samples, {2 * FOLDS} of "
            f"either task; got {len(old)} and {len(new)}: give more, or a smaller max_features"
        )
    whole = _whitened(old, new)
    direction = whole.root @ whole.first
    ranks = [np.argsort(np.argsort(y @ direction, kind="stable"), kind="stable") for y in (old, new)]
    along, kept = _crossfitted(old, new, whole, ranks)
    learnt = [rank % 2 == 0 for rank in ranks]
    half = _whitened(old[learnt[0]], new[learnt[1]])
    across = (old[learnt[0]] - old[learnt[0]].mean(0)) @ half.root
    across -= np.outer(across @ half.first, half.first)
    _, vectors = np.linalg.eigh(across.T @ across / len(across))
    # The discriminant is the direction without variance, the first; the others by their variance.
    basis = vectors[:, :0:-1]
    basis = basis * np.where(np.mean((across @ basis) ** 3, axis=0) < 0.0, -1.0, 1.0)
    directions = half.root @ basis
    matrix = np.column_stack([direction, directions[:, : max_features - 1]])
    mapped = []
    for y, place, mask in zip((old, new), along, learnt, strict=True):
        beside = recoloured(y @ matrix[:, 1:], mask)
        mapped.append(np.column_stack([place, beside]))
    names = ["discriminant", *(f"component_{i}" for i in range(1, max_features))]
    rest = directions[:, max_features - 1 :]
    return Projection(matrix, rest, names, mapped[0], mapped[1], kept, 0.5)


def recoloured(y: Float[np.ndarray, "n d"], mask: np.ndarray) -> Float[np.ndarray, "n d"]:
    """Give the rows of a mask the covariance of the others, around the mean that they have."""
    d = y.shape[1]
    if d == 0 or min(mask.sum(), (~mask).sum()) < d + 2:
        return y
    roots = [np.linalg.cholesky(np.cov(y[m], rowvar=False).reshape(d, d)) for m in (mask, ~mask)]
    mean = y[mask].mean(0)
    found = y.copy()
    found[mask] = mean + np.linalg.solve(roots[0], (y[mask] - mean).T).T @ roots[1].T
    return found


def whitening(groups: Sequence[np.ndarray], *, shrunk: bool | None = None) -> tuple[np.ndarray, bool]:
    """Return a map, y @ root whitened within groups, and whether their covariance was shrunk.

    Args:
        groups: samples of every task.
        shrunk: whether to shrink, None where the samples are few for their features.
    """
    d = groups[0].shape[1]
    within = np.concatenate([y - y.mean(0) for y in groups])
    scale = np.sqrt(np.mean(within**2, axis=0))
    dof = len(within) - len(groups)
    shrunk = dof < _DOFS_A_FEATURE * d if shrunk is None else shrunk
    standard = within / scale
    covariance = ledoit_wolf(standard, assume_centered=True)[0] if shrunk else standard.T @ standard / dof
    eigenvalues, vectors = np.linalg.eigh(covariance)
    return (vectors / np.sqrt(eigenvalues)) / scale[:, None], shrunk


def _whitened(old: np.ndarray, new: np.ndarray, *, shrunk: bool | None = None) -> _Whitened:
    root, shrunk = whitening([old, new], shrunk=shrunk)
    difference = (old.mean(0) - new.mean(0)) @ root
    return _Whitened(root, difference / np.linalg.norm(difference), shrunk)


def _crossfitted(
    old: np.ndarray, new: np.ndarray, whole: _Whitened, ranks: list[np.ndarray]
) -> tuple[list[np.ndarray], float]:
    """Return where each reference sample stands along a discriminant that was learnt without it.

    Folds are by the place along the discriminant of all samples, so that the order of rows does not matter. A
    fold's discriminant is shifted so that the midpoint of its references' means agrees with that of all.
    Returned also is how much of the squared distance along the discriminant of all samples is left.
    """
    direction = whole.root @ whole.first
    along = [np.zeros(len(y)) for y in (old, new)]
    for fold in range(FOLDS):
        held = [rank % FOLDS == fold for rank in ranks]
        learnt = [y[~h] for y, h in zip((old, new), held, strict=True)]
        other = _whitened(*learnt, shrunk=whole.shrunk)
        axis = other.root @ other.first
        middle = 0.5 * sum(y.mean(0) for y in learnt) @ axis
        centre = 0.5 * sum(y.mean(0) for y in (old, new)) @ direction
        for task, y, h in zip(along, (old, new), held, strict=True):
            task[h] = y[h] @ axis - middle + centre
    apart = [
        (np.mean(a) - np.mean(b)) ** 2 / (0.5 * (np.var(a) + np.var(b)))
        for a, b in (along, [y @ direction for y in (old, new)])
    ]
    return along, float(np.clip(apart[0] / max(apart[1], 1e-300), 0.0, 1.0))
