"""Exact dynamics against independent solutions: SciPy's integrator on gradients by brute force.

The oracle integrates the same equation with another method and another gradient (dense grids of `oracles`,
error below 1e-10) at a tolerance of 1e-9. A wrong sign, metric, pace or direction is off by order 1.
"""

import jax
import numpy as np
import oracles
import pytest
from scipy.integrate import solve_ivp

from inference import gradient_flow, population, population_descent, train
from inference import population_value_and_grad as value_and_grad
from inference.exact import dynamics
from mixture_models import InputError, TwoMode, objectives, theory
from mixture_models.learners import single_mode_learner

TIMES = np.array([0.0, 0.3, 2.0, 15.0, 80.0])

NAMES = ("old_logit", "old_mean", "new_mean")


def gradient(objective, learner, target):
    """Return the gradient by brute force, one vector (φ, m_o, m_n)."""
    replay = 0.3 if "0.3" in objective else 0.0
    if objective.startswith("sft"):
        parts = oracles.forward_kl_gradient(learner, target, replay)
    else:
        parts = oracles.reverse_kl_gradient(learner, target)
    return np.concatenate([np.ravel(parts[name]) for name in NAMES])


def mixture_at(theta, like):
    """Return a mixture with the covariances of another at a vector (φ, m_o, m_n)."""
    weight = 1.0 / (1.0 + np.exp(-theta[0]))
    return like._replace(
        weights=np.array([weight, 1.0 - weight]), means=theta[1:].reshape(2, -1), covariances=like.covariances
    )


def vector(setting):
    return np.concatenate([[np.log(setting.old_weight / (1.0 - setting.old_weight))], *setting[1:3]])


def solution(objective, start, target, metric=None, times=TIMES):
    """Return θ at all times, shape (time, 1 + 2d); ``metric`` multiplies the gradient."""
    p = target.mixture()
    m = np.eye(1 + 2 * len(start.old_mean)) if metric is None else metric
    solved = solve_ivp(
        lambda t, theta: -m @ gradient(objective, mixture_at(theta, p), p),
        (0.0, times[-1]),
        vector(start),
        t_eval=times,
        method="LSODA",
        rtol=1e-9,
        atol=1e-11,
    )
    return solved.y.T


def flat(tree):
    data = tree["population"].to_dataset().isel(objective=0)
    logit = data["old_logit"].to_numpy()[:, None]
    return np.concatenate([logit, data["old_mean"].to_numpy(), data["new_mean"].to_numpy()], axis=1)


def mixtures(*settings):
    return [TwoMode.create(*setting) for setting in settings]


# Flows


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        "sft:replay=0.3",
        "reverse_kl",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("sft", "reverse_kl:replay=0.3")),
    ],
)
def test_the_flow_is_that_of_the_gradient(objective):
    target = oracles.Setting(0.35, np.array([0.0]), np.array([2.4]), 0.7)
    start = oracles.Setting(0.8, np.array([0.3]), np.array([1.7]), 0.7)
    tree = gradient_flow(objectives.parse(objective), *mixtures(start, target), times=TIMES)
    np.testing.assert_allclose(flat(tree), solution(objective, start, target), atol=1e-6)
    assert tree["population"]["integration_error"].max() < 1e-9


# Euclidean in the user's coordinates, where the covariance is no multiple of the identity, and whitened.
@pytest.mark.slow
@pytest.mark.parametrize("metric", ["euclidean", "whitened"])
def test_both_metrics_in_two_dimensions(metric):
    covariance = np.array([[1.0, 0.5], [0.5, 0.8]])
    target = oracles.Setting(0.35, np.array([0.0, 0.5]), np.array([2.0, 0.0]), covariance)
    start = oracles.Setting(0.8, np.array([0.3, 0.2]), np.array([1.5, 1.0]), covariance)
    times = np.array([0.0, 1.0, 6.0])
    tree = gradient_flow(objectives.reverse_kl(), *mixtures(start, target), times=times, metric=metric)
    whitened = np.zeros((5, 5))
    whitened[0, 0], whitened[1:3, 1:3], whitened[3:, 3:] = 1.0, covariance, covariance
    inverse = whitened if metric == "whitened" else None
    expected = solution("reverse_kl", start, target, inverse, times)
    np.testing.assert_allclose(flat(tree), expected, atol=1e-6)


