"""Location and scatter of the references, of Gaussian and of Student-t modes, by maximum likelihood."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

#: Above this many degrees of freedom a Student-t mode is a Gaussian one for every purpose.
_MOST_DOF = 200.0

#: Rows of a reference that the kind of its modes is learnt from.
MOST_ROWS = 5000


class Moments(NamedTuple):
    """Location and scatter of one reference, and how many samples they are worth."""

    mean: np.ndarray
    scatter: np.ndarray
    worth: float


def moments_of(groups: Sequence[np.ndarray], tail_dof: float | None, *, shared: bool) -> list[Moments]:
    """Return mean and scatter of every reference; of Student-t modes by maximum likelihood."""
    if tail_dof is None:
        found = [
            Moments(y.mean(0), np.cov(y, rowvar=False, ddof=1).reshape(y.shape[1], -1), len(y))
            for y in groups
        ]
    else:
        try:
            found = student_moments(groups, tail_dof, shared=shared)
        except np.linalg.LinAlgError:
            # A feature that is nearly always one number in one reference has no scale of its own.
            found = student_moments(groups, tail_dof, shared=True)
    if shared and tail_dof is None:
        dofs = [len(y) - 1.0 for y in groups]
        pooled = sum(n * s.scatter for n, s in zip(dofs, found, strict=True)) / sum(dofs)
        found = [s._replace(scatter=np.asarray(pooled)) for s in found]
    return found


def reference_log_likelihood(groups: Sequence[np.ndarray], *, shared: bool, heavy_tails: bool) -> float:
    """Return the greatest log-likelihood of the references under one of the four kinds of modes [nat]."""
    tail_dof = fit_tail_dof(groups, shared=shared) if heavy_tails else None
    count, total = sum(map(len, groups)), 0.0
    for y, s in zip(groups, moments_of(groups, tail_dof, shared=shared), strict=True):
        correction = (count - float(len(groups))) / count if shared else (len(y) - 1.0) / len(y)
        scatter = s.scatter if heavy_tails else s.scatter * correction
        total += float(_log_density(y, s.mean, scatter, tail_dof).sum())
    return total


def has_heavy_tails(groups: Sequence[np.ndarray], tails: str, *, shared: bool) -> bool:
    """Return whether modes are Student-t: as it is asked for, or where that is ``"auto"`` by BIC."""
    if tails != "auto":
        return tails == "student"
    gaussian, student = (
        reference_log_likelihood(groups, shared=shared, heavy_tails=heavy) for heavy in (False, True)
    )
    return bool(student - gaussian > 0.5 * np.log(sum(map(len, groups))))


def fit_tail_dof(groups: Sequence[np.ndarray], *, shared: bool) -> float:
    """Return the degrees of freedom of Student-t modes that fit the references best, at most 200."""
    some = [y[:MOST_ROWS] for y in groups]

    def loss(log_dof: float) -> float:
        dof = float(np.exp(log_dof))
        try:
            fitted = student_moments(some, dof, shared=shared)
        except np.linalg.LinAlgError:
            # Of a feature that is nearly always one number the likelihood has no bound: no mode is like that.
            return float("inf")
        return -sum(
            float(_log_density(y, s.mean, s.scatter, dof).sum()) for y, s in zip(some, fitted, strict=True)
        )

    bounds = (np.log(1.5), np.log(_MOST_DOF))
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.05})
    return float(np.exp(found.x)) if np.isfinite(found.fun) else _MOST_DOF


def student_moments(groups: Sequence[np.ndarray], dof: float, *, shared: bool) -> list[Moments]:
    """Maximise the likelihood of Student-t modes by iterated weights (Kent, Tyler and Vardi 1994)."""
    d = groups[0].shape[1]
    means = [y.mean(axis=0) for y in groups]
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
        change = [np.trace(np.linalg.solve(a, b)) / d - 1.0 for a, b in zip(scatters, before, strict=True)]
        if np.abs(change).max() < 1e-7:
            break
    # Its samples are worth fewer for location and scatter than Gaussian ones.
    return [
        Moments(mean, scatter, len(y) * (dof + d) / (dof + d + 2.0))
        for mean, scatter, y in zip(means, scatters, groups, strict=True)
    ]


def _log_density(y: np.ndarray, mean: np.ndarray, scatter: np.ndarray, dof: float | None) -> np.ndarray:
    d = y.shape[1]
    distance, log_determinant = _distances(y - mean, scatter), np.linalg.slogdet(scatter)[1]
    if dof is None:
        gaussian: np.ndarray = -0.5 * (distance + d * np.log(2.0 * np.pi) + log_determinant)
        return gaussian
    constant = special.gammaln(0.5 * (dof + d)) - special.gammaln(0.5 * dof) - 0.5 * d * np.log(dof * np.pi)
    result: np.ndarray = constant - 0.5 * log_determinant - 0.5 * (dof + d) * np.log1p(distance / dof)
    return result


def _distances(residual: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    return np.sum((residual @ np.linalg.inv(np.linalg.cholesky(scatter)).T) ** 2, axis=1)
