"""The traps of lm-evaluation-harness' logs."""

import json

import evals_logs as logs
import pytest

from inference.measurement.evals.pairing import CELLS, pair
from inference.measurement.evals.readers import read
from mixture_models import InputError


def read_two(folder, base, run, **options):
    logs.jsonl(folder / "base" / f"samples_t_{logs.TIME}.jsonl", base)
    logs.jsonl(folder / "sft" / f"samples_t_{logs.TIME}.jsonl", run)
    return read({"base": folder / "base", "sft": folder / "sft"}, progress=False, **options)


def test_one_filter_is_read(tmp_path):
    rows = [
        logs.lm_eval_row(i, score, filter=name)
        for i in range(4)
        for name, score in (("flexible-extract", 1.0), ("strict-match", float(i % 2)))
    ]
    found = read_two(tmp_path, rows, rows)
    assert found.attrs["metrics"] == {"t": "exact_match, strict-match"}
    assert found["score"].to_list() == [0.0, 1.0, 0.0, 1.0] * 2
    found = read_two(tmp_path, rows, rows, filter="flexible-extract")
    assert (found["score"] == 1.0).all()
    with pytest.raises(InputError, match=r"filter must be one .* flexible-extract, strict-match; got none"):
        read_two(tmp_path, rows, rows, filter="none")


def test_an_evaluation_that_was_appended_again(tmp_path):
    rows = [logs.lm_eval_row(i, float(i % 2)) for i in range(5)]
    paired = pair(read_two(tmp_path, rows, rows + rows))
    assert paired.runs["num_items"].to_list() == [5]
    assert (paired.repeats["num_run"] == 1).all()
    assert paired.left_out[["reason", "num_items"]].to_numpy().tolist() == [
        ["there twice, alike, of some samples", 5]
    ]
    other = [*rows, logs.lm_eval_row(3, 0.0)]
    with pytest.raises(InputError, match=r"samples_t_.*different outcomes"):
        read_two(tmp_path, rows, other)


def test_documents_are_paired_by_hash(tmp_path):
    base = [logs.lm_eval_row(i, 1.0) for i in range(6)]
    subset = [logs.lm_eval_row(i, 0.0, doc_id=i - 3) for i in range(3, 6)]
    paired = pair(read_two(tmp_path, base, subset))
    assert paired.runs["num_items"].to_list() == [3]
    assert paired.repeats[["right_base", "right_run", "num_items"]].to_numpy().tolist() == [[1, 0, 3]]


def test_equal_documents_are_several_items(tmp_path):
    base = [logs.lm_eval_row(7, score, doc_id=i) for i, score in enumerate([1.0, 0.0, 1.0])]
    run = [logs.lm_eval_row(7, score, doc_id=i + 10) for i, score in enumerate([1.0, 1.0, 0.0])]
    cells = pair(read_two(tmp_path, base, run)).repeats
    assert cells[["right_base", "right_run", "num_items"]].to_numpy().tolist() == [
        [0, 1, 1],
        [1, 0, 1],
        [1, 1, 1],
    ]


def test_older_rows(tmp_path, answers):
    """Without filter, metrics and hashes, with likelihoods as numbers and arguments as lists."""
    old = []
    for answer in answers[0]:
        row = logs.lm_eval_row(*answer)
        for name in ("filter", "metrics", "doc_hash", "prompt_hash", "target_hash"):
            del row[name]
        row["resps"] = [[[float(pair[0][0]), False]] for pair in row["resps"]]
        row["arguments"] = [[a["arg_0"], a["arg_1"]] for a in row["arguments"].values()]
        old.append(row)
    paired = pair(read_two(tmp_path, old, [logs.lm_eval_row(*answer) for answer in answers[1]]))
    assert paired.choices[list(CELLS)].iloc[0].to_dict() == logs.cells_of(*answers)


def test_a_target_that_is_the_text_of_a_choice(tmp_path, answers):
    rows = [
        [logs.lm_eval_row(*a) | {"target": "ABCD"[logs.right_of(a[0])]} for a in side] for side in answers
    ]
    assert pair(read_two(tmp_path, *rows)).choices[list(CELLS)].iloc[0].to_dict() == logs.cells_of(*answers)