@pytest.mark.slow
def test_metrics_agree_where_the_covariance_is_the_identity_and_only_there():
    target = TwoMode.create(0.4, [0.0, 0.0], [3.0, 0.0])
    start = target.replace(old_weight=0.8, new_mean=[2.0, 1.0])
    times = [1.0, 10.0]
    for covariance, same in ((1.0, True), (2.0, False)):
        pair = [m.replace(covariance=covariance) for m in (start, target)]
        first, second = (
            flat(gradient_flow(objectives.reverse_kl(), *pair, times=times, metric=metric))
            for metric in ("euclidean", "whitened")
        )
        assert np.allclose(first, second, atol=1e-7) == same


@pytest.mark.slow
def test_many_dimensions_are_the_span_of_the_means():
    """In d = 4096 under a rotation and a scaling: the numbers of the plane, and the means in their places."""
    dim, times = 4096, [0.5, 5.0, 40.0]
    target = TwoMode.create(0.4, [0.0, 0.0], [3.0, 0.0])
    start = target.replace(old_weight=0.8, old_mean=[0.3, 0.1], new_mean=[2.0, 1.0])
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(dim, 2)))[0]
    deviations = rng.uniform(0.5, 2.0, dim)
    origin = rng.normal(size=dim)

    def placed(m):
        means = [origin + deviations * (plane @ mean) for mean in (m.old_mean, m.new_mean)]
        return TwoMode.create(None, *means, deviations**2, old_logit=m.old_logit)

    trees = [
        gradient_flow(objectives.reverse_kl(), *pair, times=times, metric="whitened")
        for pair in ((start, target), (placed(start), placed(target)))
    ]
    small, large = (tree["population"].to_dataset() for tree in trees)
    for name in ("old_weight", "retention", "old_drift", "new_gap", "loss"):
        np.testing.assert_allclose(large[name], small[name], rtol=1e-6, atol=1e-8)
    for name in ("old_mean", "new_mean"):
        expected = origin + deviations * (small[name].to_numpy() @ plane.T)
        np.testing.assert_allclose(large[name], expected, atol=1e-6)


@pytest.mark.slow
def test_sft_with_right_means_empties_the_old_mode_like_one_over_t():
    target = TwoMode.create(0.5, 0.0, 8.0)
    frozen = {"old_mean": 0.0, "new_mean": 0.0}
    times = np.array([100.0, 2000.0, 1e4])
    tree = gradient_flow(objectives.sft(), target, target, times=times, learning_rate_factors=frozen)
    weight = tree["population"]["old_weight"].to_numpy()[0]
    # The same equation with the velocity of `theory`, by integrals that share nothing with the flow's.
    exact = solve_ivp(
        lambda t, logit: theory.sft_logit_velocity(separation=8.0, logit=logit),
        (0.0, times[-1]),
        [0.0],
        t_eval=times,
        rtol=1e-9,
        atol=1e-11,
    )
    np.testing.assert_allclose(np.log(weight / (1.0 - weight)), exact.y[0], atol=1e-6)
    assert weight[1] * times[1] == pytest.approx(1.004, abs=5e-4)
    assert np.all(weight > theory.sft_old_weight_separated(times, 0.5))
    assert np.all(tree["population"]["old_drift"] == 0.0)


