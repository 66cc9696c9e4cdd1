"""Where the expectation of a divergence comes from: a batch, or an integral."""

from dataclasses import dataclass

import jax

from mixture_models.integrals.logistic_normal import FINEST
from mixture_models.types import Index
from mixture_models.validation import integer


@dataclass(frozen=True)
class MonteCarlo:
    """The mean over a fresh batch of ``num_samples`` samples at every evaluation."""

    num_samples: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_samples", integer("num_samples", self.num_samples))


@dataclass(frozen=True)
class Quadrature:
    """The expectation itself, by integrals of a ``resolution`` from 0 to `FINEST`.

    The difference between two resolutions is the estimate of the coarser one's error. All resolutions share a
    compiled program where the resolution is traced. See `mixture_models.integrals.divergences`.
    """

    resolution: Index = FINEST

    def __post_init__(self) -> None:
        if not isinstance(self.resolution, jax.Array):
            checked = integer("resolution", self.resolution, at_least=0, at_most=FINEST)
            object.__setattr__(self, "resolution", checked)
