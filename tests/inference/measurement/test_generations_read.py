"""Completions on disk: what is read of them, in which order, and one sentence for what cannot be read."""

import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import texts
import zstandard

import inference
from inference import Columns, read_generations
from inference.measurement.generations import generations as module
from inference.measurement.generations.files import is_of_texts
from mixture_models import InputError


def read_all(*arguments, **options):
    """Return the texts of a source by checkpoint."""
    found = read_generations(*arguments, **options)
    return {name: found.load(index).texts for index, name in enumerate(found.names)}


@pytest.mark.parametrize("step", [int, str])
@pytest.mark.parametrize("conversational", [False, True])
def test_the_completions_of_trl_are_a_checkpoint_a_step(tmp_path, step, conversational):
    def said(role, content):
        return [{"role": role, "content": content}] if conversational else content

    for number in (100, 2, 10):
        table = {
            "step": [step(number)] * 2,
            "prompt": [said("user", f"question {i}") for i in range(2)],
            "completion": [said("assistant", f"answer {i} of {number}") for i in range(2)],
            "reward": [0.0, 1.0],
            "advantage": [-1.0, 1.0],
        }
        folder = tmp_path / "completions"
        folder.mkdir(exist_ok=True)
        pd.DataFrame(table).to_parquet(folder / f"completions_{number:05d}.parquet")
    found = read_generations(tmp_path / "completions")
    assert found.names == [2, 10, 100]
    assert found.load(1) == (["answer 0 of 10", "answer 1 of 10"], ["question 0", "question 1"], None, None)


def test_files_without_checkpoints_are_called_by_what_differs(tmp_path):
    for name in ("ck-10", "ck-2"):
        texts.write_lines(tmp_path / "runs" / name / "out.jsonl", [name])
        texts.write_lines(tmp_path / "flat" / f"{name}.jsonl", [name])
    for name in ("sft-b", "rl", "sft-a2"):
        texts.write_lines(tmp_path / "named" / f"{name}.jsonl", [name])
    for source in (tmp_path / "runs", f"{tmp_path}/runs/ck-*/out.jsonl", tmp_path / "flat"):
        assert list(read_all(source).items()) == [(2, ["ck-2"]), (10, ["ck-10"])]
    assert list(read_all(tmp_path / "named")) == ["rl", "sft-a2", "sft-b"]
    assert list(read_all(tmp_path / "named" / "rl.jsonl")) == ["rl"]
    # What a list names is read in its order.
    listed = [tmp_path / "named" / f"{name}.jsonl" for name in ("sft-b", "rl")]
    assert list(read_all(listed)) == ["sft-b", "rl"]


def test_packed_lines_and_parquet_are_read_as_plain_lines(tmp_path):
    rows = [{"text": f"täxt {i}", "checkpoint": f"c{i % 2}", "id": i} for i in range(7)]
    path = texts.write_lines(tmp_path / "plain.jsonl", rows)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "packed.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(path.read_bytes()))
    pd.DataFrame(rows).to_parquet(tmp_path / "table.parquet")
    expected = read_generations(path)
    assert expected.names == ["c0", "c1"]
    assert expected.load(1) == (["täxt 1", "täxt 3", "täxt 5"], None, ["1", "3", "5"], None)
    for name in ("packed.jsonl.gz", "packed.jsonl.zst", "table.parquet"):
        found = read_generations(tmp_path / name)
        assert [found.load(i) for i in (0, 1)] == [expected.load(i) for i in (0, 1)]


def test_a_packed_file_that_is_cut_off_is_refused(tmp_path):
    # Long, and cut at a line's end or not: half of a file must not pass for all of it.
    contents = b'{"text": "abcd"}\n' * 100_000
    for name, pack in (("a.jsonl.gz", gzip.compress), ("b.jsonl.zst", zstandard.ZstdCompressor().compress)):
        packed = pack(contents)
        (tmp_path / name).write_bytes(packed[: len(packed) - 5])
        with pytest.raises(InputError, match=f"readable .* file; .*{name} is not: Truncated"):
            read_generations(tmp_path / name)


