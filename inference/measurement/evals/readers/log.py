"""What a reader returns: the answers of one log, and how it says which metric was read."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from inference.measurement.evals.readers import long_form
from mixture_models.validation import InputError

#: Metrics that say right or wrong, those first that are taken where a log has several.
METRICS = (
    "acc",
    "accuracy",
    "exact_match",
    "em",
    "choice",
    "match",
    "quasi_exact_match",
    "prefix_exact_match",
    "quasi_prefix_exact_match",
    "extractive_match",
    "pass@1",
    "prompt_level_strict_acc",
    "math_verify",
    "math_equiv_chain_of_thought",
    "ifeval_strict_accuracy",
    "chain_of_thought_correctness",
    "acc_norm",
    "loglikelihood_acc",
)

#: Filters of generated answers, in the same order.
FILTERS = ("none", "strict-match", "flexible-extract")

#: The choice of an answer that is none of those that were offered.
NONE_OF_THEM = "-"


class Options(NamedTuple):
    """What of a log is read.

    Attributes:
        metric: names of metrics, the first that a log has is read; empty for those of `METRICS`.
        filter: names of lm-evaluation-harness' filters, in the same way.
        columns: names of a table's columns, by that of the long form.
        num_choices: how many answers every item of a table offers, where no column says it.
    """

    metric: tuple[str, ...] = ()
    filter: tuple[str, ...] = ()
    columns: dict[str, str] = {}  # noqa: RUF012 - never written to
    num_choices: int | None = None

    @property
    def numbered(self) -> bool:
        """Return whether tables number the repeats of an item, in all files together."""
        return self.columns.get("sample") != long_form.ORDER


class Log(NamedTuple):
    """The answers of one log.

    Attributes:
        frame: the long form, without ``arm``, ``seed`` and ``checkpoint`` unless the log has them as columns.
        model: name of the model, where the log has it.
        metrics: the metric that was read, by task.
        identity: the same for two logs of one evaluation, such as one that was resumed; None where unknown.
        numbered: whether ``sample`` numbers the repeats of an item in all logs together.
    """

    frame: pd.DataFrame
    model: str | None = None
    metrics: dict[str, str] = {}  # noqa: RUF012 - never written to
    identity: str | None = None
    numbered: bool = False


class Labels(NamedTuple):
    """What the name of a run and its folders say of its arm, seed and checkpoint.

    Attributes:
        given: values in the place of a log's own.
        default: values where the log has none.
    """

    given: dict[str, object]
    default: dict[str, object]


class Rows:
    """Answers, one after the other, in a few bytes each."""

    def __init__(self) -> None:
        self._columns: dict[str, list[object]] = {
            name: []
            for name in ("item", "sample", "score", "choice", "answer", "num_choices", "text", "problem")
        }

    def add(
        self,
        item: str,
        score: float,
        *,
        sample: int = 0,
        choice: str | None = None,
        answer: str | None = None,
        num_choices: int | None = None,
        text: int = 0,
        problem: str | None = None,
    ) -> None:
        """Add an answer; see `long_form` for what it has."""
        row = (item, sample, score, choice, answer, num_choices, text, problem)
        for column, value in zip(self._columns.values(), row, strict=True):
            column.append(value)

    def frame(self, task: str, path: Path, *, hint: str) -> pd.DataFrame:
        """Return the answers of a task as a checked long form.

        Raises:
            InputError: as `long_form.unique` says.
        """
        num = len(self._columns["item"])
        columns: dict[str, object] = {"task": long_form.constant(task, num)}
        for name, values in self._columns.items():
            if name in ("item", "choice", "answer", "problem"):
                columns[name] = long_form.categories(values)
            elif name == "num_choices":
                columns[name] = pd.array(values, dtype="Int64")
            else:
                kinds = {"sample": np.int64, "score": np.float64, "text": np.uint64}
                columns[name] = np.array(values, dtype=kinds[name])
        columns["cluster"] = long_form.unknown(num)
        return long_form.unique(pd.DataFrame(columns), str(path), hint=hint)


def choose(kind: str, found: Iterable[str], wanted: Sequence[str], known: Sequence[str], path: Path) -> str:
    """Return which of a log's metrics or filters is read.

    Args:
        kind: ``metric`` or ``filter``, for the error.
        found: names that the log has.
        wanted: names that the user gives, the first first; empty for none.
        known: names in the order in which they are taken otherwise.
        path: of the log, for the error.

    Raises:
        InputError: none of those that are wanted, or several of which none is known.
    """
    names = sorted(set(found))
    if not names:
        raise InputError(f"a log must have scores; {path} has no {kind}")
    for name in wanted or known:
        if name in names:
            return name
    if wanted:
        raise InputError(f"{kind} must be one that {path} has: {', '.join(names)}; got {', '.join(wanted)}")
    if len(names) == 1:
        return names[0]
    raise InputError(f"{path} has several {kind}s: {', '.join(names)}; name the {kind} to be read")


def digest(*parts: object) -> int:
    """Return a 64-bit digest of texts and of what JSON can hold, never 0."""
    text = "\0".join(
        part if isinstance(part, str) else json.dumps(part, sort_keys=True, default=str) for part in parts
    )
    raw = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(raw) or 1


def json_file(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        InputError: a file that is cut off or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise InputError(f"{path} must be JSON; it is cut off or damaged") from None


def numeric(value: object) -> float | None:
    """Return a score as a number, NaN where it is empty, None where it is no number."""
    if value is None:
        return float("nan")
    if isinstance(value, bool | int | float):
        return float(value)
    return None


def place_of(choice: object, choices: Sequence[str]) -> str:
    """Return which of the choices an answer names, as its place; `NONE_OF_THEM` where it is none.

    An answer may be the text of a choice, its letter (A is the first) or, where neither, its place from 0.
    """
    text = str(choice).strip()
    texts = [str(offered).strip() for offered in choices]
    return str(texts.index(text)) if text in texts else place_of_letter(text, choices)


def place_of_letter(choice: object, choices: Sequence[str]) -> str:
    """Return which of the choices a letter names, or a place from 0; `NONE_OF_THEM` where it is neither."""
    text = str(choice).strip()
    if len(text) == 1 and 0 <= (place := ord(text.upper()) - ord("A")) < len(choices):
        return str(place)
    if text.isascii() and text.isdigit() and int(text) < len(choices):
        return str(int(text))
    return NONE_OF_THEM
