"""The cells of a task in arrays of one shape: distinct patterns of base and runs, and their items."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from inference.measurement.evals.item_integral import Patterns
from mixture_models.types import AnyArray

# Fractional counts are rounded to this part of an answer, so that cells stay few.
_FRACTION = 8.0


class TaskCells(NamedTuple):
    """The cells of a task's runs; padded places have count 0 and point to pattern 0.

    Attributes:
        base: distinct patterns of the base.
        answers: distinct patterns of the runs.
        base_counts: items of the base with each pattern.
        of_base: each cell's place in `base`.
        of_run: each cell's place in `answers`.
        counts: items of each run in each cell.
    """

    base: Patterns
    answers: Patterns
    base_counts: Float[np.ndarray, "p"]
    of_base: Int[np.ndarray, "cell"]
    of_run: Int[np.ndarray, "cell"]
    counts: Float[np.ndarray, "run cell"]


_BASE = ["right_base", "num_base", "inverse_choices"]
_RUN = ["right_run", "num_run", "inverse_choices"]


def task_cells(repeats: pd.DataFrame, runs: np.ndarray) -> TaskCells:
    """Return the cells of some runs of one task, given by their numbers.

    Base patterns are counted in the run with the most items: all runs of a task are paired with one base.
    """
    frame = repeats[repeats["run"].isin(runs)].assign(
        inverse_choices=lambda f: (1.0 / f["num_choices"].astype(float)).fillna(0.0),
        right_base=lambda f: _rounded(f["right_base"]),
        right_run=lambda f: _rounded(f["right_run"]),
    )
    base, of_base = np.unique(frame[_BASE].to_numpy(float), axis=0, return_inverse=True)
    answers, of_run = np.unique(frame[_RUN].to_numpy(float), axis=0, return_inverse=True)
    pairs, of_pair = np.unique(np.stack([of_base, of_run], axis=-1), axis=0, return_inverse=True)
    counts = np.zeros((len(runs), len(pairs)))
    place = {run: i for i, run in enumerate(runs)}
    np.add.at(counts, (frame["run"].map(place).to_numpy(), of_pair), frame["num_items"].to_numpy(float))
    largest = counts[int(np.argmax(counts.sum(axis=1)))]
    base_counts = np.bincount(pairs[:, 0], weights=largest, minlength=len(base))
    return TaskCells(_patterns(base), _patterns(answers), base_counts, pairs[:, 0], pairs[:, 1], counts)


def _patterns(columns: Float[np.ndarray, "p 3"]) -> Patterns:
    """Return patterns from right answers, answers and the reciprocal of the number of choices."""
    inverse_choices, choices = np.unique(columns[:, 2], return_inverse=True)
    return Patterns(columns[:, 0], columns[:, 1], choices, inverse_choices)


def _rounded(right: pd.Series) -> pd.Series:
    return np.round(right.astype(float) * _FRACTION) / _FRACTION


def padded(cells: TaskCells, num_base: int, num_answers: int, num_cells: int, num_runs: int) -> TaskCells:
    """Return cells with places added: patterns of no answer, cells and runs of no item."""
    return TaskCells(
        _more_patterns(cells.base, num_base),
        _more_patterns(cells.answers, num_answers),
        _longer(cells.base_counts, num_base),
        _longer(cells.of_base, num_cells),
        _longer(cells.of_run, num_cells),
        _longer(_longer(cells.counts.T, num_cells).T, num_runs),
    )


def _more_patterns(patterns: Patterns, size: int) -> Patterns:
    # Numbers of choices too are of few sizes.
    num_choices = len(patterns.inverse_choices)
    return Patterns(
        _longer(patterns.right, size),
        _longer(patterns.num, size),
        _longer(patterns.choices, size),
        _longer(patterns.inverse_choices, 1 if num_choices == 1 else coarse(num_choices)),
    )


def _longer(array: AnyArray, size: int) -> np.ndarray:
    return np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])


def coarse(size: int) -> int:
    """Return the next of few sizes: 3, 9, 17, 33, 96, 320, then powers of two."""
    few = next((few for few in (3, 9, 17, 33, 96, 320) if few >= size), 0)
    return few or 1 << (size - 1).bit_length()
