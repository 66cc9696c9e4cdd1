"""Value, gradient and Hessian of a checkpoint's log-likelihood, by matrix products over its rows.

A row's log-likelihood is a function F of a few numbers z: the logit, and the coordinates (s_k, q_k) along and
across the axis of each mode. With x = (1, y), every ∇z_a is linear in x, ∇z_a = G_a x, and every z_a is linear
in x xᵀ. So with the derivatives F_a and F_ab of every row

    Hessian = Σ_ab G_a (Σ_i F_ab x_i x_iᵀ) G_bᵀ + Σ_a ∇² z_a(Σ_i F_a x_i x_iᵀ),

and the rows enter by Gram matrices alone. Derivation: docs/measurement.md.
"""

from itertools import combinations_with_replacement

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from inference.measurement import law
from inference.measurement.anchors import Anchors
from inference.measurement.law import Rows, Settled, Statistics, Unknowns


@jax.jit
def derivatives(
    anchors: Anchors, unknowns: Unknowns, rows: Rows
) -> tuple[Float[Array, "R"], Float[Array, "R D"], Float[Array, "R D D"]]:
    """Return the log-likelihood of all rows, its gradient and its Hessian in the raveled unknowns.

    Args:
        anchors: R draws of them.
        unknowns: one for each draw of the anchors.
        rows: the samples.
    """
    return lax.map(lambda pair: _of_anchors(*pair, rows), (anchors, unknowns))


def _of_anchors(anchors: Anchors, unknowns: Unknowns, rows: Rows) -> tuple[Array, Array, Array]:
    flat, restore = ravel_pytree(unknowns)
    d = rows.y.shape[-1]

    def numbers(flat: Array, statistics: Statistics) -> Array:
        """Return z of rows, the last axis over its entries."""
        at = law.coordinates(anchors, restore(flat), statistics)
        settled = ravel_pytree(Settled.of(restore(flat)))[0]
        return jnp.stack([*at, *(jnp.broadcast_to(s * statistics.count, at[0].shape) for s in settled)], -1)

    settled_flat, restore_settled = ravel_pytree(Settled.of(unknowns))

    def value(z: Array) -> Array:
        at, settled = jnp.split(z, [len(z) - len(settled_flat)])
        return jax.nn.logsumexp(jnp.stack(law.log_densities(anchors, restore_settled(settled), list(at))))

    size = len(jax.eval_shape(lambda: numbers(flat, Statistics.of_rows(anchors, rows.y[0, 0]))))
    pairs = list(combinations_with_replacement(range(size), 2))
    first, second = (jnp.array(index) for index in zip(*pairs, strict=True))

    def add(total: tuple[Array, Array, Array], block: Rows) -> tuple[tuple[Array, Array, Array], None]:
        z = numbers(flat, Statistics.of_rows(anchors, block.y))
        values, slopes = jax.vmap(jax.value_and_grad(value))(z)
        bends = jax.vmap(jax.hessian(value))(z)[:, first, second]
        x = jnp.concatenate([jnp.ones((len(block.y), 1)), block.y], axis=1)
        weighted = block.weights[:, None] * jnp.concatenate([slopes, bends], axis=1)
        grams = jnp.einsum("np,ni,nj->pij", weighted, x, x)
        part = (jnp.sum(block.weights * values), grams[:size], grams[size:])
        return jax.tree.map(jnp.add, total, part), None

    zeros = (0.0, jnp.zeros((size, d + 1, d + 1)), jnp.zeros((len(pairs), d + 1, d + 1)))
    (height, slopes, bends), _ = lax.scan(add, zeros, rows)

    def of_moments(flat: Array) -> Array:
        """Return Σ_a z_a of the rows' moments, each by its own weights, which are held."""
        return sum(numbers(flat, Statistics.of_moments(anchors, slopes[a]))[a] for a in range(size))

    # What is not linear in x, the squares of y, has no gradient.
    no_squares = tuple(jnp.zeros(()) for _ in anchors.across)

    def of_row(x: Array) -> Array:
        return jax.jacrev(numbers)(flat, Statistics(x[0], x[1:], jnp.zeros(()), no_squares))

    columns = jax.vmap(of_row, out_axes=-1)(jnp.eye(d + 1))
    full = jnp.zeros((size, size, d + 1, d + 1)).at[first, second].set(bends).at[second, first].set(bends)
    hessian = jnp.einsum("iby,bjy->ij", jnp.einsum("aix,abxy->iby", columns, full), columns)
    return height, jax.grad(of_moments)(flat), hessian + jax.hessian(of_moments)(flat)
