"""Sweeps: the numbers of `train`, labelled, and one program for every grid."""

from types import SimpleNamespace

import arviz as az
import numpy as np
import pytest
import xarray as xr
from sweep_runs import CHOSEN, GRID, GROUPS, assert_agrees, numbers, point, run

from inference import open_sweep
from inference.sweeps import store
from mixture_models import InputError, objectives


def test_points_of_a_sweep_are_trainings(whole):
    tree = open_sweep(whole)
    rng = np.random.default_rng(0)
    for _ in range(4):
        at = {name: values[rng.integers(len(values))] for name, values in GRID.items()}
        assert_agrees(tree, point(GRID, CHOSEN, **at), at)


@pytest.mark.slow
def test_a_sweep_in_single_precision_is_trainings_in_single_precision(whole, tmp_path):
    tree = run(tmp_path / "single.zarr", precision="float32")
    at = {name: values[-1] for name, values in GRID.items()}
    # To rounding in float32, where sums of another width differ.
    assert_agrees(tree, point(GRID, CHOSEN, "float32", **at), at, tolerance=1e-5)
    assert numbers(tmp_path / "single.zarr") != numbers(whole)
    with pytest.raises(InputError, match="precision must be one of float64, float32; got 'float16'"):
        run(tmp_path / "half.zarr", precision="float16")


def test_every_axis_is_a_labelled_dimension(whole):
    tree = open_sweep(whole)
    final = tree["final"]["old_weight"]
    assert final.dims == ("objective", *GRID, "chain", "draw")
    for name, values in GRID.items():
        np.testing.assert_array_equal(tree["final"][name], values)
        assert set(tree["final"][name].attrs) >= {"long_name", "units"}
    assert tree["trajectory"]["step"].to_numpy().tolist() == [0, 3, 4, 6, 9]
    assert not np.isnan(final).any()
    # Readable by whoever has xarray alone, without a warning.
    with xr.open_datatree(whole) as bare:
        assert bare["final"]["old_weight"].attrs["units"] == "1"


def test_numbers_are_read_when_they_are_asked_for(copy):
    tree = open_sweep(copy)
    for chunk in (copy / "final" / "old_weight" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"")
    with pytest.raises(ValueError, match="checksum"):
        tree["final"]["old_weight"].to_numpy()
    assert np.isfinite(tree["final"]["old_drift"]).all()


def listed(dataset, names):
    return np.concatenate([dataset[name].to_numpy().ravel() for name in names])


def test_arviz_reads_a_sweep_as_it_is(whole):
    at = {"target.separation": 2.0, "learning_rate": 0.1, "start.old_weight": GRID["start.old_weight"][:2]}
    names = ["old_weight", "retention"]
    summary = az.summary(open_sweep(whole).sel(at), group="final", var_names=names, round_to="none")
    with xr.open_datatree(whole) as stored:
        final = stored["final"].to_dataset().sel(at)[names].load()
    # ArviZ lists the points of a variable in their order; its first version divides by n, not by n - 1.
    of_n, of_n_less_1 = (listed(final.std(["chain", "draw"], ddof=ddof), names) for ddof in (0, 1))
    np.testing.assert_allclose(
        np.asarray(summary["mean"], float), listed(final.mean(["chain", "draw"]), names), rtol=1e-9
    )
    sd = np.asarray(summary["sd"], float)
    assert any(np.allclose(sd, expected, rtol=1e-9, atol=0.0) for expected in (of_n, of_n_less_1))
    forest = az.plot_forest(open_sweep(whole).sel(at), group="final", var_names=["old_weight"])
    assert "old_weight" in forest.viz["trunk"].data_vars


def test_a_sweep_larger_than_memory_is_reduced_chunk_by_chunk(whole, monkeypatch):
    in_memory = open_sweep(whole)
    # Such that the trajectories are too large and their ends are not.
    between = float(in_memory["trajectory"].nbytes + in_memory["final"].nbytes) / 2
    free = SimpleNamespace(available=between / store._WHOLE)
    monkeypatch.setattr(store, "psutil", SimpleNamespace(virtual_memory=lambda: free))
    tree = open_sweep(whole)
    assert tree["trajectory"]["loss"].chunks
    assert max(map(len, tree["trajectory"]["loss"].chunks)) > 1
    assert not tree["final"]["loss"].chunks
    assert tree.attrs == in_memory.attrs
    for group in GROUPS:
        xr.testing.assert_identical(*(t[group].to_dataset().load() for t in (tree, in_memory)))


