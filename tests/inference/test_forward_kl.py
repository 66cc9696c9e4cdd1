"""The forward KL of the start from a learner: against closed forms and a dense grid, and in results."""

import jax
import numpy as np
import oracles
import pytest

from inference import gradient_flow, results, train
from inference.comparison.forward_kl import forward_kl
from mixture_models import InputError, Mixture, TwoMode, metrics, objectives

MATRIX = np.array([[1.0, 0.5], [0.5, 0.8]])
START = TwoMode.create(0.9, [0.0, 0.0], [2.4, 0.6], MATRIX)
SETTINGS = dict(num_steps=20, batch_size=16, learning_rate=0.1, num_replicates=3, seed=0, record_every=10)

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


def test_every_recorded_learner_has_its_own():
    target = START.replace(old_weight=0.5, new_mean=[2.0, 1.0])
    tree = train([objectives.sft(), objectives.reverse_kl()], START, target, **SETTINGS)
    found = forward_kl(tree, "trajectory")
    assert found.dims == ("objective", "chain", "draw", "step")
    assert found.attrs["units"] == "nat"
    np.testing.assert_allclose(found.isel(step=0), 0.0, atol=1e-12)
    at = dict(objective=1, chain=0, draw=2, step=2)
    learner = START.recorded(
        {k: v.isel(at).to_numpy() for k, v in tree["trajectory"].data_vars.items() if k in START.arrays()}
    )
    with jax.enable_x64(True):
        np.testing.assert_allclose(found.isel(at), metrics.forward_kl(learner, START), rtol=1e-12)
    np.testing.assert_array_equal(forward_kl(tree, "final"), found.isel(step=-1))
    flow = gradient_flow([objectives.sft()], START, target, times=[0.0, 1.0, 2.0])
    assert forward_kl(flow, "population").dims == ("objective", "time")
    assert np.all(np.diff(forward_kl(flow, "population")) > 0.0)


def test_it_is_there_for_tasks_and_nan_where_a_replicate_diverged():
    tree = train([objectives.sft(task="new", replay={"a": 0.2})], TASKS, TASKS, **SETTINGS)
    assert np.all(np.diff(forward_kl(tree, "trajectory").isel(objective=0, chain=0).mean("draw")) > 0.0)
    tree = train([objectives.sft()], START, START, **SETTINGS | {"learning_rate": 1e8})
    assert results.converged(tree).sum() == 0
    assert np.isnan(forward_kl(tree, "final")).all()
    assert np.all(forward_kl(tree, "trajectory").isel(step=0) == 0.0)


@pytest.mark.parametrize(
    ("start", "extra", "words"),
    [
        (START.replace(covariance=None), {"dimension": 5}, "recorded parameters"),
        (START.replace(new_covariance=2.0), {}, "one covariance"),
    ],
)
def test_what_has_none_is_refused(start, extra, words):
    tree = train([objectives.sft()], start, start, **SETTINGS, **extra)
    with pytest.raises(InputError, match=words):
        forward_kl(tree, "final")


def ends_of(start, target):
    """Forward KL and retention at the end of the exact flow of five objectives, and the names."""
    chosen = [objectives.sft(), objectives.sft(replay=0.2), objectives.sft(replay=0.4)]
    chosen += [objectives.sdft(), objectives.ttt_discover()]
    tree = gradient_flow(chosen, start, target, times=[0.0, 100.0], learning_rate=0.05)
    end = tree["population"].to_dataset().isel(time=-1)
    kl = forward_kl(tree, "population").isel(time=-1)
    return kl.to_numpy(), end["old_weight"].to_numpy(), end["retention"].to_numpy()


def test_it_orders_objectives_as_forgetting_does_where_the_means_start_right():
    target = TwoMode.on_axis(0.5, 6.0)
    kl, weight, kept = ends_of(target.displaced(0.9), target)
    assert list(np.argsort(kl)) == list(np.argsort(-weight)) == list(np.argsort(-kept))


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
