"""The drive on an old mean against brute-force gradients, and its bound.

A wrong sign, share or mode is off by order 1 against a tolerance of 1e-8.
"""

import jax
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixture_models import InputError, TwoMode, mahalanobis, theory

thousand = settings(max_examples=1000, deadline=None)
COVARIANCE = np.array([[1.5, 0.4], [0.4, 0.8]])


@pytest.mark.parametrize("displacement", [[0.0, 0.0], [0.4, -0.3]])
@pytest.mark.parametrize("new_mean", [[2.5, 1.0], [0.3, -0.2], [4.0, 3.0]])
def test_drive_is_the_gradient_in_the_metric_of_the_covariance(displacement, new_mean):
    target = oracles.Setting(0.35, np.zeros(2), np.array([2.0, 0.5]), COVARIANCE)
    learner = oracles.Setting(0.8, np.array(displacement), np.array(new_mean), COVARIANCE)
    gradient = oracles.reverse_kl_gradient(learner.mixture(), target.mixture())["old_mean"]
    drive = theory.old_mean_drive(TwoMode.create(*learner), TwoMode.create(*target))
    assert drive.dtype == np.float64
    assert not jax.config.jax_enable_x64
    np.testing.assert_allclose(drive, COVARIANCE @ gradient, rtol=1e-8, atol=1e-10)


def test_many_dimensions_and_batches():
    """A random rotation and covariance in d = 60, and a batch of learners, give the same numbers."""
    rng = np.random.default_rng(0)
    dim = 60
    root = np.linalg.cholesky(np.diag(rng.uniform(0.5, 2.0, dim)) + 0.1)
    place = root @ np.linalg.qr(rng.normal(size=(dim, dim)))[0][:, :2]
    small = TwoMode.create(0.3, [0.0, 0.0], [3.0, 0.5])
    learners = [small.replace(old_weight=w, new_mean=[m, 1.0]) for w, m in ((0.9, 2.0), (0.5, 1.0))]
    wanted = np.stack([theory.old_mean_drive(learner, small) for learner in learners])

    def lifted(mixture):
        return TwoMode.create(
            mixture.old_weight, place @ mixture.old_mean, place @ mixture.new_mean, root @ root.T
        )

    drives = np.stack([theory.old_mean_drive(lifted(learner), lifted(small)) for learner in learners])
    np.testing.assert_allclose(drives, wanted @ place.T, rtol=1e-8, atol=1e-10)
    batch = TwoMode(
        *(np.stack([getattr(x, name) for x in learners]) for name in ("old_logit", "old_mean", "new_mean")),
        small.scale,
    )
    np.testing.assert_allclose(theory.old_mean_drive(batch, small), wanted, rtol=1e-12)
    bounds = [theory.old_mean_drive_bound(learner, small) for learner in learners]
    np.testing.assert_allclose(theory.old_mean_drive_bound(batch, small), bounds, rtol=1e-12)


logits = st.floats(-13.8, 13.8)
coordinates = st.floats(-8.0, 8.0)


@thousand
@given(
    logits,
    logits,
    st.tuples(coordinates, coordinates),
    st.floats(0.1, 12.0),
    st.tuples(coordinates, coordinates),
)
def test_bound_holds(logit, target_logit, new_mean, separation, displacement):
    target = TwoMode.create(None, [0.0, 0.0], [separation, 0.0], old_logit=target_logit)
    right = target.replace(old_logit=logit, new_mean=new_mean)
    for learner in (right, right.replace(old_mean=displacement)):
        length = mahalanobis(theory.old_mean_drive(learner, target), np.zeros(2))
        assert length <= theory.old_mean_drive_bound(learner, target) * (1 + 1e-12)


def test_bound_with_a_right_old_mode_is_the_sum_of_overlaps():
    target = TwoMode.create(0.3, [0.0, 0.0], [3.0, 0.0])
    learner = target.replace(old_weight=0.8, new_mean=[1.0, 2.0])
    near, far = np.exp(-np.array([5.0, 9.0]) / 8.0)
    parts = 0.5 * np.sqrt(0.2 / 0.8) * near * np.sqrt(5.0) + 0.5 * np.sqrt(0.7 / 0.3) * far * 3.0
    assert theory.old_mean_drive_bound(learner, target) == pytest.approx(0.8 * parts, rel=1e-12)


def test_bound_is_tight_somewhere(record_property):
    """New modes on opposite sides pull together."""
    best = 0.0
    for separation in (0.5, 1.0, 2.0, 5.0):
        target = TwoMode.create(0.5, 0.0, separation)
        learner = target.replace(new_mean=-separation)
        length = mahalanobis(theory.old_mean_drive(learner, target), 0.0)
        best = max(best, float(length / theory.old_mean_drive_bound(learner, target)))
    record_property("best ratio", best)
    assert best > 0.9


def test_nothing_drives_a_right_learner():
    target = TwoMode.create(0.3, [0.0, 1.0], [3.0, 0.0])
    np.testing.assert_allclose(theory.old_mean_drive(target, target), 0.0, atol=1e-15)


def test_drive_decays_like_the_overlap():
    """The rate 1/8 of the log drive on δ², up to the factor 1/δ of misassignment: δ times it is constant."""
    separations = np.array([20.0, 40.0])
    drives = [
        mahalanobis(theory.old_mean_drive(TwoMode.create(0.9, 0.0, s), TwoMode.create(0.5, 0.0, s)), 0.0)
        for s in separations
    ]
    slope = np.diff(np.log(drives))[0] / np.diff(separations**2)[0]
    assert slope == pytest.approx(-1 / 8, rel=1e-3)


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (TwoMode.create(0.5, 0.0, 3.0, 2.0), "the same covariance; got two"),
        (TwoMode.create(0.5, 0.0, 3.0, 1.0, 2.0), "one covariance for both modes"),
        (TwoMode.create(0.5, [0.0, 0.0], [3.0, 0.0]), "one dimension; got 2 and 1"),
    ],
)
def test_bad_input_is_one_sentence(learner, message):
    target = TwoMode.create(0.5, 0.0, 3.0)
    for function in (theory.old_mean_drive, theory.old_mean_drive_bound):
        with pytest.raises(InputError, match=message):
            function(learner, target)
