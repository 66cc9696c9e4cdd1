"""What the theories of near-on-policy methods share: whether old mass is kept, and where they hold."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from mixture_models.integrals.line import separation_of
from mixture_models.types import Reals
from mixture_models.validation import InputError

#: Largest η Δ and Δ/β, whose exponentials are formed.
LARGEST = 500.0


class Retention(NamedTuple):
    """Whether a method keeps old mass, and how much.

    Attributes:
        retains: whether the condition that the function states holds.
        old_weight: the old mass that is kept.
    """

    retains: Bool[np.ndarray, "..."]
    old_weight: Float[Reals, "..."]


def nonzero_separation(separation: ArrayLike | None) -> Reals:
    """Return δ of modes that differ, or refuse it."""
    delta = separation_of(separation)
    if np.any(delta == 0.0):
        raise InputError("separation must be greater than 0; got 0")
    return delta
