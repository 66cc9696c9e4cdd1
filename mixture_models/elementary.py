"""exp, log and sums over a batch, in float64, made of operations that a CPU does several at a time.

XLA's CPU backend leaves the float64 logarithm to a scalar library call, evaluates the exponential at length,
and adds the terms of a sum one after another. In other precisions, and on an accelerator, `exp`, `log`,
`log1p` and `total` are those of ``jax.numpy``.
"""

from collections.abc import Callable
from functools import reduce
from math import factorial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# log 2 as a sum whose first term times any exponent is exact, and that makes exp right to the last bits.
_LOG2_HIGH, _LOG2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")

# Added to a small integer it leaves this in the lowest bits of the sum.
_INTEGER = 1.5 * 2.0**52

# Below the first, exp is less than the smallest normal number: 0.
_LOWEST, _HIGHEST = -708.0, 709.0

# Taylor series of exp on [-log(2)/2, log(2)/2], to machine precision.
_EXP_SERIES = [1.0 / factorial(k) for k in range(14)]

# Chebyshev series of log((1 + t)/(1 - t))/t in 18 t² - 1 for t in [0, 1/3], to machine precision.
_NODES = np.cos(np.pi * (np.arange(64) + 0.5) / 64)
_ROOTS = np.sqrt((_NODES + 1.0) / 18.0)
_LOG_SERIES = np.polynomial.chebyshev.cheb2poly(
    np.polynomial.chebyshev.chebfit(_NODES, 2.0 * np.arctanh(_ROOTS) / _ROOTS, 10)
)

_MANTISSA_BITS, _BIAS = np.int64(52), np.int64(1023)
_BITS_OF_ROOT_HALF = np.float64(np.sqrt(0.5)).view(np.int64)
_BITS_OF_2_52 = np.float64(2.0**52).view(np.int64)

_LANES = 8


def _by_hand(x: Array) -> bool:
    """Return whether a function is evaluated by the series of this module."""
    return x.dtype == jnp.float64 and on_cpu()


def on_cpu() -> bool:
    """Return whether programs run on a CPU."""
    return jax.default_backend() == "cpu"


@jax.custom_jvp
def exp(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return e^x for x < 709, relative error below 4e-16; 0 below -708."""
    if not _by_hand(x):
        return jnp.exp(x)
    # x = k log 2 + r; 2^k is written into the exponent's bits.
    # The rounding is spelt out: some versions of XLA take "+ c - c" for nothing.
    k = lax.round(jnp.clip(x, _LOWEST, _HIGHEST) * (1.0 / np.log(2.0)), lax.RoundingMethod.TO_NEAREST_EVEN)
    r = (x - k * _LOG2_HIGH) - k * _LOG2_LOW
    power = (lax.bitcast_convert_type(k + _INTEGER, jnp.int64) + _BIAS) << _MANTISSA_BITS
    result = horner(_EXP_SERIES, r) * lax.bitcast_convert_type(power, jnp.float64)
    return jnp.where(x < _LOWEST, 0.0, result)


@jax.custom_jvp
def log(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return log x for a normal number x > 0, relative error below 1e-15."""
    if not _by_hand(x):
        return jnp.log(x)
    # x = m 2^k with m in [√½, √2)
    bits = lax.bitcast_convert_type(x, jnp.int64)
    k = lax.shift_right_logical(bits - _BITS_OF_ROOT_HALF + (_BIAS << _MANTISSA_BITS), _MANTISSA_BITS)
    m = lax.bitcast_convert_type(bits - ((k - _BIAS) << _MANTISSA_BITS), jnp.float64)
    exponent = lax.bitcast_convert_type(k | _BITS_OF_2_52, jnp.float64) - (2.0**52 + 1023.0)
    result = exponent * _LOG2_LOW + _log_of_ratio((m - 1.0) / (m + 1.0)) + exponent * _LOG2_HIGH
    return jnp.where(x < jnp.inf, jnp.where(x > 0.0, result, jnp.where(x == 0.0, -jnp.inf, jnp.nan)), x)


def log1p(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return log(1 + x) for x in [0, 1], relative error below 2e-15, as the series of artanh(x/(2 + x))."""
    if not _by_hand(x):
        return jnp.log1p(x)
    return _log_of_ratio(x / (2.0 + x))


exp.defjvp(lambda primals, tangents: (exp(primals[0]), tangents[0] * exp(primals[0])))
log.defjvp(lambda primals, tangents: (log(primals[0]), tangents[0] / primals[0]))


def total(terms: Float[Array, "n *event"]) -> Float[Array, "*event"]:
    """Return the sum over the first axis, added up in eight lanes side by side."""
    return _in_lanes(terms, jnp.add, jnp.sum) if on_cpu() else jnp.sum(terms, axis=0)


def total_log(values: Float[Array, "n"]) -> Float[Array, ""]:
    """Return Σ_i log x_i for x_i between 1e-38 and 1e38: one logarithm for eight values, of their product.

    The product is float64 whatever the values are. On an accelerator, and where JAX has no float64, which
    alone holds it, there is one logarithm for each value, in the precision of the values.
    """
    if not _by_hand(values.astype(float)):
        return total(jnp.log(values).astype(float))
    values = values.astype(float)
    return _in_lanes(values, jnp.multiply, lambda products, axis: total(log(products)))


def _in_lanes(values: Array, combine: Callable[..., Any], finish: Callable[..., Any]) -> Array:
    length = values.shape[0] // _LANES
    if not length:
        return finish(values, axis=0)
    lanes = [values[lane * length : (lane + 1) * length] for lane in range(_LANES)]
    rest = values[_LANES * length :]
    while len(lanes) > 1:
        lanes = [combine(a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
    result = finish(lax.optimization_barrier(lanes[0]), axis=0)
    return result + finish(rest, axis=0) if rest.shape[0] else result


def _log_of_ratio(t: Array) -> Array:
    """Return log((1 + t)/(1 - t)) for |t| <= 1/3."""
    return t * horner(_LOG_SERIES, 18.0 * t * t - 1.0)


def horner(coefficients: Any, x: Array) -> Array:
    """Return Σ_k coefficients[k] x^k."""
    return reduce(lambda sum_, c: sum_ * x + c, coefficients[-2::-1], jnp.full_like(x, coefficients[-1]))
