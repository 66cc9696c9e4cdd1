"""Coordinates in which several tasks are told apart: the linear discriminants first, the rest beside them."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int

from inference.measurement.references.projection import FOLDS, recoloured, whitening
from mixture_models.validation import InputError

# Means that are nearer than this are the same [Mahalanobis]; discriminants that explain less of the squared
# distances between the means than this share are rounding.
_LEAST_DISTANCE, _LEAST_SHARE = 1e-8, 1e-12

# How much larger squared distances along a discriminant must be than errors of the means make them at most.
_ABOVE_NOISE = 1.5


class Discriminants(NamedTuple):
    """An affine map of features to d coordinates, and the references in them.

    The first q coordinates are the linear discriminants, those after them have unit covariance within the
    references and are uncorrelated with them.

    Attributes:
        num: q, at most one less than there are tasks; fewer where the means lie as good as in a plane.
        origin: mean of the tasks' means, shape (feature,).
        forward: coordinates = (y - origin) @ forward.T, shape (d, feature).
        backward: displacement = coordinates @ backward.T, shape (feature, d); the identity where features are
            projected, and displacements stay in the coordinates.
        rows: reference samples, along the discriminants where those put them that were learnt without them;
            shape (n, d) for every task.
        inside: reference samples as the map puts them, likewise.
        names: of the coordinates where features are projected, or None.
        rest: directions that are left out, shape (feature, e).
        information_kept: squared distances of held-out references along the discriminants, over those of the
            references that these were learnt on.
        worth: share of the reference samples that their covariance is worth.
    """

    num: int
    origin: Float[np.ndarray, "feature"]
    forward: Float[np.ndarray, "d feature"]
    backward: Float[np.ndarray, "feature d"]
    rows: tuple[Float[np.ndarray, "n d"], ...]
    inside: tuple[Float[np.ndarray, "n d"], ...]
    names: list[str] | None
    rest: Float[np.ndarray, "feature e"]
    information_kept: float
    worth: float

    def coordinates(self, y: Float[np.ndarray, "n feature"]) -> Float[np.ndarray, "n d"]:
        """Return samples in the coordinates."""
        result: np.ndarray = (y - self.origin) @ self.forward.T
        return result


class _Learnt(NamedTuple):
    """What some references say.

    Attributes:
        root: their whitening.
        shrunk: whether their covariance was.
        origin: mean of the tasks' means.
        means: every task's mean less this, whitened.
        noise: expected squared length of a whitened mean's error, averaged over tasks.
    """

    root: Float[np.ndarray, "feature feature"]
    shrunk: bool
    origin: Float[np.ndarray, "feature"]
    means: Float[np.ndarray, "feature K"]
    noise: float


def in_order(references: Sequence[Float[np.ndarray, "n feature"]]) -> Int[np.ndarray, "K"]:
    """Return the places of the references in an order that neither their order nor that of features changes.

    What is drawn at random for a task goes by this order, so that results do not depend on another one.

    Raises:
        InputError: two references with the same mean.
    """
    means = _learnt(references).means
    apart = scipy.linalg.norm(means[:, :, None] - means[:, None, :], axis=0)
    return np.argsort(np.round(apart.sum(axis=1) / apart.mean(), 9), kind="stable")


def check_means(references: dict[str, Float[np.ndarray, "n feature"]]) -> None:
    """Refuse two references with the same mean.

    Raises:
        InputError: it names the two.
    """
    means = _learnt(list(references.values())).means
    for (i, one), (j, other) in combinations(enumerate(references), 2):
        if not np.linalg.norm(means[:, i] - means[:, j]) > _LEAST_DISTANCE:
            raise InputError(f"the references must differ; {one} and {other} have the same mean")


def discriminants_of(
    references: Sequence[Float[np.ndarray, "n feature"]], max_features: int
) -> Discriminants:
    """Return the discriminants of some references, and the directions beside them.

    With S the covariance within the references, m the means less their mean and Mᵀ S⁻¹ M = V Λ Vᵀ, the
    discriminants are Λ^-½ Vᵀ Mᵀ S⁻¹ (y - m̄). They look better on the samples that they were learnt on than
    they are. So along them each reference sample stands where M_f and S_f put it that were learnt without its
    fold, with the same V and Λ: ten folds by the place along the first discriminant, so that neither the
    order of rows nor, unless S is shrunk, an affine map of the features changes anything.

    The directions beside them are the principal ones of the first reference. With more than ``max_features``
    features S is shrunk as `projection` does, and the directions beside are those in which the references
    vary most, learnt on one half of these, whose covariance is then made that of the other half.

    Args:
        references: samples of every task, in the order of `in_order`.
        max_features: coordinates at most.

    Raises:
        InputError: too few coordinates for the tasks, or too few samples for a projection.
    """
    width = references[0].shape[1]
    d = min(width, max_features)
    if max_features < min(len(references) - 1, width):
        raise InputError(
            f"max_features must be at least one less than there are tasks, {len(references) - 1}; "
            f"got {max_features}"
        )
    _check_sizes(references, width, d)
    whole = _learnt(references)
    scores, directions = _basis(whole)
    num = directions.shape[1]
    along = whole.root @ directions
    first = [(y - whole.origin) @ along for y in references]
    rows, kept = first, 1.0
    if num < width:
        rows = _crossfitted(references, whole, scores, first)
        kept = _kept(rows, first)
    if d == width:
        beside = whole.root @ _beside(references[0], whole, directions)
        parts = [(y - whole.origin) @ beside for y in references]
        rest, names, worth = np.zeros((width, 0)), None, 1.0
    else:
        beside, rest, parts = _varying_most(references, first, d - num)
        names = [f"discriminant_{i + 1}" for i in range(num)] + [f"component_{i + 1}" for i in range(d - num)]
        worth = 0.5
        parts = [part - whole.origin @ beside for part in parts]
        root, _ = whitening(parts, shrunk=False) if d > num else (np.eye(0), False)
        beside, parts = beside @ root, [part @ root for part in parts]
    forward = np.concatenate([along, beside], axis=1).T
    return Discriminants(
        num,
        whole.origin,
        forward,
        np.linalg.inv(forward) if d == width else np.eye(d),
        tuple(np.column_stack(pair) for pair in zip(rows, parts, strict=True)),
        tuple(np.column_stack(pair) for pair in zip(first, parts, strict=True)),
        names,
        rest,
        kept,
        worth,
    )


def _check_sizes(references: Sequence[np.ndarray], width: int, d: int) -> None:
    sizes, least = [len(y) for y in references], 2 * (d + 5)
    if d < width and (min(sizes) < 2 * FOLDS or sum(sizes) < least):
        raise InputError(
            f"projecting {width} features to {d} takes {least} reference samples, {2 * FOLDS} of every task; "
            f"got {', '.join(map(str, sizes))}: give more, or a smaller max_features"
        )


def _learnt(references: Sequence[np.ndarray], *, shrunk: bool | None = None) -> _Learnt:
    root, shrunk = whitening(references, shrunk=shrunk)
    means = np.stack([y.mean(axis=0) for y in references])
    errors = [np.sum(((y - m) @ root) ** 2) / len(y) ** 2 for y, m in zip(references, means, strict=True)]
    whitened = ((means - means.mean(axis=0)) @ root).T
    return _Learnt(root, shrunk, means.mean(axis=0), whitened, float(np.mean(errors)))


def _basis(learnt: _Learnt) -> tuple[Float[np.ndarray, "K q"], Float[np.ndarray, "feature q"]]:
    """Return V Λ^-½, and the discriminants in whitened coordinates.

    Means that are equal lie apart by their errors, which along q directions of d make eigenvalues of up to
    (1 + √(q/d))² of an error's squared length (Marchenko and Pastur). Below that a discriminant is as good as
    random, and references would lie otherwise along it than a checkpoint's samples.
    """
    values, vectors = np.linalg.eigh(learnt.means.T @ learnt.means)
    num = min(len(values) - 1, learnt.means.shape[0])
    values, vectors = values[::-1][:num], vectors[:, ::-1][:, :num]
    largest_noise = learnt.noise * (1.0 + np.sqrt(num / learnt.means.shape[0])) ** 2
    told = values > max(_LEAST_SHARE * values[0], _ABOVE_NOISE * largest_noise)
    # Without any that is told from noise, the first is all there is.
    told[0] = True
    values, vectors = values[told], vectors[:, told]
    largest = np.argmax(np.round(np.abs(vectors), 6), axis=0)
    vectors = vectors * np.sign(vectors[largest, np.arange(len(values))])
    scores = vectors / np.sqrt(values)
    return scores, learnt.means @ scores


def _crossfitted(
    references: Sequence[np.ndarray], whole: _Learnt, scores: np.ndarray, first: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Return the references along discriminants that were learnt without them."""
    ranks = [np.argsort(np.argsort(y[:, 0], kind="stable"), kind="stable") for y in first]
    found = [np.zeros_like(y) for y in first]
    dof, width = sum(map(len, references)) - len(references), references[0].shape[1]
    for fold in range(FOLDS):
        held = [rank % FOLDS == fold for rank in ranks]
        others = [y[~h] for y, h in zip(references, held, strict=True)]
        other = _learnt(others, shrunk=whole.shrunk)
        along = other.root @ (other.means @ scores)
        if not whole.shrunk:
            # An inverse covariance of fewer samples is too large by more.
            fewer = sum(map(len, others)) - len(others)
            along = along * max(1.0 - width / fewer, 0.1) / max(1.0 - width / dof, 0.1)
        for one, y, h in zip(found, references, held, strict=True):
            one[h] = (y[h] - other.origin) @ along
    return found


