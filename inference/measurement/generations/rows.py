"""Rows of completions, one kind of file a reader: what a row says, whatever its columns are called."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from inference.measurement.generations.formats import READERS, suffix_of
from inference.storage import reading
from mixture_models.validation import InputError


@dataclass(frozen=True)
class Columns:
    """Names of columns; one that is None is found.

    Attributes:
        text: what a model wrote: a text, or chat messages of which those after the last question count.
        prompt: what it was asked, likewise.
        checkpoint: which checkpoint wrote it.
        id: of the row.
        old_log_likelihood: of the text under the old-task reference [nat].
        new_log_likelihood: of the text under the new-task reference [nat].
    """

    text: str | None = None
    prompt: str | None = None
    checkpoint: str | None = None
    id: str | None = None
    old_log_likelihood: str | None = None
    new_log_likelihood: str | None = None

    def named(self) -> dict[str, str]:
        """Return the names that are given."""
        return {one.name: name for one in fields(self) if (name := getattr(self, one.name)) is not None}


# What columns are called, those first that are taken where a file has several.
_KNOWN = {
    "text": ("completion", "response", "generation", "output", "text", "answer", "messages"),
    "prompt": ("prompt", "question", "instruction", "query", "input"),
    "checkpoint": ("checkpoint", "step", "global_step"),
    "id": ("id", "sample_id", "uid"),
    "old_log_likelihood": ("old_log_likelihood",),
    "new_log_likelihood": ("new_log_likelihood",),
}


class Row(NamedTuple):
    """A completion: what `Columns` lists, None where the file has no such column.

    Attributes:
        place: the row's number in its file, from 1 on; of JSON Lines, that of the line.
    """

    place: int
    text: str
    prompt: str | None
    checkpoint: int | str | None
    id: str | None
    old_log_likelihood: float | None
    new_log_likelihood: float | None


def rows_of(path: Path, columns: Columns, *, drop_missing: bool) -> Iterator[Row]:
    """Yield the rows of a file of completions, one batch held at a time.

    Args:
        path: of the file.
        columns: their names.
        drop_missing: whether a row without text is yielded, with an empty one, in the place of an error.

    Raises:
        InputError: a file that cannot be read, is cut off, lacks a column, or holds no row, or a row without
            text or with something else in the place of a text; says in which row.
    """
    suffix = suffix_of(path)
    if suffix is None:
        raise InputError(
            f"completions must lie in files whose names end with {', '.join(READERS)}; got {path}"
        )
    found: dict[str, str] | None = None
    with reading.reading(path, f"completions must lie in a readable {suffix} file"):
        for place, row in READERS[suffix](path):
            found = _found(path, row, columns) if found is None else found
            yield _row(f"{path}, row {place},", place, row, found, drop_missing=drop_missing)


def _found(path: Path, row: Mapping[str, object], columns: Columns) -> dict[str, str]:
    """Return the names of a file's columns by its first row."""
    given = columns.named()
    shown = ", ".join(list(row)[:8]) or "none"
    for what, name in given.items():
        if name not in row:
            raise InputError(f"{path} must have the column {name}, named as its {what}; it has {shown}")
    found = given | {
        what: first
        for what, names in _KNOWN.items()
        if what not in given and (first := next((n for n in names if n in row), None)) is not None
    }
    if "text" not in found:
        # The only column that could be one.
        taken = {*found.values(), *(name for names in _KNOWN.values() for name in names)}
        texts = [name for name, value in row.items() if name not in taken and _text(value) is not None]
        if len(texts) != 1:
            raise InputError(
                f"{path} must have a column of texts such as {', '.join(_KNOWN['text'][:3])}, or the name of "
                f"another be given; it has {shown}"
            )
        (found["text"],) = texts
    if ("old_log_likelihood" in found) != ("new_log_likelihood" in found):
        raise InputError(
            f"{path} must have both log-likelihoods, old_log_likelihood and new_log_likelihood, or none; it "
            f"has {shown}"
        )
    return found


def _row(
    where: str, place: int, row: Mapping[str, object], found: Mapping[str, str], *, drop_missing: bool
) -> Row:
    for what, name in found.items():
        if name not in row:
            raise InputError(f"{where} must have the column {name}, as the first row has, for its {what}")
    values = {what: row[name] for what, name in found.items()}
    conversation = _text(values["text"])
    if conversation is None and values["text"] is not None:
        raise InputError(
            f"{where} must have a text or chat messages as its {found['text']}; "
            f"got {json.dumps(values['text'], default=str)[:40]}"
        )
    before, text = ("", "") if conversation is None else conversation
    if not text.strip():
        if not drop_missing:
            raise InputError(
                f"{where} must have a text as its {found['text']}, or be dropped explicitly (drop_missing); "
                "it is empty"
            )
        text = ""
    prompt: str | None = before or None
    if "prompt" in values:
        asked = _text(values["prompt"])
        # A prompt ends with its question: all of it counts.
        prompt = None if asked is None else "\n\n".join(filter(None, asked))
    return Row(
        place,
        text,
        prompt,
        _label(where, values["checkpoint"]) if "checkpoint" in values else None,
        str(values["id"]) if "id" in values else None,
        *(
            _log_likelihood(where, found[what], values[what]) if what in values else None
            for what in ("old_log_likelihood", "new_log_likelihood")
        ),
    )


def _text(value: object) -> tuple[str, str] | None:
    """Return what was said up to the last question, and after it, or None for what is no text.

    A text by itself is all answer.
    """
    if isinstance(value, str):
        return "", _encodable(value)
    if not isinstance(value, list) or not all(isinstance(m, dict) and "content" in m for m in value):
        return None
    contents = [_content(message["content"]) for message in value]
    if any(content is None for content in contents):
        return None
    asked = [place for place, message in enumerate(value) if message.get("role") in ("user", "system")]
    cut = asked[-1] + 1 if asked else 0
    before, after = ("\n\n".join(filter(None, part)) for part in (contents[:cut], contents[cut:]))
    return _encodable(before), _encodable(after)


def _content(content: object) -> str | None:
    """Return the text of a message, whose content may be a list of parts, some of them pictures."""
    if content is None or isinstance(content, str):  # None where a tool is called
        return content or ""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return "\n".join(str(part["text"]) for part in content if part.get("text") is not None)
    return None


def _encodable(text: str) -> str:
    """Return a text with a question mark in the place of halves of characters, which JSON may hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _label(where: str, value: object) -> int | str:
    """Return a checkpoint as a whole number where it is one."""
    if isinstance(value, str) and value.strip():
        return int(value) if value.isdecimal() else value
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    raise InputError(f"{where} must name its checkpoint by a whole number or a text; got {value!r}")


def _log_likelihood(where: str, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise InputError(f"{where} must have a number as its {name}; got {value!r}")
    return float(value)