@pytest.mark.slow
def test_reverse_kl_ends_at_the_target_however_long_it_is_followed():
    target = TwoMode.create(0.3, [0.0, 1.0], [2.0, 0.0])
    start = target.replace(old_weight=0.9, new_mean=[1.5, 1.0])
    end = gradient_flow(objectives.reverse_kl(), start, target, times=[1000.0])["population"].isel(time=0)
    assert float(end["old_weight"][0]) == pytest.approx(0.3, abs=1e-8)
    assert float(end["old_drift"][0]) < 1e-7
    assert float(end["new_gap"][0]) < 1e-7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("separation", "weight", "end"), [(1.0, 0.9999, 1e5), (1.0, 0.9999, 1e8), (2.0, 1e-4, 1e8)]
)
def test_a_flow_that_has_arrived_stays(separation, weight, end):
    """There the velocity is rounding noise, with which no implicit step of any length converges."""
    target = TwoMode.create(0.5, 0.0, separation)
    start = target.replace(old_weight=weight)
    tree = gradient_flow(objectives.reverse_kl(), start, target, times=[0.97 * end, end], metric="whitened")
    there = tree["population"].isel(objective=0)
    np.testing.assert_allclose(there["old_weight"], 0.5, atol=1e-9)
    np.testing.assert_allclose(there["old_drift"], 0.0, atol=1e-9)
    np.testing.assert_allclose(there["new_gap"], 0.0, atol=1e-9)


@pytest.mark.slow
def test_a_slow_flow_is_not_taken_for_a_rest():
    """At β = 1e-12 the weight's velocity is 3e-11, and after 1e8 has moved the logit by 0.3 %."""
    target = TwoMode.create(0.5, 0.0, 8.0)
    start = target.replace(old_weight=1e-12)
    held = {"old_mean": 0.0, "new_mean": 0.0}
    tree = gradient_flow(
        objectives.reverse_kl(),
        start,
        target,
        times=[1e7, 1e8],
        metric="whitened",
        learning_rate_factors=held,
    )
    exact = solve_ivp(
        lambda t, logit: -theory.weight_gradient(logit, 0.0, 8.0),
        (0.0, 1e8),
        [float(start.old_logit)],
        t_eval=[1e7, 1e8],
        rtol=1e-10,
        atol=1e-12,
    ).y[0]
    np.testing.assert_allclose(tree["population"]["old_logit"][0], exact, atol=1e-6)


@pytest.mark.slow
def test_free_means_are_followed_to_a_million():
    """From right means at δ = 2 the old mode walks over: the weight stays, what it stands for is gone."""
    target = TwoMode.create(0.5, 0.0, 2.0)
    tree = gradient_flow(objectives.sft(), target, target, times=[10.0, 1e6])["population"]
    assert float(tree["old_weight"][0, 1]) == pytest.approx(0.27, abs=0.01)
    assert abs(float(tree["retention"][0, 1])) < 1e-3
    early = solution(
        "sft", *[oracles.Setting(0.5, np.array([0.0]), np.array([2.0]))] * 2, times=np.array([0.0, 10.0])
    )
    assert float(tree["old_logit"][0, 0]) == pytest.approx(early[1, 0], abs=1e-6)


# Settings and programs


@pytest.mark.slow
def test_settings_are_flows_of_their_own_in_one_program(compilations):
    targets = [TwoMode.create(weight, 0.0, 3.0) for weight in (0.2, 0.4, 0.7)]
    start = TwoMode.create(0.9, 0.1, 2.5)
    chosen = [objectives.sft(replay=0.1), objectives.sft(replay=0.4)]
    times = [
        1.0,
        2.0,
        3.0,
        5.0,
        6.0,
        6.5,
        7.0,
    ]  # as many as nowhere else, or the program may be there
    flows = []
    compiled = compilations(lambda: flows.append(gradient_flow(chosen, start, targets, times=times)))
    assert sum("_integrate" in message for message in compiled) == 1
    together = flows[0]
    data = together["population"].to_dataset()
    assert data["old_weight"].dims == ("objective", "setting", "time")
    for index, target in enumerate(targets):
        alone = gradient_flow(chosen[1], start, target, times=times)["population"].to_dataset()
        row = data.isel(objective=1, setting=index)
        np.testing.assert_allclose(row["old_mean"], alone["old_mean"][0], atol=1e-7)
        np.testing.assert_allclose(row["loss"], alone["loss"][0], atol=1e-7)
    assert float(together["constant_data"]["target_old_logit"][2]) == targets[2].old_logit


