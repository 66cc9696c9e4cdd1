"""The law of a checkpoint's samples along the discriminants: one moved mode a task.

    log q(y) = log Σ_k β_k N(y; m_k, Σ_k),   β = softmax(φ)

A sample's log-likelihood has the derivatives r_k - β_k in φ_k and r_k s_k in m_k, with responsibilities r and
s_k = w_k P_k (y - m_k); w = 1 of Gaussian modes, (ν + q)/(ν + ρ_k) of Student-t ones at squared distance ρ.
With h = (r, r s) the Hessian is a sum over tasks less Σ_i h hᵀ, so that samples enter by Gram matrices
alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import special

from inference.measurement.posterior.law import Rows
from inference.measurement.tasks.references import TaskModes
from mixture_models.types import AnyArray

_LOG_2PI = float(np.log(2.0 * np.pi))


class TaskUnknowns(NamedTuple):
    """What a checkpoint's samples are fitted by, along the discriminants.

    Attributes:
        logits: φ, that of one task 0, shape (K,).
        means: m, shape (K, q).
    """

    logits: Float[AnyArray, "K"]
    means: Float[AnyArray, "K q"]


# Log-likelihood, Σ h, Σ h hᵀ, Σ r s sᵀ, Σ r w and how many rows there are.
type _Sums = tuple[Array, Array, Array, Array, Array, Array]


def log_shares(logits: Float[AnyArray, "*n K"]) -> Float[AnyArray, "*n K"]:
    """Return log β."""
    xp = logits.__array_namespace__()
    top = xp.max(logits, axis=-1, keepdims=True)
    return logits - top - xp.log(xp.sum(xp.exp(logits - top), axis=-1, keepdims=True))


def log_densities(
    modes: TaskModes, unknowns: TaskUnknowns, y: Float[AnyArray, "n q"]
) -> tuple[Float[AnyArray, "n K"], Float[AnyArray, "n K"]]:
    """Return log β_k N(y; m_k, Σ_k), and the squared distance from every mode."""
    xp = y.__array_namespace__()
    roots = xp.asarray(modes.roots)
    q, num = y.shape[-1], roots.shape[0]
    turned = xp.matmul(unknowns.means[:, None, :], roots)[:, 0, :]
    away = xp.reshape(y @ xp.reshape(xp.permute_dims(roots, (1, 0, 2)), (q, num * q)), (-1, num, q)) - turned
    squared = xp.sum(away * away, axis=-1)
    determinants = xp.sum(xp.log(xp.linalg.diagonal(roots)), axis=-1)
    radial = -0.5 * (squared + q * _LOG_2PI)
    if modes.tail_dof is not None:
        dof = modes.tail_dof
        gammaln = special.gammaln if xp is np else jax.scipy.special.gammaln
        constant = gammaln(0.5 * (dof + q)) - gammaln(0.5 * dof) - 0.5 * q * xp.log(dof * xp.pi)
        radial = constant - 0.5 * (dof + q) * xp.log1p(squared / dof)
    return log_shares(unknowns.logits) + determinants + radial, squared


def responsibilities(
    modes: TaskModes, unknowns: TaskUnknowns, y: Float[np.ndarray, "n q"]
) -> Float[np.ndarray, "n K"]:
    """Return the probability that each sample belongs to each task."""
    result: np.ndarray = special.softmax(log_densities(modes, unknowns, y)[0], axis=-1)
    return result


@jax.jit
def log_likelihoods(modes: TaskModes, unknowns: TaskUnknowns, rows: Rows) -> Float[Array, "R J"]:
    """Return the log-likelihood of all rows under J unknowns for each of R draws of the modes."""

    def of_modes(pair: tuple[TaskModes, TaskUnknowns]) -> Array:
        one, batch = pair

        def add(total: Array, block: Rows) -> tuple[Array, None]:
            def value(unknowns: TaskUnknowns) -> Array:
                logs, _ = log_densities(one, unknowns, block.y)
                return jnp.sum(block.weights * jax.nn.logsumexp(logs, axis=-1))

            return total + jax.vmap(value)(batch), None

        return jax.lax.scan(add, jnp.zeros(len(batch.logits)), rows)[0]

    result: Array = jax.lax.map(of_modes, (modes, unknowns))
    return result


@jax.jit
def pointwise(modes: TaskModes, unknowns: TaskUnknowns, y: Float[Array, "n q"]) -> Float[Array, "R J n"]:
    """Return log q(y_i) of every sample under J unknowns for each of R draws of the modes."""

    def of_modes(pair: tuple[TaskModes, TaskUnknowns]) -> Array:
        one, batch = pair
        return jax.vmap(lambda u: jax.nn.logsumexp(log_densities(one, u, y)[0], axis=-1))(batch)

    result: Array = jax.lax.map(of_modes, (modes, unknowns))
    return result


@jax.jit
def derivatives(
    modes: TaskModes, unknowns: TaskUnknowns, rows: Rows
) -> tuple[Float[Array, "R"], Float[Array, "R D"], Float[Array, "R D D"]]:
    """Return the log-likelihood of all rows, its gradient and its Hessian in φ and the raveled means.

    Args:
        modes: R draws of them.
        unknowns: one for each draw.
        rows: the samples.
    """
    result: tuple[Array, Array, Array] = jax.lax.map(
        lambda pair: _under(pair[0], pair[1], rows), (modes, unknowns)
    )
    return result


def _under(modes: TaskModes, unknowns: TaskUnknowns, rows: Rows) -> tuple[Array, Array, Array]:
    """Return the derivatives under one draw of the modes."""
    num, q = unknowns.means.shape
    precisions = modes.roots @ jnp.swapaxes(modes.roots, 1, 2)
    bend = 1.0 if modes.tail_dof is None else 1.0 + 2.0 / (modes.tail_dof + q)

    def add(total: _Sums, block: Rows) -> tuple[_Sums, None]:
        logs, squared = log_densities(modes, unknowns, block.y)
        values = jax.nn.logsumexp(logs, axis=-1)
        held = jnp.exp(logs - values[:, None])
        pull = jnp.ones_like(squared)
        if modes.tail_dof is not None:
            pull = (modes.tail_dof + q) / (modes.tail_dof + squared)
        slopes = pull[..., None] * jnp.einsum("nki,kij->nkj", block.y[:, None] - unknowns.means, precisions)
        h = jnp.concatenate([held, (held[..., None] * slopes).reshape(-1, num * q)], axis=1)
        weighted = block.weights[:, None] * h
        mass = block.weights[:, None] * held
        part = (
            block.weights @ values,
            weighted.sum(axis=0),
            weighted.T @ h,
            jnp.einsum("nk,nki,nkj->kij", mass, slopes, slopes),
            jnp.sum(mass * pull, axis=0),
            block.weights.sum(),
        )
        return jax.tree.map(jnp.add, total, part), None

    size = num + num * q
    zeros = (
        jnp.zeros(()),
        jnp.zeros(size),
        jnp.zeros((size, size)),
        jnp.zeros((num, q, q)),
        jnp.zeros(num),
        jnp.zeros(()),
    )
    (height, sums, gram, products, pulls, count), _ = jax.lax.scan(add, zeros, rows)
    shares = jax.nn.softmax(unknowns.logits)
    gradient = sums.at[:num].add(-count * shares)
    hessian = -gram
    mass, pulled = sums[:num], sums[num:].reshape(num, q)
    of_shares = jnp.diag(mass) - count * (jnp.diag(shares) - jnp.outer(shares, shares))
    hessian = hessian.at[:num, :num].add(of_shares)
    own = bend * products - pulls[:, None, None] * precisions
    for k in range(num):
        place = slice(num + k * q, num + (k + 1) * q)
        hessian = hessian.at[place, place].add(own[k])
        hessian = hessian.at[k, place].add(pulled[k]).at[place, k].add(pulled[k])
    return height, gradient, hessian
