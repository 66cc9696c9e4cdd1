"""Everything that determines a comparison, as one file that reproduces it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import mixture_models
from analyses.core.settings import BaseSettings, objectives_setting, seed_setting, setting
from mixture_models.validation import InputError, flag, integer, number, one_of, open_interval, positive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mixture_models.mixture.two_mode import TwoMode
    from mixture_models.objectives.objective import Objective


#: Beyond it trainings are simulated in the span of the means: coordinates are not recorded, nor paid for.
MOST_COORDINATES = 1000

_MEANS_AT_ONCE = 8


def _precision(name: str, value: object) -> str:
    from mixture_models.losses.precision import PRECISIONS

    return one_of(name, value, PRECISIONS)


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """Everything that determines a comparison.

    The covariance is the identity and the target's old mode lies at the origin, which loses no
    generality: everything reported is affine invariant. At the start the learner's means are off toward
    each other. Replicate i of every objective sees the same random numbers where they are common.
    """

    objectives: tuple[str, ...] = objectives_setting("sft:replay=0.2; others are held against the first.")
    old_weight: float = setting(open_interval, "Target's mass of the old mode.", 0.5)
    separation: float = setting(positive, "Distance of the target's modes.", 4.0)
    dimension: int = setting(integer, "Dimension of a sample, of any size.", 2)
    start_old_weight: float = setting(open_interval, "Old weight at the start.", 0.9)
    start_new_gap: float = setting(number, "Distance of the new mean from the target's at the start.", 1.5)
    start_old_drift: float = setting(number, "Distance of the old mean from the target's at the start.", 0.0)
    num_steps: int = setting(integer, "Updates of a training.", 2000)
    batch_size: int = setting(integer, "Samples seen in an update.", 64)
    learning_rate: float = setting(positive, "Learning rate of plain SGD.", 0.05)
    num_replicates: int = setting(integer, "Trainings of each objective.", 64)
    seed: int = seed_setting()
    record_every: int = setting(integer, "Steps between two records.", 10)
    common_random_numbers: bool = setting(flag, "Give every objective of a replicate the same draws.", True)
    precision: str = setting(
        _precision,
        "Of a batch's densities: float64, or the faster float32.",
        "float64",
    )

    def placed(self, chosen: "Sequence[Objective]") -> "tuple[TwoMode, TwoMode, int | None]":
        """Return the start, the target and the ``dimension`` that `inference.train` and ``sweep`` take.

        In many dimensions trainings are simulated in the span of the means, where the objectives allow it.

        Raises:
            InputError: so many dimensions that not even a batch of them can be drawn.
        """
        from inference.engine.memory import check_fits
        from inference.training.checks import check_batch
        from inference.training.span import check_span

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
        target = mixture_models.TwoMode.on_axis(self.old_weight, self.separation, dimension or self.dimension)
        return self.start(target), target

    def start(self, target: "TwoMode") -> "TwoMode":
        """Return the start for a target."""
        return target.displaced(
            self.start_old_weight, old_drift=self.start_old_drift, new_gap=self.start_new_gap
        )
