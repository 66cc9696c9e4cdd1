"""Samples and references, checked before they are measured: float64 rows out, or one sentence."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from inference.measurement.samples import stored
from inference.measurement.samples.labels import Labels, codes_of, numbered, repeats, with_labels
from inference.measurement.samples.references import (
    MOST_SPREAD,
    check_references,
    different_rows,
)
from inference.measurement.samples.sources import (
    Samples,
    Source,
    reference_of,
    rows_of_reference,
    samples_of,
)
from inference.measurement.samples.stored import row_hashes
from mixture_models.validation import InputError


class Summary(NamedTuple):
    """What one reading of a checkpoint shows.

    Attributes:
        num: finite samples.
        num_dropped: samples with a missing value.
        mean: of the finite samples, shape (feature,).
        sd: of the finite samples, shape (feature,).
        digest: of all the finite samples' bytes.
        num_repeated: finite samples that are equal to an earlier one.
    """

    num: int
    num_dropped: int
    mean: np.ndarray
    sd: np.ndarray
    digest: bytes
    num_repeated: int


@dataclass(frozen=True)
class Checked:
    """What `check` found fit to be measured.

    Attributes:
        samples: the checkpoints.
        summaries: of each checkpoint.
        references: of every task, shape (sample, feature) each.
        features: names of the features.
        num_dropped: rows left out for a missing value, of the checkpoints and the references together.
        num_reference_copies: reference rows left out as copies of others.
        prompts: labels of the prompts of each checkpoint's samples, or None where none repeats.
        reference_prompts: likewise of each reference, None for one without.
    """

    samples: Samples
    summaries: list[Summary]
    references: tuple[Float[np.ndarray, "n d"], ...]
    features: list[str]
    num_dropped: int
    num_reference_copies: int
    prompts: list[np.ndarray] | None = None
    reference_prompts: tuple[np.ndarray | None, ...] = (None, None)

    @property
    def old(self) -> Float[np.ndarray, "n d"]:
        """The first of the references."""
        return self.references[0]

    @property
    def new(self) -> Float[np.ndarray, "m d"]:
        """The second of the references."""
        return self.references[1]

    def pieces(self, index: int) -> Iterator[Float[np.ndarray, "n feature"]]:
        """Yield the finite samples of one checkpoint by its place.

        Raises:
            InputError: samples that are not as many as they were when they were checked.
        """
        num = 0
        for piece in self.samples.pieces(index, self.features):
            samples = piece[_finite(piece)]
            num += len(samples)
            yield samples
        if num != self.summaries[index].num:
            raise InputError(
                f"samples must not change while they are measured; checkpoint {self.samples.names[index]} "
                f"had {self.summaries[index].num} finite ones and now has {num}"
            )


def check(
    samples: Source,
    old_reference: Source,
    new_reference: Source,
    *,
    drop_missing: bool,
    memory: float | None = None,
    prompts: tuple[Labels, Labels, Labels] = (None, None, None),
) -> Checked:
    """Read everything once and refuse, in one sentence, what cannot be measured.

    Args:
        samples: of the checkpoints.
        old_reference: of the old task.
        new_reference: of the new task.
        drop_missing: whether rows with a value that is not finite are left out instead of refused.
        memory: bytes that a checkpoint may take, None for what `stored.default_memory` says.
        prompts: labels of the prompts of the samples and of either reference; see `labels.with_labels`.

    Raises:
        InputError: features that do not match, missing values, too few samples, constant or collinear
            features, identical references, a checkpoint without samples, or chunks too large to be read.
    """
    given: dict[str, tuple[str, Source]] = {}
    for task, reference, own in (("old", old_reference, prompts[1]), ("new", new_reference, prompts[2])):
        word = f"{task}_reference"
        given[task] = word, _labelled_reference(word, reference, own)
    labelled = with_labels("samples", samples_of("samples", samples), prompts[0])
    return _check(labelled, given, drop_missing=drop_missing, memory=memory)


def _labelled_reference(name: str, source: Source, labels: Labels) -> Samples:
    """Return a reference as one checkpoint, with its prompts."""
    read = samples_of(name, source)
    rows = stored.of_array(name, rows_of_reference(name, read))
    one = Samples([name], read.features, lambda _: rows)
    if labels is None and read.prompts is not None:
        of = read.prompts
        return replace(one, prompts=lambda _: np.concatenate([of(i) for i in range(len(read.names))]))
    return with_labels(name, one, labels)


def check_tasks(
    samples: Source, references: Mapping[str, Source], *, drop_missing: bool, memory: float | None = None
) -> Checked:
    """Do what `check` does with a reference for every one of some tasks, by name; prompts are not read."""
    given = {name: (f"the {name} reference", reference) for name, reference in references.items()}
    return _check(samples, given, drop_missing=drop_missing, memory=memory, many=True)


def _check(
    samples: Source,
    given: Mapping[str, tuple[str, Source]],
    *,
    drop_missing: bool,
    memory: float | None,
    many: bool = False,
) -> Checked:
    """Read everything, given the word for each reference and the reference by its task."""
    source = samples_of("samples", samples)
    limit = stored.default_memory() if memory is None else memory
    words = {task: word for task, (word, _) in given.items()}
    read = {task: reference_of(word, reference) for task, (word, reference) in given.items()}
    if not source.names:
        raise InputError("samples must hold at least one checkpoint; got none")
    features = _common_features(
        {words[task]: (names, array.shape[1]) for task, (array, names) in read.items()}
        | {"samples": (source.features, source.stored(0).shape[1])}
    )

    def ordered(array: np.ndarray, names: list[str] | None) -> np.ndarray:
        return array if names is None or names == features else array[:, [names.index(f) for f in features]]

    arrays = {task: ordered(array, names) for task, (array, names) in read.items()}
    missing = {task: int((~_finite(array)).sum()) for task, array in arrays.items()}
    summaries = []
    for index, checkpoint in enumerate(source.names):
        rows = source.stored(index)
        if rows.shape[1] != len(features):
            raise InputError(
                f"samples must have the {len(features)} features of the references; checkpoint {checkpoint} "
                f"has {rows.shape[1]}"
            )
        if 2 * rows.chunk_bytes > limit:
            raise InputError(
                f"samples must be stored in chunks that fit into memory twice; a chunk of checkpoint "
                f"{checkpoint} takes {rows.chunk_bytes / 1e9:.2g} GB, and {limit / 1e9:.2g} GB can be used"
            )
        summary = _summary(source, index, features)
        if not summary.num:
            raise InputError(f"every checkpoint must have samples; checkpoint {checkpoint} has none")
        summaries.append(summary)
    by_checkpoint = [summary.num_dropped for summary in summaries]
    total = int(sum(missing.values()) + sum(by_checkpoint))
    if total and not drop_missing:
        worst = source.names[int(np.argmax(by_checkpoint))]
        of_references = ", ".join(f"{count} of the {task} reference" for task, count in missing.items())
        raise InputError(
            f"samples must be finite, or be dropped explicitly (drop_missing); {total} rows are not: "
            f"{of_references}, and {sum(by_checkpoint)} of the "
            f"checkpoints ({max(by_checkpoint)} of checkpoint {worst})"
        )
    finite = {task: array[_finite(array)] for task, array in arrays.items()}
    once = {task: different_rows(array) for task, array in finite.items()}
    found = {task: array if once[task] is None else array[once[task]] for task, array in finite.items()}
    copies = sum(map(len, finite.values())) - sum(map(len, found.values()))
    check_references(found, features)
    checked = Checked(source, summaries, tuple(found.values()), features, total, copies)
    if many:
        return checked
    found_prompts: list[np.ndarray | None] = []
    for task, (word, reference) in given.items():
        if not isinstance(reference, Samples) or reference.prompts is None:
            found_prompts.append(None)
            continue
        labels = codes_of(word, reference.prompts(0), _finite(arrays[task]))
        found_prompts.append(labels if once[task] is None else labels[once[task]])
    return _with_prompts(checked, tuple(found_prompts))


def _with_prompts(checked: Checked, references: tuple[np.ndarray | None, ...]) -> Checked:
    """Return what was checked with the prompts of samples, unless there are none that repeat."""
    source, prompts, summaries = checked.samples, None, []
    if source.prompts is not None:
        prompts = []
        for index, name in enumerate(source.names):
            rows = list(source.pieces(index, checked.features))
            kept = np.concatenate([_finite(piece) for piece in rows])
            labels = codes_of(f"checkpoint {name}", source.prompts(index), kept)
            # Copies that a prompt explains are no sign of dependence between prompts.
            hashes = np.concatenate([row_hashes(np.ascontiguousarray(piece)) for piece in rows])[kept]
            pairs = len(pd.DataFrame({"row": hashes, "prompt": numbered(labels)}).drop_duplicates())
            repeated = pairs - len(np.unique(hashes))
            prompts.append(labels)
            summaries.append(checked.summaries[index]._replace(num_repeated=repeated))
    if prompts is None or not any(map(repeats, prompts)):
        return checked
    references = tuple(p if p is not None and repeats(p) else None for p in references)
    return replace(checked, prompts=prompts, reference_prompts=references, summaries=summaries)


def degenerate(checked: Checked, index: int, error: Exception) -> str:
    """Say what is odd about a checkpoint that cannot be computed with, in units of the references."""
    summary = checked.summaries[index]
    together = np.concatenate(checked.references)
    spread = together.std(axis=0)
    far, ratio = np.abs(summary.mean - together.mean(axis=0)) / spread, summary.sd / spread
    return (
        f"checkpoint {checked.samples.names[index]} cannot be measured ({str(error).rstrip('.')}): its "
        f"features spread {ratio.min():.2g} to {ratio.max():.2g} times as wide as those of the references, "
        f"and their means lie up to {far.max():.2g} of these spreads away: look for outliers, other units or "
        "samples that are all equal"
    )


def _common_features(given: Mapping[str, tuple[list[str] | None, int]]) -> list[str]:
    """Return the names of the features, given those of every source, or None, and how many there are.

    Raises:
        InputError: sources with other features than the first that names them.
    """
    for source, (names, width) in given.items():
        twice = sorted({n for n in names or [] if (names or []).count(n) > 1})
        if twice:
            raise InputError(f"the features of {source} must differ; got {', '.join(twice[:8])} twice")
        if names is not None and len(names) != width:
            raise InputError(
                f"the {width} features of {source} must have a name each; got {len(names)} names"
            )
    first = next((source for source, (names, _) in given.items() if names is not None), next(iter(given)))
    names, width = given[first]
    for source, (others, other_width) in given.items():
        if names is not None and others is not None and set(others) != set(names):
            only = [
                f"{', '.join(sorted(map(repr, more))[:8])} only in {where}"
                for where, more in ((first, set(names) - set(others)), (source, set(others) - set(names)))
                if more
            ]
            raise InputError(f"samples and references must have the same features; {' and '.join(only)}")
        if other_width != width:
            listed = "" if names is None else f" ({', '.join(names[:8])}{', ...' * (width > 8)})"
            raise InputError(
                f"samples and references must have the same features; {first} has {width}{listed} and "
                f"{source} {other_width}"
            )
    return [str(i) for i in range(width)] if names is None else names


def _summary(source: Samples, index: int, features: list[str]) -> Summary:
    """Read a checkpoint once; moments of pieces are put together as Chan, Golub and LeVeque (1983) do."""
    digest, num, num_dropped = hashlib.sha256(), 0, 0
    hashes = []
    mean, squares = np.zeros(len(features)), np.zeros(len(features))
    for piece in source.pieces(index, features):
        samples = np.ascontiguousarray(piece[_finite(piece)])
        if np.abs(samples).max(initial=0.0) > MOST_SPREAD:
            raise InputError(
                f"samples must be at most {MOST_SPREAD:g} in size; checkpoint {source.names[index]} has "
                f"{np.abs(samples).max():.3g}"
            )
        num_dropped += len(piece) - len(samples)
        if not len(samples):
            continue
        digest.update(samples.data)
        hashes.append(row_hashes(samples))
        shift = samples.mean(0) - mean
        centred = samples - samples.mean(0)
        together = num + len(samples)
        squares += np.einsum("nd,nd->d", centred, centred) + shift**2 * num * len(samples) / together
        mean += shift * len(samples) / together
        num = together
    repeated = num - len(np.unique(np.concatenate(hashes))) if hashes else 0
    return Summary(num, num_dropped, mean, np.sqrt(squares / max(num, 1)), digest.digest(), repeated)


def digest_of(samples: Float[np.ndarray, "n d"]) -> str:
    """Return a name of some rows, whatever their order."""
    return hashlib.sha256(np.sort(row_hashes(np.ascontiguousarray(samples))).tobytes()).hexdigest()[:16]


def _finite(array: np.ndarray) -> np.ndarray:
    return np.isfinite(array).all(axis=1)
