"""The run: pre-train, teach one task after the other by every objective, draw, measure, count, predict."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from tqdm.auto import tqdm

from analyses.digits import data, judges
from analyses.digits.evaluation import BASE, Evaluation, evaluation, measured, measured_images, now, write_log
from analyses.digits.store import Store
from analyses.digits.trained import KeyOf, checkpoint_at, post_trained, pretrained
from analyses.digits.transformer import Transformer
from analyses.digits_sequence import prediction
from analyses.digits_sequence.layout import (
    START,
    assembled,
    checkpoint_name,
    counted_draws,
    ends_of,
    stage_end,
)
from analyses.digits_sequence.objectives import choices_of, names_of, of_networks
from analyses.digits_sequence.settings import Settings
from analyses.digits_sequence.tasks import GroupsTask
from inference.progress import hidden
from inference.storage import files

# What the random numbers of each part are folded with.
_VERIFIER, _NETWORKS, _PRETRAINING, _POST_TRAINING, _SAMPLES, _GRADER, _COMPLETIONS = range(7)

# Where the logs of evaluations stand in the folder of a run.
_LOGS = "evals"

#: Of each objective and stage the arrays of `post_trained`.
Arrays = Mapping[str, list[dict[str, np.ndarray]]]


def run(settings: Settings, *, out: Path, progress: bool = True) -> xr.DataTree:
    """Return the result of a run; finished parts in the folder are not computed again.

    Args:
        settings: of the run.
        out: folder in which every finished part is kept.
        progress: whether to show a progress bar.

    Returns:
        DataTree as `analyses.digits_sequence.layout.assembled` lays it out.

    Raises:
        InputError: a folder of other settings, before anything is computed.
    """
    store = Store(out, settings)
    with jax.enable_x64(False), tqdm(disable=hidden(progress), unit="step") as bar:
        return _run(settings, store, bar)


def _run(settings: Settings, store: Store, bar: tqdm) -> xr.DataTree:
    of = partial(jax.random.fold_in, jax.random.key(settings.seed))
    groups, shown = settings.groups, [digit for own in settings.groups.values() for digit in own]
    digits = data.Digits(*(part.of(shown) for part in data.load(settings.num_levels, settings.seed)))
    verifier = judges.perceptron(digits.judges, settings.num_levels, of(_VERIFIER))
    shares = list(settings.start_weights.values())
    task_of = partial(GroupsTask.create, groups, digits.networks, shares, verifier=verifier)
    bar.total = settings.pretraining_steps + settings.steps[-1] * len(settings.taught) * len(
        names_of(settings)
    )
    bar.set_description("pre-training")
    start = pretrained(settings, store, task_of, (of(_NETWORKS), of(_PRETRAINING)), bar)
    arrays = _trained(settings, store, task_of(start), of, bar)
    features = _Features(digits, settings)
    panel = judges.Panel(digits.judges, digits.networks, settings.num_levels, settings.seed, groups)
    at_once: list[xr.DataTree] = []
    each: list[list[xr.DataTree]] = []
    counts = []
    for seed in range(settings.num_seeds):
        bar.set_description(f"measuring network {seed + 1} of {settings.num_seeds}")
        images = images_of(settings, arrays, seed)
        ends = {name: features.embed(images[name]) for name in ends_of(settings)}
        measuring = partial(measured_images, ends, settings.seed, store.parts / f"measuring-{seed}")
        at_once.append(store.tree(f"at-once-{seed}", partial(measuring, features.tasks)))
        each.append([])
        for task in groups:
            # Two references use all features, three or more the discriminants between them alone.
            against = partial(measuring, *features.against_rest(task), covariance="unequal")
            each[-1].append(store.tree(f"against-rest-{seed}-{task}", against))
        counts.append({name: panel.count(one) for name, one in images.items()})
    asked = evaluation(digits, settings.num_levels, settings.num_items, of(_GRADER), groups)
    answers = _evaluated(settings, store, asked, start, arrays, of, bar)
    counted = counted_draws(settings, counts)
    courses = _courses(settings, store, features, counted, bar)
    return assembled(settings, counted, at_once, each, answers, courses)


class _Features:
    """The real digits of the networks as features: the references of the measurements."""

    def __init__(self, digits: data.Digits, settings: Settings) -> None:
        self.embed = judges.Embedding(digits.judges, settings.num_levels, settings.seed)
        self._digits, self._groups = digits.networks, settings.groups
        self.tasks = {name: self._of(own) for name, own in self._groups.items()}

    def against_rest(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of one task's digits, and of those of all others."""
        rest = [digit for name, own in self._groups.items() if name != task for digit in own]
        return self.tasks[task], self._of(rest)

    def _of(self, digits: Sequence[int]) -> np.ndarray:
        return self.embed(self._digits.of(digits).pixels)


