"""The forward KL of the start from a learner: against closed forms and a dense grid, and in results."""

import jax
import numpy as np
import oracles
import pytest

from inference import gradient_flow, results
from inference.comparison import forward_kl as module
from inference.comparison.forward_kl import forward_kl
from mixture_models import InputError, Mixture, TwoMode, metrics, objectives

MATRIX = np.array([[1.0, 0.5], [0.5, 0.8]])
START = TwoMode.create(0.9, [0.0, 0.0], [2.4, 0.6], MATRIX)

TASKS = Mixture.create(
    {"a": [0.0, 0.0], "b": [3.0, 0.0], "new": [0.0, 3.5]}, {"a": 0.5, "b": 0.4, "new": 0.1}, MATRIX
)
MOVED = TASKS.replace(weights={"a": 0.2, "b": 0.1, "new": 0.7}, means={"b": [2.0, 0.5]})


def oracle_of(mixture):
    """The mixture as the oracles' dense densities."""
    covariance = np.asarray(mixture.scale) @ np.asarray(mixture.scale).T
    count = len(mixture.means)
    return oracles.Mixture(
        np.asarray(mixture.weights), np.asarray(mixture.means), np.array([covariance] * count)
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "learner",
    [
        START.replace(old_weight=0.5),
        START.replace(old_weight=0.02, old_mean=[0.7, -0.4], new_mean=[2.0, 1.2]),
        START.replace(old_weight=1e-4, new_mean=[5.0, -1.0]),
    ],
)
def test_it_is_that_of_a_dense_grid_in_the_right_direction(learner):
    found = float(metrics.forward_kl(learner, START))
    assert found == pytest.approx(oracles.kl(oracle_of(START), oracle_of(learner)), abs=1e-9)
    # The other direction is another number: a grid that is blind to it would prove nothing.
    assert abs(found - oracles.kl(oracle_of(learner), oracle_of(START))) > 0.02


@pytest.mark.usefixtures("x64")
def test_of_more_than_two_tasks_it_is_that_of_a_dense_grid():
    found = float(metrics.forward_kl(MOVED, TASKS))
    assert found == pytest.approx(oracles.kl(oracle_of(TASKS), oracle_of(MOVED)), abs=1e-7)


@pytest.mark.usefixtures("x64")
def test_one_gaussian_has_the_closed_form_and_the_start_has_none():
    far = TwoMode.create(0.3, [0.0, 0.0], [0.0, 0.0])
    moved = TwoMode.create(0.8, [1.0, 2.0], [1.0, 2.0])
    assert float(metrics.forward_kl(moved, far)) == pytest.approx(0.5 * 5.0, abs=1e-12)
    assert float(metrics.forward_kl(START, START)) == 0.0
    # Modes so far apart that only weights differ.
    apart = START.replace(new_mean=[60.0, 0.0])
    shares = 0.9 * np.log(0.9 / 0.4) + 0.1 * np.log(0.1 / 0.6)
    assert float(metrics.forward_kl(apart.replace(old_weight=0.4), apart)) == pytest.approx(shares, abs=1e-11)


def tree_of(learners, start):
    """A result that has recorded learners[replicate][step], as a training's has them."""
    recorded = [
        {name: np.array([[step.arrays()[name] for step in path] for path in learners])}
        for name in start.arrays()
        if name != "scale" and not name.endswith("_scale")
    ]
    trajectory = {name: values for part in recorded for name, values in part.items()}
    steps = np.arange(len(learners[0]))
    undiverged = np.full(len(learners), -1)
    return results.training_tree(
        [objectives.sft()], [trajectory], [undiverged], steps, {"start": start, "target": start}, {}
    )


def test_every_recorded_learner_has_its_own_also_beyond_one_batch(monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 4)
    weights = [[0.9, 0.5, 0.2], [0.9, 0.7, 1e-3]]
    learners = [[START.replace(old_weight=w, new_mean=[2.4, w]) for w in path] for path in weights]
    tree = tree_of(learners, START)
    found = forward_kl(tree, "trajectory")
    assert found.dims == ("objective", "chain", "draw", "step")
    assert found.attrs["units"] == "nat"
    with jax.enable_x64(True):
        exact = [[float(metrics.forward_kl(one, START)) for one in path] for path in learners]
    np.testing.assert_allclose(found[0, 0], exact, rtol=1e-12)
    assert np.ptp(exact) > 1.0
    np.testing.assert_allclose(forward_kl(tree, "final"), found.isel(step=-1), rtol=1e-12)


def test_it_is_there_for_tasks():
    found = forward_kl(tree_of([[TASKS, MOVED]], TASKS), "trajectory")
    with jax.enable_x64(True):
        exact = float(metrics.forward_kl(MOVED, TASKS))
    np.testing.assert_allclose(found[0, 0, 0], [0.0, exact], rtol=1e-10, atol=1e-8)


def test_it_is_nan_where_a_replicate_diverged():
    tree = tree_of([[START, START], [START, START]], START)
    tree["final"]["old_mean"][0, 0, 1] = np.nan
    np.testing.assert_array_equal(np.isnan(forward_kl(tree, "final"))[0, 0], [False, True])


def test_what_has_none_is_refused():
    tree = tree_of([[START]], START)
    del tree["final"]["old_mean"]
    with pytest.raises(InputError, match="recorded parameters; final has no old_mean"):
        forward_kl(tree, "final")
    tree["trajectory"]["scale"] = tree["trajectory"]["old_logit"]
    with pytest.raises(InputError, match="trained covariances"):
        forward_kl(tree, "trajectory")
    two = START.replace(new_covariance=2.0)
    with pytest.raises(InputError, match="one covariance"):
        forward_kl(tree_of([[two]], two), "final")


def ends_of(start, target):
    """Forward KL and retention at the end of the exact flow of five objectives, and the names."""
    chosen = [objectives.sft(), objectives.sft(replay=0.2), objectives.sft(replay=0.4)]
    chosen += [objectives.sdft(), objectives.ttt_discover()]
    tree = gradient_flow(chosen, start, target, times=[0.0, 100.0], learning_rate=0.05)
    end = tree["population"].to_dataset().isel(time=-1)
    kl = forward_kl(tree, "population").isel(time=-1)
    return kl.to_numpy(), end["old_weight"].to_numpy(), end["retention"].to_numpy()


@pytest.mark.slow
def test_it_orders_objectives_as_forgetting_does_where_the_means_start_right():
    target = TwoMode.on_axis(0.5, 6.0)
    kl, weight, kept = ends_of(target.displaced(0.9), target)
    assert list(np.argsort(kl)) == list(np.argsort(-weight)) == list(np.argsort(-kept))


@pytest.mark.slow
def test_it_does_not_where_an_old_mode_moves_or_a_new_one_is_learnt():
    target = TwoMode.on_axis(0.5, 4.0)
    kl, weight, _ = ends_of(target.displaced(0.9, new_gap=1.5), target)
    # The old mode of TTT-Discover walks away with its weight.
    assert kl[4] > kl[2]
    assert weight[4] > weight[2]
    target = TwoMode.on_axis(0.5, 6.0)
    kl, _, kept = ends_of(target.displaced(0.5, new_gap=3.0, old_drift=1.0), target)
    # TTT-Discover learns little: SDFT, which keeps more, is farther away from the start.
    assert kl[4] < kl[3]
    assert kept[4] < kept[3] - 0.2