@pytest.mark.slow
def test_own_random_numbers_are_those_of_the_seed_that_is_recorded(tmp_path):
    grid = {"start.old_weight": [0.3, 0.6], "seed": [5, 6]}
    tree = run(tmp_path / "own.zarr", grid, CHOSEN[:1], common_random_numbers=False)
    seeds = tree["constant_data"]["seed_of_point"].isel(objective=0)
    assert len(np.unique(seeds)) == 4
    for weight in grid["start.old_weight"]:
        at = {"start.old_weight": weight, "seed": 6}
        seed = int(seeds.sel(at))
        assert_agrees(tree, point(grid, CHOSEN[:1], **(at | {"seed": seed})), at)


def test_a_diverged_training_is_nan_and_counted_where_train_says(tmp_path):
    grid = {"learning_rate": [0.1, 1e3, 1e300]}
    tree = run(tmp_path / "far.zarr", grid, CHOSEN)
    for rate in grid["learning_rate"]:
        at = {"learning_rate": rate}
        single = point(grid, CHOSEN, **at)
        # What flies off by factors of a thousand a step magnifies round-off: only the start is compared.
        first = tree["trajectory"].to_dataset().sel(at).isel(step=0)
        np.testing.assert_allclose(first["old_weight"], single["trajectory"]["old_weight"].isel(step=0))
        np.testing.assert_array_equal(
            tree["trajectory_stats"]["diverged_step"].sel(at), single["trajectory_stats"]["diverged_step"]
        )
    assert (tree["trajectory_stats"]["diverged_step"].sel(learning_rate=1e300) >= 0).all()
    assert np.isnan(tree["final"]["old_weight"].sel(learning_rate=1e300)).all()


def test_a_chunk_of_nothing_but_nan_is_not_lost(tmp_path):
    """Zarr leaves out chunks that are all fill value, unless it is told not to."""
    settings = {"grid": {"learning_rate": [1e300]}, "chosen": CHOSEN[:1], "record_every": 40}
    path = tmp_path / "nan.zarr"
    assert np.isnan(run(path, **settings)["final"]["old_weight"]).all()
    before = {file: file.stat().st_mtime_ns for file in path.rglob("c/**/*") if file.is_file()}
    run(path, **settings)
    assert before == {file: file.stat().st_mtime_ns for file in before}


@pytest.mark.slow
def test_the_old_mean_alone_may_be_frozen_along_an_axis(tmp_path):
    grid = {"learning_rate_factors.old_mean": [0.0, 1.0]}
    tree = run(tmp_path / "frozen.zarr", grid, CHOSEN[:1])
    moved = tree["final"]["old_drift"].isel(objective=0, chain=0)
    assert np.all(moved.sel({"learning_rate_factors.old_mean": 0.0}) == 0.0)
    assert np.all(moved.sel({"learning_rate_factors.old_mean": 1.0}) > 0.0)


# One program


@pytest.mark.slow
def test_a_new_grid_over_known_objectives_compiles_nothing(whole, tmp_path, compilations):
    grids = [
        {"target.old_weight": [0.1, 0.2, 0.7], "start.new_gap": [0.5, 1.0], "objective.replay": [0.3]},
        {"sft:replay=0.2.replay": [0.1, 0.5, 0.6, 0.9], "start.old_drift": [0.0, 0.2]},
        {"start.old_logit": np.linspace(-3.0, 3.0, 40), "num_steps": [3, 40], "seed": [1, 2]},
        {},
    ]
    chosen = [objectives.sft(replay=0.2), objectives.reverse_kl()]
    for index, grid in enumerate(grids):
        of_all = chosen[:1] if "objective.replay" in grid else chosen
        store = tmp_path / f"{index}.zarr"
        assert compilations(lambda g=grid, o=of_all, s=store: run(s, g, o)) == []
    # The counter counts: another batch is another shape.
    one = {"batch_size": [5], "start.old_weight": [0.5]}
    assert len(compilations(lambda: run(tmp_path / "other.zarr", one, chosen[:1]))) >= 2
