"""What an objective's course will be, and which of its settings can be turned to keep old behaviour."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mixture_models.theory.paths import Path, Setting


@dataclass(frozen=True)
class Knob:
    """A numeric argument of an objective that moves its end.

    Attributes:
        name: of the argument.
        largest: its end in a setting, beyond which it means nothing or a step of plain SGD overshoots.
        least: smallest value that means something.
    """

    name: str
    largest: Callable[[Setting], float]
    least: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """The course of a learner whose means are right at the start: exact, and without a training.

    Attributes:
        follow: takes what all objectives share and n values of the knob, and returns the paths; without a
            knob, of the one setting ``value``.
        value: of the knob in this objective.
        knob: what can be turned, or None where nothing moves the end.
        most_steps: updates beyond which following takes too long for a plan.
    """

    follow: Callable[[Setting, Any], Path]
    value: float
    knob: Knob | None = None
    most_steps: float = math.inf
