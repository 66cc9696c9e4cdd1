"""The long form of graded answers: one row an answer, whatever tool wrote the log.

=============  ==================================================================================
column         what it holds
=============  ==================================================================================
``arm``        the method that trained the checkpoint; ``base`` for the base
``seed``       the training run, as text
``checkpoint`` a step (int) or a name; ``base`` for the base
``task``       the evaluation
``item``       its question, by a name that is the same in all logs
``sample``     which of the repeated answers, from 0
``score``      in [0, 1]; missing where ``problem`` says why
``choice``     the chosen answer of a multiple-choice item, where known
``answer``     the right one, where known
``num_choices``  how many there are, where known
``cluster``    what items that depend on each other have in common, where known, such as a text or template
``text``       64-bit digest of the item's text, 0 where unknown
``problem``    why an answer cannot be used, missing where it can
=============  ==================================================================================

Names are categorical, so that a row takes a few bytes.
"""

import hashlib
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from pandas.api.types import union_categoricals

from mixture_models.validation import InputError, integer

#: Columns that every long form has.
REQUIRED = ("arm", "seed", "checkpoint", "task", "item", "sample", "score")
#: Columns with the answers themselves, and with what is known of an item or an answer.
OPTIONAL = ("choice", "answer", "num_choices", "cluster", "text", "problem")
COLUMNS = REQUIRED + OPTIONAL

#: Columns that together name an answer.
KEY = ["arm", "seed", "checkpoint", "task", "item", "sample"]

#: The checkpoint of a run that has only one, without a name.
FINAL = "final"

#: In the place of a column of repeats: they are numbered in the order of the rows.
ORDER = "order"

#: What to do about repeats that are not numbered.
HINT = f"name a column of repeats, sample=COLUMN, or sample={ORDER} where rows are repeats"

#: What a column holds where a table has no such column.
LEVELS: dict[str, str | int] = {"arm": "run", "seed": "0", "checkpoint": FINAL, "task": "task"}

_NAMES = ("arm", "seed", "checkpoint", "task", "item", "choice", "answer", "cluster", "problem")
_LONGEST = 100  # characters of an item's name
_WORDS = {"true": 1.0, "false": 0.0, "c": 1.0, "i": 0.0, "correct": 1.0, "incorrect": 0.0}


#: A table of answers.
type Table = pd.DataFrame | xr.Dataset | xr.DataArray


def name_of(value: Any) -> str:
    """Return a name as text; a whole number is written without a point, so that 3.0 and ``"3"`` are one."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    return str(int(float(value))) if is_number and float(value).is_integer() else str(value)


def checkpoint_of(value: object) -> int | str:
    """Return a checkpoint's name: an int where it is a whole number, else text."""
    text = name_of(value)
    return int(text) if text.isascii() and text.isdigit() else text


def run_name(task: str, arm: str, seed: str, checkpoint: int | str) -> str:
    """Return what a sentence calls the answers of a run to a task."""
    return f"{task} (arm {arm}, seed {seed}, checkpoint {checkpoint})"


def item_of(value: object) -> str:
    """Return the name of an item; of a text, such as a prompt, a digest."""
    text = name_of(value)
    if len(text) <= _LONGEST:
        return text
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def categories(values: Iterable[object], label: Callable[[object], object] = name_of) -> pd.Categorical:
    """Return values as categories in order of first appearance; each distinct value is named once."""
    values = values if isinstance(values, pd.Series) else np.array(values, dtype=object)
    codes, distinct = pd.factorize(values)
    names = np.empty(len(distinct), dtype=object)
    names[:] = [label(value) for value in distinct]
    # Values that are different may have one name.
    places, kept = pd.factorize(names)
    codes = codes if len(kept) == len(names) else np.append(places, -1)[codes]
    return pd.Categorical.from_codes(codes, pd.Index(kept, dtype=object))


def constant(value: object, num: int) -> pd.Categorical:
    """Return a column of one value."""
    return pd.Categorical.from_codes(np.zeros(num, dtype=np.int8), pd.Index([value], dtype=object))


def unknown(num: int) -> pd.Categorical:
    """Return a column of names that are not known."""
    return pd.Categorical.from_codes(np.full(num, -1, dtype=np.int8), pd.Index([], dtype=object))


