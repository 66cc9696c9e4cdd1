"""The posterior of the old weight from scores: against brute-force integration and conjugate closed forms."""

from collections import Counter

import mpmath
import numpy as np
import pytest
import xarray as xr
from scipy import integrate, stats

import inference
from inference.measurement import measure_scores
from inference.measurement.scores.measure_scores import weight_posterior
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


@pytest.mark.parametrize("num_samples", [0, 1, 30, 1000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_samples_whose_mode_is_known_give_the_conjugate_beta(num_samples):
    rng = np.random.default_rng(num_samples)
    shapes = [(1.0, 1.0), (1.05, 1.0), (1.0, 1.01), *(1.0 + rng.uniform(0.0, 0.5, size=(6, 2)))]
    shapes += [tuple(row) for row in 1.0 + rng.exponential(5.0, size=(3, 2))]
    for a, b in shapes[:: 4 if num_samples > 1000 else 1]:
        for num_old in {0, num_samples, int(rng.integers(num_samples + 1))}:
            known = np.where(np.arange(num_samples) < num_old, np.inf, -np.inf)
            posterior = weight_posterior(known, (a, b))
            exact = stats.beta(a + num_old, b + num_samples - num_old)
            # A sum of 100,000 logarithms rounds to 1e-11.
            tight = dict(rtol=0.0, atol=(1e-11 + 1e-15 * num_samples) * exact.std())
            np.testing.assert_allclose(posterior.mean, exact.mean(), **tight)
            np.testing.assert_allclose(posterior.sd, exact.std(), **tight)
            probabilities = [1e-3, *PROBABILITIES, 1.0 - 1e-3]
            np.testing.assert_allclose(posterior.quantiles(probabilities), exact.ppf(probabilities), **tight)
            # Who draws the density sees an area of 1, and its height.
            area = np.trapezoid(posterior.density.ravel(), posterior.weights.ravel())
            assert area == pytest.approx(1.0, abs=1e-3)
            middle = np.abs(posterior.weights - 0.5) < 0.5 - 1e-3  # SciPy's is rounded near 1
            np.testing.assert_allclose(
                posterior.density[middle],
                exact.pdf(posterior.weights[middle]),
                rtol=1e-8,
                atol=1e-12 * posterior.density.max(),
            )


@pytest.mark.parametrize(
    ("shapes", "differences"),
    [
        ((1.05, 1.3), [0.3, -0.2]),
        ((1.0, 1.02), [-40.0, 35.0, 2.0, -0.01]),
        ((1.4, 1.0), [3.0] * 40 + [-50.0]),
        ((1.1, 1.1), [-25.0] * 200 + [1.5, 8.0, 60.0]),
        ((1.2, 3.7), [0.2 * i for i in range(-6, 15)]),
        ((1.01, 1.01), [np.inf, 700.0, -700.0]),
    ],
)
def test_samples_of_any_mode_are_integrated_exactly(shapes, differences):
    posterior = weight_posterior(np.array(differences), shapes)
    quantiles = posterior.quantiles(PROBABILITIES)
    with mpmath.workdps(30):
        a, b = map(mpmath.mpf, shapes)

        def density(beta):
            likelihood = mpmath.fprod(
                (beta * old + (1 - beta) * new) ** count for old, new, count in relative
            )
            return beta ** (a - 1) * (1 - beta) ** (b - 1) * likelihood / peak

        relative = [
            (mpmath.exp(min(d, 0.0)), mpmath.exp(-max(d, 0.0)), count)
            for d, count in Counter(differences).items()
        ]
        # For mpmath's sake: the unit is near the largest value, and intervals are short near the peak.
        peak = mpmath.mpf(1)
        centre, spread = mpmath.mpf(posterior.mean), mpmath.mpf(posterior.sd)
        peak = density(centre)
        inner = [centre + k * spread for k in (-20, -8, -4, -2, -1, 0, 1, 2, 4, 8, 20)]
        edges = [mpmath.mpf(0), *(e for e in inner if 0 < e < 1), mpmath.mpf(1)]

        def integral(function, until=None):
            stops = edges if until is None else [*(e for e in edges if e < until), mpmath.mpf(until)]
            return mpmath.quad(function, stops)

        total = integral(density)
        mean = integral(lambda x: x * density(x)) / total
        variance = integral(lambda x: (x - mean) ** 2 * density(x)) / total
        reached = [float(integral(density, q) / total) for q in quantiles]
    assert posterior.mean == pytest.approx(float(mean), abs=1e-12)
    assert posterior.sd == pytest.approx(float(mpmath.sqrt(variance)), abs=1e-12)
    np.testing.assert_allclose(reached, PROBABILITIES, atol=1e-11)


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
