"""Drift of reverse KL: the flow against SciPy on a grid, its decay against theory, its noise by recursion."""

import io

import numpy as np
import pytest
from rich.console import Console
from scipy.integrate import quad, solve_ivp
from scipy.special import expit, logit
from scipy.stats import norm

from analyses import drift
from analyses.core import outputs

Y = np.linspace(-10.0, 18.0, 5601)


def gradient(theta, separation, alpha):
    """Return ∂KL(q ‖ p_α)/∂(φ, m_o, m_n) on the grid: E_q[∇log q (log q - log p_α)]."""
    phi, old, new = theta
    beta = expit(phi)
    old_density, new_density = beta * norm.pdf(Y, old), (1.0 - beta) * norm.pdf(Y, new)
    q = old_density + new_density
    p = alpha * norm.pdf(Y) + (1.0 - alpha) * norm.pdf(Y, separation)
    claim = old_density / q
    scores = np.stack([claim - beta, claim * (Y - old), (1.0 - claim) * (Y - new)])
    return np.trapezoid(scores * q * np.log(q / p), Y, axis=-1)


@pytest.mark.slow
def test_peak_and_integral_are_those_of_an_independent_integrator():
    apart = np.array([3.0, 6.0])
    population = drift._population(apart, 0.4, 0.85).isel(objective=0)
    for name, (new_gap, old_gap) in drift.STARTS.items():
        for separation in apart:
            start = [logit(0.85), old_gap, separation - new_gap]
            solution = solve_ivp(
                lambda t, theta, s=separation: -gradient(theta, s, 0.4),
                (0.0, 150.0),
                start,
                "LSODA",
                rtol=1e-9,
                atol=1e-12,
                dense_output=True,
            ).sol
            fine = np.linspace(0.0, 30.0, 6001)
            here = population.sel(start=name, separation=separation)
            peak = np.abs(solution(fine)[1]).max()
            assert float(here["peak_old_drift"]) == pytest.approx(peak, rel=1e-3)
            pieces = [(0.0, 1.0), (1.0, 10.0), (10.0, 50.0), (50.0, 150.0)]
            whole = sum(quad(lambda t, f=solution: abs(f(t)[1]), *piece, limit=200)[0] for piece in pieces)
            assert float(here["integrated_old_drift"]) == pytest.approx(whole, rel=3e-3)


def test_noise_floor_is_that_of_the_recursion():
    """A loop over steps with other random numbers; the tolerance is 4 standard errors of two means."""
    weights, deviations = np.linspace(0.9, 0.5, 300), np.linspace(0.02, 0.01, 300)
    rng = np.random.default_rng(9)
    mean, peak = np.zeros(2000), np.zeros(2000)
    for beta, deviation in zip(weights, deviations, strict=True):
        mean = mean - 0.05 * beta * mean + 0.05 * deviation * rng.normal(size=2000)
        peak = np.maximum(peak, np.abs(mean))
    error = np.sqrt(2.0) * peak.std() / np.sqrt(peak.size)
    assert abs(drift._noise_floor(weights, deviations, 0) - peak.mean()) < 4.0 * error < 0.1 * peak.mean()


@pytest.mark.slow
def test_the_decay_rate_nears_one_eighth(tmp_path):
    tree = drift.run(drift.Settings(num_replicates=32, num_draws=500))
    frame = drift.summary(tree).set_index(["measure", "fit_from"])
    assert (frame["r_hat"] < 1.02).all()
    for measure in ("peak_old_drift", "integrated_old_drift"):
        rates = frame.loc[measure, "decay_rate"]
        assert rates.loc[7.0] == pytest.approx(0.125, rel=0.002)
        assert rates.loc[5.0] == pytest.approx(0.125, rel=0.03)
        assert abs(rates.loc[7.0] - 0.125) < abs(rates.loc[6.0] - 0.125) < abs(rates.loc[5.0] - 0.125)
    # At δ = 8 what overlap moves is far below what noise does, which the recursion predicts.
    trainings = tree["trainings"].to_dataset()
    peaks = trainings["peak_old_drift"].mean(["chain", "draw"]).sel(separation=8.0)
    np.testing.assert_allclose(peaks, trainings["noise_floor"], rtol=0.2)
    outputs.write_analysis(drift, tree, tmp_path)
    names = {"results.zarr", "summary.csv", "drift.png", "drift.svg"}
    assert {path.name for path in tmp_path.iterdir()} == names
    for group in ("population", "trainings", "posterior", "sample_stats", "observed_data"):
        dataset = tree[group].to_dataset()
        assert set(dataset.dims) <= set(dataset.coords)
        assert all({"long_name", "units"} <= set(v.attrs) for v in dataset.variables.values()), group
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(drift.table(tree))
    assert "…" not in console.export_text()
