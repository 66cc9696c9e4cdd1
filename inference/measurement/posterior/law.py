"""The law of a checkpoint's samples: the two anchored modes, moved, and perhaps a third for neither task."""

from functools import reduce
from types import ModuleType
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, constraints
from scipy import special

from inference.measurement.prompts import integral
from inference.measurement.prompts.effects import Effects, start_of_effects
from inference.measurement.prompts.integral import Point, PromptRows
from inference.measurement.references.anchors import Anchors
from inference.measurement.references.axis_shape import log_density
from mixture_models.mixture.law import log_add
from mixture_models.types import AnyArray

_LOG_2PI = float(np.log(2.0 * np.pi))

# Rows of a block: what is evaluated for all draws at once.
_BLOCK = 1024


class Neither(NamedTuple):
    """The third component: samples that belong to neither task, N(mean, e^(2 log_scale)) in the frame."""

    logit: Float[AnyArray, ""]
    mean: Float[AnyArray, "d"]
    log_scale: Float[AnyArray, ""]


class Unknowns(NamedTuple):
    """What a checkpoint's samples are fitted by, in the frame of the anchors.

    Attributes:
        old_logit: logit of the old mode's share of the two modes.
        old_mean: m_o, shape (d,).
        new_mean: m_n, shape (d,).
        tilt: what is added to the anchors' c in their metric, shape (T, d - 1).
        neither: the third component, or None.
        prompts: what prompts have of their own, or None where samples have no prompts. With them the old
            share is the mean over prompts.
    """

    old_logit: Float[AnyArray, ""]
    old_mean: Float[AnyArray, "d"]
    new_mean: Float[AnyArray, "d"]
    tilt: Float[AnyArray, "T p"]
    neither: Neither | None = None
    prompts: Effects | None = None


class Rows(NamedTuple):
    """Samples in the frame, in blocks; what fills the last block has weight 0.

    Attributes:
        y: shape (block, row, d).
        weights: 1 for a sample, 0 for a filling, shape (block, row).
    """

    y: Float[AnyArray, "block row d"]
    weights: Float[AnyArray, "block row"]


#: Samples as they are summed over: one by one, or along the axis by prompt.
type Seen = Rows | PromptRows


def rows_of(y: Float[np.ndarray, "n d"]) -> Rows:
    """Arrange samples in blocks."""
    shape = block_shape(len(y))
    padded = np.zeros((shape[0] * shape[1], y.shape[1]))
    padded[: len(y)] = y
    return blocks_of(padded, len(y), shape)


