"""The samples of a measurement that are worth a look."""

import numpy as np
import pytest

from inference import measure
from inference.measurement.examples import Said, examples
from mixture_models import InputError


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
    assert list(known["reason"].to_numpy()) == ["old", "new", "neither", "old drift", "new gap"]


@pytest.mark.slow
def test_more_examples_than_samples_are_none(arrays):
    run, old, new = arrays
    tree = measure(run[:, :12], old, new, num_draws=400, progress=False)
    rows = examples(tree, run[:, :12], num=20)["sample_row"].sel(reason="old").to_numpy()
    assert (np.sort(rows, axis=1)[:, 8:] == np.arange(12)).all()
    assert (rows[:, 12:] == -1).all()
    with pytest.raises(InputError, match="the number of examples must be at least 1; got 0"):
        examples(tree, run, num=0)


@pytest.mark.slow
def test_examples_of_projected_features_are_in_the_frame_of_the_projection():
    rng = np.random.default_rng(3)
    old, new = rng.normal(size=(300, 20)), rng.normal(size=(300, 20)) + 1.2
    run = np.concatenate([rng.normal(size=(150, 20)), rng.normal(size=(150, 20)) + 1.2])[None]
    tree = measure(run, old, new, max_features=5, num_draws=400, progress=False)
    found = examples(tree, run, num=100)
    assert (found["sample_row"].sel(reason="old") < 150).mean() > 0.95
    assert (found["sample_row"].sel(reason="new") >= 150).mean() > 0.95


def test_examples_of_several_tasks_are_the_nearest_to_each_and_the_farthest_from_all():
    rng = np.random.default_rng(0)
    means = {"math": [0.0, 0.0, 0.0], "code": [5.0, 0.0, 0.0], "chat": [0.0, 5.0, 0.0]}
    references = {name: mean + rng.normal(size=(400, 3)) for name, mean in means.items()}
    run = np.concatenate([mean + rng.normal(size=(150, 3)) for mean in means.values()])
    run[:150] += [0.0, 0.0, 2.0]
    run[7] = [2.0, 2.0, 12.0]
    tree = measure(run, references, covariance="shared", tails="gaussian", num_draws=400, progress=False)
    found = examples(tree, run, num=6).isel(checkpoint=0)
    within = np.cov(np.concatenate([y - y.mean(0) for y in references.values()]), rowvar=False)
    inverse = np.linalg.inv(within)
    posterior = tree["posterior"].to_dataset().isel(checkpoint=0).mean(["chain", "draw"])
    away = [
        run - references[name].mean(0) - posterior["displacement"].sel(task=name).to_numpy() for name in means
    ]
    distances = np.stack([np.sqrt(np.einsum("ni,ij,nj->n", y, inverse, y)) for y in away], axis=1)
    for place, name in enumerate(means):
        shown = found.sel(reason=name)
        np.testing.assert_array_equal(shown["sample_row"], np.argsort(distances[:, place])[:6])
        np.testing.assert_allclose(
            shown["task_distance"].transpose("example", "task"),
            distances[shown["sample_row"].to_numpy()],
            rtol=0.02,
        )
    np.testing.assert_array_equal(
        found["sample_row"].sel(reason="no task"), np.argsort(-distances.min(axis=1))[:6]
    )
    # Of math, which has moved along the third feature, those furthest along it; chat has not moved.
    shift = posterior["displacement"].sel(task="math").to_numpy()
    along = np.where(distances.argmin(axis=1) == 0, away[0] @ inverse @ shift, -np.inf)
    np.testing.assert_array_equal(found["sample_row"].sel(reason="math drift"), np.argsort(-along)[:6])
    assert (found["sample_row"].sel(reason="chat drift") == -1).all()


def test_examples_of_two_tasks_by_name_are_those_of_the_old_and_the_new_mode(arrays):
    run, old, new = arrays
    options = {"num_draws": 400, "progress": False}
    of_modes = examples(measure(run, old, new, **options), run)
    # In another order: the second of two tasks stands for the new one.
    by_name = examples(measure(run, {"after": new, "before": old}, new_task="after", **options), run)
    reasons = {"before": "old", "after": "new", "no task": "neither", "before drift": "old drift"}
    for name, reason in reasons.items():
        np.testing.assert_array_equal(
            by_name["sample_row"].sel(reason=name), of_modes["sample_row"].sel(reason=reason)
        )
    np.testing.assert_allclose(
        by_name["task_distance"].sel(task="after", reason="after"),
        of_modes["new_distance"].sel(reason="new"),
    )
