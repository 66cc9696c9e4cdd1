"""The training engine: reproducible, paired, thinned, safe from divergence, compiled once, and checked."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import oracles
import pytest
from jax.tree_util import Partial
from numpyro.infer import Trace_ELBO

from inference import train
from inference.engine import chunks
from inference.training import replicates
from mixture_models import (
    ForwardKL,
    InputError,
    Objective,
    SingleModeLearner,
    TwoMode,
    TwoModeLearner,
    objectives,
    two_mode_learner,
)
from mixture_models.losses.loss import Loss
from mixture_models.objectives import new_data

# Equal shapes everywhere, so that most tests share one compiled program an objective: 1-D, one variance,
# batch 8, 6 replicates, and at most 20 records.
TARGET = TwoMode.create(old_weight=0.4, old_mean=0.0, new_mean=3.0)
START = TARGET.replace(old_weight=0.8, old_mean=0.3, new_mean=2.0)
PARAMS = ("old_logit", "old_mean", "new_mean")


def run(chosen=None, start=START, target=TARGET, **changes):
    arguments = {
        "num_steps": 12,
        "batch_size": 8,
        "learning_rate": 0.1,
        "num_replicates": 6,
        "seed": 4,
        "progress": False,
    }
    return train(objectives.sft() if chosen is None else chosen, start, target, **(arguments | changes))


def variables(tree, objective=0):
    """Return every recorded variable as (replicate, step, ...)."""
    data = tree["trajectory"].to_dataset().isel(objective=objective, chain=0)
    return {name: data[name].to_numpy() for name in data.data_vars}


def diverged_steps(tree, objective=0):
    return tree["trajectory_stats"]["diverged_step"].isel(objective=objective, chain=0).to_numpy()


def assert_same(a, b, replicates=slice(None)):
    """Assert equality bit for bit, NaN included."""
    assert set(a) == set(b)
    for name in a:
        assert a[name][replicates].tobytes() == b[name][replicates].tobytes(), name


# Random numbers


def test_equal_seeds_give_equal_numbers_and_others_differ():
    first, again, other = (variables(run(seed=seed)) for seed in (6, 6, 7))
    assert_same(first, again)
    for name in PARAMS:
        assert not np.any(first[name][:, 1:] == other[name][:, 1:])


def test_neighbouring_seeds_beyond_the_whole_numbers_of_floats_differ():
    first, second = (variables(run(objectives.sft(), num_steps=2, seed=2**63 - i), 0) for i in (1, 2))
    assert np.all(first["loss"] != second["loss"])


def test_replicates_differ_from_each_other_and_start_equal():
    values = variables(run())["old_logit"]
    assert np.all(values[:, 0] == START.old_logit)
    assert len(np.unique(values[:, 1])) == len(values)


@pytest.mark.slow
def test_fewer_replicates_are_the_first_of_more():
    # 8, and the first of 20; and of 70, which are trained in three chunks of 24. Other programs: round-off.
    few = variables(run(num_replicates=8))
    for more in (20, 70):
        for name, value in variables(run(num_replicates=more)).items():
            assert len(value) == more
            np.testing.assert_allclose(value[:8], few[name], rtol=1e-12, atol=1e-12)
            assert name not in PARAMS or len(np.unique(value[:, -1])) == more


def test_the_number_of_cores_is_irrelevant(monkeypatch):
    plain = variables(run(num_replicates=70))
    for cores in (1, 3):
        monkeypatch.setattr(chunks, "num_threads", lambda cores=cores: cores)
        assert_same(variables(run(num_replicates=70)), plain)


def test_each_step_sees_a_fresh_batch():
    # At parameters that do not move, one repeated batch would give one loss.
    losses = variables(run(learning_rate=1e-12))["loss"]
    assert np.all(np.abs(np.diff(losses, axis=1)) > 1e-6)


def test_common_random_numbers_pair_the_objectives():
    chosen = [objectives.sft(replay=0.3), replace(objectives.sft(replay=0.3), name="again")]
    chosen.append(objectives.sft(replay=0.3 + 1e-7))
    tree = run(chosen)
    assert tree.attrs["common_random_numbers"] == 1
    assert_same(variables(tree, 0), variables(tree, 1))
    for name in PARAMS:
        np.testing.assert_allclose(variables(tree, 2)[name], variables(tree, 0)[name], atol=1e-5)
    apart = run(chosen, common_random_numbers=False)
    assert apart.attrs["common_random_numbers"] == 0
    for name in PARAMS:
        one, two, three = (variables(apart, i)[name][:, 1:] for i in range(3))
        assert not np.any((one == two) | (two == three))
    assert_same(variables(apart, 0), variables(tree, 0))


def test_an_objective_gives_the_same_numbers_alone_and_in_company():
    together = run([objectives.sft(replay=0.3), objectives.sft()])
    assert_same(variables(together, 1), variables(run(objectives.sft())))


def test_the_callers_settings_of_jax_are_kept_and_irrelevant():
    assert not jax.config.jax_enable_x64
    plain = variables(run())
    for scope in (jax.enable_x64(True), jax.threefry_partitionable(False), jax.threefry_partitionable(True)):
        with scope:
            before = jax.config.jax_enable_x64, jax.config.jax_threefry_partitionable
            assert_same(variables(run()), plain)
            assert (jax.config.jax_enable_x64, jax.config.jax_threefry_partitionable) == before
    with pytest.raises(InputError, match="must name params of the learner"):
        run(learning_rate_factors={"nothing": 1.0})
    assert not jax.config.jax_enable_x64
    assert all(value.dtype == np.float64 for value in plain.values())


def test_the_callers_kind_of_keys_is_irrelevant():
    plain = variables(run())
    with jax.default_prng_impl("rbg"):
        assert_same(variables(run()), plain)


# Recording


@pytest.mark.parametrize(
    ("every", "steps"),
    [(1, list(range(13))), (5, [0, 5, 10, 12]), (6, [0, 6, 12]), (12, [0, 12]), (50, [0, 12])],
)
def test_recording_is_thinned_and_changes_nothing(every, steps):
    full, tree = variables(run()), run(record_every=every)
    assert tree["trajectory"]["step"].to_numpy().tolist() == steps
    assert tree["trajectory"].sizes["step"] == len(steps)
    assert_same(
        {name: np.ascontiguousarray(value[:, steps]) for name, value in full.items()}, variables(tree)
    )


@pytest.mark.parametrize(
    ("num_steps", "every"), [(101, 2), (101, 13), pytest.param(101, 1, marks=pytest.mark.slow)]
)
def test_many_records_and_chunks_give_the_numbers_of_few(num_steps, every):
    # 52, 9 and 102 records: chunks of 3, 1 and 6, the last padded. Other programs: equal but for round-off.
    tree = run(num_steps=num_steps, record_every=every)
    few = run(num_steps=num_steps, record_every=num_steps)
    steps = tree["trajectory"]["step"].to_numpy()
    assert steps.tolist() == sorted({*range(0, num_steps, every), num_steps})
    for name, value in variables(few).items():
        np.testing.assert_allclose(variables(tree)[name][:, [0, -1]], value, rtol=1e-9, atol=1e-12)
    first = variables(run())
    shared = [s for s in steps if s <= 12]
    for name, value in first.items():
        ours = variables(tree)[name][:, : len(shared)]
        np.testing.assert_allclose(ours, value[:, shared], rtol=1e-9, atol=1e-12)


def test_a_shorter_run_is_the_beginning_of_a_longer_one():
    long, short = variables(run(num_steps=12)), variables(run(num_steps=7))
    assert_same({n: np.ascontiguousarray(v[:, :8]) for n, v in long.items()}, short)


@pytest.mark.slow
def test_a_single_step_and_a_single_replicate():
    tree = run(num_steps=1, num_replicates=1)
    assert tree["trajectory"]["step"].to_numpy().tolist() == [0, 1]
    assert tree["trajectory"].sizes["draw"] == 1
    values = variables(tree)
    assert all(np.all(np.isfinite(value)) for value in values.values())
    assert np.all(values["old_mean"][:, 1] != values["old_mean"][:, 0])
    assert diverged_steps(tree).tolist() == [-1]


def test_the_final_group_is_the_last_step():
    tree = run(record_every=5)
    final = tree["final"].to_dataset().isel(objective=0, chain=0)
    for name, value in variables(tree).items():
        np.testing.assert_array_equal(final[name].to_numpy(), value[:, -1])


def test_the_recorded_observables_belong_to_the_recorded_parameters():
    values = variables(run())
    np.testing.assert_allclose(values["old_weight"], 1.0 / (1.0 + np.exp(-values["old_logit"])), rtol=1e-13)
    np.testing.assert_allclose(values["old_drift"], np.abs(values["old_mean"][..., 0]), rtol=1e-12)
    np.testing.assert_allclose(values["new_gap"], np.abs(values["new_mean"][..., 0] - 3.0), rtol=1e-12)
    assert values["old_drift"][0, 0] == pytest.approx(0.3)
    learner = oracles.two_modes(
        values["old_weight"][2, 7], values["old_mean"][2, 7], values["new_mean"][2, 7]
    )
    exact = oracles.retention(learner, oracles.two_modes(0.4, 0.0, 3.0))
    assert values["retention"][2, 7] == pytest.approx(exact, abs=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft:replay=0.3", pytest.param("reverse_kl", marks=pytest.mark.slow)])
def test_the_loss_is_the_divergence_at_the_recorded_parameters(name):
    # Oracle: a 1-D grid at every replicate's own parameters. A record that lags a step behind is off by the
    # change in a step, asserted to be 10 standard errors.
    tree = run(objectives.parse(name), num_steps=3, num_replicates=150, batch_size=128, learning_rate=1.0)
    values, target = variables(tree), oracles.two_modes(0.4, 0.0, 3.0)

    def exact(replicate, step):
        learner = oracles.two_modes(
            *(values[n][replicate, step] for n in ("old_weight", "old_mean", "new_mean"))
        )
        if name.startswith("sft"):
            return oracles.forward_kl(learner, target, 0.3)
        return oracles.reverse_kl(learner, target)

    for step in (0, 1, 3):
        divergence = np.array([exact(i, step) for i in range(150)]) if step else np.full(150, exact(0, 0))
        mean, se = oracles.spread(values["loss"][:, step] - divergence)
        assert abs(mean) < 5.0 * se
        if step == 1:
            assert abs(exact(0, 0) - divergence.mean()) > 10.0 * se


# Optimizers and factors


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


# Divergence of replicates


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


# Compilation

TRACES = []


def counting():
    """Return a model of its own that counts how often Python runs it."""

    def model(replay, start, target):
        TRACES.append(replay)
        new_data(replay, start, target)

    return model


COUNTED = counting()


def counted(replay, name="counted", model=COUNTED):
    return Objective(name, Partial(model, replay), two_mode_learner, ForwardKL(), "counted")


def test_a_second_call_compiles_nothing(compilations):
    TRACES.clear()
    assert any("_advance" in message for message in compilations(lambda: run(counted(0.2))))
    assert len(TRACES) > 0
    TRACES.clear()
    other = TARGET.replace(old_weight=0.5, new_mean=3.5)
    again = compilations(
        lambda: run(
            [counted(0.2), counted(0.35, "other replay")],
            START.replace(old_weight=0.6),
            other,
            seed=7,
            learning_rate=0.05,
            num_steps=19,
            common_random_numbers=False,
        ),
    )
    assert again == []
    # The variables that an objective records are read off from shapes: one trace, and none of the training.
    assert len(TRACES) <= 2


def test_numpyros_own_elbos_are_compiled_once_too(compilations):
    objective = Objective("numpyro", objectives.reverse_kl().model, two_mode_learner, Trace_ELBO())
    run(objective, num_steps=2)
    assert compilations(lambda: run(objective, num_steps=2)) == []


def test_objectives_that_share_a_program_give_other_results():
    tree = run([counted(0.2, "a"), counted(0.8, "b")])
    assert np.all(variables(tree, 0)["loss"][:, 0] != variables(tree, 1)["loss"][:, 0])


def test_the_number_of_traces_does_not_grow_with_the_steps():
    # A trace for the names, for the first state, for the state's structure and for the loss in the scan.
    TRACES.clear()
    run(counted(0.2, model=counting()), num_steps=60)
    assert 0 < len(TRACES) <= 6


# Learners


def test_the_single_mode_learner_is_recorded_with_its_overlaps():
    target = TwoMode.create(0.75, -3.0, 3.5, 1.0, 0.49)
    start = target.replace(old_mean=-3.5)
    tree = run(
        objectives.sft(learner="single_mode"), start, target, num_steps=300, record_every=100, batch_size=64
    )
    values = variables(tree)
    assert set(values) == {
        "mean",
        "scale",
        "retention",
        "old_coverage",
        "old_drift",
        "new_gap",
        "old_overlap",
        "new_overlap",
        "loss",
    }
    # Maximum likelihood on the new data: it moves there entirely.
    np.testing.assert_allclose(values["mean"][:, -1, 0], 3.5, atol=0.2)
    np.testing.assert_allclose(values["scale"][:, -1], 0.7, atol=0.2)
    assert np.all(np.abs(values["retention"][:, -1]) < 0.01)
    last = values["mean"][2, -1, 0], values["scale"][2, -1]
    for name, (weight, mean, scale) in (("old", (0.75, -3.0, 1.0)), ("new", (0.25, 3.5, 0.7))):
        for step in (0, -1):
            place = (-3.5, 1.0) if step == 0 else last
            exact = oracles.overlap(weight, mean, scale, 1.0, *place, points=200_001) / weight
            assert values[f"{name}_overlap"][2, step] == pytest.approx(exact, abs=1e-7)


@pytest.mark.slow
def test_the_single_mode_learners_scale_can_be_held():
    held = SingleModeLearner(train_scale=False)
    values = variables(run(objectives.sft(learner=held)))
    np.testing.assert_array_equal(values["scale"], 1.0)
    assert np.all(values["mean"][:, -1] > values["mean"][:, 0])


def test_learners_that_record_other_variables_are_refused_before_anything_is_computed(monkeypatch):
    def forbidden(*arguments):
        raise AssertionError("something was computed")

    chosen = [objectives.sft(), objectives.sft(learner="single_mode")]
    monkeypatch.setattr(replicates, "run", forbidden)
    with pytest.raises(InputError, match="must have learners that record the same variables"):
        run(chosen)


@pytest.mark.slow
def test_trained_scales_converge_to_the_right_matrix_under_forward_kl_with_replay():
    # Replay equal to the target's old weight: the data are the target, and so is the optimum.
    matrix = np.array([[1.0, 0.5], [0.5, 0.8]])
    target = TwoMode.create(0.4, [0.0, 0.0], [3.0, 1.0], matrix)
    start = target.replace(covariance=2.0 * np.eye(2), old_weight=0.6)
    tree = run(
        objectives.sft(replay=0.4, learner=TwoModeLearner(train_scales=True)),
        start,
        target,
        num_steps=1000,
        record_every=1000,
        batch_size=128,
        learning_rate=0.05,
    )
    values = variables(tree)
    np.testing.assert_allclose(values["scale"][:, 0], np.broadcast_to(start.scale, (6, 2, 2)), rtol=1e-12)
    factor = values["scale"][:, -1]
    np.testing.assert_array_equal(factor[:, 0, 1], 0.0)
    covariance = np.mean(factor @ np.swapaxes(factor, 1, 2), axis=0)
    np.testing.assert_allclose(covariance, matrix, atol=0.05)
    np.testing.assert_allclose(values["old_weight"][:, -1].mean(), 0.4, atol=0.03)


@pytest.mark.slow
def test_two_trained_scales_converge_to_their_own_covariances():
    target = TwoMode.create(0.4, 0.0, 5.0, 1.0, 0.49)
    start = target.replace(covariance=2.0, new_covariance=2.0)
    tree = run(
        objectives.sft(replay=0.4, learner=TwoModeLearner(train_scales=True)),
        start,
        target,
        num_steps=1000,
        record_every=1000,
        batch_size=128,
        learning_rate=0.05,
    )
    values = variables(tree)
    assert {"old_scale", "new_scale"} < set(values)
    np.testing.assert_allclose(values["old_scale"][:, 0], np.sqrt(2.0))
    np.testing.assert_allclose(values["old_scale"][:, -1].mean(), 1.0, atol=0.03)
    np.testing.assert_allclose(values["new_scale"][:, -1].mean(), 0.7, atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("covariance", [2.0, [2.0, 1.0]], ids=["variance", "diagonal"])
def test_a_trained_scale_keeps_its_structure(covariance):
    target = TwoMode.create(0.4, [0.0, 0.0], [3.0, 1.0], covariance)
    chosen = objectives.reverse_kl(learner=TwoModeLearner(train_scales=True))
    values = variables(run(chosen, target.replace(old_weight=0.7), target))
    assert values["scale"].shape == (6, 13, *np.shape(covariance))
    assert np.all(values["scale"][:, -1] != values["scale"][:, 0])
    assert np.all(values["scale"] > 0.0)


# Bad input

REFUSED = {
    "no objective": ({"chosen": []}, "at least one Objective"),
    "two of one name": ({"chosen": [objectives.sft(), objectives.sft()]}, "different names; got sft"),
    "a name": ({"chosen": "sft"}, "at least one Objective"),
    "a list of names": (
        {"chosen": ["sft"]},
        "at least one Objective, see mixture_models.objectives; got str",
    ),
    "no steps": ({"num_steps": 0}, "num_steps must be at least 1; got 0"),
    "negative steps": ({"num_steps": -5}, "num_steps must be at least 1; got -5"),
    "half a step": ({"num_steps": 1.5}, "num_steps must be a whole number; got 1.5"),
    "steps in words": ({"num_steps": "many"}, "num_steps must be a whole number"),
    "no batch": ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
    "rate zero": ({"learning_rate": 0.0}, "learning_rate must be greater than 0; got 0"),
    "rate negative": ({"learning_rate": -0.1}, "learning_rate must be greater than 0; got -0.1"),
    "rate nan": ({"learning_rate": float("nan")}, "learning_rate must be finite"),
    "rate infinite": ({"learning_rate": float("inf")}, "learning_rate must be finite"),
    "no replicates": ({"num_replicates": 0}, "num_replicates must be at least 1"),
    "negative seed": ({"seed": -1}, "seed must be at least 0; got -1"),
    "half a seed": ({"seed": 0.5}, "seed must be a whole number"),
    "too large a seed": ({"seed": 2**70}, "seed must be at most"),
    "no recording": ({"record_every": 0}, "record_every must be at least 1"),
    "a start that is no mixture": ({"start": [0.0]}, "start must be a TwoMode or a Mixture; got list"),
    "a target that is no mixture": ({"target": None}, "target must be a TwoMode or a Mixture; got NoneType"),
    "two dimensions": (
        {"start": TwoMode.create(0.5, [0.0, 0.0], [1.0, 1.0])},
        "must have one dimension; got 2 and 1",
    ),
    "target modes that coincide": (
        {"target": TARGET.replace(new_mean=0.0)},
        "modes must differ; got separation 0",
    ),
    "a batch of 1 for a score": ({"chosen": objectives.reverse_kl(), "batch_size": 1}, "at least 2; got 1"),
    "a batch of 1 for strata": (
        {"chosen": objectives.reverse_kl(estimator="pathwise"), "batch_size": 1},
        "each of 2 modes; got a batch of 1",
    ),
    "an unknown parameter": (
        {"learning_rate_factors": {"weight": 0.0}},
        "must name params of the learner (new_mean, old_logit, old_mean); got weight",
    ),
    "a negative factor": (
        {"learning_rate_factors": {"old_mean": -1.0}},
        "must not be negative; got -1 for old_mean",
    ),
    "a factor of nan": ({"learning_rate_factors": {"old_mean": float("nan")}}, "must be finite"),
    "a factor in words": ({"learning_rate_factors": {"old_mean": "half"}}, "must be a number; got 'half'"),
    "factors of a vector": ({"learning_rate_factors": {"old_mean": [0.0, 1.0]}}, "learning_rate_factors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence(case):
    changes, message = REFUSED[case]
    with pytest.raises(InputError) as caught:
        run(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_guide_that_says_nothing_of_its_state_is_refused():
    def guide(start, target):
        numpyro.sample("y", dist.Normal(numpyro.param("m", 0.0), 1.0).expand([1]).to_event(1))

    with pytest.raises(InputError, match="with a method metrics"):
        run(objectives.sft(learner=guide))


def test_bad_input_is_refused_at_once(compilations):
    """Before anything is compiled, of a size that no other training here has."""

    def refused():
        with pytest.raises(InputError, match="learning_rate must be greater than 0"):
            run(batch_size=7, num_replicates=5, learning_rate=-1.0)

    assert compilations(refused) == []
