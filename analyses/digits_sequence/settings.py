"""Everything that determines a run of `massdrift digits-sequence`."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from analyses.core.settings import Preset, setting, texts
from analyses.digits.settings import NetworkSettings, checkpoint_steps, stored
from mixture_models.validation import InputError, integer, open_interval

#: Tasks at least, so that there are two that a stage does not teach, and at most, for an exact flow.
FEWEST, MOST = 3, 4


def _groups(name: str, value: object) -> tuple[str, ...]:
    groups = texts(name, value)
    shown = Counter(digit for group in groups for digit in digits_of(group))
    twice = [str(digit) for digit, count in shown.items() if count > 1]
    if twice:
        raise InputError(f"{name} must be groups that share no digit; {', '.join(twice)} is in several")
    if not FEWEST <= len(groups) <= MOST:
        raise InputError(f"{name} must be {FEWEST} to {MOST} groups of digits; got {len(groups)}")
    return groups


def digits_of(group: str) -> tuple[int, ...]:
    """Return the digits of a group such as ``0-3`` or ``1,5,7``.

    Raises:
        InputError: a text that is no group, or names no digit.
    """
    digits: list[int] = []
    for part in group.split(","):
        found = re.fullmatch(r"(\d)(?:-(\d))?", part.strip(), flags=re.ASCII)
        own = range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)
        if not own:
            raise InputError(f"tasks must be groups of digits from 0 to 9, as 0-3 or 1,5,7; got {group!r}")
        digits += own
    return tuple(digits)


@dataclass(frozen=True, kw_only=True)
class Settings(NetworkSettings):
    """Everything that determines a run."""

    presets: ClassVar = {
        "quick": Preset(
            "A small run that shows that all works, not what is true.",
            {"pretraining_steps": 400, "steps": (0, 20), "lag": 10, "num_seeds": 2, "num_samples": 300},
        )
    }

    tasks: tuple[str, ...] = setting(
        _groups,
        "Groups of digits: the first is known at the start, each other one is taught in a stage of its own.",
        ("0-3", "4-6", "7-9"),
        argument=True,
    )
    start_new_weight: float = stored(open_interval, "Share of each later task in pre-training.", 0.1)
    replay: float = stored(
        open_interval, "Share of all tasks seen before in the data of SFT with replay, in equal parts.", 0.5
    )
    steps: tuple[int, ...] = stored(
        checkpoint_steps, "Of every stage at which a checkpoint is kept, from 0 on.", (0, 20, 60)
    )
    pretraining_steps: int = stored(partial(integer, at_least=2), "Updates of the pre-training.", 700)
    lag: int = stored(integer, "Steps between two syncs of OAPL.", 20)
    num_samples: int = setting(partial(integer, at_least=50), "Images of a checkpoint.", 600)
    num_items: int = stored(partial(integer, at_least=1, at_most=60), "Of each digit, in the evaluation.", 8)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start_new_weight * len(self.taught) >= 1.0:
            raise InputError(
                "start_new_weight times the number of later tasks must be below 1, as the first holds the "
                f"rest; got {self.start_new_weight:g} times {len(self.taught)}"
            )

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """The digits of every task by its name."""
        return {group: digits_of(group) for group in self.tasks}

    @property
    def taught(self) -> tuple[str, ...]:
        """The tasks that are taught, in the order of their stages."""
        return self.tasks[1:]

    @property
    def start_weights(self) -> dict[str, float]:
        """Shares of the tasks in pre-training."""
        later = dict.fromkeys(self.taught, self.start_new_weight)
        return {self.tasks[0]: 1.0 - sum(later.values())} | later

    def seen_before(self, task: str) -> tuple[str, ...]:
        """Return the tasks that are known when a task is taught."""
        return self.tasks[: self.tasks.index(task)]
