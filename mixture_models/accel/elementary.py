"""log1p, and sums of logarithms over a batch, made of operations that a CPU does several at a time.

XLA's CPU backend leaves float64 logarithms to a scalar library call. Each function stands beside the plain
JAX that takes its place on an accelerator, in other precisions, and where `mixture_models.accel.switch` says
so. What each buys: ``benchmarks/bench_accel.py``.
"""

from collections.abc import Sequence
from functools import reduce

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from mixture_models.accel.switch import beside

# Chebyshev series of log((1 + t)/(1 - t))/t in 18 t² - 1 for t in [0, 1/3], to machine precision.
_NODES = np.cos(np.pi * (np.arange(64) + 0.5) / 64)
_ROOTS = np.sqrt((_NODES + 1.0) / 18.0)
_LOG_SERIES = np.polynomial.chebyshev.cheb2poly(
    np.polynomial.chebyshev.chebfit(_NODES, 2.0 * np.arctanh(_ROOTS) / _ROOTS, 10)
)

_LANES = 8


def _is_float64(x: Array) -> bool:
    return x.dtype == jnp.float64


def _wide(values: Array) -> Array:
    return values.astype(float)


@beside(jnp.log1p, _is_float64)
def log1p(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return log(1 + x) for x in [0, 1], relative error below 2e-15, as the series of artanh(x/(2 + x))."""
    t = x / (2.0 + x)
    return t * horner(_LOG_SERIES, 18.0 * t * t - 1.0)


@beside(lambda values: jnp.sum(_wide(jnp.log(values))), lambda values: _is_float64(_wide(values)))
def total_log(values: Float[Array, "n"]) -> Float[Array, ""]:
    """Return Σ_i log x_i for x_i between 1e-38 and 1e38: one logarithm for eight values, of their product.

    The product is float64. In float32 the x_i must lie between 1e-18 and 1e18: those of two are multiplied in
    float32 first. In plain JAX, and where JAX has no float64, there is one logarithm for each value, in the
    precision of the values.
    """
    length = values.shape[0] // _LANES
    lanes = [values[lane * length : (lane + 1) * length] for lane in range(_LANES)]
    while len(lanes) > 1:
        lanes = [_wide(a * b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
    rest = _wide(values[_LANES * length :])
    return jnp.sum(jnp.log(lax.optimization_barrier(lanes[0]))) + jnp.sum(jnp.log(rest))


def horner(coefficients: Sequence[float] | np.ndarray, x: Array) -> Array:
    """Return Σ_k coefficients[k] x^k."""
    return reduce(lambda sum_, c: sum_ * x + c, coefficients[-2::-1], jnp.full_like(x, coefficients[-1]))
