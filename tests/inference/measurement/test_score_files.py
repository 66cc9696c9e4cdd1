"""``massdrift measure-scores``: what is read, refused and written, and how its runs are compared."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

import inference
from inference.measurement.scores.files import read_scores
from mixture_models import InputError

OLD, NEW = "old_log_likelihood", "new_log_likelihood"

# Numbers that a reader rounds if it can, and what is impossible under a reference.
FRAME = pd.DataFrame(
    {
        "text": ["a,\nb", '"', "", "d", "ü", "f"],
        "checkpoint": [20, 3, 20, 3, 3, 20],
        OLD: [-0.1, -1.0000000000000002, -2.0, -1e-300, -np.inf, -12345.678901234567],
        NEW: [-3.0, -np.inf, -1 / 3, -2.5, -5e-324, -7.0],
    }
)


def write(frame, path):
    if path.suffix == ".jsonl":
        # Python's writer, which does not round, puts integers where it can, and has blank lines beside it.
        lines = (json.dumps(row, ensure_ascii=False) for row in frame.to_dict("records"))
        path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".parquet"])
def test_scores_are_read_to_the_last_bit_by_checkpoint(tmp_path, kind):
    found = read_scores([write(FRAME, tmp_path / f"run{kind}")])
    assert list(found["old"]) == list(found["new"]) == [20, 3]
    for name, scores in ((OLD, found["old"]), (NEW, found["new"])):
        for checkpoint, values in scores.items():
            expected = FRAME.loc[FRAME["checkpoint"] == checkpoint, name]
            np.testing.assert_array_equal(values, expected)


def test_columns_have_the_names_that_are_given(tmp_path):
    renamed = FRAME.rename(columns={OLD: NEW, NEW: OLD, "checkpoint": "step"})
    path = write(renamed, tmp_path / "run.csv")
    plain = read_scores([write(FRAME, tmp_path / "plain.csv")])
    found = read_scores([path], columns={"old": NEW, "new": OLD}, checkpoint="step")
    for task in ("old", "new"):
        for checkpoint in (20, 3):
            np.testing.assert_array_equal(plain[task][checkpoint], found[task][checkpoint])
    # Without a column of checkpoints a file is one.
    assert list(read_scores([path], columns={"old": NEW, "new": OLD})["old"]) == ["run"]


def test_a_checkpoint_may_lie_in_several_files_and_a_file_be_one(tmp_path):
    paths = [write(FRAME[:4], tmp_path / "a.jsonl"), write(FRAME[4:], tmp_path / "b.parquet")]
    whole, parts = read_scores([write(FRAME, tmp_path / "run.csv")]), read_scores(paths)
    for task in ("old", "new"):
        for checkpoint in (20, 3):
            np.testing.assert_array_equal(whole[task][checkpoint], parts[task][checkpoint])
    bare = FRAME.drop(columns="checkpoint")
    files = [write(bare[:4], tmp_path / "step-9.csv"), write(bare[4:], tmp_path / "step-10.csv")]
    found = read_scores(files)
    assert {name: len(values) for name, values in found["old"].items()} == {"step-9": 4, "step-10": 2}
    mixed = write(FRAME.assign(checkpoint=["x"] * 5 + ["last"]), tmp_path / "mixed.csv")
    assert list(read_scores([paths[0], mixed])["old"]) == ["20", "3", "x", "last"]


HEADER = f"{OLD},{NEW}\n"
PAIR = f'{{"{OLD}": -1, "{NEW}": -2'


@pytest.mark.parametrize(
    ("suffix", "text", "sentence"),
    [
        ("csv", "", "must be a readable .csv file"),
        ("csv", HEADER, "at least one sample; got none"),
        ("csv", HEADER + "1,2,3\n", "Expected 2 columns, got 3"),
        ("csv", HEADER + "1\n", "Expected 2 columns, got 1"),
        ("csv", HEADER + "x,2\n", f"{OLD} of .* must be numeric"),
        ("csv", HEADER + "true,2\n", f"{OLD} of .* must be numeric, .* got booleans"),
        ("csv", "a,b\n1,2\n", f"must have a column {OLD}, or the name of another be given; got a, b"),
        ("csv", f"{OLD},{HEADER}1,2,3\n", f"the columns of .* must differ; got {OLD} twice"),
        ("csv", f"checkpoint,{HEADER},1,2\na,1,2\n", "name the checkpoint of every row .*; 1 have none"),
        ("jsonl", "", "it is empty"),
        ("jsonl", "[1, 2]", "line 1 has a list"),
        ("jsonl", PAIR + "}\n" + PAIR, "line 2 is cut off or is not JSON"),
        ("jsonl", PAIR + '}\n{"a": 1}', f"must have {OLD}, or none; object 2 differs"),
        ("jsonl", PAIR + '}\n' + PAIR + ', "checkpoint": 1}', "have checkpoint, or none; object 2 differs"),
        ("jsonl", f'{{"{OLD}": true, "{NEW}": 1}}', "must be numeric, .* got booleans"),
        ("jsonl", f'{{"{OLD}": "-1", "{NEW}": 1}}', "must be numeric"),
        ("jsonl", f'{{"{OLD}": [1], "{NEW}": 1}}', r"must be one number a row; got shape \(1, 1\)"),
        ("jsonl", f'{{"{OLD}": 1{"0" * 400}, "{NEW}": 1}}', "must be num"),
        ("jsonl", PAIR + ', "checkpoint": null}', "name the checkpoint of every row or entry; 1 have none"),
        ("parquet", "PAR1", "must be a readable .parquet file"),
        ("txt", "", "suffix of .* must be one of .jsonl, .csv, .parquet; got '.txt'"),
        ("csv", HEADER + "1,2\n,3\n", f"{OLD} must be numbers or -inf; 1 of checkpoint bad are not"),
        ("jsonl", f'{{"{OLD}": null, "{NEW}": 1}}', f"{OLD} must be numbers or -inf; 1 of checkpoint bad"),
        ("csv", HEADER + "-inf,-inf\n", "1 of checkpoint bad have -inf under both"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_or_measured_is_one_sentence(massdrift, tmp_path, suffix, text, sentence):
    path = tmp_path / f"bad.{suffix}"
    path.write_text(text)
    code, printed, error = massdrift("measure-scores", path, "--out", tmp_path / "out", "--quiet")
    assert code == 2
    assert printed == ""
    assert error.count("\n") == 1
    with pytest.raises(InputError, match=sentence):
        raise InputError(error)
    assert not (tmp_path / "out").exists()


def test_files_that_do_not_go_together_are_refused(tmp_path):
    one, bare = write(FRAME, tmp_path / "a.csv"), FRAME.drop(columns="checkpoint")
    (tmp_path / "sub").mkdir()
    twins = [write(bare, tmp_path / "b.csv"), write(bare, tmp_path / "sub" / "b.csv")]
    for paths, settings, sentence in (
        ([], {}, "at least one file"),
        ([tmp_path / "none.csv"], {}, "there is no .*none.csv"),
        ([one, twins[0]], {}, "all files must have a column checkpoint, or none; .*b.csv has none"),
        (twins, {}, "must have different names; got b twice"),
        ([one], {"checkpoint": "step"}, "must have a column step"),
        (
            [one],
            {"columns": {"old": NEW, "new": NEW}},
            f"the columns that are read must differ; got {NEW}, {NEW} and checkpoint",
        ),
    ):
        with pytest.raises(InputError, match=sentence):
            read_scores(paths, **settings)


@pytest.fixture
def known(tmp_path):
    """Files of samples whose mode is known, so that posteriors are Beta; and how many are old and new."""
    counts = {"sft": {0: (18, 2), 100: (9, 11)}, "rl": {0: (18, 2), 100: (12, 8)}}
    for name, checkpoints in counts.items():
        rows = [
            {"checkpoint": step, OLD: old, NEW: -500.0 - old}
            for step, (num_old, num_new) in checkpoints.items()
            for old in [0.0] * num_old + [-500.0] * num_new
        ]
        write(pd.DataFrame(rows), tmp_path / f"{name}.jsonl")
    return tmp_path, counts


@pytest.mark.slow
def test_the_command_writes_the_posterior_and_its_runs_are_compared(massdrift, known):
    folder, counts = known
    laws = {}
    for name, checkpoints in counts.items():
        out = folder / "out" / name
        arguments = ["--out", out, "--weight-prior", "2", "1.5", "--quiet", "--full"]
        code, printed, error = massdrift("measure-scores", folder / f"{name}.jsonl", *arguments)
        assert (code, error) == (0, "")
        assert "there is no drift" in " ".join(printed.split())
        assert "good" in printed
        figures = {f"{figure}.{form}" for figure in ("old_weight", "density") for form in ("png", "svg")}
        written = {path.name for path in out.iterdir()}
        assert written == {"results.zarr", "summary.csv", "settings.toml", "report.html"} | figures
        table = pd.read_csv(out / "summary.csv", index_col="checkpoint")
        assert list(table.index) == [0, 100]
        for step, (num_old, num_new) in checkpoints.items():
            law = laws[name, step] = stats.beta(2.0 + num_old, 1.5 + num_new)
            found = table.loc[step, ["old_weight", "old_weight_sd", "old_weight_lower", "old_weight_upper"]]
            exact = [law.mean(), law.std(), *law.ppf([0.055, 0.945])]
            np.testing.assert_allclose(found.to_numpy(float), exact, atol=1e-9)
        settings = ["--config", out / "settings.toml", "--out", folder / "x", "--overwrite", "--quiet"]
        again = massdrift("measure-scores", folder / f"{name}.jsonl", *settings)
        assert again[0] == 0
        pd.testing.assert_frame_equal(
            table, pd.read_csv(folder / "x" / "summary.csv", index_col="checkpoint")
        )

    both = folder / "out" / "both"
    runs = [folder / "out" / name for name in counts]
    code, printed, _ = massdrift("compare-runs", *runs, "--out", both, "--weight-rope", "0.05", "--full")
    assert code == 0
    assert "Scores see no drift: the old weight alone is compared" in " ".join(printed.split())
    assert "old drift" not in printed
    assert "nan" not in printed.lower()
    assert {path.name for path in both.iterdir()} >= {"results.zarr", "summary.csv", "runs.png", "runs.svg"}
    row = pd.read_csv(both / "summary.csv", index_col="run").loc["rl"]
    assert not any("drift" in column for column in row.index)
    sft, rl = laws["sft", 100], laws["rl", 100]
    larger = integrate.quad(lambda x: rl.pdf(x) * sft.cdf(x - 0.05), 0.0, 1.0)[0]
    smaller = integrate.quad(lambda x: rl.pdf(x) * sft.sf(x + 0.05), 0.0, 1.0)[0]
    # Of 4,000 stratified draws each.
    assert row["old_weight_better"] == pytest.approx(larger, abs=1e-3)
    assert row["old_weight_equivalent"] == pytest.approx(1.0 - larger - smaller, abs=1e-3)
    assert row["old_weight_difference"] == pytest.approx(rl.mean() - sft.mean(), abs=1e-4)
    # At a checkpoint where both have the same posterior neither is more likely to have kept more.
    assert massdrift("compare-runs", *runs, "--out", both, "--at", "0", "--overwrite")[0] == 0
    row = pd.read_csv(both / "summary.csv", index_col="run").loc["rl"]
    assert row["old_weight_better"] == pytest.approx(0.5, abs=1e-3)

    for options, sentence in (
        (["--at", "matched_gain"], "have no new gap and cannot be compared at one"),
        (["--gain", "0.5"], "have no new gap and cannot be compared at one"),
        (["--drift-rope", "0.1"], "have no drift, and so no rope of it"),
        (["--at", "7"], "a checkpoint that every run has"),
    ):
        code, _, error = massdrift("compare-runs", *runs, "--out", folder / "y", *options)
        assert code == 2
        assert sentence in error
        assert not (folder / "y").exists()


@pytest.mark.slow
def test_scores_and_samples_are_not_compared(known, tmp_path):
    folder, _ = known
    scores = inference.measure_scores(read_scores([folder / "sft.jsonl"]))
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 4.0
    samples = inference.measure(
        old, old, new, num_draws=100, covariance="shared", tails="gaussian", progress=False
    )
    for trees in ({"a": scores, "b": samples}, {"b": samples, "a": scores}):
        with pytest.raises(
            InputError,
            match=r"(a was from scores.* and b from samples|b was from samples.* and a from scores)",
        ):
            inference.compare_runs(trees)


@pytest.mark.slow
def test_a_run_that_is_not_measured_is_said(massdrift, tmp_path):
    write(pd.DataFrame({OLD: np.zeros(30), NEW: np.zeros(30)}), tmp_path / "flat.csv")
    outs = [tmp_path / "out" / name for name in ("one", "two")]
    for out in outs:
        code, printed, _ = massdrift("measure-scores", tmp_path / "flat.csv", "--out", out, "--quiet")
        assert code == 0
        assert "Checkpoint flat is not measured: the scores of old and new hardly differ" in printed
    code, printed, _ = massdrift("compare-runs", *outs, "--out", tmp_path / "both")
    assert code == 0
    assert "The old weight of two is not measured" in printed


@pytest.mark.slow
def test_scores_of_several_tasks_are_measured_and_compared(massdrift, tmp_path):
    """Samples whose task is known: the posterior of the weights is Dirichlet."""
    counts = {"sft": {0: (18, 10, 2), 100: (6, 4, 20)}, "rl": {0: (18, 10, 2), 100: (12, 8, 10)}}
    columns = {"math": "a", "code": "b", "chat": "c"}
    for name, checkpoints in counts.items():
        rows = [
            {"checkpoint": step} | {c: 0.0 if k == task else -500.0 for k, c in enumerate("abc")}
            for step, numbers in checkpoints.items()
            for task, num in enumerate(numbers)
            for _ in range(num)
        ]
        write(pd.DataFrame(rows), tmp_path / f"{name}.jsonl")
    options = [f"--column={task}={column}" for task, column in columns.items()]
    for name, checkpoints in counts.items():
        out = tmp_path / "out" / name
        code, printed, _ = massdrift(
            "measure-scores", tmp_path / f"{name}.jsonl", *options, "--new-task=chat", "--out", out, "--quiet"
        )
        assert code == 0
        assert "What is left of every task, by scores" in printed
        assert {path.name for path in out.iterdir()} >= {"weight.png", "summary.csv", "results.zarr"}
        table = pd.read_csv(out / "summary.csv").set_index(["checkpoint", "task"])
        for step, numbers in checkpoints.items():
            for task, num in zip(columns, numbers, strict=True):
                beta = stats.beta(num + 1, 30 - num + 2)
                row = table.loc[(step, task)]
                assert row["weight"] == pytest.approx(beta.mean(), abs=0.01)
                assert row["weight_sd"] == pytest.approx(beta.std(), rel=0.05)
                assert row["weight_upper"] == pytest.approx(beta.ppf(0.945), abs=0.02)
    both = tmp_path / "both"
    runs = [tmp_path / "out" / name for name in counts]
    code, printed, _ = massdrift("compare-runs", *runs, "--out", both, "--full")
    assert code == 0
    assert "Scores see no drift: weights alone are compared" in " ".join(printed.split())
    row = pd.read_csv(both / "summary.csv").set_index(["run", "task"]).loc[("rl", "math")]
    # By two million draws of both laws.
    rng = np.random.default_rng(0)
    better = np.mean(rng.beta(13, 20, 2_000_000) > rng.beta(7, 26, 2_000_000))
    assert row["weight_better"] == pytest.approx(better, abs=0.02)
    for given, sentence in (
        (["--column=math"], "must be NAME=COLUMN; got 'math'"),
        (["--column=math=a", "--column=math=b"], "must name every task once; got math, math"),
        (["--column=math=a"], "2 to 20 references; got 1"),
        ([*options, "--old-column=a"], "columns are an old_column and a new_column, or several NAME=COLUMN"),
        ([*options, "--new-task=poems"], "new_task must be one of math, code, chat"),
        (["--new-task=x", *options[:1], "--column=law=z"], "must have a column z"),
    ):
        code, _, error = massdrift("measure-scores", tmp_path / "rl.jsonl", *given, "--out", tmp_path / "no")
        assert code == 2
        assert sentence in error
        assert not (tmp_path / "no").exists()
