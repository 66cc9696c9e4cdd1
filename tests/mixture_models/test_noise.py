"""Random bits and normal numbers, against JAX's own and against the exact quantile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from mixture_models.accel import switch
from mixture_models.accel.noise import normal_quantile, random_bits, standard_normal

SHAPES = [(1,), (7,), (1000,), (2, 3, 4)]


@pytest.fixture(autouse=True, params=["by hand", "plain"])
def path(request):
    """Compute by hand, where the environment allows it, and in plain JAX."""
    with switch.without(*(switch.OPERATIONS if request.param == "plain" else ())):
        yield


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_are_those_of_jax(shape):
    with jax.threefry_partitionable(False):
        for key in (jax.random.key(3, impl="threefry2x32"), jax.random.PRNGKey(4)):
            assert np.array_equal(random_bits(key, shape), jax.random.bits(key, shape, jnp.uint32))


@pytest.mark.parametrize(("kind", "partitionable"), [("threefry2x32", True), ("rbg", False)])
def test_other_bits_are_those_of_jax(kind, partitionable):
    key = jax.random.key(5, impl=kind)
    with jax.threefry_partitionable(partitionable):
        assert np.array_equal(random_bits(key, (7,)), jax.random.bits(key, (7,), jnp.uint32))


def test_every_key_of_a_batch_has_its_own_bits():
    with jax.threefry_partitionable(False):
        keys = jax.random.split(jax.random.key(0, impl="threefry2x32"), 5)
        found = jax.jit(jax.vmap(lambda key: random_bits(key, (11,))))(keys)
        assert np.array_equal(found, [jax.random.bits(key, (11,), jnp.uint32) for key in keys])


@pytest.mark.parametrize("shape", SHAPES)
def test_numbers_are_those_of_jax_to_its_rounding(shape):
    """JAX's own quantile is off by up to 6e-6."""
    key = jax.random.key(6, impl="threefry2x32")
    with jax.threefry_partitionable(False):
        mine, theirs = standard_normal(key, shape), jax.random.normal(key, shape, jnp.float32)
    assert mine.dtype == jnp.float32
    assert np.allclose(mine, theirs, rtol=1e-5, atol=1e-7)


def test_quantile_at_every_number_that_the_bits_make():
    numbers = np.arange(2**23, dtype=np.uint32)
    z = np.asarray(jax.jit(lambda bits: normal_quantile(bits))(numbers << np.uint32(9)))
    low = np.nextafter(np.float32(-1.0), np.float32(0.0))
    u = np.maximum(low, (numbers / np.float32(2**23)).astype(np.float32) * (np.float32(1.0) - low) + low)
    exact = np.sqrt(2.0) * special.erfinv(u.astype(np.float64))
    moved = np.abs(exact) > 1e-12
    allowed = 1e-6 if switch.is_on("normal_quantile") else 1e-5
    assert np.max(np.abs(z[moved] / exact[moved] - 1.0)) < allowed
    assert np.all(np.abs(z[~moved]) < allowed)
    assert np.all(np.diff(z) >= -allowed * np.abs(z[1:]))
