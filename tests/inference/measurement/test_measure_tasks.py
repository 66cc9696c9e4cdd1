"""Weights and drifts of several tasks: what was simulated, NUTS, quadrature, the measurement of two."""

import numpy as np
import pytest
from scipy import stats
from task_samples import MEANS, NAMES, on_simplex, references, samples

from inference import measure
from inference.measurement.tasks.measure_tasks import TaskSettings, measure_tasks


@pytest.mark.parametrize("truth", [(0.5, 0.2, 0.3), (0.97, 0.0, 0.03)])
def test_weights_with_the_modes_at_their_references_are_those_of_quadrature(truth):
    rng = np.random.default_rng(5)
    means, shapes = MEANS[:, :2], np.array([2.0, 1.0, 3.0])
    given = references(rng, 20_000, means)
    y = samples(rng, truth, 120, means)
    tree = measure(
        {"0": y},
        given,
        covariance="unequal",
        tails="gaussian",
        weight_prior=shapes,
        displacement_scale=1e-4,
        num_draws=4000,
        progress=False,
    )
    density = np.stack(
        [stats.multivariate_normal(r.mean(0), np.cov(r.T)).pdf(y) for r in given.values()], axis=1
    )
    weights, jacobian = on_simplex(300)
    log_posterior = np.log(density @ weights.T).sum(axis=0) + np.log(weights) @ (shapes - 1.0)
    mass = np.exp(log_posterior - log_posterior.max()) * jacobian
    mass /= mass.sum()
    mean = mass @ weights
    sd = np.sqrt(mass @ (weights - mean) ** 2)
    found = tree["posterior"]["weight"].isel(checkpoint=0)
    error = sd / np.sqrt(4000 * float(tree["sample_stats"]["efficiency"][0]))
    # References of 20,000 leave the means within 0.007.
    assert np.all(np.abs(found.mean(["chain", "draw"]) - mean) < 5 * error + 0.04 * sd)
    np.testing.assert_allclose(found.std(["chain", "draw"]), sd, rtol=0.1)
    np.testing.assert_allclose(
        tree["posterior"]["old_weight"].isel(checkpoint=0), found.sel(task=["math", "code"]).sum("task")
    )


@pytest.fixture(scope="module")
def measured():
    rng = np.random.default_rng(6)
    given = references(rng)
    moved = MEANS + np.array([[0.0, 0.0, 1.0, 0.0], [0.0] * 4, [0.0] * 4])
    run = {"0": samples(rng, (0.5, 0.4, 0.1), 400), "9": samples(rng, (0.3, 0.02, 0.68), 400, moved)}
    return run, given, measure(run, given, num_draws=200, progress=False)


def test_what_is_measured_is_what_was_simulated(measured):
    _, _, tree = measured
    found, stats_of = tree["posterior"], tree["sample_stats"]
    np.testing.assert_allclose(
        found["weight"].mean(["chain", "draw"]), [[0.5, 0.4, 0.1], [0.3, 0.02, 0.68]], atol=0.08
    )
    assert found["weight"].dims == ("chain", "draw", "checkpoint", "task")
    assert found["displacement"].dims == ("chain", "draw", "checkpoint", "task", "feature")
    np.testing.assert_allclose(found["weight"].sum("task"), 1.0)
    assert float(found["task_drift"].sel(checkpoint=9, task="math").mean()) == pytest.approx(1.0, abs=0.3)
    assert float(found["task_drift"].sel(checkpoint=9, task="new").mean()) < 0.15
    moved = found["displacement"].sel(checkpoint=9, task="math").mean(["chain", "draw"])
    np.testing.assert_allclose(moved, [0.0, 0.0, 1.0, 0.0], atol=0.35)
    assert list(stats_of["weight_words"].to_numpy()) == ["good", "good"]
    for group in tree.children.values():
        for name, variable in group.variables.items():
            assert {"long_name", "units"} <= set(variable.attrs), name


