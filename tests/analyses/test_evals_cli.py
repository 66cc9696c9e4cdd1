"""The command `massdrift evals`: from logs to a folder, and what it refuses."""

import evals_logs as logs
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import inference
from analyses import cli, evals
from mixture_models import InputError


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["massdrift", "evals", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return done.value.code or 0


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Logs of two tasks: one answer of four choices to each item, and four free answers."""
    folder, rng = tmp_path_factory.mktemp("logs"), np.random.default_rng(0)
    ability = 2.0 * rng.normal(size=40)
    for arm, shift, chosen in (("base", 0.0, 0), ("sft", -1.0, 1)):
        logs.lm_eval(folder / arm, logs.two_runs(40)[chosen])
        right = rng.uniform(size=(4, 40)) < 1.0 / (1.0 + np.exp(-ability - shift))
        samples = [
            logs.inspect_sample(i, float(right[epoch, i]), epoch=epoch + 1)
            for i in range(40)
            for epoch in range(4)
        ]
        members = logs.inspect_members(samples, logs.inspect_header("free", task_id=arm))
        logs.zipped_by_zstd(folder / arm / "log.eval", members)
    return folder


def test_one_answer_an_item(tmp_path, monkeypatch, capsys):
    for arm, answers in zip(("base", "sft"), logs.two_runs(40), strict=True):
        logs.lm_eval(tmp_path / arm, answers)
    out = tmp_path / "out"
    assert (
        run(monkeypatch, tmp_path / "base", "--run", f"sft={tmp_path / 'sft'}", "--out", out, "--quiet") == 0
    )
    assert "does not tell mass lost from drift" in " ".join(capsys.readouterr().out.split())
    table = pd.read_csv(out / "summary.csv")
    assert table[["task", "arm", "kind", "num_items"]].to_numpy().tolist() == [["mmlu", "sft", "choices", 40]]
    assert (table["forgotten_lower"] <= table["forgotten"]).all()


@pytest.mark.slow
def test_from_two_folders_to_the_answer(tmp_path, folders, monkeypatch, capsys):
    out = tmp_path / "out"
    monkeypatch.setenv("COLUMNS", "80")
    assert run(monkeypatch, folders / "base", "--run", f"sft={folders / 'sft'}", "--out", out, "--quiet") == 0
    said = capsys.readouterr()
    assert max(map(len, said.out.split("What is measured")[0].splitlines())) <= 80
    assert "mmlu" in said.out
    assert "…" not in said.out.split("What is measured")[0]
    assert sorted(path.name for path in out.iterdir()) == [
        "base.png",
        "base.svg",
        "forgetting.png",
        "forgetting.svg",
        "report.html",
        "results.zarr",
        "settings.toml",
        "summary.csv",
        "transitions.png",
        "transitions.svg",
    ]
    table = pd.read_csv(out / "summary.csv").set_index("task")
    assert table["kind"].to_dict() == {"mmlu": "choices", "free": "repeats"}
    assert table["num_items"].to_dict() == {"mmlu": 40, "free": 40}
    assert (table["lost_lower"] <= table["lost"]).all()
    assert table["old_weight"].notna().to_dict() == {"mmlu": False, "free": True}
    # Once more, by the function, with the same seed: the same numbers.
    tree = inference.measure_evals({"base": folders / "base", "sft": folders / "sft"}, progress=False)
    again = evals.summary(tree).set_index("task")
    np.testing.assert_allclose(again["lost"], table["lost"], rtol=1e-6)
    Console(width=80).print(evals.table(inference.open(out / "results.zarr")))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "nowhere does not"),
        (["--run", "sft=nowhere"], "nowhere does not"),
        (["--new-task", "magic", "--run", "sft={sft}"], "new_tasks must name tasks of the logs; got magic"),
        (["--metric", "magic", "--run", "sft={sft}"], "metric must be one"),
    ],
)
def test_one_sentence_and_nothing_written(tmp_path, folders, monkeypatch, capsys, arguments, expected):
    given = [argument.replace("{sft}", str(folders / "sft")) for argument in arguments]
    assert run(monkeypatch, folders / "base", *given, "--out", tmp_path / "out", "--quiet") == 2
    said = capsys.readouterr().err
    assert expected in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_names_of_runs_and_columns():
    assert evals.logs_of(["a", "b"], ["sft=c", "sft=d=e"]) == {"base": ["a", "b"], "sft": ["c", "d=e"]}
    assert evals.logs_of(["a"], []) == ["a"]
    assert evals.columns_of(["item=id"]) == {"item": "id"}
    with pytest.raises(InputError, match="got =x"):
        evals.columns_of(["=x"])
