"""Where the expectation of a divergence comes from: a batch, or an integral."""

from dataclasses import dataclass

from mixture_models.validation import integer


@dataclass(frozen=True)
class MonteCarlo:
    """The mean over a fresh batch of ``num_samples`` behaviours at every evaluation."""

    num_samples: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_samples", integer("num_samples", self.num_samples))


@dataclass(frozen=True)
class Quadrature:
    """The expectation itself, by integrals with ``num_nodes`` nodes; see `mixture_models.exact`."""

    num_nodes: int = 36

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_nodes", integer("num_nodes", self.num_nodes, at_least=8))
