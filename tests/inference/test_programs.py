"""Compiled programs: the options that engines compile with change no function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import special

from mixture_models.accel.compiler import compiler_options

FUNCTIONS = {
    "sin": jnp.sin,
    "cos": jnp.cos,
    "sinh": jnp.sinh,
    "tanh": jnp.tanh,
    "arctan": jnp.arctan,
    "exp": jnp.exp,
    "expm1": jnp.expm1,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "power": lambda x: x**1.7,
    "sqrt": jnp.sqrt,
    "erf": special.erf,
    "erfc": special.erfc,
    "gammaln": special.gammaln,
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-5)])
def test_the_options_of_the_compiler_change_no_function(dtype, tolerance):
    """A version of XLA whose wide vectors compute an arctan that is off by 240 % goes red here."""

    def every(x):
        return {name: function(x) for name, function in FUNCTIONS.items()}

    with jax.enable_x64(True):
        x = jnp.linspace(0.1, 0.9, 999, dtype=dtype)
        plain = jax.jit(every)(x)
        found = jax.jit(every, compiler_options=compiler_options())(x)
    for name, values in plain.items():
        np.testing.assert_allclose(found[name], values, rtol=tolerance, err_msg=name)
