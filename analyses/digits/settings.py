"""Everything that determines a run of `massdrift digits`."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import numpy as np

from analyses.core.settings import BaseSettings, Check, Preset, each, setting
from mixture_models.validation import (
    InputError,
    closed_interval,
    flag,
    integer,
    not_negative,
    open_interval,
    positive,
)

# There are about seventy images of a digit that no network sees.
_MOST_ITEMS = 60


def checkpoint_steps(name: str, value: object) -> tuple[int, ...]:
    """Return steps that increase from 0 on, or raise `InputError`."""
    steps = each(partial(integer, at_least=0))(name, value)
    if len(steps) < 2 or steps[0] != 0 or any(np.diff(steps) <= 0):
        raise InputError(f"steps must be increasing and begin with 0; got {', '.join(map(str, steps))}")
    return steps


def stored[T](check: Check[T], text: str, default: object) -> T:
    """Return a setting that a file may hold, and that the command line does not take."""
    return setting(check, text, default, shown=False)


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(BaseSettings):
    """Networks, how they are trained before and after, and how they are looked at."""

    num_levels: int = stored(partial(integer, at_least=2, at_most=17), "Levels of grey of an image.", 5)
    width: int = stored(integer, "Of the network's residual stream; the heads divide it.", 32)
    num_blocks: int = stored(integer, "Of the network.", 2)
    num_heads: int = stored(integer, "Of each block's attention.", 4)
    pretraining_steps: int = stored(partial(integer, at_least=2), "Updates of the pre-training.", 1000)
    pretraining_rate: float = stored(positive, "Its learning rate at its height.", 0.01)
    kl_weight: float = stored(positive, "τ of reinforcement learning.", 0.45)
    anchor: float = stored(closed_interval, "Of SDFT to its demonstrations.", 0.1)
    ema: float = stored(closed_interval, "Rate of SDFT's teacher a step.", 0.05)
    utility_kl_weight: float = stored(not_negative, "λ of TTT-Discover.", 0.5)
    beta: float = stored(positive, "β₁ = β₂ of OAPL.", 1.0)
    lag: int = stored(integer, "Steps between two syncs of OAPL.", 80)
    batch_size: int = stored(partial(integer, at_least=2), "Images of an update.", 32)
    learning_rate: float = stored(positive, "Of post-training.", 0.001)
    num_seeds: int = setting(integer, "Networks, each trained by itself.", 3)
    num_samples: int = setting(partial(integer, at_least=50), "Images of a checkpoint.", 1000)
    num_items: int = stored(
        partial(integer, at_least=1, at_most=_MOST_ITEMS), "Of each digit, in the evaluation.", 24
    )
    num_completions: int = stored(integer, "Of each item by a checkpoint.", 8)
    seed: int = setting(partial(integer, at_least=0, at_most=2**31 - 1), "Seed of all random numbers.", 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.num_heads:
            raise InputError(f"num_heads must divide the width of {self.width}; got {self.num_heads}")


@dataclass(frozen=True, kw_only=True)
class Settings(NetworkSettings):
    """Everything that determines a run."""

    presets: ClassVar = {
        "quick": Preset(
            "A small run that shows that all works, not what is true.",
            {
                "pretraining_steps": 700,
                "steps": (0, 10, 40),
                "lag": 20,
                "num_seeds": 2,
                "num_samples": 500,
                "num_items": 12,
            },
        )
    }

    start_old_weight: float = stored(open_interval, "Share of old digits in pre-training.", 0.9)
    old_weight: float = stored(
        open_interval, "α: replayed share of SFT, and share of old digits in SDFT's demonstrations.", 0.5
    )
    steps: tuple[int, ...] = stored(
        checkpoint_steps,
        "Of post-training at which a checkpoint is kept, from 0 on.",
        (0, 20, 40, 80, 160, 320),
    )
    truth: bool = setting(flag, "Find what answers have lost by brute force too; slow.", False, stored=False)

    @classmethod
    def quick(cls, **changes: object) -> Self:
        """Return the settings of a run of two minutes."""
        return cls.from_values({**cls.presets["quick"].defaults, **changes})
