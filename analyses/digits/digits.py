"""The run: pre-train, post-train by every objective, sample, embed, measure, count and evaluate."""

import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from rich.console import Group, RenderableType
from tqdm.auto import tqdm

from analyses.digits import data, evals_report, judges, report
from analyses.digits.choices import Choice, choices
from analyses.digits.evals_layout import evals_groups
from analyses.digits.evaluation import (
    BASE,
    NEW_TASKS,
    Evaluation,
    evaluation,
    measured_images,
    now,
    write_log,
)
from analyses.digits.evaluation import measured as measured_answers
from analyses.digits.layout import assembled, checkpoint_name, image_sets
from analyses.digits.objectives import DigitsTask
from analyses.digits.settings import Settings
from analyses.digits.store import Store
from analyses.digits.trained import KeyOf, checkpoint_at, post_trained, pretrained
from analyses.digits.transformer import Transformer
from inference import results
from inference.progress import hidden
from inference.storage import files

# What the random numbers of each part are folded with.
_VERIFIER, _NETWORKS, _PRETRAINING, _POST_TRAINING, _SAMPLES, _GRADER, _COMPLETIONS, _TRUTH = range(8)

# Where the logs of evaluations stand in the folder of a run.
_LOGS = "evals"


def run(settings: Settings, *, out: Path, progress: bool = True) -> xr.DataTree:
    """Return the result of a run; finished parts in the folder are not computed again.

    Args:
        settings: of the run; with ``truth`` what the networks have lost and won of the evaluation's items by
            the last checkpoint is found by brute force, too.
        out: folder in which every finished part is kept.
        progress: whether to show a progress bar.

    Returns:
        DataTree as `analyses.digits.layout.assembled` lays it out.

    Raises:
        InputError: a folder of other settings, before anything is computed.
    """
    store = Store(out, settings)
    with jax.enable_x64(False), tqdm(disable=hidden(progress), unit="step") as bar:
        return _run(settings, store, bar)


def table(tree: xr.DataTree) -> RenderableType:
    """Return the tables of a run."""
    return Group(report.agreement(tree), report.table(tree), evals_report.table(tree))


def remarks(tree: xr.DataTree) -> list[str]:
    """Return what a run says of the lens and of the instruments."""
    return [words for words in (report.words(tree), evals_report.words(tree)) if words]


def _run(settings: Settings, store: Store, bar: tqdm) -> xr.DataTree:
    key = jax.random.key(settings.seed)
    of = partial(jax.random.fold_in, key)
    digits = data.load(settings.num_levels, settings.seed)
    verifier = judges.perceptron(digits.judges, settings.num_levels, of(_VERIFIER))
    embed = judges.Embedding(digits.judges, settings.num_levels, settings.seed)
    chosen = choices(settings, replay=settings.old_weight, num_steps=settings.steps[-1])
    bar.total = settings.pretraining_steps + settings.steps[-1] * len(chosen)
    bar.set_description("pre-training")
    learnt = partial(_task, settings.start_old_weight, digits, verifier=verifier)
    networks = pretrained(settings, store, learnt, (of(_NETWORKS), of(_PRETRAINING)), bar)
    start = _task(settings.old_weight, digits, networks, verifier)
    demonstrations, arrays = start, {}
    for index, (name, choice) in enumerate(chosen.items()):
        bar.set_description(name)
        target = demonstrations if choice.demonstrated else start
        whole = partial(_trained, settings, choice, start, target, of, index, bar)
        arrays[name] = store.arrays(name, whole)
        if choice.demonstrates:
            shown = checkpoint_at(arrays[name], -1, networks)
            demonstrations = _task(settings.old_weight, digits, shown, verifier)
    old, new = digits.networks.old, digits.networks.new
    panel = judges.Panel(digits.judges, digits.networks, settings.num_levels, settings.seed)
    trees, counts = [], []
    for seed in range(settings.num_seeds):
        bar.set_description(f"measuring network {seed + 1} of {settings.num_seeds}")
        images = image_sets(arrays, settings.steps, seed)
        embedded = {name: embed(each) for name, each in images.items()}
        measuring = partial(measured_images, embedded, settings.seed, store.parts / f"measuring-{seed}")
        # Each task's digits vary in their own way, and a network's unsure digits lie between the tasks: all
        # features tell what one axis alone does not.
        measuring = partial(measuring, embed(old), embed(new), covariance="unequal")
        trees.append(store.tree(f"measured-{seed}", measuring))
        counts.append({name: panel.count(each) for name, each in images.items()})
    asked = evaluation(digits, settings.num_levels, settings.num_items, of(_GRADER))
    checkpoints = _Checkpoints(settings, networks, arrays)
    evaluated = _evaluated(checkpoints, store, asked, of, bar)
    right = _brute_force(checkpoints, store, asked, of, bar) if settings.truth else None
    found = assembled(settings, chosen, arrays, trees, counts, digits)
    for name, group in evals_groups(evaluated, right, asked).items():
        found[name] = xr.DataTree(results.describe(group))
    return found


