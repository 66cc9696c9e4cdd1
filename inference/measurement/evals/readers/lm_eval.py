"""lm-evaluation-harness: ``samples_<task>_<time>.jsonl``, one row a document and filter.

A file is appended to, so that it can hold an evaluation twice. Items are paired by ``doc_hash``, as
``doc_id`` changes with subsetting and ``prompt_hash`` with the chat template and the examples in the prompt.
Of a multiple-choice item, the chosen answer is the one with the largest log-likelihood.
"""

import hashlib
import json
import math
import re
from array import array
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from inference.measurement.evals.readers.log import (
    FILTERS,
    METRICS,
    Log,
    Options,
    Rows,
    choose,
    json_file,
)
from inference.storage.reading import JsonObject, json_lines
from mixture_models.validation import InputError

_NAME = re.compile(r"samples_(?P<task>.+?)(?:_(?P<time>\d{4}-\d{2}-\d{2}T[\d.:-]+))?$")
_NO_METRICS = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"}


def is_log(row: JsonObject) -> bool:
    """Return whether this is a row of the format."""
    return "doc_id" in row and ("resps" in row or "filtered_resps" in row)


class _Choice(NamedTuple):
    """The chosen answer of a row, by likelihood and by likelihood per character, and the right one."""

    num: int
    largest: int
    largest_per_character: int
    target_place: int
    target_text: int


_NO_CHOICE = _Choice(0, -1, -1, -1, -1)


def read(path: Path, options: Options) -> Log:
    """Read one file of samples.

    Raises:
        InputError: a file that is cut off, or without a metric that can be read.
    """
    columns = _Columns()
    for row in json_lines(path):
        columns.add(row)
    match = _NAME.match(path.stem)
    task, time = (match["task"], match["time"]) if match else (path.stem, None)
    lower = _lower_is_better(path, task, time)
    candidates = [name for name, scores in columns.metrics.items() if not np.isnan(scores).all()]
    better = candidates if options.metric else [name for name in candidates if name not in lower]
    metric = choose("metric", better, options.metric, METRICS, path)
    if metric in lower:
        raise InputError(f"metric must be one of which more is better; {path} says that less is, of {metric}")
    kept = choose("filter", columns.filters, options.filter, FILTERS, path)
    return Log(
        columns.frame(task, path, metric, kept),
        metrics={task: metric if kept == "none" else f"{metric}, {kept}"},
        identity=columns.identity.hexdigest(),
    )


class _Columns:
    """The rows of a file, without their texts."""

    def __init__(self) -> None:
        self.metrics: dict[str, array[float]] = {}
        self.filters: list[str] = []
        self.identity = hashlib.blake2b(digest_size=16)
        self._documents: list[tuple[str, object]] = []
        self._choices: list[_Choice] = []
        self._num_responses = array("l")
        self._repeats: dict[int, dict[str, list[float]]] = {}

    def add(self, row: JsonObject) -> None:
        place = len(self.filters)
        hash_, responses = _hash(row), row.get("resps") or row.get("filtered_resps") or []
        self.filters.append(str(row.get("filter") or "none"))
        self._documents.append((hash_, row["doc_id"]))
        self._choices.append(_choice(row))
        self._num_responses.append(
            len(responses[0]) if len(responses) == 1 and isinstance(responses[0], list) else 1
        )
        names = row.get("metrics")
        if not isinstance(names, list):
            names = [name for name in row if name not in _NO_METRICS and not name.endswith("_hash")]
        shown = {}
        for name in names:
            value = row.get(name)
            if isinstance(value, list) and value and all(isinstance(v, bool | int | float) for v in value):
                self._repeats.setdefault(place, {})[name] = [float(v) for v in value]
                value = sum(value) / len(value)
            if isinstance(value, bool | int | float):
                shown[name] = float(value)
        for name in shown.keys() - self.metrics.keys():
            self.metrics[name] = array("d", [math.nan]) * place
        for name, scores in self.metrics.items():
            scores.append(shown.get(name, math.nan))
        seen = json.dumps([hash_, self.filters[-1], responses, shown], sort_keys=True)
        self.identity.update(seen.encode("utf-8", "surrogatepass"))

    def frame(self, task: str, path: Path, metric: str, kept: str) -> pd.DataFrame:
        places = [place for place, name in enumerate(self.filters) if name == kept]
        scores = np.array(self.metrics[metric])[places]
        items = self._items(places)
        chosen = self._chosen(places, scores, metric)
        repeats = self._samples(places, scores, metric)
        binary = bool(np.isin(scores[~np.isnan(scores)], (0.0, 1.0)).all())
        rows = Rows()
        for i, place in enumerate(places):
            num = self._choices[place].num
            choice, answer = chosen[i] if chosen is not None else (None, None)
            for sample, score in enumerate(repeats[i]):
                rows.add(
                    items[i],
                    score,
                    sample=sample,
                    choice=choice,
                    answer=answer,
                    num_choices=num if num >= 2 and binary else None,
                )
        hint = "the file was appended to; keep one evaluation in it"
        return rows.frame(task, path, hint=hint)

    def _items(self, places: Sequence[int]) -> list[str]:
        """Return the items' names: equal documents with different numbers are told apart."""
        numbers: defaultdict[str, set[object]] = defaultdict(set)
        for place in places:
            hash_, doc_id = self._documents[place]
            numbers[hash_].add(doc_id)
        ranks = {
            hash_: {doc_id: rank for rank, doc_id in enumerate(sorted(ids, key=str))}
            for hash_, ids in numbers.items()
            if len(ids) > 1
        }
        names = []
        for place in places:
            hash_, doc_id = self._documents[place]
            rank = ranks[hash_][doc_id] if hash_ in ranks else 0
            names.append(f"{hash_}#{rank + 1}" if rank else hash_)
        return names

    def _chosen(self, places: Sequence[int], scores: np.ndarray, metric: str) -> list[tuple[str, str]] | None:
        """Return chosen and right answers, None unless they explain every score of the file."""
        choices = [self._choices[place] for place in places]
        scored = ~np.isnan(scores)
        if not scored.any() or any(choice.num < 2 for choice in choices):
            return None
        table = np.array(choices)
        order = (2, 1) if metric == "acc_norm" else (1, 2)
        for chosen in order:
            for answer in (3, 4):
                right = table[:, chosen] == table[:, answer]
                if (table[:, answer] >= 0).all() and np.array_equal(right[scored], scores[scored]):
                    return [(str(c), str(a)) for c, a in table[:, [chosen, answer]]]
        return None

    def _samples(self, places: Sequence[int], scores: np.ndarray, metric: str) -> list[list[float]]:
        """Return the scores of an item's repeated answers, one where they cannot be told apart.

        With n answers an item and a score that is a multiple of 1/n everywhere and in between somewhere, the
        metric is the mean of n scores.
        """
        if any(metric in self._repeats.get(place, {}) for place in places):
            return [
                self._repeats.get(place, {}).get(metric, [score])
                for place, score in zip(places, scores, strict=True)
            ]
        numbers = {self._num_responses[place] for place in places}
        num, known = numbers.pop(), scores[np.isfinite(scores)]
        between = ((known > 0.0) & (known < 1.0)).any() and ((known >= 0.0) & (known <= 1.0)).all()
        if numbers or num < 2 or not between or (np.abs(known * num - np.round(known * num)) > 1e-6).any():
            return [[score] for score in scores]
        return [
            [1.0] * round(num * score) + [0.0] * (num - round(num * score))
            if math.isfinite(score)
            else [score]
            for score in scores.tolist()
        ]