@pytest.mark.slow
def test_more_settings_than_a_chunk_holds(monkeypatch):
    monkeypatch.setattr(dynamics, "_CHUNK", 2)
    targets = [TwoMode.create(0.2 + 0.1 * i, 0.0, 3.0) for i in range(5)]
    options = {"num_steps": 20, "learning_rate": 0.1, "record_every": 7}
    tree = population_descent(objectives.reverse_kl(), targets[0], targets, **options)["population"]
    assert tree["old_weight"].shape == (1, 5, 4)
    alone = population_descent(objectives.reverse_kl(), targets[0], targets[4], **options)["population"]
    np.testing.assert_allclose(tree["old_weight"][0, 4], alone["old_weight"][0], atol=1e-12)


# Descent


@pytest.mark.slow
def test_descent_takes_the_exact_gradient_in_steps():
    target = TwoMode.create(0.35, [0.0, 0.0], [2.4, 0.0], [0.7, 1.3])
    start = target.replace(old_weight=0.8, new_mean=[1.7, 0.4])
    objective, rate, factors = objectives.reverse_kl(), 0.2, {"new_mean": 0.5}
    tree = population_descent(
        objective,
        start,
        target,
        num_steps=5,
        learning_rate=rate,
        record_every=2,
        learning_rate_factors=factors,
    )
    data = tree["population"].to_dataset().isel(objective=0)
    np.testing.assert_array_equal(data["step"], [0, 2, 4, 5])
    np.testing.assert_allclose(data["time"], rate * data["step"])
    learner, losses = start, []
    for step in range(6):
        value, g = value_and_grad(objective, learner, target)
        if step in (0, 2, 4, 5):
            losses.append(value)
            row = data.sel(time=rate * step, method="nearest")
            np.testing.assert_allclose(row["old_mean"], learner.old_mean, atol=1e-10)
            np.testing.assert_allclose(row["new_mean"], learner.new_mean, atol=1e-10)
            assert float(row["old_logit"]) == pytest.approx(float(learner.old_logit), abs=1e-10)
        learner = learner.replace(
            old_logit=float(learner.old_logit - rate * g.old_logit),
            old_mean=learner.old_mean - rate * g.old_mean,
            new_mean=learner.new_mean - 0.5 * rate * g.new_mean,
        )
    np.testing.assert_allclose(data["loss"], losses, atol=1e-10)


@pytest.mark.slow
def test_descent_tends_to_the_flow_at_first_order():
    target = TwoMode.create(0.35, 0.0, 2.4)
    start = target.replace(old_weight=0.8, new_mean=1.7)
    exact = flat(gradient_flow(objectives.reverse_kl(), start, target, times=[4.0]))
    errors = []
    for num_steps in (40, 80):
        tree = population_descent(
            objectives.reverse_kl(), start, target, num_steps=num_steps, learning_rate=4.0 / num_steps
        )
        errors.append(np.linalg.norm(flat(tree)[-1] - exact[0]))
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.05)


@pytest.mark.slow
def test_training_scatters_around_the_descent():
    """The mean of many trainings differs from the descent by noise, and by O(rate/batch) where it curves."""
    target = TwoMode.create(0.4, 0.0, 3.0)
    start = target.replace(old_weight=0.8, new_mean=2.5)
    setting = {"num_steps": 50, "learning_rate": 0.02, "record_every": 50}
    chosen = [objectives.sft(replay=0.3), objectives.reverse_kl()]
    exact = population_descent(chosen, start, target, **setting)["population"].to_dataset().isel(time=-1)
    runs = train(chosen, start, target, batch_size=64, num_replicates=400, seed=5, progress=False, **setting)[
        "final"
    ].to_dataset()
    for name in ("old_logit", "old_mean", "new_mean"):
        samples = runs[name].isel(chain=0).to_numpy().reshape(2, 400)
        mean, error = samples.mean(axis=1), samples.std(axis=1, ddof=1) / 20.0
        assert np.all(np.abs(mean - exact[name].to_numpy().reshape(2)) < 5.0 * error)


