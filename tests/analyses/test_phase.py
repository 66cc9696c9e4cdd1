"""The phase diagram: its lines of theory, its table and its figures."""

import numpy as np
import pytest
import xarray as xr

from analyses import phase
from analyses.core import outputs
from inference import results
from mixture_models import objectives, theory

APART, SIZES, VALUES = [2.0, 3.0, 6.0], [2, 8, 64], [0.0, 0.1]
OBJECTIVES = ["sft", "reverse_kl", "sdft"]


@pytest.fixture
def tree():
    """A made-up result: mass is lost where batches starve, the old mode moves where modes overlap."""
    dims = ("objective", "separation", "batch_size", "knob", "chain", "draw")
    coords = {"objective": OBJECTIVES, "separation": APART, "batch_size": SIZES, "knob": VALUES}
    coords |= {"chain": [0], "draw": range(4)}
    empty = xr.DataArray(np.zeros([len(c) for c in coords.values()]), coords, dims)
    starved = empty["batch_size"] < 7
    final = xr.Dataset(
        {
            "retention": empty + xr.where(starved, 0.01, 0.4),
            "old_coverage": empty + xr.where(starved, 0.02, 0.3),
            "old_drift": empty + xr.where(empty["separation"] < 4.0, 1.0, 0.001),
        }
    )
    diverged = xr.full_like(empty, -1, dtype=int)
    diverged[0, 0, 0, 0, 0, 0] = 3
    final["retention"][0, 0, 0, 0, 0, 0] = np.nan
    settings = {"start_old_weight": 0.1, "start_new_gap": 1.0, "old_weight": 0.5, "num_replicates": 4}
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs=results.provenance(settings)),
            "/final": results.describe(final),
            "/trajectory_stats": xr.Dataset({"diverged_step": diverged}),
        }
    )


def test_lines_are_where_theory_has_its_levels():
    for beta in (0.02, 0.1, 0.5):
        apart = phase.overlapping_below(beta, 1.0)
        assert theory.misassignment(beta, apart - 1.0) == pytest.approx(0.1, rel=1e-6)
        size = phase.starved_below(objectives.reverse_kl(replay=0.2), beta)
        for whole, more in ((np.floor(size), True), (np.ceil(size), False)):
            assert whole < 1 or (theory.starvation_probability(beta, whole, 0.2) >= 0.5) == more
        # Data hold what is replayed, whatever the learner; an anchor is in no batch.
        of_data = phase.starved_below(objectives.sft(replay=0.2), beta)
        assert of_data == pytest.approx(np.log(0.5) / np.log(0.8))
        on_policy = phase.starved_below(objectives.reverse_kl(), beta)
        assert phase.starved_below(objectives.sdft(anchor=0.2), beta) == on_policy
    assert phase.starved_below(objectives.sft(), 0.1) == np.inf


def test_the_turned_hyperparameter_is_what_is_replayed_or_moves_the_end():
    found = [phase.turned(name, 0.2).recipe.given for name in OBJECTIVES]
    assert found == [{"replay": 0.2}, {"replay": 0.2}, {"anchor": 0.2}]


def test_the_summary_tells_both_sides_of_the_lines_apart(tree):
    frame = phase.summary(tree).set_index(["objective", "knob"])
    assert len(frame) == 6
    row = frame.loc["reverse_kl", 0.0]
    assert row["starved_below"] == pytest.approx(6.58, abs=0.01)
    assert (row["kept_starved"], row["kept_fed"]) == pytest.approx((0.01, 0.4))
    assert (row["old_drift_overlapping"], row["old_drift_apart"]) == (1.0, 0.001)
    assert np.isnan(frame.loc["sft", 0.0]["kept_fed"])
    assert frame["num_diverged"].tolist() == [1, 0, 0, 0, 0, 0]
    # What diverged is left out, and the point is not.
    assert frame.loc["sft", 0.0]["kept"] == pytest.approx((0.01 + 2 * 0.4) / 3)


def test_table_and_figures_are_drawn(tree, tmp_path):
    assert len(phase.table(tree).rows) == 6
    outputs.write_analysis(phase, tree, tmp_path)
    names = {"results.zarr", "summary.csv"}
    names |= {f"phase_{name}.{form}" for name in OBJECTIVES for form in ("png", "svg")}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.slow
def test_a_small_diagram_is_trained(tmp_path):
    settings = phase.Settings(
        separations=[2.0, 5.0],
        batch_sizes=[4],
        knobs=[0.2],
        start_old_weight=0.1,
        num_steps=200,
        num_replicates=8,
    )
    tree = phase.run(settings, out=tmp_path / "out", progress=False)
    retention = tree["final"]["retention"].mean(["chain", "draw"]).squeeze()
    # SFT ends at the replayed share, reverse KL on its way to the target.
    assert retention.sel(objective="sft", separation=5.0) == pytest.approx(0.2, abs=0.1)
    assert retention.sel(objective="reverse_kl", separation=5.0) > 0.2
    starvation = tree["theory"]["starvation"].sel(objective="reverse_kl").item()
    assert starvation == pytest.approx((0.8 * 0.9) ** 4)
    assert len(list(outputs.kept_beside(tmp_path / "out").glob("replay-*.zarr"))) == 1