def block_shape(num: int) -> tuple[int, int]:
    """Return blocks and rows of a block of so many samples, rounded up so that few programs are compiled."""
    size = min(_BLOCK, 1 << max(4, (num - 1).bit_length() - 1))
    blocks = -(-num // size)
    step = 1 << max(0, blocks.bit_length() - 3)
    return -(-blocks // step) * step, size


def blocks_of(y: Float[np.ndarray, "n d"], num: int, shape: tuple[int, int]) -> Rows:
    """Return blocks of a shape whose first ``num`` rows are samples."""
    weights = (np.arange(len(y)) < num).astype(float)
    return Rows(*(a.reshape(*shape, *a.shape[1:]) for a in (y, weights)))


def start_of(anchors: Anchors, old_logit: float, neither: bool) -> Unknowns:
    """Return the unknowns at the references."""
    third = Neither(np.array(-3.0), anchors.means.mean(0), np.array(np.log(3.0))) if neither else None
    tilt = np.zeros((len(anchors.tilt_dof), anchors.means.shape[1] - 1))
    effects = None if anchors.likeness is None else start_of_effects()
    return Unknowns(np.asarray(float(old_logit)), anchors.means[0], anchors.means[1], tilt, third, effects)


def point_of(anchors: Anchors, unknowns: Unknowns) -> Point:
    """Return unknowns along the axis as the integral of a prompt takes them."""
    means = jnp.stack([jnp.asarray(m)[0] for m in (unknowns.old_mean, unknowns.new_mean)])
    if anchors.shape is None or unknowns.prompts is None:
        raise ValueError("prompts go with modes that have their own shape along the axis")
    return Point(anchors.shape, means, jnp.asarray(unknowns.old_logit), unknowns.prompts)


def precision_columns(anchors: Anchors, unknowns: Unknowns, mode: int) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Return (κ, c, B) of a mode: A = [[κ, 0], [c, B]], precision A Aᵀ."""
    k = min(mode, len(anchors.axis_precision) - 1)
    t = min(mode, len(anchors.tilt_dof) - 1)
    across = anchors.across[k]
    return anchors.axis_precision[k], anchors.tilt[k] + across @ unknowns.tilt[t], across


class Squares(NamedTuple):
    """Rows with what is squared of them, which many unknowns share.

    Attributes:
        y: shape (n, d).
        length: |y_i|², shape (n,).
        across: |B_kᵀ y_ip|² of every B of the anchors, shape (n,) each.
    """

    y: Float[AnyArray, "n d"]
    length: Float[AnyArray, "n"]
    across: tuple[Float[AnyArray, "n"], ...]

    @classmethod
    def of_rows(cls, anchors: Anchors, y: Float[AnyArray, "*n d"]) -> Self:
        """Return rows with their squares."""
        across = tuple(((y[..., 1:] @ b) ** 2).sum(axis=-1) for b in anchors.across)
        return cls(y, (y * y).sum(axis=-1), across)


def coordinates(anchors: Anchors, unknowns: Unknowns, rows: Squares) -> list[Float[AnyArray, "n"]]:
    """Return what a density is a function of: (s_o, q_o, s_n, q_n), and |y - m|² of the third component.

    s_k = κ_k (u - m_k1) + c_k · (y_p - m_kp) along the axis, q_k = |B_kᵀ (y_p - m_kp)|² across it.
    """
    xp = rows.y.__array_namespace__()
    found = []
    for mode, mean in enumerate((unknowns.old_mean, unknowns.new_mean)):
        kappa, tilt, b = precision_columns(anchors, unknowns, mode)
        first = xp.concat([xp.reshape(xp.asarray(kappa), (1,)), tilt])
        centre = b @ (b.T @ mean[1:])
        known = rows.across[min(mode, len(rows.across) - 1)]
        across = known - 2.0 * (rows.y[..., 1:] @ centre) + mean[1:] @ centre
        found += [rows.y @ first - first @ mean, across]
    if unknowns.neither is not None:
        mean = unknowns.neither.mean
        found.append(rows.length - 2.0 * (rows.y @ mean) + mean @ mean)
    return found


class Settled(NamedTuple):
    """The unknowns that a density depends on by themselves, not through `coordinates`.

    Attributes:
        old_logit: logit of the old share.
        neither_logit: of the third component, or None.
        neither_log_scale: of the third component, or None.
    """

    old_logit: Float[AnyArray, ""]
    neither_logit: Float[AnyArray, ""] | None = None
    neither_log_scale: Float[AnyArray, ""] | None = None

    @classmethod
    def of(cls, unknowns: Unknowns) -> Self:
        """Return those of some unknowns."""
        third = unknowns.neither
        return cls(unknowns.old_logit, *(() if third is None else (third.logit, third.log_scale)))


def log_densities(anchors: Anchors, settled: Settled, at: list[AnyArray]) -> list[Float[AnyArray, "*n"]]:
    """Return the log of weight times density of every component, old, new, neither, at `coordinates`."""
    xp = at[0].__array_namespace__()
    left = 0.0 if settled.neither_logit is None else _log_sigmoid(xp, -settled.neither_logit)
    found = []
    for mode, sign in ((0, 1.0), (1, -1.0)):
        k = min(mode, len(anchors.axis_precision) - 1)
        diagonal = xp.linalg.diagonal(xp.asarray(anchors.across[k]))
        determinant = xp.log(anchors.axis_precision[k]) + xp.sum(xp.log(diagonal))
        share = _log_sigmoid(xp, sign * settled.old_logit) + left
        found.append(share + determinant + _mode(anchors, mode, at[2 * mode], at[2 * mode + 1]))
    if settled.neither_logit is not None and settled.neither_log_scale is not None:
        d = anchors.means.shape[1]
        squared = at[4] * xp.exp(-2.0 * settled.neither_log_scale)
        share = _log_sigmoid(xp, settled.neither_logit)
        found.append(share - d * settled.neither_log_scale - 0.5 * (squared + d * _LOG_2PI))
    return found


def _mode(anchors: Anchors, mode: int, along: AnyArray, across: AnyArray) -> AnyArray:
    """Return the log density of a mode at (s, q): elliptical, or in one dimension of its own shape."""
    if anchors.shape is None:
        return radial(anchors.tail_dof, anchors.means.shape[1], along**2 + across)
    return log_density(anchors.shape, mode, along)


def radial(tail_dof: AnyArray | None, d: int, squared: AnyArray) -> AnyArray:
    """Return the log density of d coordinates at a squared distance, Gaussian or Student-t."""
    if tail_dof is None:
        return -0.5 * (squared + d * _LOG_2PI)
    xp = squared.__array_namespace__()
    gammaln = special.gammaln if xp is np else jax.scipy.special.gammaln
    constant = gammaln(0.5 * (tail_dof + d)) - gammaln(0.5 * tail_dof) - 0.5 * d * xp.log(tail_dof * xp.pi)
    return constant - 0.5 * (tail_dof + d) * xp.log1p(squared / tail_dof)


def _log_sigmoid(xp: ModuleType, logit: AnyArray) -> AnyArray:
    return -xp.logaddexp(xp.zeros_like(xp.asarray(logit)), xp.asarray(-logit))


def row_log_likelihood(anchors: Anchors, unknowns: Unknowns, rows: Squares) -> Float[AnyArray, "n"]:
    """Return log q(y_i) of rows."""
    at = coordinates(anchors, unknowns, rows)
    return reduce(log_add, log_densities(anchors, Settled.of(unknowns), at))


@jax.jit
def log_likelihoods(anchors: Anchors, unknowns: Unknowns, rows: Seen) -> Float[Array, "R J"]:
    """Return the log-likelihood of all rows under J unknowns for each of R draws of the anchors."""

    def of_anchors(pair: tuple[Anchors, Unknowns]) -> Array:
        one, batch = pair
        if isinstance(rows, PromptRows):
            return jax.lax.map(lambda u: integral.log_likelihood(point_of(one, u), rows), batch)

        def add(total: Array, block: Rows) -> tuple[Array, None]:
            squares = Squares.of_rows(one, block.y)

            def value(unknowns: Unknowns) -> Array:
                return jnp.sum(block.weights * row_log_likelihood(one, unknowns, squares))

            return total + jax.vmap(value)(batch), None

        return jax.lax.scan(add, jnp.zeros(len(batch.old_logit)), rows)[0]

    result: Array = jax.lax.map(of_anchors, (anchors, unknowns))
    return result


@jax.jit
def pointwise(anchors: Anchors, unknowns: Unknowns, y: Float[Array, "n d"]) -> Float[Array, "R J n"]:
    """Return log q(y_i) of every sample under J unknowns for each of R draws of the anchors."""

    def of_anchors(pair: tuple[Anchors, Unknowns]) -> Array:
        one, batch = pair
        return jax.vmap(lambda u: CheckpointLaw(one, u).log_prob(y))(batch)

    result: Array = jax.lax.map(of_anchors, (anchors, unknowns))
    return result


class CheckpointLaw(Distribution):
    """The law of a checkpoint's samples as a NumPyro distribution with event shape (d,).

    Args:
        anchors: the modes at the references.
        unknowns: where the checkpoint's modes are, and how much of it is old.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    pytree_data_fields = ("anchors", "unknowns")

    def __init__(self, anchors: Anchors, unknowns: Unknowns, *, validate_args: bool | None = None) -> None:
        self.anchors, self.unknowns = anchors, unknowns
        super().__init__((), (int(anchors.means.shape[1]),), validate_args=validate_args)

    def log_prob(self, value: Float[Array, "n d"]) -> Float[Array, "n"]:
        """Return log q(y), up to no constant."""
        result: Array = row_log_likelihood(self.anchors, self.unknowns, Squares.of_rows(self.anchors, value))
        return result