def test_of_messages_those_after_the_last_question_are_the_text(tmp_path):
    turns = [
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "2+2?"),
        ("assistant", "4"),
    ]
    messages = [{"role": role, "content": content} for role, content in turns]
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "a picture"}, {"type": "image"}]}]
    path = texts.write_lines(tmp_path / "chat.jsonl", [{"messages": messages}, {"messages": parts}])
    found = read_generations(path).load(0)
    assert found.texts == ["4", "a picture"]
    assert found.prompts == ["Be kind.\n\nHi\n\nHello\n\n2+2?", ""]


def test_columns_are_found_or_named(tmp_path):
    rows = [{"question": "q", "response": "r", "said": "s", "step": 3, "uid": "u"}]
    path = texts.write_lines(tmp_path / "a.jsonl", rows)
    found = read_generations(path)
    assert found.names == [3]
    assert found.load(0) == (["r"], ["q"], ["u"], None)
    named = read_generations(
        path, columns=Columns(text="said", prompt="response", checkpoint="uid", id="step")
    )
    assert named.names == ["u"]
    assert named.load(0) == (["s"], ["r"], ["3"], None)
    # A text of another name is found where it is the only one.
    only = texts.write_lines(tmp_path / "b.jsonl", [{"prompt": "p", "modelOutput": "m", "reward": 1.0}])
    assert read_generations(only).load(0).texts == ["m"]


def test_halves_of_characters_are_replaced(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a \\ud83d b"}\n')
    assert read_generations(tmp_path / "a.jsonl").load(0).texts == ["a ? b"]


def test_log_likelihoods_are_those_that_scores_are_measured_by(tmp_path):
    pairs = np.random.default_rng(0).normal(size=(40, 2))
    rows = [
        {"text": f"t{i}", "step": i % 2, "old_log_likelihood": old, "new_log_likelihood": new}
        for i, (old, new) in enumerate(pairs)
    ]
    found = read_generations(texts.write_lines(tmp_path / "a.jsonl", rows))
    old, new = found.scores()
    np.testing.assert_array_equal(old[1], pairs[1::2, 0])
    np.testing.assert_array_equal(new[0], pairs[::2, 1])
    assert inference.measure_scores(*found.scores())["summary"].sizes["checkpoint"] == 2
    with pytest.raises(InputError, match="must have both log-likelihoods; checkpoint b has none"):
        read_generations(texts.write_lines(tmp_path / "b.jsonl", ["t"])).scores()


def test_a_file_is_held_at_a_time(tmp_path, monkeypatch):
    for name in (1, 2, 3):
        texts.write_lines(tmp_path / f"{name}.jsonl", [f"{name} {i}" for i in range(3)])
    real, calls = module.rows_of, []
    monkeypatch.setattr(
        module, "rows_of", lambda file, *a, **o: calls.append(file.stem) or real(file, *a, **o)
    )
    found = read_generations(tmp_path)
    assert [found.load(index).texts[0] for index in (0, 0, 1, 2)] == ["1 0", "1 0", "2 0", "3 0"]
    # All once to be checked, then each once more.
    assert calls == ["1", "2", "3", "1", "2", "3"]


def test_rows_without_text_are_dropped_where_that_is_asked_for(tmp_path):
    path = texts.write_lines(tmp_path / "a.jsonl", [{"text": "a"}, {"text": None}, {"text": " "}])
    assert read_generations(path, drop_missing=True).load(0).texts == ["a", "", ""]


def lines(*rows):
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n"


GOOD = {"text": "a", "step": 1}


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ("", r"a.jsonl must have one JSON object a line; it is empty"),
        (lines(GOOD) + '{"text": "b', r"must have one JSON object a line; line 2 is cut off or is not JSON"),
        (lines(GOOD, "[1]"), r"must have one JSON object a line; line 2 has a list"),
        (b'{"text": "\xff\xfe"}\n', r"must have one JSON object a line, in UTF-8; line 1 is not"),
        (lines({"a": 1, "b": 2}), r"a column of texts such as completion, .* be given; it has a, b"),
        (lines({"a": "x", "b": "y"}), r"a column of texts such as completion, .* be given; it has a, b"),
        (lines(GOOD, {"step": 1}), r"a.jsonl, row 2, must have the column text, as the first row has"),
        (
            lines(GOOD, {**GOOD, "text": " "}),
            r"a.jsonl, row 2, must have a text as its text, or .* it is empty",
        ),
        (lines(GOOD, "", {**GOOD, "text": None}), r"row 3, must have a text as its text, or .* it is empty"),
        (lines(GOOD, {**GOOD, "text": 3}), r"row 2, must have a text or chat messages as its text; got 3"),
        (
            lines({**GOOD, "text": [{"role": "user", "content": "q"}]}),
            r"row 1, must have a text .* it is empty",
        ),
        (lines(GOOD, {**GOOD, "step": None}), r"row 2, must name its checkpoint by a whole number or a text"),
        (lines(GOOD, {**GOOD, "step": 1.5}), r"by a whole number or a text; got 1.5"),
        (lines({**GOOD, "old_log_likelihood": 1.0}), r"both log-likelihoods, .* or none; it has text, step"),
        (
            lines({**GOOD, "old_log_likelihood": 1.0, "new_log_likelihood": None}),
            r"row 1, must have a number as its new_log_likelihood; got None",
        ),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, contents, sentence):
    (tmp_path / "a.jsonl").write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    with pytest.raises(InputError, match=sentence) as error:
        read_generations(tmp_path / "a.jsonl")
    assert len(str(error.value).splitlines()) == 1