def _kept(rows: Sequence[np.ndarray], first: Sequence[np.ndarray]) -> float:
    """Return the squared distances of means from their mean in the metric of rows, over those of others."""
    apart = []
    for groups in (rows, first):
        root, _ = whitening(groups, shrunk=False)
        means = np.stack([y.mean(axis=0) for y in groups]) @ root
        apart.append(float(np.sum((means - means.mean(axis=0)) ** 2)))
    return float(np.clip(apart[0] / max(apart[1], 1e-300), 0.0, 1.0))


def _beside(reference: np.ndarray, learnt: _Learnt, directions: np.ndarray) -> np.ndarray:
    """Return the principal directions of a reference beside the discriminants, in whitened coordinates.

    The third moment along each is at least 0.
    """
    free = scipy.linalg.null_space(directions.T)
    inside = (reference - reference.mean(axis=0)) @ learnt.root @ free
    _, vectors = np.linalg.eigh(inside.T @ inside)
    thirds = np.mean((inside @ vectors) ** 3, axis=0)
    return np.asarray(free @ vectors * np.where(thirds < 0.0, -1.0, 1.0))


def _varying_most(
    references: Sequence[np.ndarray], first: Sequence[np.ndarray], num: int
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return directions beside the discriminants in which references vary most, the rest, and them there."""
    ranks = [np.argsort(np.argsort(y[:, 0], kind="stable"), kind="stable") for y in first]
    masks = [rank % 2 == 0 for rank in ranks]
    half = _learnt([y[mask] for y, mask in zip(references, masks, strict=True)])
    free = scipy.linalg.null_space(_basis(half)[1].T)
    within = np.concatenate([y[m] - y[m].mean(axis=0) for y, m in zip(references, masks, strict=True)])
    inside = within @ half.root @ free
    _, vectors = np.linalg.eigh(inside.T @ inside)
    vectors = vectors[:, ::-1]
    thirds = np.mean((inside @ vectors) ** 3, axis=0)
    directions = half.root @ free @ (vectors * np.where(thirds < 0.0, -1.0, 1.0))
    chosen = directions[:, :num]
    there = [recoloured(y @ chosen, mask) for y, mask in zip(references, masks, strict=True)]
    return chosen, directions[:, num:], there
