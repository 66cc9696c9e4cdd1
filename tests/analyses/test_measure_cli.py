"""``massdrift measure`` and ``massdrift compare-runs``: what they write and refuse, and that they resume."""

import sys

import numpy as np
import pandas as pd
import pytest

import inference
from analyses import cli
from inference.measurement import checkpoints


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)

    def samples(weight, num):
        return rng.normal(size=(num, 2)) + np.where(rng.uniform(size=(num, 1)) < weight, 0.0, [4.0, 1.0])

    np.savez(tmp_path / "old.npz", samples=samples(1.0, 300))
    np.savez(tmp_path / "new.npz", samples=samples(0.0, 300))
    for name, last in (("sft", 0.1), ("rl", 0.8)):
        np.savez(tmp_path / f"{name}.npz", **{"0": samples(0.9, 200), "100": samples(last, 200)})
    return tmp_path


def arguments(folder, name):
    references = ["--old-reference", folder / "old.npz", "--new-reference", folder / "new.npz"]
    options = ["--num-draws=200", "--covariance=shared", "--tails=gaussian", "--quiet"]
    return ["measure", folder / f"{name}.npz", *references, "--out", folder / "out" / name, *options]


def test_two_runs_are_measured_and_compared(massdrift, files):
    for name in ("sft", "rl"):
        code, printed, _ = massdrift(*arguments(files, name))
        assert code == 0
        assert "verdict" in printed
        written = {path.name for path in (files / "out" / name).iterdir()}
        figures = {f"{f}.{s}" for f in ("old_weight", "drift", "samples") for s in ("png", "svg")}
        assert (
            written
            == {"results.zarr", "summary.csv", "settings.toml", "report.html", "examples.csv"} | figures
        )
        # Of arrays the rows are shown, and are those of the samples.
        assert "What checkpoint 100 looks like" in printed
        shown = pd.read_csv(files / "out" / name / "examples.csv")
        rows = shown["sample_row"][(shown["checkpoint"] == 100) & (shown["reason"] == "old")]
        nearest = np.load(files / f"{name}.npz")["100"][rows]
        assert np.abs(nearest).max() < 1.5
    assert {path.name for path in (files / "out").iterdir()} == {"sft", "rl"}
    table = pd.read_csv(files / "out" / "sft" / "summary.csv", index_col="checkpoint")
    assert list(table.index) == [0, 100]
    tree = inference.open(files / "out" / "sft" / "results.zarr")
    np.testing.assert_allclose(table["old_weight"], tree["posterior"]["old_weight"].mean(["chain", "draw"]))
    # Of 200 samples, so that a share of 0.1 has a standard error of 0.021.
    assert table.loc[100, "old_weight"] == pytest.approx(0.1, abs=0.085)
    assert (
        table.loc[100, "old_weight_lower"] < table.loc[100, "old_weight"] < table.loc[100, "old_weight_upper"]
    )

    both = files / "out" / "both"
    code, printed, _ = massdrift("compare-runs", files / "out" / "sft", files / "out" / "rl", "--out", both)
    assert code == 0
    assert "nan" not in printed.lower()
    assert "equivalence" not in printed  # within a rope of no width nothing lies
    compared = pd.read_csv(both / "summary.csv", index_col="run")
    assert compared.loc["rl", "old_weight_better"] == 1.0
    assert compared.loc["rl", "old_weight_difference"] == pytest.approx(0.7, abs=0.12)
    names = {"results.zarr", "summary.csv", "settings.toml", "report.html", "runs.png", "runs.svg"}
    assert {path.name for path in both.iterdir()} == names


@pytest.mark.slow
def test_a_checkpoint_that_takes_more_memory_is_streamed(massdrift, files):
    """The figures' samples are then read in pieces too, and are those of a checkpoint that is held."""
    trees = []
    for memory in ("--memory=1e-6", "--memory=1"):
        assert massdrift(*arguments(files, "sft"), memory, "--overwrite")[0] == 0
        trees.append(inference.open(files / "out" / "sft" / "results.zarr"))
        trees[-1].load()
    assert [set(tree["sample_stats"]["streamed"].values) for tree in trees] == [{1}, {0}]
    for group, name in (("posterior", "old_weight"), ("shown", "samples")):
        np.testing.assert_allclose(*(tree[group][name] for tree in trees), rtol=1e-9)
    run = np.load(files / "sft.npz")["100"]
    constant = trees[0]["constant_data"].to_dataset()
    framed = (run - constant["frame_origin"].values) @ constant["frame_forward"].values.T
    shown = trees[0]["shown"]["samples"].sel(shown_checkpoint=100).values
    shown = shown[np.isfinite(shown).all(axis=1)]
    # All 200 samples, in another order.
    np.testing.assert_allclose(np.sort(shown, axis=0), np.sort(framed, axis=0), atol=1e-9)


def test_an_interrupted_command_resumes(massdrift, files, monkeypatch):
    real, done = checkpoints.measure_checkpoint, []

    def failing(*arguments):
        index = arguments[-1]
        if index == 1 and len(done) == 1:
            done.append("stopped")
            raise RuntimeError
        done.append(index)
        return real(*arguments)

    monkeypatch.setattr(checkpoints, "measure_checkpoint", failing)
    monkeypatch.setattr(sys, "argv", ["massdrift", *map(str, arguments(files, "sft"))])
    with pytest.raises(RuntimeError):
        cli.main()
    assert not (files / "out" / "sft").exists()
    assert massdrift(*arguments(files, "sft"))[0] == 0
    assert done == [0, "stopped", 1]
    assert [path.name for path in (files / "out").iterdir()] == ["sft"]


