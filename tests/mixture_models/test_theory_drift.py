"""The drive on an old mean against brute-force gradients, and its bound.

A wrong sign, share or mode is off by order 1 against a tolerance of 1e-8.
"""

from functools import partial

import jax
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import gradient_flow
from inference.exact.population import Parameters
from mixture_models import InputError, TwoMode, mahalanobis, objectives, theory

thousand = settings(max_examples=1000, deadline=None)
COVARIANCE = np.array([[1.5, 0.4], [0.4, 0.8]])
COVARIANCE_ROOT = np.linalg.cholesky(COVARIANCE)


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
        # The drive is an integral of differences of probabilities: right to some 1e-16 absolutely.
        assert length <= theory.old_mean_drive_bound(learner, target) * (1 + 1e-12) + 1e-15


def test_bound_with_a_right_old_mode_is_below_the_sum_of_overlaps():
    target = TwoMode.create(0.3, [0.0, 0.0], [3.0, 0.0])
    learner = target.replace(old_weight=0.8, new_mean=[1.0, 2.0])
    near, far = np.exp(-np.array([5.0, 9.0]) / 8.0)
    parts = 0.5 * np.sqrt(0.2 / 0.8) * near * np.sqrt(5.0) + 0.5 * np.sqrt(0.7 / 0.3) * far * 3.0
    assert 0.2 * parts < theory.old_mean_drive_bound(learner, target) <= 0.8 * parts * (1 + 1e-12)


@pytest.mark.parametrize("separation", [1.0, 4.0, 10.0])
def test_bound_vanishes_with_the_distance_from_the_target(separation):
    """The sum of both misassignments would stay; a lost factor of 2 would miss the drive."""
    target = TwoMode.create(0.5, 0.0, separation)
    for step in (1.0, 1e-3, 1e-6):
        learner = target.replace(old_logit=step)
        length = mahalanobis(theory.old_mean_drive(learner, target), 0.0)
        assert length <= theory.old_mean_drive_bound(learner, target) <= 3.0 * length + 1e-18
    assert theory.old_mean_drive_bound(target, target) == 0.0


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


TIMES = np.concatenate([[0.0], np.geomspace(0.01, 200.0, 300)])


def drift_and_bound(starts, targets):
    """Return the old drift on exact whitened flows and its bound, shape (setting, time)."""
    flow = gradient_flow(objectives.reverse_kl(), starts, targets, times=TIMES, metric="whitened")
    flow = flow["population"].to_dataset().isel(objective=0)
    bounds = [
        theory.old_drift_bound(
            TwoMode(*(flow[name].to_numpy()[row] for name in Parameters._fields), target.scale), target, TIMES
        )
        for row, target in enumerate(targets)
    ]
    return flow["old_drift"].to_numpy(), np.array(bounds)


@pytest.mark.slow
def test_old_drift_stays_below_its_bound():
    """Random weights and means, old means on and off their place, up to where modes overlap much.

    Red without either misassignment in what pulls back, and with the target's at the right old mean only.
    """
    rng = np.random.default_rng(1)
    starts, targets = [], []
    for _ in range(12):
        away = COVARIANCE_ROOT @ (rng.uniform(1.5, 9.0) * unit(rng))
        target = TwoMode.create(rng.uniform(0.1, 0.9), np.zeros(2), away, COVARIANCE)
        off = COVARIANCE_ROOT @ (rng.choice([0.0, 0.8]) * unit(rng))
        gap = COVARIANCE_ROOT @ (rng.choice([0.0, 1.5]) * unit(rng))
        targets.append(target)
        starts.append(target.replace(old_weight=rng.uniform(0.05, 0.95), old_mean=off, new_mean=away + gap))
    # Off beside the axis, where the target's misassignment does not act.
    for separation, weight in ((1.5, 0.3), (2.5, 0.1)):
        target = TwoMode.create(weight, [0.0, 0.0], [separation, 0.0], 1.0)
        targets.append(TwoMode.create(weight, [0.0, 0.0], COVARIANCE_ROOT @ target.new_mean, COVARIANCE))
        starts.append(targets[-1].replace(old_mean=COVARIANCE_ROOT @ [0.0, 0.8]))
    drift, bound = drift_and_bound(starts, targets)
    excess = drift - bound * (1.0 + 2e-3)  # of the trapezoid rule over times, and of the flow's tolerance
    assert excess.max() < 1e-6


def unit(rng):
    angle = rng.uniform(0.0, 2.0 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


@pytest.mark.slow
def test_bound_of_the_drift_is_close_to_its_peak_and_ends_with_it():
    targets = [TwoMode.create(0.5, 0.0, separation) for separation in (3.0, 4.0, 5.0, 6.0, 8.0, 10.0)]
    for gap in (0.0, 1.5):
        starts = [t.replace(old_weight=0.9, new_mean=t.new_mean - gap) for t in targets]
        drift, bound = drift_and_bound(starts, targets)
        assert np.all(bound.max(axis=-1) < np.array([1.5, 1.2, 1.1, 1.1, 1.1, 1.1]) * drift.max(axis=-1))
        assert np.all(bound[:, -1] < 1e-8 * drift.max(axis=-1))


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
    along = partial(theory.old_drift_bound, times=[0.0])
    for function in (theory.old_mean_drive, theory.old_mean_drive_bound, along):
        with pytest.raises(InputError, match=message):
            function(learner, target)


def test_times_must_fit_the_path():
    target = TwoMode.create(0.5, 0.0, 3.0)
    path = TwoMode(np.zeros(2), np.zeros((2, 1)), np.full((2, 1), 3.0), target.scale)
    for times in ([0.0], [1.0, 1.0], [0.0, 1.0, 2.0]):
        with pytest.raises(InputError, match="as many entries as the path has"):
            theory.old_drift_bound(path, target, times)
