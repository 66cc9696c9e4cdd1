"""The theory of several tasks against the exact population, simulation, and what is known of two."""

import numpy as np
import pytest
from scipy.special import expit, logit

from inference import population
from mixture_models import InputError, Mixture, TwoMode, objectives, rewards, theory

NAMES = ("a", "b", "c")


def mixture(means, weights, covariance=None):
    return Mixture.create(
        dict(zip(NAMES, means, strict=True)), dict(zip(NAMES, weights, strict=True)), covariance
    )


APART = [[0.0, 0.0], [9.0, 0.0], [4.0, 9.0]]


def test_the_separated_velocity_is_the_populations():
    """Half of the derivative by a logit; a logit of its whole derivative would be off by a factor 2."""
    learner = mixture(APART, (0.5, 0.3, 0.2))
    shares = np.array([0.1, 0.25, 0.65])
    objective = objectives.sft(task="c", replay={"a": 0.1, "b": 0.25})
    gradient = population(objective, learner, learner).gradient
    step = 1e-5
    after = theory.sft_task_weights_separated([step], learner.weights, shares)[0]
    moved = np.log(after) - np.log(learner.weights)
    by_logit = -0.5 * np.asarray(gradient.logits) * step
    np.testing.assert_allclose(moved, by_logit - learner.weights @ by_logit, atol=1e-4 * step)
    np.testing.assert_allclose(gradient.logits, learner.weights - shares, atol=1e-4)


def test_two_tasks_are_the_two_modes():
    times = np.array([0.5, 10.0, 1e4])
    found = theory.sft_task_weights_separated(times, [0.8, 0.2], [0.0, 1.0])[:, 0]
    np.testing.assert_allclose(found, theory.sft_old_weight_separated(times, 0.8), rtol=1e-8)
    wanted = expit(theory.ttt_discover_stationary_logit(0.7, reward_gap=1.5, kl_weight=0.3, eta=1.2))
    found = theory.ttt_discover_task_weights([0.7, 0.3], rewards=[0.0, 1.5], kl_weight=0.3, eta=1.2)
    assert found[0] == pytest.approx(float(wanted), rel=1e-10)
    wanted = expit(theory.oapl_logit_after(3, 0.7, reward_gap=1.5, beta1=0.5, beta2=0.5))
    assert theory.oapl_task_weights(3, [0.7, 0.3], rewards=[0.0, 1.5], beta=0.5)[0] == pytest.approx(
        float(wanted), rel=1e-12
    )
    wanted = theory.starvation_probability(0.3, [[1], [40]], 0.2)
    found = theory.task_starvation_probability([0.3, 0.7], [[1], [40]], [0.2, 0.0])
    np.testing.assert_allclose(found[:, :1], wanted, rtol=1e-12)


@pytest.mark.parametrize("num_tasks", [2, 3, 5])
def test_old_weights_equalise_while_they_die(num_tasks):
    old = np.linspace(1.0, 3.0, num_tasks - 1)
    start = np.append(0.8 * old / old.sum(), 0.2)
    times = np.array([1e7, 1e8])
    weights = theory.sft_task_weights_separated(times, start, np.eye(num_tasks)[-1])
    total = weights[:, :-1].sum(axis=1)
    np.testing.assert_allclose(total, 2.0 * (num_tasks - 1) / (num_tasks * times), rtol=3e-4)
    if num_tasks > 2:
        ratio = np.log(weights[:, -2] / weights[:, 0])
        assert np.log10(ratio[1] / ratio[0]) == pytest.approx(-1.0 / num_tasks, abs=2e-3)


def test_equal_old_tasks_have_a_closed_form():
    times = np.array([0.3, 5.0, 300.0])
    weights = theory.sft_task_weights_separated(times, [0.3, 0.3, 0.3, 0.1], [0.0, 0.0, 0.0, 1.0])
    found = theory.sft_old_weight_of_equal_tasks(times, 0.9, 4)
    np.testing.assert_allclose(weights[:, :3].sum(axis=1), found, rtol=1e-9)