def _task(
    old_weight: float, digits: data.Digits, networks: Transformer, verifier: judges.Perceptron
) -> DigitsTask:
    old, new = (jnp.asarray(images) for images in (digits.networks.old, digits.networks.new))
    return DigitsTask(old, new, jnp.log(old_weight) - jnp.log1p(-old_weight), networks, verifier)


def _trained(
    settings: Settings,
    choice: Choice,
    start: DigitsTask,
    target: DigitsTask,
    of: KeyOf,
    index: int,
    bar: tqdm,
) -> dict[str, np.ndarray]:
    def sample_key(place: int) -> PRNGKeyArray:
        # The start is the same for all objectives, and so are its images.
        return jax.random.fold_in(of(_SAMPLES), 0 if place == 0 else place + len(settings.steps) * index)

    return post_trained(
        choice.objective,
        start,
        target,
        settings.steps,
        settings=settings,
        key=jax.random.fold_in(of(_POST_TRAINING), index),
        sample_key=sample_key,
        bar=bar,
    )


class _Checkpoints(NamedTuple):
    """The networks of a run: at the start, and what every objective has made of them."""

    settings: Settings
    start: Transformer
    arrays: Mapping[str, Mapping[str, np.ndarray]]

    def at(self, name: str, place: int) -> Transformer:
        """Return the networks of an objective at a checkpoint by its place; all begin with the start."""
        return self.start if place == 0 else checkpoint_at(self.arrays[name], place, self.start)


def _evaluated(
    checkpoints: _Checkpoints, store: Store, asked: Evaluation, of: KeyOf, bar: tqdm
) -> list[xr.DataTree]:
    """Let every checkpoint answer, write the logs, and return what is measured of each network's."""
    settings, arrays = checkpoints.settings, checkpoints.arrays
    answers = {}
    for index, name in enumerate([BASE, *arrays]):
        bar.set_description(f"evaluating {name}")
        places = [0] if name == BASE else list(range(1, len(settings.steps)))

        def compute(
            name: str = name, index: int = index, places: list[int] = places
        ) -> dict[str, np.ndarray]:
            drawn = []
            for place in places:
                key = jax.random.fold_in(of(_COMPLETIONS), place + len(settings.steps) * index)
                drawn.append(asked.completions(checkpoints.at(name, place), settings.num_completions, key))
            return {"completions": np.stack(drawn), "time": np.array(now())}

        answers[name] = store.arrays(f"completions-{name}", compute)
    trees = []
    for seed in range(settings.num_seeds):
        bar.set_description(f"measuring the answers of network {seed + 1} of {settings.num_seeds}")
        logs = store.folder / _LOGS / f"network-{seed}"
        logs.parent.mkdir(exist_ok=True)
        with files.folder_beside(logs) as part:
            for name, stored in answers.items():
                for step, drawn in zip(
                    (0,) if name == BASE else settings.steps[1:], stored["completions"], strict=True
                ):
                    folder = part / name if name == BASE else part / name / f"checkpoint-{step}"
                    model = {"network": seed, "objective": name, "step": step}
                    write_log(asked, drawn[seed], folder, str(stored["time"]), model)
            files.replace(part, logs)
        runs = {name: logs / name for name in answers}
        measuring = partial(measured_answers, runs, NEW_TASKS, settings.seed)
        trees.append(store.tree(f"evals-{seed}", measuring))
    return trees


def _brute_force(
    checkpoints: _Checkpoints, store: Store, asked: Evaluation, of: KeyOf, bar: tqdm
) -> xr.DataArray:
    """Return of very many completions of each item those that are right, at the start and at the end."""
    settings, arrays, steps = checkpoints.settings, checkpoints.arrays, checkpoints.settings.steps
    places = [0, len(steps) - 1]
    shape = (len(arrays), settings.num_seeds, len(places))
    right: dict[tuple[int, int, int], np.ndarray] = {}
    for seed, (c, place), (o, name) in itertools.product(
        range(settings.num_seeds), enumerate(places), enumerate(arrays)
    ):
        if place == 0 and o > 0:
            right[o, seed, c] = right[0, seed, c]
            continue
        bar.set_description(f"brute force, network {seed + 1}, {checkpoint_name(name, steps[place])}")

        def compute(
            seed: int = seed, place: int = place, o: int = o, name: str = name
        ) -> dict[str, np.ndarray]:
            network = jax.tree.map(lambda leaf: leaf[seed], checkpoints.at(name, place))
            key = jax.random.fold_in(jax.random.fold_in(of(_TRUTH), seed), place + len(steps) * o)
            return {"right": asked.right_of_many(network, key)}

        part = f"truth-{seed}-{checkpoint_name(name, steps[place]).replace('/', '-')}"
        right[o, seed, c] = store.arrays(part, compute)["right"]
    counts = np.stack([right[where] for where in np.ndindex(shape)])
    return xr.DataArray(
        counts.reshape(*shape, *counts.shape[1:]),
        {
            "objective": list(arrays),
            "seed": np.arange(settings.num_seeds),
            "checkpoint": [steps[place] for place in places],
        },
        ("objective", "seed", "checkpoint", "batch", "item"),
    )
