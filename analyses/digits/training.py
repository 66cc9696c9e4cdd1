"""Training of networks: pre-training on a mixture of both tasks, and post-training by an objective.

Several networks are trained side by side in one compiled program; what is compiled takes the number of steps
as an argument, so that the parts between two checkpoints may be of any length.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from analyses.digits.laws import NetworkLaw
from analyses.digits.objectives import DigitsTask, network_of, params_of
from analyses.digits.transformer import Transformer
from inference.engine.programs import traced_alone
from mixture_models.losses.loss import weighted_log_prob
from mixture_models.objectives import Objective

# Of pre-training: steps of a call, share of steps in which the learning rate rises, largest gradient norm.
_CALL, _WARMUP, _LARGEST = 20, 0.1, 1.0


def pretrain(
    networks: Transformer,
    images: Int[Array, "image pixel"],
    logits: Float[Array, "network image"],
    *,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    key: PRNGKeyArray,
    report: Callable[[int], object] = lambda _: None,
) -> Transformer:
    """Return networks after maximum-likelihood training on images, each with its own law of them.

    By AdamW with a learning rate that rises and then falls as a cosine.

    Args:
        networks: at the start, with a leading axis of networks.
        images: that all of them may see.
        logits: log probabilities of the images up to a constant, a row a network.
        num_steps: updates.
        batch_size: images of an update.
        learning_rate: at its height.
        key: of the batches.
        report: called with the number of steps that were taken since the last call.
    """
    optimizer = optax.chain(
        optax.clip_by_global_norm(_LARGEST),
        optax.adamw(
            optax.warmup_cosine_decay_schedule(
                0.0, learning_rate, max(1, int(_WARMUP * num_steps)), num_steps, 0.05 * learning_rate
            ),
            weight_decay=0.01,
        ),
    )

    @jax.jit
    def advance(networks: Transformer, state: Any, keys: PRNGKeyArray, first: Array, count: Array) -> Any:
        def update(step: Array, carry: Any, logits: Array, key: Array) -> Any:
            network, state = carry
            seen = images[jax.random.categorical(jax.random.fold_in(key, step), logits, shape=(batch_size,))]
            gradient = jax.grad(_negative_log_likelihood)(network, seen)
            change, state = optimizer.update(gradient, state, network)
            return eqx.apply_updates(network, change), state

        def one(network: Transformer, state: Any, logits: Array, key: Array) -> Any:
            whole = partial(update, logits=logits, key=key)
            return jax.lax.fori_loop(first, first + count, whole, (network, state))

        return jax.vmap(one)(networks, state, logits, keys)

    keys = jax.random.split(key, len(logits))
    state = jax.vmap(optimizer.init)(networks)
    for first in range(0, num_steps, _CALL):
        count = min(_CALL, num_steps - first)
        networks, state = jax.block_until_ready(advance(networks, state, keys, first, count))
        report(count)
    return networks


class Checkpoint(NamedTuple):
    """Networks after some steps of post-training.

    Attributes:
        step: updates taken.
        networks: with a leading axis of trainings.
        loss: the divergence's estimate at the last update, one a training; NaN at step 0.
    """

    step: int
    networks: Transformer
    loss: Float[np.ndarray, "training"]


class _State(NamedTuple):
    params: dict[str, Array]
    optimizer: Any
    companion: Any
    loss: Array


def post_train(
    objective: Objective,
    starts: DigitsTask,
    targets: DigitsTask,
    steps: Sequence[int],
    *,
    batch_size: int,
    learning_rate: float,
    key: PRNGKeyArray,
) -> Iterator[Checkpoint]:
    """Yield the checkpoints of training networks by an objective: Adam on its divergence, on fresh batches.

    Args:
        objective: of `analyses.digits.objectives`.
        starts: what the learners are at step 0; leading axis of trainings on the network alone.
        targets: what they are trained toward; likewise.
        steps: at which a checkpoint is wanted, increasing, the first 0.
        batch_size: images of an update.
        learning_rate: of Adam.
        key: of all batches; training i draws the same numbers whatever the number of trainings.
    """
    optimizer, guide = optax.adam(learning_rate), objective.guide
    beside: Any = objective.companion
    divergence = objective.loss.with_samples(batch_size)
    axes = _over_networks(starts)

    def one(
        params: Any, companion: Any, key: Array, step: Array, start: DigitsTask, target: DigitsTask
    ) -> Any:
        told = {} if beside is None else {"companion": companion}
        model = partial(objective.model, **told)

        def loss(params: dict[str, Array]) -> Array:
            batch = jax.random.fold_in(key, step)
            return divergence.loss_with_mutable_state(batch, params, model, guide, start, target)["loss"]

        return jax.value_and_grad(loss)(params)

    def follow(companion: Any, params: Any, step: Array, start: DigitsTask, target: DigitsTask) -> Any:
        return beside.after_step(companion, params, step + 1, guide, start, target)

    losses = jax.vmap(one, (0, 0, 0, None, axes, axes))
    followed = jax.vmap(follow, (0, 0, None, axes, axes))

    @jax.jit
    @traced_alone
    def advance(
        state: _State, keys: Array, first: Array, count: Array, starts: DigitsTask, targets: DigitsTask
    ) -> _State:
        def update(step: Array, state: _State) -> _State:
            loss, gradient = losses(state.params, state.companion, keys, step, starts, targets)
            change, inner = optimizer.update(gradient, state.optimizer, state.params)
            params, companion = optax.apply_updates(state.params, change), state.companion
            if beside is not None:
                companion = followed(companion, params, step, starts, targets)
            return _State(params, inner, companion, loss)

        return jax.lax.fori_loop(first, first + count, update, state)

    params = params_of(starts.network)
    num_trainings = len(next(iter(params.values())))
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(num_trainings))
    # A companion starts where the learner does.
    unknown = jnp.full(num_trainings, jnp.nan, jnp.float32)
    state = _State(params, optimizer.init(params), params, unknown)
    for before, step in zip((0, *steps[:-1]), steps, strict=True):
        if step > before:
            state = jax.block_until_ready(advance(state, keys, before, step - before, starts, targets))
        yield Checkpoint(step, network_of(state.params, starts.network), np.asarray(state.loss))


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


def _over_networks(task: DigitsTask) -> DigitsTask:
    """Return the axes of ``vmap`` over a task's networks alone."""
    axes: dict[str, Any] = {"old_images": None, "new_images": None, "old_logit": None, "verifier": None}
    return replace(task, **axes, network=cast(Any, 0))


def _negative_log_likelihood(network: Transformer, images: Array) -> Array:
    return -weighted_log_prob(NetworkLaw(network), images, jnp.full(len(images), 1.0 / len(images)))