def test_bad_input_is_one_sentence_and_writes_nothing(massdrift, files):
    np.savez(files / "old.npz", samples=np.full((300, 2), np.nan))
    code, _, error = massdrift(*arguments(files, "sft"))
    assert code == 2
    assert error.startswith("massdrift: ")
    assert error.count("\n") == 1
    assert not (files / "out").exists()
    code, _, error = massdrift("compare-runs", files, files / "out", "--out", files / "both")
    assert code == 2
    assert "must be an output of massdrift measure or measure-scores" in error


@pytest.mark.slow
def test_several_tasks_have_a_row_each(massdrift, files):
    samples = np.random.default_rng(1).normal(size=(300, 2)) + np.array([-1.0, 5.0])
    np.savez(files / "chat.npz", samples=samples)
    named = [
        f"--reference={name}={files / file}.npz"
        for name, file in (("math", "old"), ("chat", "chat"), ("new", "new"))
    ]
    options = ["--num-draws=100", "--quiet", "--out", files / "out" / "tasks"]
    code, printed, _ = massdrift("measure", files / "rl.npz", *named, *options)
    assert code == 0
    assert "chat" in printed
    written = {path.name for path in (files / "out" / "tasks").iterdir()}
    assert written == {"results.zarr", "summary.csv", "settings.toml", "report.html", "examples.csv"} | {
        f"{figure}.{suffix}" for figure in ("weight", "drift", "samples") for suffix in ("png", "svg")
    }
    listed = pd.read_csv(files / "out" / "tasks" / "examples.csv")
    nearest = listed[listed["reason"] == "math"]
    assert (nearest["math_distance"] < nearest[["chat_distance", "new_distance"]].min(axis=1)).all()
    table = pd.read_csv(files / "out" / "tasks" / "summary.csv").set_index(["checkpoint", "task"])
    assert list(table.index) == [(c, t) for c in (0, 100) for t in ("math", "chat", "new")]
    assert table.loc[(100, "math"), "weight"] == pytest.approx(0.8, abs=0.1)
    assert table.loc[(100, "chat"), "weight"] < 0.05


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "got none"),
        (("--reference=math=old.npz",), "2 to 20 references; got 1"),
        (("--reference=math",), "must be NAME=FILE; got 'math'"),
        (("--reference=a=old.npz", "--reference=a=new.npz"), "got a more than once"),
        (
            ("--old-reference=old.npz", "--reference=new=new.npz"),
            "got old_reference and reference new=new.npz",
        ),
    ],
)
def test_bad_references_are_one_sentence(massdrift, files, monkeypatch, arguments, said):
    monkeypatch.chdir(files)
    code, _, error = massdrift("measure", "rl.npz", *arguments, "--out", "nowhere")
    assert code == 2
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (files / "nowhere").exists()


@pytest.mark.slow
def test_groups_of_prompts_have_their_weights(massdrift, files, tmp_path):
    rng = np.random.default_rng(3)
    prompts = np.repeat(np.arange(12), 10)
    is_old = rng.uniform(size=120) < np.where(prompts < 6, 0.9, 0.2)
    samples = rng.normal(size=(120, 2)) + np.where(is_old[:, None], 0.0, [4.0, 0.0])
    np.savez(files / "asked.npz", samples=samples, prompt=prompts, checkpoint=np.zeros(120, int))
    groups = pd.DataFrame({"prompt": range(12), "group": ["sums"] * 6 + ["logic"] * 6})
    groups.to_csv(tmp_path / "groups.csv", index=False)
    references = ["--old-reference", files / "old.npz", "--new-reference", files / "new.npz"]
    arguments = ["measure", files / "asked.npz", *references, "--num-draws=100", "--quiet"]
    code, _, _ = massdrift(*arguments, "--prompt-groups", tmp_path / "groups.csv", "--out", tmp_path / "out")
    assert code == 0
    row = pd.read_csv(tmp_path / "out" / "summary.csv").iloc[0]
    assert row["old_weight_of_sums"] == pytest.approx(is_old[:60].mean(), abs=0.12)
    assert row["old_weight_of_logic"] == pytest.approx(is_old[60:].mean(), abs=0.12)
    assert row["prompt_spread"] > 0.5
    assert "On prompts of sums the old weight is " in (tmp_path / "out" / "report.html").read_text()


def test_a_file_of_groups_that_is_none_is_one_sentence(massdrift, files, tmp_path):
    (tmp_path / "bad.json").write_text("[1, 2]")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    references = ["--old-reference", files / "old.npz", "--new-reference", files / "new.npz"]
    for name, said in (
        ("bad.json", "an object"),
        ("bad.csv", "columns prompt and group"),
        ("bad.txt", "suffix"),
    ):
        (tmp_path / "bad.txt").write_text("")
        arguments = ["--prompt-groups", tmp_path / name, "--out", tmp_path / "out"]
        code, _, error = massdrift("measure", files / "rl.npz", *references, *arguments)
        assert code == 2
        assert said in error
        assert error.count("\n") == 1
