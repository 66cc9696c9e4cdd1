"""What graded answers of the base alone say of its items: the law of their logits, and the guess rate."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.optimize import minimize

from inference.measurement.evals.cells import TaskCells, coarse, padded
from inference.measurement.evals.item_integral import Patterns
from inference.measurement.evals.likelihood import of_base
from inference.measurement.evals.prior import task_of
from inference.measurement.evals.readers import read
from inference.measurement.evals.readers.sources import Logs
from mixture_models.validation import InputError

_MOVE = 1e-4


class BaseLaw(NamedTuple):
    """The most probable law of a task's items.

    Attributes:
        item_mean: μ of the items' logits.
        item_sd: σ of them.
        guess_rate: g.
        num_choices: k, the same for all items, or None for free answers.
        accuracy: mean score.
        num_items: in the log.
        num_answers: an item, the mean.
        task: its name.
    """

    item_mean: float
    item_sd: float
    guess_rate: float
    num_choices: int | None
    accuracy: float
    num_items: int
    num_answers: float
    task: str


def base_law(logs: Logs, *, task: str | None = None, metric: Sequence[str] = ()) -> BaseLaw:
    """Return the law of the items of a task from logs of the base.

    Args:
        logs: of the base, as `readers.read` takes them.
        task: which, where the logs hold several.
        metric: as in `readers.read`.

    Raises:
        InputError: logs that cannot be read, or a task that is not named or not there.
    """
    answers = read({"base": logs}, metric=metric, progress=False)
    tasks = [str(name) for name in pd.unique(answers["task"])]
    if task is None and len(tasks) > 1:
        raise InputError(f"task must name one of {', '.join(tasks)}; got none")
    if task is not None and task not in tasks:
        raise InputError(f"task must name one of {', '.join(tasks)}; got {task}")
    task = tasks[0] if task is None else task
    answers = answers[(answers["task"] == task) & answers["score"].notna()]
    if answers.empty:
        raise InputError(f"the log of the base must have graded answers to {task}; there is none")
    items = answers.groupby("item", observed=True)["score"].agg(["sum", "count"]).to_numpy(float)
    choices = answers["num_choices"].dropna().to_numpy(float) if "num_choices" in answers else np.array([])
    num_choices = round(float(np.mean(choices))) if len(choices) else None
    scores = _mode(items[:, 0], items[:, 1], 1.0 / num_choices if num_choices else 0.0)
    with jax.enable_x64(True):
        found = [float(value) for value in task_of(jnp.asarray(scores))]
    guess = found[2] / num_choices if num_choices else 0.0
    accuracy = float(items[:, 0].sum() / items[:, 1].sum())
    return BaseLaw(
        found[0], found[1], guess, num_choices, accuracy, len(items), float(items[:, 1].mean()), task
    )


def _mode(
    right: Float[np.ndarray, "i"], num: Float[np.ndarray, "i"], inverse_choices: float
) -> Float[np.ndarray, "3"]:
    """Return the task's scores of the largest posterior density."""
    patterns, counts = np.unique(np.stack([np.round(right, 3), num], axis=-1), axis=0, return_counts=True)
    choices = np.zeros(len(patterns), dtype=int)
    base = Patterns(patterns[:, 0], patterns[:, 1], choices, np.array([inverse_choices]))
    none = np.zeros(1, dtype=int)
    cells = TaskCells(base, base, counts.astype(float), none, none, np.zeros((1, 1)))
    size = coarse(len(patterns))
    cells = padded(cells, size, size, 1, 1)
    moves = _MOVE * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])

    def height(scores: np.ndarray) -> tuple[float, np.ndarray]:
        points = scores + moves
        values = 0.5 * np.sum(points**2, axis=-1) - np.asarray(of_base(cells, points))
        return float(values[0]), (values[1:4] - values[4:]) / (2.0 * _MOVE)

    return np.asarray(minimize(height, np.zeros(3), jac=True, bounds=[(-4.0, 4.0)] * 3).x)
