"""The law of a mixture of K Gaussian modes as a NumPyro distribution that is fast to train.

Three things make it faster to train than NumPyro's ``MixtureSameFamily``:

* all modes share one standard normal vector per sample, and a sample needs one integer for its mode;
* random numbers and log densities pass an ``optimization_barrier``, or XLA computes them anew inside every
  reduction, and the logarithm is that of `mixture_models.accel.elementary`;
* `MixtureLaw.weighted_log_prob`, the sum that training differentiates, has its gradient written in
  moments of the batch, so that one pass yields the value and all derivatives.
"""

import operator
from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, constraints

from mixture_models.accel.elementary import log1p
from mixture_models.accel.noise import random_bits, standard_normal
from mixture_models.mixture import covariance as cov
from mixture_models.types import AnyArray

# By log weights, means and scales.
_Gradients = tuple[Array, Array, tuple[Array, ...]]

# With samples and weights.
_Residuals = tuple[_Gradients, Array, Array]

_LOG_2, _LOG_2PI = float(np.log(2.0)), float(np.log(2.0 * np.pi))


class MixtureLaw(Distribution):
    """The law Σ_k w_k N(m_k, L_k L_kᵀ) over samples y ∈ R^d; event shape (d,), no batch shape.

    Random numbers are float32 (mode index resolved to 2⁻³²), arithmetic has the precision of the
    parameters. Settings and replicates are batched by ``jax.vmap``.

    Args:
        log_weights: log w_k, shape (K,); -inf leaves a mode out.
        means: m_k, shape (K, d).
        scales: one scale for all modes, or one a mode; see `mixture_models.mixture.covariance`.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "log_weights": constraints.independent(constraints.less_than(1e-5), 1),
        "means": constraints.independent(constraints.real, 2),
    }
    support = constraints.real_vector
    pytree_data_fields = ("log_weights", "means", "scales")

    def __init__(
        self,
        log_weights: AnyArray,
        means: AnyArray,
        scales: Sequence[cov.Scale],
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.means = jnp.asarray(means)
        # A constant such as log 1 is float64, and would make so of all that follows.
        self.log_weights = jnp.asarray(log_weights, self.means.dtype)
        self.scales = tuple(jnp.asarray(scale) for scale in scales)
        super().__init__((), self.means.shape[-1:], validate_args=validate_args)

    @property
    def num_modes(self) -> int:
        """Number K of modes."""
        return int(self.means.shape[0])

    def scale(self, mode: int) -> Array:
        """Return the scale L_k of one mode."""
        return self.scales[mode % len(self.scales)]

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*sample d"]:
        """Draw samples of shape ``sample_shape + (d,)``; each draws its own mode.

        Equal keys give equal random numbers whatever the parameters and the number of modes, so that
        laws can be compared under common random numbers.
        """
        mode_key, z = self._noise(key, sample_shape)
        if self.num_modes == 1:
            return self._placed(0, z)
        bits = lax.optimization_barrier(random_bits(mode_key, sample_shape))[..., None]
        # Thresholds on the integers themselves: finer than float32 uniforms, and no conversion a sample.
        below = jnp.cumsum(jnp.exp(self.log_weights))[:-1] * 2.0**32
        dtype = jnp.result_type(below)
        thresholds = jnp.clip(jnp.round(below), 0.0, _largest_uint32(dtype)).astype(jnp.uint32)
        y = self._placed(self.num_modes - 1, z)
        for mode in reversed(range(self.num_modes - 1)):
            y = jnp.where(bits < thresholds[mode], self._placed(mode, z), y)
        return y

    def strata(self, key: Array, num_samples: int) -> tuple[Float[Array, "n d"], Float[Array, "n"]]:
        """Draw ``num_samples`` samples in equal numbers from every mode, with weights that sum to 1.

        Both depend differentiably on the parameters, so Σ_i weight_i f(y_i) has an unbiased pathwise
        gradient, the modes' weights included.
        """
        _, z = self._noise(key, (num_samples,))
        bounds = np.linspace(0, num_samples, self.num_modes + 1).round().astype(int)
        parts = [slice(low, high) for low, high in pairwise(bounds)]
        y = [self._placed(mode, z[part]) for mode, part in enumerate(parts)]
        weights = jnp.exp(self.log_weights)
        shares = [
            jnp.full(y_k.shape[0], 1.0 / y_k.shape[0], y_k.dtype) * w
            for y_k, w in zip(y, weights, strict=True)
        ]
        return jnp.concatenate(y), jnp.concatenate(shares)

    def log_prob(
        self, value: Float[Array, "*batch d"], intermediates: object = None
    ) -> Float[Array, "*batch"]:
        """Return log Σ_k w_k N(value; m_k, L_k L_kᵀ)."""
        return _log_density(self.log_weights, self.means, self.scales, value)[0]

    def weighted_log_prob(self, value: Float[Array, "n d"], weights: Float[Array, "n"]) -> Float[Array, ""]:
        """Return Σ_i weights_i log q(value_i), to be differentiated in the law's parameters only.

        The gradients are the batch moments Σ_i c_i r_ik, Σ_i c_i r_ik u_ik and Σ_i c_i r_ik u_ik u_ikᵀ of the
        whitened samples u_ik = L_k⁻¹ (y_i - m_k) under the responsibilities r_ik.
        """
        value, weights = lax.stop_gradient((value, weights))
        return _weighted_log_prob(self.log_weights, self.means, self.scales, value, weights)

    def joint_log_probs(self, value: Float[Array, "*batch d"]) -> list[Float[Array, "*batch"]]:
        """Return log(w_k N(value; m_k, L_k L_kᵀ)) for every mode."""
        return _joint(self.log_weights, self.means, self.scales, value)[0]

    def attributed(self, value: Float[Array, "n d"], shares: Sequence[Float[Array, "n"]]) -> Float[Array, ""]:
        """Return 0 with the gradient Σ_k Σ_i c_ik ∇ log(w_k N(value_i; m_k, L_k L_kᵀ)) in the parameters.

        With c_ik = weights_i r_ik this is the gradient of `weighted_log_prob`, for who has the
        responsibilities r_ik at hand.
        """
        value, shares = lax.stop_gradient((value, list(shares)))
        return _attributed(self.log_weights, self.means, self.scales, value, shares)

    def _noise(self, key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
        mode_key, noise_key = jax.random.split(key)
        # Drawn with the coordinate first: the loops over a batch then run along contiguous memory.
        z: Array = lax.optimization_barrier(standard_normal(noise_key, (*self.event_shape, *shape)))
        return mode_key, jnp.moveaxis(z, 0, -1).astype(self.means.dtype)

    def _placed(self, mode: int, z: Array) -> Array:
        result: Array = self.means[mode] + cov.colour(self.scale(mode), z)
        return result


@jax.custom_jvp
def log_add(a: Array, b: Array) -> Array:
    """Return log(exp(a) + exp(b)), made of operations that a CPU vectorises; -inf stands for nothing."""
    return jnp.maximum(a, b) + log1p(jnp.exp(-_distance(a, b)))


@log_add.defjvp
def _log_add_tangent(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    first, second = shares(*primals)
    return log_add(*primals), first * tangents[0] + second * tangents[1]


def shares(a: Array, b: Array) -> tuple[Array, Array]:
    """Return exp(a)/(exp(a) + exp(b)) and exp(b)/(exp(a) + exp(b)), each without cancellation."""
    # The exponential is that of `log_add`: compiled together, both cost one.
    small = jnp.exp(-_distance(a, b))
    large = 1.0 / (1.0 + small)
    first = a >= b
    return jnp.where(first, large, small * large), jnp.where(first, small * large, large)


def _distance(a: Array, b: Array) -> Array:
    """Return |a - b|, 0 where both are -inf."""
    return jnp.where(a == b, 0.0, jnp.abs(a - b))


def _largest_uint32(dtype: np.dtype) -> float:
    """Return the largest value of ``dtype`` that fits an unsigned 32-bit integer."""
    return float(
        np.nextafter(np.asarray(2.0**32, dtype), np.asarray(0, dtype)) if dtype == np.float32 else 2**32 - 1
    )


def _whitened(means: Array, scales: tuple[Array, ...], value: Array) -> list[Array]:
    """Return L_k⁻¹ (value - m_k) for every mode; a shared scale is solved once."""
    if len(scales) > 1:
        return [cov.whiten(scale, value - mean) for scale, mean in zip(scales, means, strict=True)]
    last = cov.whiten(scales[0], value - means[-1])
    return [last - cov.whiten(scales[0], mean - means[-1]) for mean in means[:-1]] + [last]


def _log_density(
    log_weights: Array, means: Array, scales: tuple[Array, ...], value: Array
) -> tuple[Array, list[Array], list[Array]]:
    """Return log q(value), the responsibilities and the whitened samples of every mode."""
    joint, u = _joint(log_weights, means, scales, value)
    if len(joint) == 1:
        return joint[0], [jnp.ones_like(joint[0])], u
    if len(joint) == 2:
        return log_add(*joint), list(shares(*joint)), u
    return *_log_sum(joint), u


def _log_sum(joint: list[Array]) -> tuple[Array, list[Array]]:
    """Return log Σ_k exp(a_k) and exp(a_k)/Σ_l exp(a_l); one exponential a mode, and one logarithm."""
    top = lax.stop_gradient(reduce(jnp.maximum, joint))
    # -inf stands for nothing, and may be all there is.
    below = jnp.where(jnp.isneginf(top), 0.0, top)
    parts = [jnp.exp(one - below) for one in joint]
    total = reduce(operator.add, parts)
    # Halved until it lies in [1, 2], as the fast logarithm needs.
    halved, log_total = total, jnp.zeros_like(total)
    for power in range(1, len(joint).bit_length()):
        large = total > 2.0**power
        halved = jnp.where(large, 0.5 * halved, halved)
        log_total = log_total + jnp.where(large, _LOG_2, 0.0)
    log_total = log_total + log1p(halved - 1.0)
    inverse = 1.0 / total
    return top + log_total, [part * inverse for part in parts]


def _joint(
    log_weights: Array, means: Array, scales: tuple[Array, ...], value: Array
) -> tuple[list[Array], list[Array]]:
    """Return the log weighted density and the whitened samples of every mode."""
    dim = means.shape[-1]
    u = _whitened(means, scales, value)
    constants = [cov.log_determinant(scale, dim) + 0.5 * dim * _LOG_2PI for scale in scales]
    joint = [
        log_weights[k] - constants[k % len(constants)] - 0.5 * jnp.sum(u[k] * u[k], axis=-1)
        for k in range(len(u))
    ]
    return joint, u


@jax.custom_vjp
def _weighted_log_prob(
    log_weights: Array, means: Array, scales: tuple[Array, ...], value: Array, weights: Array
) -> Array:
    return jnp.sum(weights * _log_density(log_weights, means, scales, value)[0])


def _forward(
    log_weights: Array, means: Array, scales: tuple[Array, ...], value: Array, weights: Array
) -> tuple[Array, _Residuals]:
    log_q, r, u = _log_density(log_weights, means, scales, value)
    c = [weights * r_k for r_k in r]
    by_weight, by_mean, by_scale = _moments(scales, c, u)
    # A weight of every sample's own, see `ShiftedLaw`, has a gradient of every sample's own.
    gradients = (by_weight if log_weights.ndim == 1 else jnp.stack(c), by_mean, by_scale)
    return jnp.sum(weights * log_q), (gradients, value, weights)


def _moments(scales: tuple[Array, ...], c: list[Array], u: list[Array]) -> _Gradients:
    """Return Σ_k Σ_i c_ik ∇ log(w_k N(y_i; m_k, L_k L_kᵀ)) in log weights, means and scales."""
    c = lax.optimization_barrier(c)
    mass = [jnp.sum(c_k) for c_k in c]
    first = [jnp.sum(c_k[:, None] * u_k, axis=0) for c_k, u_k in zip(c, u, strict=True)]
    per_mode = [_scale_gradient(scales[k % len(scales)], c[k], u[k], mass[k]) for k in range(len(u))]
    by_scale = tuple(reduce(operator.add, per_mode[j :: len(scales)]) for j in range(len(scales)))
    by_mean = jnp.stack([cov.whiten_transposed(scales[k % len(scales)], f) for k, f in enumerate(first)])
    return jnp.stack(mass), by_mean, by_scale


def _backward(residuals: _Residuals, cotangent: Array) -> tuple[Array | tuple[Array, ...], ...]:
    gradients, value, weights = residuals
    scaled = jax.tree.map(lambda g: g * cotangent, gradients)
    return (*scaled, jnp.zeros_like(value), jnp.zeros_like(weights))


_weighted_log_prob.defvjp(_forward, _backward)


@jax.custom_vjp
def _attributed(
    log_weights: Array, means: Array, scales: tuple[Array, ...], value: Array, shares: list[Array]
) -> Array:
    return jnp.zeros((), means.dtype)


def _attributed_forward(
    log_weights: Array, means: Array, scales: tuple[Array, ...], value: Array, shares: list[Array]
) -> tuple[Array, tuple[_Gradients, Array, list[Array]]]:
    gradients = _moments(scales, shares, _whitened(means, scales, value))
    return jnp.zeros((), means.dtype), (gradients, value, shares)


def _attributed_backward(
    residuals: tuple[_Gradients, Array, list[Array]], cotangent: Array
) -> tuple[Array | tuple[Array, ...] | list[Array], ...]:
    gradients, value, shares = residuals
    return (*jax.tree.map(lambda g: g * cotangent, gradients), *jax.tree.map(jnp.zeros_like, (value, shares)))


_attributed.defvjp(_attributed_forward, _attributed_backward)


def _scale_gradient(scale: Array, c: Array, u: Array, mass: Array) -> Array:
    """Return ∂/∂L Σ_i c_i log N(y_i; m, L Lᵀ) = L⁻ᵀ Σ_i c_i (u_i u_iᵀ - 1), in the structure of L."""
    if scale.ndim == 2:
        second = jnp.tril(cov.whiten_transposed(scale, jnp.einsum("n,ni,nj->ji", c, u, u)).T)
        return second - mass * jnp.diag(1.0 / jnp.diag(scale))
    if scale.ndim == 1:
        return (jnp.sum(c[:, None] * (u * u), axis=0) - mass) / scale
    return (jnp.sum(c * jnp.sum(u * u, axis=-1)) - mass * u.shape[-1]) / scale
