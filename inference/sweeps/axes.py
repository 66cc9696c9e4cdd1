"""The axes of a sweep: which settings of a training they may be, what they are called, and their values.

A name says whose setting it is:

* ``target.F`` and ``start.F`` with F one of those of `inference.sweeps.mixtures`;
* ``objective.A`` is the argument A of every objective, ``NAME.A`` that of the objective of this name alone;
* ``learning_rate``, ``learning_rate_factors.PARAM``, ``batch_size``, ``num_steps``, ``dimension`` and
  ``seed`` are those of `inference.training.train`.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from inference.sweeps.mixtures import OWNERS, check_field, label
from inference.training.checks import MOST_NUMBERS, MOST_STEPS, check_factors
from mixture_models.mixture.mixture import Mixture
from mixture_models.objectives import Objective
from mixture_models.objectives.registry import arguments_of
from mixture_models.validation import InputError, integer, number, one_of, positive

_TRAINING = ("learning_rate", "batch_size", "num_steps", "dimension", "seed")

#: What settings that are whole numbers must be, beside at least 1.
WHOLE: dict[str, dict[str, int]] = {
    "batch_size": {"at_most": MOST_NUMBERS},
    "num_steps": {"at_most": MOST_STEPS},
    "dimension": {},
    "seed": {"at_least": 0, "at_most": 2**63 - 1},
}

_LABELS = {
    "batch_size": ("samples in a batch", "1"),
    "num_steps": ("updates of a training", "step"),
    "dimension": ("dimension of a sample", "1"),
    "lag": ("steps between two syncs", "step"),
}


def check_name(name: str, target: Mixture, objectives: Sequence[Objective]) -> None:
    """Refuse an axis that is no setting of a training."""
    owner, _, field = name.partition(".")
    if name in _TRAINING or (owner == "learning_rate_factors" and field):
        return
    if owner in OWNERS:
        check_field(target, owner, field)
        return
    owner, argument = argument_of(name)
    known = ["objective", *(objective.name for objective in objectives)]
    if owner not in known:
        raise InputError(
            f"an axis must be {', '.join(_TRAINING)}, or start with one of learning_rate_factors, "
            f"target, start, {', '.join(known)} and a dot; got {name}"
        )
    for objective in objectives:
        if owner in ("objective", objective.name):
            one_of(f"the argument of {objective.name}", argument, arguments_of(objective))


def check_values(name: str, values: np.ndarray) -> None:
    """Refuse values that the setting of this name cannot have."""
    for value in values:
        if name in WHOLE:
            integer(name, value, **WHOLE[name])
        elif name in ("learning_rate", "target.separation"):
            positive(name, value)
        elif name.startswith("learning_rate_factors."):
            check_factors({name.partition(".")[2]: value})


def attributes(name: str) -> dict[str, str]:
    """Return ``long_name`` and ``units`` of an axis."""
    owner, _, field = name.partition(".")
    if owner in OWNERS:
        long_name, units = label(field)
    else:
        owner, _, field = name.rpartition(".")
        long_name, units = _LABELS.get(field, (field.replace("_", " "), "1"))
    return {"long_name": f"{owner}: {long_name}" if owner else long_name, "units": units}


def argument_of(name: str) -> tuple[str, str]:
    """Return whose argument an axis is, and the argument: the owner's own name may hold dots."""
    owner, _, argument = name.rpartition(".")
    return owner, argument


def values_of(name: str, values: ArrayLike) -> np.ndarray:
    """Return the values of an axis, whole numbers as such, or refuse what is no list of different numbers."""
    entries = list(values) if isinstance(values, Iterable) and not isinstance(values, str | Mapping) else []
    if not entries or any(isinstance(value, bool | np.bool_ | str) for value in entries):
        raise InputError(f"the values of {name} must be a list of numbers; got {values!r}")
    floats = np.array([number(f"a value of {name}", value) for value in entries])
    if name in WHOLE:
        floats = np.array([integer(f"a value of {name}", value, at_least=0) for value in entries])
    if len(np.unique(floats)) != len(floats):
        raise InputError(f"the values of {name} must differ; got {list(map(float, floats))}")
    return floats
