"""Logistic-normal integrals: every expectation of a log mixture density, and of a responsibility.

Between Gaussian modes with one covariance the log odds of a sample are linear in it, so under any
Gaussian they are a scalar Gaussian, and what remains of an expectation in any dimension is

    S(a, v) = E[softplus(a + √v Z)],  Z ~ N(0, 1),

and its derivatives S_k = ∂^k S/∂a^k = E[softplus^(k)(a + √v Z)]. By the heat equation ∂S_k/∂v = ½ S_{k+2}, so
all derivatives are such integrals too. Derivation: docs/theory.md.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jax.scipy.special import ndtr
from jaxtyping import Array, Float
from numpy.polynomial import Polynomial

from mixture_models.accel.elementary import horner, log1p
from mixture_models.types import Index, Reals, Scalar

# Nodes of the Gauss and of the trapezoid rule, coarse to fine: the errors are about 1e-9, 1e-11 and 1e-13.
_NUM_NODES = ((24, 52), (28, 60), (36, 80))

#: The finest resolution of the integrals; a coarser one costs less, and tells their error.
FINEST = len(_NUM_NODES) - 1

# Below this s = √v the trapezoid rule is the better of the two, above it the Gauss rule is.
_SWITCH = 2.2

# Standard deviations that the trapezoid rule covers on either side of the bulk.
_REACH = 8.0

_ROOT_2PI = float(np.sqrt(2.0 * np.pi))


def softplus_mean(
    a: Float[Array, "..."], v: Float[Array, "..."], resolution: Index = FINEST
) -> Float[Array, "..."]:
    """Return S(a, v) = E[softplus(a + √v Z)], Z ~ N(0, 1).

    Args:
        a: mean of the log odds, shape (...).
        v: variance of the log odds, at least 0, same shape.
        resolution: whole number from 0 to `FINEST`, which may be traced.
    """
    return _integrals(0, a, v, resolution)[0]


def sigmoid_mean(
    a: Float[Array, "..."], v: Float[Array, "..."], resolution: Index = FINEST
) -> Float[Array, "..."]:
    """Return ∂S/∂a = E[sigmoid(a + √v Z)], accurate relatively: every misassignment is one.

    Arguments are those of `softplus_mean`.
    """
    return _integrals(1, a, v, resolution)[1]


def sigmoid_means(
    a: Float[Array, "..."], v: Float[Array, "..."], resolution: Index = FINEST
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Return E[sigmoid(a + √v Z)] and E[sigmoid'(a + √v Z)] of one pass, the first accurate relatively.

    Arguments are those of `softplus_mean`.
    """
    _, mean, slope = _integrals(2, a, v, resolution)
    return mean, slope


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _integrals(order: int, a: Array, v: Array, resolution: Index) -> tuple[Array, ...]:
    """Return S_0, ..., S_order at (a, v), of one pass over the nodes."""
    a, v = jnp.broadcast_arrays(jnp.asarray(a, float), jnp.asarray(v, float))
    return _flat(order)(a, v, jnp.asarray(resolution, jnp.int32))


