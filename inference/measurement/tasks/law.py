"""The law of a checkpoint's samples along the discriminants: one moved mode a task, perhaps one for neither.

    log q(y) = log Σ_k s_k N(y; m_k, Σ_k),   s = softmax(φ)

The component for neither task, where there is one, is the last: s = ((1-ν) β, ν), and N(y; m, e^(2c) I).

A sample's log-likelihood has the derivatives r_k - s_k in φ_k and r_k g_k in m_k, with responsibilities r and
g_k = w_k P_k (y - m_k); w = 1 of Gaussian modes, (f + q)/(f + ρ_k) of Student-t ones with f degrees of
freedom at squared distance ρ. With h = (r, r g) the Hessian is a sum over components less Σ_i h hᵀ, so that
samples enter by Gram matrices alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import special

from inference.measurement.posterior.law import Rows, radial
from inference.measurement.tasks.references import TaskModes
from mixture_models.types import AnyArray

_LOG_2PI = float(np.log(2.0 * np.pi))


class TaskNeither(NamedTuple):
    """The component for neither task, N(mean, e^(2 log_scale)), along the discriminants.

    Attributes:
        mean: shape (q,).
        log_scale: c, shape ().
    """

    mean: Float[AnyArray, "q"]
    log_scale: Float[AnyArray, ""]


class TaskUnknowns(NamedTuple):
    """What a checkpoint's samples are fitted by, along the discriminants.

    Attributes:
        logits: φ, that of one task 0, shape (K,); with a component for neither task (K + 1,), its own last.
        means: m, shape (K, q).
        neither: the component for neither task, or None.
    """

    logits: Float[AnyArray, "C"]
    means: Float[AnyArray, "K q"]
    neither: TaskNeither | None = None


def along_of(unknowns: TaskUnknowns, num: int) -> TaskUnknowns:
    """Return unknowns of all coordinates along the discriminants alone.

    Args:
        unknowns: with the means beside the discriminants, perhaps a batch.
        num: of the discriminants.
    """
    third = unknowns.neither
    if third is not None:
        third = third._replace(mean=third.mean[..., :num])
    return TaskUnknowns(unknowns.logits, unknowns.means[..., :num], third)


# Log-likelihood, Σ h, Σ h hᵀ, Σ r g gᵀ and Σ r w of every task, how many rows there are, and Σ r g gᵀ of the
# component for neither task.
type _Sums = tuple[Array, Array, Array, Array, Array, Array, Array | None]


def log_shares(logits: Float[AnyArray, "*n C"]) -> Float[AnyArray, "*n C"]:
    """Return log softmax(φ)."""
    xp = logits.__array_namespace__()
    top = xp.max(logits, axis=-1, keepdims=True)
    return logits - top - xp.log(xp.sum(xp.exp(logits - top), axis=-1, keepdims=True))


def log_densities(
    modes: TaskModes, unknowns: TaskUnknowns, y: Float[AnyArray, "n q"]
) -> tuple[Float[AnyArray, "n C"], Float[AnyArray, "n K"]]:
    """Return log s_k N(y; m_k, Σ_k) of every component, and the squared distance from every task's mode."""
    xp = y.__array_namespace__()
    roots = xp.asarray(modes.roots)
    q, num = y.shape[-1], roots.shape[0]
    turned = xp.matmul(unknowns.means[:, None, :], roots)[:, 0, :]
    away = xp.reshape(y @ xp.reshape(xp.permute_dims(roots, (1, 0, 2)), (q, num * q)), (-1, num, q)) - turned
    squared = xp.sum(away * away, axis=-1)
    determinants = xp.sum(xp.log(xp.linalg.diagonal(roots)), axis=-1)
    shares, third = log_shares(unknowns.logits), unknowns.neither
    of_tasks = shares[:num] + determinants + radial(modes.tail_dof, q, squared)
    if third is None:
        return of_tasks, squared
    beyond = xp.sum((y - third.mean) ** 2, axis=-1) * xp.exp(-2.0 * third.log_scale)
    of_neither = shares[num] - q * third.log_scale - 0.5 * (beyond + q * _LOG_2PI)
    return xp.concat([of_tasks, of_neither[:, None]], axis=-1), squared


