"""Readers of evaluation logs: every format gives the same long form, and the traps of each."""

import json

import evals_logs as logs
import pytest

from inference.measurement.evals.pairing import CELLS, pair
from inference.measurement.evals.readers import read
from mixture_models import InputError


def written(folder, write, base, run):
    write(folder / "base", base)
    write(folder / "sft", run)
    return {"base": folder / "base", "sft": folder / "sft"}


@pytest.mark.parametrize("write", logs.FORMATS.values(), ids=logs.FORMATS)
def test_choices_of_every_format(tmp_path, answers, write):
    found = read(written(tmp_path, write, *answers), progress=False)
    paired = pair(found)
    assert paired.runs["kind"].to_list() == ["choices"]
    assert paired.runs[["arm", "seed", "checkpoint"]].to_numpy().tolist() == [["sft", "0", "final"]]
    expected = logs.cells_of(*answers)
    assert paired.choices[list(CELLS)].iloc[0].to_dict() == expected
    assert min(expected.values()) > 0  # so that no two cells can be exchanged
    assert paired.choices["num_choices"].to_list() == [4]
    assert paired.left_out.empty


@pytest.mark.parametrize("write", logs.FORMATS.values(), ids=logs.FORMATS)
def test_free_answers_of_every_format(tmp_path, answers, write):
    free = [[(i, score, None) for i, score, _ in side] for side in answers]
    paired = pair(read(written(tmp_path, write, *free), progress=False))
    assert paired.runs["kind"].to_list() == ["repeats"]
    cells = paired.repeats.set_index(["right_base", "right_run"])["num_items"].to_dict()
    counts = logs.cells_of(*answers)
    both_wrong = counts["wrong_same"] + counts["wrong_other"]
    assert cells == {
        (1, 1): counts["right_right"],
        (1, 0): counts["right_wrong"],
        (0, 1): counts["wrong_right"],
        (0, 0): both_wrong,
    }
    assert (paired.repeats[["num_base", "num_run"]] == 1).all(axis=None)
    assert paired.repeats["num_choices"].isna().all()


@pytest.mark.parametrize(
    "write", [logs.lm_eval, logs.inspect_zstd, logs.every_eval_ever], ids=lambda w: w.__name__
)
def test_items_of_one_log_only_are_named(tmp_path, answers, write):
    base, run = answers
    paired = pair(read(written(tmp_path, write, base, [a for a in run if a[0] >= 5]), progress=False))
    assert paired.runs["num_items"].to_list() == [55]
    assert paired.left_out["reason"].to_list() == ["only in the base"]
    assert paired.left_out["num_items"].to_list() == [5]
    assert len(paired.left_out["examples"].iloc[0].split(", ")) == 3


def test_a_glob_and_a_folder_say_arms_seeds_and_checkpoints(tmp_path, answers):
    base, run = answers
    logs.lm_eval(tmp_path / "base" / "org__model", base)
    for seed in (0, 1):
        for step in (9, 100):
            logs.lm_eval(tmp_path / "sft" / f"seed_{seed}" / f"out__checkpoint-{step}", run)
    logs.lm_eval(tmp_path / "rl" / "global_step_7", run)
    expected = [
        ["rl", "0", 7],
        ["sft", "0", 9],
        ["sft", "0", 100],
        ["sft", "1", 9],
        ["sft", "1", 100],
    ]
    for source in (tmp_path, f"{tmp_path}/*", f"{tmp_path}/**/*.jsonl"):
        runs = pair(read(source, progress=False)).runs
        assert runs[["arm", "seed", "checkpoint"]].to_numpy().tolist() == expected
    mapping = {"base": tmp_path / "base", "rl": tmp_path / "rl", "sft/seed-3": tmp_path / "sft" / "seed_0"}
    runs = pair(read(mapping, progress=False)).runs
    assert runs[["arm", "seed", "checkpoint"]].to_numpy().tolist() == [
        ["rl", "0", 7],
        ["sft", "3", 9],
        ["sft", "3", 100],
    ]


@pytest.mark.parametrize("write", [logs.inspect_eval, logs.inspect_json, logs.helm], ids=lambda w: w.__name__)
def test_models_of_logs_without_folders(tmp_path, answers, write):
    for name, model, side in (("a", "org/base", answers[0]), ("b", "org/sft-checkpoint-20", answers[1])):
        write(tmp_path / name, side, model=model)
    runs = pair(read(tmp_path, base="org/base", progress=False), base="org/base").runs
    assert runs[["arm", "seed", "checkpoint"]].to_numpy().tolist() == [["org/sft", "0", 20]]


def test_another_evaluation_of_the_base_is_a_retest(tmp_path, answers):
    base, run = answers
    for name, side in (("base", base), ("again", run), ("sft", run)):
        logs.lm_eval(tmp_path / name, side)
    named = {"base": tmp_path / "base", "base/seed-1": tmp_path / "again", "sft": tmp_path / "sft"}
    runs = pair(read(named, progress=False)).runs
    assert runs["arm"].to_list() == ["base", "sft"]
    assert runs["is_retest"].to_list() == [True, False]


def test_metrics_and_epochs_of_every_eval_ever(tmp_path):
    rows = [
        logs.every_eval_ever_row(1, score, metric=metric, epoch=epoch)
        for epoch, score in ((1, 1.0), (2, 0.0))
        for metric, score in (("quasi_exact_match", 1.0), ("exact_match", score))
    ]
    path = logs.jsonl(tmp_path / "x_samples.jsonl", rows)
    found = read({"base": path}, progress=False)
    assert found["score"].to_list() == [1.0, 0.0]
    assert found.attrs["metrics"] == {"mmlu": "exact_match"}


def test_trials_of_helm_are_repeats(tmp_path):
    logs.helm(tmp_path / "b", [(1, 1.0, None, 0), (1, 0.0, None, 1), (2, 1.0, None, 0), (2, 1.0, None, 1)])
    cells = pair(read({"base": tmp_path / "b", "sft": tmp_path / "b"}, progress=False)).repeats
    assert cells[["right_base", "num_base", "num_items"]].to_numpy().tolist() == [[1, 2, 1], [2, 2, 1]]


def test_the_test_split_of_helm_is_read(tmp_path):
    logs.helm(tmp_path / "b", [(1, 1.0, None), (2, 0.0, None)])
    path = next(tmp_path.rglob("per_instance_stats.json"))
    stats = json.loads(path.read_text())
    stats += json.loads(json.dumps(stats).replace('"test"', '"valid"').replace('"id', '"v'))
    path.write_text(json.dumps(stats))
    paired = pair(read({"base": tmp_path / "b", "sft": tmp_path / "b"}, progress=False))
    assert paired.runs["num_items"].to_list() == [2]
    assert set(paired.left_out["reason"]) == {"of the split valid"}


def test_texts_that_differ_under_one_name(tmp_path, answers):
    samples = [logs.inspect_sample(*answer) for answer in answers[0]]
    other = [*samples[:-1], samples[-1] | {"input": "Something else?"}]
    base = logs.zipped(tmp_path / "one.eval", logs.inspect_members(samples))
    run = logs.zipped(tmp_path / "two.eval", logs.inspect_members(other))
    with pytest.raises(InputError, match=r"item \d+ of mmlu has different ones in .*one.eval and .*two.eval"):
        read({"base": base, "sft": run}, progress=False)


def test_nothing_of_a_text_is_kept(tmp_path, answers):
    for write in logs.FORMATS.values():
        found = read(written(tmp_path / write.__name__, write, *answers), progress=False)
        assert "heißt" not in found.to_csv()
