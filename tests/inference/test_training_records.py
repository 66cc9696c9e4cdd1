"""What a training records: thinned, whole, and of the parameters beside it."""

import numpy as np
import oracles
import pytest
from training_runs import assert_same, diverged_steps, run, variables

from mixture_models import objectives


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
