"""What every training is told beside what is trained and toward what."""

import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from inference.engine.chunks import chunk_sizes
from inference.engine.programs import Program
from inference.training.checks import check_factors, check_optimizer
from inference.training.loop import training_program
from inference.training.span import Problem, check_plain, check_span, in_span
from mixture_models.mixture.mixture import Mixture
from mixture_models.objectives import Objective
from mixture_models.validation import flag, integer, positive


class TrainingSettings(NamedTuple):
    """Checked settings of a training, or of all stages of a sequence.

    Attributes:
        batch_size: samples in an update.
        learning_rate: of plain SGD.
        num_replicates: trainings.
        seed: of all random numbers.
        record_every: steps between two records.
        optimizer: an optax transformation in the place of plain SGD, or None.
        factors: learning rate factors by name of the param.
        precision: of a batch's densities.
        dimension: that of samples where trainings are simulated in the span of their means, or None.
    """

    batch_size: int
    learning_rate: float
    num_replicates: int
    seed: int
    record_every: int
    optimizer: optax.GradientTransformation | None
    factors: dict[str, float]
    precision: str
    dimension: int | None

    def listed(self) -> dict[str, object]:
        """Return the settings as results list them."""
        own = self._asdict() | {"optimizer": "sgd" if self.optimizer is None else "given by the caller"}
        own["learning_rate_factors"] = own.pop("factors")
        if self.dimension is None:
            del own["dimension"]
        return own

    @property
    def facts(self) -> tuple[object, ...]:
        """What determines a training's numbers beside its problem, its random numbers and its steps."""
        return self.batch_size, self.optimizer, self.factors, self.precision, self.learning_rate

    def program_of(self, objective: Objective) -> Program:
        """Return the program of a training, or refuse an objective that cannot be trained."""
        return training_program(objective, self.batch_size, self.optimizer, self.factors, self.precision)

    def trained(self, start: Mixture, problems: list[Problem]) -> tuple[Mixture, list[Problem]]:
        """Return a start, and objectives with their targets, as they are trained: see ``dimension``."""
        if self.dimension is None:
            return start, problems
        check_plain(self.optimizer)
        for objective, target in problems:
            check_span(objective, start, target)
        return in_span(start, problems, self.dimension)

    def keys(self, number: int) -> Array:
        """Return the ``number``-th keys of the seed, shape (chunk, replicate).

        A key is made of its place, not by splitting: a run with more replicates begins with a
        smaller's.
        """
        shape = chunk_sizes(self.num_replicates)
        key = jax.random.key(self.seed, impl="threefry2x32")
        return _folded(key, number, math.prod(shape)).reshape(shape)


@partial(jax.jit, static_argnums=2)
def _folded(key: Array, number: int, count: int) -> Array:
    """Return ``count`` keys of the ``number``-th place of a key."""
    return jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, number)))(jnp.arange(count))


def training_settings(
    *,
    batch_size: int,
    learning_rate: float,
    num_replicates: int,
    seed: int,
    record_every: int,
    optimizer: optax.GradientTransformation | None,
    learning_rate_factors: Mapping[str, float] | None,
    precision: str,
    dimension: int | None,
    progress: bool,
) -> TrainingSettings:
    """Return the settings of a training, or refuse those that are out of range."""
    flag("progress", progress)
    check_optimizer(optimizer)
    return TrainingSettings(
        batch_size=integer("batch_size", batch_size),
        learning_rate=positive("learning_rate", learning_rate),
        num_replicates=integer("num_replicates", num_replicates),
        seed=integer("seed", seed, at_least=0, at_most=2**63 - 1),
        record_every=integer("record_every", record_every),
        optimizer=optimizer,
        factors=check_factors(learning_rate_factors),
        precision=precision,
        dimension=None if dimension is None else integer("dimension", dimension),
    )
