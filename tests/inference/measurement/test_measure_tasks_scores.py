"""Weights of several tasks from their log-likelihoods."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from task_samples import MEANS, NAMES, on_simplex, samples

from inference import measure_scores
from inference.measurement.scores.measure_task_scores import task_weights
from mixture_models import InputError


def log_likelihoods(rng, truth, num=150):
    y = samples(rng, truth, num, MEANS[:, :2])
    return {
        name: stats.multivariate_normal(mean[:2]).logpdf(y) for name, mean in zip(NAMES, MEANS, strict=True)
    }


@pytest.mark.parametrize("truth", [(0.5, 0.2, 0.3), (0.97, 0.0, 0.03)])
def test_weights_from_scores_are_those_of_quadrature(truth):
    given = np.stack(list(log_likelihoods(np.random.default_rng(15), truth).values()), axis=1)
    shapes = np.array([1.0, 2.0, 1.5])
    found = task_weights(given, shapes, 20_000, np.random.default_rng(0))
    weights, jacobian = on_simplex(400)
    log_posterior = np.log(np.exp(given) @ weights.T).sum(axis=0) + np.log(weights) @ (shapes - 1.0)
    mass = np.exp(log_posterior - log_posterior.max()) * jacobian
    mass /= mass.sum()
    mean = mass @ weights
    sd = np.sqrt(mass @ (weights - mean) ** 2)
    assert found.k_hat < 0.5
    error = sd * np.sqrt(np.sum(found.share**2))
    assert np.all(np.abs(found.mean - mean) < 5 * error)
    assert np.all(error < 0.01 * sd)
    np.testing.assert_allclose(found.sd, sd, rtol=0.03)
    for k in range(3):
        order = np.argsort(weights[:, k])
        exact = np.interp([0.055, 0.5, 0.945], np.cumsum(mass[order]), weights[order, k])
        np.testing.assert_allclose(
            found.quantiles(np.array([0.055, 0.5, 0.945]))[:, k], exact, atol=0.05 * sd[k]
        )


def test_scores_of_several_tasks_come_by_name_or_along_a_dim():
    rng = np.random.default_rng(16)
    given = log_likelihoods(rng, (0.5, 0.2, 0.3))
    named = measure_scores(given, num_draws=1000)
    labelled = xr.DataArray(
        np.stack(list(given.values()), axis=-1), dims=("sample", "task"), coords={"task": list(NAMES)}
    )
    other = measure_scores(labelled, num_draws=1000)
    assert named["posterior"].to_dataset().identical(other["posterior"].to_dataset())
    np.testing.assert_allclose(
        named["posterior"]["old_weight"], 1.0 - named["posterior"]["weight"].sel(task="new")
    )
    assert str(named["summary"]["words"].item()) == "good"
    two = measure_scores({"new": given["new"], "old": given["math"]})
    plain = measure_scores(given["math"], given["new"])
    assert two["posterior"].to_dataset().identical(plain["posterior"].to_dataset())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: {"math": s["math"]}, "2 to 20"),
        (lambda s: s | {"code": s["code"][1:]}, "150 of math and 149 of code"),
        (lambda s: s | {"code": {"a": s["code"]}}, "the same checkpoints"),
        (lambda s: {name: one * np.nan for name, one in s.items()}, "must be numbers or -inf"),
        (lambda s: {name: one - np.inf for name, one in s.items()}, "possible under a task"),
        (lambda s: s["math"], "a mapping from tasks"),
    ],
)
def test_bad_scores_are_one_sentence(change, said):
    given = log_likelihoods(np.random.default_rng(17), (0.5, 0.2, 0.3))
    with pytest.raises(InputError, match=said) as caught:
        measure_scores(change(given))
    assert len(str(caught.value).splitlines()) == 1
