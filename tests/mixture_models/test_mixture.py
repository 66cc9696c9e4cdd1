"""Mixtures of named tasks: what they are made of, what they refuse, and that two tasks are `TwoMode`."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles import MATRIX

from mixture_models import (
    InputError,
    Mixture,
    TwoMode,
    bhattacharyya,
    mixture_learner,
    objectives,
    overlaps,
    responsibilities,
    rewards,
)
from mixture_models.learners import resolve
from mixture_models.metrics import old_coverage, retention, task_coverage, task_retention
from mixture_models.objectives import parse

pytestmark = pytest.mark.usefixtures("x64")

MEANS = {"math": [0.0, 0.2], "code": [2.5, 1.0], "chat": [-1.0, 3.0]}
WEIGHTS = {"math": 0.5, "code": 0.3, "chat": 0.2}
TASKS = Mixture.create(MEANS, WEIGHTS, MATRIX)
BRUTE = oracles.Mixture(np.array([0.5, 0.3, 0.2]), np.array([*MEANS.values()]), np.stack([MATRIX] * 3))


def test_a_mixture_is_what_was_given():
    assert TASKS.names == ("math", "code", "chat")
    np.testing.assert_allclose(TASKS.weights, [0.5, 0.3, 0.2], rtol=1e-14)
    np.testing.assert_array_equal(TASKS.means, [*MEANS.values()])
    assert float(TASKS.logits.mean()) == pytest.approx(0.0, abs=1e-15)
    assert TASKS.dim == 2
    y = np.random.default_rng(0).normal(size=(7, 2))
    np.testing.assert_allclose(TASKS.law().log_prob(y), oracles.log_density(BRUTE, y), rtol=1e-12)
    np.testing.assert_allclose(responsibilities(TASKS, y), oracles.posterior(BRUTE, y), rtol=1e-12)
    alone = TASKS.mode_law("code")
    np.testing.assert_allclose(alone.log_prob(y), oracles.log_density(oracles.mode(BRUTE, 1), y), rtol=1e-12)


def test_a_weight_far_below_the_others_stays_right():
    mixture = Mixture.create({"a": 0.0, "b": 1.0, "c": 2.0}, {"a": 1e-12, "b": 0.5, "c": 0.5 - 1e-12})
    assert float(mixture.weights[0]) == pytest.approx(1e-12, rel=1e-12)
    at = mixture.at({"scaled_logits": np.array([-2000.0, 0.0, 0.0])})
    assert float(at.log_weights[0]) == pytest.approx(-2000.0 / np.sqrt(2.0) - np.log(2.0), rel=1e-13)


def test_overlaps_are_bhattacharyya_coefficients_of_pairs():
    found = overlaps(TASKS)
    for i, a in enumerate(MEANS.values()):
        for j, b in enumerate(MEANS.values()):
            assert found[i, j] == pytest.approx(bhattacharyya(a, b, MATRIX), rel=1e-12)
    two = TwoMode.create(0.3, [0.0, 1.0], [2.0, 0.0], MATRIX, 0.5)
    wanted = bhattacharyya([0.0, 1.0], [2.0, 0.0], MATRIX, 0.5)
    np.testing.assert_allclose(overlaps(two), [[1.0, wanted], [wanted, 1.0]], rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([("math", 0.0), ("math", 1.0)],), "tasks must have different names; got math more than once"),
        (({"math": 0.0},), "a mixture must have 2 to 20 tasks; got 1"),
        (({str(i): float(i) for i in range(50)},), "a mixture must have 2 to 20 tasks; got 50"),
        (({"a": 0.0, "b": 1.0}, {"a": 0.5, "b": 0.4}), "weights must sum to 1; they sum to 0.9"),
        (({"a": 0.0, "b": 1.0}, {"a": 0.5, "c": 0.5}), "weights must name the tasks a, b; got a, c"),
        (({"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 0.0}), r"the weight of a must lie in \(0, 1\); got 1"),
        (({"a": 0.0, "b": [1.0, 2.0]},), r"all of one shape \(d,\); got \(1,\) of a, \(2,\) of b"),
        (({"a": 0.0, "": 1.0},), "the name of a task must be a text that is not empty; got ''"),
        ((3.0,), "means must map names of tasks to their means; got float"),
        (({"a": 0.0, "b": np.nan},), "the mean of b must be finite"),
        (({"a": 0.0, "b": 1.0}, None, -1.0), "covariance must be positive definite"),
    ],
)
def test_bad_mixtures_are_refused_in_one_sentence(arguments, message):
    with pytest.raises(InputError, match=message):
        Mixture.create(*arguments)


def test_replace_changes_what_is_named_and_nothing_else():
    moved = TASKS.replace(means={"code": [9.0, 9.0]})
    np.testing.assert_array_equal(moved.means[[0, 2]], TASKS.means[[0, 2]])
    np.testing.assert_array_equal(moved.logits, TASKS.logits)
    assert moved != TASKS
    assert TASKS.replace() == TASKS
    with pytest.raises(InputError, match="task must be one of math, code, chat; got 'art'"):
        TASKS.replace(means={"art": [0.0, 0.0]})


def test_the_learner_of_two_modes_is_that_of_any_number():
    assert resolve("mixture") is mixture_learner
    assert resolve("two_mode") is mixture_learner


def test_two_named_tasks_report_what_two_modes_do():
    two = TwoMode.create(0.3, [0.0, 0.2], [2.5, 1.0], MATRIX)
    named = Mixture.create({"old": [0.0, 0.2], "new": [2.5, 1.0]}, {"old": 0.3, "new": 0.7}, MATRIX)
    learner = two.replace(old_weight=0.6, old_mean=[0.5, -0.4], new_mean=[2.0, 1.5]).law()
    kept = jax.jit(task_retention)(learner, named)
    assert float(kept[0]) == pytest.approx(float(jax.jit(retention)(learner, two)), abs=5e-8)
    covered = task_coverage(learner, named)
    assert float(covered[0]) == pytest.approx(float(old_coverage(learner, two)), abs=1e-13)


def test_retention_inverts_the_confusion_of_the_target():
    at = Mixture.create({"math": [0.3, 0.0], "code": [2.0, 1.6], "chat": [0.5, 1.5]}, WEIGHTS, MATRIX)
    learner = BRUTE._replace(means=at.means)

    def claimed(law):
        return oracles.expectation(law, lambda y: oracles.posterior(BRUTE, y))

    confusion = np.stack([claimed(oracles.mode(BRUTE, k)) for k in range(3)], axis=1)
    wanted = np.linalg.solve(confusion, claimed(learner))
    found = jax.jit(lambda mixture: task_retention(mixture.law(), TASKS))(at)
    np.testing.assert_allclose(found, wanted, atol=3e-7)
    assert float(jnp.sum(found)) == pytest.approx(1.0, abs=1e-7)
    right = TASKS.replace(weights={"math": 0.1, "code": 0.2, "chat": 0.7})
    np.testing.assert_allclose(
        jax.jit(lambda mixture: task_retention(mixture.law(), TASKS))(right), [0.1, 0.2, 0.7], atol=1e-7
    )


def test_coverage_is_the_least_squares_fit_of_densities():
    at = TASKS.replace(means={"code": [1.5, 2.0], "math": [0.4, 0.0]})
    learner = BRUTE._replace(means=at.means)
    y, _ = oracles.box(np.full(2, -9.0), np.full(2, 12.0))
    modes = np.exp(np.stack([oracles.log_density(oracles.mode(BRUTE, k), y) for k in range(3)], axis=1))
    wanted = np.linalg.lstsq(modes, np.exp(oracles.log_density(learner, y)), rcond=None)[0]
    np.testing.assert_allclose(task_coverage(at.law(), TASKS), wanted, atol=1e-9)


def test_a_reward_a_task_is_the_mode_reward_for_two():
    y = np.random.default_rng(1).normal(size=(5, 2)) * 2.0
    two = TwoMode.create(0.3, [0.0, 0.2], [2.5, 1.0])
    named = rewards.task_reward({"new": 2.0, "old": -1.0})
    np.testing.assert_allclose(named(y, two, None), rewards.mode_reward(-1.0, 2.0)(y, two, None), rtol=1e-12)
    three = rewards.task_reward({"chat": 1.0})(y, TASKS, None)
    np.testing.assert_allclose(three, oracles.posterior(BRUTE, y)[2], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: objectives.sft(task="a", replay=0.2), "replay must map names of tasks to shares"),
        (lambda: objectives.sft(task="a", replay={"a": 0.2}), "other tasks than the one that is trained on"),
        (
            lambda: objectives.sft(task="a", replay={"b": 0.6, "c": 0.5}),
            r"the sum of replay must lie in \[0, 1\); got 1.1",
        ),
        (lambda: objectives.sft(task=3), "task must be the name of a task; got 3"),
        (lambda: objectives.reverse_kl(tasks=()), "tasks must be different names of tasks"),
        (lambda: objectives.reverse_kl(tasks=("a", "a")), "tasks must be different names of tasks"),
        (lambda: objectives.reverse_kl(replay={"a": -0.1}), "the replay of a must lie in"),
        (lambda: rewards.task_reward({}), "earned must map names of tasks to numbers"),
        (lambda: rewards.task_reward({"a": "much"}), "the reward of a must be a number"),
    ],
)
def test_bad_objectives_of_tasks_are_refused_in_one_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: objectives.sft(task="chat", replay={"math": 0.2, "code": 0.1}),
        lambda: objectives.reverse_kl(tasks=("math", "code"), replay={"math": 0.1}),
        lambda: objectives.ttt_discover(reward=rewards.task_reward({"chat": 1.0, "math": -0.5})),
        lambda: objectives.sdft(demonstrations=Mixture.create(MEANS, WEIGHTS)),
    ],
)
def test_a_text_names_an_objective_of_tasks(make):
    wanted = make()
    found = parse(wanted.name)
    assert found.name == wanted.name
    for a, b in zip(*(jax.tree.leaves(objective.parts) for objective in (found, wanted)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)
