"""every_eval_ever: ``*_samples.jsonl``, one row an answer and result, of any number of models and tasks."""

from collections import defaultdict
from pathlib import Path

from inference.measurement.evals.readers import long_form
from inference.measurement.evals.readers.log import (
    METRICS,
    Log,
    Options,
    Rows,
    choose,
    digest,
    numeric,
    place_of,
)
from inference.measurement.evals.readers.long_form import name_of
from inference.storage.reading import JsonObject, json_lines
from mixture_models.validation import InputError


def is_log(row: JsonObject) -> bool:
    """Return whether this is a row of the format."""
    return isinstance(row.get("evaluation"), dict) and "sample_id" in row and "evaluation_name" in row


def read(path: Path, options: Options) -> Log:
    """Read one file of samples.

    A metric is the end of ``evaluation_result_id``; rows without one have a single metric, ``score``.

    Raises:
        InputError: a file that is cut off, or of several models.
    """
    tasks: defaultdict[str, defaultdict[str, list[JsonObject]]] = defaultdict(lambda: defaultdict(list))
    models = set()
    for row in json_lines(path):
        models.add(str(row.get("model_id")))
        task = str(row["evaluation_name"])
        tasks[task][_metric(row, task)].append(_reduced(row, path))
    if len(models) > 1:
        raise InputError(f"{path} must hold the answers of one model; it has {', '.join(sorted(models))}")
    frames, metrics = [], {}
    for task, found in tasks.items():
        metric = choose("metric", found, options.metric if found.keys() != {"score"} else (), METRICS, path)
        metrics[task] = metric
        rows = Rows()
        for values in found[metric]:
            rows.add(**values)
        frames.append(rows.frame(task, path, hint="epochs must be in metadata"))
    return Log(long_form.concatenated(frames), models.pop(), metrics)


def _metric(row: JsonObject, task: str) -> str:
    result = row.get("evaluation_result_id")
    if not result or result == task:
        return "score"
    parts = [part for part in str(result).replace("/", ":").split(":") if part]
    return next((part for part in parts if part in METRICS), str(result))


def _reduced(row: JsonObject, path: Path) -> JsonObject:
    metadata = row.get("metadata") or {}
    asked = row.get("input") or {}
    evaluation = row["evaluation"]
    score = numeric(evaluation.get("score"))
    if score is None:
        raise InputError(
            f"scores must be numbers; {path} has {evaluation.get('score')!r} for {row['sample_id']}"
        )
    choices, choice, answer = asked.get("choices") or [], None, None
    multiple = len(choices) >= 2
    reference = asked.get("reference") or []
    if multiple and len(reference) == 1:
        answer = place_of(reference[0], choices)
        said = [a.get("extracted_value") for a in row.get("answer_attribution") or [] if isinstance(a, dict)]
        choice = place_of(said[-1], choices) if said else None
        if score in (0.0, 1.0) and (choice == answer) != (score == 1.0):
            choice = None
    # A harness' own hash outlives a change of the prompt, in which its rows differ from model to model.
    own = metadata.get("doc_hash")
    text = own or row.get("sample_hash") or (digest(asked.get("raw") or "", reference) if asked else "")
    epoch = str(metadata.get("epoch") or "1")
    return {
        "item": str(own) if own else name_of(row["sample_id"]),
        "score": score,
        "sample": int(epoch) - 1 if epoch.isascii() and epoch.isdigit() else 0,
        "choice": choice,
        "answer": answer,
        "num_choices": len(choices) if multiple else None,
        "text": digest(text) if text else 0,
    }
