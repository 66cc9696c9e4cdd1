"""Evaluation logs in every format, as the tools write them, for tests of their readers.

An answer is (item, score, choice): choices are numbers from 0, of `CHOICES`; None where the answer is free.
The right choice of item ``i`` is ``i % 4``.
"""

import hashlib
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from inference.measurement.evals.pairing import CELLS

CHOICES = ["so", "so-so", "ça", "否"]
TIME = "2026-01-02T03-04-05.678901"


def two_runs(num=60, seed=0):
    """Return the answers of a base and of a run to items of four choices, in different orders."""
    rng = np.random.default_rng(seed)
    return [
        [
            (int(i), float(chosen == right_of(i)), int(chosen))
            for i, chosen in zip(rng.permutation(num), rng.integers(4, size=num), strict=True)
        ]
        for _ in range(2)
    ]


def cells_of(base, run):
    """Count cells in plain Python."""
    before, after = ({i: (score, choice) for i, score, choice in side} for side in (base, run))
    counts = dict.fromkeys(CELLS, 0)
    for item in before.keys() & after.keys():
        (was, old), (now, new) = before[item], after[item]
        if was == now == 0.0:
            counts["wrong_same" if old == new else "wrong_other"] += 1
        else:
            counts[f"{'right' if was else 'wrong'}_{'right' if now else 'wrong'}"] += 1
    return counts


def right_of(item):
    return item % len(CHOICES)


def text_of(item):
    return f"Wie heißt № {item}?"


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def lm_eval_row(item, score, choice=None, *, doc_id=None, metric=None, filter="none", responses=None, **more):
    """Return a row as version 0.4.12 writes it: likelihoods are text."""
    doc = {"question": text_of(item), "choices": CHOICES, "answer": right_of(item)}
    text = json.dumps(doc, indent=2, ensure_ascii=False)
    if choice is None:
        arguments = {"gen_args_0": {"arg_0": text_of(item), "arg_1": {"until": ["\n"]}}}
        responses, metric = responses or [[f"answer {score}"]], metric or "exact_match"
    else:
        arguments = {
            f"gen_args_{k}": {"arg_0": text_of(item), "arg_1": f" {letter}"}
            for k, letter in enumerate("ABCD")
        }
        responses = [[[str(-1.25 if k == choice else -3.5 - k), "False"]] for k in range(len(CHOICES))]
        metric = metric or "acc"
    return {
        "doc_id": item if doc_id is None else doc_id,
        "doc": doc,
        "target": str(right_of(item)),
        "arguments": arguments,
        "resps": responses,
        "filtered_resps": [r[0] for r in responses],
        "filter": filter,
        "metrics": [metric],
        "doc_hash": hashlib.sha256(text.encode()).hexdigest(),
        "prompt_hash": "p",
        "target_hash": "t",
        metric: score,
    } | more


def lm_eval(folder, answers, task="mmlu", time=TIME, **more):
    rows = [lm_eval_row(*answer, **more) for answer in answers]
    jsonl(folder / f"samples_{task}_{time}.jsonl", rows)
    (folder / f"results_{time}.json").write_text(json.dumps({"results": {task: {}}, "configs": {}}, indent=2))


def inspect_sample(item, score, choice=None, *, epoch=1, scorer=None):
    multiple = choice is not None
    grade = {1.0: "C", 0.0: "I", 0.5: "P"}.get(score, score)
    answer = "ABCD"[choice] if multiple else "free"
    return {
        "id": item,
        "epoch": epoch,
        "input": text_of(item),
        "choices": CHOICES if multiple else None,
        "target": "ABCD"[right_of(item)] if multiple else "x",
        "scores": {scorer or ("choice" if multiple else "match"): {"value": grade, "answer": answer}},
    }


def inspect_header(task="mmlu", model="org/base", task_id=None):
    evaluation = {"task": task, "model": model, "task_id": task_id or f"{task} of {model} {hash(model)}"}
    return {"version": 2, "status": "success", "eval": evaluation, "plan": {"steps": []}}


def inspect_members(samples, header=None):
    header = header or inspect_header()
    members = {"_journal/start.json": header, "header.json": header, "summaries.json": samples}
    return members | {f"samples/{s['id']}_epoch_{s['epoch']}.json": s | {"messages": []} for s in samples}


def inspect_json(folder, answers, **more):
    folder.mkdir(parents=True, exist_ok=True)
    samples = [inspect_sample(*answer) for answer in answers]
    (folder / "log.json").write_text(json.dumps(inspect_header(**more) | {"samples": samples}, indent=2))


def inspect_eval(folder, answers, **more):
    members = inspect_members([inspect_sample(*answer) for answer in answers], inspect_header(**more))
    zipped(folder / "log.eval", members)


def inspect_zstd(folder, answers, **more):
    members = inspect_members([inspect_sample(*answer) for answer in answers], inspect_header(**more))
    zipped_by_zstd(folder / "log.eval", members)


def zipped(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, json.dumps(content))
    return path


