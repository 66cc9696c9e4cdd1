"""The posterior of the old weight from scores: against brute-force integration and conjugate closed forms."""

import numpy as np
import pytest
import xarray as xr
from scipy import integrate, stats

import inference
from inference.measurement import measure_scores
from inference.measurement.scores import weight_posterior
from mixture_models import InputError

PROBABILITIES = [0.055, 0.25, 0.5, 0.75, 0.945]


def scores(num_samples, old_weight, separation, seed=0):
    rng = np.random.default_rng(seed)
    old = rng.uniform(size=num_samples) < old_weight
    y = rng.normal(size=num_samples) + np.where(old, 0.0, separation)
    return stats.norm(0.0).logpdf(y), stats.norm(separation).logpdf(y)


@pytest.mark.parametrize(
    ("num_samples", "old_weight", "separation", "shapes"),
    [(3, 0.5, 1.0, (1, 1)), (50, 0.3, 2.0, (1, 1)), (300, 0.0, 6.0, (1, 1)), (300, 0.9, 2.0, (2.0, 5.5))],
)
def test_moments_and_quantiles_are_those_of_brute_force_integration(
    num_samples, old_weight, separation, shapes
):
    old, new = scores(num_samples, old_weight, separation)
    beta = np.linspace(0.0, 1.0, 50_001)
    log_density = np.zeros_like(beta)
    for o, n in zip(old, new, strict=True):
        log_density += np.logaddexp(
            np.log(np.maximum(beta, 1e-300)) + o, np.log1p(-np.minimum(beta, 1 - 1e-16)) + n
        )
    density = (
        np.exp(log_density - log_density.max()) * beta ** (shapes[0] - 1) * (1 - beta) ** (shapes[1] - 1)
    )
    density /= integrate.simpson(density, x=beta)
    mean = integrate.simpson(density * beta, x=beta)
    sd = np.sqrt(integrate.simpson(density * (beta - mean) ** 2, x=beta))
    cdf = integrate.cumulative_simpson(density, x=beta, initial=0.0)

    tree = measure_scores(old, new, weight_prior=shapes, num_draws=10)
    summary = tree["summary"].to_dataset().isel(checkpoint=0)
    assert float(summary["old_weight_mean"]) == pytest.approx(mean, abs=1e-8)
    assert float(summary["old_weight_sd"]) == pytest.approx(sd, abs=1e-8)
    np.testing.assert_allclose(summary["probability"], PROBABILITIES)
    np.testing.assert_allclose(summary["old_weight_quantile"], np.interp(PROBABILITIES, cdf, beta), atol=1e-7)


@pytest.mark.parametrize("shapes", [(1.0, 1.0), (1.01, 1.0), (1.5, 2.5), (3.0, 1.0)])
@pytest.mark.parametrize(("num_old", "num_new"), [(0, 10), (0, 10_000), (3, 5), (7_000, 3_000)])
def test_samples_whose_mode_is_known_give_the_conjugate_beta(shapes, num_old, num_new):
    difference = np.concatenate([np.full(num_old, np.inf), np.full(num_new, -np.inf)])
    posterior = weight_posterior(difference, shapes)
    exact = stats.beta(shapes[0] + num_old, shapes[1] + num_new)
    assert posterior.mean == pytest.approx(exact.mean(), abs=1e-6)
    assert posterior.sd == pytest.approx(exact.std(), abs=1e-6)
    np.testing.assert_allclose(posterior.quantiles(PROBABILITIES), exact.ppf(PROBABILITIES), atol=1e-6)


def test_old_and_new_are_not_swapped_and_draws_are_of_the_density():
    old, new = scores(4000, 0.2, 5.0)
    tree = measure_scores({"a": old, "b": new}, {"a": new, "b": old}, num_draws=2000, seed=3)
    summary = tree["summary"].to_dataset()
    assert summary["old_weight_mean"].sel(checkpoint="a") == pytest.approx(0.2, abs=0.03)
    assert summary["old_weight_mean"].sel(checkpoint="b") == pytest.approx(0.8, abs=0.03)
    draws = tree["posterior"]["old_weight"].isel(chain=0)
    standardised = (draws.mean("draw") - summary["old_weight_mean"]) / summary["old_weight_sd"]
    assert np.all(np.abs(standardised) < 0.01)  # stratified: far better than 1/√2000
    np.testing.assert_allclose(draws.std("draw"), summary["old_weight_sd"], rtol=0.01)


def test_ragged_lists_labelled_arrays_and_files(tmp_path):
    old, new = scores(60, 0.5, 3.0)
    ragged = measure_scores([old, old[:20]], [new, new[:20]], num_draws=5)
    assert ragged["summary"]["num_samples"].values.tolist() == [60, 20]
    labels = {"dims": ("checkpoint", "sample"), "coords": {"checkpoint": ["first", "second"]}}
    labelled = measure_scores(
        xr.DataArray([old, old], **labels), xr.DataArray([new, new], **labels), num_draws=5
    )
    assert labelled["posterior"]["checkpoint"].values.tolist() == ["first", "second"]
    inference.save(labelled, tmp_path / "scores.nc")
    again = inference.open(tmp_path / "scores.nc")
    xr.testing.assert_identical(again["summary"].to_dataset(), labelled["summary"].to_dataset())
    for group in ("posterior", "summary", "density"):
        for variable in labelled[group].to_dataset().variables.values():
            assert {"long_name", "units"} <= set(variable.attrs)


def test_scores_that_tell_nothing_say_so():
    words = measure_scores(np.zeros(50), np.zeros(50), num_draws=5)["summary"]["words"].item()
    assert words.startswith("not measured")
    assert measure_scores(*scores(500, 0.5, 6.0), num_draws=5)["summary"]["words"].item() == "good"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ([], [], "at least one"),
        ([0.0, np.nan], [0.0, 0.0], "1 of checkpoint 0 are not"),
        ([0.0, np.inf], [0.0, 0.0], "1 of checkpoint 0 are not"),
        ([0.0, -np.inf], [0.0, -np.inf], "-inf under both"),
        ([0.0, 0.0], [0.0], "2 old and 1 new"),
        ({"a": [0.0]}, {"b": [0.0]}, "same checkpoints"),
        (["x"], ["y"], "numeric"),
    ],
)
def test_unusable_scores_are_one_sentence(old, new, message):
    with pytest.raises(InputError, match=message):
        measure_scores(old, new)


@pytest.mark.parametrize("prior", [(0.5, 1.0), 3.0, (1.0, np.nan)])
def test_unusable_prior_is_refused(prior):
    with pytest.raises(InputError, match="weight_prior"):
        measure_scores([0.0], [1.0], weight_prior=prior)
