"""Everything that determines a comparison, as one file that reproduces it."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

import mixture_models
from analyses.core import config
from mixture_models.validation import InputError, flag, integer, number, one_of, open_interval, positive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mixture_models.mixture.two_mode import TwoMode
    from mixture_models.objectives.objective import Objective


#: Beyond it trainings are simulated in the span of the means: coordinates are not recorded, nor paid for.
MOST_COORDINATES = 1000

_MEANS_AT_ONCE = 8


def _by_default() -> tuple[str, ...]:
    return mixture_models.objectives.by_default()


@dataclass(frozen=True)
class Settings:
    """Everything that determines a comparison; written to and read from ``settings.toml``.

    The covariance is the identity and the target's old mode lies at the origin, which loses no
    generality: everything reported is affine invariant.

    Attributes:
        objectives: texts such as ``"sft:replay=0.2"``, by default all that are registered, with their
            variants; the first is what the others are held against.
        old_weight: α, the target's mass of the old mode.
        separation: δ, distance of the target's modes [Mahalanobis].
        dimension: d of a behaviour; beyond 1,000 simulated in the span of the means, see `span`.
        start_old_weight: β at step 0.
        start_new_gap: distance of the learner's new mean from the target's at step 0, toward the old mode.
        start_old_drift: distance of the learner's old mean from the target's at step 0, toward the new mode.
        num_steps: updates of a training.
        batch_size: behaviours an update.
        learning_rate: of plain SGD.
        num_replicates: trainings of each objective.
        seed: of all random numbers.
        record_every: steps between two records.
        common_random_numbers: whether replicate i of every objective sees the same random numbers.
        precision: of a batch's densities, ``"float64"`` or the faster ``"float32"``.
    """

    objectives: tuple[str, ...] = field(default_factory=_by_default)
    old_weight: float = 0.5
    separation: float = 4.0
    dimension: int = 2
    start_old_weight: float = 0.9
    start_new_gap: float = 1.5
    start_old_drift: float = 0.0
    num_steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 0.05
    num_replicates: int = 64
    seed: int = 0
    record_every: int = 10
    common_random_numbers: bool = True
    precision: str = "float64"

    def __post_init__(self) -> None:
        given: Any = self.objectives
        if not (isinstance(given, list | tuple) and all(isinstance(text, str) for text in given)):
            raise InputError(f"objectives must be a list of texts; got {self.objectives!r}")
        flag("common_random_numbers", self.common_random_numbers)
        checked: dict[str, Any] = {
            "objectives": tuple(self.objectives),
            "old_weight": open_interval("old_weight", self.old_weight),
            "separation": positive("separation", self.separation),
            "start_old_weight": open_interval("start_old_weight", self.start_old_weight),
            "start_new_gap": number("start_new_gap", self.start_new_gap),
            "start_old_drift": number("start_old_drift", self.start_old_drift),
            "learning_rate": positive("learning_rate", self.learning_rate),
            "seed": integer("seed", self.seed, at_least=0, at_most=2**63 - 1),
            "precision": one_of("precision", self.precision, mixture_models.losses.precision.PRECISIONS),
        }
        for name in ("dimension", "num_steps", "batch_size", "num_replicates", "record_every"):
            checked[name] = integer(name, getattr(self, name))
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of all settings."""
        return [field.name for field in fields(cls)]

    @classmethod
    def read(cls, path: Path, **changes: Any) -> Self:
        """Read ``settings.toml``; settings that it leaves out have their defaults, ``changes`` win.

        Raises:
            InputError: the file is missing, is not TOML, or holds an unknown or unusable setting.
        """
        return cls(**(config.read(path, cls.names()) | changes))

    def write(self, path: Path) -> None:
        """Write ``settings.toml``, from which `read` restores exactly these settings."""
        config.write(asdict(self), path)

    def placed(self, chosen: "Sequence[Objective]") -> "tuple[TwoMode, TwoMode, int | None]":
        """Return the start, the target and the ``dimension`` that `inference.train` and ``sweep`` take.

        In many dimensions trainings are simulated in the span of the means, where the objectives allow it.

        Raises:
            InputError: so many dimensions that not even a batch of them can be drawn.
        """
        from inference.engine.memory import check_fits
        from inference.training.span import check_span
        from inference.training.train import check_batch

        if self.dimension > MOST_COORDINATES:
            start, target = self.mixtures(1)
            try:
                for objective in chosen:
                    check_span(objective, start, target)
            except InputError:  # all coordinates then, if they fit
                check_batch(self.batch_size, self.dimension)
                # Both mixtures, and what is made of them on the way.
                needed = _MEANS_AT_ONCE * 8.0 * self.dimension
                check_fits("the means of all modes", needed, "take a smaller dimension")
            else:
                return start, target, self.dimension
        return *self.mixtures(), None

    def mixtures(self, dimension: int | None = None) -> "tuple[TwoMode, TwoMode]":
        """Return the start and the target, with fewer coordinates where ``dimension`` is given."""
        axis = np.zeros(dimension or self.dimension)
        axis[0] = 1.0
        target = mixture_models.TwoMode.create(self.old_weight, 0.0 * axis, self.separation * axis)
        start = target.replace(
            old_weight=self.start_old_weight,
            old_mean=self.start_old_drift * axis,
            new_mean=(self.separation - self.start_new_gap) * axis,
        )
        return start, target
