"""Everything that determines a sequence: its tasks, where their modes lie, and what is trained."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

import mixture_models
from analyses.core.settings import BaseSettings, each, objectives_setting, seed_setting, setting, texts
from mixture_models.validation import InputError, integer, not_negative, one_of, open_interval, positive

if TYPE_CHECKING:
    from inference.training.stages import Stage
    from mixture_models.mixture.mixture import TaskMixture
    from mixture_models.objectives.objective import Objective

#: Where the modes of the tasks lie.
PLACES = ("line", "simplex")


@dataclass(frozen=True, kw_only=True)
class SequenceSettings(BaseSettings):
    """The tasks of a sequence, and how each of its stages is trained.

    The covariance is the identity. On a line every mode is the separation away from the one before it, in
    the order old tasks, new tasks in the order of their stages; on a simplex all pairs are. At the start the
    old means are right, and each new mean is off toward the first old task.
    """

    objectives: tuple[str, ...] = objectives_setting(
        "sft:replay=0.2: the share of all replayed tasks together."
    )
    old_tasks: tuple[str, ...] = setting(
        texts, "Names of the tasks that are known at the start.", ("chat", "facts", "safety")
    )
    new_tasks: tuple[str, ...] = setting(
        texts, "Names of the tasks that are taught, one a stage, in this order.", ("math", "code")
    )
    weights: tuple[float, ...] = setting(
        each(open_interval),
        "Target's weights of old and new tasks, in their order, with sum 1.",
        (),
        show="equal ones",
    )
    places: str = setting(
        partial(one_of, known=PLACES), "Where the modes lie: on a line or on a regular simplex.", "line"
    )
    separation: float = setting(positive, "Distance of neighbouring modes [Mahalanobis].", 4.0)
    start_new_weight: float = setting(open_interval, "Weight of each new task at the start.", 0.05)
    start_new_gap: float = setting(
        not_negative, "Distance of each new mean from its place at the start.", 1.0
    )
    num_steps: int = setting(integer, "Updates of each stage.", 500)
    learning_rate: float = setting(positive, "Learning rate of plain SGD.", 0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [*self.old_tasks, *self.new_tasks]
        for name in ("objectives", "old_tasks", "new_tasks"):
            if not getattr(self, name):
                raise InputError(f"{name} must be at least one; got none")
        if len(set(names)) < len(names):
            raise InputError(f"old_tasks and new_tasks must have different names; got {', '.join(names)}")
        if self.weights and len(self.weights) != len(names):
            raise InputError(f"weights must be one a task, {len(names)}; got {len(self.weights)}")
        if self.start_new_weight * len(self.new_tasks) >= 1.0:
            raise InputError(
                "start_new_weight times the number of new_tasks must be below 1, as the old tasks hold the "
                f"rest; got {self.start_new_weight:g} times {len(self.new_tasks)}"
            )
        self.mixtures()

    def mixtures(self) -> "tuple[TaskMixture, TaskMixture]":
        """Return the start, and the target of the last stage."""
        from mixture_models.mixture.mixture import TaskMixture

        names, num_old = [*self.old_tasks, *self.new_tasks], len(self.old_tasks)
        means = self._places(len(names))
        weights = dict(zip(names, self.weights, strict=True)) if self.weights else None
        target = mixture_models.Mixture.create(dict(zip(names, means, strict=True)), weights)
        assert isinstance(target, TaskMixture)
        # On the line to the first old task, so that modes on a line stay on it.
        toward = means[0] - means[num_old:]
        toward *= self.start_new_gap / np.linalg.norm(toward, axis=1, keepdims=True)
        shares = np.asarray(target.weights)[:num_old]
        old = (1.0 - self.start_new_weight * len(self.new_tasks)) * shares / shares.sum()
        start = target.replace(
            weights=dict(
                zip(names, [*old.tolist(), *[self.start_new_weight] * len(self.new_tasks)], strict=True)
            ),
            means=dict(zip(self.new_tasks, means[num_old:] + toward, strict=True)),
        )
        return start, target

    def sequences(self) -> "tuple[list[Objective], TaskMixture, list[list[Stage]]]":
        """Return the objectives, the start, and the stages of each objective, all checked.

        Raises:
            InputError: an unknown objective, two of one name, or stages that cannot be trained.
        """
        from inference import results
        from inference.training.stages import check_stages, stages_of

        chosen = [mixture_models.objectives.parse(text) for text in self.objectives]
        results.names(chosen)
        start, target = self.mixtures()
        found = [
            check_stages(stages_of(one, start, target, self.new_tasks, num_steps=self.num_steps), start)
            for one in chosen
        ]
        return chosen, start, found

    def _places(self, count: int) -> np.ndarray:
        """Return the means, shape (K, d): d = 1 on a line, K - 1 on a simplex."""
        if self.places == "line":
            return self.separation * np.arange(count, dtype=float)[:, None]
        # Of K unit vectors every pair is √2 apart, in the K - 1 dimensions beside their mean.
        centred = np.eye(count) - 1.0 / count
        basis = np.linalg.svd(centred)[0][:, : count - 1]
        result: np.ndarray = self.separation / np.sqrt(2.0) * centred @ basis
        return result


@dataclass(frozen=True, kw_only=True)
class Settings(SequenceSettings):
    """Everything that determines a sequence of trainings; replicates of all objectives are paired."""

    batch_size: int = setting(partial(integer, at_least=2), "Samples seen in an update.", 64)
    num_replicates: int = setting(integer, "Sequences of each objective.", 32)
    record_every: int = setting(integer, "Steps between two records.", 10)
    seed: int = seed_setting()
