"""Groups of digits as named tasks: the images of each, and a network that draws them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from analyses.digits.data import Images
from analyses.digits.judges import Perceptron
from analyses.digits.laws import ImagesLaw
from analyses.digits.objectives import NetworkTask
from analyses.digits.transformer import Transformer
from mixture_models.mixture.task import NamedTasks


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["images", "log_shares", "network", "verifier"],
    meta_fields=["groups"],
)
@dataclass(frozen=True, eq=False)
class GroupsTask(NetworkTask, NamedTasks):
    """Groups of digits where a mixture of named tasks has Gaussian modes, and a network that does them.

    Attributes:
        groups: the name of every task and its digits.
        images: of each task, shape (n, pixel).
        log_shares: logarithms of the tasks' shares.
        network: what a learner is when it is started here.
        verifier: the classifier that rewards.
    """

    groups: tuple[tuple[str, tuple[int, ...]], ...]
    images: tuple[Int[Array, "n pixel"], ...]
    log_shares: Float[Array, "K"]
    network: Transformer
    verifier: Perceptron

    @classmethod
    def create(
        cls,
        tasks: Mapping[str, Sequence[int]],
        images: Images,
        shares: Sequence[float],
        network: Transformer,
        verifier: Perceptron,
    ) -> Self:
        """Return the tasks with their real images.

        Args:
            tasks: the digits of every task by its name.
            images: real digits.
            shares: of the tasks in `law`.
            network: what a learner is when it is started here.
            verifier: the classifier that rewards.
        """
        groups = tuple((name, tuple(digits)) for name, digits in tasks.items())
        own = tuple(jnp.asarray(images.of(digits).pixels) for _, digits in groups)
        return cls(groups, own, jnp.log(jnp.asarray(shares)), network, verifier)

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks' names, in their order."""
        return tuple(name for name, _ in self.groups)

    def law(self) -> ImagesLaw:
        """Return the law of all tasks' images."""
        return ImagesLaw.of_tasks(self.images, list(self.log_shares))

    def mode_law(self, mode: str) -> ImagesLaw:
        """Return the law of one task's images, by its name."""
        return self.law_of({mode: 1.0})

    def law_of(self, shares: Mapping[str, Any]) -> ImagesLaw:
        """Return the law of the images of the tasks that ``shares`` names."""
        places = {self.index(name): share for name, share in shares.items()}
        ordered = sorted(places)  # in the tasks' order, so that equal random numbers choose equal tasks
        return ImagesLaw.of_tasks(
            [self.images[k] for k in ordered], [jnp.log(jnp.asarray(places[k], float)) for k in ordered]
        )

    def posterior(self, y: Int[Array, "n pixel"]) -> tuple[Float[Array, "n"], ...]:
        """Return the verifier's probability of every task, among the digits of all of them."""
        each = self.verifier.log_probabilities(y / (self.verifier.num_levels - 1))
        joint = jnp.stack([jax.nn.logsumexp(each[:, jnp.array(d)], axis=-1) for _, d in self.groups])
        return tuple(jax.nn.softmax(joint, axis=0))

    def begun_at(self, network: Transformer) -> Self:
        """Return the same tasks with another network."""
        return replace(self, network=network)