def test_bad_parquet_is_one_sentence(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match=r"in a readable .parquet file; .*a.parquet is not"):
        read_generations(path)
    pd.DataFrame({"text": pd.Series([], dtype=str)}).to_parquet(path)
    with pytest.raises(InputError, match=r"a.parquet must hold at least one row; it is empty"):
        read_generations(path)
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"]), path)
    with pytest.raises(InputError, match=r"must have columns of different names; it has text, text"):
        read_generations(path)


def test_bad_places_are_one_sentence(tmp_path):
    texts.write_lines(tmp_path / "a.jsonl", [GOOD])
    texts.write_lines(tmp_path / "b.jsonl", ["b"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("a")
    for source, sentence in (
        (tmp_path, r"must have a column of checkpoints, or none; .*b.jsonl has none"),
        (tmp_path / "c.jsonl", r"must be a file, a folder or a glob of completions; there is no .*c.jsonl"),
        (tmp_path / "empty", r"must hold files whose names end with .jsonl, .*empty has none"),
        (f"{tmp_path}/*.parquet", r"must hold files whose names end with"),
        (tmp_path / "a.txt", r"completions must lie in files whose names end with .*; got .*a.txt"),
        ([], r"must be at least one file of completions; got none"),
    ):
        with pytest.raises(InputError, match=sentence):
            read_generations(source)
    with pytest.raises(
        InputError, match=r"a.jsonl must have the column said, named as its text; it has text"
    ):
        read_generations(tmp_path / "a.jsonl", columns=Columns(text="said"))


def test_what_is_of_texts_is_told_from_arrays(tmp_path):
    texts.write_lines(tmp_path / "folder" / "a.jsonl", ["a"])
    (tmp_path / "store.zarr").mkdir()
    pd.DataFrame({"step": [1], "completion": ["a"]}).to_parquet(tmp_path / "texts.parquet")
    pd.DataFrame({"checkpoint": ["a"], "x": [1.0]}).to_parquet(tmp_path / "numbers.parquet")
    pd.DataFrame({"checkpoint": ["a"], "embedding": [[1.0, 2.0]]}).to_parquet(tmp_path / "lists.parquet")
    chat = [[{"role": "assistant", "content": "a"}]]
    pd.DataFrame({"completion": chat}).to_parquet(tmp_path / "chat.parquet")
    of_texts = ("folder", "folder/a.jsonl", "folder/*.jsonl", "b.jsonl.zst", "texts.parquet", "chat.parquet")
    assert all(is_of_texts(tmp_path / name) for name in of_texts)
    of_arrays = ("store.zarr", "numbers.parquet", "lists.parquet", "run.npz", "no.parquet")
    assert not any(is_of_texts(tmp_path / name) for name in of_arrays)
