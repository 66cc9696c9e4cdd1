"""The checkpoints of a run of ``massdrift digits``, and what its panel of classifiers counts of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.core import outputs
from analyses.core.settings import FILE
from analyses.digits import data, judges
from analyses.digits.layout import START, image_sets
from analyses.digits.settings import Settings
from benchmarks.rivals_changes import distances
from benchmarks.rivals_weights import Estimate, Task
from inference import measure, results
from inference.storage import kept
from mixture_models.validation import InputError

# Draws of a panel's counts.
_DRAWS = 1000


class Network(NamedTuple):
    """The checkpoints of one network, the start first, and draws of the old weight that is counted."""

    names: list[str]
    task: Task
    counted: Float[np.ndarray, "checkpoint draw"]


def networks(folder: Path) -> Iterator[Network]:
    """Yield what a run of ``massdrift digits`` holds of each of its networks.

    Raises:
        InputError: the folder holds no such run, or one of other versions.
    """
    if not (folder / outputs.MARKER).exists() or not (folder / "parts").is_dir():
        raise InputError(f"{folder} must be the folder of a finished run of massdrift digits; it is not")
    settings = Settings.read(folder / FILE)
    objectives = results.open(folder / outputs.MARKER)["posterior"]["objective"].to_numpy().tolist()
    arrays = {name: kept.read(_place(folder, name, settings)) for name in objectives}
    if missing := [name for name, found in arrays.items() if found is None]:
        raise InputError(
            f"{folder} must hold the images of every objective, written by these versions; "
            f"those of {', '.join(missing)} are not there"
        )
    digits = data.load(settings.num_levels, settings.seed)
    embed = judges.Embedding(digits.judges, settings.num_levels, settings.seed)
    panel = judges.Panel(digits.judges, digits.networks, settings.num_levels, settings.seed)
    old, new = embed(digits.networks.old), embed(digits.networks.new)
    for seed in range(settings.num_seeds):
        images = image_sets({n: found for n, found in arrays.items() if found}, settings.steps, seed)
        rng = np.random.default_rng([settings.seed, seed])
        counted = [_counted(panel, each, rng) for each in images.values()]
        task = Task([embed(each) for each in images.values()], old, new)
        yield Network(list(images), task, np.stack(counted))


def _place(folder: Path, name: str, settings: Settings) -> Path:
    return kept.place(folder / "parts", (name, settings.asdict()), ".npz", name)


def _counted(panel: judges.Panel, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the old weight by a classifier of the panel, another one a draw."""
    drawn = judges.panel_draws(panel.count(images), _DRAWS, rng)[..., 0]
    return drawn[rng.integers(len(drawn), size=_DRAWS), np.arange(_DRAWS)]


def agreement(
    network: Network, method: str, estimates: list[Estimate], rng: np.random.Generator
) -> pd.DataFrame:
    """Return a row a checkpoint: a method's old weight beside the count.

    ``agrees`` says whether the interval of their difference, the errors of both in it, holds 0; ``held``
    whether the method's own interval holds the count's mean.
    """
    rows = []
    for name, estimate, counted in zip(network.names, estimates, network.counted, strict=True):
        difference = rng.choice(estimate.draws, _DRAWS) - rng.permutation(counted)
        low, high = Estimate(difference, 0.0).interval
        own = estimate.interval
        rows.append(
            {
                "method": method,
                "checkpoint": name,
                "error": estimate.mean - float(counted.mean()),
                "width": own[1] - own[0],
                "held": own[0] <= counted.mean() <= own[1],
                "agrees": low <= 0.0 <= high,
                "seconds": estimate.seconds,
                "word": estimate.word,
            }
        )
    return pd.DataFrame(rows)


def changes(network: Network, seed: int) -> pd.DataFrame:
    """Return a row for the start and each objective's last checkpoint: counted, measured, changed.

    ``counted`` is the old weight by the panel; ``old_weight`` and ``old_drift`` are posterior means of the
    measurement that ``massdrift digits`` makes; distances are from the start.
    """
    last = {name.split("/")[0]: place for place, name in enumerate(network.names) if name != START}
    samples = {name: network.task.checkpoints[place] for name, place in last.items()}
    start = network.task.checkpoints[network.names.index(START)]
    tree = measure(
        {START: start, **samples},
        network.task.old,
        network.task.new,
        covariance="unequal",
        method="laplace",
        seed=seed,
        progress=False,
    )
    mean = tree["posterior"].to_dataset()[["old_weight", "old_drift"]].mean(["chain", "draw"])
    rows = []
    for place, (name, found) in enumerate({START: start, **samples}.items()):
        here = mean.sel(checkpoint=name)
        own = network.names.index(START) if name == START else last[name]
        rows.append(
            {"checkpoint": name, "counted": float(network.counted[own].mean())}
            | {variable: float(here[variable]) for variable in here.data_vars}
            | ({} if name == START else distances(start, found, np.random.default_rng([seed, place])))
        )
    return pd.DataFrame(rows)