@pytest.mark.slow
def test_neither_the_order_of_tasks_nor_an_affine_map_changes_anything(measured):
    run, given, tree = measured
    rng = np.random.default_rng(7)
    mapped, shift = rng.normal(size=(4, 4)), 10.0 * rng.normal(size=4)

    def there(y):
        return y @ mapped + shift

    backwards = {name: there(given[name])[::-1] for name in reversed(NAMES)}
    other = measure({k: there(y) for k, y in run.items()}, backwards, num_draws=200, progress=False)
    assert list(other["posterior"]["task"].to_numpy()) == list(reversed(NAMES))
    same = other["posterior"].to_dataset().sel(task=list(NAMES))
    for name in ("weight", "task_drift"):
        np.testing.assert_allclose(same[name], tree["posterior"][name], rtol=1e-6, atol=1e-6)
    displaced = tree["posterior"]["displacement"].to_numpy() @ mapped
    np.testing.assert_allclose(same["displacement"], displaced, rtol=1e-6, atol=1e-6)
    assert list(other["sample_stats"]["words"].to_numpy()) == list(tree["sample_stats"]["words"].to_numpy())


def test_what_is_streamed_is_measured_alike(measured):
    run, given, tree = measured
    streamed = measure(run, given, num_draws=200, memory=6e3, progress=False)
    assert list(streamed["sample_stats"]["streamed"].to_numpy()) == [1, 1]
    for name in ("weight", "task_drift"):
        np.testing.assert_allclose(streamed["posterior"][name], tree["posterior"][name], rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_two_tasks_by_name_are_the_measurement_of_two():
    rng = np.random.default_rng(8)
    given = references(rng, 200, MEANS[:2], ("math", "code"))
    run = samples(rng, (0.6, 0.4), 300, MEANS[:2])
    options = dict(num_draws=100, progress=False, weight_prior=(1.0, 2.0))
    plain = measure(run, given["math"], given["code"], **options)
    named = measure(run, {"new": given["code"], "old": given["math"]}, **options)
    assert named["posterior"].to_dataset().identical(plain["posterior"].to_dataset())
    tasks = measure(run, given, **options)
    # The second is the new one where none is named so, and the old comes first in the prior.
    posterior = tasks["posterior"]
    np.testing.assert_array_equal(posterior["weight"].sel(task="math"), plain["posterior"]["old_weight"])
    np.testing.assert_array_equal(posterior["task_drift"].sel(task="code"), plain["posterior"]["new_gap"])
    assert "old_weight" not in posterior
    turned = measure(run, given, new_task="math", **options | {"weight_prior": (2.0, 1.0)})
    other = measure(run, given["code"], given["math"], **options)
    np.testing.assert_array_equal(turned["posterior"]["old_weight"], other["posterior"]["old_weight"])
    np.testing.assert_array_equal(
        turned["posterior"]["displacement"].sel(task="code"), other["posterior"]["old_displacement"]
    )
    assert list(turned["posterior"]["task"].to_numpy()) == ["math", "code"]


@pytest.mark.slow
def test_two_tasks_have_the_posterior_of_two_modes():
    rng = np.random.default_rng(9)
    given = references(rng, 1000, MEANS[:2], ("old", "new"))
    run = samples(rng, (0.3, 0.7), 600, MEANS[:2] + np.array([[0.0, 0.0, 0.8, 0.0], [0.0] * 4]))
    settings = TaskSettings(0, "laplace", "unequal", "gaussian", (1.0, 1.0), 0.5, 2000, 64, False, 0, "new")
    tasks = measure_tasks(run, given, settings, memory=1e9, keep=None, progress=False)
    plain = measure(run, *given.values(), covariance="axis", tails="gaussian", num_draws=2000, progress=False)
    for ours, theirs in (("weight", ("old_weight", "new_weight")), ("task_drift", ("old_drift", "new_gap"))):
        for task, name in zip(("old", "new"), theirs, strict=True):
            one, other = tasks["posterior"][ours].sel(task=task), plain["posterior"][name]
            spread = float(other.std())
            assert float(one.mean()) == pytest.approx(float(other.mean()), abs=0.25 * spread + 0.01)
            assert float(one.std()) == pytest.approx(spread, rel=0.25, abs=0.02)


def test_many_features_are_projected_and_what_moved_outside_is_noticed():
    rng = np.random.default_rng(12)
    means = np.concatenate([MEANS, np.zeros((3, 36))], axis=1)
    given = references(rng, 400, means)
    moved = means.copy()
    moved[:, -1] = 1.0
    run = {
        "still": samples(rng, (0.4, 0.3, 0.3), 400, means),
        "moved": samples(rng, (0.4, 0.3, 0.3), 400, moved),
    }
    tree = measure(run, given, max_features=6, num_draws=100, progress=False)
    assert list(tree["posterior"]["feature"].to_numpy())[:3] == [
        "discriminant_1",
        "discriminant_2",
        "component_1",
    ]
    np.testing.assert_allclose(
        tree["posterior"]["weight"].mean(["chain", "draw"])[0], [0.4, 0.3, 0.3], atol=0.08
    )
    said = tree["sample_stats"]["drift_words"].to_numpy()
    assert "what the projection leaves out" in said[1]
    assert "what the projection leaves out" not in said[0]


@pytest.mark.slow
def test_nuts_agrees_with_the_fast_path(measured):
    run, given, _ = measured
    other = measure({"9": run["9"]}, given, method="nuts", num_draws=1000, progress=False)
    assert str(other["sample_stats"]["method"].item()) == "nuts"
    fast = measure({"9": run["9"]}, given, num_draws=1000, progress=False)
    for name in ("weight", "task_drift"):
        one, two = (t["posterior"][name].isel(checkpoint=0) for t in (fast, other))
        spread = two.std(["chain", "draw"])
        assert bool(
            (abs(one.mean(["chain", "draw"]) - two.mean(["chain", "draw"])) < 0.3 * spread + 0.02).all()
        )


@pytest.mark.slow
@pytest.mark.parametrize(("num", "d"), [(3, 4), (5, 8)])
def test_intervals_hold_the_truth_as_often_as_they_say(num, d):
    covered, drift = [], []
    for world in range(24):
        rng = np.random.default_rng([num, world])
        means = rng.normal(size=(num, d))
        means *= 3.5 / np.sqrt(2.0) / np.linalg.norm(means, axis=1, keepdims=True)
        given = references(rng, 300, means, [f"t{k}" for k in range(num)])
        run, weights, lengths = {}, [], []
        for checkpoint in range(10):
            weights.append(rng.dirichlet(np.ones(num)))
            length = np.where(rng.uniform(size=num) < 0.5, rng.uniform(0.7, 1.2, size=num), 0.0)
            direction = rng.normal(size=(num, d))
            moved = length[:, None] * direction / np.linalg.norm(direction, axis=1, keepdims=True)
            run[checkpoint] = samples(rng, weights[-1], 600, means + moved)
            lengths.append(length)
        tree = measure(run, given, num_draws=400, seed=world, progress=False)
        for name, truth, kept in (("weight", weights, covered), ("task_drift", lengths, drift)):
            low, high = tree["posterior"][name].quantile([0.055, 0.945], ["chain", "draw"]).to_numpy()
            kept.append((low - 1e-9 <= truth) & (np.asarray(truth) <= high + 1e-9))
    # 240 checkpoints: a standard error of 0.31/√(240 (K-1)) were all weights independent, of 0.02 at worst.
    assert 0.84 < np.mean(covered) < 0.94
    assert np.mean(drift) > 0.84


@pytest.mark.slow
@pytest.mark.parametrize("seed", [14, 26])
def test_a_behaviour_among_the_tasks_is_measured_whatever_the_prior_bends(seed):
    """Samples of neither task between the modes: no wide scale of displacement had a posterior."""
    rng = np.random.default_rng(seed)
    means = np.array([[0.0, 0.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0], [1.5, 2.5, 0.0, 0.0]])
    references = {name: rng.normal(size=(150, 4)) + mean for name, mean in zip("abc", means, strict=True)}
    weights = rng.dirichlet([1.0, 1.0, 1.0, 1.5])
    mode = rng.choice(4, size=200, p=weights)
    spread = np.where(mode == 3, rng.choice([0.3, 2.0]), 1.0)[:, None]
    y = np.array([*means, [1.5, 1.0, 0.0, 0.0]])[mode] + rng.normal(size=(200, 4)) * spread
    tree = measure(y, references, neither=True, new_task="c", method="laplace", progress=False)
    found = tree["posterior"]["weight"].mean(["chain", "draw"]).to_numpy()[0]
    np.testing.assert_allclose(found, np.bincount(mode, minlength=4)[:3] / 200, atol=0.05)
    assert tree["sample_stats"]["words"].item().startswith("not to be trusted")
