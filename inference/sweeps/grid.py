"""The settings of a sweep: what may be an axis, how it is named, and what it makes of a training.

A name says whose setting it is:

* ``target.F`` and ``start.F`` with F one of ``old_weight``, ``old_logit``, ``covariance``, ``new_covariance``
  (variances), ``old_mean.I`` or ``new_mean.I`` (coordinate I, from 0 on);
* ``target.separation`` moves the target's new mean on the line through its modes; ``start.new_gap`` puts
  the start's new mean at this distance from the target's, toward the old mode, and ``start.old_drift`` the
  start's old mean at this distance from the target's, toward the new mode [Mahalanobis];
* ``objective.A`` is the argument A of every objective, ``NAME.A`` that of the objective of this name alone;
* ``learning_rate``, ``learning_rate_factors.PARAM``, ``batch_size``, ``num_steps``, ``dimension`` and
  ``seed`` are those of `inference.training.train`.

Axes of the target are applied before those of the start.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from inference import results
from inference.training.checks import (
    MOST_NUMBERS,
    MOST_STEPS,
    check_factors,
    check_objectives,
    check_rewards,
    check_setting,
)
from inference.training.span import check_span, in_span
from mixture_models.losses.precision import PRECISIONS
from mixture_models.mixture.two_mode import Pair, TwoMode
from mixture_models.objectives import Objective
from mixture_models.objectives.registry import arguments_of, changed
from mixture_models.validation import InputError, flag, integer, number, one_of, positive

#: A start, or what makes one of a target.
Start = TwoMode | Callable[[TwoMode], TwoMode]

#: Position on every axis, in the order of the axes.
Position = tuple[int, ...]

_SCALARS = ("old_weight", "old_logit", "covariance", "new_covariance")
_MEANS = ("old_mean", "new_mean")
_DISTANCES = {"target": ("separation",), "start": ("new_gap", "old_drift")}
_TRAINING = ("learning_rate", "batch_size", "num_steps", "dimension", "seed")
_WHOLE = ("batch_size", "num_steps", "dimension", "seed")

# What places the same parameter cannot be varied beside it.
_CLASHES = (
    ("target.old_weight", "target.old_logit"),
    ("start.old_weight", "start.old_logit"),
    ("target.separation", "target.new_mean."),
    ("start.new_gap", "start.new_mean."),
    ("start.old_drift", "start.old_mean."),
)

_LABELS = {
    "old_logit": ("old logit", "nat"),
    "covariance": ("variance", "feature²"),
    "new_covariance": ("variance of the new mode", "feature²"),
    "separation": ("separation of the modes", "Mahalanobis"),
    "new_gap": ("distance of the new mean from the target's", "Mahalanobis"),
    "old_drift": ("distance of the old mean from the target's", "Mahalanobis"),
    "batch_size": ("samples in a batch", "1"),
    "num_steps": ("updates of a training", "step"),
    "dimension": ("dimension of a sample", "1"),
    "lag": ("steps between two syncs", "step"),
}


@dataclass(frozen=True)
class Training:
    """The settings of one point of a grid that `inference.training.train` takes beside the seed.

    With a ``dimension`` objective, start and target are those of `inference.training.span.in_span`.
    """

    objective: Objective
    start: TwoMode
    target: TwoMode
    batch_size: int
    learning_rate: float
    factors: Mapping[str, float]
    seed: int
    precision: str


@dataclass(frozen=True)
class Grid:
    """A grid of trainings: what is varied, and what all have in common.

    Attributes:
        objectives: with different names.
        axes: the values of every axis, in their order.
        start: at step 0, or a function of the target where it shall follow it.
        target: the true target.
        num_steps: updates of a training.
        batch_size: samples in an update.
        learning_rate: of plain SGD.
        num_replicates: trainings of every objective at every point.
        seed: of all random numbers.
        record_every: steps between two records.
        factors: learning rate factors.
        common_random_numbers: whether replicate i sees the same random numbers everywhere.
        precision: of a batch's densities.
        dimension: that of samples where trainings are simulated in the span of their means, or None.
    """

    objectives: tuple[Objective, ...]
    axes: Mapping[str, np.ndarray]
    start: Start
    target: TwoMode
    num_steps: int
    batch_size: int
    learning_rate: float
    num_replicates: int
    seed: int
    record_every: int
    factors: Mapping[str, float]
    common_random_numbers: bool
    precision: str
    dimension: int | None = None

    @classmethod
    def create(
        cls,
        objectives: Objective | Sequence[Objective],
        axes: Mapping[str, ArrayLike],
        start: Start,
        target: TwoMode,
        *,
        num_steps: int,
        batch_size: int,
        learning_rate: float,
        num_replicates: int,
        seed: int,
        record_every: int | None,
        learning_rate_factors: Mapping[str, float] | None,
        common_random_numbers: bool,
        precision: str,
        dimension: int | None = None,
    ) -> Self:
        """Check every setting of every point, and build the grid.

        Raises:
            InputError: an unknown axis, one whose values are no list of different numbers, or a value that
                the setting cannot have.
        """
        chosen = tuple(check_objectives(objectives))
        if not isinstance(axes, Mapping):
            raise InputError(f"grid must map names of settings to lists of values; got {axes!r}")
        checked = {str(name): _values(str(name), values) for name, values in axes.items()}
        for one, other in _CLASHES:
            if one in checked and any(name.startswith(other) for name in checked):
                raise InputError(f"{one} and {other.rstrip('.')} set one parameter: only one can be an axis")
        steps = integer("num_steps", num_steps, at_most=MOST_STEPS)
        longest = int(max(checked.get("num_steps", [steps])))
        grid = cls(
            chosen,
            checked,
            start,
            target,
            steps,
            integer("batch_size", batch_size, at_most=MOST_NUMBERS),
            positive("learning_rate", learning_rate),
            integer("num_replicates", num_replicates),
            integer("seed", seed, at_least=0, at_most=2**63 - 1),
            longest if record_every is None else integer("record_every", record_every),
            check_factors(learning_rate_factors),
            flag("common_random_numbers", common_random_numbers),
            one_of("precision", precision, PRECISIONS),
            None if dimension is None else integer("dimension", dimension),
        )
        grid._check()
        return grid

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(len(values) for values in self.axes.values())

    @property
    def lengths(self) -> np.ndarray:
        """The numbers of steps that are asked for, increasing or as the axis has them."""
        return self.axes.get("num_steps", np.array([self.num_steps]))

    @cached_property
    def steps(self) -> np.ndarray:
        """The recorded steps: a training of fewer steps is the beginning of a longer one."""
        regular = results.recorded_steps(int(max(self.lengths)), self.record_every)
        return np.union1d(regular, self.lengths)

    def at(self, objective: int, position: Position) -> Training:
        """Return the settings of an objective at a position."""
        values = {name: axis[i] for (name, axis), i in zip(self.axes.items(), position, strict=True)}
        start, target = self.mixtures(values)
        factors = {n.partition(".")[2]: float(v) for n, v in values.items() if n.startswith("learning_rate_")}
        seed = int(values.get("seed", self.seed))
        trained = self._objective(objective, values)
        dimension = values.get("dimension", self.dimension)
        if dimension is not None:
            trained, start, target = in_span(trained, start, target, int(dimension))
        return Training(
            trained,
            start,
            target,
            int(values.get("batch_size", self.batch_size)),
            float(values.get("learning_rate", self.learning_rate)),
            dict(self.factors) | factors,
            seed if self.common_random_numbers else self._own_seed(seed, objective, position),
            self.precision,
        )

    def mixtures(self, values: Mapping[str, np.number]) -> Pair:
        """Return the start and the target where axes have these values."""
        key = tuple(v for n, v in values.items() if n.startswith(("target.", "start.")))
        if key not in self._mixtures:
            self._mixtures[key] = self._place(values)
        return self._mixtures[key]

    def all_mixtures(self, prefixes: tuple[str, ...]) -> Iterator[Pair]:
        """Yield start and target at every point of the axes that begin so, the others at their first."""
        names = [name for name in self.axes if name.startswith(prefixes)]
        first = {name: axis[0] for name, axis in self.axes.items()}
        for point in product(*(self.axes[name] for name in names)):
            yield self.mixtures(first | dict(zip(names, point, strict=True)))

    @cached_property
    def _mixtures(self) -> dict[tuple[object, ...], Pair]:
        return {}

    @cached_property
    def _objectives(self) -> dict[tuple[object, ...], Objective]:
        return {}

    def __getstate__(self) -> dict[str, object]:
        """Leave out what was computed: a worker of a cluster gets the settings alone."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}

    def _objective(self, index: int, values: Mapping[str, np.number]) -> Objective:
        objective = self.objectives[index]
        changes = {
            argument: value
            for name, value in values.items()
            for owner, argument in [_argument(name)]
            if owner in ("objective", objective.name)
        }
        key = (index, *changes.items())
        if key not in self._objectives:
            # An objective's arguments are numbers of Python, as its constructor would get them.
            self._objectives[key] = changed(objective, **{n: v.item() for n, v in changes.items()})
        return self._objectives[key]

    def _own_seed(self, seed: int, objective: int, position: Position) -> int:
        """Return the seed of a point whose random numbers are its own: the number of steps changes none."""
        place = [i for name, i in zip(self.axes, position, strict=True) if name not in ("num_steps", "seed")]
        words = np.random.SeedSequence([seed, objective, *place]).generate_state(1, np.uint64)
        return int(words[0] >> np.uint64(11))  # whole as a float too

    def _place(self, values: Mapping[str, np.number]) -> Pair:
        def of(owner: str) -> dict[str, float]:
            return {n.partition(".")[2]: float(v) for n, v in values.items() if n.startswith(f"{owner}.")}

        wanted = of("target")
        separation = wanted.pop("separation", None)
        target = _changed(self.target, wanted)
        if separation is not None:
            span = target.new_mean - target.old_mean
            stretched = target.old_mean + separation / float(target.separation) * span
            target = target.replace(new_mean=stretched)
        start = self.start(target) if callable(self.start) else self.start
        wanted = of("start")
        gap, drift = wanted.pop("new_gap", None), wanted.pop("old_drift", None)
        check_setting(start, target)
        start = _changed(start, wanted)
        if gap is not None:
            start = start.replace(new_mean=target.new_mean - gap * target.toward_new)
        if drift is not None:
            start = start.replace(old_mean=target.old_mean + drift * target.toward_new)
        return start, target

    def _check(self) -> None:
        """Refuse what cannot be trained: every value of every axis, and the target at every point."""
        if not isinstance(self.target, TwoMode):
            raise InputError(f"target must be a TwoMode; got {type(self.target).__name__}")
        if not (isinstance(self.start, TwoMode) or callable(self.start)):
            kind = type(self.start).__name__
            raise InputError(f"start must be a TwoMode or a function of the target; got {kind}")
        for name in self.axes:
            self._check_name(name)
        for name, values in self.axes.items():
            for value in values:
                if name in _WHOLE:
                    bounds = {"at_least": 0, "at_most": 2**63 - 1} if name == "seed" else {}
                    bounds = {"at_most": MOST_STEPS} if name == "num_steps" else bounds
                    bounds = {"at_most": MOST_NUMBERS} if name == "batch_size" else bounds
                    integer(name, value, **bounds)
                elif name == "learning_rate":
                    positive(name, value)
                elif name.startswith("learning_rate_factors."):
                    check_factors({name.partition(".")[2]: value})
                elif name == "target.separation":
                    positive(name, value)
        mixtures = self.mixtures({name: values[0] for name, values in self.axes.items()})
        check_rewards(self.objectives, *mixtures)
        if self.dimension is not None or "dimension" in self.axes:
            for chosen in self.objectives:
                check_span(chosen, *mixtures)
        of_target = [name.startswith("target.") for name in self.axes]
        for position in product(*(range(n if t else 1) for n, t in zip(self.shape, of_target, strict=True))):
            self.at(0, position)
        for axis, length in enumerate(self.shape):
            for i in range(length):
                for objective in range(len(self.objectives)):
                    self.at(objective, tuple(i if k == axis else 0 for k in range(len(self.shape))))

    def _check_name(self, name: str) -> None:
        owner, _, field = name.partition(".")
        if name in _TRAINING or (owner == "learning_rate_factors" and field):
            return
        if owner in _DISTANCES:
            mean, _, coordinate = field.partition(".")
            if mean in _MEANS and coordinate.isdecimal() and int(coordinate) < self.target.dim:
                return
            one_of(f"the field of {name}", field, (*_SCALARS, *_DISTANCES[owner], *_coordinates(self.target)))
            if field == "separation" and not self.target.separation > 0.0:
                raise InputError("target.separation needs a target whose modes differ; got separation 0")
            return
        owner, argument = _argument(name)
        known = ["objective", *(objective.name for objective in self.objectives)]
        if owner not in known:
            raise InputError(
                f"an axis must be {', '.join(_TRAINING)}, or start with one of learning_rate_factors, "
                f"target, start, {', '.join(known)} and a dot; got {name}"
            )
        for objective in self.objectives:
            if owner in ("objective", objective.name):
                one_of(f"the argument of {objective.name}", argument, arguments_of(objective))


