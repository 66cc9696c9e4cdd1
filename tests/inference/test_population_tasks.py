"""The exact population of several named tasks against dense grids, and what it refuses."""

from functools import partial

import jax
import numpy as np
import oracles
import pytest
import task_oracles
from oracles import MATRIX
from scipy.integrate import solve_ivp

from inference import gradient_flow, population, population_descent
from mixture_models import InputError, Mixture, TwoMode, objectives, rewards
from mixture_models.integrals import tensor_rule

NAMES = ("math", "code", "chat")
LINE = ([[0.0], [2.0], [4.5]], [[0.3], [1.6], [4.0]], None)
PLANE = ([[0.0, 0.2], [2.5, 1.0], [-1.0, 3.0]], [[0.2, -0.3], [2.0, 1.4], [-0.5, 2.2]], MATRIX)
EARNED = {"math": 0.2, "chat": 1.0}


def of(means, weights, covariance, names=NAMES):
    """Return a mixture, and its raw numbers."""
    own = Mixture.create(
        dict(zip(names, means, strict=True)), dict(zip(names, weights, strict=True)), covariance
    )
    dense = oracles.dense(covariance, len(means[0]))
    return own, oracles.Mixture(np.array(weights), np.array(means), np.stack([dense] * len(names)))


def three(setting):
    """Return learner and target of three tasks, and their raw numbers."""
    means, moved, covariance = setting
    target, p = of(means, (0.5, 0.3, 0.2), covariance)
    learner, q = of(moved, (0.2, 0.5, 0.3), covariance)
    return learner, target, q, p


def check(found, value, gradient, tolerance):
    by_logit, by_mean = task_oracles.split(gradient, len(found.gradient.logits))
    assert found.value == pytest.approx(value, abs=tolerance)
    np.testing.assert_allclose(found.gradient.logits, by_logit, atol=tolerance)
    np.testing.assert_allclose(found.gradient.means, by_mean, atol=tolerance)


@pytest.mark.parametrize(
    "setting", [LINE, pytest.param(PLANE, marks=pytest.mark.slow)], ids=["line", "plane"]
)
def test_divergences_of_three_tasks_are_those_of_a_grid(setting):
    learner, target, q, p = three(setting)
    found = population(objectives.reverse_kl(), learner, target)
    check(found, oracles.kl(q, p), task_oracles.reverse_kl_gradient(q, p), 1e-9)
    assert found.error < 1e-9
    shares = {"math": 0.2, "code": 0.1}
    data = p._replace(weights=np.array([0.2, 0.1, 0.7]))
    found = population(objectives.sft(task="chat", replay=shares), learner, target)
    check(found, oracles.kl(data, q), task_oracles.forward_kl_gradient(data, q), 1e-9)


