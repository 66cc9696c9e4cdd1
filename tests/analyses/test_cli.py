"""The command line: what it writes, what it refuses, and that nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from ink import colours
from small_runs import SMALL

import analyses
import inference
from analyses import compare
from analyses.compare.settings import Settings
from analyses.core import figures
from inference.comparison import replicates
from mixture_models import InputError, Objective, objectives


def test_compare_writes_everything_and_its_settings_reproduce_it(massdrift, tmp_path):
    first, second = tmp_path / "deep" / "first", tmp_path / "second"
    code, printed, _ = massdrift(
        "compare", "sft", "reverse_kl:replay=0.1", *SMALL, "--seed=5", "--out", first
    )
    assert code == 0
    assert "reverse_kl" in printed
    assert "final retention" in printed
    assert "nan" not in printed.lower()
    names = {"results.zarr", "summary.csv", "settings.toml", "report.html"}
    names |= {
        f"{n}.{s}" for n in ("old_weight", "old_drift", "frontier", "forward_kl") for s in ("png", "svg")
    }
    assert {path.name for path in first.iterdir()} == names
    for name in ("old_weight", "old_drift", "frontier", "forward_kl"):
        inside = colours(first / name)
        assert all(inside), name
        assert len(set.union(*inside)) >= 2, name
    table = pd.read_csv(first / "summary.csv", index_col="objective")
    assert list(table.index) == ["sft", "reverse_kl:replay=0.1"]
    tree = inference.open(first / "results.zarr")
    assert table.loc["sft", "old_weight"] == pytest.approx(
        tree["final"]["old_weight"].sel(objective="sft").mean()
    )
    assert table.loc["sft", "forward_kl"] > table.loc["reverse_kl:replay=0.1", "forward_kl"] > 0.0
    assert {group for group in tree.children if "forward_kl" in tree[group]} == {
        "trajectory",
        "final",
        "population",
        "descent",
    }

    code, _, _ = massdrift("compare", "--config", first / "settings.toml", "--out", second, "--quiet")
    assert code == 0
    again = inference.open(second / "results.zarr")
    for group in ("trajectory", "final", "comparison"):
        xr.testing.assert_identical(again[group].to_dataset(), tree[group].to_dataset())
    assert (first / "settings.toml").read_text() == (second / "settings.toml").read_text()


@pytest.mark.slow
def test_a_registry_entry_is_compared_and_drawn(massdrift, tmp_path):
    parts = objectives.sft()

    @objectives.register
    def dummy() -> Objective:
        return Objective("", parts.model, parts.guide, parts.loss, "new data")

    try:
        assert Settings().objectives == objectives.by_default()
        assert objectives.by_default()[-1] == "dummy"
        code, printed, _ = massdrift("compare", "sft", "dummy", *SMALL, "--out", tmp_path / "out")
    finally:
        del objectives.registry["dummy"]
    assert code == 0
    assert "dummy" in printed
    tree = inference.open(tmp_path / "out" / "results.zarr")
    for group in ("trajectory", "population", "descent", "deviation"):
        found = tree[group].to_dataset().sel(objective=["sft", "dummy"])
        xr.testing.assert_equal(found.isel(objective=0, drop=True), found.isel(objective=1, drop=True))
    for name in ("old_weight", "old_drift", "frontier", "forward_kl"):
        assert "dummy" in (tmp_path / "out" / f"{name}.svg").read_text()


@pytest.mark.slow
def test_every_registered_objective_is_compared_by_default(massdrift, tmp_path):
    code, printed, _ = massdrift("compare", *SMALL, "--out", tmp_path / "out")
    assert code == 0
    assert "…" not in printed
    table = pd.read_csv(tmp_path / "out" / "summary.csv", index_col="objective")
    assert tuple(table.index) == objectives.by_default()
    assert len(table) == 7
    assert np.isfinite(table[["deviation", "discretisation"]]).all(axis=None)


def test_options_win_over_the_settings_file(tmp_path):
    Settings(num_steps=7, seed=2).write(tmp_path / "settings.toml")
    assert Settings.read(tmp_path / "settings.toml", seed=3) == Settings(num_steps=7, seed=3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["dpo"], f"objective must be one of {', '.join(objectives.registry)}; got 'dpo'"),
        (["sft:reply=0.2"], "the argument of sft must be one of replay, learner, task; got 'reply'"),
        (["sft:replay=1.5"], "replay must lie in [0, 1); got 1.5"),
        (["sft:replay=lots"], "replay must be a number; got 'lots'"),
        (["reverse_kl:estimator=reinforce"], "estimator must be one of score, pathwise; got 'reinforce'"),
        (["sft", "sft"], "objectives must have different names; got sft more than once"),
        (["sft", "sft:learner=single_mode"], "learners that record the same variables"),
        (["reverse_kl", "--batch-size=1"], "needs a batch of at least 2; got 1"),
        (["--config=nowhere.toml"], "a file of settings must be readable TOML; there is no nowhere.toml"),
    ],
)
def test_bad_input_is_one_sentence_exit_code_2_and_no_output(massdrift, tmp_path, arguments, sentence):
    code, printed, error = massdrift("compare", *SMALL, *arguments, "--out", tmp_path / "out")
    assert code == 2
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert printed == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_analysis_writes_its_folder_and_prints_its_table(massdrift, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = massdrift("geometry", "4", "--old-weight=0.4", "--quiet", "--out", out)
    assert code == 0
    assert "measured rate" in printed
    names = {"results.zarr", "summary.csv", "settings.toml", "report.html", "geometry.png", "geometry.svg"}
    assert {path.name for path in out.iterdir()} == names
    assert inference.open(out / "results.zarr").attrs["massdrift_layout"] == 1
    code, _, error = massdrift("geometry", "--quiet", "--out", out)
    assert code == 2
    assert "out must" in error


@pytest.mark.slow
def test_the_settings_of_a_run_give_the_same_run_in_other_formats(massdrift, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    code, printed, error = massdrift("geometry", "3", "5", "--old-weight=0.3", "--quiet", "--out", first)
    assert code == 0, error
    assert (
        first / "settings.toml"
    ).read_text() == "separations = [\n    3.0,\n    5.0,\n]\nold_weight = [\n    0.3,\n]\n"
    options = ["--config", first / "settings.toml", "--format", "pdf", "--quiet", "--out", second]
    code, printed, error = massdrift("geometry", *options)
    assert code == 0, error
    assert "figures as PDF" in printed
    assert {path.name for path in second.iterdir()} == {
        "results.zarr",
        "summary.csv",
        "settings.toml",
        "report.html",
        "geometry.pdf",
    }
    pdf = (second / "geometry.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    # Fonts that journals take: TrueType, no programs.
    assert b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf
    assert (first / "summary.csv").read_text() == (second / "summary.csv").read_text()
    # What is given on the command line wins.
    code, printed, error = massdrift(
        "geometry", "4", "6", *options[:2], "--quiet", "--out", tmp_path / "third"
    )
    assert code == 0, error
    assert set(pd.read_csv(tmp_path / "third" / "summary.csv")["separation"]) == {4.0, 6.0}


def test_settings_and_formats_that_do_not_exist_are_one_sentence(massdrift, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("separation = 3.0")
    code, _, error = massdrift("geometry", "--config", path, "--out", tmp_path / "out")
    assert (code, error) == (2, f"massdrift: {path} may set separations, old_weight; got separation\n")
    code, _, error = massdrift("geometry", "--format", "gif", "--out", tmp_path / "out")
    assert (code, error) == (2, "massdrift: a format must be one of png, svg, pdf; got 'gif'\n")
    code, _, error = massdrift("geometry", "--config", tmp_path / "none.toml", "--out", tmp_path / "out")
    assert code == 2
    assert (
        error
        == f"massdrift: a file of settings must be readable TOML; there is no {tmp_path / 'none.toml'}\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_style_is_put_on_top_of_the_house_style(massdrift, tmp_path):
    path = tmp_path / "paper.mplstyle"
    path.write_text("savefig.dpi: 50\naxes.grid: False\nfigure.constrained_layout.use: True\n")
    widths = {}
    for name, options in {"house": [], "file": ["--style", path], "named": ["--style", "grayscale"]}.items():
        out = tmp_path / name
        code, _, error = massdrift("geometry", "4", "--quiet", "--format=png", "--out", out, *options)
        assert code == 0, error
        widths[name] = plt.imread(out / "geometry.png").shape[1]
    assert widths["house"] == widths["named"] == 3 * widths["file"]
    # The next command draws in the house style again.
    with figures.style():
        assert plt.rcParams["axes.grid"]
    assert plt.rcParams["savefig.dpi"] == "figure"


def test_a_style_that_does_not_exist_or_holds_something_else_is_one_sentence(
    massdrift, tmp_path, monkeypatch
):
    monkeypatch.setattr(analyses.geometry, "run", lambda *a, **k: pytest.fail("computed first"))
    words = {"bad.mplstyle": "axes.grd: True", "no.mplstyle": "axes.grid: perhaps", "x.mplstyle": "\udcff"}
    for name, text in words.items():
        (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    for given in (*words, "nowhere", "https://example.invalid/a.mplstyle", "."):
        style = tmp_path / given if given in words else given
        code, printed, error = massdrift("geometry", "--style", style, "--out", tmp_path / "out")
        assert (code, printed) == (2, ""), error
        assert error.startswith("massdrift: a style")
        assert str(style) in error
        assert len(error.strip().splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_a_bad_settings_file_is_one_sentence(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("learning_rat = 0.1")
    with pytest.raises(InputError, match=r"may set objectives, old_weight.*; got learning_rat$"):
        Settings.read(path)
    path.write_text("learning_rate = ")
    with pytest.raises(InputError, match="must be readable TOML"):
        Settings.read(path)


def test_an_existing_output_is_refused_before_anything_is_computed(massdrift, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    monkeypatch.setattr(compare, "run", lambda *a, **k: pytest.fail("computed first"))
    for options in ([], ["--overwrite"]):  # not even explicitly: it is no earlier result
        code, _, error = massdrift("compare", *SMALL, "--out", out, *options)
        assert code == 2
        assert "out must" in error
        assert (out / "thesis.txt").read_text() == "years of work"


@pytest.mark.slow
def test_an_earlier_output_is_overwritten_explicitly(massdrift, tmp_path):
    out = tmp_path / "out"
    for seed in (1, 2):
        code, _, _ = massdrift("compare", "sft", *SMALL, f"--seed={seed}", "--out", out, "--overwrite")
        assert code == 0
    assert inference.open(out / "results.zarr").attrs["seed"] == 2
    assert list(tmp_path.iterdir()) == [out]


def test_replicates_that_diverge_are_counted_and_left_out(massdrift, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = massdrift("compare", "sft", *SMALL, "--learning-rate=1e200", "--out", out)
    assert code == 0
    assert "n/a" in printed
    assert "nan" not in printed.lower()
    assert "No exact flow beside the trainings: the exact dynamics of sft must stay finite" in " ".join(
        printed.split()
    )
    assert pd.read_csv(out / "summary.csv")["num_diverged"].tolist() == [4]


@pytest.mark.slow
def test_one_replicate_and_one_step_make_a_table(massdrift, tmp_path):
    code, printed, _ = massdrift(
        "compare",
        "sft",
        *SMALL,
        "--num-replicates=1",
        "--num-steps=1",
        "--out",
        tmp_path / "out",
    )
    assert code == 0
    assert "nan" not in printed.lower()


@pytest.mark.slow
def test_a_single_mode_learner_is_compared_too(massdrift, tmp_path):
    objectives = ["sft:learner=single_mode", "reverse_kl:learner=single_mode"]
    code, printed, _ = massdrift("compare", *objectives, *SMALL, "--dimension=1", "--out", tmp_path / "out")
    assert code == 0
    assert "retention" in printed
    assert not (tmp_path / "out" / "old_weight.png").exists()


def test_summary_agrees_with_the_replicates(runs):
    tree = runs.copy()
    tree["comparison"] = xr.DataTree(replicates.compare(tree))
    frame = compare.summary(tree)
    final, trajectory = tree["final"], tree["trajectory"]
    for name in ("sft", "sft:replay=0.2"):
        retention = final["retention"].sel(objective=name).values.ravel()
        assert frame.loc[name, "retention"] == pytest.approx(retention.mean())
        peak = trajectory["old_drift"].sel(objective=name).values[0].max(axis=1)
        assert frame.loc[name, "peak_old_drift"] == pytest.approx(peak.mean())
        assert frame.loc[name, "peak_old_drift_lower"] <= frame.loc[name, "peak_old_drift"]
    first = final["retention"].sel(objective="sft").values.ravel()
    share = np.mean(retention > first) + 0.5 * np.mean(retention == first)
    assert frame.loc["sft:replay=0.2", "probability_retains_more"] == pytest.approx(share)
    assert frame.loc["sft:replay=0.2", "retention_difference"] == pytest.approx((retention - first).mean())


def test_version_and_help(massdrift):
    code, printed, _ = massdrift("--version")
    assert code == 0
    assert printed.startswith("massdrift ")
    code, printed, _ = massdrift("compare", "--help")
    assert code == 0
    assert "sft:replay=0.2" in printed


@pytest.mark.slow
def test_an_interrupted_run_leaves_nothing(tmp_path):
    # A shell lets what runs in its background ignore Ctrl-C, and so do what that starts.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{heard}; from analyses.cli import main; main()"
    command = [sys.executable, "-c", script, "compare", "sft", "--quiet"]
    options = ["--num-steps=2000000", "--record-every=1000", "--out", str(tmp_path / "out")]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, env=os.environ, text=True)
    time.sleep(20.0)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_second_command_finds_what_the_first_compiled(tmp_path):
    # Where the user keeps caches; with nothing in the environment that says otherwise.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    # However long it took to compile them.
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    counts = []
    for name in ("first", "second", "third"):
        if name == "third":  # a command that was killed while it wrote
            for entry in (tmp_path / "cache").rglob("*-cache"):
                entry.write_bytes(entry.read_bytes()[:100])
        options = ["--num-steps=5", "--num-replicates=2", "--out", str(tmp_path / name)]
        script = "from analyses.cli import main; main()"
        command = [sys.executable, "-c", script, "compare", "sft", "--quiet", *options]
        ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        assert "persistent" not in ended.stderr
        counts.append(len([path for path in (tmp_path / "cache").rglob("*-cache")]))
    assert 0 < counts[0] == counts[1] == counts[2]


@pytest.mark.slow
def test_json_is_the_answer_and_the_summary_for_scripts(massdrift, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = massdrift("compare", "sft", "reverse_kl", *SMALL, "--json", "--out", out)
    assert code == 0
    told = json.loads(printed)
    assert told["command"] == "compare"
    assert told["out"] == str(out)
    assert [row["objective"] for row in told["summary"]] == ["sft", "reverse_kl"]
    table = pd.read_csv(out / "summary.csv", index_col="objective")
    assert told["summary"][0]["old_weight"] == pytest.approx(table.loc["sft", "old_weight"], rel=1e-12)
    assert any(line.startswith("sft keeps ") for line in told["answer"])
    # A command that writes nothing has it too.
    code, printed, _ = massdrift("plan", "sft", "--num-steps=20", "--quiet", "--json")
    assert code == 0
    assert json.loads(printed)["summary"][0]["objective"] == "sft"
