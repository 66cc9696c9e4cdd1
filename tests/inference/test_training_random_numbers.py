"""The random numbers of a training: reproducible, paired, fresh at every step, the same on all cores."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from training_runs import PARAMS, START, assert_same, run, variables

from inference.engine import chunks
from mixture_models import InputError, objectives


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
