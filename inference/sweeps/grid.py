"""A grid of trainings: the settings at every point of the axes, and what a sweep refuses."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Self, cast

import numpy as np
from numpy.typing import ArrayLike

from inference import results
from inference.sweeps.axes import WHOLE, argument_of, check_name, check_values, values_of
from inference.sweeps.mixtures import CLASHES, Start, place
from inference.training.checks import check_factors, check_objectives, check_rewards
from inference.training.span import check_span, in_span
from inference.training.stages import Stage, check_stages, stages_of
from mixture_models.losses.precision import PRECISIONS
from mixture_models.mixture.mixture import Mixture, MixturePair, TaskMixture, mixture_of
from mixture_models.objectives import Objective
from mixture_models.objectives.registry import changed
from mixture_models.validation import InputError, flag, integer, one_of, positive

#: Position on every axis, in the order of the axes.
Position = tuple[int, ...]


@dataclass(frozen=True)
class Training:
    """The settings of one training at a point of a grid: what `inference.training.train` takes.

    With a ``dimension`` objective, start and target are those of `inference.training.span.in_span`.
    """

    objective: Objective
    start: Mixture
    target: Mixture
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
        num_steps: updates of a training, or of every stage of a sequence.
        batch_size: samples in an update.
        learning_rate: of plain SGD.
        num_replicates: trainings of every objective at every point.
        seed: of all random numbers.
        record_every: steps between two records.
        factors: learning rate factors.
        common_random_numbers: whether replicate i sees the same random numbers everywhere.
        precision: of a batch's densities.
        dimension: that of samples where trainings are simulated in the span of their means, or None.
        new_tasks: what the stages of a sequence teach; none for single trainings.
    """

    objectives: tuple[Objective, ...]
    axes: Mapping[str, np.ndarray]
    start: Start
    target: Mixture
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
    new_tasks: tuple[str, ...] = ()

    @classmethod
    def create(
        cls,
        objectives: Objective | Sequence[Objective],
        axes: Mapping[str, ArrayLike],
        start: Start,
        target: Mixture,
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
        new_tasks: Sequence[str] | None = None,
    ) -> Self:
        """Check every setting of every point, and build the grid.

        Raises:
            InputError: an unknown axis, one whose values are no list of different numbers, or a value that
                the setting cannot have.
        """
        chosen = tuple(check_objectives(objectives))
        if not isinstance(axes, Mapping):
            raise InputError(f"grid must map names of settings to lists of values; got {axes!r}")
        checked = {str(name): values_of(str(name), values) for name, values in axes.items()}
        for one, other in CLASHES:
            if one in checked and any(name.startswith(other) for name in checked):
                raise InputError(f"{one} and {other.rstrip('.')} set one parameter: only one can be an axis")
        steps = integer("num_steps", num_steps, **WHOLE["num_steps"])
        longest = int(max(checked.get("num_steps", [steps])))
        grid = cls(
            chosen,
            checked,
            start,
            target,
            steps,
            integer("batch_size", batch_size, **WHOLE["batch_size"]),
            positive("learning_rate", learning_rate),
            integer("num_replicates", num_replicates),
            integer("seed", seed, **WHOLE["seed"]),
            longest if record_every is None else integer("record_every", record_every),
            check_factors(learning_rate_factors),
            flag("common_random_numbers", common_random_numbers),
            one_of("precision", precision, PRECISIONS),
            None if dimension is None else integer("dimension", dimension),
            _taught(new_tasks),
        )
        grid._check()
        return grid

    @property
    def of_training(self) -> dict[str, object]:
        """The settings that all trainings have but for the axes, by their names."""
        varied = ("objectives", "axes", "start", "target", "factors", "new_tasks")
        own = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in varied}
        return own | {"learning_rate_factors": dict(self.factors)}

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(len(values) for values in self.axes.values())

    @property
    def lengths(self) -> np.ndarray:
        """The numbers of steps that are asked for, increasing or as the axis has them."""
        return self.axes.get("num_steps", np.array([self.num_steps]))

    @property
    def num_stages(self) -> int:
        """The number of trainings that follow each other: 1 but for sequences."""
        return max(1, len(self.new_tasks))

    @cached_property
    def stage_steps(self) -> np.ndarray:
        """The recorded steps of one stage: a training of fewer steps is the beginning of a longer one."""
        regular = results.recorded_steps(int(max(self.lengths)), self.record_every)
        return np.union1d(regular, self.lengths)

    @cached_property
    def steps(self) -> np.ndarray:
        """The recorded steps over all stages, of which each begins with the last record of the one before."""
        own = self.stage_steps
        later = [own[1:] + stage * own[-1] for stage in range(1, self.num_stages)]
        return np.concatenate([own, *later])

    @property
    def ends(self) -> np.ndarray:
        """The steps at which results stand by themselves: all lengths, or the start and the end of stages."""
        if not self.new_tasks:
            return self.lengths
        return np.arange(self.num_stages + 1) * self.num_steps

    def at(self, objective: int, position: Position) -> Training:
        """Return the settings of an objective at a position, of a sequence those of its first stage."""
        return self.stages_at(objective, position)[0]

    def stages_at(self, objective: int, position: Position) -> list[Training]:
        """Return the settings of every training of an objective at a position: one, or one a stage.

        The start of all is that of the first: later stages begin where the one before them ended.
        """
        values = {name: axis[i] for (name, axis), i in zip(self.axes.items(), position, strict=True)}
        factors = {n.partition(".")[2]: float(v) for n, v in values.items() if n.startswith("learning_rate_")}
        seed = int(values.get("seed", self.seed))
        start, problems = self._problems(objective, values)
        dimension = values.get("dimension", self.dimension)
        if dimension is not None:
            start, problems = in_span(start, problems, int(dimension))
        return [
            Training(
                trained,
                start,
                target,
                int(values.get("batch_size", self.batch_size)),
                float(values.get("learning_rate", self.learning_rate)),
                dict(self.factors) | factors,
                seed if self.common_random_numbers else self._own_seed(seed, objective, position),
                self.precision,
            )
            for trained, target in problems
        ]

    def stage_targets(self, objective: int, position: Position) -> list[Mixture]:
        """Return the target of every training of an objective at a position, in all coordinates."""
        values = {name: axis[i] for (name, axis), i in zip(self.axes.items(), position, strict=True)}
        return [target for _, target in self._problems(objective, values)[1]]

    def mixtures(self, values: Mapping[str, np.number]) -> MixturePair:
        """Return the start and the target where axes have these values."""
        key = _of_mixtures(values)
        if key not in self._mixtures:
            self._mixtures[key] = place(self.target, self.start, values)
        return self._mixtures[key]

    def all_mixtures(self, prefixes: tuple[str, ...]) -> Iterator[MixturePair]:
        """Yield start and target at every point of the axes that begin so, the others at their first."""
        names = [name for name in self.axes if name.startswith(prefixes)]
        first = {name: axis[0] for name, axis in self.axes.items()}
        for point in product(*(self.axes[name] for name in names)):
            yield self.mixtures(first | dict(zip(names, point, strict=True)))

    @cached_property
    def _mixtures(self) -> dict[tuple[object, ...], MixturePair]:
        return {}

    @cached_property
    def _objectives(self) -> dict[tuple[object, ...], Objective]:
        return {}

    @cached_property
    def _stages(self) -> dict[tuple[object, ...], list[Stage]]:
        return {}

    def __getstate__(self) -> dict[str, object]:
        """Leave out what was computed: a worker of a cluster gets the settings alone."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}

    def _problems(
        self, index: int, values: Mapping[str, np.number]
    ) -> tuple[Mixture, list[tuple[Objective, Mixture]]]:
        """Return the start, and objective and target of every training, where axes have these values."""
        start, target = self.mixtures(values)
        trained = self._objective(index, values)
        if not self.new_tasks:
            return start, [(trained, target)]
        key = (index, *self._changes(index, values).items(), *_of_mixtures(values))
        if key not in self._stages:
            # Which refuses what is none of named tasks.
            named = cast(TaskMixture, start), cast(TaskMixture, target)
            self._stages[key] = stages_of(trained, *named, self.new_tasks, num_steps=self.num_steps)
        return start, [(stage.objective, stage.target) for stage in self._stages[key]]

    def _changes(self, index: int, values: Mapping[str, np.number]) -> dict[str, np.number]:
        """Return the arguments of an objective that are axes, with their values."""
        return {
            argument: value
            for name, value in values.items()
            for owner, argument in [argument_of(name)]
            if owner in ("objective", self.objectives[index].name)
        }

    def _objective(self, index: int, values: Mapping[str, np.number]) -> Objective:
        objective, changes = self.objectives[index], self._changes(index, values)
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

    def _check(self) -> None:
        """Refuse what cannot be trained: every value of every axis, and the target at every point."""
        mixture_of("target", self.target)
        if not (isinstance(self.start, Mixture) or callable(self.start)):
            kind = type(self.start).__name__
            raise InputError(f"start must be a TwoMode, a Mixture or a function of the target; got {kind}")
        if self.new_tasks and "num_steps" in self.axes:
            raise InputError(
                "num_steps cannot be an axis of sequences, whose later stages begin where earlier ones end: "
                "sweep each number of steps by itself"
            )
        for name in self.axes:
            check_name(name, self.target, self.objectives)
        for name, values in self.axes.items():
            check_values(name, values)
        first = {name: values[0] for name, values in self.axes.items()}
        for index in range(len(self.objectives)):
            start, problems = self._problems(index, first)
            if self.new_tasks:
                named = zip(self.new_tasks, problems, strict=True)
                check_stages([Stage(task, *problem, self.num_steps) for task, problem in named], start)
            for trained, target in problems:
                check_rewards([trained], start, target)
                if self.dimension is not None or "dimension" in self.axes:
                    check_span(trained, start, target)
        of_target = [name.startswith("target.") for name in self.axes]
        for position in product(*(range(n if t else 1) for n, t in zip(self.shape, of_target, strict=True))):
            self.at(0, position)
        for axis, length in enumerate(self.shape):
            for i in range(length):
                for objective in range(len(self.objectives)):
                    self.at(objective, tuple(i if k == axis else 0 for k in range(len(self.shape))))


def _taught(new_tasks: Sequence[str] | None) -> tuple[str, ...]:
    """Return the tasks that stages teach, none where there are no stages."""
    if new_tasks is None:
        return ()
    taught = (new_tasks,) if isinstance(new_tasks, str) else tuple(new_tasks)
    if not taught:
        raise InputError("new_tasks must be at least one task, or None for single trainings; got none")
    return taught


def _of_mixtures(values: Mapping[str, np.number]) -> tuple[np.number, ...]:
    """Return the values of the axes that move the start or the target."""
    return tuple(v for n, v in values.items() if n.startswith(("target.", "start.")))
