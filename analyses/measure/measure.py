"""How much old behaviour does a real run keep, and how far has it moved?"""

import inspect
import json
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import platformdirs
import xarray as xr
from matplotlib.figure import Figure
from rich.console import RenderableType

from analyses.core import examples_shown, tables
from analyses.core.analysis import shown_by
from analyses.core.settings import BaseSettings, setting, text, texts
from analyses.measure import by_task, samples_shown, two_modes
from inference.measurement.checkpoints import COVARIANCES, METHODS, TAILS, measure
from inference.measurement.examples import examples
from inference.measurement.generations.files import is_of_texts
from inference.measurement.generations.measure_generations import embed_generations
from inference.measurement.generations.rows import Columns
from inference.measurement.samples import sources
from inference.storage.reading import reading
from mixture_models.validation import InputError, flag, folder_of, integer, one_of, path_of, positive


def _named(name: str, value: object) -> tuple[str, ...]:
    """Return references that are given as texts NAME=FILE."""
    for one in texts(name, value):
        task, equals, file = one.partition("=")
        if not (task.strip() and equals and file.strip()):
            raise InputError(f"{name} must be NAME=FILE; got {one!r}")
        path_of(name, file)
    return texts(name, value)


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """The settings of `run`, most of which are those of `inference.measure`."""

    run: Path = setting(
        path_of,
        "Samples of the checkpoints: arrays in .npz, .npy, .parquet, .nc or .zarr, or texts: a folder, file "
        "or quoted glob of .jsonl or .parquet.",
        argument=True,
    )
    old_reference: Path | None = setting(
        path_of, "Samples of the old task, in a file of the same kinds.", None, show="a --reference"
    )
    new_reference: Path | None = setting(path_of, "Samples of the new task.", None, show="a --reference")
    reference: tuple[str, ...] = setting(
        _named, "Samples of a task, one of several, in the place of these; repeated.", (), metavar="NAME=FILE"
    )
    new_task: str | None = setting(
        text, "Which of several tasks is new.", None, show="new, where there is one of this name"
    )
    embedder: str = setting(
        text,
        "What makes features of text: ngrams, module:function or a sentence-transformers folder.",
        "ngrams",
    )
    text_column: str | None = setting(text, "Column of the texts.", None, show="found")
    prompt_column: str | None = setting(text, "Column of the prompts.", None, show="found")
    checkpoint_column: str | None = setting(
        text, "Column of the checkpoints.", None, show="found; where there is none, each file is a checkpoint"
    )
    id_column: str | None = setting(text, "Column of the names of texts.", None, show="found")
    cache: Path | None = setting(
        folder_of, "Folder of features that were made of texts.", None, show="your cache folder", stored=False
    )
    num_examples: int = setting(
        partial(integer, at_least=0), "Samples of a checkpoint to look at, for every reason to.", 5
    )
    method: str = setting(
        partial(one_of, known=METHODS), "laplace (fast), nuts, or auto: fast where it can be trusted.", "auto"
    )
    covariance: str = setting(
        partial(one_of, known=COVARIANCES), "shared, axis, proportional, unequal or auto.", "auto"
    )
    tails: str = setting(partial(one_of, known=TAILS), "Modes' tails: gaussian, student or auto.", "auto")
    neither: bool = setting(flag, "Add a component for neither task.", False)
    displacement_scale: float = setting(positive, "Prior scale of a displacement [Mahalanobis].", 0.5)
    num_draws: int = setting(integer, "Draws of the posterior.", 1000)
    max_features: int = setting(integer, "Project to this many coordinates above it.", 64)
    memory: float | None = setting(
        positive,
        "GiB that a checkpoint may take; a larger one is streamed.",
        None,
        show="40 % of the machine's",
        stored=False,
    )
    ignore_prompts: bool = setting(flag, "Count samples of one prompt as independent.", False)
    prompt_groups: Path | None = setting(
        path_of, "Groups of prompts: .csv with columns prompt and group, or .json from prompt to group.", None
    )
    drop_missing: bool = setting(flag, "Leave out rows that are not finite.", False)
    seed: int = setting(partial(integer, at_least=0), "Seed of all random numbers.", 0)


