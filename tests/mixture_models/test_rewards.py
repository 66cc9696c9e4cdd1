"""Rewards: their values, how a user's own is called, their text, and what is refused."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from inference import train
from inference.engine.programs import program_of
from mixture_models import InputError, TwoMode, objectives
from mixture_models.losses.advantage_regression import AdvantageRegression
from mixture_models.losses.entropic import EntropicUtility
from mixture_models.mixture.task import TwoTasks
from mixture_models.rewards import (
    linear_reward,
    log_ratio_reward,
    mode_reward,
    registry,
    resolve,
    rewards_of,
)

MATRIX = [[1.0, 0.5], [0.5, 0.8]]
TARGET = TwoMode.create(0.4, [0.5, -0.2], [2.0, 1.0], MATRIX)
MIXTURE = oracles.two_modes(0.4, [0.5, -0.2], [2.0, 1.0], MATRIX)
Y = np.random.default_rng(0).normal(1.0, 1.5, size=(7, 2))


def values(reward, reference=None):
    with jax.enable_x64(True):
        law = (TARGET if reference is None else reference).law()
        return np.asarray(rewards_of(resolve(reward), jnp.asarray(Y), (TARGET, TARGET), law))


def test_the_mode_reward_is_the_responsibilities_mean_of_two_rewards():
    expected = np.array([0.3, 2.0]) @ oracles.posterior(MIXTURE, Y)
    np.testing.assert_allclose(values(mode_reward(0.3, 2.0)), expected, rtol=1e-12)


def test_the_mode_reward_is_flat_on_each_mode():
    apart = TwoMode.create(0.4, 0.0, 12.0)
    with jax.enable_x64(True):
        y = jnp.array([[-2.0], [0.0], [2.0], [10.0], [12.0], [14.0]])
        reward = np.asarray(mode_reward(-1.0, 3.0)(y, apart, apart.law()))
    np.testing.assert_allclose(reward, [-1.0, -1.0, -1.0, 3.0, 3.0, 3.0], atol=1e-9)


def test_the_log_ratio_reward_uses_the_reference():
    reference = TARGET.replace(old_weight=0.9, new_mean=[1.0, 1.0])
    q = oracles.two_modes(0.9, [0.5, -0.2], [1.0, 1.0], MATRIX)
    expected = oracles.log_density(MIXTURE, Y) - oracles.log_density(q, Y)
    np.testing.assert_allclose(values(log_ratio_reward(), reference), expected, rtol=1e-9)
    np.testing.assert_allclose(values(log_ratio_reward()), 0.0, atol=1e-12)


def test_the_linear_reward_rises_by_its_slope_a_unit_of_distance_toward_the_new_mode():
    # Zero at the old mean, slope times the separation at the new one, and flat across the axis.
    old, new = MIXTURE.means
    inverse = np.linalg.inv(MATRIX)
    separation = np.sqrt((new - old) @ inverse @ (new - old))
    across = np.linalg.solve(np.stack([inverse @ (new - old), [1.0, 0.0]]), [0.0, 1.0])
    with jax.enable_x64(True):
        y = jnp.asarray(np.stack([old, new, old + 2.5 * across]))
        reward = np.asarray(linear_reward(-1.5)(y, TARGET, TARGET.law()))
    np.testing.assert_allclose(reward, [0.0, -1.5 * separation, 0.0], atol=1e-12)


def test_a_users_own_reward_is_called_with_what_it_takes():
    expected = np.sin(Y[:, 0])
    np.testing.assert_allclose(values(lambda y: jnp.sin(y[:, 0])), expected, rtol=1e-12)
    np.testing.assert_allclose(
        values(lambda y, target, reference: jnp.sin(y[:, 0]) + target.dim), expected + 2.0, rtol=1e-12
    )
    np.testing.assert_allclose(values(lambda y, scale=2.0: scale * y[:, 1]), 2.0 * Y[:, 1], rtol=1e-12)
    # Whole numbers are rewards too.
    np.testing.assert_array_equal(values(lambda y: jnp.asarray(y[:, 0] > 1.0, int)), Y[:, 0] > 1.0)


def test_no_gradient_flows_through_a_reward():
    def total(y):
        return jnp.sum(rewards_of(mode_reward(), y, (TARGET,), TARGET.law()))

    np.testing.assert_array_equal(jax.grad(total)(jnp.asarray(Y, jnp.float32)), 0.0)


REFUSED = {
    "no function": (3.0, "must be a function of (y) or of (y, target, reference); got 3.0"),
    "a function of two": (lambda y, target: y, "got one of (y, target)"),
    "a function of none": (lambda: 0.0, "got one of ()"),
    "an unknown name": ("best", "reward must be one of mode_reward, log_ratio_reward, linear_reward"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_reward_is_refused(case):
    reward, message = REFUSED[case]
    for constructor in (objectives.ttt_discover, objectives.oapl):
        with pytest.raises(InputError) as caught:
            constructor(reward=reward)
        assert message in str(caught.value)


def test_a_reward_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"one number a sample, shape \(7,\); got shape \(7, 2\)"):
        values(lambda y: y)
    with pytest.raises(InputError, match=r"got shape \(\)"):
        values(lambda y: jnp.mean(y))


def test_a_reward_needs_a_target():
    with pytest.raises(
        InputError, match="needs a TwoMode or a Mixture as target, the last positional argument"
    ):
        rewards_of(mode_reward(), jnp.asarray(Y), (), TARGET.law())


def test_rewards_are_pytrees_of_numbers_and_written_as_calls():
    texts = {"mode_reward": "mode_reward(0.0,1.0)", "log_ratio_reward": "log_ratio_reward()"}
    texts["linear_reward"] = "linear_reward(1.0)"
    assert {name: str(make()) for name, make in registry.items()} == texts
    assert mode_reward(1, 2) == mode_reward(1.0, 2.0) != mode_reward(1.0, 2.5)
    one, two = (program_of(mode_reward(0.0, new)) for new in (1.0, 2.0))
    assert one.static == two.static
    assert len(one.numbers) == 2
    with pytest.raises(InputError, match="new must be finite"):
        mode_reward(0.0, np.inf)
    with pytest.raises(InputError, match="slope must be a number"):
        linear_reward("steep")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [EntropicUtility, AdvantageRegression])
def test_a_loss_made_by_hand_takes_a_users_function(kind):
    """As the constructors do: `train` asks it what a reward must say."""

    def near_new(y):
        return -jnp.abs(y[:, 0])

    by_name = {EntropicUtility: "ttt_discover", AdvantageRegression: "oapl"}[kind]
    objective = replace(objectives.parse(by_name), loss=kind(near_new))
    assert objective.loss.reward.given is near_new
    with pytest.raises(InputError, match="an exact form needs a reward with the methods modes and steepness"):
        objective.loss.exact()
    settings = {"num_steps": 1, "batch_size": 8, "learning_rate": 0.1, "num_replicates": 1, "seed": 0}
    tree = train(objective, TARGET, TARGET, **settings)
    assert np.isfinite(tree["final"]["old_weight"]).all()


def test_a_linear_reward_needs_the_places_of_the_modes():
    class Elsewhere(TwoTasks):
        """An old and a new task without means."""

        def law(self):
            raise NotImplementedError

        def mode_law(self, mode):
            raise NotImplementedError

        def log_odds(self, y):
            raise NotImplementedError

    with pytest.raises(InputError, match="linear_reward must have a TwoMode as target; got a Elsewhere"):
        linear_reward(1.0).check(Elsewhere())
    elsewhere = Elsewhere()
    assert mode_reward().check(elsewhere) is elsewhere
