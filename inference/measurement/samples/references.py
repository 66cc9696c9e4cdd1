"""What references must be to be measured against, in one sentence if they are not."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from inference.measurement.samples.stored import row_hashes
from mixture_models.validation import InputError

#: Spreads of features whose squares, and sums of them, are floats.
LEAST_SPREAD, MOST_SPREAD = 1e-100, 1e100

# Samples of a reference that must differ from each other, unless it has fewer.
_MOST_DIFFERENT = 10

# Of a correlation: with a smaller eigenvalue features depend on one another.
_LEAST_EIGENVALUE = 1e-10


def different_rows(reference: Float[np.ndarray, "n d"]) -> Int[np.ndarray, "m"] | None:
    """Return the places of the different rows of a reference, or None where no row is a copy of another.

    Copies tell nothing new. Rows that repeat because features have few values do, and stay: there, values
    repeat in rows that differ.
    """
    if reference.ndim != 2 or reference.shape[1] < 2:
        return None
    _, first = np.unique(reference, axis=0, return_index=True)
    if len(first) == len(reference) or any(len(np.unique(column)) < len(first) for column in reference.T):
        return None
    return np.sort(first)


def check_references(references: Mapping[str, np.ndarray], features: list[str]) -> None:
    """Refuse references that cannot be modelled, given finite and without copies, and names of features.

    Raises:
        InputError: too few samples, features that are constant, out of range or collinear, or references that
            are the same.
    """
    d = len(features)
    least = max(_MOST_DIFFERENT, d + 5)
    for name, array in references.items():
        if len(array) < 5:
            raise InputError(f"the {name} reference must have at least 5 samples; got {len(array)}")
        different, wanted = len(np.unique(row_hashes(np.ascontiguousarray(array)))), min(len(array), least)
        if different < wanted:
            raise InputError(
                f"the {name} reference must have at least {wanted} different samples for {d} features; got "
                f"{different} different ones of {len(array)}"
            )
        flat = np.flatnonzero(np.ptp(array, axis=0) <= 1e-12 * np.maximum(np.abs(array).max(axis=0), 1e-300))
        if flat.size:
            raise InputError(
                f"every feature must vary in both references; in the {name} one these are constant: "
                + ", ".join(features[i] for i in flat[:8])
            )
        spread = np.ptp(array, axis=0)
        far = np.flatnonzero(
            (spread < LEAST_SPREAD) | (spread > MOST_SPREAD) | (np.abs(array).max(axis=0) > MOST_SPREAD)
        )
        if far.size:
            raise InputError(
                f"features must be in units in which they range over {LEAST_SPREAD:g} to {MOST_SPREAD:g}; "
                f"in the {name} reference {features[far[0]]} ranges from {array[:, far[0]].min():.3g} to "
                f"{array[:, far[0]].max():.3g}"
            )
    counts = list(map(len, references.values()))
    if sum(counts) - len(counts) < least:
        raise InputError(
            f"the references must have at least {least + len(counts)} samples for {d} features; got "
            f"{', '.join(map(str, counts[:-1]))} and {counts[-1]}"
        )
    for (one, first), (other, second) in combinations(references.items(), 2):
        if first.shape == second.shape and np.array_equal(first, second):
            raise InputError(f"the references must differ; {one} and {other} are the same samples")
    _check_independent("", *(array - array.mean(0) for array in references.values()))


def check_own_covariances(old: np.ndarray, new: np.ndarray) -> None:
    """Refuse a reference that lacks a covariance of its own, given both as they are modelled.

    Raises:
        InputError: features that are linear combinations of one another there.
    """
    if min(len(old), len(new)) >= old.shape[1] + 7:  # of fewer samples none is taken
        for name, array in (("old", old), ("new", new)):
            _check_independent(f"in the {name} reference ", array - array.mean(0))


def _check_independent(where: str, *centred: np.ndarray) -> None:
    within = np.concatenate(centred)
    within = within / within.std(0)
    lowest = np.linalg.eigvalsh(within.T @ within / len(within)).min()
    if lowest < _LEAST_EIGENVALUE:
        raise InputError(
            f"{where}the features must not be linear combinations of one another; the smallest eigenvalue of "
            f"their correlation is {lowest:.1e}"
        )
