"""The compiler options of the engines, and the check that functions compiled with them are right.

An option of XLA once made an arctan wrong by 240 %. So before an engine compiles for the first time, some
values of functions, as compiled with the options, are compared with those of NumPy and SciPy. Where they
differ, options and everything else that is made by hand are switched off.
"""

import warnings
from collections.abc import Callable
from threading import RLock

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jaxtyping import Array
from scipy import special

from mixture_models.accel import elementary, noise, switch

#: Options of XLA, by name.
Options = dict[str, str | int]

# Without the first, XLA hands sums to a library and computes their terms anew for each sum. With the second
# it compiles in three quarters of the time, and what it compiles is as fast.
OPTIONS: Options = {
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_backend_optimization_level": 1,
}

# With wide vectors jaxlib 0.11 computes a wrong arctan.
if jaxlib.version.__version_info__ >= (0, 12):
    OPTIONS["xla_cpu_prefer_vector_width"] = 512

# As it is compiled, and as it must be.
_Function = tuple[Callable[[Array], Array], Callable[[np.ndarray], np.ndarray]]

#: What is compared, of numbers in (0, 1) in a precision: a function, and what it must be.
CHECKED: dict[type[np.floating], dict[str, _Function]] = {
    np.float64: {
        "the own log1p": (elementary.log1p, np.log1p),
        "exp": (jnp.exp, np.exp),
        "log": (jnp.log, np.log),
        "log1p": (jnp.log1p, np.log1p),
        "arctan": (jnp.arctan, np.arctan),
        "erf": (jax.scipy.special.erf, special.erf),
    },
    np.float32: {
        "arctan": (jnp.arctan, np.arctan),
        "the own normal quantile": (
            lambda x: noise.normal_quantile((x * 2.0**23).astype(jnp.uint32) << np.uint32(9)),
            lambda x: special.ndtri(np.floor(x * 2.0**23) / 2.0**23),
        ),
    },
}

# Numbers that are compared: several vectors and what is left of one. Errors that are allowed.
_X = np.linspace(0.05, 0.95, 77)
_ALLOWED = {np.float64: 1e-13, np.float32: 1e-5}

_lock = RLock()
_found: list[Options | None] = []


def compiler_options() -> Options | None:
    """Return the options, or None: on an accelerator, where XLA lacks them, or where the switch is off.

    The first call of a process checks the functions. Where one is wrong it warns, and switches off what is
    made by hand.
    """
    with _lock:
        if not _found:
            _found.append(_checked() if switch.is_on("options") else None)
        # What is switched off by itself: see `switch.without`.
        on = {name: value for name, value in (_found[0] or {}).items() if switch.is_on(name)}
    return on or None


def _checked() -> Options | None:
    options: Options | None = OPTIONS
    try:
        wrong = wrong_functions(options)
    except jax.errors.JaxRuntimeError:  # XLA lacks an option
        options = None
        wrong = wrong_functions(options)
    if not wrong:
        return options
    switch.turn_off(*switch.OPERATIONS)
    warnings.warn(
        f"jaxlib {jaxlib.version.__version__} computes {', '.join(wrong)} wrongly with the compiler options "
        "that make training fast; plain JAX without them is used, which is several times slower",
        RuntimeWarning,
        stacklevel=3,
    )
    return None


def wrong_functions(options: Options | None) -> list[str]:
    """Return the names of the functions in `CHECKED` that are wrong when they are compiled with options."""
    inputs = {dtype: _X.astype(dtype) for dtype in CHECKED}
    with jax.enable_x64(True):
        # Compiled ahead, for under a trace a call would be traced too.
        program = jax.jit(_computed, compiler_options=options).lower(*inputs.values()).compile()
        found = program(*inputs.values())
    wrong = []
    for (dtype, functions), values in zip(CHECKED.items(), found, strict=True):
        for (name, (_, exact)), value in zip(functions.items(), np.asarray(values), strict=True):
            allowed = _ALLOWED[dtype]
            if not np.allclose(value, exact(inputs[dtype].astype(np.float64)), rtol=allowed, atol=allowed):
                wrong.append(f"{name} in {np.dtype(dtype)}")
    return wrong


def _computed(*inputs: Array) -> list[Array]:
    """Return a row a function: stacked, they are one loop, and are compiled in half the time."""
    return [
        jnp.stack([function(x) for function, _ in functions.values()])
        for x, functions in zip(inputs, CHECKED.values(), strict=True)
    ]
