"""The forward KL on the command line: read from files, written, compared between runs, and refused."""

import numpy as np
import pandas as pd
import pytest

import inference
from inference.measurement.scores.files import read_answers
from mixture_models.validation import InputError

COLUMNS = {"log_base": "base_log_likelihood", "log_run": "run_log_likelihood", "tokens": "length"}


@pytest.fixture
def runs(tmp_path):
    """Scores of two runs, and answers of the base to 30 prompts under each of their checkpoints."""
    rng = np.random.default_rng(0)
    answers = {}
    for name, shift in (("sft", 1.5), ("rl", 0.5)):
        y = rng.normal(size=40)
        scores = [(step, -(v**2) / 2, -((v - 4) ** 2) / 2) for step in (0, 100) for v in y]
        frame = pd.DataFrame(scores, columns=["checkpoint", "old_log_likelihood", "new_log_likelihood"])
        # A run's own answers lie in the file of the scores.
        frame["base_log_likelihood"] = frame["old_log_likelihood"]
        frame["run_log_likelihood"] = frame["old_log_likelihood"]
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        z = rng.normal(size=120)
        rows = [
            {
                "checkpoint": step,
                "prompt": f"p{i // 4}",
                "length": 10 + i % 3,
                "base_log_likelihood": -(v**2) / 2,
                "run_log_likelihood": -((v - shift * step / 100) ** 2) / 2,
            }
            for step in (100, 0)
            for i, v in enumerate(z)
        ]
        answers[name] = pd.DataFrame(rows)
        answers[name].to_json(
            tmp_path / f"{name}_answers.jsonl", orient="records", lines=True, double_precision=15
        )
    return tmp_path, answers


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_answers_are_read_by_checkpoint_with_their_prompts(runs, kind):
    folder, frames = runs
    path = folder / f"a.{kind}"
    frame = frames["sft"]
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    found, prompts = read_answers([path], columns=COLUMNS, prompt="prompt")
    for name, column in COLUMNS.items():
        for step in (0, 100):
            np.testing.assert_array_equal(found[name][step], frame.loc[frame["checkpoint"] == step, column])
    assert list(prompts[0]) == list(frame.loc[frame["checkpoint"] == 0, "prompt"])
    assert read_answers([path], columns=COLUMNS)[1] is None


def test_the_command_writes_it_and_compares_runs_by_it(massdrift, runs):
    folder, frames = runs
    for name, frame in frames.items():
        arguments = ["--sampled-from", "base", "--answers", folder / f"{name}_answers.jsonl"]
        arguments += ["--prompt-column", "prompt", "--token-column", "length", "--out", folder / "out" / name]
        code, printed, error = massdrift("measure-scores", folder / f"{name}.csv", *arguments, "--quiet")
        assert (code, error) == (0, "")
        assert "forward KL" in printed
        row = pd.read_csv(folder / "out" / name / "summary.csv", index_col="checkpoint").loc[100]
        last = frame[frame["checkpoint"] == 100]
        ratio = last["base_log_likelihood"] - last["run_log_likelihood"]
        assert row["forward_kl"] == pytest.approx(ratio.groupby(last["prompt"]).mean().mean(), abs=1e-9)
        per_token = ratio.sum() / last["length"].sum()
        assert row["forward_kl_per_token"] == pytest.approx(per_token, rel=0.02)
        assert row["forward_kl_lower"] < row["forward_kl"] < row["forward_kl_upper"]
        assert (row["num_kl_prompts"], row["kl_words"]) == (30, "good")
        assert (folder / "out" / name / "forward_kl.svg").exists()
        report = (folder / "out" / name / "report.html").read_text()
        assert "There the forward KL of the base from the run is" in report
    both = folder / "both"
    outs = [folder / "out" / name for name in frames]
    code, printed, _ = massdrift("compare-runs", *outs, "--out", both, "--kl-rope", "0.05", "--full")
    assert code == 0
    assert "closer to the" in printed
    assert (both / "forward_kl.png").exists()
    row = pd.read_csv(both / "summary.csv", index_col="run").loc["rl"]
    assert row["forward_kl_better"] > 0.99
    assert row["forward_kl_difference"] < -0.5
    assert "is closer to the base than sft) &gt; 0.99" in (both / "report.html").read_text()
    tree = inference.open(both / "results.zarr")
    assert tree["comparison"]["forward_kl_difference"].attrs["units"] == "nat"