@pytest.mark.slow
def test_one_task_and_tasks_seen_are_what_they_say():
    learner, target, q, p = three(PLANE)
    found = population(objectives.sft(task="code"), learner, target)
    alone = oracles.mode(p, 1)
    check(found, oracles.kl(alone, q), task_oracles.forward_kl_gradient(alone, q), 1e-9)
    found = population(objectives.reverse_kl(tasks=("chat", "math")), learner, target)
    seen = p._replace(weights=np.array([5.0 / 7.0, 0.0, 2.0 / 7.0]))
    check(found, oracles.kl(q, seen), task_oracles.reverse_kl_gradient(q, seen), 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("setting", [LINE, PLANE], ids=["line", "plane"])
@pytest.mark.parametrize("name", ["ttt_discover", "oapl", "sdft"])
def test_near_on_policy_losses_of_three_tasks_are_those_of_a_grid(name, setting):
    learner, target, q, p = three(setting)
    beside, b = of((np.array(setting[0]) + np.array(setting[1])) / 2.0, (0.4, 0.35, 0.25), setting[2])
    earned = np.array([EARNED.get(task, 0.0) for task in NAMES])
    reward = rewards.task_reward(EARNED)
    objective, companion, value = {
        "ttt_discover": (
            objectives.ttt_discover(reward=reward, kl_weight=0.3, eta=1.5),
            "reference",
            lambda q: task_oracles.entropic_utility(q, b, p, earned, eta=1.5, kl_weight=0.3),
        ),
        "oapl": (
            objectives.oapl(reward=reward, beta1=0.8, beta2=0.8),
            "lagged",
            lambda q: task_oracles.advantage_regression(q, b, p, earned, beta=0.8),
        ),
        "sdft": (
            objectives.sdft(divergence=0.4),
            "teacher",
            lambda q: oracles.jensen_shannon(q, b, alpha=0.4),
        ),
    }[name]
    found = population(objective, learner, target, **{companion: beside})
    assert found.value == pytest.approx(value(q), abs=1e-9)
    check(found, value(q), task_oracles.difference(value, q), 3e-7)


@pytest.mark.parametrize("rotated", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_quasi_monte_carlo_is_within_its_error_of_a_grid(rotated, monkeypatch):
    """Six tasks on a lattice: divergences of products are sums of divergences in one dimension."""
    monkeypatch.setattr(tensor_rule, "_MOST_OF_MANY", 0.0)
    jax.clear_caches()
    axes = (([0.0, 2.5], [0.6, 0.4], [0.35, 0.65]), ([0.0, 2.0, 4.5], [0.3, 0.3, 0.4], [0.2, 0.5, 0.3]))
    names = [f"{i}{j}" for i in range(2) for j in range(3)]
    means = np.array([[a, b] for a in axes[0][0] for b in axes[1][0]])
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0][:2] if rotated else np.eye(2)
    mixtures = []
    for k in (1, 2):
        weights = np.outer(axes[0][k], axes[1][k]).ravel()
        mixtures.append(of(means @ turn, weights, None, names)[0])
    ones = [
        [oracles.Mixture(np.array(w), np.array(m)[:, None], np.ones((len(m), 1, 1))) for w in (first, second)]
        for m, first, second in axes
    ]
    wanted = sum(oracles.kl(p, q) for p, q in ones)
    found = population(objectives.reverse_kl(), *mixtures)
    assert 1e-9 < found.error < 1e-3
    assert abs(found.value - wanted) < 3.0 * found.error
    # The derivative by the logits of q = p ⊗ p': E_q[ℓ | task] of each task, less its mean, times its weight.
    per_task = [
        np.array([oracles.expectation(oracles.mode(pair[0], k), partial(ratio, *pair)) for k in range(n)])
        for pair, n in zip(ones, (2, 3), strict=True)
    ]
    joint = (per_task[0][:, None] + per_task[1][None]).ravel()
    slope = mixtures[0].weights * (joint - wanted)
    assert np.max(np.abs(found.gradient.logits - slope)) < 3.0 * found.error
    jax.clear_caches()


def ratio(p, q, y):
    return oracles.log_density(p, y) - oracles.log_density(q, y)


def followed(gradient_of, learner, times):
    """Return the weights and means along φ' = -½ ∂L/∂φ, m' = -∂L/∂m, by LSODA on a grid."""
    num_tasks = len(learner.weights)

    def velocity(_, state):
        logits, means = task_oracles.split(state, num_tasks)
        weights = np.exp(logits - logits.max())
        at = learner._replace(weights=weights / weights.sum(), means=means)
        by_logit, by_mean = task_oracles.split(gradient_of(at), num_tasks)
        return -np.concatenate([0.5 * by_logit, by_mean.ravel()])

    state = np.concatenate([np.log(learner.weights), learner.means.ravel()])
    solved = solve_ivp(velocity, (0.0, times[-1]), state, method="LSODA", t_eval=times, rtol=1e-9, atol=1e-11)
    logits, means = solved.y[:num_tasks].T, solved.y[num_tasks:].T
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True), means


