"""Read evaluation logs, of any tool, into one long form."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from inference.measurement.evals.readers import formats, long_form
from inference.measurement.evals.readers.log import Labels, Log, Options
from inference.measurement.evals.readers.long_form import checkpoint_of, name_of
from inference.measurement.evals.readers.sources import Logs, Source, named, sources
from inference.progress import hidden
from mixture_models.validation import InputError

_RUN = ("arm", "seed", "checkpoint")


def read(
    logs: Logs,
    *,
    base: str | int = "base",
    metric: str | Sequence[str] = (),
    filter: str | Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    num_choices: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Read graded answers into the long form of `long_form`.

    Args:
        logs: paths, globs or tables, or a mapping of runs' names to them; see `sources` for names.
        base: name of the base, as an arm or as a checkpoint.
        metric: names of metrics (an Inspect scorer is one): of each log the first that it has is read.
            Without it, one that says right or wrong is chosen.
        filter: names of lm-evaluation-harness' filters, in the same way.
        columns: names of a table's columns, by that of the long form, where they differ; ``sample`` may be
            ``order``, which numbers the repeats of an item as they come.
        num_choices: how many answers every item of a table offers, where no column says it.
        progress: whether to show a bar over the files.

    Returns:
        The long form. Its ``attrs`` have ``metrics``, the metric that was read, by task; ``logs``, a log of
            each `long_form.run_name`; and ``skipped``, files that lay in a folder and are no logs.

    Raises:
        InputError: a log that is empty, cut off or none; no base; logs of one task that were read by
            different metrics or hold different texts under one item's name; and what the readers say.
    """
    options = Options(
        (metric,) if isinstance(metric, str) else tuple(metric),
        (filter,) if isinstance(filter, str) else tuple(filter),
        dict(columns or {}),
        num_choices,
    )
    found, base, called = sources(logs), name_of(base), checkpoint_of(base)
    by_folder = any(source.folders.arm == base for source in found)
    parts = _Parts()
    for source in tqdm(found, desc="reading", unit="log", disable=hidden(progress)):
        log = _read(source, options, base)
        name = str(source.content) if isinstance(source.content, Path) else "the table"
        if log is None:
            parts.skipped.append(name)
        else:
            parts.add(name, _with_run(log, source, base, by_folder), log)
    if not parts.frames:
        raise InputError(f"a folder of logs must hold one; {', '.join(parts.skipped[:3])} are none")
    answers = long_form.concatenated(parts.frames)
    log_of_row = np.repeat(np.arange(len(parts.frames)), [len(frame) for frame in parts.frames])
    _check_texts(answers, log_of_row, parts.names)
    answers = _numbered(answers, log_of_row, np.array(parts.numbered))
    if base not in answers["arm"].array.categories and called not in answers["checkpoint"].array.categories:
        shown = [str(n) for key in ("arm", "checkpoint") for n in answers[key].array.categories][:12]
        raise InputError(
            f"logs must have the base, an arm or a checkpoint {base}; they have {', '.join(shown)}"
        )
    answers.attrs["metrics"] = {task: metric for task, (metric, _) in parts.metrics.items()}
    answers.attrs["skipped"] = parts.skipped
    answers.attrs["logs"] = parts.logs
    return answers


class _Parts:
    """What was read so far."""

    def __init__(self) -> None:
        self.frames: list[pd.DataFrame] = []
        self.names: list[str] = []
        self.numbered: list[bool] = []
        self.metrics: dict[str, tuple[str, str]] = {}
        self.skipped: list[str] = []
        self.logs: dict[str, str] = {}
        self._evaluations: dict[tuple[object, ...], int] = {}

    def add(self, name: str, frame: pd.DataFrame, log: Log) -> None:
        """Add the answers of a log.

        Raises:
            InputError: a task that an earlier log has by another metric.
        """
        for task, metric in log.metrics.items():
            first, other = self.metrics.setdefault(task, (metric, name))
            if first != metric:
                raise InputError(
                    f"logs of a task must be read by one metric; {task} has {first} in {other} and "
                    f"{metric} in {name}: name the metric, or the filter"
                )
        if log.identity is not None:
            # Of two logs of one evaluation, such as one that was resumed, the one with more answers counts.
            key = (log.identity, *(frame[column].iloc[0] for column in (*_RUN, "task")))
            place = self._evaluations.setdefault(key, len(self.frames))
            if place < len(self.frames):
                earlier = self.frames[place]
                again = earlier if frame["score"].count() > earlier["score"].count() else frame
                again["problem"] = long_form.constant("the same evaluation again", len(again))
                again["score"] = np.nan
                self._evaluations[key] = len(self.frames) if again is earlier else place
        for run in frame[["task", *_RUN]].drop_duplicates().itertuples(index=False):
            self.logs.setdefault(long_form.run_name(*run), name)
        self.frames.append(frame)
        self.names.append(name)
        self.numbered.append(log.numbered)