def run(settings: Settings, *, progress: bool = True) -> xr.DataTree:
    """Measure a run, by `inference.measure` or, where it is of texts, `inference.measure_generations`.

    Returns:
        Its DataTree, with ``/examples`` and ``/shown``: some samples of some checkpoints and of the
        references in the frame, for the figure of the discriminant plane.

    Raises:
        InputError: as they say, or a run of texts with a reference of arrays, or the other way round.
    """
    references = _references(settings)
    options = inspect.signature(measure).parameters.keys() - {"old_reference", "new_reference"}
    given = {one.name: getattr(settings, one.name) for one in fields(settings) if one.name in options}
    if settings.ignore_prompts:
        given["prompts"] = False
    given["prompt_groups"] = None if settings.prompt_groups is None else _groups_in(settings.prompt_groups)
    given |= {"memory": None if settings.memory is None else settings.memory * 2**30, "progress": progress}
    given_samples = settings.run, *references.values()
    of_texts = [is_of_texts(source) for source in given_samples]
    if any(of_texts) != all(of_texts):
        kinds = ", ".join(
            f"{source} has {'texts' if one else 'arrays'}"
            for source, one in zip(given_samples, of_texts, strict=True)
        )
        raise InputError(f"a run and its references must all be texts, or all arrays; {kinds}")
    samples: sources.Source = settings.run
    sources_of: dict[str, sources.Source] = {**references}
    said = None
    if of_texts[0]:
        embedded = embed_generations(
            settings.run,
            {**references},
            embedder=settings.embedder,
            columns=Columns(
                settings.text_column, settings.prompt_column, settings.checkpoint_column, settings.id_column
            ),
            cache=settings.cache or Path(platformdirs.user_cache_dir("massdrift")) / "features",
            drop_missing=settings.drop_missing,
            progress=progress,
        )
        samples, sources_of, said = embedded.samples, {**embedded.references}, embedded.said
        given = embedded.labels() | given
    tree = measure(samples, sources_of, **given)
    if of_texts[0]:
        tree.attrs["embedder"] = settings.embedder
    if settings.num_examples:
        tree["examples"] = xr.DataTree(examples(tree, samples, num=settings.num_examples, said=said))
    tree["shown"] = xr.DataTree(samples_shown.shown(tree, samples, sources_of))
    return tree


def _groups_in(path: Path) -> dict[Any, Any]:
    """Return the group of each prompt that a file names.

    Raises:
        InputError: a file that cannot be read, or of other columns.
    """
    one_of(f"the suffix of {path}", path.suffix, (".csv", ".json"))
    with reading(path, f"{path} must be a readable {path.suffix} file from prompts to groups"):
        if path.suffix == ".json":
            found = json.loads(path.read_text(encoding="utf-8"))
        else:
            table = pd.read_csv(path)
            found = None if {"prompt", "group"} - set(table) else table.set_index("prompt")["group"].to_dict()
    if not isinstance(found, dict):
        raise InputError(f"{path} must be an object from prompts to groups, or have columns prompt and group")
    return found


def _references(settings: Settings) -> dict[str, Path]:
    """Return the references by the names of their tasks.

    Raises:
        InputError: neither an old and a new one nor several by name, or both, or a name that comes twice.
    """
    both = {"old": settings.old_reference, "new": settings.new_reference}
    given = {name: path for name, path in both.items() if path is not None}
    if len(given) == 2 and not settings.reference:
        return given
    if given or not settings.reference:
        told = [f"{name}_reference" for name in given] + [f"reference {one}" for one in settings.reference]
        raise InputError(
            "references are an old_reference and a new_reference, or several NAME=FILE; got "
            f"{' and '.join(told) or 'none'}"
        )
    pairs = [one.partition("=") for one in settings.reference]
    twice = sorted({name for name, _, _ in pairs if [other for other, _, _ in pairs].count(name) > 1})
    if twice:
        raise InputError(f"references must have different names; got {', '.join(twice)} more than once")
    return {name: path_of("reference", file) for name, _, file in pairs}


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a checkpoint (and task): means, intervals, resolutions and the verdict in words."""
    return shown_by(tree["posterior"].dims, two_modes, by_task).summary(tree)


def table(tree: xr.DataTree) -> RenderableType:
    """Return the summary as a table for the terminal, and examples of the last checkpoint."""
    return shown_by(tree["posterior"].dims, two_modes, by_task).table(tree)


def remarks(tree: xr.DataTree) -> list[str]:
    """Return one sentence for each checkpoint whose verdict is not ``good``."""
    return tables.remarks(tree["sample_stats"].to_dataset()["words"])


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figures ``old_weight`` (or ``weight``), ``drift`` and ``samples``."""
    return shown_by(tree["posterior"].dims, two_modes, by_task).plot(tree)


def extras(tree: xr.DataTree) -> dict[str, str]:
    """Return ``examples.csv`` where there are some."""
    shown = "examples" in tree.children
    return {"examples.csv": examples_shown.frame(tree).to_csv(index=False)} if shown else {}
