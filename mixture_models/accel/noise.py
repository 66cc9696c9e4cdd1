"""Random bits and standard normal numbers, a dear part of a batch, by code that is fast on a CPU.

The bits are those of `jax.random.bits`. There XLA runs the rounds of Threefry in a loop that passes through
memory; here they are written out, and are done in registers. The normal quantile of the bits is one
polynomial, more exact than ``lax.erf_inv`` in float32. On an accelerator, where `mixture_models.accel.switch`
says so, and with keys of another kind, bits and quantile are JAX's own.
"""

from functools import partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt32
from scipy import special

from mixture_models.accel.elementary import horner
from mixture_models.accel.switch import beside

_bitcast = lax.bitcast_convert_type

# Salmon et al. 2011 (Random123): rotations and the parity of Threefry-2x32 with 20 rounds.
_ROTATIONS, _PARITY = ((13, 15, 26, 6), (17, 29, 16, 24)), np.uint32(0x1BD11BDA)

# Uniform numbers are those of `jax.random.normal`: the next float32 above -1, in steps of 2⁻²², to below 1.
_LOWEST = float(np.nextafter(np.float32(-1.0), np.float32(0.0)))
_MANTISSA_BITS, _MANTISSA_OF_ONE = 23, np.uint32(0x3F800000)
_BITS_OF_ROOT_HALF = np.int32(0x3F3504F3)

# The quantile at (1 + u)/2 over u is smooth in w = -log(1 - u²), which stays below this.
_MOST_W = 16.0


def _plain_bits(key: Array, shape: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    return jax.random.bits(key, shape, jnp.uint32)


def _plain_quantile(bits: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    return np.float32(np.sqrt(2.0)) * lax.erf_inv(_uniform(bits))


def _is_threefry(key: Array, shape: tuple[int, ...]) -> bool:
    """Return whether a key is of Threefry: its kind, or for bare words JAX's default kind, says so."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    kind = str(jax.random.key_impl(key)) if typed else jax.config.jax_default_prng_impl
    return "threefry2x32" in kind and not jax.config.jax_threefry_partitionable


@beside(_plain_bits, _is_threefry)
def random_bits(key: Array, shape: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    """Return `jax.random.bits` of 32 bits."""
    bits: Array = _unrolled_bits(jax.random.key_data(key), shape)
    return bits


def standard_normal(key: Array, shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    """Return float32 numbers, the normal quantiles at the uniform numbers of `jax.random.normal`."""
    return normal_quantile(random_bits(key, shape))


@beside(_plain_quantile)
@partial(jax.jit, inline=True)
def normal_quantile(bits: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the normal quantile at the uniform number that 23 bits make, relative error below 1e-6."""
    u = _uniform(bits)
    # 1 - u and 1 + u have no rounding where they are small.
    w = -_log((np.float32(1.0) - u) * (np.float32(1.0) + u))
    return u * horner(_QUANTILE_SERIES, w * np.float32(2.0 / _MOST_W) - np.float32(1.0))


def _uniform(bits: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the number in (-1, 1) that `jax.random.normal` makes of 23 bits."""
    mantissa = (bits >> np.uint32(32 - _MANTISSA_BITS)) | _MANTISSA_OF_ONE
    uniform = _bitcast(mantissa, jnp.float32) - np.float32(1.0)
    return jnp.maximum(np.float32(_LOWEST), uniform * np.float32(1.0 - _LOWEST) + np.float32(_LOWEST))


@partial(jax.jit, static_argnums=1, inline=True)
def _unrolled_bits(words: UInt32[Array, "2"], shape: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    size = prod(shape)
    half = -(-size // 2)
    counts = lax.iota(jnp.uint32, half)
    others = counts + np.uint32(half)
    if size % 2:
        others = jnp.where(others == size, np.uint32(0), others)
    # Both words of a block in one array of pairs: as two arrays they are two loops, each with all the rounds.
    block = _threefry_2x32(words[0], words[1], counts, others)
    pairs = lax.optimization_barrier(lax.complex(*(_bitcast(word, jnp.float32) for word in block)))
    both = jnp.concatenate([_bitcast(part, jnp.uint32) for part in (lax.real(pairs), lax.imag(pairs))])
    return both[:size].reshape(shape)


def _threefry_2x32(first: Array, second: Array, x: Array, y: Array) -> tuple[Array, Array]:
    words = (first, second, first ^ second ^ _PARITY)
    x, y = x + words[0], y + words[1]
    for group in range(5):
        for turn in _ROTATIONS[group % 2]:
            x = x + y
            y = x ^ ((y << np.uint32(turn)) | (y >> np.uint32(32 - turn)))
        x, y = x + words[(group + 1) % 3], y + words[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


def _log(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return log x of a normal float32 number, x = m 2^k with m in [√½, √2)."""
    bits = _bitcast(x, jnp.int32)
    k = (bits - _BITS_OF_ROOT_HALF) >> np.int32(_MANTISSA_BITS)
    m = _bitcast(bits - (k << np.int32(_MANTISSA_BITS)), jnp.float32) - np.float32(1.0)
    return k.astype(jnp.float32) * np.float32(np.log(2.0)) + m * horner(_LOG_SERIES, m)


def _fitted_quantile() -> np.ndarray:
    """Return the polynomial in 2 w / _MOST_W - 1 for the quantile at (1 + u)/2 over u, lowest power first."""
    nodes = np.cos(np.pi * (np.arange(400) + 0.5) / 400)
    w = 0.5 * _MOST_W * (nodes + 1.0)
    u = np.sqrt(-np.expm1(-w))
    # Far off u is 1 to all digits, but not 1 - u = e^(-w)/(1 + u).
    values = (
        np.where(u < 0.5, -special.ndtri(0.5 * (1.0 - u)), -special.ndtri(0.5 * np.exp(-w) / (1.0 + u))) / u
    )
    series = np.polynomial.chebyshev.chebfit(nodes, values, 14, w=1.0 / values)
    return np.polynomial.chebyshev.cheb2poly(series).astype(np.float32)


def _fitted_log() -> np.ndarray:
    """Return the polynomial in m - 1 for log(m)/(m - 1), lowest power first."""
    low, high = np.sqrt(0.5) - 1.0, np.sqrt(2.0) - 1.0
    nodes = np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    x = low + 0.5 * (nodes + 1.0) * (high - low)
    return np.polyfit(x, np.log1p(x) / x, 7)[::-1].astype(np.float32)


_QUANTILE_SERIES, _LOG_SERIES = _fitted_quantile(), _fitted_log()
