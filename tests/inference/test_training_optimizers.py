"""Optimizers, and the factors of learning rates."""

import numpy as np
import optax
import pytest
from training_runs import START, run, variables

ADAM = optax.adam(0.01)


@pytest.mark.slow
def test_plain_sgd_is_the_default():
    explicit = run(optimizer=optax.sgd(0.1), learning_rate=77.0)
    for name, value in variables(run()).items():
        np.testing.assert_allclose(variables(explicit)[name], value, rtol=1e-12)


def test_an_optimizer_takes_the_place_of_sgd_and_factors_act_on_its_updates():
    # Adam's first step has the size of its own rate in every coordinate, whatever the gradient.
    values = variables(run(optimizer=ADAM, learning_rate=77.0, learning_rate_factors={"new_mean": 0.005}))
    for name, size in (("old_logit", 0.01), ("old_mean", 0.01), ("new_mean", 5e-5)):
        np.testing.assert_allclose(np.abs(values[name][:, 1] - values[name][:, 0]), size, rtol=1e-4)


# One set of names, so that the factors share a program.


def factored(old_logit=1.0, old_mean=1.0):
    return variables(run(learning_rate_factors={"old_logit": old_logit, "old_mean": old_mean}))


def test_a_factor_of_zero_freezes_bit_for_bit():
    values = factored(0, 0.0)
    assert np.all(values["old_mean"] == START.old_mean)
    assert np.all(values["old_logit"] == START.old_logit)
    assert np.all(values["new_mean"][:, 1:] != START.new_mean)


def test_a_factor_scales_the_update_of_its_parameter_alone():
    plain, values = variables(run()), factored(old_mean=0.5)
    change, half = (v["old_mean"][:, 1] - v["old_mean"][:, 0] for v in (plain, values))
    np.testing.assert_allclose(half, 0.5 * change, rtol=1e-12)
    for name in ("old_logit", "new_mean"):
        np.testing.assert_allclose(values[name][:, 1], plain[name][:, 1], rtol=1e-14)


def test_factors_of_one_change_nothing():
    plain, neutral = variables(run()), factored()
    for name in plain:
        np.testing.assert_allclose(neutral[name], plain[name], rtol=1e-10, atol=1e-12)
