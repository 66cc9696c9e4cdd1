"""What an objective trains toward: named tasks, as laws over samples."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from mixture_models.types import AnyArray, Scalar
from mixture_models.validation import one_of


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


class NamedTasks(Task):
    """Any number of tasks, each with a name."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The tasks' names, in their order."""

    @abstractmethod
    def law_of(self, shares: Mapping[str, Scalar]) -> Distribution:
        """Return the law of samples of the tasks that ``shares`` names, each with its share of a sum of 1."""

    @abstractmethod
    def posterior(self, y: AnyArray) -> tuple[AnyArray, ...]:
        """Return the probability that samples are of a task, for every task in their order."""

    def index(self, task: str) -> int:
        """Return the place of a task, or raise `InputError` that lists the tasks."""
        return self.names.index(one_of("task", task, self.names))
