"""exp, log and sums over a batch, made of operations that a CPU does several at a time.

XLA's CPU backend leaves the float64 logarithm to a scalar library call, evaluates the exponential at length,
and adds the terms of a sum one after another. On an accelerator `exp`, `log`, `log1p` and `total` are those
of ``jax.numpy``; so are `log` and `log1p` in other precisions than float64, and `exp` in others than float64
and float32.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from math import factorial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# log 2 as a sum whose first term times any exponent is exact, and that makes exp right to the last bits.
_LOG2 = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
_LOG2_FLOAT32 = float.fromhex("0x1.62e4p-1"), float.fromhex("0x1.7f7d1cp-20")

# Added to a small integer it leaves this in the lowest bits of the sum: so several become int64 at once.
_INTEGER = 1.5 * 2.0**52


class _Exponential(NamedTuple):
    """What exp is made of in one precision."""

    log2: tuple[float, float]
    #: Where the exponent's bits of the power of 2 make it 0, and infinite.
    ends: tuple[float, float]
    #: Coefficients of exp on [-log(2)/2, log(2)/2], lowest power first, to machine precision.
    series: Sequence[float] | np.ndarray
    #: The whole numbers of the same width.
    integer: type[np.signedinteger]


def _fitted_exp(degree: int) -> np.ndarray:
    """Return the polynomial that is nearest to exp on [-log(2)/2, log(2)/2], relative to it."""
    nodes = np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    half = 0.5 * np.log(2.0)
    values = np.exp(half * nodes)
    series = np.polynomial.chebyshev.cheb2poly(
        np.polynomial.chebyshev.chebfit(nodes, values, degree, w=1.0 / values)
    )
    result: np.ndarray = series / half ** np.arange(degree + 1)
    return result


_EXPONENTIALS = {
    np.dtype(np.float64): _Exponential(
        _LOG2, (-709.0, 710.0), [1.0 / factorial(k) for k in range(14)], np.int64
    ),
    np.dtype(np.float32): _Exponential(
        _LOG2_FLOAT32, (-88.0, 89.0), _fitted_exp(6).astype(np.float32), np.int32
    ),
}

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
    """Return e^x, relative error below 4e-16 and in float32 1.5e-7; 0 where it is no normal number."""
    made = _EXPONENTIALS.get(x.dtype) if on_cpu() else None
    if made is None:
        return jnp.exp(x)
    # x = k log 2 + r; 2^k is written into the exponent's bits.
    lowest, highest = map(x.dtype.type, made.ends)
    high, low = map(x.dtype.type, made.log2)
    # One instruction each, unlike ``jnp.clip``; NaN stays.
    x = jnp.where(x < lowest, lowest, x)
    x = jnp.where(x > highest, highest, x)
    # The rounding is spelt out: some versions of XLA take "+ c - c" for nothing.
    k = lax.round(x * x.dtype.type(1.0 / np.log(2.0)), lax.RoundingMethod.TO_NEAREST_EVEN)
    r = (x - k * high) - k * low
    whole = (
        lax.bitcast_convert_type(k + _INTEGER, jnp.int64) if x.dtype == jnp.float64 else k.astype(jnp.int32)
    )
    layout = np.finfo(x.dtype)
    power = (whole + made.integer(1 - layout.minexp)) << made.integer(layout.nmant)
    return horner(made.series, r) * lax.bitcast_convert_type(power, x.dtype)


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
    result = exponent * _LOG2[1] + _log_of_ratio((m - 1.0) / (m + 1.0)) + exponent * _LOG2[0]
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

    The product is float64. In float32 the x_i must lie between 1e-18 and 1e18: those of two are multiplied in
    float32 first. On an accelerator, and where JAX has no float64, there is one logarithm for each value, in
    the precision of the values.
    """
    if not _by_hand(values.astype(float)):
        return total(jnp.log(values).astype(float))
    return _in_lanes(
        values,
        lambda a, b: (a * b).astype(float),
        lambda products, axis: total(log(products.astype(float))),
    )


def _in_lanes(values: Array, combine: Callable[[Array, Array], Array], finish: Callable[..., Array]) -> Array:
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


def horner(coefficients: Sequence[float] | np.ndarray, x: Array) -> Array:
    """Return Σ_k coefficients[k] x^k."""
    return reduce(lambda sum_, c: sum_ * x + c, coefficients[-2::-1], jnp.full_like(x, coefficients[-1]))
