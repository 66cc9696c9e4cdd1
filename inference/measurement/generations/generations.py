"""Completions of checkpoints: read once to be checked, then a checkpoint at a time when it is asked for."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from inference.measurement.generations.files import files_of, names_of
from inference.measurement.generations.rows import Columns, Row, rows_of
from mixture_models.validation import InputError


class Completions(NamedTuple):
    """Texts of a checkpoint, in their order, and what else is known of each, None where nothing is.

    Attributes:
        texts: what it wrote, empty where a text was missing and is to be dropped.
        prompts: what it was asked, empty where a prompt is missing.
        ids: of the rows.
        log_likelihoods: under the old and the new reference [nat], shape (sample, 2).
    """

    texts: list[str]
    prompts: list[str] | None = None
    ids: list[str] | None = None
    log_likelihoods: Float[np.ndarray, "sample 2"] | None = None


@dataclass(frozen=True)
class Generations:
    """Completions of one or more checkpoints.

    Attributes:
        names: of the checkpoints, in their order.
        load: returns the completions of one checkpoint by its place.
    """

    names: list[Hashable]
    load: Callable[[int], Completions]

    def all_texts(self) -> list[str]:
        """Return the texts of all checkpoints, one after the other."""
        return [text for index in range(len(self.names)) for text in self.load(index).texts]

    def scores(self) -> tuple[dict[Hashable, np.ndarray], dict[Hashable, np.ndarray]]:
        """Return old and new log-likelihoods by checkpoint, as `inference.measure_scores` takes them.

        Raises:
            InputError: a checkpoint without.
        """
        pairs: dict[Hashable, np.ndarray] = {}
        for index, name in enumerate(self.names):
            found = self.load(index).log_likelihoods
            if found is None:
                raise InputError(f"completions must have both log-likelihoods; checkpoint {name} has none")
            pairs[name] = found
        return {n: p[:, 0] for n, p in pairs.items()}, {n: p[:, 1] for n, p in pairs.items()}


def read_generations(
    source: str | Path | Sequence[str | Path],
    *,
    columns: Columns = Columns(),  # noqa: B008 - frozen
    drop_missing: bool = False,
    name: str = "generations",
) -> Generations:
    """Return the completions in some files, all of which are read once to be checked.

    Args:
        source: a file, a folder, a glob, or a list of these: ``.jsonl``, packed by gzip or zstd or not, or
            ``.parquet``. Where the files have a column of checkpoints it tells them, else each file is a
            checkpoint of its name. Files are taken in natural order, 2 before 10.
        columns: names of the columns; those that are not given are found.
        drop_missing: whether a row without text is left out instead of refused.
        name: what to call the source in an error.

    Returns:
        The completions; one file is held at a time.

    Raises:
        InputError: as `rows.rows_of` says, or files of which only some have checkpoints.
    """
    files = files_of(name, source)
    labels: list[list[int | str] | None] = []
    for file in files:
        found = [row.checkpoint for row in rows_of(file, columns, drop_missing=drop_missing)]
        labels.append([label for label in found if label is not None] or None)
    if any(labels) and not all(labels):
        lacking = files[labels.index(None)]
        raise InputError(
            f"all files of {name} must have a column of checkpoints, or none; {lacking} has none"
        )
    names = names_of(files) if not any(labels) else []
    places: dict[Hashable, list[Path]] = {}
    as_text = len({isinstance(label, str) for of_file in labels for label in of_file or []}) > 1
    for number, (file, of_file) in enumerate(zip(files, labels, strict=True)):
        for label in dict.fromkeys([names[number]] if of_file is None else of_file):
            places.setdefault(str(label) if as_text else label, []).append(file)

    @lru_cache(maxsize=1)
    def rows(file: Path) -> list[Row]:
        return list(rows_of(file, columns, drop_missing=drop_missing))

    def of_checkpoint(label: Hashable) -> Iterator[Row]:
        for file in places[label]:
            for row in rows(file):
                if row.checkpoint is None or (str(row.checkpoint) if as_text else row.checkpoint) == label:
                    yield row

    known = list(places)
    return Generations(known, lambda index: _together(list(of_checkpoint(known[index]))))


def _together(rows: list[Row]) -> Completions:
    """Return rows as columns."""
    log_likelihoods = [(row.old_log_likelihood, row.new_log_likelihood) for row in rows]
    scored = all(None not in pair for pair in log_likelihoods)
    return Completions(
        [row.text for row in rows],
        [row.prompt or "" for row in rows] if any(row.prompt for row in rows) else None,
        [row.id or "" for row in rows] if any(row.id for row in rows) else None,
        np.array(log_likelihoods, dtype=np.float64) if scored else None,
    )
