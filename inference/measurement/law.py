"""The law of a checkpoint's samples: the two anchored modes, moved, and perhaps a third for neither task."""

from collections.abc import Callable
from functools import reduce
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import gammaln
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, constraints

from inference.measurement.anchors import Anchors
from mixture_models.mixture_law import log_add

_LOG_2PI = float(np.log(2.0 * np.pi))

# Rows of a block: what is evaluated for all draws at once.
_BLOCK = 1024


class Neither(NamedTuple):
    """The third component: samples that belong to neither task, N(mean, e^(2 log_scale)) in the frame."""

    logit: Float[Any, ""]
    mean: Float[Any, "d"]
    log_scale: Float[Any, ""]


class Unknowns(NamedTuple):
    """What a checkpoint's samples are fitted by, in the frame of the anchors.

    Attributes:
        old_logit: logit of the old mode's share of the two modes.
        old_mean: m_o, shape (d,).
        new_mean: m_n, shape (d,).
        log_axis: log of the factor on the anchors' κ, shape (K,).
        tilt: what is added to the anchors' c in their metric, shape (K, d - 1).
        neither: the third component, or None.
    """

    old_logit: Float[Any, ""]
    old_mean: Float[Any, "d"]
    new_mean: Float[Any, "d"]
    log_axis: Float[Any, "K"]
    tilt: Float[Any, "K p"]
    neither: Neither | None = None


class Rows(NamedTuple):
    """Samples in the frame, in blocks; what fills the last block has weight 0.

    Attributes:
        y: shape (block, row, d).
        across: |B_kᵀ y_p|², shape (block, row, K).
        weights: 1 for a sample, 0 for a filling, shape (block, row).
    """

    y: Float[Any, "block row d"]
    across: Float[Any, "block row K"]
    weights: Float[Any, "block row"]


def rows_of(anchors: Anchors, y: Float[np.ndarray, "n d"]) -> Rows:
    """Arrange samples in blocks."""
    shape = block_shape(len(y))
    padded = np.zeros((shape[0] * shape[1], y.shape[1]))
    padded[: len(y)] = y
    return blocks_of(anchors, padded, len(y), shape)


