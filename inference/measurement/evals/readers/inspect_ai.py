"""Inspect: ``.eval``, a zip of JSON compressed by deflate or zstd, and plain ``.json`` with ``version`` 2."""

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from inference.measurement.evals.readers.log import (
    METRICS,
    NONE_OF_THEM,
    Log,
    Options,
    Rows,
    choose,
    digest,
    json_file,
    place_of_letter,
)
from inference.measurement.evals.readers.long_form import name_of, score_of
from inference.storage.reading import JsonObject
from mixture_models.validation import InputError

_ZSTD = (93, 20)
_GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "YES": 1.0, "NO": 0.0}


def read(path: Path, options: Options) -> Log:
    """Read a ``.eval`` log: its summaries, or its samples where a run was cut off before they were written.

    Raises:
        InputError: a zip that is cut off or damaged, or is no log.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            start = next((n for n in ("header.json", "_journal/start.json") if n in names), None)
            if start is None:
                raise InputError(f"{path} must be an Inspect log; it is a zip without header.json")
            header = _member(archive, start, path)
            return _log(path, options, header, list(_summaries(archive, names, path, header)))
    except (zipfile.BadZipFile, EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"{path} must be a whole zip; it is cut off or damaged") from None


def read_json(path: Path, options: Options) -> Log:
    """Read a log that is one JSON file.

    Raises:
        InputError: a file that is cut off, or without answers.
    """
    content = json_file(path)
    return _log(path, options, content, content.get("samples") or [])


def _log(path: Path, options: Options, header: JsonObject, samples: Iterable[JsonObject]) -> Log:
    evaluation = header.get("eval") or {}
    task = str(evaluation.get("task") or path.stem)
    # Kept: what is read of each sample, not its messages.
    kept = [_reduced(sample) for sample in samples]
    if not kept:
        raise InputError(f"a log must have answers; {path} has none (status {header.get('status')})")
    names = {name for sample in kept for name in sample["scores"]}
    rows, metric = Rows(), ""
    if names:
        metric = choose("metric", names, options.metric, METRICS, path)
    elif not all(sample["error"] for sample in kept):
        raise InputError(f"a log must have scores; {path} has none (status {header.get('status')})")
    for sample in kept:
        value, given = sample["scores"].get(metric, (float("nan"), None))
        choices, multiple = sample["choices"], len(sample["choices"]) >= 2
        answers = sample["target"] if isinstance(sample["target"], list) else [sample["target"]]
        answer = place_of_letter(answers[0], choices) if multiple and len(answers) == 1 else None
        choice = place_of_letter(given or NONE_OF_THEM, choices) if multiple and given is not None else None
        if multiple and given is None and value == 0.0:
            choice = NONE_OF_THEM
        if value in (0.0, 1.0) and answer is not None and (choice == answer) != (value == 1.0):
            choice = None  # what the scorer calls its answer is not what it graded
        rows.add(
            sample["id"],
            value,
            sample=sample["epoch"],
            choice=choice,
            answer=answer,
            num_choices=len(choices) if multiple else None,
            text=sample["text"],
            problem="error" if sample["error"] else None,
        )
    frame = rows.frame(task, path, hint="an epoch of a sample must be there once")
    model, identity = evaluation.get("model"), evaluation.get("task_id")
    return Log(frame, model, {task: metric} if metric else {}, identity)


def _reduced(sample: JsonObject) -> JsonObject:
    choices = [str(choice) for choice in sample.get("choices") or []]
    scores: dict[str, tuple[float, str | None]] = {}
    for scorer, score in (sample.get("scores") or {}).items():
        if not isinstance(score, dict):
            continue
        value, answer = score.get("value"), score.get("answer")
        parts = {f"{scorer}/{k}": v for k, v in value.items()} if isinstance(value, dict) else {scorer: value}
        for name, part in parts.items():
            scores[name] = (_grade(part), answer if answer is None else str(answer))
    asked = sample.get("input")
    # Summaries shorten a text that is long.
    text = asked[:1000] if isinstance(asked, str) else json.dumps(_contents(asked))[:1000]
    return {
        "id": name_of(sample.get("id")),
        "epoch": int(sample.get("epoch") or 1) - 1,
        "scores": scores,
        "choices": choices,
        "target": sample.get("target"),
        "text": digest(text, choices) if text else 0,
        "error": bool(sample.get("error")),
    }


def _contents(messages: object) -> list[object]:
    """Return what messages say, without the names that a run gives them."""
    if not isinstance(messages, list):
        return [messages]
    return [m.get("content") if isinstance(m, dict) else m for m in messages]


def _grade(value: object) -> float:
    """Return a score: Inspect's letters, words, numbers; NaN where it is none of these."""
    if isinstance(value, str) and value.strip().upper() in _GRADES:
        return _GRADES[value.strip().upper()]
    try:
        return score_of(value)
    except (TypeError, ValueError):
        return float("nan")


def _summaries(
    archive: zipfile.ZipFile, names: set[str], path: Path, header: JsonObject
) -> Iterator[JsonObject]:
    def found(pattern: str) -> list[str]:
        return sorted(name for name in names if re.fullmatch(pattern, name))

    summaries = ["summaries.json"] if "summaries.json" in names else found(r"_journal/summaries/\d+\.json")
    rows = [row for name in summaries for row in _member(archive, name, path)]
    # Older summaries lack the choices of an item: those are in the samples alone.
    steps = (header.get("plan") or {}).get("steps") or []
    multiple = any("multiple_choice" in str(step.get("solver")) for step in steps if isinstance(step, dict))
    if rows and not (multiple and any("choices" not in row for row in rows)):
        yield from rows
        return
    samples = found(r"samples/.+\.json")
    if not samples:
        yield from rows
    for name in samples:
        # One at a time: a sample holds all its messages.
        yield _member(archive, name, path)


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> Any:
    info = archive.getinfo(name)
    data = _zstd(archive, info) if info.compress_type in _ZSTD else archive.read(info)
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise InputError(f"{path} must hold JSON; {name} in it is damaged") from None


def _zstd(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return a member that is compressed by zstd, which zipfile reads from Python 3.14 on only."""
    file = archive.fp
    assert file is not None
    file.seek(info.header_offset)
    # The local header: 30 bytes, then a name and an extra field whose lengths it ends with.
    fixed = file.read(30)
    if len(fixed) < 30:
        raise zipfile.BadZipFile
    file.seek(sum(struct.unpack("<HH", fixed[26:])), io.SEEK_CUR)
    packed = file.read(info.compress_size)
    try:
        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
            data = reader.read()
    except zstandard.ZstdError:
        raise zipfile.BadZipFile from None
    if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
        raise zipfile.BadZipFile
    return data
