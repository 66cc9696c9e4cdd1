"""The traps of Inspect's logs."""

import evals_logs as logs
import pandas as pd
import pytest

from inference.measurement.evals.pairing import pair
from inference.measurement.evals.readers import read
from mixture_models import InputError


def test_samples_without_scores(tmp_path):
    samples = [logs.inspect_sample(i, 1.0) for i in range(4)]
    bad = [*samples[:2], samples[2] | {"scores": {}, "error": "timeout"}, samples[3] | {"scores": {}}]
    base = logs.zipped(tmp_path / "base.eval", logs.inspect_members(samples))
    run = logs.zipped(tmp_path / "run.eval", logs.inspect_members(bad))
    paired = pair(read({"base": base, "sft": run}, progress=False))
    assert paired.runs["num_items"].to_list() == [2]
    found = paired.left_out.set_index("reason")
    assert found["examples"].to_dict() == {"error": "2", "no score": "3"}


def test_epochs_are_repeats_and_partly_right_is_half(tmp_path):
    samples = [logs.inspect_sample(1, score, epoch=e) for e, score in ((1, 1.0), (2, 0.0), (3, 0.5))]
    path = logs.zipped(tmp_path / "x.eval", logs.inspect_members(samples))
    cells = pair(read({"base": path, "sft": path}, progress=False)).repeats
    assert cells[["right_base", "num_base"]].to_numpy().tolist() == [[1.5, 3]]


def test_a_run_that_was_cut_off(tmp_path):
    """Without header and summaries: the journal's, or the samples."""
    samples = [logs.inspect_sample(i, float(i % 2), i % 4) for i in (1, 2, 7)]
    whole = logs.inspect_members(samples)
    journal = {k: v for k, v in whole.items() if k == "_journal/start.json"}
    journal |= {"_journal/summaries/1.json": samples[:2], "_journal/summaries/2.json": samples[2:]}
    bare = {k: v for k, v in whole.items() if k not in ("header.json", "summaries.json")}
    expected = read({"base": logs.zipped(tmp_path / "a.eval", whole)}, progress=False)
    for name, members in (("b", journal), ("c", bare)):
        found = read({"base": logs.zipped(tmp_path / f"{name}.eval", members)}, progress=False)
        pd.testing.assert_frame_equal(found, expected)


def test_choices_that_are_in_the_samples_alone(tmp_path):
    samples = [logs.inspect_sample(i, 1.0, i % 4) for i in range(4)]
    header = logs.inspect_header() | {"plan": {"steps": [{"solver": "multiple_choice"}]}}
    members = logs.inspect_members(samples, header)
    members["summaries.json"] = [{k: v for k, v in s.items() if k != "choices"} for s in samples]
    found = read({"base": logs.zipped_by_zstd(tmp_path / "x.eval", members)}, progress=False)
    assert found["num_choices"].to_list() == [4] * 4


def test_an_evaluation_that_was_resumed_counts_once(tmp_path):
    samples = [logs.inspect_sample(i, 1.0) for i in range(4)]
    header = logs.inspect_header(task_id="one")
    logs.zipped(tmp_path / "b" / "1.eval", logs.inspect_members(samples[:2], header))
    logs.zipped(tmp_path / "b" / "2.eval", logs.inspect_members(samples, header))
    logs.zipped(tmp_path / "b" / "3.eval", logs.inspect_members(samples[1:3], header))
    paired = pair(read({"base": tmp_path / "b", "sft": tmp_path / "b"}, progress=False))
    assert paired.repeats[["num_base", "num_items"]].to_numpy().tolist() == [[1, 4]]


def test_scorers(tmp_path):
    sample = logs.inspect_sample(1, 1.0, scorer="b") | {}
    sample["scores"] |= {"a": {"value": {"x": 0.25, "y": True}, "answer": None}}
    path = logs.zipped(tmp_path / "x.eval", logs.inspect_members([sample]))
    with pytest.raises(InputError, match="several metrics: a/x, a/y, b"):
        read({"base": path}, progress=False)
    assert read({"base": path}, metric="a/x", progress=False)["score"].to_list() == [0.25]
