"""What is compiled, and what is passed in: objectives that differ in numbers only share a program."""

from collections.abc import Callable
from functools import cache, wraps
from threading import RLock
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef

from mixture_models.accel.compiler import compiler_options

_NUMBERS = int | float | np.ndarray | jax.Array

_TRACING = RLock()


#: What a program takes of a pytree: its numbers, None in the place of a constant.
Numbers = tuple[np.ndarray | jax.Array | None, ...]


class Program(NamedTuple):
    """A pytree split into its numbers and everything else; hashable, for ``jit``, once `static`.

    Split as a list of leaves: a tree of half the leaves would go through the checks of the classes in it, and
    an absent number would look like one that is passed in.
    """

    numbers: Numbers
    structure: PyTreeDef
    constants: tuple[object, ...]

    @property
    def static(self) -> Self:
        """The program without its numbers."""
        return self._replace(numbers=(None,) * len(self.numbers))

    def parts(self, numbers: Numbers) -> Any:
        """Return the pytree with these numbers in it."""
        leaves = [c if n is None else n for n, c in zip(numbers, self.constants, strict=True)]
        return jax.tree.unflatten(self.structure, leaves)


def program_of(parts: object) -> Program:
    """Split a pytree: numbers and arrays, but not flags, are passed in; all other leaves are constants."""
    leaves, structure = jax.tree.flatten(parts)
    numeric = [isinstance(leaf, _NUMBERS) and not isinstance(leaf, bool) for leaf in leaves]
    numbers = tuple(_passed(leaf) if n else None for leaf, n in zip(leaves, numeric, strict=True))
    constants = tuple(None if n else leaf for leaf, n in zip(leaves, numeric, strict=True))
    return Program(numbers, structure, constants)


def _passed(number: int | float | np.ndarray | jax.Array) -> np.ndarray | jax.Array:
    # Not to the device one by one: a thousand points of a sweep have thousands of numbers.
    return jnp.asarray(number, float) if isinstance(number, jax.Array) else np.asarray(number, np.float64)


def traced_alone[**P, T](function: Callable[P, T]) -> Callable[P, T]:
    """Let one thread at a time run what is under ``jit``: NumPyro's handlers are one stack for all threads.

    The function runs while it is traced only; threads compile and compute side by side.
    """

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> T:
        with _TRACING:
            return function(*args, **kwargs)

    return alone


def compiled[**P, T](function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function with the options of the engines; its first argument, a `Program`, is constant.

    The options are found out at the first call: an import must not start JAX's backend.
    """

    @cache
    def jitted() -> Callable[P, T]:
        return jax.jit(traced_alone(function), static_argnums=0, compiler_options=compiler_options())

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return jitted()(*args, **kwargs)

    # As those of what `jit` returns.
    for name in ("lower", "eval_shape"):
        setattr(call, name, lambda *args, name=name: getattr(jitted(), name)(*args))
    return call
