"""The switch of what is made by hand, and the check of what the compiler makes of it."""

import warnings

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
import pytest

from mixture_models import InputError
from mixture_models.accel import compiler, elementary, noise, switch

X = np.linspace(0.0, 1.0, 101)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Start as a process does in which the environment says nothing."""
    monkeypatch.delenv(switch.VARIABLE, raising=False)
    monkeypatch.setattr(switch, "_plain", set())
    monkeypatch.setattr(compiler, "_found", [])
    switch._wanted.cache_clear()
    jax.clear_caches()
    yield
    switch._wanted.cache_clear()
    jax.clear_caches()


def compiled(function, *arguments):
    """Return what an engine computes."""
    options = compiler.compiler_options()
    with jax.enable_x64(True):
        return np.asarray(jax.jit(lambda *a: function(*a), compiler_options=options)(*arguments))


def test_nothing_is_wrong_with_the_options_of_this_version():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiler.compiler_options() == compiler.OPTIONS
    assert all(map(switch.is_on, switch.OPERATIONS))


def test_a_wrong_function_is_found_and_plain_jax_is_right(monkeypatch):
    wrong = elementary._LOG_SERIES * np.where(np.arange(11) == 3, 1.001, 1.0)
    monkeypatch.setattr(elementary, "_LOG_SERIES", wrong)
    # The bug is there.
    with jax.enable_x64(True):
        assert not np.allclose(elementary.log1p(jnp.asarray(X)), np.log1p(X), rtol=1e-9)
    with pytest.warns(RuntimeWarning, match=r"computes the own log1p in float64 wrongly"):
        found = compiled(elementary.log1p, X)
    np.testing.assert_allclose(found, np.log1p(X), rtol=1e-14)
    # Warnings are errors: there is no second one.
    assert compiler.compiler_options() is None
    assert not any(map(switch.is_on, switch.OPERATIONS))


def test_a_wrong_quantile_is_found(monkeypatch):
    monkeypatch.setattr(noise, "_QUANTILE_SERIES", noise._QUANTILE_SERIES * np.float32(1.0001))
    with pytest.warns(RuntimeWarning, match="the own normal quantile in float32"):
        assert compiler.compiler_options() is None


def test_a_function_that_the_options_make_wrong_is_found(monkeypatch):
    """As an arctan once was, by 240 %."""
    right = jnp.arctan
    monkeypatch.setitem(compiler.CHECKED[np.float64], "arctan", (lambda x: 3.4 * right(x), np.arctan))
    with pytest.warns(RuntimeWarning, match=r"computes arctan in float64 wrongly"):
        assert compiler.compiler_options() is None


@pytest.mark.skipif(jaxlib.version.__version_info__ >= (0, 12), reason="a bug of jaxlib 0.11")
def test_the_arctan_of_wide_vectors_is_found():
    wide = compiler.OPTIONS | {"xla_cpu_prefer_vector_width": 512}
    assert compiler.wrong_functions(compiler.OPTIONS) == []
    assert compiler.wrong_functions(wide) == ["arctan in float64"]


def test_options_that_this_version_lacks_are_left_out(monkeypatch):
    monkeypatch.setattr(compiler, "OPTIONS", {"xla_no_such_option": 1})
    assert compiler.compiler_options() is None
    assert all(map(switch.is_on, switch.OPERATIONS))


def test_the_environment_switches_everything_off(monkeypatch):
    monkeypatch.setenv(switch.VARIABLE, "0")
    assert compiler.compiler_options() is None
    assert not any(map(switch.is_on, switch.OPERATIONS))
    key = jax.random.key(3, impl="threefry2x32")
    with jax.threefry_partitionable(False):
        assert np.array_equal(noise.standard_normal(key, (101,)), jax.random.normal(key, (101,), jnp.float32))
    np.testing.assert_array_equal(compiled(elementary.log1p, X), compiled(jnp.log1p, X))


def test_another_value_is_refused(monkeypatch):
    monkeypatch.setenv(switch.VARIABLE, "yes")
    with pytest.raises(InputError, match="MASSDRIFT_ACCEL must be 0 or 1; got 'yes'"):
        compiler.compiler_options()


def test_one_operation_may_be_switched_off_alone():
    with switch.without("log1p"):
        assert not switch.is_on("log1p")
        assert switch.is_on("total_log")
    assert switch.is_on("log1p")
