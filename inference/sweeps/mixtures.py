"""The axes of a start and a target: what they are called, and what they make of mixtures.

A name is ``target.F`` or ``start.F``. Of two modes F is

* ``old_weight``, ``old_logit``, ``covariance`` or ``new_covariance`` (variances), ``old_mean.I`` or
  ``new_mean.I`` (coordinate I, from 0 on);
* of the target ``separation``, which moves its new mean on the line through its modes; of the start
  ``new_gap``, which puts its new mean at this distance from the target's, toward the old mode, and
  ``old_drift``, its old mean at this distance from the target's, toward the new mode [Mahalanobis].

Of named tasks F is

* ``weight.TASK``: the weight of a task; tasks without an axis share the rest in the proportions they have;
* ``mean.TASK.I`` (coordinate I, from 0 on), or ``covariance`` (a variance, of all tasks);
* of the target ``separation``, the distance of its two nearest modes [Mahalanobis]: all means are stretched
  about that of the first task.

Axes of the target are applied before those of the start.
"""

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any

import numpy as np

from inference.training.checks import check_setting
from mixture_models.mixture.mixture import Mixture, MixturePair, TaskMixture
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.types import AnyArray
from mixture_models.validation import InputError, one_of

#: A start, or what makes one of a target.
Start = Mixture | Callable[[Any], Mixture]

_SCALARS = ("old_weight", "old_logit", "covariance", "new_covariance")
_MEANS = ("old_mean", "new_mean")
_DISTANCES = {"target": ("separation",), "start": ("new_gap", "old_drift")}

#: Whose mixtures can have axes.
OWNERS = tuple(_DISTANCES)

#: What places the same parameter cannot be varied beside it.
CLASHES = (
    ("target.old_weight", "target.old_logit"),
    ("start.old_weight", "start.old_logit"),
    ("target.separation", "target.new_mean."),
    ("target.separation", "target.mean."),
    ("start.new_gap", "start.new_mean."),
    ("start.old_drift", "start.old_mean."),
)

# Coordinates that a refusal lists.
_SHOWN = 4


def check_field(mixture: Mixture, owner: str, field: str) -> None:
    """Refuse an axis of a start or a target that its kind of mixture does not have."""
    mean, _, coordinate = field.rpartition(".")
    means, numbers = _fields_of(mixture, owner)
    if mean in means and coordinate.isdecimal() and int(coordinate) < mixture.dim:
        return
    shown = [f"{mean}.{i}" for mean in means for i in range(min(mixture.dim, _SHOWN))]
    one_of(f"the field of {owner}.{field}", field, [*numbers, *shown])
    if field == "separation" and not _nearest(mixture) > 0.0:
        raise InputError("target.separation needs a target whose modes differ; got separation 0")


def place(target: Mixture, start: Start, values: Mapping[str, np.number]) -> MixturePair:
    """Return the start and the target where axes have these values."""

    def of(owner: str) -> dict[str, float]:
        return {n.partition(".")[2]: float(v) for n, v in values.items() if n.startswith(f"{owner}.")}

    wanted = of("target")
    separation = wanted.pop("separation", None)
    target = changed(target, wanted) if wanted else target
    if separation is not None:
        target = stretched(target, separation)
    start = start if isinstance(start, Mixture) else start(target)
    check_setting(start, target)
    wanted = of("start")
    return changed(start, wanted, target) if wanted else start, target


@singledispatch
def changed(mixture: Mixture, fields: Mapping[str, float], target: Mixture | None = None) -> Mixture:
    """Return a mixture with some fields changed; each kind of mixture registers its own.

    Args:
        mixture: the target, or the start.
        fields: their values.
        target: that of the start, from which distances count.
    """
    raise NotImplementedError


@changed.register
def _(mixture: TwoMode, fields: Mapping[str, float], target: TwoMode | None = None) -> TwoMode:
    changes: dict[str, AnyArray] = {name: value for name, value in fields.items() if name in _SCALARS}
    for name, value in fields.items():
        mean, _, coordinate = name.partition(".")
        if mean in _MEANS:
            changes.setdefault(mean, getattr(mixture, mean).copy())[int(coordinate)] = value
    mixture = mixture.replace(**changes) if changes else mixture
    if target is not None and "new_gap" in fields:
        mixture = mixture.replace(new_mean=target.new_mean - fields["new_gap"] * target.toward_new)
    if target is not None and "old_drift" in fields:
        mixture = mixture.replace(old_mean=target.old_mean + fields["old_drift"] * target.toward_new)
    return mixture


