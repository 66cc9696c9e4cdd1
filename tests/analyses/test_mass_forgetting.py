"""Mass forgetting: the flow, its asymptotes and its crossover against SciPy's integrator on a dense grid.

The oracle integrates the 1-D samples on a grid and the flow with LSODA; nothing of it is ours. Flow and
oracle agree to 1e-7; a wrong sign, a logit for a weight or swapped modes is off by order 1.
"""

import io

import numpy as np
import pytest
from rich.console import Console
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm

from analyses import mass_forgetting
from analyses.core import outputs

SEPARATIONS, START, END = (1.0, 2.0, 6.0), 0.3, 400.0
Y = np.linspace(-12.0, 18.0, 6001)


@pytest.fixture(scope="module")
def tree():
    return mass_forgetting.run(
        mass_forgetting.Settings(separations=SEPARATIONS, start_old_weight=START, end_time=END, num_times=40)
    )


def gradient(theta, separation):
    """Return ∂KL(N(δ, 1) ‖ q)/∂(φ, m_o, m_n) on the grid."""
    phi, old, new = theta
    beta = expit(phi)
    old_density, new_density = beta * norm.pdf(Y, old), (1.0 - beta) * norm.pdf(Y, new)
    claim = old_density / (old_density + new_density)
    data = norm.pdf(Y, separation)
    return np.trapezoid(
        np.stack([beta - claim, -claim * (Y - old), -(1.0 - claim) * (Y - new)]) * data, Y, axis=-1
    )


def flow(separation, moving):
    def field(t, theta):
        return -moving * gradient(theta, separation)

    start = [logit(START), 0.0, separation]
    return solve_ivp(field, (0.0, END), start, "LSODA", rtol=1e-10, atol=1e-13, dense_output=True).sol


def test_both_flows_are_those_of_an_independent_integrator(tree):
    times = tree["population"]["time"].to_numpy()
    for means, moving in (("held", [1.0, 0.0, 0.0]), ("free", [1.0, 1.0, 1.0])):
        for separation in SEPARATIONS:
            phi, old, new = flow(separation, np.array(moving))(times)
            found = tree["population"].to_dataset().sel(means=means, separation=separation).isel(objective=0)
            np.testing.assert_allclose(found["old_weight"], expit(phi), rtol=1e-6)
            np.testing.assert_allclose(found["old_mean"].isel(feature=0), old, atol=1e-6)
            np.testing.assert_allclose(found["new_mean"].isel(feature=0), new, atol=1e-6)


def test_exponent_and_crossover_are_those_of_the_curve(tree):
    predicted = tree["theory"].to_dataset()
    step = 1e-4
    for separation in SEPARATIONS:
        solution = flow(separation, np.array([1.0, 0.0, 0.0]))

        def log_weight(t, solution=solution):
            return np.log(expit(solution(t)[0]))

        slope = (log_weight(300.0 * np.exp(step)) - log_weight(300.0 * np.exp(-step))) / (2.0 * step)
        here = predicted.sel(separation=separation)
        assert float(here["exponent"].interp(time=300.0)) == pytest.approx(-slope, rel=2e-3)
        level = 1.0 / np.expm1(separation**2)
        found = float(here["crossover_time"])
        if level > START:
            assert found == 0.0
        elif level < expit(solution(END)[0]):
            assert np.isnan(found)
        else:
            wanted = brentq(lambda t, level=level, f=log_weight: f(t) - np.log(level), 1.0, END)
            assert found == pytest.approx(wanted, rel=5e-3)
    assert np.isfinite(predicted["crossover_time"].sel(separation=2.0))


def test_the_weight_is_never_below_an_asymptote(tree):
    held = tree["population"].to_dataset().sel(means="held").isel(objective=0)["old_weight"]
    predicted = tree["theory"].to_dataset()
    assert np.all(held >= predicted["old_weight_separated"] * (1.0 - 1e-9))
    assert np.all(held >= predicted["old_weight_rare"] * (1.0 - 1e-9))
    # Tight: apart at δ = 6, rare at δ = 1.
    assert float((predicted["old_weight_separated"] / held).sel(separation=6.0).isel(time=-1)) > 0.97
    assert float((predicted["old_weight_rare"] / held).sel(separation=1.0).isel(time=-1)) > 0.8


def test_table_figure_and_layout(tree, tmp_path):
    frame = mass_forgetting.summary(tree)
    end = tree["population"].to_dataset().isel(objective=0, time=-1)
    assert frame["separation"].tolist() == list(SEPARATIONS)
    np.testing.assert_array_equal(frame["held_old_weight"], end["old_weight"].sel(means="held"))
    np.testing.assert_array_equal(frame["free_retention"], end["retention"].sel(means="free"))
    for group in ("population", "theory"):
        dataset = tree[group].to_dataset()
        assert set(dataset.dims) <= set(dataset.coords)
        assert all({"long_name", "units"} <= set(v.attrs) for v in dataset.variables.values()), group
    outputs.write_analysis(mass_forgetting, tree, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "results.zarr",
        "summary.csv",
        "mass_forgetting.png",
        "mass_forgetting.svg",
    }
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(mass_forgetting.table(tree))
    assert "…" not in console.export_text()


@pytest.mark.slow
def test_after_a_million():
    """What the weight hides: β stays at 0.44, 0.27 and 0.07 with the old mode at the new one."""
    settings = mass_forgetting.Settings(separations=(1.0, 2.0, 3.0, 8.0), num_times=20)
    frame = mass_forgetting.summary(mass_forgetting.run(settings)).set_index("separation")
    np.testing.assert_allclose(frame.loc[[1.0, 2.0, 3.0], "free_old_weight"], [0.44, 0.27, 0.07], atol=0.005)
    np.testing.assert_allclose(frame.loc[[1.0, 2.0, 3.0], "free_old_drift"], [1.0, 2.0, 3.0], rtol=0.01)
    assert (frame["free_retention"] < 1e-5).all()
    assert frame.loc[8.0, "held_old_weight"] * 1e6 == pytest.approx(1.0, abs=0.02)
    assert frame.loc[1.0, "exponent"] == pytest.approx(0.5, abs=0.01)
