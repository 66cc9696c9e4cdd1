"""What an objective trains toward: named tasks, as laws over samples."""

from abc import ABC, abstractmethod

from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from mixture_models.types import AnyArray


class Task(ABC):
    """Tasks, and how they are mixed: a mixture, or what takes its place."""

    @abstractmethod
    def law(self) -> Distribution:
        """Return the law of samples of all tasks."""

    @abstractmethod
    def mode_law(self, mode: str) -> Distribution:
        """Return the law of the samples of one task, by its name."""


class TwoTasks(Task):
    """An old and a new task, named ``"old"`` and ``"new"``."""

    @abstractmethod
    def log_odds(self, y: AnyArray) -> Float[Array, "n"]:
        """Return log P(old | y) - log P(new | y) of samples."""
