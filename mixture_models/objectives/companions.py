"""What travels beside the learner of a near-on-policy method: a teacher, a reference policy, a lagged policy.

A companion is a second policy in the learner's own coordinates: its state is a dict of the guide's params,
and its law is that of the guide at these params. It starts where the learner does. A model that is pulled
toward it takes the state as the keyword argument ``companion``. Without it a companion that rests is where it
starts; one that moves must be given, since whoever calls the model must move it (`inference.train` does).

A companion is a `Companion`, a registered dataclass that overrides the defaults that are not true of it. It
is told of the learner that it follows by a `Learner`.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers

from mixture_models.losses.loss import SITE, law_of, undrawn
from mixture_models.mixture.mixture import Mixture
from mixture_models.mixture.task import Task
from mixture_models.types import Index, ModelOrGuide, Params, Scalar
from mixture_models.validation import InputError


class Learner(NamedTuple):
    """The learner as its companion sees it at one moment.

    Attributes:
        params: where it is.
        guide: its NumPyro program.
        start: where it started.
        target: the true target.
    """

    params: Params
    guide: ModelOrGuide
    start: Task
    target: Task


class Companion:
    """A companion that starts as the learner and rests.

    Attributes:
        name: what it is called.
        paced: whether it moves at a pace in steps of training, so that a flow needs the learning rate.
    """

    name: ClassVar[str]
    paced: ClassVar[bool] = False

    def initial(self, guide: ModelOrGuide, start: Task, target: Task) -> Params:
        """Return the params at step 0: those of the learner."""
        return params_at(guide, start, target)

    def after_step(self, companion: Params, learner: Learner, step: Index) -> Params:
        """Return the params after the learner's update number ``step``, 1 for the first."""
        return companion

    def velocity(self, companion: Params, learner: Learner, learning_rate: Scalar) -> Params:
        """Return the derivative of the params by the time t = step · learning rate, between jumps."""
        return {name: jnp.zeros_like(value) for name, value in companion.items()}

    def sync_interval(self, learning_rate: Scalar) -> Scalar:
        """Return the time between two jumps onto the learner, infinite for none."""
        return np.inf


@partial(jax.tree_util.register_dataclass, data_fields=["anchor", "ema", "demonstrations"], meta_fields=[])
@dataclass(frozen=True)
class Teacher(Companion):
    """An average of the learner's past that demonstrations pull: ω ← (1-a) ω + a [(1-λ) θ + λ ω_demo].

    ω are the teacher's params, θ the learner's, ω_demo those that the learner has when it is started at the
    demonstrations. For λ > 0 the only place where ω = θ rests is ω_demo; for λ = 0 every place is one. Laws
    can also be equal with the labels of the modes swapped, see `theory.sdft_swapped_rest`.
    As a flow: dω/dt = (a/η) [(1-λ) θ + λ ω_demo - ω] with the learning rate η.

    Args:
        anchor: λ in [0, 1].
        ema: a in [0, 1].
        demonstrations: the mixture that the demonstrations show; None for the target.

    Source: arXiv:2601.19897 for the moving average; the anchor is the model of how demonstrations in the
    teacher's prompt pull it, derivation: docs/theory.md.
    """

    anchor: Scalar
    ema: Scalar
    demonstrations: Mixture | None = None
    name: ClassVar[str] = "teacher"
    paced: ClassVar[bool] = True

    def after_step(self, companion: Params, learner: Learner, step: Index) -> Params:
        """Return the params after the learner's update number ``step``."""
        pull = self._pull(companion, learner)
        return {name: value + self.ema * pull[name] for name, value in companion.items()}

    def velocity(self, companion: Params, learner: Learner, learning_rate: Scalar) -> Params:
        """Return the derivative of the params by the time t = step · learning rate."""
        pull = self._pull(companion, learner)
        return {name: self.ema / learning_rate * pull[name] for name in companion}

    def _pull(self, companion: Params, learner: Learner) -> Params:
        """Return (1-λ) θ + λ ω_demo - ω."""
        shown = learner.target if self.demonstrations is None else self.demonstrations
        demonstrated = params_at(learner.guide, shown, learner.target)
        shapes, wanted = (
            {n: jnp.shape(v) for n, v in params.items()} for params in (demonstrated, companion)
        )
        if shapes != wanted:
            raise InputError(f"demonstrations must have params of shapes {wanted}; got {shapes}")
        return {
            name: (1.0 - self.anchor) * learner.params[name] + self.anchor * demonstrated[name] - value
            for name, value in companion.items()
        }


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class Reference(Companion):
    """The learner as it was at step 0, for good."""

    name: ClassVar[str] = "reference"


@partial(jax.tree_util.register_dataclass, data_fields=["lag"], meta_fields=[])
@dataclass(frozen=True)
class Lagged(Companion):
    """The learner as it was at the last sync: every ``lag`` steps it jumps onto the learner.

    Args:
        lag: L, the number of steps between two syncs.
    """

    lag: Index
    name: ClassVar[str] = "lagged"
    paced: ClassVar[bool] = True

    def after_step(self, companion: Params, learner: Learner, step: Index) -> Params:
        """Return the params after the learner's update number ``step``: the learner's where L divides it."""
        sync = step % self.lag == 0
        return {name: jnp.where(sync, learner.params[name], value) for name, value in companion.items()}

    def sync_interval(self, learning_rate: Scalar) -> Scalar:
        """Return L · η, the time between two jumps onto the learner."""
        return self.lag * learning_rate


def params_at(guide: ModelOrGuide, start: Task, target: Task) -> Params:
    """Return the params that a guide has when it is started at a mixture."""
    with handlers.block():
        trace = handlers.trace(undrawn(guide)).get_trace(start, target)
    return {name: jnp.asarray(site["value"]) for name, site in trace.items() if site["type"] == "param"}


def with_companion(model: ModelOrGuide, companion: Params | None) -> ModelOrGuide:
    """Return a model that knows its companion's params, where there is one."""
    return model if companion is None else partial(model, companion=companion)


def companion_law(guide: ModelOrGuide, start: Task, target: Task, companion: Params | None = None) -> None:
    """Run the model of the companion's law: that of the guide at the companion's params, else at the start.

    The guide's param sites stay inside: outside they would be the learner's.
    """
    with handlers.block():
        law = law_of(guide, companion or {}, start, target)
    numpyro.sample(SITE, law)


def moving_companion_law(
    guide: ModelOrGuide, start: Task, target: Task, companion: Params | None = None
) -> None:
    """Run the model of the law of a companion that moves, which must be given.

    Raises:
        InputError: no companion, as in a plain `SVI.run`, which would hold it where it starts.
    """
    if companion is None:
        raise InputError(
            "a model whose companion moves must be given the companion's params as companion=..., as "
            "inference.train gives and moves them; got none"
        )
    companion_law(guide, start, target, companion)
