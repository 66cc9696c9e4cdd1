"""The networks as models that are evaluated: complete a digit of which the upper half is given.

An item is the upper rows of a real digit that no network has seen, an answer is what a network draws below,
and it is right if a classifier calls the whole the digit that it should be. Items and classifier share
nothing: it learns from the networks' digits.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Bool, Int, PRNGKeyArray

from analyses.digits import training
from analyses.digits.data import OLD_DIGITS, SIDE, Digits, Images
from analyses.digits.judges import Perceptron, perceptron
from analyses.digits.transformer import Transformer
from inference import measure, measure_evals
from inference.storage import files

#: Tasks, by the digits that are to be drawn.
TASKS: dict[str, tuple[int, ...]] = {
    "digits_0_to_2": (0, 1, 2),
    "digits_3_and_4": (3, 4),
    "digits_5_to_9": (5, 6, 7, 8, 9),
}

#: The tasks that are learnt in post-training.
NEW_TASKS = tuple(name for name, digits in TASKS.items() if not set(digits) & set(OLD_DIGITS))

#: The name of the start among the logs.
BASE = "base"

#: Completions by which brute force finds what an item's chance is, in batches.
NUM_TRUTH, _BATCHES = 1000, 4

# Rows of an item that are given.
_GIVEN_ROWS = 4

# Levels of grey as characters.
_LEVELS = "0123456789abcdefg"


class Evaluation(NamedTuple):
    """What is asked, and who judges the answers.

    Attributes:
        items: real digits, of which the upper rows are given.
        grader: the classifier.
        tasks: the digits that belong to each task, by its name.
    """

    items: Images
    grader: Perceptron
    tasks: Mapping[str, tuple[int, ...]]

    @property
    def given(self) -> Int[np.ndarray, "item given"]:
        """The pixels of each item that networks see."""
        return self.items.pixels[:, : _GIVEN_ROWS * SIDE]

    def completions(
        self, networks: Transformer, num: int, key: PRNGKeyArray
    ) -> Int[np.ndarray, "network item n rest"]:
        """Return what each network draws below each item."""
        return np.asarray(training.complete(networks, jnp.asarray(self.given), key, num), np.uint8)

    def called(
        self, completions: Int[np.ndarray, "*network item n rest"]
    ) -> Int[np.ndarray, "*network item n"]:
        """Return what digits the classifier calls the completed images."""
        given = np.broadcast_to(self.given[:, None], (*completions.shape[:-1], self.given.shape[-1]))
        whole = np.concatenate([given, completions], axis=-1)
        found = _called(self.grader, whole.reshape(-1, whole.shape[-1]))
        return np.asarray(found).reshape(whole.shape[:-1])

    def right(
        self, completions: Int[np.ndarray, "*network item n rest"]
    ) -> Bool[np.ndarray, "*network item n"]:
        """Return whether each completed image is called the digit that it should be."""
        return self.called(completions) == self.items.digits[:, None]

    def right_of_many(self, network: Transformer, key: PRNGKeyArray) -> Int[np.ndarray, "batch item"]:
        """Return how many of very many completions of each item are right, in batches of equal size.

        Args:
            network: one, without a leading axis.
            key: of all completions.
        """
        one, num = jax.tree.map(lambda leaf: leaf[None], network), NUM_TRUTH // _BATCHES
        batches = [self.completions(one, num, each) for each in jax.random.split(key, _BATCHES)]
        return np.stack([self.right(batch[0]).sum(axis=-1) for batch in batches])

    def of_task(self, task: str) -> Bool[np.ndarray, "item"]:
        """Return which items belong to a task."""
        return np.isin(self.items.digits, self.tasks[task])


@jax.jit
def _called(grader: Perceptron, images: Int[jax.Array, "n pixel"]) -> Int[jax.Array, "n"]:
    return jnp.argmax(grader.log_probabilities(images / (grader.num_levels - 1)), axis=-1)


def evaluation(
    digits: Digits,
    num_levels: int,
    num_items: int,
    key: PRNGKeyArray,
    tasks: Mapping[str, tuple[int, ...]] = TASKS,
) -> Evaluation:
    """Return an evaluation on so many items of each digit of the tasks.

    Args:
        digits: items are of the judges' part, the classifier learns from the networks'.
        num_levels: levels of grey.
        num_items: of each digit.
        key: of the classifier's training.
        tasks: the digits that belong to each task, by its name.
    """
    pixels, shown = digits.judges
    asked = sorted(itertools.chain.from_iterable(tasks.values()))
    chosen = np.concatenate([np.flatnonzero(shown == digit)[:num_items] for digit in asked])
    grader = perceptron(digits.networks, num_levels, key)
    return Evaluation(Images(pixels[chosen], shown[chosen]), grader, tasks)


def now() -> str:
    """Return the time as it stands in the names of logs."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds").replace(":", "-")


