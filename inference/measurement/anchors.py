"""What the reference samples say of the two modes: a frame of coordinates, and how uncertain it is.

In the frame the references' pooled covariance is the identity, the new reference mean is the origin and the
old one lies on the first axis, so that with one covariance the first coordinate alone tells the modes apart.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float
from scipy import optimize, special

from mixture_models.validation import InputError

#: Above this many degrees of freedom a Student-t mode is a Gaussian one for every purpose.
_MOST_DOF = 200.0

# Rows of a reference that the kind of its modes is learnt from.
_MOST_ROWS = 5000


class Frame(NamedTuple):
    """An affine map from the user's features to the frame's coordinates.

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
        return (y - self.origin) @ self.forward.T


class Anchors(NamedTuple):
    """The two modes as the references show them, in the frame; a pytree of arrays.

    The precision of mode k is A_k A_kᵀ with A_k = [[κ, 0], [c, B]] lower triangular: (κ, c) decide how
    samples are told apart and stay uncertain, B (across the axis) is taken from the references.

    Attributes:
        means: of the old and the new reference, shape (2, d).
        mean_covariances: of those means, shape (2, d, d).
        axis_precision: κ, shape (K,); K = 1 where the modes share a covariance, else 2.
        tilt: c, shape (K, d - 1).
        across: B, shape (K, d - 1, d - 1).
        axis_dof: degrees of freedom of κ's posterior, shape (K,).
        tilt_dof: inverse variance of c's, in the metric of B, shape (K,).
        dof: degrees of freedom of the scatter, shape (K,).
        tail_dof: of Student-t modes, shape (), or None for Gaussian ones.
    """

    means: Float[Any, "2 d"]
    mean_covariances: Float[Any, "2 d d"]
    axis_precision: Float[Any, "K"]
    tilt: Float[Any, "K p"]
    across: Float[Any, "K p p"]
    axis_dof: Float[Any, "K"]
    tilt_dof: Float[Any, "K"]
    dof: Float[Any, "K"]
    tail_dof: Float[Any, ""] | None


class Shape(NamedTuple):
    """Location and scatter of one reference, and how many samples they are worth."""

    mean: np.ndarray
    scatter: np.ndarray
    worth: float


def anchor(
    old: Float[np.ndarray, "n feature"],
    new: Float[np.ndarray, "m feature"],
    *,
    shared: bool,
    heavy_tails: bool,
) -> tuple[Frame, Anchors]:
    """Return the frame and the anchors of two references.

    Args:
        old: reference samples of the old task.
        new: reference samples of the new task.
        shared: whether the modes share a covariance.
        heavy_tails: whether the modes are Student-t, their degrees of freedom fitted to the references.
    """
    tail_dof = fit_tail_dof(old, new, shared=shared) if heavy_tails else None
    shapes = mode_shapes(old, new, tail_dof, shared=shared)
    sizes, d = np.array([len(old), len(new)]), old.shape[1]
    worths = np.array([shape.worth for shape in shapes])
    pooled = sum(w * s.scatter for w, s in zip(sizes, shapes, strict=True)) / sizes.sum()
    frame = _frame(shapes[0].mean, shapes[1].mean, pooled)
    to_frame = frame.forward
    scatters = [to_frame @ s.scatter @ to_frame.T for s in shapes]
    if shared:
        scatters, dofs = [np.eye(d)], np.array([worths.sum() - 2.0])
    else:
        dofs = worths - 1.0
    # A mean-unbiased precision across the axis, for it is taken as it is.
    across_dofs = dofs - d
    triangles = np.stack([_lower_precision(scatter) for scatter in scatters])
    across = triangles[:, 1:, 1:] * np.sqrt(across_dofs / dofs)[:, None, None]
    every_scatter = scatters * 2 if shared else scatters
    anchors = Anchors(
        means=np.stack([frame.coordinates(s.mean[None])[0] for s in shapes]),
        mean_covariances=np.stack([s / w for s, w in zip(every_scatter, worths, strict=True)]),
        axis_precision=triangles[:, 0, 0],
        tilt=triangles[:, 1:, 0],
        across=across,
        axis_dof=dofs - (d - 1.0),
        tilt_dof=across_dofs,
        dof=dofs,
        tail_dof=None if tail_dof is None else np.asarray(tail_dof),
    )
    return frame, anchors


def mode_shapes(old: np.ndarray, new: np.ndarray, tail_dof: float | None, *, shared: bool) -> list[Shape]:
    """Return mean and scatter of both references; of Student-t modes by maximum likelihood."""
    groups = [old, new]
    if tail_dof is None:
        shapes = [
            Shape(y.mean(0), np.cov(y, rowvar=False, ddof=1).reshape(y.shape[1], -1), len(y)) for y in groups
        ]
    else:
        shapes = _student_shapes(groups, tail_dof, shared=shared)
    if shared and tail_dof is None:
        dofs = [len(y) - 1.0 for y in groups]
        pooled = sum(n * s.scatter for n, s in zip(dofs, shapes, strict=True)) / sum(dofs)
        shapes = [s._replace(scatter=np.asarray(pooled)) for s in shapes]
    return shapes