def _read(source: Source, options: Options, base: str) -> Log | None:
    """Return the answers of a source, None where it is a file of a folder that is no log."""
    labels = _labels(source, base)
    if isinstance(source.content, Path):
        reader = formats.reader_of(source.content, options, listed=source.listed)
        return None if reader is None else reader(source.content, options, labels)
    frame = long_form.long_form(
        source.content,
        columns=options.columns,
        num_choices=options.num_choices,
        given=labels.given,
        default=labels.default,
    )
    return Log(frame, numbered=options.numbered)


def _labels(source: Source, base: str) -> Labels:
    given = {name: value for name, value in source.run._asdict().items() if value is not None}
    default = {name: value for name, value in source.folders._asdict().items() if value is not None}
    if base in (source.run.arm, source.folders.arm):
        # What the base's folders are called is not its checkpoint.
        default = {"seed": long_form.LEVELS["seed"], "checkpoint": base} | {
            name: value for name, value in default.items() if name == "arm"
        }
    return Labels(given, default)


def _with_run(log: Log, source: Source, base: str, by_folder: bool) -> pd.DataFrame:
    """Return a log's answers with the names of their run.

    A log that says its model has that as its arm, unless a name is given or a folder is called as the base.
    """
    frame = log.frame
    if "arm" in frame:
        return frame
    labels = _labels(source, base)
    values = long_form.LEVELS | labels.default
    if log.model is not None and source.run.arm is None and not by_folder:
        model = named(log.model)
        values |= {name: value for name, value in model._asdict().items() if value is not None}
        if base in (log.model, model.arm):
            values |= {"arm": base, "checkpoint": base}
    values |= labels.given
    return frame.assign(**{name: long_form.constant(values[name], len(frame)) for name in _RUN})


def _check_texts(answers: pd.DataFrame, log_of_row: np.ndarray, names: Sequence[str]) -> None:
    """Refuse items that have different texts under one name.

    Raises:
        InputError: the first of them, with the logs.
    """
    text = answers["text"].to_numpy()
    rows = np.flatnonzero(text)
    codes = long_form.answer_codes(answers, ("task", "item"))[rows]
    rows = rows[np.argsort(codes, kind="stable")]
    codes = np.sort(codes, kind="stable")
    differ = (codes[1:] == codes[:-1]) & (text[rows[1:]] != text[rows[:-1]])
    if differ.any():
        place = int(np.argmax(differ))
        one, other = (answers.iloc[rows[place]], answers.iloc[rows[place + 1]])
        where = sorted({names[log_of_row[rows[place]]], names[log_of_row[rows[place + 1]]]})
        raise InputError(
            f"an item must have one text in all logs; item {one['item']} of {other['task']} has different "
            f"ones in {' and '.join(where)}: they are not logs of the same items"
        )


def _numbered(answers: pd.DataFrame, log_of_row: np.ndarray, numbered: np.ndarray) -> pd.DataFrame:
    """Return the answers with repeats in several logs numbered on, and checked where a table numbers them.

    Raises:
        InputError: an answer that several tables have, with different outcomes.
    """
    if log_of_row[-1] == 0:
        return answers  # one log, which was checked
    used = answers["score"].notna().to_numpy()
    codes = np.sort(long_form.answer_codes(answers)[used])
    if (np.diff(codes) > 0).all():
        return answers
    own = ~numbered[log_of_row]
    if own.any():
        item = long_form.answer_codes(answers, long_form.KEY[:-1])
        order = np.lexsort((answers["sample"].to_numpy(), log_of_row, ~used))
        sample = np.empty(len(order), dtype=np.int64)
        sample[order] = long_form.ranks(item[order])
        answers["sample"] = np.where(own, sample, answers["sample"])
    return long_form.unique(answers, "the logs", hint=long_form.HINT)