def test_a_choice_that_does_not_explain_the_score_is_unknown(tmp_path, answers):
    """A metric that is not of the largest likelihood says no choice, and the number of choices stays."""
    rows = [
        [logs.lm_eval_row(i, 1.0 - score, choice, metric="acc_pmi") for i, score, choice in side]
        for side in answers
    ]
    paired = pair(read_two(tmp_path, *rows))
    assert paired.runs["kind"].to_list() == ["repeats"]
    assert (paired.repeats["num_choices"] == 4).all()


def test_length_normalised_choice(tmp_path):
    """``acc_norm`` chooses by likelihood per character: here the longer continuation."""
    row = logs.lm_eval_row(1, 0.0, 0, acc_norm=1.0)
    row["metrics"] = ["acc", "acc_norm"]
    row["arguments"] = {
        f"gen_args_{k}": {"arg_0": "", "arg_1": t} for k, t in enumerate(["a", "bcdefgh", "c", "d"])
    }
    row["resps"] = [[[str(v), "False"]] for v in (-1.0, -2.0, -3.0, -4.0)]
    assert read_two(tmp_path, [row], [row])["choice"].to_list() == ["0", "0"]
    assert read_two(tmp_path, [row], [row], metric="acc_norm")["choice"].to_list() == ["1", "1"]


def test_a_score_that_is_not_a_number(tmp_path):
    rows = [logs.lm_eval_row(i, 1.0) for i in range(3)]
    rows[1]["exact_match"] = float("nan")  # written as NaN, which is not strict JSON
    paired = pair(read_two(tmp_path, rows, rows))
    assert paired.runs["num_items"].to_list() == [2]
    assert set(paired.left_out["reason"]) == {"no score"}


def test_several_files_are_repeats_and_a_copy_is_not(tmp_path):
    for place, score in enumerate((1.0, 0.0, 1.0)):
        rows = [logs.lm_eval_row(i, score if i else 1.0) for i in range(4)]
        logs.jsonl(tmp_path / "base" / f"samples_t_2026-01-0{place + 1}T00-00-00.0.jsonl", rows)
    logs.jsonl(tmp_path / "sft" / "samples_t_2026-01-01T00-00-00.0.jsonl", rows)
    found = read({"base": tmp_path / "base", "sft": tmp_path / "sft"}, progress=False)
    cells = pair(found).repeats
    # The third evaluation is the first once more, to the letter.
    assert cells[["right_base", "num_base", "num_items"]].to_numpy().tolist() == [[1, 2, 3], [2, 2, 1]]
    assert "the same evaluation again" in "".join(pair(found).left_out["reason"])


def test_a_mean_over_responses_is_repeats(tmp_path):
    rows = [logs.lm_eval_row(i, i / 4, responses=[["a", "b", "c", "d"]]) for i in range(5)]
    cells = pair(read_two(tmp_path, rows, rows)).repeats
    assert cells[["right_base", "num_base"]].to_numpy().tolist() == [[i, 4] for i in range(5)]


def test_several_metrics(tmp_path):
    row = logs.lm_eval_row(1, 1.0, metric="f1") | {"metrics": ["f1", "bleu"], "bleu": 0.4}
    with pytest.raises(InputError, match="several metrics: bleu, f1; name the metric"):
        read_two(tmp_path, [row], [row])
    assert read_two(tmp_path, [row], [row], metric="f1")["score"].to_list() == [1.0, 1.0]
    with pytest.raises(InputError, match=r"metric must be one .* bleu, f1; got acc"):
        read_two(tmp_path, [row], [row], metric="acc")
    other = logs.lm_eval_row(1, 1.0)
    with pytest.raises(InputError, match=r"must be read by one metric; t has f1 in .* and exact_match in"):
        read_two(tmp_path, [row], [other], metric=["f1", "exact_match"])


def test_a_metric_of_which_less_is_better(tmp_path):
    row = logs.lm_eval_row(1, 0.2, metric="brier") | {"metrics": ["brier", "skill"], "skill": 0.6}
    for side in ("base", "sft"):
        (tmp_path / side).mkdir()
        directions = {"higher_is_better": {"t": {"brier": False, "skill": True}}}
        (tmp_path / side / f"results_{logs.TIME}.json").write_text(json.dumps(directions))
    assert read_two(tmp_path, [row], [row])["score"].to_list() == [0.6, 0.6]
    with pytest.raises(InputError, match="less is, of brier"):
        read_two(tmp_path, [row], [row], metric="brier")