def block_shape(num: int) -> tuple[int, int]:
    """Return blocks and rows of a block of so many samples, rounded up so that few programs are compiled."""
    size = min(_BLOCK, 1 << max(4, (num - 1).bit_length() - 1))
    blocks = -(-num // size)
    step = 1 << max(0, blocks.bit_length() - 3)
    return -(-blocks // step) * step, size


def blocks_of(anchors: Anchors, y: Float[np.ndarray, "n d"], num: int, shape: tuple[int, int]) -> Rows:
    """Return blocks of a shape whose first ``num`` rows are samples."""
    across = np.stack([np.sum((y[:, 1:] @ b) ** 2, axis=1) for b in anchors.across], axis=-1)
    weights = (np.arange(len(y)) < num).astype(float)
    return Rows(*(a.reshape(*shape, *a.shape[1:]) for a in (y, across, weights)))


def start_of(anchors: Anchors, old_logit: float, neither: bool) -> Unknowns:
    """Return the unknowns at the references."""
    covariances, d = len(anchors.dof), anchors.means.shape[1]
    third = Neither(np.array(-3.0), anchors.means.mean(0), np.array(np.log(3.0))) if neither else None
    zeros = np.zeros(covariances), np.zeros((covariances, d - 1))
    return Unknowns(np.asarray(float(old_logit)), anchors.means[0], anchors.means[1], *zeros, third)


def precision_columns(anchors: Anchors, unknowns: Unknowns, mode: int) -> tuple[Any, Any, Any]:
    """Return (κ, c, B) of a mode: A = [[κ, 0], [c, B]], precision A Aᵀ."""
    k = min(mode, len(anchors.dof) - 1)
    factor = unknowns.log_axis.__array_namespace__().exp(unknowns.log_axis[k])
    tilt = anchors.tilt[k] * factor + anchors.across[k] @ unknowns.tilt[k]
    return anchors.axis_precision[k] * factor, tilt, anchors.across[k]


class Statistics(NamedTuple):
    """What a sum over rows of squared distances needs; of one row, or of each of many, it is the row's own.

    Attributes:
        count: Σ a_i, shape ().
        total: Σ a_i y_i, shape (d,).
        square: of a vector v, Σ a_i (y_i · v)².
        length: Σ a_i |y_i|², shape ().
        across: Σ a_i |B_kᵀ y_ip|², shape (K,).
    """

    count: Any
    total: Any
    square: Callable[[Array], Array]
    length: Any
    across: Any

    @classmethod
    def of_rows(cls, y: Float[Array, "*n d"], across: Float[Array, "*n K"]) -> Self:
        """Return the statistics of every row by itself."""
        return cls(1.0, y, lambda v: (y @ v) ** 2, jnp.sum(y * y, axis=-1), across)


def constants(anchors: Anchors, unknowns: Unknowns) -> list[Float[Array, ""]]:
    """Return log weight plus half the log determinant of the precision of every component, old, new, neither.

    With `squared_distances` Q_k, the log of weight times density is constant + `radial`(Q_k).
    """
    share = jax.nn.log_sigmoid(jnp.stack([unknowns.old_logit, -unknowns.old_logit]))
    if unknowns.neither is not None:
        share = share + jax.nn.log_sigmoid(-unknowns.neither.logit)
    found = []
    for mode in (0, 1):
        kappa, _, b = precision_columns(anchors, unknowns, mode)
        found.append(share[mode] + jnp.log(kappa) + jnp.sum(jnp.log(jnp.diagonal(b))))
    if unknowns.neither is not None:
        d = anchors.means.shape[1]
        found.append(jax.nn.log_sigmoid(unknowns.neither.logit) - d * unknowns.neither.log_scale)
    return found


def squared_distances(anchors: Anchors, unknowns: Unknowns, rows: Statistics) -> list[Float[Array, "*n"]]:
    """Return Σ_i a_i |A_kᵀ (y_i - m_k)|² for every component, old, new and neither."""
    found = []
    for mode, mean in enumerate((unknowns.old_mean, unknowns.new_mean)):
        kappa, tilt, b = precision_columns(anchors, unknowns, mode)
        first = jnp.concatenate([kappa[None], tilt])
        offset = first @ mean
        along = rows.square(first) - 2.0 * offset * (rows.total @ first) + rows.count * offset**2
        centre = b @ (b.T @ mean[1:])
        across = rows.across[..., min(mode, len(anchors.dof) - 1)]
        beside = across - 2.0 * (rows.total[..., 1:] @ centre) + rows.count * (mean[1:] @ centre)
        found.append(along + beside)
    if unknowns.neither is not None:
        third = unknowns.neither
        squared = rows.length - 2.0 * (rows.total @ third.mean) + rows.count * (third.mean @ third.mean)
        found.append(squared * jnp.exp(-2.0 * third.log_scale))
    return found


def radial(anchors: Anchors, component: int, squared: Array) -> Array:
    """Return what a component's log density is of the squared distance; Gaussian for neither."""
    d, tail_dof = anchors.means.shape[1], anchors.tail_dof
    if tail_dof is None or component == 2:
        return -0.5 * (squared + d * _LOG_2PI)
    constant = gammaln(0.5 * (tail_dof + d)) - gammaln(0.5 * tail_dof) - 0.5 * d * jnp.log(tail_dof * jnp.pi)
    return constant - 0.5 * (tail_dof + d) * jnp.log1p(squared / tail_dof)


def log_densities(
    anchors: Anchors, unknowns: Unknowns, y: Float[Array, "n d"], across: Float[Array, "n K"]
) -> list[Float[Array, "n"]]:
    """Return the log of weight times density of every component, old, new and neither, at rows."""
    squared = squared_distances(anchors, unknowns, Statistics.of_rows(y, across))
    return [
        constant + radial(anchors, component, q)
        for component, (constant, q) in enumerate(zip(constants(anchors, unknowns), squared, strict=True))
    ]


def row_log_likelihood(
    anchors: Anchors, unknowns: Unknowns, y: Float[Array, "n d"], across: Float[Array, "n K"]
) -> Float[Array, "n"]:
    """Return log q(y_i) of rows."""
    return reduce(log_add, log_densities(anchors, unknowns, y, across))


def _block_value(anchors: Anchors, unknowns: Unknowns, block: Rows) -> Array:
    return jnp.sum(block.weights * row_log_likelihood(anchors, unknowns, block.y, block.across))


@jax.jit
def log_likelihoods(anchors: Anchors, unknowns: Unknowns, rows: Rows) -> Float[Array, "draw"]:
    """Return the log-likelihood of all rows under every one of a batch of unknowns."""

    def add(total: Array, block: Rows) -> tuple[Array, None]:
        return total + jax.vmap(lambda one: _block_value(anchors, one, block))(unknowns), None

    return lax.scan(add, jnp.zeros(len(unknowns.old_logit)), rows)[0]


@jax.jit
def pointwise(anchors: Anchors, unknowns: Unknowns, y: Float[Array, "n d"]) -> Float[Array, "draw n"]:
    """Return log q(y_i) of every sample under every one of a batch of unknowns."""
    return jax.vmap(lambda one: CheckpointLaw(anchors, one).log_prob(y))(unknowns)


class CheckpointLaw(Distribution):
    """The law of a checkpoint's samples as a NumPyro distribution with event shape (d,).

    Args:
        anchors: the modes at the references.
        unknowns: where the checkpoint's modes are, and how much of it is old.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    pytree_data_fields = ("anchors", "unknowns")

    def __init__(self, anchors: Anchors, unknowns: Unknowns, *, validate_args: bool | None = None) -> None:
        self.anchors, self.unknowns = anchors, unknowns
        super().__init__((), (int(anchors.means.shape[1]),), validate_args=validate_args)

    def log_prob(self, value: Float[Array, "n d"]) -> Float[Array, "n"]:
        """Return log q(y), up to no constant."""
        across = jnp.stack([jnp.sum((value[:, 1:] @ b) ** 2, axis=1) for b in self.anchors.across], axis=-1)
        return row_log_likelihood(self.anchors, self.unknowns, value, across)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*n d"]:
        """Draw samples, each of its own component."""
        keys = jax.random.split(key, 4)
        d = self.event_shape[0]
        z = jax.random.normal(keys[0], (*sample_shape, d))
        if self.anchors.tail_dof is not None:
            chi2 = 2.0 * jax.random.gamma(keys[1], 0.5 * self.anchors.tail_dof, sample_shape)
            radius = jnp.sqrt(self.anchors.tail_dof / chi2)[..., None]
        else:
            radius = jnp.ones(())
        modes = []
        for mode, mean in enumerate((self.unknowns.old_mean, self.unknowns.new_mean)):
            kappa, tilt, b = precision_columns(self.anchors, self.unknowns, mode)
            # x = A⁻ᵀ z: the coordinates across the axis first, then the axis given them.
            beside = jax.scipy.linalg.solve_triangular(
                b.T, (radius * z[..., 1:]).reshape(-1, d - 1).T, lower=False
            ).T.reshape(*sample_shape, d - 1)
            along = ((radius * z[..., :1])[..., 0] - beside @ tilt) / kappa
            modes.append(mean + jnp.concatenate([along[..., None], beside], axis=-1))
        old = jax.random.bernoulli(keys[2], jax.nn.sigmoid(self.unknowns.old_logit), sample_shape)
        y = jnp.where(old[..., None], modes[0], modes[1])
        if self.unknowns.neither is not None:
            third = self.unknowns.neither
            picked = jax.random.bernoulli(keys[3], jax.nn.sigmoid(third.logit), sample_shape)
            y = jnp.where(picked[..., None], third.mean + jnp.exp(third.log_scale) * z, y)
        return y
