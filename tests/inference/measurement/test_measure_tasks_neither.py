"""Samples that belong to no task: they are noticed, and a component for them takes them."""

import json

import numpy as np
import pytest
from task_samples import MEANS, references, samples

from inference import measure


@pytest.mark.slow
def test_a_fourth_behaviour_is_not_trusted():
    rng = np.random.default_rng(11)
    means = np.concatenate([MEANS, [[5.0, 6.0, 0.0, 0.0]]])
    tree = measure(
        samples(rng, (0.3, 0.3, 0.2, 0.2), 600, means), references(rng), num_draws=100, progress=False
    )
    said = str(tree["sample_stats"]["words"].item())
    assert said.startswith("not to be trusted")
    assert "one mode a task does not describe the samples" in said


def beyond_of(kind, rng, num):
    """Return samples that belong to no task: spread over all of them, or a cluster that lies apart."""
    if kind == "broad":
        return MEANS.mean(axis=0) + 3.0 * rng.normal(size=(num, 4))
    return np.array([5.0, 6.0, 2.0, 0.0]) + 0.7 * rng.normal(size=(num, 4))


def with_beyond(rng, kinds, num=500):
    """Return checkpoints of which a tenth belongs to no task, or nothing does, and the tasks' weights."""
    run, truth = {}, []
    for place, kind in enumerate(kinds):
        among = rng.dirichlet(np.ones(3))
        count = 0 if kind is None else rng.binomial(num, 0.1)
        here = [samples(rng, among, num - count)]
        here += [] if kind is None else [beyond_of(kind, rng, count)]
        run[place] = rng.permutation(np.concatenate(here))
        truth.append((1.0 if kind is None else 0.9) * among)
    return run, np.array(truth)


def held_by(tree, truth):
    low, high = tree["posterior"]["weight"].quantile([0.055, 0.945], ["chain", "draw"]).to_numpy()
    return (low - 1e-9 <= truth) & (truth <= high + 1e-9)


@pytest.mark.slow
def test_a_component_for_neither_task_takes_what_belongs_to_none():
    rng = np.random.default_rng(25)
    given, kinds = references(rng), ["broad", "broad", "broad", "far", "far", None]
    run, truth = with_beyond(rng, kinds)
    options = dict(method="laplace", num_draws=100, progress=False)
    tree = measure(run, given, neither=True, **options)
    found = tree["posterior"]
    total = found["weight"].sum("task")
    np.testing.assert_allclose(total.mean(["chain", "draw"])[:5], 0.9, atol=0.06)
    np.testing.assert_allclose(found["old_weight"], total - found["weight"].sel(task="new"))
    # Of 15 intervals that hold with 0.89, 10 or fewer do with a probability of 0.015.
    assert held_by(tree, truth)[:5].sum() >= 11
    errors = found["weight"].mean(["chain", "draw"]) - truth
    assert np.sqrt(np.mean(errors**2)) < 0.05
    assert np.all(tree["sample_stats"]["k_hat"] < 0.7)
    assert not any(word.startswith("not") for word in tree["sample_stats"]["weight_words"].to_numpy())
    # Where nothing is there the tasks' weights lose little.
    assert np.all(total.mean(["chain", "draw"])[5:] > 0.85)
    assert json.loads(tree.attrs["settings"])["neither"] is True
    plain = measure({place: run[place] for place in (0, 4)}, given, **options)
    np.testing.assert_allclose(plain["posterior"]["weight"].sum("task"), 1.0)
    assert not any(word == "good" for word in plain["sample_stats"]["weight_words"].to_numpy())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["broad", "far", None])
def test_intervals_hold_with_a_component_for_neither_task(kind):
    covered, errors = [], []
    for world in range(12):
        rng = np.random.default_rng([26, world])
        given = references(rng)
        run, truth = with_beyond(rng, [kind] * 6)
        tree = measure(run, given, neither=True, num_draws=400, seed=world, method="laplace", progress=False)
        covered.append(held_by(tree, truth))
        errors.append(tree["posterior"]["weight"].mean(["chain", "draw"]) - truth)
    # 72 checkpoints: a standard error of 0.037 were the weights of a checkpoint one.
    assert 0.80 < np.mean(covered) < 0.99
    assert abs(np.mean(errors)) < (0.03 if kind is None else 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["broad", "far"])
def test_nuts_agrees_with_the_fast_path_with_a_component_for_neither_task(kind):
    rng = np.random.default_rng(27)
    given = references(rng)
    run, _ = with_beyond(rng, [kind])
    fast, slow = (
        measure(run, given, neither=True, method=method, num_draws=1000, progress=False)
        for method in ("laplace", "nuts")
    )
    assert str(slow["sample_stats"]["method"].item()) == "nuts"
    for name in ("weight", "task_drift"):
        one, two = (t["posterior"][name].isel(checkpoint=0) for t in (fast, slow))
        spread = two.std(["chain", "draw"])
        assert bool(
            (abs(one.mean(["chain", "draw"]) - two.mean(["chain", "draw"])) < 0.3 * spread + 0.02).all()
        )
