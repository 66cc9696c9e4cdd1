"""The posterior of the decay rate against one that is summed over a grid, without NUTS.

Given the residual's deviation and length the coefficients are Gaussian; those two are summed over. With
over 2,000 effective draws an error of a tenth of a posterior deviation is seen; a wrong sign, δ for δ², or
independent residuals are off by several deviations.
"""

import arviz as az
import numpy as np
import pytest
from scipy import stats

from inference.comparison.decay import PARAMETERS, decay_posterior
from mixture_models import InputError

APART = np.arange(4.0, 10.1, 0.5)
WINDOWS = (4.0, 6.0)


def smooth(seed):
    """Return log drifts with a correlated residual: rate 0.12, power 0.4."""
    rng = np.random.default_rng(seed)
    covariance = 0.05**2 * np.exp(-np.abs(APART[:, None] - APART) / 3.0)
    return -0.12 * APART**2 + 0.4 * np.log(APART) + rng.multivariate_normal(np.zeros(APART.size), covariance)


def by_grid(separations, log_drift, centres):
    """Return posterior means and deviations of (centre, decay rate, log power)."""
    square, logarithm = separations**2 - centres[0], np.log(separations) - centres[1]
    design = np.stack([np.ones_like(square), -square, logarithm], axis=-1)
    prior_mean, prior = np.array([-10.0, 0.0, 0.0]), np.diag([20.0, 1.0, 5.0]) ** 2
    log_weights, means, variances = [], [], []
    for log_sd in np.linspace(-7.0, 1.5, 160):
        for log_length in np.linspace(-3.5, 6.0, 120):
            sd, length = np.exp([log_sd, log_length])
            noise = sd**2 * np.exp(-np.abs(separations[:, None] - separations) / length)
            total = noise + design @ prior @ design.T
            gain = prior @ design.T @ np.linalg.inv(total)
            rest = log_drift - design @ prior_mean
            log_weights.append(
                -0.5 * rest @ np.linalg.solve(total, rest)
                - 0.5 * np.linalg.slogdet(total)[1]
                + stats.halfnorm.logpdf(sd, scale=0.5)
                + log_sd
                + stats.norm.logpdf(log_length, 1.0, 1.0)
            )
            means.append(prior_mean + gain @ rest)
            variances.append(np.diag(prior - gain @ design @ prior))
    weights = np.exp(np.array(log_weights) - max(log_weights))
    weights /= weights.sum()
    mean = weights @ np.array(means)
    second = weights @ (np.array(variances) + np.array(means) ** 2)
    return mean, np.sqrt(second - mean**2)


@pytest.fixture(scope="module")
def posterior():
    drifts = {
        name: np.exp(smooth(seed)) for seed, name in enumerate(("peak_old_drift", "integrated_old_drift"))
    }
    return decay_posterior(APART, drifts, fit_from=WINDOWS, num_draws=1000)


@pytest.mark.slow
def test_the_posterior_is_that_of_the_grid(posterior):
    draws = posterior["posterior"].to_dataset()
    centres = np.mean(APART**2), np.mean(np.log(APART))
    error = az.mcse(draws)
    for seed, name in enumerate(("peak_old_drift", "integrated_old_drift")):
        for window in WINDOWS:
            kept = window <= APART
            mean, deviation = by_grid(APART[kept], smooth(seed)[kept], centres)
            for i, parameter in enumerate(PARAMETERS[:3]):
                here = draws[parameter].sel(measure=name, fit_from=window)
                allowed = (
                    5.0 * float(error[parameter].sel(measure=name, fit_from=window)) + 1e-3 * deviation[i]
                )
                assert abs(float(here.mean()) - mean[i]) < allowed, parameter
                assert float(here.std()) == pytest.approx(deviation[i], rel=0.15), parameter


@pytest.mark.slow
def test_it_is_well_sampled_and_labelled(posterior):
    draws = posterior["posterior"].to_dataset()
    assert float(az.rhat(draws).to_array().max()) < 1.01
    assert float(az.ess(draws).to_array().min()) > 400
    assert int(posterior["sample_stats"]["diverging"].sum()) <= 8
    assert set(draws.dims) <= set(draws.coords)
    assert all("long_name" in v.attrs for v in draws.variables.values())
    np.testing.assert_allclose(
        posterior["observed_data"]["log_drift"].isel(fit_from=0).sel(measure="peak_old_drift"), smooth(0)
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((APART[::-1], {"peak": np.ones(13)}, (5.0,)), "separations must be an increasing list"),
        ((APART, {"peak": np.ones(13)}, (9.5,)), "at least 4 separations; got 2 from 9.5 on"),
        ((APART, {"peak": np.zeros(13)}, (5.0,)), "drifts must be 13 positive numbers"),
        ((APART, {"peak": np.ones(12)}, (5.0,)), "drifts must be 13 positive numbers"),
    ],
)
def test_bad_input_is_refused(arguments, sentence):
    separations, drifts, windows = arguments
    with pytest.raises(InputError, match=sentence):
        decay_posterior(separations, drifts, fit_from=windows)
