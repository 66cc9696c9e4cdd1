"""Everything that determines the maps of near-on-policy methods."""

from dataclasses import dataclass
from functools import partial

from analyses.core.settings import BaseSettings, seed_setting, setting
from inference.training.checks import check_batch
from mixture_models.mixture.two_mode import Pair, TwoMode
from mixture_models.validation import closed_interval, integer, number, open_interval


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """The settings of `run`.

    The target's weight is also that of SDFT's demonstrations, and its responsibilities are in the rewards.
    Where the reward gap is beyond 1 the temperatures are crossed in units of it. The learner's old mean is
    right at the start, and its new mean off toward the old mode, by less than the separation.
    """

    separation: float = setting(
        partial(closed_interval, low=1.0, high=10.0), "Distance of the target's modes.", 4.0
    )
    old_weight: float = setting(open_interval, "Target's mass of the old mode.", 0.5)
    start_old_weight: float = setting(open_interval, "Old weight at the start.", 0.7)
    start_new_gap: float = setting(number, "Distance of the new mean from the target's at the start.", 0.0)
    reward_gap: float = setting(
        partial(closed_interval, low=-5.0, high=5.0), "What a new sample earns more than an old one.", 1.0
    )
    anchor: float = setting(closed_interval, "SDFT's, in the map over demonstrations.", 0.3)
    ema: float = setting(closed_interval, "SDFT's, in the map over demonstrations.", 0.05)
    dimension: int = setting(integer, "Dimension of a sample in the trainings.", 2)
    num_steps: int = setting(partial(integer, at_least=10), "Updates of a training.", 1000)
    batch_size: int = setting(partial(integer, at_least=2), "Samples seen in an update.", 32)
    learning_rate: float = setting(
        partial(closed_interval, low=1e-6, high=1.0), "Learning rate of plain SGD.", 0.05
    )
    num_points: int = setting(
        partial(integer, at_least=3, at_most=41), "Values of each setting on a map.", 13
    )
    num_trained: int = setting(
        partial(integer, at_least=2), "Values of a map's abscissa at which is trained, in three rows.", 5
    )
    num_replicates: int = setting(partial(integer, at_least=2), "Trainings at each of these points.", 16)
    seed: int = seed_setting()

    def __post_init__(self) -> None:
        super().__post_init__()
        closed_interval("start_new_gap", self.start_new_gap, 0.0, 0.9 * self.separation)
        integer("num_trained", self.num_trained, at_most=self.num_points)
        check_batch(self.batch_size, self.dimension)

    @property
    def reward_scale(self) -> float:
        """Return what a temperature is measured in: the reward gap, or 1 where that is smaller."""
        return max(1.0, abs(self.reward_gap))

    @property
    def end_time(self) -> float:
        """Return steps times learning rate."""
        return self.num_steps * self.learning_rate

    def mixtures(self, dimension: int) -> Pair:
        """Return start and target, their means on the first coordinate."""
        target = TwoMode.on_axis(self.old_weight, self.separation, dimension)
        return target.displaced(self.start_old_weight, new_gap=self.start_new_gap), target
