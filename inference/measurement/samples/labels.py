"""Labels of the prompts that samples come from: as they are given, checked, and as numbers."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike

from inference.measurement.samples.sources import Samples
from mixture_models.validation import InputError, as_array

#: Labels as they are given: those of the data, False to ignore them, or labels a checkpoint.
type Labels = bool | ArrayLike | Sequence[ArrayLike] | Mapping[Any, ArrayLike] | None

#: From prompt, of any kind, to the name of its group.
type Groups = Mapping[Any, Hashable]


class Prompts(NamedTuple):
    """The prompts of a checkpoint's samples.

    Attributes:
        codes: number of each sample's prompt, 0 to P - 1.
        groups: which of the P prompts are in each group, or None where there are no groups.
    """

    codes: Int[np.ndarray, "n"]
    groups: Bool[np.ndarray, "group prompt"] | None = None


def with_labels(name: str, samples: Samples, labels: Labels) -> Samples:
    """Return samples with the prompts that are given: None for their own, False for none.

    Raises:
        InputError: labels of other checkpoints, or that are no labels a checkpoint.
    """
    if labels is None:
        return samples
    if labels is False:
        return replace(samples, prompts=None)
    if isinstance(labels, bool | str):
        raise InputError(f"the prompts of {name} must be labels, or false to ignore them; got {labels!r}")
    of = by_checkpoint(name, samples.names, labels)
    return replace(samples, prompts=lambda index: of[index])


def by_checkpoint(name: str, names: list[Hashable], labels: object) -> list[np.ndarray]:
    """Return one array of labels a checkpoint, in the order of their names.

    Raises:
        InputError: labels of other checkpoints, or that are no labels a checkpoint.
    """
    what = f"the prompts of {name}"
    if isinstance(labels, Mapping):
        given = {str(key): values for key, values in labels.items()}
        if given.keys() != set(map(str, names)):
            raise InputError(
                f"{what} must be of its checkpoints {', '.join(map(str, names[:8]))}; got those of "
                f"{', '.join(list(given)[:8]) or 'none'}"
            )
        parts = [given[str(key)] for key in names]
    elif isinstance(labels, list | tuple) and labels and np.ndim(labels[0]) == 1:
        parts = list(labels)
    else:
        array = as_array(what, labels)
        parts = [array] if array.ndim == 1 else list(array)
    if len(parts) != len(names):
        raise InputError(f"{what} must be given for each of {len(names)} checkpoints; got {len(parts)}")
    arrays = [as_array(what, part) for part in parts]
    for array in arrays:
        if array.ndim != 1:
            raise InputError(f"{what} must have one axis a checkpoint; got shape {array.shape}")
    return arrays


def codes_of(what: str, labels: np.ndarray, kept: Bool[np.ndarray, "n"]) -> np.ndarray:
    """Return labels of the samples that are kept, as objects.

    Args:
        what: whose samples, in an error.
        labels: of all samples.
        kept: which samples are finite.

    Raises:
        InputError: as many labels as there are not samples, or a missing one, or one prompt alone.
    """
    if len(labels) != len(kept):
        raise InputError(f"{what} must have one prompt a sample; got {len(labels)} for {len(kept)} samples")
    found = np.asarray(labels, dtype=object)[kept]
    missing = int(pd.isna(found).sum()) + int(sum(isinstance(one, str) and not one.strip() for one in found))
    if missing:
        raise InputError(
            f"every sample of {what} must have a prompt, or prompts be ignored; {missing} have none"
        )
    if len(set(found)) < 2:
        raise InputError(f"{what} must have at least two prompts; got one alone")
    return found


def numbered(labels: np.ndarray) -> Int[np.ndarray, "n"]:
    """Return labels as numbers, in the order in which they first come."""
    codes: np.ndarray = pd.factorize(labels)[0]
    return codes


def repeats(labels: np.ndarray) -> bool:
    """Return whether a label comes more than once."""
    return len(set(labels)) < len(labels)


def groups_of(
    labels: np.ndarray, groups: Groups | None, names: Sequence[Hashable]
) -> Bool[np.ndarray, "group prompt"] | None:
    """Return which prompts of a checkpoint are in each group, prompts as `numbered` counts them."""
    if groups is None:
        return None
    unique = pd.factorize(labels)[1]
    return np.array([[groups.get(one) == name for one in unique] for name in names], dtype=bool)


def group_names(groups: Groups, known: Callable[[], set[object]]) -> list[Hashable]:
    """Return the names of the groups, in the order in which they first come.

    Raises:
        InputError: no mapping from prompts, or of prompts that no sample has.
    """
    if not isinstance(groups, Mapping) or not groups:
        raise InputError(f"prompt_groups must map prompts to the names of groups; got {groups!r:.60}")
    unknown = [str(one) for one in groups if one not in known()]
    if unknown:
        raise InputError(
            f"prompt_groups must be of prompts of the samples; none has {', '.join(unknown[:8])}"
        )
    return list(dict.fromkeys(groups.values()))
