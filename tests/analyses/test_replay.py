"""Replay: optimum, starvation and effective sample fraction against quadrature and against other draws."""

import io

import numpy as np
import pytest
from rich.console import Console
from scipy.integrate import quad
from scipy.stats import binom, norm

from analyses import replay
from analyses.core import outputs

SHARES, BETA, SIZE, APART = (0.0, 0.25), 0.05, 6, 3.0


@pytest.fixture(scope="module")
def tree():
    return replay.run(
        replay.Settings(
            replay=SHARES,
            separation=APART,
            start_old_weight=BETA,
            batch_size=SIZE,
            num_replicates=16,
            learning_rate=0.1,
        )
    )


def test_forward_kl_ends_at_the_replayed_share(tree):
    ends = tree["population"]["end"]
    for means in ("held", "free"):
        here = ends.sel(means=means)
        # The slowest share, 0.02, is not quite there at the last time.
        np.testing.assert_allclose(here, here["replay"], rtol=1e-3)


def test_starvation_exact_and_drawn(tree):
    frame = replay.summary(tree)
    exact = [binom.pmf(0, SIZE, share + (1.0 - share) * BETA) for share in SHARES]
    np.testing.assert_allclose(frame["starvation"], exact, rtol=1e-12)
    error = np.sqrt(np.array(exact) * (1.0 - np.array(exact)) / 4000)
    assert np.all(np.abs(frame["starved_share"] - exact) < 5.0 * error)
    assert np.all((frame["starved_share_lower"] < frame["starved_share"]) & (error < 0.05))


def test_effective_fraction_exact_and_drawn(tree):
    frame = replay.summary(tree)
    for share, exact, drawn in zip(SHARES, frame["effective_fraction"], frame["drawn_fraction"], strict=True):

        def integrand(y, share=share):
            q = BETA * norm.pdf(y) + (1.0 - BETA) * norm.pdf(y, APART)
            return q**2 / ((1.0 - share) * q + share * norm.pdf(y))

        assert exact == pytest.approx(1.0 / quad(integrand, -10.0, 14.0, limit=300)[0], rel=1e-8)
        assert drawn == pytest.approx(exact, abs=0.01)
        assert exact >= 1.0 - share


def test_recovery_is_the_first_step_at_half_of_the_missing_weight(tree):
    weights, steps = tree["trajectory"]["old_weight"].values, tree["trajectory"]["step"].values
    for i in range(len(SHARES)):
        for j in range(16):
            there = np.flatnonzero(weights[i, 0, j] >= 0.5 * (0.5 + BETA))
            wanted = steps[there[0]] if there.size else np.nan
            np.testing.assert_equal(float(tree["final"]["recovery_step"][i, 0, j]), wanted)


def test_table_figure_and_layout(tree, tmp_path):
    for name in ("population", "theory", "simulated", "trajectory", "final"):
        dataset = tree[name].to_dataset()
        assert set(dataset.dims) <= set(dataset.coords)
        assert all({"long_name", "units"} <= set(v.attrs) for v in dataset.variables.values()), name
    outputs.write_analysis(replay, tree, tmp_path)
    names = {"results.zarr", "summary.csv", "replay.png", "replay.svg"}
    assert {path.name for path in tmp_path.iterdir()} == names
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(replay.table(tree))
    assert "…" not in console.export_text()
    assert "nan" not in console.export_text()
