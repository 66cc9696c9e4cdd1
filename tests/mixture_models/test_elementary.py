"""exp, log and sums against NumPy's extended precision: as accurate as float64 allows, right at the ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixture_models.accel.elementary import exp, log, log1p, total, total_log

EPS = np.finfo(float).eps

pytestmark = pytest.mark.usefixtures("x64")


def assert_close(ours, exact, ulps):
    """Assert a relative error of so many times 2⁻⁵²; the oracle has 11 more bits."""
    error = np.abs(np.asarray(ours).astype(np.longdouble) - exact)
    assert np.all(error <= ulps * EPS * np.abs(exact))


def test_exp_over_the_whole_range():
    x = np.concatenate([np.linspace(-708.0, 709.0, 200_001), np.geomspace(1e-300, 1.0, 1001), [0.0]])
    x = np.concatenate([x, -np.geomspace(1e-300, 1.0, 1001)])
    assert_close(jax.jit(exp)(x), np.exp(x.astype(np.longdouble)), 1.5)


def test_exp_at_the_ends():
    x = jnp.array([-np.inf, -1e300, 800.0, np.inf, np.nan])
    for function in (exp, jax.jit(exp)):
        assert np.array_equal(function(x), [0.0, 0.0, np.inf, np.inf, np.nan], equal_nan=True)
        # No normal number: 0, or on an accelerator the number itself.
        assert 0.0 <= function(jnp.float64(-709.0)) < np.finfo(float).tiny


def test_log_over_the_whole_range():
    near_one = 1.0 + np.concatenate([np.geomspace(EPS, 0.5, 1001), -np.geomspace(EPS, 0.5, 1001)])
    x = np.concatenate(
        [np.geomspace(2.3e-308, 1.7e308, 200_001), near_one, 2.0 ** np.arange(-1022.0, 1024.0)]
    )
    x = np.concatenate([x, np.sqrt(0.5) * (1.0 + EPS * np.arange(-5.0, 6.0))])
    assert_close(jax.jit(log)(x), np.log(x.astype(np.longdouble)), 5.0)


def test_log_at_the_ends():
    x = jnp.array([0.0, -0.0, -1.0, -np.inf, 1.0, np.inf, np.nan])
    for function in (log, jax.jit(log)):
        expected = [-np.inf, -np.inf, np.nan, np.nan, 0.0, np.inf, np.nan]
        assert np.array_equal(function(x), expected, equal_nan=True)


def test_log1p_from_0_to_1():
    x = np.concatenate([np.linspace(0.0, 1.0, 10_001), np.geomspace(1e-300, 1.0, 10_001)])
    assert_close(jax.jit(log1p)(x), np.log1p(x.astype(np.longdouble)), 9.0)


@pytest.mark.parametrize("x", [-3.0, 0.7, 20.0])
def test_derivatives(x):
    assert float(jax.grad(exp)(x)) == pytest.approx(np.exp(x), rel=1e-14)
    assert float(jax.grad(jax.grad(exp))(x)) == pytest.approx(np.exp(x), rel=1e-14)
    assert float(jax.grad(log)(abs(x))) == pytest.approx(1.0 / abs(x), rel=1e-14)
    assert float(jax.grad(jax.grad(log))(abs(x))) == pytest.approx(-1.0 / x**2, rel=1e-14)


def test_exp_in_float32():
    x = np.concatenate([np.linspace(-87.0, 88.0, 2_000_001), np.geomspace(1e-30, 1.0, 1001), [0.0]])
    x = np.concatenate([x, -np.geomspace(1e-30, 1.0, 1001)]).astype(np.float32)
    ours, exact = jax.jit(exp)(x), np.exp(x.astype(float))
    assert ours.dtype == jnp.float32
    assert np.max(np.abs(np.asarray(ours) / exact - 1.0)) < 1.5e-7
    ends = jnp.array([-np.inf, -1e30, 95.0, 1e30, np.inf, np.nan], jnp.float32)
    assert np.array_equal(jax.jit(exp)(ends), [0.0, 0.0, np.inf, np.inf, np.inf, np.nan], equal_nan=True)
    assert 0.0 <= jax.jit(exp)(jnp.float32(-88.0)) < np.finfo(np.float32).tiny


@pytest.mark.parametrize(
    ("ours", "theirs", "dtype"), [(exp, jnp.exp, jnp.bfloat16), (log, jnp.log, jnp.float32)]
)
def test_other_precisions_are_those_of_jax(ours, theirs, dtype):
    x = jnp.linspace(0.1, 5.0, 11, dtype=dtype)
    assert ours(x).dtype == dtype
    assert np.array_equal(ours(x), theirs(x))


@pytest.mark.parametrize("length", [1, 7, 8, 9, 23, 64, 71])
@pytest.mark.parametrize("event", [(), (3,)])
def test_totals_of_any_length(length, event):
    rng = np.random.default_rng(length)
    x = rng.normal(size=(length, *event))
    np.testing.assert_allclose(total(jnp.asarray(x)), x.sum(axis=0), atol=1e-13)
    # Eight values at the ends of the range that is allowed do not leave it.
    values = 10.0 ** rng.choice([-38.0, 0.0, 3.0, 38.0], size=length) * rng.uniform(1.0, 2.0, length)
    values = np.minimum(values, 1e38)
    np.testing.assert_allclose(total_log(jnp.asarray(values)), np.log(values).sum(), rtol=1e-13, atol=1e-11)