def attributes(name: str) -> dict[str, str]:
    """Return ``long_name`` and ``units`` of an axis."""
    owner, _, field = name.rpartition(".")
    long_name, units = _LABELS.get(field, (field.replace("_", " "), "1"))
    if owner.endswith(_MEANS):
        long_name, units = f"coordinate {field} of the {owner.partition('.')[2].replace('_', ' ')}", "feature"
        owner = owner.partition(".")[0]
    return {"long_name": f"{owner}: {long_name}" if owner else long_name, "units": units}


def _argument(name: str) -> tuple[str, str]:
    """Return whose argument an axis is, and the argument: the owner's own name may hold dots."""
    owner, _, argument = name.rpartition(".")
    return owner, argument


def _values(name: str, values: ArrayLike) -> np.ndarray:
    """Return the values of an axis, whole numbers as such, or refuse what is no list of different numbers."""
    entries = list(values) if isinstance(values, Iterable) and not isinstance(values, str | Mapping) else []
    if not entries or any(isinstance(value, bool | np.bool_ | str) for value in entries):
        raise InputError(f"the values of {name} must be a list of numbers; got {values!r}")
    floats = np.array([number(f"a value of {name}", value) for value in entries])
    if name in _WHOLE:
        floats = np.array([integer(f"a value of {name}", value, at_least=0) for value in entries])
    if len(np.unique(floats)) != len(floats):
        raise InputError(f"the values of {name} must differ; got {list(map(float, floats))}")
    return floats


def _coordinates(mixture: TwoMode) -> list[str]:
    return [f"{mean}.{i}" for mean in _MEANS for i in range(min(mixture.dim, 4))]


def _changed(mixture: TwoMode, fields: Mapping[str, float]) -> TwoMode:
    """Return a mixture with some fields changed, single coordinates of means among them."""
    changes: dict[str, Any] = {name: value for name, value in fields.items() if name in _SCALARS}
    for name, value in fields.items():
        mean, _, coordinate = name.partition(".")
        if mean in _MEANS:
            changes.setdefault(mean, getattr(mixture, mean).copy())[int(coordinate)] = value
    return mixture.replace(**changes) if changes else mixture
