"""Everything that determines a run of `massdrift digits`."""

import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import tomli_w

from analyses.core import config
from inference import results
from inference.storage import files
from inference.storage.reading import read_npz, read_toml
from mixture_models.validation import (
    InputError,
    closed_interval,
    integer,
    not_negative,
    open_interval,
    positive,
)

_PARTS = "parts"

# There are about seventy images of a digit that no network sees.
_MOST_ITEMS = 60


@dataclass(frozen=True)
class Settings:
    """Everything that determines a run.

    Attributes:
        num_levels: levels of grey of an image.
        width: of the network's residual stream; the heads divide it.
        num_blocks: of the network.
        num_heads: of each block's attention.
        start_old_weight: share of old digits in pre-training.
        pretraining_steps: updates of the pre-training.
        pretraining_rate: its learning rate at its height.
        old_weight: α, the replayed share of SFT and the share of old digits in SDFT's demonstrations.
        kl_weight: τ of reinforcement learning.
        anchor: of SDFT to its demonstrations.
        ema: rate of SDFT's teacher a step.
        utility_kl_weight: λ of TTT-Discover.
        beta: β₁ = β₂ of OAPL.
        lag: steps between two syncs of OAPL.
        steps: of post-training at which a checkpoint is kept, increasing, the first 0.
        batch_size: images of an update.
        learning_rate: of post-training.
        num_seeds: networks, each pre-trained and post-trained by itself.
        num_samples: images of a checkpoint.
        num_items: of each digit, in the evaluation.
        num_completions: of each item by a checkpoint.
        seed: of all random numbers.
    """

    num_levels: int = 5
    width: int = 32
    num_blocks: int = 2
    num_heads: int = 4
    start_old_weight: float = 0.9
    pretraining_steps: int = 1000
    pretraining_rate: float = 0.01
    old_weight: float = 0.5
    kl_weight: float = 0.45
    anchor: float = 0.1
    ema: float = 0.05
    utility_kl_weight: float = 0.5
    beta: float = 1.0
    lag: int = 80
    steps: tuple[int, ...] = (0, 20, 40, 80, 160, 320)
    batch_size: int = 32
    learning_rate: float = 0.001
    num_seeds: int = 3
    num_samples: int = 1000
    num_items: int = 24
    num_completions: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "num_levels": integer("num_levels", self.num_levels, at_least=2, at_most=17),
            "start_old_weight": open_interval("start_old_weight", self.start_old_weight),
            "old_weight": open_interval("old_weight", self.old_weight),
            "utility_kl_weight": not_negative("utility_kl_weight", self.utility_kl_weight),
            "anchor": closed_interval("anchor", self.anchor),
            "ema": closed_interval("ema", self.ema),
            "seed": integer("seed", self.seed, at_least=0, at_most=2**31 - 1),
            "pretraining_steps": integer("pretraining_steps", self.pretraining_steps, at_least=2),
            "batch_size": integer("batch_size", self.batch_size, at_least=2),
            "num_samples": integer("num_samples", self.num_samples, at_least=50),
            "num_items": integer("num_items", self.num_items, at_least=1, at_most=_MOST_ITEMS),
            "num_completions": integer("num_completions", self.num_completions),
            "steps": tuple(integer("a step", step, at_least=0) for step in self.steps),
        }
        for name in ("pretraining_rate", "kl_weight", "beta", "learning_rate"):
            checked[name] = positive(name, getattr(self, name))
        for name in ("width", "num_blocks", "num_heads", "lag", "num_seeds"):
            checked[name] = integer(name, getattr(self, name))
        if checked["width"] % checked["num_heads"]:
            raise InputError(f"num_heads must divide the width of {self.width}; got {self.num_heads}")
        steps = checked["steps"]
        if len(steps) < 2 or steps[0] != 0 or any(np.diff(steps) <= 0):
            raise InputError(f"steps must be increasing and begin with 0; got {', '.join(map(str, steps))}")
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def quick(cls, **changes: Any) -> Self:
        """Return the settings of a run of two minutes: it shows that all works, not what is true."""
        small: dict[str, Any] = {
            "pretraining_steps": 700,
            "steps": (0, 10, 40),
            "lag": 20,
            "num_seeds": 2,
            "num_samples": 500,
            "num_items": 12,
        }
        return cls(**(small | changes))


class Store:
    """The folder of a run: its settings, and every finished part, written whole or not at all.

    Args:
        folder: of the run; made where there is none.
        settings: of the run.

    Raises:
        InputError: a folder of other settings, or of something else.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        stored = folder / config.FILE
        if stored.exists():
            _same(folder, stored, settings)
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                f"{folder} must be a new folder or that of an earlier run of digits; it is neither"
            )
        config.write(asdict(settings), stored)
        (folder / _PARTS).mkdir(exist_ok=True)
        files.clean_within(folder / _PARTS)

    def path(self, name: str) -> Path:
        """Return where a part stands."""
        return self.folder / _PARTS / name

    def arrays(self, name: str, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return the arrays of a part: those that are stored, or computed now and stored."""
        path = self.path(f"{name}.npz")
        if not path.exists():
            found = compute()
            with files.whole_file(path) as part, part.open("wb") as file:
                np.savez_compressed(file, **found)  # type: ignore[arg-type]
        return read_npz(path, f"{path} must be a part of this run, or be deleted to be computed again")

    def tree(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return the DataTree of a part: the one that is stored, or computed now and stored."""
        path = self.path(f"{name}.nc")
        if not path.exists():
            results.save(compute(), path)
        return results.open(path)


def _same(folder: Path, path: Path, settings: Settings) -> None:
    stored = read_toml(path)
    wanted = tomllib.loads(tomli_w.dumps(asdict(settings)))
    names = [field.name for field in fields(Settings)]
    other = [
        name for name in [*names, *sorted(set(stored) - set(names))] if stored.get(name) != wanted.get(name)
    ]
    if other:
        differences = ", ".join(
            f"{name} is {stored.get(name)} there and {wanted.get(name)} here" for name in other
        )
        raise InputError(f"{folder} must hold a run of the same settings to go on with; {differences}")
