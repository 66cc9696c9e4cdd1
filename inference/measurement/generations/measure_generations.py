"""Measure a run by what its checkpoints wrote: texts on disk in, the result of `measure` out."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from inference.measurement.checkpoints import measure
from inference.measurement.examples import Said, examples
from inference.measurement.generations.cache import features_of
from inference.measurement.generations.embedder import (
    Embedder,
    FunctionEmbedder,
    TextFunction,
    function_embedder,
    model_embedder,
)
from inference.measurement.generations.generations import Generations, read_generations
from inference.measurement.generations.ngrams import NGramEmbedder
from inference.measurement.generations.rows import Columns
from inference.measurement.tasks.names import named_references
from mixture_models.validation import InputError, flag, folder_of, integer

#: What makes features of texts: see `measure_generations`.
type EmbedderLike = str | Path | Embedder | TextFunction

#: What completions are given as: files, or what was read from them.
type TextSource = str | Path | Sequence[str | Path] | Generations


class Embedded(NamedTuple):
    """A run and its references as features, what `measure` takes, and what was read beside.

    Attributes:
        samples: of each checkpoint, shape (sample, feature), NaN where a text was missing.
        references: of each task, likewise, by its name; two references are ``old`` and ``new``.
        prompts: of each checkpoint's samples, where the files have them.
        embedder: name of what made the features.
        said: returns the texts, prompts and ids of a checkpoint by its place.
        reference_prompts: of each task's samples, None where its files have none.
    """

    samples: dict[Hashable, np.ndarray]
    references: dict[str, np.ndarray]
    prompts: dict[Hashable, list[str]]
    embedder: str
    said: Callable[[int], Said]
    reference_prompts: Mapping[str, list[str] | None]

    def labels(self) -> dict[str, object]:
        """Return the prompts as options of `measure`: none of more tasks, or where no prompt comes twice."""
        repeated = any(len(set(given)) < len(given) for given in self.prompts.values())
        if not repeated or set(self.references) != {"old", "new"}:
            return {}
        prompts = {name: self.prompts.get(name, [""] * len(rows)) for name, rows in self.samples.items()}
        return {"prompts": prompts} | {f"{k}_prompts": p for k, p in self.reference_prompts.items()}


def measure_generations(
    generations: TextSource,
    old_reference: TextSource | Mapping[str, TextSource],
    new_reference: TextSource | None = None,
    *,
    embedder: EmbedderLike = "ngrams",
    columns: Columns = Columns(),  # noqa: B008 - frozen
    num_examples: int = 5,
    cache: str | Path | None = None,
    drop_missing: bool = False,
    progress: bool = True,
    **options: Any,
) -> xr.DataTree:
    """Return the posterior of old weight and drift of every checkpoint of a run, from what it wrote.

    Args:
        generations: completions of the checkpoints, see `generations.read_generations`.
        old_reference: completions of the old task, likewise; checkpoints are put together. Or those of
            several tasks by name; then there is no ``new_reference``.
        new_reference: completions of the new task.
        embedder: ``"ngrams"`` (word and character n-grams, fitted on the references), ``"module:function"``
            or a function, which takes a list of texts and returns an array (text, feature), or the folder of
            a sentence-transformers model.
        columns: names of the files' columns; those that are not given are found.
        num_examples: samples of a checkpoint that are kept, with their texts, for every reason to look at
            them; 0 keeps none.
        cache: folder in which features are kept by content, so that only new texts are embedded; None keeps
            none.
        drop_missing: whether rows without text are left out instead of refused.
        progress: whether to show progress bars.
        **options: those of `inference.measure`; ``prompts=False`` counts answers to one prompt as
            independent, which otherwise are measured by prompt.

    Returns:
        The DataTree of `inference.measure`, with ``/examples`` (see `inference.measurement.examples`).

    Raises:
        InputError: an unusable input, before anything is measured.
    """
    num_examples = integer("num_examples", num_examples, at_least=0)
    named_references(old_reference, new_reference, options.get("new_task"))
    embedded = embed_generations(
        generations,
        old_reference,
        new_reference,
        embedder=embedder,
        columns=columns,
        cache=cache,
        drop_missing=drop_missing,
        progress=progress,
    )
    given: dict[str, Any] = {"drop_missing": drop_missing, "progress": progress}
    tree = measure(embedded.samples, embedded.references, **(given | embedded.labels() | options))
    tree.attrs["embedder"] = embedded.embedder
    if num_examples:
        found = examples(tree, embedded.samples, num=num_examples, said=embedded.said)
        tree["examples"] = xr.DataTree(found)
    return tree


def embed_generations(
    generations: TextSource,
    old_reference: TextSource | Mapping[str, TextSource],
    new_reference: TextSource | None = None,
    *,
    embedder: EmbedderLike = "ngrams",
    columns: Columns = Columns(),  # noqa: B008 - frozen
    cache: str | Path | None = None,
    drop_missing: bool = False,
    progress: bool = True,
) -> Embedded:
    """Turn a run and its references into features; arguments as those of `measure_generations`.

    Raises:
        InputError: files that cannot be read, or what the embedder refuses.
    """
    made = embedder_of(embedder)
    folder = None if cache is None else folder_of("cache", cache)
    drop_missing = flag("drop_missing", drop_missing)
    by_name = named_references(old_reference, new_reference, None)
    tasks_of: dict[str, Any] = {"old": old_reference, "new": new_reference} if by_name is None else by_name
    sources = {f"{task}_reference": source for task, source in tasks_of.items()}
    run, *tasks = (
        source
        if isinstance(source, Generations)
        else read_generations(source, columns=columns, drop_missing=drop_missing, name=name)
        for name, source in [("generations", generations), *sources.items()]
    )
    texts = [task.all_texts() for task in tasks]
    made = made.fitted(*([text for text in of_task if text] for of_task in texts))
    features = [features_of(of_task, made, folder=folder, progress=progress) for of_task in texts]
    references = dict(zip(tasks_of, features, strict=True))
    samples, prompts = {}, {}
    for index, name in enumerate(run.names):
        completions = run.load(index)
        samples[name] = features_of(completions.texts, made, folder=folder, progress=progress)
        if completions.prompts is not None:
            prompts[name] = completions.prompts

    def said(index: int) -> Said:
        completions = run.load(index)
        return Said(completions.texts, completions.prompts, completions.ids)

    of_tasks = {task: _prompts_of(read) for task, read in zip(references, tasks, strict=True)}
    return Embedded(samples, references, prompts, made.name, said, of_tasks)


def _prompts_of(reference: Generations) -> list[str] | None:
    """Return the prompts of a reference, None where a file has none."""
    parts = [reference.load(index).prompts for index in range(len(reference.names))]
    known = [part for part in parts if part is not None]
    return [prompt for part in known for prompt in part] if len(known) == len(parts) else None


def embedder_of(given: EmbedderLike) -> Embedder:
    """Return the embedder that a user names; see `measure_generations`.

    Raises:
        InputError: what is none, or cannot be imported.
    """
    if isinstance(given, Embedder):
        return given
    if not isinstance(given, str | Path):
        if not callable(given):
            raise InputError(
                f"embedder must be ngrams, module:function, a function or a model's folder; got {given!r}"
            )
        # What a function closes over is not known, so nothing of it is kept.
        return FunctionEmbedder(getattr(given, "__qualname__", type(given).__name__), given, None)
    if given == NGramEmbedder.name:
        return NGramEmbedder()
    if Path(given).is_dir():
        return model_embedder(Path(given))
    module, colon, function = str(given).partition(":")
    if not (module and colon and function):
        raise InputError(f"embedder must be ngrams, module:function, or a model's folder; got {given}")
    return function_embedder(str(given))