def concatenated(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put long forms together, one column after the other, so that no column is held as text."""
    if len(frames) == 1:
        return frames[0]
    columns: dict[str, object] = {}
    for name in (name for name in COLUMNS if name in frames[0]):
        parts = [frame[name] for frame in frames]
        if name in _NAMES:
            columns[name] = union_categoricals([part.array for part in parts])
        else:
            columns[name] = pd.concat(parts, ignore_index=True).array
    return pd.DataFrame(columns, copy=False)


def long_form(
    table: Table,
    *,
    columns: Mapping[str, str] | None = None,
    num_choices: int | None = None,
    given: Mapping[str, object] | None = None,
    default: Mapping[str, object] | None = None,
    name: str = "the table",
) -> pd.DataFrame:
    """Return a table as the long form.

    Args:
        table: a DataFrame, a Dataset with a variable ``score``, or a DataArray of scores.
        columns: names of the table's columns, by that of the long form, where they differ; ``order`` for
            ``sample`` numbers the repeats of an item as they come.
        num_choices: how many answers every item offers, where no column says it.
        given: values of columns, in the place of the table's own.
        default: values of columns where the table has none.
        name: what to call the table in an error.

    Raises:
        InputError: columns that are not there, an item without a name, scores out of [0, 1], or an answer
            that is there twice with different outcomes.
    """
    table, columns, given, default = _frame(table, name), dict(columns or {}), given or {}, default or {}
    if unknown := sorted(set(columns) - set(COLUMNS)):
        raise InputError(f"columns must be named for some of {', '.join(COLUMNS)}; got {', '.join(unknown)}")
    by_order = columns.get("sample") == ORDER and ORDER not in table
    if by_order:
        del columns["sample"]
    if absent := [f"{key}={value}" for key, value in columns.items() if value not in table]:
        raise InputError(
            f"{name} must have the columns that are named; it lacks {', '.join(absent)} and has "
            f"{_listed(table)}"
        )
    source = {key: columns.get(key, key) for key in COLUMNS}
    present = {key for key in COLUMNS if source[key] in table} | set(given) | set(default)
    for key in ("item", "score"):
        if key not in present:
            raise InputError(
                f"{name} must have a column {key}, or another must be named for it ({key}=COLUMN); "
                f"it has {_listed(table)}"
            )
    if not present & {"arm", "checkpoint"}:
        raise InputError(
            f"{name} must have a column arm or checkpoint that tells the base from the runs, or be named as "
            f"one of them; it has {_listed(table)}"
        )
    if not len(table):
        raise InputError(f"{name} must have rows; it has none")
    result: dict[str, object] = {}
    for key in ("arm", "seed", "checkpoint", "task", "item"):
        label: Callable[[object], object] = {"checkpoint": checkpoint_of, "item": item_of}.get(key, name_of)
        fallback = (LEVELS | dict(default)).get(key)
        if key in given or source[key] not in table:
            result[key] = constant(label(given.get(key, fallback)), len(table))
        else:
            fallback = None if fallback is None else label(fallback)
            result[key] = _filled(categories(table[source[key]], label), fallback, key, name)
    if by_order:
        result["sample"] = ranks(answer_codes(pd.DataFrame(result), KEY[:-1]))
    else:
        result["sample"] = _samples(table[source["sample"]], name) if source["sample"] in table else 0
    result["score"] = _scores(table[source["score"]], name)
    for key in ("choice", "answer", "cluster", "problem"):
        none = pd.Series(None, table.index, dtype=object)
        result[key] = categories(table.get(source[key], none))
    result["num_choices"] = _num_choices(table, source["num_choices"], num_choices, name)
    text = table[source["text"]].fillna(0) if source["text"] in table else np.zeros(len(table))
    result["text"] = np.asarray(text, dtype=np.uint64)
    return unique(pd.DataFrame(result), name, hint=HINT)


def ensure(answers: pd.DataFrame) -> pd.DataFrame:
    """Return answers in the long form, as they are where they are in it."""
    ready = set(COLUMNS) <= set(answers.columns) and isinstance(answers["item"].dtype, pd.CategoricalDtype)
    return answers if ready else long_form(answers, name="answers")


def unique(frame: pd.DataFrame, name: str, *, hint: str) -> pd.DataFrame:
    """Mark answers without a score, and answers that are there a second time; check what is left.

    Args:
        frame: a long form, or one without the columns that name a run.
        name: what to call it in an error.
        hint: what to do about an answer that is there twice, for the error.

    Raises:
        InputError: scores out of [0, 1], or an answer that is there twice with different outcomes.
    """
    score = frame["score"].to_numpy()
    if (bad := (score < 0.0) | (score > 1.0)).any():
        row = frame.iloc[int(np.argmax(bad))]
        raise InputError(
            f"scores must lie in [0, 1]; in {name}, item {row['item']} of {row['task']} has {row['score']:g}"
        )
    empty = np.isnan(score) & frame["problem"].isna().to_numpy()
    if empty.any():
        frame["problem"] = _with(frame["problem"].array, empty, "no score")
    used = ~np.isnan(score) & frame["problem"].isna().to_numpy()
    if not used.all():
        frame.loc[~used, "score"] = np.nan
    codes = answer_codes(frame, [name for name in KEY if name in frame])
    # Answers that can be used come first, so that one of those is kept.
    order = np.argsort(codes + 0 if used.all() else codes * 2 + ~used, kind="stable")
    again = np.zeros(len(frame), dtype=bool)
    again[order[1:]] = (np.diff(codes[order]) == 0) & used[order[1:]]
    if not again.any():
        return frame
    first = order[np.maximum.accumulate(np.where(again[order], 0, np.arange(len(order))))]
    first_of = np.empty(len(order), dtype=np.int64)
    first_of[order] = first
    other = (score != score[first_of]) | (
        frame["choice"].array.codes != frame["choice"].array.codes[first_of]
    )
    if (conflict := again & other).any():
        row = frame.iloc[int(np.argmax(conflict))]
        raise InputError(
            f"an answer must be there once, or twice alike; in {name}, item {row['item']} of {row['task']} "
            f"has different outcomes under one sample number ({hint})"
        )
    frame["problem"] = _with(frame["problem"].array, again, "there twice, alike")
    frame.loc[again, "score"] = np.nan
    return frame


def answer_codes(frame: pd.DataFrame, key: Iterable[str] = tuple(KEY)) -> np.ndarray:
    """Return one integer for every row, equal where the columns of ``key`` are."""
    codes = np.zeros(len(frame), dtype=np.int64)
    for name in key:
        column = frame[name]
        if name in _NAMES:
            part, num = column.array.codes.astype(np.int64), len(column.array.categories)
        else:
            part = column.to_numpy(dtype=np.int64)
            part, num = part - part.min(initial=0), int(np.ptp(part)) + 1 if len(part) else 1
        if num > 1:
            # Numbered anew before they overflow.
            if codes.size and int(codes.max()) >= (1 << 62) // num:
                codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
            codes = codes * num + part
    return codes


def ranks(codes: np.ndarray) -> np.ndarray:
    """Return the number of each row among those of the same code, from 0."""
    return pd.Series(codes).groupby(codes, sort=False).cumcount().to_numpy()


def _frame(table: Table, name: str) -> pd.DataFrame:
    if isinstance(table, xr.DataArray):
        table = table.to_dataset(name=table.name or "score")
    if isinstance(table, xr.Dataset):
        table = table.to_dataframe().reset_index()
    if not isinstance(table, pd.DataFrame):
        raise InputError(f"{name} must be a DataFrame or an xarray object; got {type(table).__name__}")
    return table


def _filled(column: pd.Categorical, fallback: object, key: str, name: str) -> pd.Categorical:
    """Return a column with a value in every row.

    Raises:
        InputError: a row without one, where there is no value to fall back on.
    """
    missing = column.codes < 0
    if not missing.any():
        return column
    if fallback is None:
        row = int(np.argmax(missing))
        raise InputError(f"{name} must have a value of {key} in every row; row {row} has none")
    return _with(column, missing, fallback)


def _listed(table: pd.DataFrame) -> str:
    names = [str(column) for column in table.columns]
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "") if names else "none"


def _with(column: pd.Categorical, rows: np.ndarray, name: object) -> pd.Categorical:
    """Return a column with a name in some rows."""
    known = list(column.categories)
    if name not in known:
        known.append(name)
    codes = column.codes.astype(np.int32)
    codes[rows] = known.index(name)
    return pd.Categorical.from_codes(codes, pd.Index(known, dtype=object))


def _samples(values: pd.Series, name: str) -> np.ndarray:
    codes, distinct = pd.factorize(values)
    if (codes < 0).any():
        raise InputError(
            f"{name} must have a value of sample in every row; row {int(np.argmax(codes < 0))} has none"
        )
    # Labels of repeats that are no numbers are numbered.
    names = [name_of(value) for value in distinct]
    if all(text.isascii() and text.isdigit() for text in names):
        return np.array([int(text) for text in names], dtype=np.int64)[codes]
    rank = {text: place for place, text in enumerate(sorted(set(names)))}
    return np.array([rank[text] for text in names], dtype=np.int64)[codes]


def score_of(value: Any) -> float:
    """Return a score as a number: bools, numbers, and the words for right and wrong; NaN for none.

    Raises:
        ValueError: what is none of these.
    """
    if value is None or value is pd.NA:
        return float("nan")
    if isinstance(value, str):
        word = value.strip().lower()
        return _WORDS[word] if word in _WORDS else float(word or "nan")
    return float(value)


def _scores(values: pd.Series, name: str) -> np.ndarray:
    if values.dtype.kind in "fiub":
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    codes, distinct = pd.factorize(values)
    known = np.full(len(distinct) + 1, np.nan)
    for place, value in enumerate(distinct):
        try:
            known[place] = score_of(value)
        except (TypeError, ValueError):
            raise InputError(
                f"scores must be numbers in [0, 1], or true and false; {name} has {value!r}"[:300]
            ) from None
    return known[codes]  # the last place is for those without a value


def _num_choices(table: pd.DataFrame, column: str, everywhere: int | None, name: str) -> pd.array:
    if column in table:
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        if (bad := (values < 1) | (values % 1 != 0) & ~np.isnan(values)).any():
            raise InputError(
                f"num_choices must be whole numbers of at least 1; {name} has {values[bad][0]:g}"
            )
    else:
        number = np.nan if everywhere is None else integer("num_choices", everywhere, at_least=2)
        values = np.full(len(table), number)
    missing = np.isnan(values)
    return pd.arrays.IntegerArray(np.where(missing, 0, values).astype(np.int64), missing)