@_integrals.defjvp
def _integrals_jvp(
    order: int, primals: tuple[Array, Array, Index], tangents: tuple[Array, Array, Array]
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    values = _integrals(order + 2, *primals)
    by_a, by_v, _ = tangents
    return values[: order + 1], tuple(
        values[k + 1] * by_a + 0.5 * values[k + 2] * by_v for k in range(order + 1)
    )


@lru_cache
def _flat(order: int) -> Callable[..., tuple[Array, ...]]:
    """Return S_0, ..., S_order as a function that makes one long vector of all batch dimensions.

    Without it the loops run along the innermost dimension, which ``vmap`` leaves short.
    """

    @custom_vmap
    def values(a: Array, v: Array, resolution: Array) -> tuple[Array, ...]:
        return tuple(s.reshape(a.shape) for s in _evaluate(order, a.ravel(), v.ravel(), resolution))

    @values.def_vmap
    def batched(
        size: int, is_batched: Sequence[bool], a: Array, v: Array, resolution: Array
    ) -> tuple[tuple[Array, ...], tuple[bool, ...]]:
        a, v = (
            x if batch else jnp.broadcast_to(x, (size, *x.shape))
            for x, batch in zip((a, v), is_batched[:2], strict=True)
        )
        return values(a, v, jnp.max(resolution)), (True,) * (order + 1)

    return values


def _evaluate(order: int, a: Array, v: Array, resolution: Array) -> tuple[Array, ...]:
    """Evaluate a vector of integrals; a rule that none of them needs is not run."""
    narrow = v < _SWITCH**2
    s_narrow, s_wide = jnp.sqrt(jnp.where(narrow, v, 1.0)), jnp.sqrt(jnp.where(narrow, _SWITCH**2, v))
    below = _where_needed(narrow, partial(_trapezoid, order), order + 1, a, s_narrow, resolution)
    above = _where_needed(~narrow, partial(_gauss, order), order + 1, a, s_wide, resolution)
    if order > 0:
        # In the far tail sigmoid(x) = e^x sigmoid(-x) keeps S_1 right relatively, by e^(a+v/2) S_1(-a-v, v).
        tilted = ~narrow & (a < -0.5 * v)
        mirrored = jnp.where(tilted, -a - v, a)
        tail = _where_needed(tilted, partial(_gauss, 1), 2, mirrored, s_wide, resolution)[1]
        factor = jnp.exp(jnp.where(tilted, a + 0.5 * v, 0.0))
        above = (above[0], jnp.where(tilted, factor * tail, above[1]), *above[2:])
    return tuple(jnp.where(narrow, low, high) for low, high in zip(below, above, strict=True))


def _where_needed(
    needed: Array,
    rule: Callable[[Array, Array, Array], tuple[Array, ...]],
    count: int,
    a: Array,
    s: Array,
    resolution: Array,
) -> tuple[Array, ...]:
    """Return ``rule(a, s, resolution)``, or ``count`` arrays of zeros where no entry needs it."""
    result: tuple[Array, ...] = lax.cond(
        jnp.any(needed), rule, lambda a, *_: (jnp.zeros_like(a),) * count, a, s, resolution
    )
    return result


def _trapezoid(order: int, a: Array, s: Array, resolution: Array) -> tuple[Array, ...]:
    """Sum over equidistant z around the bulk of the integrand; its poles lie at distance π/s."""
    centre = jnp.clip(-a / jnp.maximum(s, 1e-12), 0.0, s)

    def terms(offset: Array, step: Array) -> list[Array]:
        z = centre + offset
        weight = jnp.exp(-0.5 * z * z) * (step / _ROOT_2PI)
        x = a + s * z
        small = jnp.exp(-jnp.abs(x))
        share = jnp.where(x > 0.0, 1.0, small) / (1.0 + small)
        softplus = jnp.maximum(x, 0.0) + log1p(small)
        functions = [softplus] + [horner(c, share) for c in _sigmoid_derivatives(order)]
        return [weight * f for f in functions]

    return _sum_over_nodes(terms, _trapezoid_rule, 1, order + 1, a, resolution)


def _gauss(order: int, a: Array, s: Array, resolution: Array) -> tuple[Array, ...]:
    """Split softplus into max(x, 0) and log1p(e^-|x|), which has its own Gauss rule; then differentiate.

    Every derivative falls on the normal density, whose k-th is (-1)^k He_k(t) N(t) / s^k.
    """
    inverse = 1.0 / s

    def terms(u: Array, weight: Array) -> list[Array]:
        x, y = (u - a) * inverse, (-u - a) * inverse
        right, left = (weight / _ROOT_2PI * jnp.exp(-0.5 * t * t) for t in (x, y))
        return [right * _hermite(k, x) + left * _hermite(k, y) for k in range(order + 1)]

    remainders = _sum_over_nodes(terms, _gauss_rule, 0, order + 1, a, resolution)
    ratio = a * inverse
    density = jnp.exp(-0.5 * ratio * ratio) / _ROOT_2PI
    positive = ndtr(ratio)
    main = [a * positive + s * density, positive] + [
        (-1) ** k * _hermite(k - 2, ratio) * density * inverse ** (k - 1) for k in range(2, order + 1)
    ]
    return tuple(m + r * inverse ** (k + 1) for k, (m, r) in enumerate(zip(main, remainders, strict=False)))


def _sum_over_nodes(
    terms: Callable[[Array, Array], list[Array]],
    rule: Callable[[int], tuple[Reals, Reals]],
    which: int,
    count: int,
    like: Array,
    resolution: Array,
) -> tuple[Array, ...]:
    """Return the sums of ``count`` terms over a rule's nodes and weights, ``which`` one of `_NUM_NODES`.

    In a loop, so that a CPU vectorises over the batch; its length is traced, so that resolutions share a
    program.
    """
    counts = [pair[which] for pair in _NUM_NODES]
    padded = [[np.pad(column, (0, max(counts) - n)) for column in rule(n)] for n in counts]
    nodes, weights = jnp.asarray(np.stack(padded))[resolution]

    def add(i: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(total + term for total, term in zip(sums, terms(nodes[i], weights[i]), strict=True))

    length = jnp.asarray(counts)[resolution]
    result: tuple[Array, ...] = lax.fori_loop(0, length, add, (jnp.zeros_like(like),) * count)
    return result


def _hermite(order: int, t: Array) -> Scalar:
    """Return the probabilists' Hermite polynomial He_order(t)."""
    previous: Scalar = 0.0
    current: Scalar = 1.0
    for m in range(order):
        previous, current = current, t * current - m * previous
    return current


@lru_cache
def _sigmoid_derivatives(order: int) -> list[np.ndarray]:
    """Return softplus', ..., softplus^(order) as polynomials in sigmoid, the constant first."""
    polynomials = [Polynomial([0.0, 1.0])]
    while len(polynomials) < order:
        polynomials.append(polynomials[-1].deriv() * Polynomial([0.0, 1.0, -1.0]))
    return [p.coef for p in polynomials[:order]]


def _trapezoid_rule(num_nodes: int) -> tuple[Reals, Reals]:
    """Return equidistant nodes and, for each, the step between them."""
    nodes, step = np.linspace(-_REACH, _REACH, num_nodes, retstep=True)
    return nodes, np.full(num_nodes, step)


@lru_cache
def _gauss_rule(num_nodes: int) -> tuple[Reals, Reals]:
    """Return nodes and weights of the Gauss rule on [0, ∞) for the weight log1p(e^-u).

    By the Stieltjes procedure on a fine discretisation (Gautschi 2004, "Orthogonal Polynomials", section
    2.2), then the eigenvalues of the Jacobi matrix (Golub and Welsch 1969).
    """
    points, steps = np.polynomial.legendre.leggauss(64)
    edges = np.arange(0.0, 160.0, 4.0)
    u = (edges[:, None] + 2.0 * (points + 1.0)).ravel()
    w = np.tile(2.0 * steps, edges.size) * np.log1p(np.exp(-u))
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
