"""How much old behaviour does a real run keep, by a log-likelihood a sample and task?"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from rich.console import RenderableType

from analyses.core import tables
from analyses.core.analysis import shown_by
from analyses.core.settings import BaseSettings, each, setting, text, texts
from analyses.measure_scores import by_task, forward_kl, two_modes
from inference.measurement.scores.answers import SAMPLED_FROM
from inference.measurement.scores.files import COLUMNS, read_answers, read_scores
from inference.measurement.scores.measure_scores import measure_scores, prior_shapes
from mixture_models.validation import InputError, integer, one_of, path_of

# The columns of answers that are read unless others are named.
ANSWER_COLUMNS = {"log_base": "base_log_likelihood", "log_run": "run_log_likelihood"}


def _named(name: str, value: object) -> tuple[str, ...]:
    """Return columns that are given as texts NAME=COLUMN."""
    given = texts(name, value)
    pairs = [one.partition("=") for one in given]
    for one, (task, _, column) in zip(given, pairs, strict=True):
        if not (task.strip() and column.strip()):
            raise InputError(f"{name} must be NAME=COLUMN; got {one!r}")
    tasks = [task for task, _, _ in pairs]
    if len(set(tasks)) < len(tasks):
        raise InputError(f"{name} must name every task once; got {', '.join(tasks)}")
    return given


def _shapes(name: str, value: Any) -> tuple[float, float]:
    return prior_shapes(value)


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """The settings of `run`."""

    files: tuple[Path, ...] = setting(
        each(path_of), "Scores, a row a sample: .jsonl, .csv or .parquet.", argument=True, metavar="FILE..."
    )
    old_column: str = setting(
        text, "Column of the log-likelihoods under the old-task reference [nat].", COLUMNS["old"]
    )
    new_column: str = setting(
        text, "Column of the log-likelihoods under the new-task reference [nat].", COLUMNS["new"]
    )
    column: tuple[str, ...] = setting(
        _named,
        "Column of a task, one of several, in the place of these; repeated.",
        (),
        metavar="NAME=COLUMN",
    )
    new_task: str | None = setting(
        text, "Which of several tasks is new.", None, show="new, where there is one of this name"
    )
    checkpoint_column: str | None = setting(
        text,
        "Column of the checkpoints.",
        None,
        show="checkpoint; where there is none, each file is a checkpoint",
    )
    sampled_from: str | None = setting(
        partial(one_of, known=SAMPLED_FROM),
        "Whose answers to the new task's prompts give the forward KL: base or run.",
        None,
        show="no forward KL",
    )
    answers: tuple[Path, ...] = setting(
        each(path_of),
        "File of these answers, a row an answer; repeated. Of the run they may be the samples.",
        (),
        metavar="FILE",
    )
    base_column: str = setting(
        text, "Column of the answers' log-likelihoods under the base [nat].", ANSWER_COLUMNS["log_base"]
    )
    run_column: str = setting(
        text, "Column of the answers' log-likelihoods under the run [nat].", ANSWER_COLUMNS["log_run"]
    )
    prompt_column: str | None = setting(
        text, "Column of the answers' prompts.", None, show="answers count as independent"
    )
    token_column: str | None = setting(
        text, "Column of the answers' numbers of tokens.", None, show="no forward KL a token"
    )
    weight_prior: tuple[float, float] = setting(
        _shapes,
        "Shapes of the Beta prior of the old weight, each at least 1.",
        (1.0, 1.0),
    )
    num_draws: int = setting(integer, "Draws of the posterior.", 4000)
    seed: int = setting(partial(integer, at_least=0), "Seed of the draws.", 0)


def run(settings: Settings) -> xr.DataTree:
    """Measure the scores in some files, by `inference.measure_scores`.

    Raises:
        InputError: as it and `read_scores` say, or columns by name beside an old and a new one.
    """
    both = {"old": settings.old_column, "new": settings.new_column}
    named = {task: column for task, _, column in (one.partition("=") for one in settings.column)}
    if named and both != COLUMNS:
        raise InputError(
            "columns are an old_column and a new_column, or several NAME=COLUMN; got "
            f"{', '.join(both.values())} and {', '.join(settings.column)}"
        )
    answers = _answers(settings)
    scores = read_scores(settings.files, columns=named or both, checkpoint=settings.checkpoint_column)
    return measure_scores(
        scores,
        new_task=settings.new_task,
        **answers,
        weight_prior=settings.weight_prior,
        num_draws=settings.num_draws,
        seed=settings.seed,
    )


def _answers(settings: Settings) -> dict[str, Any]:
    """Return the answers that give the forward KL, as `measure_scores` takes them."""
    given = {
        "answers": settings.answers,
        "base_column": settings.base_column != ANSWER_COLUMNS["log_base"],
        "run_column": settings.run_column != ANSWER_COLUMNS["log_run"],
        "prompt_column": settings.prompt_column,
        "token_column": settings.token_column,
    }
    if settings.sampled_from is None:
        if useless := [name for name, value in given.items() if value]:
            raise InputError(f"{useless[0]} needs sampled_from, whose answers they are; got none")
        return {}
    if settings.sampled_from == "base" and not settings.answers:
        raise InputError(
            "answers of the base must be in files of their own, for the samples are the run's; got no answers"
        )
    columns = {"log_base": settings.base_column, "log_run": settings.run_column}
    if settings.token_column is not None:
        columns["tokens"] = settings.token_column
    numbers, prompts = read_answers(
        settings.answers or settings.files,
        columns=columns,
        prompt=settings.prompt_column,
        checkpoint=settings.checkpoint_column,
    )
    return {**numbers, "prompts": prompts, "sampled_from": settings.sampled_from}


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a checkpoint (and task): mean, sd and interval of the weight, and the verdict."""
    return shown_by(tree["posterior"].dims, two_modes, by_task).summary(tree)


def table(tree: xr.DataTree) -> RenderableType:
    """Return the summary as a table for the terminal, a checkpoint (and task) a row."""
    return shown_by(tree["posterior"].dims, two_modes, by_task).table(tree)


def remarks(tree: xr.DataTree) -> list[str]:
    """Return one sentence for each checkpoint and verdict that is not ``good``."""
    said = tree["summary"].to_dataset()
    of_kl = "The forward KL of checkpoint {} is {}."
    found = tables.remarks(said["kl_words"], of_kl) if "kl_words" in said else []
    return tables.remarks(said["words"]) + found


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return ``old_weight`` and ``density``, or of tasks ``weight``, and ``forward_kl`` if measured."""
    return shown_by(tree["posterior"].dims, two_modes, by_task).plot(tree) | forward_kl.plot(tree)