@changed.register
def _(mixture: TaskMixture, fields: Mapping[str, float], target: TaskMixture | None = None) -> TaskMixture:
    means: dict[str, np.ndarray] = {}
    for name, value in fields.items():
        mean, _, coordinate = name.rpartition(".")
        if mean.startswith("mean."):
            task = mean.removeprefix("mean.")
            means.setdefault(task, np.array(mixture.means[mixture.index(task)]))[int(coordinate)] = value
    given = {n.removeprefix("weight."): v for n, v in fields.items() if n.startswith("weight.")}
    return mixture.replace(
        weights=_with_weights(mixture, given) if given else None,
        means=means or None,
        covariance=fields.get("covariance"),
    )


def _with_weights(mixture: TaskMixture, given: Mapping[str, float]) -> dict[str, float]:
    """Return all weights where some are given: the others share the rest in the proportions they have."""
    own = dict(zip(mixture.names, np.asarray(mixture.weights).tolist(), strict=True))
    others = sum(weight for name, weight in own.items() if name not in given)
    rest = 1.0 - sum(given.values())
    if others and not rest > 0.0:
        raise InputError(
            f"the weights of {', '.join(given)} must sum to less than 1, as other tasks hold the rest; "
            f"they sum to {sum(given.values()):g}"
        )
    return {name: given.get(name, weight * rest / others if others else 0.0) for name, weight in own.items()}


@singledispatch
def stretched(target: Mixture, separation: float) -> Mixture:
    """Return a target of another separation; each kind of mixture registers its own."""
    raise NotImplementedError


@stretched.register
def _(target: TwoMode, separation: float) -> TwoMode:
    span = target.new_mean - target.old_mean
    return target.replace(new_mean=target.old_mean + separation / float(target.separation) * span)


@stretched.register
def _(target: TaskMixture, separation: float) -> TaskMixture:
    first = target.means[0]
    means = first + separation / _nearest(target) * (target.means - first)
    return target.replace(means=dict(zip(target.names, means, strict=True)))


def _nearest(mixture: Mixture) -> float:
    """Return the distance of the two nearest modes."""
    return float(np.min(np.asarray(mixture.separations)[np.triu_indices(mixture.num_tasks, 1)]))


@singledispatch
def _fields_of(mixture: Mixture, owner: str) -> tuple[list[str], list[str]]:
    """Return the means, whose coordinates are axes, and the other axes; each kind registers its own."""
    raise NotImplementedError


@_fields_of.register
def _(mixture: TwoMode, owner: str) -> tuple[list[str], list[str]]:
    return [*_MEANS], [*_SCALARS, *_DISTANCES[owner]]


@_fields_of.register
def _(mixture: TaskMixture, owner: str) -> tuple[list[str], list[str]]:
    of_target = ["separation"] if owner == "target" else []
    weights = [f"weight.{name}" for name in mixture.names]
    return [f"mean.{name}" for name in mixture.names], [*weights, "covariance", *of_target]


_LABELS = {
    "old_logit": ("old logit", "nat"),
    "covariance": ("variance", "feature²"),
    "new_covariance": ("variance of the new mode", "feature²"),
    "separation": ("separation of the modes", "Mahalanobis"),
    "new_gap": ("distance of the new mean from the target's", "Mahalanobis"),
    "old_drift": ("distance of the old mean from the target's", "Mahalanobis"),
}


def label(field: str) -> tuple[str, str]:
    """Return what a field of a start or a target is, and its units."""
    kind, _, rest = field.partition(".")
    if kind == "weight":
        return f"weight of {rest}", "1"
    if kind == "mean":
        task, _, coordinate = rest.rpartition(".")
        return f"coordinate {coordinate} of the mean of {task}", "feature"
    if kind in _MEANS:
        return f"coordinate {rest} of the {kind.replace('_', ' ')}", "feature"
    return _LABELS.get(field, (field.replace("_", " "), "1"))