def _trained(settings: Settings, store: Store, start: GroupsTask, of: KeyOf, bar: tqdm) -> Arrays:
    """Return the checkpoints of every objective and stage, each stage begun where the one before it ended."""
    arrays: dict[str, list[dict[str, np.ndarray]]] = {}
    demonstrations: list[dict[str, np.ndarray]] = []
    for index, (name, choice) in enumerate(choices_of(settings).items()):
        arrays[name], network = [], start.network
        for number, task in enumerate(settings.taught):
            bar.set_description(f"{name}, {task}")
            place = index * len(settings.taught) + number
            shown = network
            if choice.demonstrated:
                shown = checkpoint_at(demonstrations[number], -1, start.network)
            training = partial(
                post_trained,
                of_networks(settings, choice, task),
                start.begun_at(network),
                start.begun_at(shown),
                settings.steps,
                settings=settings,
                key=jax.random.fold_in(of(_POST_TRAINING), place),
                sample_key=partial(_sample_key, settings, of(_SAMPLES), place),
                bar=bar,
            )
            arrays[name].append(store.arrays(f"{name}-{number + 1}", training))
            network = checkpoint_at(arrays[name][-1], -1, start.network)
        if choice.demonstrates:
            demonstrations = arrays[name]
    return arrays


def _sample_key(settings: Settings, key: PRNGKeyArray, training: int, place: int) -> PRNGKeyArray:
    return jax.random.fold_in(key, training * len(settings.steps) + place)


def images_of(settings: Settings, arrays: Arrays, seed: int) -> dict[str, np.ndarray]:
    """Return the images of one network's checkpoints by name, those of its start first and once."""
    first, *_ = arrays.values()
    found = {START: first[0]["samples"][0, seed].astype(np.int32)}
    for name, stages in arrays.items():
        for number, stage in enumerate(stages):
            for place, step in enumerate(settings.steps[1:], 1):
                at = checkpoint_name(name, number * settings.steps[-1] + step)
                found[at] = stage["samples"][place, seed].astype(np.int32)
    return found


def _evaluated(
    settings: Settings,
    store: Store,
    asked: Evaluation,
    start: Transformer,
    arrays: Arrays,
    of: KeyOf,
    bar: tqdm,
) -> list[list[dict[str, xr.DataTree]]]:
    """Let the start and the end of every stage answer, and return what each stage has lost since it began.

    A stage is a post-training whose base is the network that it begins with.

    Returns:
        Of every network and stage what `measure_evals` says, by objective.
    """
    folder, last = store.folder / _LOGS, settings.steps[-1]
    networks = {START: start} | {
        checkpoint_name(name, last * (number + 1)): checkpoint_at(stage, -1, start)
        for name, stages in arrays.items()
        for number, stage in enumerate(stages)
    }
    bar.set_description("evaluating")
    for index, (at, network) in enumerate(networks.items()):

        def compute(index: int = index, network: Transformer = network) -> dict[str, np.ndarray]:
            key = jax.random.fold_in(of(_COMPLETIONS), index)
            drawn = asked.completions(network, settings.num_completions, key)
            return {"completions": drawn, "time": np.array(now())}

        stored = store.arrays(f"completions-{at.replace('/', '-')}", compute)
        for seed, drawn in enumerate(stored["completions"]):
            logs = _logs(folder, seed, at)
            logs.parent.mkdir(parents=True, exist_ok=True)
            with files.folder_beside(logs) as part:
                write_log(asked, drawn, part, str(stored["time"]), {"network": seed, "checkpoint": at})
                files.replace(part, logs)
    found: list[list[dict[str, xr.DataTree]]] = []
    for seed in range(settings.num_seeds):
        bar.set_description(f"measuring the answers of network {seed + 1} of {settings.num_seeds}")
        found.append([])
        for number, task in enumerate(settings.taught):
            of_stage = {}
            for name in arrays:
                begins, ends = (stage_end(settings, name, stage) for stage in (number, number + 1))
                runs = {BASE: _logs(folder, seed, begins), name: _logs(folder, seed, ends)}
                measuring = partial(measured, runs, (task,), settings.seed)
                of_stage[name] = store.tree(f"answers-{seed}-{name}-{number + 1}", measuring)
            found[-1].append(of_stage)
    return found


def _logs(folder: Path, seed: int, checkpoint: str) -> Path:
    """Return the place of the logs of a checkpoint."""
    return folder / f"network-{seed}" / checkpoint.replace("/", "-step-")


def _courses(
    settings: Settings, store: Store, features: _Features, counted: np.ndarray, bar: tqdm
) -> dict[str, dict[str, np.ndarray]]:
    """Return the mixture's course under every objective; ``counted`` as `counted_draws` returns it."""
    mean = counted.mean(axis=(1, 3))
    start = prediction.fitted(features.tasks, mean[0, 0].tolist())
    courses: dict[str, dict[str, np.ndarray]] = {}
    demonstrations = [start] * (1 + len(settings.taught))
    for (name, choice), of_steps in zip(choices_of(settings).items(), mean, strict=True):
        bar.set_description(f"the mixture's course, {name}")
        first = of_steps[: len(settings.steps), 1]
        compute = partial(prediction.course_of, settings, choice, start, first, demonstrations)
        courses[name] = store.arrays(f"course-{name}", compute)
        if choice.demonstrates:
            demonstrations = prediction.mixtures_of(courses[name], start)
    return courses