def test_the_samples_of_a_run_may_be_its_answers(massdrift, runs):
    folder, _ = runs
    out = folder / "own"
    code, _, error = massdrift("measure-scores", folder / "sft.csv", "--sampled-from", "run", "--out", out)
    assert (code, error) == (0, "")
    row = pd.read_csv(out / "summary.csv", index_col="checkpoint").loc[100]
    assert row["forward_kl"] == row["reverse_kl"] == 0.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sampled-from", "base"], "answers of the base must be in files of their own"),
        (["--sampled-from", "both"], "sampled_from must be one of base, run; got 'both'"),
        (["--prompt-column", "prompt"], "prompt_column needs sampled_from"),
        (["--answers", "sft_answers.jsonl"], "answers needs sampled_from"),
        (
            ["--sampled-from", "base", "--answers", "sft_answers.jsonl", "--run-column", "none"],
            "must have a column none",
        ),
        (
            ["--sampled-from", "base", "--answers", "sft_answers.jsonl", "--checkpoint-column", "prompt"],
            "must have a column prompt",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(massdrift, runs, monkeypatch, arguments, sentence):
    folder, _ = runs
    monkeypatch.chdir(folder)
    code, _, error = massdrift("measure-scores", "sft.csv", *arguments, "--out", "out")
    assert code == 2
    assert sentence in " ".join(error.split())
    assert not (folder / "out").exists()


def test_a_rope_of_a_kl_that_is_not_there_is_refused(massdrift, runs):
    folder, frames = runs
    for name in frames:
        massdrift("measure-scores", folder / f"{name}.csv", "--out", folder / "out" / name, "--quiet")
    outs = [folder / "out" / name for name in frames]
    code, _, error = massdrift("compare-runs", *outs, "--out", folder / "both", "--kl-rope", "0.1")
    assert code == 2
    assert "no forward KL, and so no rope of it" in error


@pytest.mark.slow
def test_runs_that_were_measured_from_samples_take_the_forward_kl_of_their_scores(massdrift, runs):
    folder, frames = runs
    rng = np.random.default_rng(1)

    def samples(share, n):
        return rng.normal(size=(n, 2)) + 4.0 * (rng.uniform(size=(n, 1)) < share)

    np.savez(folder / "old.npz", samples=samples(1.0, 200))
    np.savez(folder / "new.npz", samples=samples(0.0, 200))
    references = ["--old-reference", folder / "old.npz", "--new-reference", folder / "new.npz"]
    scores = []
    for name, share in (("sft", 0.2), ("rl", 0.7)):
        np.savez(folder / f"{name}.npz", **{"0": samples(0.9, 200), "100": samples(share, 200)})
        out = folder / "measured" / name
        massdrift("measure", folder / f"{name}.npz", *references, "--out", out, "--quiet")
        answers = ["--sampled-from", "base", "--answers", folder / f"{name}_answers.jsonl"]
        answers += ["--prompt-column", "prompt", "--out", folder / "scored" / name, "--quiet"]
        massdrift("measure-scores", folder / f"{name}.csv", *answers)
        scores += ["--scores", f"{name}={folder / 'scored' / name}"]
    outs = [folder / "measured" / name for name in frames]
    both = folder / "both"
    code, _, error = massdrift("compare-runs", *outs, *scores, "--out", both)
    assert (code, error) == (0, "")
    assert (both / "forward_kl.png").exists()
    row = pd.read_csv(both / "summary.csv", index_col="run").loc["rl"]
    alone = pd.read_csv(folder / "scored" / "rl" / "summary.csv", index_col="checkpoint").loc[100]
    # The same law, drawn anew; and drift stands beside it.
    for end in ("", "_lower", "_upper"):
        assert row[f"forward_kl{end}"] == pytest.approx(alone[f"forward_kl{end}"], abs=0.01)
    assert row["forward_kl_better"] > 0.99
    assert {"old_weight", "old_drift"} <= set(row.index)

    code, _, error = massdrift("compare-runs", *outs, *scores[:2], "--out", folder / "one")
    assert code == 0, "of one run alone it is not compared"
    assert "forward_kl" not in pd.read_csv(folder / "one" / "summary.csv").columns
    for given, sentence in (
        (f"other={folder / 'scored' / 'rl'}", "scores must name a run that is compared (sft, rl); got other"),
        (f"rl={folder / 'measured' / 'rl'}", "scored must be a measurement of scores with answers"),
        (f"rl={folder}", "there is no results.zarr in it"),
    ):
        code, _, error = massdrift("compare-runs", *outs, "--scores", given, "--out", folder / "refused")
        assert code == 2
        assert sentence in " ".join(error.split())
    tree = inference.open(folder / "scored" / "rl" / "results.zarr")
    first = inference.open(folder / "measured" / "rl" / "results.zarr")
    with pytest.raises(InputError, match="must be a measurement of samples; got one of kind measurement of"):
        inference.with_forward_kl(tree, tree)
    with pytest.raises(InputError, match="must be known of every measured checkpoint; that of 100 is not"):
        inference.with_forward_kl(first, tree.isel(checkpoint=[0]))
    # Draws in the order of their size would go with the draws of the references, by which runs are compared.
    drawn = inference.with_forward_kl(first, tree)["posterior"]["forward_kl"].to_numpy().reshape(-1, 2)[:, 1]
    assert abs(np.corrcoef(np.arange(len(drawn)), drawn)[0, 1]) < 0.15
