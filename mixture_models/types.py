"""The types that many modules name."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Array, Float, Int

if TYPE_CHECKING:
    #: A NumPy array of float64. For jaxtyping, which names its shape, it is the class alone.
    Reals = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
else:
    Reals = np.ndarray

#: A number, or an array of shape () as it is while JAX traces or batches a hyperparameter.
Scalar = float | Float[Array, ""]

#: A whole number, or an array of shape () of one.
Index = int | Int[Array, ""]

#: An array of NumPy or of JAX: where both go in, what comes out is of the kind that went in. No static type
#: has the arithmetic of both.
AnyArray = Any

#: The values of a guide's ``numpyro.param`` sites, by name.
Params = dict[str, Array]

#: A model or a guide: a NumPyro program, run for its sites.
ModelOrGuide = Callable[..., None]

#: The positional arguments of a model and a guide, in their order: with our objectives start and target.
Arguments = tuple[object, ...]
