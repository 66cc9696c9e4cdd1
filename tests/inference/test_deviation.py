"""Trainings against the exact descent: noise is not called a deviation, a bias is."""

import numpy as np
import pytest
from scipy import stats

from inference import population_descent, train
from inference.comparison.deviation import deviation, discretisation
from mixture_models import TwoMode, objectives

TARGET = TwoMode.create(0.4, 0.0, 3.0)
START = TARGET.replace(old_weight=0.8, new_mean=2.5)
STEPS = {"num_steps": 40, "learning_rate": 0.02, "record_every": 10}
CHOSEN = [objectives.sft(replay=0.3), objectives.sft(replay=0.4)]


@pytest.fixture(scope="module")
def runs():
    options = {"batch_size": 64, "num_replicates": 100, "seed": 3, "progress": False}
    return train(CHOSEN, START, TARGET, **STEPS, **options)


@pytest.fixture(scope="module")
def descent():
    return population_descent(CHOSEN, START, TARGET, **STEPS)["population"].to_dataset()


def test_noise_is_within_its_limit(runs, descent):
    found = deviation(runs, descent)
    assert np.all(found["deviation"] < found["noise_limit"])
    # 15 z of 100 replicates at a familywise 1e-3: the quantile of Student's t with 99 degrees of freedom.
    np.testing.assert_allclose(found["noise_limit"], stats.t.ppf(1.0 - 1e-3 / 30, 99))


def test_it_is_the_largest_z_score(runs, descent):
    samples = runs["trajectory"]["new_mean"].sel(objective="sft:replay=0.3").isel(chain=0, feature=0)
    moved = descent.copy(deep=True)
    moved["new_mean"][0, 3] += 1.0
    found = deviation(runs, moved).sel(objective="sft:replay=0.3")
    values = samples.sel(step=30).to_numpy()
    exact = float(moved["new_mean"][0, 3, 0])
    z = abs(values.mean() - exact) / (values.std(ddof=1) / 10.0)
    assert float(found["deviation"]) == pytest.approx(z, rel=1e-4)
    assert int(found["deviation_step"]) == 30


def test_a_bias_is_called_one(runs, descent):
    """Held against the descent of another replay the trainings stray by far more than noise."""
    wrong = descent.copy(deep=True)
    wrong["old_logit"][0] = descent["old_logit"][1]
    found = deviation(runs, wrong)
    assert found["deviation"][0] > 2.0 * found["noise_limit"][0]
    assert found["deviation"][1] < found["noise_limit"][1]


def test_what_diverged_is_left_out_and_nothing_left_is_nan(runs, descent):
    spoilt = runs.copy(deep=True)
    spoilt["trajectory_stats"]["diverged_step"][0, 0, 1:] = 5
    found = deviation(spoilt, descent)
    assert np.isnan(found["deviation"][0])
    assert np.isnan(found["noise_limit"][0])
    assert int(found["deviation_step"][0]) == -1
    assert found["deviation"][1] == deviation(runs, descent)["deviation"][1]


def test_discretisation_is_the_largest_distance_in_retention(descent):
    flow = descent.copy(deep=True)
    flow["retention"][1, 2] -= 0.25
    found = discretisation(descent, flow)
    np.testing.assert_allclose(found["discretisation"], [0.0, 0.25])
