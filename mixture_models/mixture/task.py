"""What an objective trains toward: two tasks, as laws over samples."""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Array, Float
from numpyro.distributions import Distribution


class Task(ABC):
    """An old and a new task, and how they are mixed: a mixture, or what takes its place."""

    @abstractmethod
    def law(self) -> Distribution:
        """Return the law of samples of both tasks."""

    @abstractmethod
    def mode_law(self, mode: Any) -> Distribution:
        """Return the law of the samples of one task, ``"old"`` or ``"new"``."""

    @abstractmethod
    def log_odds(self, y: Any) -> Float[Array, "n"]:
        """Return log P(old | y) - log P(new | y) of samples."""
