"""Training of networks, side by side, by the loop that trains mixtures; and what networks draw."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from analyses.digits.laws import NetworkLaw
from analyses.digits.objectives import NetworkTask, network_of
from analyses.digits.transformer import Transformer
from inference.engine.programs import Numbers, Program, compiled
from inference.training.checks import MOST_STEPS
from inference.training.loop import State, Taken, advance, initial_state, training_program
from mixture_models.objectives import Objective
from mixture_models.types import AnyArray

# Of pre-training: share of steps in which the learning rate rises, largest gradient norm.
_WARMUP, _LARGEST = 0.1, 1.0


def pretraining_optimizer(num_steps: int, learning_rate: float) -> optax.GradientTransformation:
    """Return AdamW with a learning rate that rises to its height and then falls as a cosine."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, max(1, int(_WARMUP * num_steps)), num_steps, 0.05 * learning_rate
    )
    return optax.chain(optax.clip_by_global_norm(_LARGEST), optax.adamw(schedule, weight_decay=0.01))


class Checkpoint(NamedTuple):
    """Networks after some steps of training.

    Attributes:
        step: updates taken.
        networks: with a leading axis of trainings.
        loss: its estimate at the last update, one a training; NaN at step 0.
    """

    step: int
    networks: Transformer
    loss: Float[np.ndarray, "training"]


def checkpoints(
    objective: Objective,
    starts: NetworkTask,
    targets: NetworkTask,
    steps: Sequence[int],
    *,
    batch_size: int,
    optimizer: optax.GradientTransformation,
    key: PRNGKeyArray,
) -> Iterator[Checkpoint]:
    """Yield the checkpoints of training networks by an objective, on fresh batches.

    Args:
        objective: of `analyses.digits.objectives`.
        starts: what the learners are at step 0; leading axis of trainings on the network alone.
        targets: what they are trained toward; likewise.
        steps: at which a checkpoint is wanted, increasing, the first 0.
        batch_size: images of an update.
        optimizer: takes the updates.
        key: of all batches; training i draws the same numbers whatever the number of trainings.
    """
    program = training_program(objective, batch_size, optimizer, {})
    constant, numbers = program.static, program.numbers
    num_trainings = len(jax.tree.leaves(starts.network)[0])
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(num_trainings))
    state = _initial(constant, numbers, keys, starts, targets)
    for before, step in zip((0, *steps[:-1]), steps, strict=True):
        # The last update by itself, for its loss; then none, for the params after it.
        count = step - before
        counts = np.array([max(count - 1, 0), min(count, 1), 0])
        state, taken = jax.block_until_ready(_advance(constant, numbers, state, counts, starts, targets))
        params = {name: value[:, -1] for name, value in taken.params.items()}
        yield Checkpoint(step, network_of(params, starts.network), np.asarray(taken.loss[:, 1]))


@compiled
def _initial(
    program: Program, numbers: Numbers, keys: Array, starts: NetworkTask, targets: NetworkTask
) -> State:
    def one(key: Array, start: NetworkTask, target: NetworkTask) -> State:
        return initial_state(program, numbers, key, (start, target), jnp.ones(()))

    return jax.vmap(one, (0, _over_networks(starts), _over_networks(targets)))(keys, starts, targets)


@compiled
def _advance(
    program: Program,
    numbers: Numbers,
    states: State,
    counts: Int[AnyArray, "place"],
    starts: NetworkTask,
    targets: NetworkTask,
) -> tuple[State, Taken]:
    def one(state: State, start: NetworkTask, target: NetworkTask) -> tuple[State, Taken]:
        return advance(program, numbers, state, counts, MOST_STEPS, (start, target), jnp.ones(()))

    return jax.vmap(one, (0, _over_networks(starts), _over_networks(targets)))(states, starts, targets)


@partial(jax.jit, static_argnums=2)
def sample(networks: Transformer, key: PRNGKeyArray, num_samples: int) -> Int[Array, "network n pixel"]:
    """Return images of every network.

    Args:
        networks: with a leading axis.
        key: of all images.
        num_samples: images of each.
    """
    keys = jax.random.split(key, jax.tree.leaves(networks)[0].shape[0])
    return jax.vmap(lambda network, key: NetworkLaw(network).sample(key, (num_samples,)))(networks, keys)


@partial(jax.jit, static_argnums=3)
def complete(
    networks: Transformer, given: Int[Array, "item given"], key: PRNGKeyArray, num_completions: int
) -> Int[Array, "network item n rest"]:
    """Return what every network draws below the upper pixels of images.

    Args:
        networks: with a leading axis.
        given: the first pixels of each image.
        key: of all completions.
        num_completions: of each image by each network.
    """

    def of_item(given: Array, key: Array) -> Array:
        def of_network(network: Transformer, key: Array) -> Array:
            draw = partial(network.complete, network.read(given))
            return jax.vmap(draw)(jax.random.split(key, num_completions))

        return jax.vmap(of_network)(networks, jax.random.split(key, num_networks))

    num_networks = jax.tree.leaves(networks)[0].shape[0]
    # One image after the other: all caches at once fit no processor's memory near it, which is twice as slow.
    found = jax.lax.map(lambda one: of_item(*one), (given, jax.random.split(key, len(given))))
    return jnp.moveaxis(found, 1, 0)


def _over_networks(task: NetworkTask) -> NetworkTask:
    """Return the axes of ``vmap`` over a task's networks alone."""
    axes: Any = jax.tree.map(lambda _: None, task)
    return replace(axes, network=0)