def responsibilities(
    modes: TaskModes, unknowns: TaskUnknowns, y: Float[np.ndarray, "n q"]
) -> Float[np.ndarray, "n C"]:
    """Return the probability that each sample belongs to each task, and last to neither."""
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
    """Return the log-likelihood of all rows, its gradient and its Hessian.

    The unknowns are φ, mean and log scale of the component for neither task if there is one, and the raveled
    means.

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
    components, third = len(unknowns.logits), unknowns.neither
    first = components if third is None else components + q + 1
    precisions = modes.roots @ jnp.swapaxes(modes.roots, 1, 2)
    bend = 1.0 if modes.tail_dof is None else 1.0 + 2.0 / (modes.tail_dof + q)

    def add(total: _Sums, block: Rows) -> tuple[_Sums, None]:
        logs, squared = log_densities(modes, unknowns, block.y)
        values = jax.nn.logsumexp(logs, axis=-1)
        every = jnp.exp(logs - values[:, None])
        held = every[:, :num]
        pull = jnp.ones_like(squared)
        if modes.tail_dof is not None:
            pull = (modes.tail_dof + q) / (modes.tail_dof + squared)
        slopes = pull[..., None] * jnp.einsum("nki,kij->nkj", block.y[:, None] - unknowns.means, precisions)
        of_means = (held[..., None] * slopes).reshape(-1, num * q)
        of_neither = None
        if third is None:
            h = jnp.concatenate([every, of_means], axis=1)
        else:
            slope = _slope_of_neither(third, block.y)
            h = jnp.concatenate([every, every[:, num:] * slope, of_means], axis=1)
            of_neither = (block.weights * every[:, num] * slope.T) @ slope
        weighted = block.weights[:, None] * h
        mass = block.weights[:, None] * held
        part = (
            block.weights @ values,
            weighted.sum(axis=0),
            weighted.T @ h,
            jnp.einsum("nk,nki,nkj->kij", mass, slopes, slopes),
            jnp.sum(mass * pull, axis=0),
            block.weights.sum(),
            of_neither,
        )
        return jax.tree.map(jnp.add, total, part), None

    size = first + num * q
    zeros = (
        jnp.zeros(()),
        jnp.zeros(size),
        jnp.zeros((size, size)),
        jnp.zeros((num, q, q)),
        jnp.zeros(num),
        jnp.zeros(()),
        None if third is None else jnp.zeros((q + 1, q + 1)),
    )
    (height, sums, gram, products, pulls, count, beyond), _ = jax.lax.scan(add, zeros, rows)
    shares = jax.nn.softmax(unknowns.logits)
    gradient = sums.at[:components].add(-count * shares)
    hessian = -gram
    mass, pulled = sums[:components], sums[first:].reshape(num, q)
    of_shares = jnp.diag(mass) - count * (jnp.diag(shares) - jnp.outer(shares, shares))
    hessian = hessian.at[:components, :components].add(of_shares)
    own = bend * products - pulls[:, None, None] * precisions
    for k in range(num):
        place = slice(first + k * q, first + (k + 1) * q)
        hessian = hessian.at[place, place].add(own[k])
        hessian = hessian.at[k, place].add(pulled[k]).at[place, k].add(pulled[k])
    if third is not None and beyond is not None:
        place = slice(components, first)
        hessian = hessian.at[place, place].add(beyond + _bend_of_neither(third, mass[num], sums[place]))
        hessian = hessian.at[num, place].add(sums[place]).at[place, num].add(sums[place])
    return height, gradient, hessian


def _slope_of_neither(third: TaskNeither, y: Float[Array, "n q"]) -> Float[Array, "n q+1"]:
    """Return the gradient of log N(y; m, e^(2c) I) in m and c, (e^(-2c) (y - m), e^(-2c) |y - m|² - q)."""
    away, precision = y - third.mean, jnp.exp(-2.0 * third.log_scale)
    of_scale = precision * jnp.sum(away**2, axis=-1, keepdims=True) - y.shape[-1]
    return jnp.concatenate([precision * away, of_scale], axis=-1)


def _bend_of_neither(
    third: TaskNeither, mass: Float[Array, ""], slope: Float[Array, "q+1"]
) -> Float[Array, "q+1 q+1"]:
    """Return Σ r times the Hessian of log N(y; m, e^(2c) I), from Σ r and Σ r times its gradient."""
    q = len(slope) - 1
    corner = -mass * jnp.exp(-2.0 * third.log_scale) * jnp.eye(q)
    edge, end = -2.0 * slope[:q], -2.0 * (slope[q] + q * mass)
    return jnp.block([[corner, edge[:, None]], [edge[None], end[None, None]]])
