"""A run measured by what its checkpoints wrote."""

import arviz as az
import numpy as np
import pytest
import texts

import inference
from inference import measure_generations
from inference.measurement.generations.measure_generations import embed_generations
from mixture_models import InputError

WEIGHTS = (0.1, 0.5, 0.85)


def written(folder, seed, *, num=400, references=250):
    """Write a run of known old weights and its references; return their places."""
    rng = np.random.default_rng(seed)
    for step, weight in enumerate(WEIGHTS):
        rows = [
            {"completion": text, "prompt": f"p{i}", "id": f"id-{step}-{i}"}
            for i, text in enumerate(texts.mixture_of(weight, num, rng))
        ]
        texts.write_lines(folder / "run" / f"step-{step}.jsonl", rows)
    for task in ("old", "new"):
        texts.write_lines(folder / f"{task}.jsonl", texts.texts_of(task, references, rng))
    return folder / "run", folder / "old.jsonl", folder / "new.jsonl"


def covered(tree):
    """Return for every checkpoint whether the 89 % interval holds the truth, and the error of the mean."""
    draws = (
        tree["posterior"]["old_weight"].stack(all=("chain", "draw")).transpose("checkpoint", "all").to_numpy()
    )
    low, high = np.quantile(draws, [0.055, 0.945], axis=1)
    return (low <= WEIGHTS) & (high >= WEIGHTS), draws.mean(axis=1) - WEIGHTS


@pytest.mark.slow
def test_a_run_is_measured_by_its_texts(tmp_path):
    run, old, new = written(tmp_path, 0)
    options = {"num_draws": 400, "progress": False, "cache": tmp_path / "cache"}
    tree = measure_generations(run, old, new, **options)
    assert np.abs(covered(tree)[1]).max() < 0.1  # four standard errors of a share of a half of 400
    assert list(tree["posterior"]["checkpoint"].to_numpy()) == [0, 1, 2]
    assert tree.attrs["embedder"] == "ngrams"
    assert all(words.startswith("good") for words in tree["sample_stats"]["weight_words"].to_numpy())
    # Texts, prompts and ids are those of the rows.
    shown = tree["examples"].to_dataset()
    generations = inference.read_generations(run)
    for index in range(3):
        completions = generations.load(index)
        one = shown.isel(checkpoint=index).stack(all=("reason", "example"))
        for row, *said in zip(
            *(one[name].to_numpy() for name in ("sample_row", "sample_text", "sample_prompt", "sample_id")),
            strict=True,
        ):
            expected = ["", "", ""] if row < 0 else [column[row] for column in completions[:3]]
            assert said == expected
        is_old = ["def " not in text for text in one.sel(reason="old")["sample_text"].to_numpy()]
        assert all(is_old)
    # The same from what is kept, from what was read, and by a result on disk.
    again = measure_generations(generations, old, new, **options)
    np.testing.assert_array_equal(*(t["posterior"]["old_weight"].to_numpy() for t in (tree, again)))
    for suffix in ("zarr", "nc"):
        opened = inference.open(inference.save(tree, tmp_path / f"result.{suffix}"))
        assert opened["examples"].to_dataset().equals(shown)
    assert az.summary(tree, group="posterior", var_names=["old_weight"], kind="stats").shape[0] == 3


@pytest.mark.slow
def test_intervals_hold_the_known_weight(tmp_path):
    """Of 36 intervals of 89 %, 32 are expected to hold it and fewer than 26 come by chance once in 500."""
    hits, errors = [], []
    for seed in range(12):
        run, old, new = written(tmp_path / str(seed), 100 + seed)
        hit, error = covered(measure_generations(run, old, new, num_draws=400, progress=False))
        hits += list(hit)
        errors += list(error)
    assert np.sum(hits) >= 26
    assert abs(np.mean(errors)) < 0.012  # four standard errors: of one mean about 0.02, of twelve runs


def test_prompts_are_carried_along_with_the_features(tmp_path):
    run, old, new = written(tmp_path, 0, num=20, references=40)
    embedded = embed_generations(run, old, new, progress=False)
    assert embedded.prompts == {step: [f"p{i}" for i in range(20)] for step in range(3)}
    assert {name: len(rows) for name, rows in embedded.samples.items()} == {0: 20, 1: 20, 2: 20}


@pytest.mark.slow
def test_rows_without_text_are_left_out_and_counted(tmp_path):
    run, old, new = written(tmp_path, 1)
    path = run / "step-1.jsonl"
    path.write_text('{"completion": ""}\n' + path.read_text())
    options = {"num_draws": 400, "progress": False}
    with pytest.raises(InputError, match=r"step-1.jsonl, row 1, must have a text as its completion"):
        measure_generations(run, old, new, **options)
    tree = measure_generations(run, old, new, drop_missing=True, **options)
    assert tree.attrs["num_dropped"] == 1
    assert list(tree["sample_stats"]["num_samples"].to_numpy()) == [400, 400, 400]
    rows = tree["examples"]["sample_row"].sel(checkpoint=1).to_numpy()
    assert 0 not in rows
    assert rows.max() > 0


@pytest.mark.slow
def test_a_function_embeds_too(tmp_path):
    run, old, new = written(tmp_path, 2)

    def embed(given):
        return [[text.count("="), text.count("def"), len(text), text.count(".")] for text in given]

    def noisy(given):  # features that vary
        return np.array(embed(given)) + [
            [hash(text + str(i)) % 997 / 997 for i in range(4)] for text in given
        ]

    tree = measure_generations(run, old, new, embedder=noisy, num_draws=400, progress=False, num_examples=0)
    assert tree["posterior"].sizes["feature"] == 4
    assert tree.attrs["embedder"].endswith("noisy")
    assert "examples" not in tree.children


def test_texts_are_measured_against_references_of_several_tasks(tmp_path):
    rng = np.random.default_rng(5)
    tasks = {"math": "old", "code": "new", "chat": "chat"}
    references = {
        name: texts.write_lines(tmp_path / f"{name}.jsonl", texts.texts_of(style, 200, rng))
        for name, style in tasks.items()
    }
    shares = {"math": 60, "code": 120, "chat": 120}
    run = [text for name, num in shares.items() for text in texts.texts_of(tasks[name], num, rng)]
    texts.write_lines(tmp_path / "run.jsonl", run)
    options = {"num_draws": 100, "progress": False}
    tree = measure_generations(tmp_path / "run.jsonl", references, new_task="chat", **options)
    weight = tree["posterior"]["weight"].mean(["chain", "draw"]).isel(checkpoint=0)
    for name, num in shares.items():
        assert float(weight.sel(task=name)) == pytest.approx(num / 300, abs=0.05)
    rows = tree["examples"]["sample_row"].isel(checkpoint=0)
    assert (rows.sel(reason="math") < 60).all()
    assert (rows.sel(reason="chat") >= 180).all()
    with pytest.raises(InputError, match="new_task must be one of math, code, chat; got 'poems'"):
        measure_generations(tmp_path / "no.jsonl", references, new_task="poems", **options)
