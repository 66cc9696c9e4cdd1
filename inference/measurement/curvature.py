"""Value, gradient and Hessian of a checkpoint's log-likelihood, by matrix products over its rows.

With the joint log densities l_k = c_k + ρ_k(Q_k) of a row, its responsibilities r_k and Q_k the squared
distances, the Hessian of log Σ_k e^{l_k} in the unknowns is

    Σ_k r_k (∇²c_k + ρ_k' ∇²Q_k + ρ_k'' ∇Q_k ∇Q_kᵀ) + Σ_{j<k} r_j r_k (∇l_j - ∇l_k)(∇l_j - ∇l_k)ᵀ.

Summed over rows, the second derivatives of c and Q are those of one function of their moments, taken once;
the rest are Gram matrices of first derivatives. Derivation: docs/measurement.md.
"""

from functools import partial
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from inference.measurement import law
from inference.measurement.anchors import Anchors
from inference.measurement.law import Rows, Statistics, Unknowns


@jax.jit
def derivatives(
    anchors: Anchors, unknowns: Unknowns, rows: Rows
) -> tuple[Float[Array, ""], Float[Array, "D"], Float[Array, "D D"]]:
    """Return the log-likelihood of all rows, its gradient and its Hessian in the raveled unknowns."""
    flat, restore = ravel_pytree(unknowns)
    size, count = flat.size, 2 if unknowns.neither is None else 3
    components = range(count)

    def constants(flat: Array) -> Array:
        return jnp.stack(law.constants(anchors, restore(flat)))

    def distances(flat: Array, y: Array, across: Array) -> Array:
        return jnp.stack(law.squared_distances(anchors, restore(flat), Statistics.of_rows(y, across)))

    def radial(squared: Array) -> Array:
        return jnp.stack([law.radial(anchors, k, squared[k]) for k in components])

    along_rows = jax.vmap(distances, (None, 0, 0))
    jacobian_of_rows = jax.vmap(jax.jacrev(distances), (None, 0, 0))
    first = jax.jacrev(constants)(flat)

    def add(total: Any, block: Rows) -> tuple[Any, None]:
        y, across, weights = block
        squared, jacobian = along_rows(flat, y, across), jacobian_of_rows(flat, y, across)
        by_distance = jax.vmap(jax.grad(lambda q: jnp.sum(radial(q))))(squared)
        bend = jax.vmap(lambda q: jnp.diagonal(jax.hessian(lambda p: jnp.sum(radial(p)))(q)))(squared)
        joint = constants(flat) + jax.vmap(radial)(squared)
        share = jax.nn.softmax(joint, axis=1)
        held = weights[:, None] * share
        pulled = held * by_distance
        slopes = first + by_distance[:, :, None] * jacobian
        hessian = jnp.zeros((size, size))
        for j, k in combinations(components, 2):
            hessian += _gram(slopes[:, j] - slopes[:, k], held[:, j] * share[:, k])
        if anchors.tail_dof is not None:
            for k in components:
                hessian += _gram(jacobian[:, k], held[:, k] * bend[:, k])
        part = (
            jnp.sum(weights * jax.nn.logsumexp(joint, axis=1)),
            jnp.einsum("nk,nkd->d", pulled, jacobian),
            hessian,
            held.sum(0),
            (pulled.sum(0), pulled.T @ y, jnp.stack([_gram(y, p) for p in pulled.T]), pulled.T @ across),
        )
        return jax.tree.map(jnp.add, total, part), None

    d, kinds = rows.y.shape[-1], rows.across.shape[-1]
    shapes = ((), (size,), (size, size), (count,), ((count,), (count, d), (count, d, d), (count, kinds)))
    zeros = jax.tree.map(jnp.zeros, shapes, is_leaf=lambda s: all(isinstance(n, int) for n in s))
    (value, gradient, hessian, mass, moments), _ = lax.scan(add, zeros, rows)

    def of_moments(flat: Array) -> Array:
        """Return what has the rows' second derivatives: Σ_i Σ_k r_k c_k + r_k ρ_k' Q_k, the factors held."""
        terms = mass * constants(flat)
        for k, (number, total, second, across) in enumerate(zip(*moments, strict=True)):
            square = partial(_quadratic_form, second)
            summed = Statistics(number, total, square, jnp.trace(second), across)
            terms = terms.at[k].add(law.squared_distances(anchors, restore(flat), summed)[k])
        return jnp.sum(terms)

    return value, gradient + mass @ first, hessian + jax.hessian(of_moments)(flat)


def _quadratic_form(matrix: Float[Array, "d d"], v: Float[Array, "d"]) -> Float[Array, ""]:
    return v @ matrix @ v


def _gram(x: Float[Array, "n D"], weights: Float[Array, "n"]) -> Float[Array, "D D"]:
    """Return Σ_i weights_i x_i x_iᵀ."""
    return x.T @ (weights[:, None] * x)
