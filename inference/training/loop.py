"""One training: what it carries, the steps that it takes, and what is reported of it."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Int
from numpyro.infer.svi import SVIState

from inference.engine.programs import Numbers, Program, program_of, traced_alone
from inference.training.steps import Steps, steps_of
from mixture_models.learners import Guide
from mixture_models.losses.precision import in_precision
from mixture_models.mixture.sensible_range import has_left
from mixture_models.mixture.task import Task
from mixture_models.objectives import Objective
from mixture_models.objectives.companions import Companion, Learner
from mixture_models.types import AnyArray, Index, Params, Scalar
from mixture_models.validation import InputError


@contextmanager
def arithmetic() -> Iterator[None]:
    """Hold the settings of JAX that training needs, in the thread that enters."""
    # On a CPU these random numbers are cheaper than the partitionable ones.
    with jax.enable_x64(True), jax.threefry_partitionable(False):
        yield


class State(NamedTuple):
    """What is carried from step to step by every replicate."""

    svi: SVIState
    companion: Params | None
    step: Array
    diverged_step: Array


class Taken(NamedTuple):
    """What a training went through: its params, loss and step at every place, shape (place, ...)."""

    params: Params
    loss: Array
    step: Array


def training_program(
    objective: Objective,
    batch_size: int,
    optimizer: optax.GradientTransformation | None,
    factors: Mapping[str, float],
    precision: str = "float64",
) -> Program:
    """Return the program of a training, or refuse an objective that cannot be trained."""
    if not isinstance(objective.guide, Guide):
        raise InputError(
            f"the guide of {objective.name} must be a mixture_models.Guide, with a method "
            f"metrics(params, start, target); got a {type(objective.guide).__name__}"
        )
    loss = in_precision(objective.loss.with_samples(batch_size), precision)
    # An optimizer made of `jax.tree_util.Partial` has numbers too; of plain functions, it is a constant.
    return program_of((objective.model, objective.guide, loss, dict(factors), optimizer, objective.companion))


@partial(jax.jit, static_argnums=0)
@traced_alone
def first_record(program: Program, numbers: Numbers, setting: tuple[Task, Task]) -> dict[str, Array]:
    """Return what a learner reports at the start."""
    svi, state, guide, beside = _svi(program, numbers, jax.random.key(0), setting, jnp.ones(()))
    params = svi.get_params(state)
    if beside is not None:
        beside.after_step(beside.initial(guide, *setting), Learner(params, guide, *setting), jnp.ones(()))
    return guide.metrics(params, *setting)


def initial_state(
    program: Program, numbers: Numbers, key: Array, setting: tuple[Task, Task], learning_rate: Array
) -> State:
    """Return what one training carries at step 0."""
    _, state, guide, beside = _svi(program, numbers, key, setting, learning_rate)
    companion = None if beside is None else beside.initial(guide, *setting)
    return State(state, companion, jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32))


def _svi(
    program: Program, numbers: Numbers, key: Array, setting: tuple[Task, Task], learning_rate: Array
) -> tuple[Steps, SVIState, Guide[Task], Companion | None]:
    """Build the SVI of a program with its parameter transforms.

    Returns:
        The SVI, its first state, the guide, and the learner's companion or None.
    """
    model, guide, loss, factors, optimizer, beside = program.parts(numbers)
    descent = optax.sgd(learning_rate) if optimizer is None else optimizer
    svi = steps_of(guide)(model, guide, optax.chain(descent, scale_by_name(factors)), loss)
    if beside is not None:
        svi.model = Partial(model, companion=beside.initial(guide, *setting))
    state = svi.init(key, *setting)
    svi.model = model
    known = svi.get_params(state)
    unknown = sorted(set(factors) - set(known))
    if unknown:
        raise InputError(
            f"learning_rate_factors must name params of the learner ({', '.join(sorted(known))}); "
            f"got {', '.join(unknown)}"
        )
    return svi, state, guide, beside


def advance(
    program: Program,
    numbers: Numbers,
    state: State,
    counts: Int[AnyArray, "place"],
    num_steps: Index,
    setting: tuple[Task, Task],
    learning_rate: Array,
) -> tuple[State, Taken]:
    """Take ``counts[i]`` updates of one training after place i.

    Args:
        program: the training's, see `program_of`.
        numbers: the program's.
        state: what the training carries.
        counts: updates after each place, shape (place,); over all calls one more than ``num_steps``, for the
            last loss.
        num_steps: updates of the whole training.
        setting: start and target.
        learning_rate: of plain SGD.

    Returns:
        The state, and what was gone through.
    """
    svi, _, guide, beside = _svi(program, numbers, jax.random.key(0), setting, learning_rate)

    def update(i: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
        state, first_loss = carry
        toward = copy.copy(svi)
        if state.companion is not None:
            toward.model = Partial(svi.model, companion=state.companion)
        svi_state, loss = toward.update(state.svi, *setting)
        diverged_step = _earlier(state.diverged_step, state.step, ~jnp.isfinite(loss))
        after_last = state.step == num_steps  # the update for the last loss is not taken
        params, step = svi.get_params(svi_state), state.step + 1
        left = has_left(*setting, params, guide.sample_dimension)
        lost = (~_all_finite(params) | left) & ~after_last
        diverged_step = _earlier(diverged_step, step, lost)
        companion = state.companion
        if beside is not None and companion is not None:
            companion = beside.after_step(companion, Learner(params, guide, *setting), step)
        svi_state, companion = svi.settled(svi_state, companion)
        return State(svi_state, companion, step, diverged_step), jnp.where(i == 0, loss, first_loss)

    def record(state: State, count: Array) -> tuple[State, tuple[Params, Array, Array]]:
        params, step = svi.get_params(state.svi), state.step
        state, loss = jax.lax.fori_loop(0, count, update, (state, jnp.full((), jnp.nan, float)))
        return state, (params, loss, step)

    state, (params, loss, steps) = jax.lax.scan(record, state, counts)
    return state, Taken(params, loss, steps)


def report_of(
    guide: Guide[Task], diverged_step: Array, taken: Taken, recorded: Array, setting: tuple[Task, Task]
) -> tuple[Array, dict[str, Array]]:
    """Say what one training is at every place that it went through.

    Args:
        guide: the learner.
        diverged_step: the step of the training's divergence, -1 for none.
        taken: what `advance` went through.
        recorded: the places where what is reported must be finite, shape (place,).
        setting: start and target.

    Returns:
        The step of divergence, and what is reported at every place, shape (place, ...): NaN from a
        divergence on.
    """
    steps = taken.step
    observed = jax.vmap(lambda p: guide.metrics(p, *setting))(taken.params) | {"loss": taken.loss}
    # Without the barrier XLA evaluates them again where they are looked at.
    observed = jax.lax.optimization_barrier(observed)
    # Finite parameters can be too far off for what is reported of them.
    lost = ~jax.vmap(_all_finite)(observed) & recorded
    first_lost = steps[jnp.argmax(lost)]
    lost_before = (diverged_step < 0) | (first_lost < diverged_step)
    diverged_step = jnp.where(jnp.any(lost) & lost_before, first_lost, diverged_step)
    diverged = (diverged_step >= 0) & (steps >= diverged_step)
    # Flags (step,) of the rank of values (step, *event).
    masked = {
        name: jnp.where(diverged.reshape(-1, *(1,) * (value.ndim - 1)), jnp.nan, value)
        for name, value in observed.items()
    }
    return diverged_step, masked


def scale_by_name(factors: Mapping[str, Scalar]) -> optax.GradientTransformation:
    """Return an optax transformation that multiplies the updates of the params that ``factors`` names."""
    return optax.stateless(
        lambda updates, params: {name: update * factors.get(name, 1.0) for name, update in updates.items()}
    )


def _all_finite(params: Params) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(value)) for value in jax.tree.leaves(params)]))


def _earlier(diverged_step: Array, step: Array, lost: Array) -> Array:
    """Return ``step`` if something was lost there and nothing before."""
    return jnp.where((diverged_step < 0) & lost, step, diverged_step)