def _hash(row: JsonObject) -> str:
    """Return the document's hash as the harness writes it; older rows have the document alone."""
    if row.get("doc_hash"):
        return str(row["doc_hash"])
    if row.get("doc") is None:
        return f"document {row['doc_id']}"
    text = json.dumps(row["doc"], indent=2, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _choice(row: JsonObject) -> _Choice:
    responses = row.get("resps") or row.get("filtered_resps") or []
    likelihoods = []
    for response in responses:
        # A request's answers are listed, and each is a log-likelihood and whether it is the greedy one.
        pair = response[0] if isinstance(response, list) and len(response) == 1 else response
        if not isinstance(pair, list) or len(pair) != 2 or str(pair[1]) not in ("True", "False"):
            return _NO_CHOICE
        try:
            likelihoods.append(float(pair[0]))
        except (TypeError, ValueError):
            return _NO_CHOICE
    if "acc_mutual_info" in row:
        likelihoods = likelihoods[: len(likelihoods) // 2]
    if len(likelihoods) < 2 or not np.isfinite(likelihoods).any():
        return _NO_CHOICE
    num, values = len(likelihoods), np.array(likelihoods)
    texts = _continuations(row.get("arguments"))[:num]
    target = str(row.get("target")).strip()
    place = int(target) if target.isascii() and target.isdigit() and int(target) < num else -1
    lengths = np.array([max(1, len(text)) for text in texts]) if len(texts) == num else np.ones(num)
    return _Choice(
        num,
        int(np.argmax(values)),
        int(np.argmax(values / lengths)),
        place,
        texts.index(target) if target in texts else -1,
    )


def _continuations(arguments: object) -> list[str]:
    """Return the texts whose likelihood was asked for; newer files have mappings, older ones lists."""
    if isinstance(arguments, dict):
        found = [value.get("arg_1") for value in arguments.values() if isinstance(value, dict)]
    elif isinstance(arguments, list):
        found = [value[1] for value in arguments if isinstance(value, list) and len(value) > 1]
    else:
        found = []
    return [str(text).strip() for text in found]


def _lower_is_better(path: Path, task: str, time: str | None) -> set[str]:
    """Return the metrics of which the results beside the samples say that less is better."""
    results = path.with_name("results.json" if time is None else f"results_{time}.json")
    if not results.is_file():
        return set()
    found = json_file(results)
    directions = found.get("higher_is_better") if isinstance(found, dict) else None
    of_task = directions.get(task) if isinstance(directions, dict) else None
    return (
        {name for name, better in of_task.items() if better is False} if isinstance(of_task, dict) else set()
    )
