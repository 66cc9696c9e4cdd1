"""The models of objectives without a companion: the laws that data, or the true target, have."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce

import jax.numpy as jnp
import numpyro

from mixture_models.losses.loss import SITE
from mixture_models.mixture.mixture import Mixture
from mixture_models.mixture.task import NamedTasks
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.types import Scalar


def new_data(replay: Scalar | None, start: TwoMode, target: TwoMode) -> None:
    """Run the model of the training data: the target's new mode, with a share of its old one."""
    if replay is None:
        law = target.mode_law("new")
    else:
        law = replace(target, old_logit=jnp.log(replay) - jnp.log1p(-replay)).law()
    numpyro.sample(SITE, law)


def task_data(shares: Mapping[str, Scalar], start: NamedTasks, target: NamedTasks) -> None:
    """Run the model of training data that hold the target's tasks by these shares, which sum to 1."""
    numpyro.sample(SITE, target.law_of(shares))


def true_target(start: TwoMode, target: TwoMode) -> None:
    """Run the model of the true target p_α."""
    numpyro.sample(SITE, target.law())


@dataclass(frozen=True)
class Seen:
    """The model of the true target without the tasks that are not seen yet.

    Args:
        tasks: the names of those that are.
    """

    tasks: tuple[str, ...]

    def __call__(self, start: Mixture, target: Mixture) -> None:
        """Run the model."""
        weights = dict(zip(target.names, target.weights, strict=True))
        for name in self.tasks:
            target.index(name)
        total = reduce(operator.add, [weights[name] for name in self.tasks])
        numpyro.sample(SITE, target.law_of({name: weights[name] / total for name in self.tasks}))
