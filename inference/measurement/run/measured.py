"""What is measured of a checkpoint, and how all checkpoints of a run are: one after the other, each kept."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from inference.measurement.posterior import pieces
from inference.measurement.posterior.law import Rows
from inference.measurement.samples import inputs, stored
from inference.measurement.verdict.checks import MOST_ROWS
from inference.progress import hidden
from inference.storage import kept
from mixture_models.validation import InputError, folder_of

# Samples that follow one another in the file, of which it is asked whether they are independent.
_CONSECUTIVE = 1000


class Measured(NamedTuple):
    """What is kept of one checkpoint, by name.

    Attributes:
        posterior: draws, one after the other, each draw of the references' modes at every R-th place.
        stats: how it was computed, diagnostics and the verdict.
        observed: what a summary of the samples says.
        check: statistics of the predictive check, observed and replicated.
        log_likelihood: of some samples under every draw; empty where none is kept.
    """

    posterior: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    observed: dict[str, np.ndarray]
    check: dict[str, np.ndarray]
    log_likelihood: dict[str, np.ndarray]


def measure_each(
    checked: inputs.Checked,
    measure: Callable[[int], Measured],
    facts: Callable[[int], tuple[object, ...]],
    *,
    keep: str | Path | None,
    progress: bool,
) -> list[Measured]:
    """Measure every checkpoint of a run.

    Args:
        checked: the samples.
        measure: measures a checkpoint by its place.
        facts: returns what determines it, beside its samples.
        keep: folder in which finished checkpoints are kept, or None.
        progress: whether to show a progress bar.

    Raises:
        InputError: samples that cannot be computed with.
    """

    def compute(index: int) -> Measured:
        try:
            return measure(index)
        except np.linalg.LinAlgError as error:
            raise InputError(inputs.degenerate(checked, index, error)) from error

    found = []
    keeping = nullcontext() if keep is None else kept.keeping(folder_of("keep", keep))
    names = checked.samples.names
    with keeping, tqdm(names, desc="measuring", unit="checkpoint", disable=hidden(progress)) as bar:
        for index, _ in enumerate(bar):
            parts = kept.groups(facts(index), Measured._fields, partial(compute, index), folder=kept.folder())
            found.append(Measured(*parts))
    return found


def sizes_of(checked: inputs.Checked, features: int, method: str, memory: float) -> list[float]:
    """Return the bytes that each checkpoint takes; one that takes more than the memory is streamed.

    Raises:
        InputError: one that would have to be, by NUTS.
    """
    sizes = [float(pieces.bytes_of(summary.num, features)) for summary in checked.summaries]
    if method == "nuts" and max(sizes) > memory:
        raise InputError(
            "a checkpoint must fit into memory for NUTS, which reads all of it at every step; checkpoint "
            f"{checked.samples.names[int(np.argmax(sizes))]} takes {max(sizes) / 1e9:.2g} GB, and "
            f"{memory / 1e9:.2g} GB can be used: choose the method laplace, or give fewer samples"
        )
    return sizes


def places_looked_at(
    num: int, num_kept: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return places of the samples that are checked, of those whose log-likelihood is kept, and the first."""
    looked_at, kept_rows = (
        rng.choice(num, min(most, num), replace=False) if most else np.arange(0)
        for most in (MOST_ROWS, num_kept)
    )
    return looked_at, kept_rows, np.arange(min(num, _CONSECUTIVE))


def samples_at(rows: Iterable[Rows], places: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the samples at some places, in one reading of all."""
    ends = np.cumsum(list(map(len, places)))[:-1]
    return np.split(stored.take(pieces.sample_arrays(rows), np.concatenate(places)), ends)
