"""Logs that cannot be used: one sentence each, which names the file."""

import json
import re

import evals_logs as logs
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from inference.measurement.evals.pairing import pair
from inference.measurement.evals.readers import read
from mixture_models import InputError

ANSWERS = [(i, float(i % 2), i % 4) for i in range(1, 6)]


def files_of(folder):
    found = [path for path in folder.rglob("*") if path.suffix in (".jsonl", ".eval", ".parquet", ".csv")]
    return [*found, *folder.rglob("per_instance_stats.json"), *folder.rglob("log.json")]


def sentence(error, *expected):
    """Check that an error is one sentence without a line break."""
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    for part in expected:
        assert str(part) in text


@pytest.mark.parametrize("write", logs.FORMATS.values(), ids=logs.FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.9, 0.55])
def test_a_log_that_is_cut_off(tmp_path, write, share):
    write(tmp_path, ANSWERS)
    path, *_ = files_of(tmp_path) or tmp_path.rglob("*.json")
    logs.cut(path, share)
    if write is logs.table_csv and share:
        # Cut off in its last row, which has too few fields then.
        path.write_text("item,score,choice\n1,1,0\n2,1")
    for source in (path, tmp_path):
        with pytest.raises(InputError) as error:
            read({"base": source}, progress=False)
        sentence(error, path)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "eval", "parquet", "csv"])
@pytest.mark.parametrize(
    "content",
    [b"", b" \n\n", bytes(range(256)) * 9, b"PK\3\4junk", b"PAR1junk", b'{"a', b"[1, 2", b"\xff\xfe\0{"],
)
def test_what_is_no_log(tmp_path, suffix, content):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read({"base": path}, progress=False)
    sentence(error, path)


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"results": {}}',
        b'{\n "results": {}\n}',
        b"[]",
        b"[1, 2]",
        b"null",
        b"3",
        b'"text"',
        b'[{"a": 1}]',
    ],
)
def test_json_that_is_no_log(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read({"base": path}, progress=False)
    sentence(error, path)


def test_folders_without_a_log(tmp_path):
    with pytest.raises(InputError, match="does not") as error:
        read(tmp_path / "nowhere", progress=False)
    sentence(error, tmp_path / "nowhere")
    with pytest.raises(InputError, match="does not"):
        read(f"{tmp_path}/*.eval", progress=False)
    with pytest.raises(InputError, match=r"files of the kinds .* has none") as error:
        read(tmp_path, progress=False)
    sentence(error, tmp_path)
    (tmp_path / "results.json").write_text('{\n"results": 1}')
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="must hold one") as error:
        read(tmp_path, progress=False)
    sentence(error, "results.json", "notes.csv")
    with pytest.raises(InputError, match="got none"):
        read([], progress=False)
    with pytest.raises(InputError, match="got none"):
        read({}, progress=False)
    with pytest.raises(InputError, match="says its arm; got 'seed-1'"):
        read({"seed-1": tmp_path}, progress=False)


def test_files_that_are_no_logs_are_left_alone_beside_logs(tmp_path):
    logs.lm_eval(tmp_path, ANSWERS)
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    found = read({"base": tmp_path}, progress=False)
    assert len(found) == len(ANSWERS)
    assert sorted(name.rsplit("/", 1)[1][:7] for name in found.attrs["skipped"]) == ["notes.c", "results"]


@pytest.mark.parametrize("score", [1.5, -0.1, 37.0, float("inf")])
@pytest.mark.parametrize(
    "write", [logs.lm_eval, logs.inspect_eval, logs.every_eval_ever, logs.lighteval, logs.table_csv]
)
def test_scores_out_of_the_unit_interval(tmp_path, write, score):
    write(tmp_path, [*((i, s, None) for i, s, _ in ANSWERS), (9, score, None)])
    with pytest.raises(InputError, match=r"scores must lie in \[0, 1\]") as error:
        read({"base": tmp_path}, progress=False)
    sentence(error, tmp_path, f"{score:g}")


def test_scores_that_are_no_numbers(tmp_path):
    table = pd.DataFrame({"item": [1, 2], "score": ["1", "great"]})
    table.to_csv(tmp_path / "x.csv")
    with pytest.raises(InputError, match="'great'") as error:
        read({"base": tmp_path / "x.csv"}, progress=False)
    sentence(error, tmp_path / "x.csv")


def test_words_and_bools_are_scores():
    for values in ([True, False], ["true", "False"], ["C", "I"], ["1", "0.0"], [1, 0]):
        found = read({"base": pd.DataFrame({"item": [1, 2], "score": values})}, progress=False)
        assert found["score"].to_list() == [1.0, 0.0]


def test_logs_of_other_tasks_and_items(tmp_path):
    logs.lm_eval(tmp_path / "base", ANSWERS, task="one")
    logs.lm_eval(tmp_path / "other", ANSWERS, task="two")
    logs.lm_eval(tmp_path / "items", [(i + 100, *rest) for i, *rest in ANSWERS], task="one")
    with pytest.raises(InputError, match=r"a task in common; the base has one .* and the runs two") as error:
        pair(read({"base": tmp_path / "base", "sft": tmp_path / "other"}, progress=False))
    sentence(error, tmp_path / "base", tmp_path / "other")
    with pytest.raises(InputError, match="items in common") as error:
        pair(read({"base": tmp_path / "base", "sft": tmp_path / "items"}, progress=False))
    sentence(error, tmp_path / "base", tmp_path / "items", "arm sft")
    both = {"base": tmp_path / "base", "sft": [tmp_path / "base", tmp_path / "other"]}
    left_out = pair(read(both, progress=False)).left_out
    assert left_out[["task", "arm", "reason", "num_items"]].to_numpy().tolist() == [
        ["two", "sft", "task not in the base", 5]
    ]


