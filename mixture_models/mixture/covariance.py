"""Covariances with their structure kept: a scale is a scalar, a diagonal or a lower triangle.

A *scale* L stands for the covariance Σ = L Lᵀ and is an array of rank 0 (standard deviation of an
isotropic covariance), 1 (standard deviations of a diagonal one) or 2 (Cholesky factor). Everything
costs O(1), O(d) and O(d²) a vector accordingly.
"""

import jax
import numpy as np
import scipy.linalg
from jaxtyping import Float
from numpy.typing import ArrayLike

from mixture_models.types import AnyArray, Reals
from mixture_models.validation import InputError, finite_array

# Variances whose inverses, times squares of distances, are floats.
_LEAST, _MOST = 1e-200, 1e200

#: A rank-0, rank-1 or rank-2 scale, see the module's docstring.
Scale = Float[AnyArray, "..."]


def scale_of(name: str, covariance: ArrayLike | None, dim: int) -> Reals:
    """Return the scale of a covariance given as None (identity), scalar, diagonal or matrix.

    Args:
        name: what to call the covariance in an error.
        covariance: None, a variance, ``dim`` variances, or a ``(dim, dim)`` matrix.
        dim: dimension d of a sample.

    Returns:
        float64 array of rank 0, 1 or 2.

    Raises:
        InputError: not finite, of another shape, not symmetric, or not positive definite.
    """
    if covariance is None:
        return np.ones(())
    value = finite_array(name, covariance)
    if value.ndim > 2 or any(size != dim for size in value.shape):
        raise InputError(
            f"{name} must be a scalar, {dim} variances or a {dim} x {dim} matrix; got shape {value.shape}"
        )
    if value.ndim < 2:
        if np.any(value <= 0.0):
            raise InputError(f"{name} must be positive definite; got a variance of {value.min():g}")
        if not np.all((value >= _LEAST) & (value <= _MOST)):
            worst = value.min() if value.min() < _LEAST else value.max()
            raise InputError(f"variances of {name} must lie in [{_LEAST:g}, {_MOST:g}]; got {worst:g}")
        return np.sqrt(value)
    if not np.allclose(value, value.T, rtol=1e-8, atol=1e-12 * np.abs(value).max()):
        raise InputError(f"{name} must be symmetric; got a matrix that differs from its transpose")
    try:
        return np.linalg.cholesky(value)
    except np.linalg.LinAlgError:
        lowest = np.linalg.eigvalsh(value).min()
        raise InputError(f"{name} must be positive definite; its lowest eigenvalue is {lowest:g}") from None


def colour(scale: Scale, z: AnyArray) -> AnyArray:
    """Return L z for vectors ``z`` of shape (..., d)."""
    return z @ scale.T if scale.ndim == 2 else scale * z


def colour_transposed(scale: Scale, g: AnyArray) -> AnyArray:
    """Return Lᵀ g for vectors ``g`` of shape (..., d): gradients in whitened coordinates."""
    return g @ scale if scale.ndim == 2 else scale * g


def whiten(scale: Scale, y: AnyArray) -> AnyArray:
    """Return L⁻¹ y for vectors ``y`` of shape (..., d), NumPy in, NumPy out."""
    return _solve(scale, y, transposed=False) if scale.ndim == 2 else y / scale


def whiten_transposed(scale: Scale, u: AnyArray) -> AnyArray:
    """Return L⁻ᵀ u for vectors ``u`` of shape (..., d): whitened gradients in the user's coordinates."""
    return _solve(scale, u, transposed=True) if scale.ndim == 2 else u / scale


def length(scale: Scale, difference: AnyArray) -> AnyArray:
    """Return the Mahalanobis length |L⁻¹ x| of vectors ``difference`` of shape (..., d)."""
    u = whiten(scale, difference)
    return (u * u).sum(axis=-1) ** 0.5


def log_determinant(scale: Scale, dim: int) -> AnyArray:
    """Return log|L| = ½ log|Σ| in ``dim`` dimensions."""
    xp = scale.__array_namespace__()
    if scale.ndim == 0:
        return dim * xp.log(scale)
    return xp.sum(xp.log(xp.linalg.diagonal(scale) if scale.ndim == 2 else scale))


def dense(scale: Scale, dim: int) -> AnyArray:
    """Return the scale as a (d, d) lower triangle."""
    xp = scale.__array_namespace__()
    return scale if scale.ndim == 2 else scale * xp.eye(dim, dtype=scale.dtype)


def mean_scale(one: Scale, two: Scale) -> Scale:
    """Return the square root of (L Lᵀ + L' L'ᵀ)/2, structured as the richer of the two."""
    if one is two:
        return one
    if one.ndim < 2 and two.ndim < 2:
        return ((one * one + two * two) / 2.0) ** 0.5
    dim = max(one.shape[-1] if one.ndim else 1, two.shape[-1] if two.ndim else 1)
    a, b = dense(one, dim), dense(two, dim)
    return a.__array_namespace__().linalg.cholesky((a @ a.T + b @ b.T) / 2.0)


def _solve(scale: Scale, y: AnyArray, *, transposed: bool) -> AnyArray:
    exact = isinstance(scale, np.ndarray) and isinstance(y, np.ndarray)
    linalg = scipy.linalg if exact else jax.scipy.linalg
    columns = y.reshape(-1, y.shape[-1]).T
    return linalg.solve_triangular(scale, columns, lower=True, trans=int(transposed)).T.reshape(y.shape)