def zipped_by_zstd(path, members):
    """Write a zip by the specification (APPNOTE 4.3), whose members are compressed by method 93."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body, directory = b"", b""
    for name, content in members.items():
        data, file = json.dumps(content).encode(), name.encode()
        # Two frames, as a stream that is flushed between two writes has.
        half = len(data) // 2
        packed = b"".join(zstandard.ZstdCompressor().compress(part) for part in (data[:half], data[half:]))
        common = struct.pack(
            "<HHHHHIIIHH", 63, 0, 93, 0, 33, zlib.crc32(data), len(packed), len(data), len(file), 4
        )
        directory += (
            b"PK\1\2" + struct.pack("<H", 63) + common[:-2] + struct.pack("<HHHHII", 0, 0, 0, 0, 0, len(body))
        )
        directory += file
        body += b"PK\3\4" + common + file + b"\xfe\xca\0\0" + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    path.write_bytes(body + directory + b"PK\5\6" + end)
    return path


def helm(folder, answers, task="mmlu", model="org/base", split="test"):
    stats, states = [], []
    for item, score, choice, *trial in answers:
        key = {"instance_id": f"id{item}", "train_trial_index": trial[0] if trial else 0}
        exact = {"name": {"name": "exact_match", "split": split}, "count": 1, "sum": score, "mean": score}
        robust = {
            "name": {"name": "exact_match", "split": split, "perturbation": {"name": "x"}},
            "count": 1,
            "sum": 1 - score,
        }
        tokens = {"name": {"name": "num_output_tokens", "split": split}, "count": 1, "sum": 7}
        stats.append(key | {"stats": [tokens, exact, robust]})
        references = [
            {"output": {"text": text}, "tags": ["correct"] * (k == right_of(item))}
            for k, text in enumerate(CHOICES)
        ]
        states.append(
            {
                "instance": {"id": f"id{item}", "input": {"text": text_of(item)}, "references": references},
                "train_trial_index": key["train_trial_index"],
                "output_mapping": dict(zip("ABCD", CHOICES, strict=True)),
                "result": {"completions": [{"text": "" if choice is None else f" {'ABCD'[choice]}"}]},
            }
        )
    method = "generation" if answers[0][2] is None else "multiple_choice_joint"
    run = folder / f"{task}-model={model.replace('/', '_')}"
    run.mkdir(parents=True, exist_ok=True)
    spec = {"name": f"{task}:subject=x,model={model}", "adapter_spec": {"model": model, "method": method}}
    for name, content in (
        ("per_instance_stats", stats),
        ("scenario_state", {"request_states": states}),
        ("run_spec", spec),
    ):
        (run / f"{name}.json").write_text(json.dumps(content, indent=2))


def every_eval_ever_row(item, score, choice=None, *, task="mmlu", model="org/base", metric=None, **metadata):
    row = {
        "schema_version": "0.3.0",
        "evaluation_id": f"{task}/{model}/1",
        "model_id": model,
        "evaluation_name": task,
        "sample_id": f"s{item}",
        "sample_hash": hashlib.sha256(text_of(item).encode()).hexdigest(),
        "interaction_type": "single_turn",
        "input": {
            "raw": text_of(item),
            "reference": [CHOICES[right_of(item)]],
            "choices": None if choice is None else CHOICES,
        },
        "output": {"raw": ["…"]},
        "answer_attribution": [
            {"turn_idx": 0, "extracted_value": "…" if choice is None else CHOICES[choice]}
        ],
        "evaluation": {"score": score, "is_correct": score == 1.0},
        "metadata": {name: str(value) for name, value in metadata.items()},
    }
    return row | ({"evaluation_result_id": f"{task}:{metric}:test"} if metric else {})


def every_eval_ever(folder, answers, **more):
    jsonl(folder / "1-2-3_samples.jsonl", [every_eval_ever_row(*answer, **more) for answer in answers])


def lighteval(folder, answers, task="lighteval|mmlu|0"):
    rows = [
        {
            "doc": {
                "query": text_of(item),
                "choices": CHOICES if choice is not None else [CHOICES[right_of(item)]],
                "gold_index": [right_of(item) if choice is not None else 0],
                "task_name": task,
                "id": str(item),
            },
            "model_response": {
                "text": ["…"],
                "logprobs": [] if choice is None else [-1.0 if k == choice else -5.0 - k for k in range(4)],
                "input_tokens": [1, 2, 3],
            },
            "metric": {"acc": score},
        }
        for item, score, choice in answers
    ]
    details(folder, rows, task)


def lighteval_old(folder, answers, task="leaderboard|mmlu|5"):
    rows = [
        {
            "example": text_of(item),
            "full_prompt": f"Beispiele … {text_of(item)}",
            "choices": CHOICES if choice is not None else [CHOICES[right_of(item)]],
            "gold_index": right_of(item) if choice is not None else 0,
            "pred_logits": [] if choice is None else [[-1.0 if k == choice else -5.0 - k] for k in range(4)],
            "predictions": ["…"],
            "metrics": {"acc": score, "f1_score": 2.0},
        }
        for item, score, choice in answers
    ]
    details(folder, rows, task)


def details(folder, rows, task):
    path = folder / "details" / TIME / f"details_{task}_{TIME}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def frame(answers, **columns):
    table = pd.DataFrame(answers, columns=["item", "score", "choice"]).assign(
        num_choices=4, task="mmlu", **columns
    )
    return table if table["choice"].notna().all() else table.drop(columns=["choice", "num_choices"])


def table_csv(folder, answers):
    folder.mkdir(parents=True, exist_ok=True)
    frame(answers).to_csv(folder / "answers.csv", index=False)


def table_jsonl(folder, answers):
    folder.mkdir(parents=True, exist_ok=True)
    frame(answers).to_json(folder / "answers.jsonl", orient="records", lines=True)


def table_json(folder, answers):
    folder.mkdir(parents=True, exist_ok=True)
    frame(answers).to_json(folder / "answers.json", orient="records", indent=1)


def table_parquet(folder, answers):
    folder.mkdir(parents=True, exist_ok=True)
    frame(answers).to_parquet(folder / "answers.parquet")


FORMATS = {
    write.__name__: write
    for write in (
        lm_eval,
        inspect_json,
        inspect_eval,
        inspect_zstd,
        helm,
        every_eval_ever,
        lighteval,
        lighteval_old,
        table_csv,
        table_jsonl,
        table_json,
        table_parquet,
    )
}


def cut(path: Path, share=0.6):
    """Cut a file off."""
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path
