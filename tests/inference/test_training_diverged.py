"""Replicates that diverge are flagged at their step, and leave the others alone."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_runs import assert_same, diverged_steps, run, variables

from mixture_models import ForwardKL, Objective, objectives, two_mode_learner
from mixture_models.losses.loss import Loss


@partial(jax.tree_util.register_dataclass, data_fields=["threshold", "in_loss"], meta_fields=["base"])
@dataclass
class Explosive(Loss):
    """Forward KL whose reported loss is a uniform draw; above ``threshold`` gradient or loss is infinite."""

    threshold: Any = 2.0
    in_loss: Any = 0.0
    base: ForwardKL = field(default_factory=ForwardKL)

    def with_samples(self, num_samples):
        """Return a copy that sees a batch of ``num_samples`` samples."""
        return replace(self, base=self.base.with_samples(num_samples))

    def loss_with_mutable_state(self, rng_key, param_map, model, guide, *args, **kwargs):
        """Return the draw, with the gradient of the forward KL."""
        loss = self.base.loss(rng_key, param_map, model, guide, *args, **kwargs)
        u = jax.random.uniform(jax.random.fold_in(rng_key, 1))
        explodes = u > self.threshold
        zero = loss - jax.lax.stop_gradient(loss)
        in_gradient = explodes & (self.in_loss == 0.0)
        # √0 is zero with an infinite slope.
        step = jnp.where(in_gradient, jnp.sqrt(jnp.where(in_gradient, zero, 1.0)), zero)
        reported = jnp.where(explodes & (self.in_loss != 0.0), jnp.inf, u)
        return {"loss": step + reported, "mutable_state": None}


def explosive(threshold, in_loss=0.0):
    divergence = Explosive(threshold, in_loss)
    return Objective("explosive", objectives.sft().model, two_mode_learner, divergence, "new data")


@pytest.fixture(scope="module")
def calm():
    """A run that never explodes; its loss at a step is the draw that will decide."""
    return variables(run(explosive(2.0)))


def test_a_diverged_replicate_is_flagged_and_the_others_are_untouched(calm):
    draws = calm["loss"]
    # The threshold that half of the replicates exceed before the last step; it differs from every draw.
    threshold = np.median(draws[:, :-1].max(axis=1))
    above = draws[:, :-1] > threshold
    expected = np.where(above.any(axis=1), above.argmax(axis=1) + 1, -1)
    tree = run(explosive(threshold))
    np.testing.assert_array_equal(diverged_steps(tree), expected)
    assert set(expected) - {-1}
    assert -1 in expected
    values = variables(tree)
    for i, step in enumerate(expected):
        kept = slice(None) if step < 0 else slice(0, step)
        for name in values:
            np.testing.assert_array_equal(values[name][i, kept], calm[name][i, kept], strict=True)
            if step >= 0:
                assert np.all(np.isnan(values[name][i, step:])), name


@pytest.mark.parametrize("in_loss", [0.0, 1.0], ids=["parameters", "loss"])
def test_thinned_records_flag_the_same_steps(calm, in_loss):
    threshold = np.median(calm["loss"][:, :-1].max(axis=1))
    full, thin = (run(explosive(threshold, in_loss), record_every=every) for every in (1, 5))
    np.testing.assert_array_equal(diverged_steps(full), diverged_steps(thin))
    for name, value in variables(full).items():
        np.testing.assert_array_equal(value[:, [0, 5, 10, 12]], variables(thin)[name])


def test_the_update_after_the_last_record_does_not_count(calm):
    # A threshold that some replicate exceeds at the last record only: its update is never used.
    before, last = calm["loss"][:, :-1].max(axis=1), calm["loss"][:, -1]
    i = int((last - before).argmax())
    assert last[i] > before[i]
    tree = run(explosive((last[i] + before[i]) / 2.0))
    assert diverged_steps(tree)[i] == -1
    assert_same(variables(tree), calm, replicates=i)


def check_no_silent_nan(tree):
    """Assert that a replicate is NaN from its diverged step on, finite before, and -1 without any NaN."""
    finite = np.all(
        [np.isfinite(v).reshape(*v.shape[:2], -1).all(axis=2) for v in variables(tree).values()], axis=0
    )
    first = np.where(finite.all(axis=1), -1, (~finite).argmax(axis=1))
    np.testing.assert_array_equal(diverged_steps(tree), first)
    for i, step in enumerate(first):
        if step >= 0:
            assert all(np.all(np.isnan(value[i, step:])) for value in variables(tree).values())


def test_an_infinite_loss_is_flagged_at_its_step(calm):
    threshold = np.median(calm["loss"][:, :-1].max(axis=1))
    check_no_silent_nan(run(explosive(threshold, in_loss=1.0)))


def test_an_infinite_loss_at_the_last_step_is_flagged(calm):
    threshold = np.sort(calm["loss"][:, -1])[-2]
    check_no_silent_nan(run(explosive(threshold, in_loss=1.0)))


@pytest.mark.parametrize("rate", [30.0, 1e3, 1e100, 1e200])
@pytest.mark.parametrize("num_steps", [1, 12])
def test_a_learning_rate_that_is_too_large_is_not_silent(rate, num_steps):
    tree = run(learning_rate=rate, num_steps=num_steps)
    check_no_silent_nan(tree)
    if rate > 1e50 and num_steps == 12:
        assert np.all(diverged_steps(tree) > 0)


def test_divergence_of_one_objective_leaves_the_others(calm):
    tree = run([explosive(0.0), objectives.sft()])
    np.testing.assert_array_equal(diverged_steps(tree, 0), 1)
    np.testing.assert_array_equal(diverged_steps(tree, 1), -1)
    assert_same(variables(tree, 1), variables(run()))