def write_log(
    asked: Evaluation,
    completions: Int[np.ndarray, "item n rest"],
    folder: Path,
    time: str,
    model: Mapping[str, object],
) -> None:
    """Write what one network has answered as lm-evaluation-harness does: a file a task, and the results.

    Args:
        asked: the evaluation.
        completions: of the network.
        folder: of the checkpoint's logs.
        time: of the evaluation, see `now`.
        model: arguments of the model, by name.
    """
    called, names = asked.called(completions), np.arange(len(asked.items.digits))
    results: dict[str, object] = {}
    for task in asked.tasks:
        rows = names[asked.of_task(task)]
        lines = [
            _row(asked.items.pixels[i], int(asked.items.digits[i]), completions[i], called[i], number)
            for number, i in enumerate(rows)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        files.write(folder / f"samples_{task}_{time}.jsonl", text.encode())
        mean = float(np.mean([line["exact_match"] for line in lines]))
        results[task] = {"alias": task, "exact_match,none": mean}
    found = {
        "results": results,
        "config": {"model": "massdrift digits", "model_args": dict(model)},
        "configs": {task: {"task": task, "repeats": completions.shape[1]} for task in asked.tasks},
        "higher_is_better": {task: {"exact_match": True} for task in asked.tasks},
    }
    files.write(folder / f"results_{time}.json", json.dumps(found, indent=2).encode())


def _row(
    image: Int[np.ndarray, "pixel"],
    digit: int,
    completions: Int[np.ndarray, "n rest"],
    called: Int[np.ndarray, "n"],
    number: int,
) -> dict[str, object]:
    upper = _text(image[: _GIVEN_ROWS * SIDE])
    doc = {"upper_rows": upper, "digit": digit, "image": _text(image)}
    return {
        "doc_id": number,
        "doc": doc,
        "target": str(digit),
        "arguments": {"gen_args_0": {"arg_0": upper, "arg_1": {"do_sample": True, "temperature": 1.0}}},
        "resps": [[_text(drawn) for drawn in completions]],
        "filtered_resps": [str(one) for one in called],
        "filter": "none",
        "metrics": ["exact_match"],
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(upper),
        "target_hash": _hash(str(digit)),
        "exact_match": [float(one == digit) for one in called],
    }


def _text(pixels: Int[np.ndarray, "pixel"]) -> str:
    """Return rows of pixels as lines of grey levels, a character each."""
    return "\n".join("".join(_LEVELS[level] for level in row) for row in pixels.reshape(-1, SIDE))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def measured(logs: Mapping[str, Path], new_tasks: Sequence[str], seed: int) -> xr.DataTree:
    """Return what `measure_evals` says of one network's logs.

    Args:
        logs: folders by objective, in each one a checkpoint, and that of the base, `BASE`.
        new_tasks: those that post-training taught.
        seed: of the measurement.
    """
    return measure_evals(
        logs,
        base=BASE,
        new_tasks=new_tasks,
        seed=seed,
        # A fast answer, as of the weights.
        method="laplace",
        num_log_likelihood_items=0,
        progress=False,
    )


def measured_images(
    features: Mapping[str, np.ndarray], seed: int, keep: Path, *references: object, covariance: str = "auto"
) -> xr.DataTree:
    """Return what `measure` says of one network's images, by the fast path.

    Args:
        features: of the images, by checkpoint.
        seed: of the measurement.
        keep: folder of finished parts.
        references: features of real images, of the old and of the new task, or of several by name.
        covariance: see `measure`.
    """
    return measure(
        features, *references, seed=seed, keep=keep, progress=False, method="laplace", covariance=covariance
    )
