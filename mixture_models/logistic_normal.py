"""Logistic-normal integrals: every expectation of a log mixture density, and of a responsibility.

Between Gaussian modes with one covariance the log odds of a behaviour are linear in it, so under any
Gaussian they are a scalar Gaussian, and what remains of an expectation in any dimension is

    S(a, v) = E[softplus(a + √v Z)],  Z ~ N(0, 1),

and its derivatives S_k = ∂^k S/∂a^k = E[softplus^(k)(a + √v Z)]. By the heat equation ∂S_k/∂v = ½ S_{k+2}, so
all derivatives are such integrals too. Derivation: docs/theory.md.
"""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Float
from numpy.polynomial import Polynomial

# Below this s = √v the trapezoid rule is the better of the two, above it the Gauss rules are.
_SWITCH = 2.2


def softplus_mean(a: Float[Array, "..."], v: Float[Array, "..."], num_nodes: int = 32) -> Float[Array, "..."]:
    """Return S(a, v) = E[softplus(a + √v Z)], Z ~ N(0, 1).

    Args:
        a: mean of the log odds, shape (...).
        v: variance of the log odds, at least 0, same shape.
        num_nodes: of the Gauss rule; the trapezoid rule has 9/4 as many.
    """
    return _integral(0, num_nodes, a, v)


def sigmoid_mean(a: Float[Array, "..."], v: Float[Array, "..."], num_nodes: int = 32) -> Float[Array, "..."]:
    """Return ∂S/∂a = E[sigmoid(a + √v Z)], accurate relatively: every misassignment is one.

    For a < -v/2 by the tilt sigmoid(x) = e^x sigmoid(-x), which gives e^(a+v/2) E[sigmoid(-a-v + √v Z)].

    Args:
        a: mean of the log odds, shape (...).
        v: variance of the log odds, at least 0, same shape.
        num_nodes: of the Gauss rule; the trapezoid rule has 9/4 as many.
    """
    return _integral(1, num_nodes, a, v)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _integral(k: int, num_nodes: int, a: Array, v: Array) -> Array:
    """Return S_k(a, v)."""
    a, v = jnp.broadcast_arrays(jnp.asarray(a, float), jnp.asarray(v, float))
    if k != 1:
        return _untilted(k, num_nodes, a, v)
    tilted = a < -0.5 * v
    factor = jnp.exp(jnp.where(tilted, a + 0.5 * v, 0.0))
    return factor * _untilted(1, num_nodes, jnp.where(tilted, -a - v, a), v)


@_integral.defjvp
def _integral_jvp(k: int, num_nodes: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    a, v = primals
    by_a, by_v = (_integral(k + j, num_nodes, a, v) for j in (1, 2))
    return _integral(k, num_nodes, a, v), by_a * tangents[0] + 0.5 * by_v * tangents[1]


def _untilted(k: int, num_nodes: int, a: Array, v: Array) -> Array:
    narrow = v < _SWITCH**2
    below = _trapezoid(k, 9 * num_nodes // 4, a, jnp.sqrt(jnp.where(narrow, v, 1.0)))
    above = _gauss(k, num_nodes, a, jnp.sqrt(jnp.where(narrow, _SWITCH**2, v)))
    return jnp.where(narrow, below, above)


def _trapezoid(k: int, num_nodes: int, a: Array, s: Array) -> Array:
    """Sum over equidistant z around the bulk of the integrand; its poles lie at distance π/s."""
    centre = jnp.clip(-a / jnp.maximum(s, 1e-12), 0.0, s)[..., None]
    z = centre + np.linspace(-8.0, 8.0, num_nodes)
    weights = jnp.exp(-0.5 * z * z) * (16.0 / (num_nodes - 1) / np.sqrt(2.0 * np.pi))
    x = a[..., None] + s[..., None] * z
    return jnp.sum(weights * _softplus_derivative(k, x), axis=-1)


def _gauss(k: int, num_nodes: int, a: Array, s: Array) -> Array:
    """Split softplus^(k) into what it is far from 0 and a remainder of width 1 with its own Gauss rule."""
    u, weights = _rule(min(k, 2), num_nodes)
    x, y = ((sign * u - a[..., None]) / s[..., None] for sign in (1.0, -1.0))
    # Beyond k = 2 the derivatives fall on the normal density, whose m-th is He_m(t) N / s^m.
    order = max(k - 2, 0)
    norm = np.sqrt(2.0 * np.pi) * s[..., None] ** (order + 1)
    right, left = (jnp.exp(-0.5 * t * t) * _hermite(order, t) / norm for t in (x, y))
    if k == 1:
        return ndtr(a / s) + jnp.sum(weights * (left - right), axis=-1)
    remainder = jnp.sum(weights * (left + right), axis=-1)
    if k == 0:
        ratio = a / s
        return a * ndtr(ratio) + s * jnp.exp(-0.5 * ratio * ratio) / np.sqrt(2.0 * np.pi) + remainder
    return remainder


def _hermite(order: int, t: Any) -> Any:
    """Return the probabilists' Hermite polynomial He_order(t)."""
    previous: Any = 0.0
    current: Any = 1.0
    for m in range(order):
        previous, current = current, t * current - m * previous
    return current


def _softplus_derivative(k: int, x: Array) -> Array:
    """Return softplus^(k)(x); from k = 1 on a polynomial in sigmoid(x)."""
    if k == 0:
        return jax.nn.softplus(x)
    polynomial = Polynomial([0.0, 1.0])
    for _ in range(k - 1):
        polynomial = polynomial.deriv() * Polynomial([0.0, 1.0, -1.0])
    return jnp.polyval(jnp.asarray(polynomial.coef[::-1]), jax.nn.sigmoid(x))


@lru_cache
def _rule(kind: int, num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of the Gauss rule on [0, ∞) for a remainder of softplus^(kind).

    The weights are log1p(e^-u), sigmoid(-u) and sigmoid'(u). By the Stieltjes procedure on a fine
    discretisation (Gautschi 2004, "Orthogonal Polynomials", section 2.2), then the eigenvalues of the
    Jacobi matrix (Golub and Welsch 1969).
    """
    points, steps = np.polynomial.legendre.leggauss(64)
    edges = np.arange(0.0, 160.0, 4.0)
    u = (edges[:, None] + 2.0 * (points + 1.0)).ravel()
    sigmoid = np.exp(-np.logaddexp(0.0, u))
    weight = (np.log1p(np.exp(-u)), sigmoid, sigmoid * (1.0 - sigmoid))[kind]
    w = np.tile(2.0 * steps, edges.size) * weight
    previous, current = np.zeros_like(u), np.ones_like(u) / np.sqrt(w.sum())
    diagonal, coupling = np.zeros(num_nodes), np.zeros(num_nodes)
    for k in range(num_nodes):
        diagonal[k] = np.sum(w * u * current**2)
        following = (u - diagonal[k]) * current - (coupling[k - 1] if k else 0.0) * previous
        coupling[k] = np.sqrt(np.sum(w * following**2))
        previous, current = current, following / coupling[k]
    jacobi = np.diag(diagonal) + np.diag(coupling[:-1], 1) + np.diag(coupling[:-1], -1)
    nodes, vectors = np.linalg.eigh(jacobi)
    return nodes, w.sum() * vectors[0] ** 2