@pytest.mark.slow
def test_the_flow_of_three_tasks_halves_the_updates_of_logits():
    learner, target, q, p = three(LINE)
    times = np.array([0.0, 1.0, 4.0])
    chosen = [objectives.sft(task="chat"), objectives.reverse_kl()]
    tree = gradient_flow(chosen, learner, target, times=times)["population"].to_dataset()
    alone = oracles.mode(p, 2)
    for i, gradient_of in enumerate(
        (
            lambda at: task_oracles.forward_kl_gradient(alone, at),
            lambda at: task_oracles.reverse_kl_gradient(at, p),
        )
    ):
        weights, means = followed(gradient_of, q, times)
        np.testing.assert_allclose(tree["weight"][i], weights, atol=1e-7)
        np.testing.assert_allclose(tree["task_mean"][i, ..., 0], means, atol=1e-7)
        away = np.abs(means - p.means[:, 0])
        np.testing.assert_allclose(tree["task_drift"][i], away, atol=1e-7)
    assert list(tree["task"].to_numpy()) == list(NAMES)
    assert float(tree["integration_error"].max()) < 1e-9


@pytest.mark.slow
def test_a_flow_of_two_named_tasks_is_that_of_two_modes():
    two = TwoMode.create(0.4, [0.0, 0.0], [2.0, 0.5], 1.5)
    start = two.replace(old_weight=0.8, new_mean=[1.2, 1.0])
    named, named_start = (
        Mixture.create(
            {"old": m.old_mean, "new": m.new_mean}, {"old": m.old_weight, "new": 1.0 - m.old_weight}, 1.5
        )
        for m in (two, start)
    )
    times = [0.0, 2.0, 20.0]
    for chosen in ([objectives.reverse_kl()], [objectives.sft()]):
        wanted = gradient_flow(chosen, start, two, times=times, metric="whitened")["population"]
        found = gradient_flow(chosen, named_start, named, times=times, metric="whitened")["population"]
        np.testing.assert_allclose(found["weight"][..., 0], wanted["old_weight"], rtol=1e-7)
        np.testing.assert_allclose(found["task_drift"][..., 1], wanted["new_gap"], atol=1e-7)
        np.testing.assert_allclose(found["task_retention"][..., 0], wanted["retention"], atol=1e-7)
        np.testing.assert_allclose(found["loss"], wanted["loss"], atol=1e-8)


@pytest.mark.slow
def test_a_descent_takes_the_steps_of_training():
    learner, target, q, p = three(LINE)
    tree = population_descent(objectives.reverse_kl(), learner, target, num_steps=2, learning_rate=0.1)
    found = tree["population"].to_dataset().isel(objective=0)
    at = q
    for step in range(1, 3):
        by_logit, by_mean = task_oracles.split(task_oracles.reverse_kl_gradient(at, p), 3)
        weights = at.weights * np.exp(-0.05 * by_logit)
        at = at._replace(weights=weights / weights.sum(), means=at.means - 0.1 * by_mean)
        np.testing.assert_allclose(found["weight"][step], at.weights, rtol=1e-9)
        np.testing.assert_allclose(found["task_mean"][step], at.means, atol=1e-9)


def seven():
    names = [f"task {k}" for k in range(7)]
    mixture, _ = of([[float(k)] for k in range(7)], [1.0 / 7.0] * 7, None, names)
    return mixture


@pytest.mark.parametrize(
    ("objective", "learner", "target", "message"),
    [
        (objectives.reverse_kl(), seven(), seven(), "at most 6 tasks; got 7"),
        (
            objectives.sft(task="art"),
            three(LINE)[0],
            three(LINE)[1],
            "task must be one of math, code, chat; got 'art'",
        ),
        (
            objectives.reverse_kl(tasks=("math", "art")),
            three(LINE)[0],
            three(LINE)[1],
            "task must be one of math, code, chat; got 'art'",
        ),
        (objectives.sft(), three(LINE)[0], three(LINE)[1], "task must be one of math, code, chat; got 'new'"),
        (
            objectives.reverse_kl(),
            TwoMode.create(0.5, 0.0, 1.0),
            three(LINE)[1],
            "learner must have the target's tasks math, code, chat",
        ),
        (
            objectives.ttt_discover(),
            three(LINE)[0],
            three(LINE)[1],
            "mode_reward must have a target of the tasks old and new; got the tasks math, code, chat",
        ),
    ],
)
def test_what_is_not_there_is_refused_in_one_sentence(objective, learner, target, message):
    with pytest.raises(InputError, match=message):
        population(objective, learner, target)
