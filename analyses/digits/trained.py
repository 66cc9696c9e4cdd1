"""Networks before and after post-training, as arrays that a folder keeps, with the images that they draw."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray
from tqdm.auto import tqdm

from analyses.digits import data, training
from analyses.digits.objectives import NetworkTask, network_of, params_of, pretraining
from analyses.digits.settings import NetworkSettings
from analyses.digits.store import Store
from analyses.digits.transformer import Transformer
from mixture_models.objectives import Objective

#: Random numbers of each part of a run, by its number.
type KeyOf = Callable[[int], PRNGKeyArray]

# Steps of pre-training between two looks at its bar.
_SHOWN = 20


def pretrained(
    settings: NetworkSettings,
    store: Store,
    task_of: Callable[[Transformer], NetworkTask],
    keys: tuple[PRNGKeyArray, PRNGKeyArray],
    bar: tqdm,
) -> Transformer:
    """Return the networks that post-training begins with, trained now or kept.

    Args:
        settings: of the networks and of their training.
        store: keeps them.
        task_of: the tasks, in the shares that are learnt, with networks to begin at.
        keys: of the initial weights, and of the batches.
        bar: is told of the steps.
    """
    shape = (data.SIDE**2, settings.num_levels, settings.width, settings.num_blocks, settings.num_heads)
    of_each = jax.vmap(partial(jax.random.fold_in, keys[0]))(jnp.arange(settings.num_seeds))
    networks = jax.vmap(lambda key: Transformer(*shape, key))(of_each)
    task = task_of(networks)

    def compute() -> dict[str, np.ndarray]:
        num_steps = settings.pretraining_steps
        found = training.checkpoints(
            pretraining(),
            task,
            task,
            [*range(0, num_steps, _SHOWN), num_steps],
            batch_size=settings.batch_size,
            optimizer=training.pretraining_optimizer(num_steps, settings.pretraining_rate),
            key=keys[1],
        )
        for checkpoint in _told(found, bar):
            last = checkpoint.networks
        return {name: np.asarray(value) for name, value in params_of(last).items()}

    stored = store.arrays("pretraining", compute)
    return network_of({name: jnp.asarray(value) for name, value in stored.items()}, networks)


def post_trained(
    objective: Objective,
    starts: NetworkTask,
    targets: NetworkTask,
    steps: Sequence[int],
    *,
    settings: NetworkSettings,
    key: PRNGKeyArray,
    sample_key: Callable[[int], PRNGKeyArray],
    bar: tqdm,
) -> dict[str, np.ndarray]:
    """Return the checkpoints of a post-training: params by ``param.NAME``, ``loss`` and ``samples``.

    Args:
        objective: what is trained.
        starts: the tasks, with the networks to begin at.
        targets: the tasks, with the networks that demonstrate.
        steps: of the checkpoints, the first 0.
        settings: of the training, and how many images are drawn.
        key: of the batches.
        sample_key: of the images of a checkpoint, by its place.
        bar: is told of the steps.
    """
    kept: list[dict[str, np.ndarray]] = []
    found = training.checkpoints(
        objective,
        starts,
        targets,
        steps,
        batch_size=settings.batch_size,
        optimizer=optax.adam(settings.learning_rate),
        key=key,
    )
    for place, checkpoint in enumerate(_told(found, bar)):
        images = training.sample(checkpoint.networks, sample_key(place), settings.num_samples)
        params = {f"param.{n}": np.asarray(v) for n, v in params_of(checkpoint.networks).items()}
        kept.append({"samples": np.asarray(images, np.uint8), "loss": checkpoint.loss} | params)
    return {name: np.stack([one[name] for one in kept]) for name in kept[0]}


def checkpoint_at(arrays: Mapping[str, np.ndarray], place: int, like: Transformer) -> Transformer:
    """Return the networks of a checkpoint that `post_trained` returned."""
    params = {name: jnp.asarray(arrays[f"param.{name}"][place]) for name in params_of(like)}
    return network_of(params, like)


def _told(checkpoints: Iterator[training.Checkpoint], bar: tqdm) -> Iterator[training.Checkpoint]:
    """Pass checkpoints on, and tell the bar of the steps to each once it is dealt with."""
    before = 0
    for checkpoint in checkpoints:
        yield checkpoint
        bar.update(checkpoint.step - before)
        before = checkpoint.step
