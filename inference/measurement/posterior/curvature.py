"""Value, gradient and Hessian of a checkpoint's log-likelihood, by matrix products over its rows.

A row's log-likelihood is a function F of a few numbers z: the coordinates (s_k, q_k) along and across the
axis of each mode, and the logit. With x = (1, y), every ∇z_a is linear in x, ∇z_a = G_a x, and ∇²z_a is a
constant H_a. So with the derivatives F_a and F_ab of every row

    gradient = Σ_a G_a (Σ_i F_a x_i),    Hessian = Σ_ab G_a (Σ_i F_ab x_i x_iᵀ) G_bᵀ + Σ_a (Σ_i F_a) H_a,

and the rows enter by sums and Gram matrices alone. Derivation: docs/measurement-model.md.
"""

from itertools import combinations_with_replacement

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from inference.measurement.posterior import law
from inference.measurement.posterior.law import Rows, Seen, Settled, Squares, Unknowns, point_of
from inference.measurement.prompts import integral
from inference.measurement.prompts.integral import PromptRows
from inference.measurement.references.anchors import Anchors


def derivatives(
    anchors: Anchors, unknowns: Unknowns, rows: Seen
) -> tuple[Float[Array, "R"], Float[Array, "R D"], Float[Array, "R D D"]]:
    """Return the log-likelihood of all rows, its gradient and its Hessian in the raveled unknowns.

    Args:
        anchors: R draws of them.
        unknowns: one for each draw of the anchors.
        rows: the samples.
    """
    if isinstance(rows, PromptRows):
        # One program, which takes long to compile, for any number of draws.
        draws = [
            jax.tree.map(lambda a, r=r: a[r], (anchors, unknowns)) for r in range(len(unknowns.old_logit))
        ]
        found = [_by_prompt(*one, rows) for one in draws]
        value, gradient, hessian = (jnp.stack(parts) for parts in zip(*found, strict=True))
        return value, gradient, hessian
    return _of_rows(anchors, unknowns, rows)


@jax.jit
def _by_prompt(anchors: Anchors, unknowns: Unknowns, rows: PromptRows) -> tuple[Array, Array, Array]:
    """Return the derivatives under one draw of the anchors, where samples have prompts."""
    flat, restored = ravel_pytree(unknowns)
    return integral.derivatives(lambda at: point_of(anchors, restored(at)), flat, rows)


@jax.jit
def _of_rows(anchors: Anchors, unknowns: Unknowns, rows: Rows) -> tuple[Array, Array, Array]:
    result: tuple[Array, Array, Array] = lax.map(
        lambda pair: _under(pair[0], pair[1], rows), (anchors, unknowns)
    )
    return result


def _under(anchors: Anchors, unknowns: Unknowns, rows: Rows) -> tuple[Array, Array, Array]:
    """Return the derivatives under one draw of the anchors."""
    d = rows.y.shape[-1]
    settled = [s for s in Settled.of(unknowns) if s is not None]
    split = 4 if unknowns.neither is None else 5
    size = split + len(settled)

    def value(z: Array) -> Array:
        logs = law.log_densities(anchors, Settled(*z[split:]), list(z[:split]))
        return jax.nn.logsumexp(jnp.stack(logs))

    pairs = list(combinations_with_replacement(range(size), 2))
    first, second = (jnp.array(index) for index in zip(*pairs, strict=True))

    def add(total: tuple[Array, Array, Array], block: Rows) -> tuple[tuple[Array, Array, Array], None]:
        at = law.coordinates(anchors, unknowns, Squares.of_rows(anchors, block.y))
        z = jnp.stack([*at, *(jnp.broadcast_to(s, at[0].shape) for s in settled)], axis=-1)
        values, slopes = jax.vmap(jax.value_and_grad(value))(z)
        bends = jax.vmap(jax.hessian(value))(z)[:, first, second]
        x = jnp.concatenate([jnp.ones((len(block.y), 1)), block.y], axis=1)
        grams = jnp.einsum("np,ni,nj->pij", block.weights[:, None] * bends, x, x)
        part = (jnp.sum(block.weights * values), (block.weights[:, None] * slopes).T @ x, grams)
        return jax.tree.map(jnp.add, total, part), None

    zeros = (jnp.zeros(()), jnp.zeros((size, d + 1)), jnp.zeros((len(pairs), d + 1, d + 1)))
    (height, slopes, bends), _ = lax.scan(add, zeros, rows)
    columns, constant = _structure(anchors, unknowns, slopes[:, 0])
    full = jnp.zeros((size, size, d + 1, d + 1)).at[first, second].set(bends).at[second, first].set(bends)
    hessian = jnp.einsum("iby,bjy->ij", jnp.einsum("aix,abxy->iby", columns, full), columns)
    return height, jnp.einsum("aix,ax->i", columns, slopes), hessian + constant


def _structure(
    anchors: Anchors, unknowns: Unknowns, masses: Float[Array, "z"]
) -> tuple[Float[Array, "z D d+1"], Float[Array, "D D"]]:
    """Return G_a of every z, and Σ_a H_a times a's mass.

    The unknowns lie as they are raveled: logit, old mean, new mean, tilt, then logit, mean and log scale of
    the third component.
    """
    d, tilts = anchors.means.shape[1], unknowns.tilt.shape[0]
    end = 1 + 2 * d + tilts * (d - 1)
    third = unknowns.neither
    width = end + (0 if third is None else d + 2)
    columns = jnp.zeros((len(masses), width, d + 1))
    constant = jnp.zeros((width, width))
    for mode, mean in enumerate((unknowns.old_mean, unknowns.new_mean)):
        kappa, tilt, b = law.precision_columns(anchors, unknowns, mode)
        start = 1 + mode * d
        means, across = slice(start, start + d), slice(start + 1, start + d)
        tilted = 1 + 2 * d + min(mode, tilts - 1) * (d - 1)
        turned = slice(tilted, tilted + d - 1)
        precision = b @ b.T
        s, q = 2 * mode, 2 * mode + 1
        columns = columns.at[s, means, 0].set(-jnp.concatenate([kappa[None], tilt]))
        columns = columns.at[s, turned, 2:].set(b.T).at[s, turned, 0].set(-b.T @ mean[1:])
        columns = columns.at[q, across, 2:].set(-2.0 * precision)
        columns = columns.at[q, across, 0].set(2.0 * precision @ mean[1:])
        constant = constant.at[across, turned].add(-masses[s] * b).at[turned, across].add(-masses[s] * b.T)
        constant = constant.at[across, across].add(2.0 * masses[q] * precision)
    places = [0]
    if third is not None:
        middle = slice(end + 1, end + 1 + d)
        columns = columns.at[4, middle, 1:].set(-2.0 * jnp.eye(d))
        columns = columns.at[4, middle, 0].set(2.0 * third.mean)
        constant = constant.at[middle, middle].add(2.0 * masses[4] * jnp.eye(d))
        places += [end, end + 1 + d]
    for z, place in zip(range(len(masses) - len(places), len(masses)), places, strict=True):
        columns = columns.at[z, place, 0].set(1.0)
    return columns, constant