# The learner of one mode has an exact form too


@pytest.mark.slow
def test_a_single_mode_of_fixed_width():
    frozen = type(single_mode_learner)(train_scale=False)
    target = TwoMode.create(0.6, 0.0, 3.0)
    assert not jax.config.jax_enable_x64
    tree = gradient_flow(objectives.sft(learner=frozen), target, target, times=[1.0, 30.0])
    assert tree["population"]["mean"].dtype == np.float64  # whatever the caller's setting
    # Forward KL of one Gaussian: m' = μ_n - m.
    np.testing.assert_allclose(
        tree["population"]["mean"].to_numpy()[0, :, 0], 3.0 - 3.0 * np.exp([-1.0, -30.0]), atol=1e-7
    )


# What is refused


TARGET = TwoMode.create(0.4, 0.0, 3.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"times": [2.0, 1.0]}, "increasing"),
        ({"times": [-1.0, 1.0]}, "increasing"),
        ({"times": []}, "increasing"),
        ({"times": [0.0]}, "end after 0"),
        ({"times": [np.nan]}, "finite"),
        ({"metric": "natural"}, "metric must be one of euclidean, whitened"),
        ({"rtol": 0.0}, "rtol must be greater than 0"),
        ({"start": [TARGET] * 2, "target": [TARGET] * 3}, "as many settings; got 2 and 3"),
        ({"start": TwoMode.create(0.4, [0.0, 0.0], [3.0, 0.0])}, "one dimension"),
        ({"start": TARGET.replace(covariance=2.0)}, "same covariance"),
        ({"learning_rate_factors": {"mean": 0.0}}, "must name params of the learner"),
        ({"objectives": objectives.sdft()}, "learning_rate must be given"),
        ({"objectives": []}, "at least one Objective"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_one_sentence(changes, words):
    arguments = {"objectives": objectives.sft(), "start": TARGET, "target": TARGET, "times": [1.0]} | changes
    with pytest.raises(InputError, match=words):
        gradient_flow(**arguments)


def test_the_error_of_the_integrals_is_reported():
    found = population(objectives.reverse_kl(), TARGET.replace(old_weight=0.8), TARGET)
    assert 0.0 <= found.error < 1e-10


@pytest.mark.slow
def test_units_do_not_matter():
    """In units a thousand times larger the flow is the same, a million times slower in the means."""
    target = TwoMode.create(0.4, 0.0, 2.0)
    start = target.replace(old_weight=0.8, new_mean=1.5)
    small = [m.replace(old_mean=1e3 * m.old_mean, new_mean=1e3 * m.new_mean) for m in (start, target)]
    small = [m.replace(covariance=1e6) for m in small]
    large = [m.replace(old_mean=1e-3 * m.old_mean, new_mean=1e-3 * m.new_mean) for m in (start, target)]
    large = [m.replace(covariance=1e-6) for m in large]
    for pair in (small, large):
        whitened = gradient_flow(objectives.reverse_kl(), *pair, times=[3.0], metric="whitened")
        plain = gradient_flow(objectives.reverse_kl(), start, target, times=[3.0], metric="whitened")
        np.testing.assert_allclose(
            whitened["population"]["new_gap"], plain["population"]["new_gap"], rtol=1e-6
        )
    steps = {"num_steps": 3, "learning_rate": 1e-7}
    tree = population_descent(objectives.reverse_kl(), *large, **steps)
    assert np.all(np.isfinite(tree["population"]["new_gap"]))