def test_a_bystander_gains_while_a_rare_new_task_rises():
    """It keeps its logit: a weight that only shrank would be below its start throughout."""
    start = np.array([1e-7, 1.0 - 1e-7 - 1e-3, 1e-3])
    weights = theory.sft_task_weights_separated([5.0, 14.0, 100.0], start, [0.0, 0.0, 1.0])
    b = weights[:, 1]
    wanted = np.sqrt(b * (1.0 - b) / (start[1] * (1.0 - start[1])))
    np.testing.assert_allclose(weights[:, 0] / start[0], wanted, rtol=2e-3)
    assert weights[0, 0] > 8.0 * start[0]


def test_a_sequence_is_its_stages():
    stages = [(1, 30.0), (2, 50.0)]
    found = theory.sft_sequence_weights_separated([0.98, 0.01, 0.01], stages)
    assert found.shape == (3, 3)
    first = theory.sft_task_weights_separated([30.0], found[0], [0.0, 1.0, 0.0])[0]
    np.testing.assert_allclose(found[1], first, rtol=1e-10)
    second = theory.sft_task_weights_separated([50.0], first / first.sum(), [0.0, 0.0, 1.0])[0]
    np.testing.assert_allclose(found[2], second, rtol=1e-8)


def test_replays_optimum_is_its_shares_at_every_separation():
    close = mixture([[0.0, 0.0], [1.2, 0.0], [1.0, 2.0]], (0.2, 0.3, 0.5))
    gradient = population(objectives.sft(task="c", replay={"a": 0.2, "b": 0.3}), close, close).gradient
    np.testing.assert_allclose(gradient.logits, 0.0, atol=1e-12)
    flow = theory.sft_task_weights_separated([1e3], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5])
    np.testing.assert_allclose(flow[0], [0.2, 0.3, 0.5], atol=1e-9)


def test_pairs_bound_the_drive_of_right_means():
    """Over random weights and places of the new mean."""
    rng = np.random.default_rng(0)
    scale = 1.3
    largest = 0.0
    for _ in range(12):
        means = rng.normal(size=(3, 2)) * 3.0
        target = mixture(means, rng.dirichlet([2.0] * 3), scale**2)
        moved = means.copy()
        moved[2] += rng.normal(size=2)
        learner = mixture(moved, rng.dirichlet([2.0] * 3), scale**2)
        gradient = population(objectives.reverse_kl(), learner, target).gradient
        drive = scale * np.linalg.norm(np.asarray(gradient.means), axis=1)[:2]
        bound = theory.task_drive_bounds(learner, target).sum(axis=1)[:2]
        assert np.all(drive <= bound * (1.0 + 1e-9))
        largest = max(largest, float(np.max(drive / bound)))
    assert largest > 0.05


def test_a_pair_is_made_of_the_misassignment_bounds_of_two_modes():
    target = TwoMode.create(0.3, [0.0], [2.0])
    learner = target.replace(old_weight=0.6, new_mean=[1.5])
    wanted = 0.6 * (1.5 * theory.misassignment_bound(0.6, 1.5) + 2.0 * theory.misassignment_bound(0.3, 2.0))
    assert theory.task_drive_bounds(learner, target)[0, 1] == pytest.approx(float(wanted), rel=1e-12)


def test_the_nearest_pair_dominates_and_gates_the_drift():
    """At distances 4 and 8 the far pair adds e^-6: the drive is that of the near pair alone."""
    target = mixture([[0.0, 0.0], [4.0, 0.0], [0.0, 8.0]], (0.4, 0.3, 0.3))
    learner = mixture(target.means, (0.6, 0.2, 0.2))
    pairs = theory.task_drive_bounds(learner, target)
    assert pairs[0, 2] / pairs[0, 1] < 0.02
    gradient = population(objectives.reverse_kl(), learner, target).gradient
    along, across = np.abs(np.asarray(gradient.means)[0])
    assert across / along < 2.0 * pairs[0, 2] / pairs[0, 1]
    assert theory.nearest_task(target) == ("b", "a", "a")