def reference_log_likelihood(old: np.ndarray, new: np.ndarray, *, shared: bool, heavy_tails: bool) -> float:
    """Return the greatest log-likelihood of the references under one of the four kinds of modes [nat]."""
    tail_dof = fit_tail_dof(old, new, shared=shared) if heavy_tails else None
    shapes = mode_shapes(old, new, tail_dof, shared=shared)
    total = 0.0
    for y, s in zip((old, new), shapes, strict=True):
        correction = (
            (len(old) + len(new) - 2.0) / (len(old) + len(new)) if shared else (len(y) - 1.0) / len(y)
        )
        scatter = s.scatter if heavy_tails else s.scatter * correction
        total += float(_log_density(y, s.mean, scatter, tail_dof).sum())
    return total


def choose_modes(old: np.ndarray, new: np.ndarray) -> tuple[bool, bool]:
    """Return (shared, heavy_tails), the kind of modes that the references prefer by BIC."""
    old, new = (y[:_MOST_ROWS] for y in (old, new))
    n, d = len(old) + len(new), old.shape[1]
    smallest = min(len(old), len(new))
    candidates = {}
    for shared in (True, False):
        for heavy_tails in (False, True):
            if not shared and smallest < 2 * d + 10:
                continue
            parameters = 2 * d + (1 if shared else 2) * d * (d + 1) / 2 + heavy_tails
            value = reference_log_likelihood(old, new, shared=shared, heavy_tails=heavy_tails)
            candidates[shared, heavy_tails] = value - 0.5 * parameters * np.log(n)
    return max(candidates, key=lambda key: candidates[key])


def fit_tail_dof(old: np.ndarray, new: np.ndarray, *, shared: bool) -> float:
    """Return the degrees of freedom of Student-t modes that fit the references best, at most 200."""
    old, new = (y[:_MOST_ROWS] for y in (old, new))

    def loss(log_dof: float) -> float:
        dof = float(np.exp(log_dof))
        shapes = _student_shapes([old, new], dof, shared=shared)
        return -sum(
            float(_log_density(y, s.mean, s.scatter, dof).sum())
            for y, s in zip((old, new), shapes, strict=True)
        )

    bounds = (np.log(1.5), np.log(_MOST_DOF))
    return float(
        np.exp(optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.05}).x)
    )


def _student_shapes(groups: list[np.ndarray], dof: float, *, shared: bool) -> list[Shape]:
    """Maximise the likelihood of Student-t modes by iterated weights (Kent, Tyler and Vardi 1994)."""
    d = groups[0].shape[1]
    means = [np.median(y, axis=0) for y in groups]
    scatters = [np.cov(y, rowvar=False).reshape(d, d) for y in groups]
    for _ in range(100):
        moments = []
        for index, y in enumerate(groups):
            residual = y - means[index]
            distance = _distances(residual, scatters[index])
            weights = (dof + d) / (dof + distance)
            means[index] = weights @ y / weights.sum()
            residual = y - means[index]
            moments.append((residual.T @ (weights[:, None] * residual), weights.sum()))
        before = scatters
        if shared:
            scatters = [sum(m for m, _ in moments) / sum(w for _, w in moments)] * len(groups)
        else:
            scatters = [m / w for m, w in moments]
        if max(np.abs(a - b).max() / np.abs(a).max() for a, b in zip(scatters, before, strict=True)) < 1e-6:
            break
    # Its samples are worth fewer for location and scatter than Gaussian ones.
    return [
        Shape(mean, scatter, len(y) * (dof + d) / (dof + d + 2.0))
        for mean, scatter, y in zip(means, scatters, groups, strict=True)
    ]


def _log_density(y: np.ndarray, mean: np.ndarray, scatter: np.ndarray, dof: float | None) -> np.ndarray:
    d = y.shape[1]
    distance, log_determinant = _distances(y - mean, scatter), np.linalg.slogdet(scatter)[1]
    if dof is None:
        return -0.5 * (distance + d * np.log(2.0 * np.pi) + log_determinant)
    constant = special.gammaln(0.5 * (dof + d)) - special.gammaln(0.5 * dof) - 0.5 * d * np.log(dof * np.pi)
    return constant - 0.5 * log_determinant - 0.5 * (dof + d) * np.log1p(distance / dof)


def _distances(residual: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    return np.sum((residual @ np.linalg.inv(np.linalg.cholesky(scatter)).T) ** 2, axis=1)


def _frame(old_mean: np.ndarray, new_mean: np.ndarray, covariance: np.ndarray) -> Frame:
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
    backward = scale @ rotation.T
    forward = scipy.linalg.solve_triangular(scale, rotation.T, lower=True, trans="T").T
    return Frame(new_mean, forward, backward)


def _lower_precision(covariance: np.ndarray) -> np.ndarray:
    """Return the lower triangle A with A Aᵀ the inverse of a covariance."""
    return np.linalg.cholesky(np.linalg.inv(covariance))
