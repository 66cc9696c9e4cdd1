"""What a step in the span of the means opens beside it, and how that is turned back into the span."""

import operator
from collections.abc import Iterable
from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def vectors_beside(key: Array, c: Float[Array, "K n"], directions: Float[Array, ""]) -> Float[Array, "K K"]:
    """Return Σ_i c_ki z_i, k = 1..K, for standard normal z_i, in coordinates that these vectors span.

    With L Lᵀ = c cᵀ they are the rows of L Z, Z of shape (K, directions), and Z = B Q with orthonormal
    rows Q and an independent lower triangular B of independent entries, Bartlett's: N(0, 1) below the
    diagonal, and B_kk = χ(directions - k + 1).

    Args:
        key: for the K (K+1)/2 random numbers.
        c: coefficients.
        directions: their number; 0 or less gives zeros.
    """
    num = len(c)
    # Without the barrier XLA computes the coefficients anew for every sum.
    rows = lax.optimization_barrier(tuple(c))
    # Number by number: of small arrays XLA sums in an order that depends on what is around them.
    factor: list[list[Array]] = []
    for i in range(num):
        factor.append([])
        for j in range(i):
            left = _less(jnp.sum(rows[j] * rows[i]), zip(factor[i], factor[j], strict=False))
            # A row that depends on those before it has no length of its own.
            some = factor[j][j] > 0.0
            factor[i].append(jnp.where(some, left / jnp.where(some, factor[j][j], 1.0), 0.0))
        left = _less(jnp.sum(rows[i] * rows[i]), zip(factor[i], factor[i], strict=True))
        factor[i].append(jnp.sqrt(jnp.maximum(left, 0.0)))
    normal_key, *chi_keys = jax.random.split(key, num + 1)
    freedoms = jnp.maximum(jnp.stack([directions - float(k) for k in range(num)]), 0.0)
    gammas = jax.vmap(jax.random.gamma)(jnp.stack(chi_keys), 0.5 * jnp.maximum(freedoms, 1.0))
    chi = jnp.where(freedoms > 0.0, jnp.sqrt(2.0 * gammas), 0.0)
    normal = iter(jax.random.normal(normal_key, (num * (num - 1) // 2,), dtype=chi.dtype))
    # Coordinates are there for as many vectors as there are directions.
    bartlett = [
        [chi[i] if i == j else jnp.where(directions > float(j), next(normal), 0.0) for j in range(i + 1)]
        for i in range(num)
    ]

    def entry(i: int, j: int) -> Array:
        products = [factor[i][m] * bartlett[m][j] for m in range(j, i + 1)]
        return reduce(operator.add, products) if products else jnp.zeros_like(chi[0])

    return jnp.stack([jnp.stack([entry(i, j) for j in range(num)]) for i in range(num)])


def _less(value: Array, products: Iterable[tuple[Array, Array]]) -> Array:
    """Return a number less the products of pairs."""
    return reduce(lambda left, pair: left - pair[0] * pair[1], products, value)


def lower_triangular(points: Float[Array, "m n"]) -> Float[Array, "m n"]:
    """Return a rotation of the rows, n ≥ m, in which row i is 0 beyond coordinate i.

    By Householder's reflections, unrolled since m is small.
    """
    for i in range(len(points)):
        row = points[i, i:]
        length = jnp.sqrt(jnp.sum(row * row))
        away = row.at[0].add(jnp.where(row[0] < 0.0, -length, length))
        square = jnp.sum(away * away)
        factor = jnp.where(square > 0.0, 2.0 / jnp.where(square > 0.0, square, 1.0), 0.0)
        reflected = points[:, i:] - factor * (points[:, i:] @ away)[:, None] * away
        # The reflection turns the first coordinate's sign, which is turned back: small steps turn little.
        points = points.at[:, i:].set(reflected.at[:, 0].multiply(jnp.where(square > 0.0, -1.0, 1.0)))
        points = points.at[i, i + 1 :].set(0.0)
    return points