def test_starvation_is_that_of_drawn_batches():
    weights, replay, size = np.array([0.7, 0.25, 0.05]), np.array([0.0, 0.0, 0.1]), 12
    rng = np.random.default_rng(1)
    drawn = rng.multinomial(size, 0.9 * weights + replay, size=200_000)
    seen = np.mean(drawn == 0, axis=0)
    wanted = theory.task_starvation_probability(weights, size, replay)
    assert np.all(np.abs(seen - wanted) < 5.0 * np.sqrt(wanted / 200_000) + 1e-5)
    enough = theory.starvation_batch_size(0.05, 1e-3)
    assert 0.95**enough <= 1e-3 < 0.95 ** (enough - 1)
    share = theory.starvation_replay(0.05, 32, 1e-3)
    assert ((1.0 - share) * 0.95) ** 32 == pytest.approx(1e-3, rel=1e-9)
    assert theory.starvation_replay(0.5, 32, 1e-3) == 0.0


@pytest.mark.slow
def test_near_on_policy_rests_are_those_of_the_population():
    start = mixture(APART, (0.5, 0.3, 0.2))
    earned = {"b": 0.4, "c": 1.0}
    reward = rewards.task_reward(earned)
    rest = theory.ttt_discover_task_weights(start.weights, rewards=[0.0, 0.4, 1.0], kl_weight=0.5, eta=1.4)
    objective = objectives.ttt_discover(reward=reward, kl_weight=0.5, eta=1.4)
    found = population(objective, mixture(APART, rest), start, reference=start)
    np.testing.assert_allclose(found.gradient.logits, 0.0, atol=1e-4)
    once = theory.oapl_task_weights(1, start.weights, rewards=[0.0, 0.4, 1.0], beta=0.7)
    objective = objectives.oapl(reward=reward, beta1=0.7, beta2=0.7)
    found = population(objective, mixture(APART, once), start, lagged=start)
    np.testing.assert_allclose(found.gradient.logits, 0.0, atol=1e-4)
    assert population(objective, start, start, lagged=start).gradient.logits[2] < -0.05


def test_without_an_anchor_only_the_best_task_stays():
    found = theory.ttt_discover_task_weights([0.5, 0.3, 0.2], rewards=[0.0, 1.0, 1.0], kl_weight=0.0)
    np.testing.assert_allclose(found, [0.0, 0.6, 0.4], rtol=1e-12)
    kept = theory.ttt_discover_task_weights([0.5, 0.3, 0.2], rewards=[0.0, 1.0, 1.0], kl_weight=0.05)
    assert np.all(kept > 0.0)
    assert kept[0] < 1e-5
    same = theory.ttt_discover_task_weights([0.5, 0.3, 0.2], rewards=[1.0] * 3, kl_weight=0.1)
    np.testing.assert_allclose(same, [0.5, 0.3, 0.2], rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.sft_task_weights_separated([1.0], [0.5, 0.4], [0, 1]), "they sum to 0.9"),
        (
            lambda: theory.sft_task_weights_separated([-1.0], [0.5, 0.5], [0, 1]),
            "times must be an increasing",
        ),
        (
            lambda: theory.sft_task_weights_separated([1.0], [0.5, 0.5], [0, 0, 1]),
            "shares must be one a task",
        ),
        (lambda: theory.sft_sequence_weights_separated([0.5, 0.5], []), "stages must be at least one"),
        (lambda: theory.sft_sequence_weights_separated([0.5, 0.5], [(2, 1.0)]), "must be at most 1; got 2"),
        (lambda: theory.sft_old_weight_of_equal_tasks(1.0, 0.5, 1), "num_tasks must be at least 2"),
        (lambda: theory.task_starvation_probability([0.5, 0.5], 4, [0.9, 0.2]), "it sums to 1.1"),
        (lambda: theory.starvation_batch_size(0.0, 0.1), r"weight must lie in \(0, 1\)"),
        (
            lambda: theory.oapl_task_weights(1, [0.5, 0.5], rewards=[1.0]),
            "rewards must be one a task, 2",
        ),
    ],
)
def test_bad_input_gets_one_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_weight_a_time_has_a_logit_that_only_its_own_law_moves():
    """φ_k - φ_l of two old tasks moves by -½ (β_k - β_l)."""
    step, start = 1e-4, np.array([0.5, 0.3, 0.2])
    after = theory.sft_task_weights_separated([step], start, [0.0, 0.0, 1.0])[0]
    moved = np.log(after[0] / after[1]) - np.log(start[0] / start[1])
    assert moved == pytest.approx(-0.5 * 0.2 * step, rel=1e-3)
    total = logit(after[:2].sum()) - logit(0.8)
    assert total < 0.0