def test_no_base_and_no_run(tmp_path):
    logs.lm_eval(tmp_path / "a", ANSWERS)
    with pytest.raises(InputError, match="must have the base, an arm or a checkpoint base; they have a, b"):
        read({"a": tmp_path / "a", "b": tmp_path / "a"}, progress=False)
    with pytest.raises(InputError, match="a run beside the base"):
        pair(read({"base": tmp_path / "a"}, progress=False))


def test_columns(tmp_path):
    path = tmp_path / "x.csv"
    pd.DataFrame({"id": [1, 1], "right": [1, 0], "epoch": [0, 1], "k": [4, 4]}).to_csv(path, index=False)
    for columns, expected in (
        ({}, "must have a column item, .* it has id, right, epoch, k"),
        ({"item": "id"}, "must have a column score"),
        ({"item": "id", "score": "r"}, "lacks score=r and has id, right, epoch, k"),
        ({"item": "id", "grade": "right"}, "columns must be named for some of arm, .*; got grade"),
        ({"item": "id", "score": "right"}, r"item 1 .* different outcomes .*sample=COLUMN"),
    ):
        with pytest.raises(InputError, match=expected) as error:
            read({"base": path}, columns=columns, progress=False)
        sentence(error)
    columns = {"item": "id", "score": "right", "sample": "epoch", "num_choices": "k"}
    assert read({"base": path}, columns=columns, progress=False)["num_choices"].to_list() == [4, 4]
    with pytest.raises(InputError, match="column arm or checkpoint that tells the base"):
        read(path, columns=columns, progress=False)
    with pytest.raises(InputError, match="num_choices must be at least 2; got 1"):
        read({"base": path}, columns={k: v for k, v in columns.items() if k != "num_choices"}, num_choices=1)
    with pytest.raises(InputError, match="a value of item in every row; row 1 has none"):
        read({"base": pd.DataFrame({"item": ["a", None], "score": [1, 1]})}, progress=False)
    with pytest.raises(InputError, match="must have rows; it has none"):
        read({"base": pd.DataFrame({"item": [], "score": []})}, progress=False)
    with pytest.raises(InputError, match="DataFrame or an xarray object; got ndarray"):
        read({"base": np.zeros(3)}, progress=False)


def test_columns_of_parquet_and_xarray(tmp_path):
    scores = xr.DataArray(
        np.array([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, np.nan]]]),
        dims=("checkpoint", "question", "epoch"),
        coords={"checkpoint": ["base", "500"], "question": ["a", "b"], "epoch": [1, 2]},
    )
    columns = {"item": "question", "sample": "epoch"}
    cells = {}
    scores.to_dataset(name="score").to_dataframe().reset_index().to_parquet(tmp_path / "x.parquet")
    for name, source in (
        ("array", scores),
        ("dataset", scores.to_dataset(name="score")),
        ("file", tmp_path / "x.parquet"),
    ):
        paired = pair(read(source, columns=columns, progress=False))
        assert paired.runs[["arm", "checkpoint"]].to_numpy().tolist() == [["run", 500]]
        assert paired.left_out["reason"].to_list() == ["no score, of some samples"]
        cells[name] = paired.repeats
    assert cells["array"][["right_base", "num_base", "right_run", "num_run"]].to_numpy().tolist() == [
        [1, 2, 0, 2],
        [2, 2, 1, 1],
    ]
    for other in ("dataset", "file"):
        pd.testing.assert_frame_equal(cells["array"], cells[other])


def test_unicode_and_one_item(tmp_path):
    name = "数学🧮 — Äpfel"
    table = pd.DataFrame({"item": ["№ 1\u2028"], "score": [1.0], "task": [name]})
    path = tmp_path / f"{name}.csv"
    table.to_csv(path, index=False)
    paired = pair(read({"base": path, "Ärm": path}, progress=False))
    assert paired.runs[["task", "arm", "num_items"]].to_numpy().tolist() == [[name, "Ärm", 1]]


def test_a_zip_with_a_damaged_member(tmp_path):
    path = tmp_path / "x.eval"
    for write in (logs.zipped, logs.zipped_by_zstd):
        write(path, logs.inspect_members([logs.inspect_sample(i, 1.0) for i in range(50)]))
        data = bytearray(path.read_bytes())
        place = re.search(rb"summaries.json", bytes(data)).end() + 40
        data[place] ^= 0xFF
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"whole zip; it is cut off or damaged|is damaged") as error:
            read({"base": path}, progress=False)
        sentence(error, path)
    logs.zipped(path, {"other.json": {}})
    with pytest.raises(InputError, match=r"without header\.json"):
        read({"base": path}, progress=False)
    logs.zipped(path, logs.inspect_members([]))
    with pytest.raises(InputError, match=r"must have answers; .*x.eval has none \(status success\)"):
        read({"base": path}, progress=False)


def test_several_models_in_one_file(tmp_path):
    rows = [logs.every_eval_ever_row(1, 1.0), logs.every_eval_ever_row(1, 1.0, model="org/other")]
    logs.jsonl(tmp_path / "x.jsonl", rows)
    with pytest.raises(InputError, match="one model; it has org/base, org/other"):
        read({"base": tmp_path}, progress=False)


def test_details_that_are_texts(tmp_path):
    logs.details(tmp_path, [{"doc": "{'query': 1}", "metric": json.dumps({"acc": 1})}], "t")
    with pytest.raises(InputError, match="must have a struct column doc; it has"):
        read({"base": tmp_path}, progress=False)
