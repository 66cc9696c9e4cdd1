"""Trainings of other learners than two modes of a known covariance."""

import numpy as np
import oracles
import pytest
from training_runs import run, variables

from inference.training import replicates
from mixture_models import InputError, SingleModeLearner, TwoMode, TwoModeLearner, objectives


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
