"""``massdrift measure`` on texts: one command from completions on disk to a result."""

import numpy as np
import pandas as pd
import pytest
import texts

import inference


@pytest.fixture
def files(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    for task in ("old", "new"):
        texts.write_lines(tmp_path / f"{task}.jsonl", texts.texts_of(task, 150, rng))
    (tmp_path / "completions").mkdir()
    for step, weight in ((10, 0.9), (200, 0.2)):
        table = {
            "step": step,
            "prompt": [f"[bold]question[/bold] {i}" for i in range(200)],
            "completion": texts.mixture_of(weight, 200, rng),
            "reward": 0.0,
        }
        pd.DataFrame(table).to_parquet(tmp_path / "completions" / f"completions_{step:05d}.parquet")
    return tmp_path


def arguments(*more):
    references = ["--old-reference", "old.jsonl", "--new-reference", "new.jsonl"]
    return ["measure", "completions", *references, "--num-draws=200", "--quiet", "--overwrite", *more]


def test_completions_are_measured_by_one_command(massdrift, files, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, printed, error = massdrift(*arguments("--out", "out"))
    assert (code, error) == (0, "")
    table = pd.read_csv(files / "out" / "summary.csv", index_col="checkpoint")
    assert list(table.index) == [10, 200]
    # Four standard errors of a share of 200.
    assert table["old_weight"].to_numpy() == pytest.approx([0.9, 0.2], abs=0.12)
    examples = pd.read_csv(files / "out" / "examples.csv")
    assert {"checkpoint", "reason", "sample_row", "sample_text", "sample_prompt"} <= set(examples.columns)
    first = examples[(examples["checkpoint"] == 200) & (examples["reason"] == "old")]["sample_text"].iloc[0]
    lines = printed.splitlines()
    assert any(" ".join(first.split())[:30] in line for line in lines)
    assert max(map(len, lines[lines.index(next(n for n in lines if "looks like" in n)) :])) <= 110
    tree = inference.open(files / "out" / "results.zarr")
    assert tree.attrs["embedder"] == "ngrams"
    # The features stay in the user's cache folder, and a rerun makes none anew.
    kept = sorted((files / "user" / "massdrift" / "features").rglob("*.npz"))
    written = [path.stat().st_mtime_ns for path in kept]
    assert kept
    assert massdrift(*arguments("--out", "out", "--num-examples=0"))[0] == 0
    again = sorted((files / "user" / "massdrift" / "features").rglob("*.npz"))
    assert [path.stat().st_mtime_ns for path in again] == written
    assert not (files / "out" / "examples.csv").exists()
    code, printed, _ = massdrift(*arguments("--out", "out", "--config", "out/settings.toml"))
    assert code == 0


@pytest.mark.slow
def test_an_embedder_and_columns_are_named(massdrift, files):
    (files / "mine_on_the_command_line.py").write_text(
        "def embed(texts):\n"
        "    return [[len(t), len(set(t)), sum(map(ord, t)) % 97 - t.count('=')] for t in texts]\n"
    )
    named = ["--embedder=mine_on_the_command_line:embed", "--cache=features", "--out=out"]
    assert massdrift(*arguments(*named))[0] == 0
    tree = inference.open(files / "out" / "results.zarr")
    assert tree["posterior"].sizes["feature"] == 3
    assert list((files / "features").rglob("*.npz"))


def test_what_cannot_be_read_is_one_sentence_and_writes_nothing(massdrift, files):
    np.savez(files / "old.npz", samples=np.zeros((5, 2)))
    for more, sentence in (
        (["--text-column=said"], "must have the column said, named as its text; it has "),
        (["--embedder=no_such_module:f"], "the embedder no_such_module:f must be a module and a function"),
        (
            ["--old-reference=old.npz"],
            "must all be texts, or all arrays; completions has texts, old.npz has arrays",
        ),
        (["--new-reference=no.jsonl"], "new_reference must be a file, a folder or a glob of completions"),
    ):
        code, _, error = massdrift(*arguments("--out", "out", *more))
        assert code == 2
        assert sentence in error
        assert error.count("\n") == 1
        assert not (files / "out").exists()
