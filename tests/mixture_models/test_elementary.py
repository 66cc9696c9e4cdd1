"""log1p and the sum of logarithms against NumPy's extended precision, by hand and in plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixture_models.accel import switch
from mixture_models.accel.elementary import log1p, total_log

EPS = np.finfo(float).eps


@pytest.fixture(autouse=True, params=["by hand", "plain"])
def path(request, x64):
    """Compute by hand, where the environment allows it, and in plain JAX."""
    with switch.without(*(switch.OPERATIONS if request.param == "plain" else ())):
        yield


def test_log1p_from_0_to_1():
    x = np.concatenate([np.linspace(0.0, 1.0, 10_001), np.geomspace(1e-300, 1.0, 10_001)])
    exact = np.log1p(x.astype(np.longdouble))
    # The oracle has 11 more bits.
    error = np.abs(np.asarray(jax.jit(lambda x: log1p(x))(x)).astype(np.longdouble) - exact)
    assert np.all(error <= 9.0 * EPS * np.abs(exact))


def test_derivative_of_log1p():
    for x in (0.0, 0.3, 1.0):
        assert float(jax.grad(log1p)(x)) == pytest.approx(1.0 / (1.0 + x), rel=1e-13)


def test_log1p_in_float32_is_that_of_jax():
    x = jnp.linspace(0.1, 0.9, 11, dtype=jnp.float32)
    assert log1p(x).dtype == jnp.float32
    assert np.array_equal(log1p(x), jnp.log1p(x))


@pytest.mark.parametrize("length", [1, 7, 8, 9, 23, 64, 71])
def test_totals_of_any_length(length):
    # Eight values at the ends of the range that is allowed do not leave it.
    rng = np.random.default_rng(length)
    values = 10.0 ** rng.choice([-38.0, 0.0, 3.0, 38.0], size=length) * rng.uniform(1.0, 2.0, length)
    values = np.minimum(values, 1e38)
    np.testing.assert_allclose(total_log(jnp.asarray(values)), np.log(values).sum(), rtol=1e-13, atol=1e-11)


def test_derivative_of_a_total():
    values = jnp.asarray(np.random.default_rng(0).uniform(0.5, 2.0, 23))
    np.testing.assert_allclose(jax.grad(total_log)(values), 1.0 / values, rtol=1e-13)
