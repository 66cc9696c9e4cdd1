"""Rates of convergence against a Fisher matrix by brute force on a grid; a factor 2 or a swap shows."""

import io

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import norm

from analyses import geometry
from analyses.core import outputs

SEPARATIONS, WEIGHTS = (2.5, 5.0), (0.2, 0.5)
Y = np.linspace(-14.0, 20.0, 8001)


@pytest.fixture(scope="module")
def tree():
    return geometry.run(geometry.Settings(separations=SEPARATIONS, old_weights=WEIGHTS))


def smallest_eigenvalue(separation, weight):
    """Return that of E[∇ log p ∇ log pᵀ] in (φ, m_o, m_n) on a line."""
    old, new = weight * norm.pdf(Y), (1.0 - weight) * norm.pdf(Y, separation)
    claim = old / (old + new)
    score = np.stack([claim - weight, claim * Y, (1.0 - claim) * (Y - separation)])
    return np.linalg.eigvalsh(np.trapezoid(score[:, None] * score * (old + new), Y, axis=-1))[0]


def test_measured_and_local_rates_are_the_brute_force_ones(tree):
    for separation in SEPARATIONS:
        for weight in WEIGHTS:
            here = {"separation": separation, "target_weight": weight}
            exact = smallest_eigenvalue(separation, weight)
            assert float(tree["theory"]["local_rate"].sel(here).item()) == pytest.approx(exact, rel=1e-6)
            assert float(tree["population"]["measured_rate"].sel(here).item()) == pytest.approx(
                exact, rel=0.01
            )


@pytest.mark.slow
def test_rates_a_thousand_times_apart_are_both_measured():
    tree = geometry.run(geometry.Settings(separations=(1.0, 6.0), old_weights=(0.1, 0.5)))
    rates = tree["theory"]["local_rate"]
    assert float(rates.max() / rates.min()) > 1000.0
    np.testing.assert_allclose(geometry.summary(tree)["relative_difference"], 0.0, atol=0.01)


def test_summary_table_and_files(tree, tmp_path):
    frame = geometry.summary(tree)
    assert len(frame) == 4
    np.testing.assert_allclose(frame["relative_difference"], 0.0, atol=0.01)
    for group in ("population", "theory"):
        dataset = tree[group].to_dataset()
        assert set(dataset.dims) <= set(dataset.coords)
        assert all({"long_name", "units"} <= set(v.attrs) for v in dataset.variables.values()), group
    outputs.write_analysis(geometry, tree, tmp_path)
    names = {"results.zarr", "summary.csv", "geometry.png", "geometry.svg"}
    assert {path.name for path in tmp_path.iterdir()} == names
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(geometry.table(tree))
    assert "…" not in console.export_text()
