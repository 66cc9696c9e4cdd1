"""lighteval: ``details_<task>_<time>.parquet``, with columns ``doc``, ``model_response`` and ``metric``.

Older files have ``example``, ``full_prompt``, ``choices``, ``gold_index``, ``pred_logits`` and ``metrics``.
"""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from inference.measurement.evals.readers.log import METRICS, Log, Options, Rows, choose, digest, numeric
from inference.storage.reading import JsonObject
from mixture_models.validation import InputError

_NAME = re.compile(r"details_(?P<task>.+?)(?:_\d{4}-\d{2}-\d{2}T[\d.:-]+)?$")
# What is read of a row; the prompts' tokens, which make up most of a file, are not.
_NEW = ("doc.query", "doc.choices", "doc.gold_index", "doc.task_name", "metric", "model_response.logprobs")
_OLD = ("example", "full_prompt", "choices", "gold_index", "pred_logits", "metrics")


def is_log(schema: pa.Schema) -> bool:
    """Return whether a parquet file has the columns of the format."""
    return {"doc", "metric"} <= set(schema.names) or {"full_prompt", "metrics"} <= set(schema.names)


def read(path: Path, options: Options) -> Log:
    """Read one file of details.

    Raises:
        InputError: a file whose columns are texts, or without a metric that can be read.
    """
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        new = "doc" in schema.names
        for name in ("doc", "metric") if new else ("metrics",):
            if not pa.types.is_struct(schema.field(name).type):
                raise InputError(f"{path} must have a struct column {name}; it has {schema.field(name).type}")
        rows = [
            _reduced(row, new)
            for batch in file.iter_batches(256, columns=[name for name in (_NEW if new else _OLD)])
            for row in batch.to_pylist()
        ]
    if not rows:
        raise InputError(f"a log must have answers; {path} has none")
    match = _NAME.match(path.stem)
    task = rows[0]["task"] or (match["task"] if match else path.stem)
    names = {n for row in rows for n, score in row["scores"].items() if score == score}
    metric = choose("metric", names, options.metric, METRICS, path)
    explained = _explained(rows, metric)
    out, seen = Rows(), dict[int, int]()
    for row in rows:
        # Equal documents are told apart by their order, which is the data's.
        rank = seen[row["text"]] = seen.get(row["text"], 0) + 1
        name = f"{row['text']:016x}"
        out.add(
            f"{name}#{rank}" if rank > 1 else name,
            row["scores"].get(metric, float("nan")),
            choice=str(row["chosen"]) if explained else None,
            answer=str(row["gold"]) if explained else None,
            num_choices=row["num_choices"],
            text=row["text"],
        )
    identity = f"{digest([[row['text'], row['logprobs'], row['scores']] for row in rows]):016x}"
    return Log(out.frame(task, path, hint="an item must be there once"), None, {task: metric}, identity)


def _reduced(row: JsonObject, new: bool) -> JsonObject:
    doc = row["doc"] if new else row
    response = (row.get("model_response") or {}) if new else row
    asked = doc.get("query") if new else doc.get("example") or doc.get("full_prompt")
    choices, gold = doc.get("choices") or [], doc.get("gold_index")
    golds = gold if isinstance(gold, list) else [gold]
    logprobs = _flat(response.get("logprobs" if new else "pred_logits"))
    # A generative task lists its references as choices, and has no likelihood of each.
    multiple = len(choices) >= 2 and len(logprobs) == len(choices)
    scores = {}
    for name, value in (row["metric" if new else "metrics"] or {}).items():
        score = numeric(value)
        if score is not None:
            scores[name] = score
    return {
        "text": digest(str(asked), [str(choice) for choice in choices]),
        "task": doc.get("task_name") if new else None,
        "scores": scores,
        "num_choices": len(choices) if multiple else None,
        "chosen": int(np.argmax(logprobs)) if multiple else None,
        "gold": golds[0] if len(golds) == 1 else None,
        "logprobs": logprobs,
    }


def _flat(values: object) -> list[float]:
    """Return log-likelihoods, of which some versions write a list of lists."""
    found = []
    for value in values if isinstance(values, list) else []:
        part = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(part, int | float):
            return []
        found.append(float(part))
    return found


def _explained(rows: list[JsonObject], metric: str) -> bool:
    """Return whether the likeliest choices explain every score: then they are the answers."""
    return all(
        row["num_choices"] is not None
        and row["gold"] is not None
        and float(row["chosen"] == row["gold"]) == row["scores"].get(metric)
        for row in rows
    )
