"""A run measured by what its checkpoints wrote, and the samples of a measurement that are worth a look."""

import arviz as az
import numpy as np
import pytest
import texts

import inference
from inference import measure, measure_generations
from inference.measurement.examples import REASONS, Said, examples
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


@pytest.fixture(scope="module")
def arrays():
    """A run of arrays: one checkpoint's old mode has moved across the axis, one sample is far out."""
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(400, 3)), rng.normal([5.0, 0.0, 0.0], size=(400, 3))

    def samples(shift):
        is_old = rng.uniform(size=(300, 1)) < 0.5
        return rng.normal(size=(300, 3)) + np.where(is_old, [0.0, shift, 0.0], [5.0, 0.0, 0.0])

    run = np.stack([samples(0.0), samples(1.5)])
    run[0, 17] = [2.5, 0.0, 30.0]
    return run, old, new


def test_examples_are_the_nearest_the_farthest_and_those_along_the_drift(arrays):
    run, old, new = arrays
    tree = measure(*arrays, covariance="shared", tails="gaussian", num_draws=400, progress=False)
    found = examples(tree, run, num=4)
    posterior = tree["posterior"].to_dataset().mean(["chain", "draw"])
    within = np.cov(np.concatenate([old - old.mean(0), new - new.mean(0)]), rowvar=False) * 799 / 798
    for index, y in enumerate(run):
        one, moved = found.isel(checkpoint=index), posterior.isel(checkpoint=index)
        modes = [
            old.mean(0) + moved["old_displacement"].to_numpy(),
            new.mean(0) + moved["new_displacement"].to_numpy(),
        ]
        inverse = np.linalg.inv(within)
        distances = np.stack(
            [np.sqrt(np.einsum("ni,ij,nj->n", y - m, inverse, y - m)) for m in modes], axis=1
        )
        for mode, name in enumerate(("old", "new")):
            order = np.argsort(distances[:, mode])[:4]
            np.testing.assert_array_equal(one["sample_row"].sel(reason=name), order)
            np.testing.assert_allclose(
                one[f"{name}_distance"].sel(reason=name), distances[order, mode], rtol=0.02
            )
        np.testing.assert_array_equal(
            one["sample_row"].sel(reason="neither"), np.argsort(-distances.min(axis=1))[:4]
        )
    assert found["sample_row"].sel(checkpoint=0, reason="neither", example=0) == 17
    # Along the second feature; a mode that has not moved has no direction.
    shift = posterior["old_displacement"].isel(checkpoint=1).to_numpy()
    assert shift[1] > 1.0
    side = distances.argmin(axis=1) == 0
    along = np.where(side, (run[1] - modes[0]) @ inverse @ shift, -np.inf)
    np.testing.assert_array_equal(
        found["sample_row"].sel(checkpoint=1, reason="old drift"), np.argsort(-along)[:4]
    )
    assert (found["sample_row"].sel(checkpoint=0, reason="old drift") == -1).all()
    assert (found["sample_row"].sel(reason="new gap") == -1).all()


def test_examples_of_pieces_and_of_rows_that_were_dropped_are_numbered_as_the_rows(arrays, monkeypatch):
    run, old, new = arrays
    run = np.concatenate([np.full((2, 2, 3), np.nan), run], axis=1)
    tree = measure(
        run, old, new, covariance="shared", tails="gaussian", num_draws=400, progress=False, drop_missing=True
    )
    whole = examples(tree, run)
    assert whole["sample_row"].sel(checkpoint=0, reason="neither", example=0) == 19
    monkeypatch.setattr("inference.measurement.samples.stored._NUMBERS", 60)
    assert examples(tree, run).equals(whole)
    known = examples(tree, run, said=lambda index: Said(ids=[f"{index}-{i}" for i in range(302)]))
    assert known["sample_id"].sel(checkpoint=0, reason="neither", example=0) == "0-19"
    assert "sample_text" not in known
    assert list(known["reason"].to_numpy()) == list(REASONS)


def test_more_examples_than_samples_are_none(arrays):
    run, old, new = arrays
    tree = measure(run[:, :12], old, new, num_draws=400, progress=False)
    rows = examples(tree, run[:, :12], num=20)["sample_row"].sel(reason="old").to_numpy()
    assert (np.sort(rows, axis=1)[:, 8:] == np.arange(12)).all()
    assert (rows[:, 12:] == -1).all()
    with pytest.raises(InputError, match="the number of examples must be at least 1; got 0"):
        examples(tree, run, num=0)


def test_examples_of_projected_features_are_in_the_frame_of_the_projection():
    rng = np.random.default_rng(3)
    old, new = rng.normal(size=(300, 20)), rng.normal(size=(300, 20)) + 1.2
    run = np.concatenate([rng.normal(size=(150, 20)), rng.normal(size=(150, 20)) + 1.2])[None]
    tree = measure(run, old, new, max_features=5, num_draws=400, progress=False)
    found = examples(tree, run, num=100)
    assert (found["sample_row"].sel(reason="old") < 150).mean() > 0.95
    assert (found["sample_row"].sel(reason="new") >= 150).mean() > 0.95
