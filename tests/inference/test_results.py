"""The layout of a result and its files."""

import json
import subprocess
import sys

import arviz as az
import numpy as np
import pytest
import xarray as xr

import inference
from inference import results
from mixture_models import InputError, TwoMode


def test_layout(runs):
    trajectory = runs["trajectory"]
    assert trajectory["old_weight"].dims == ("objective", "chain", "draw", "step")
    assert trajectory["old_mean"].dims == ("objective", "chain", "draw", "step", "feature")
    assert trajectory["step"].values.tolist() == [0, 5, 10, 15, 20]
    assert trajectory["objective"].values.tolist() == ["sft", "sft:replay=0.2"]
    assert runs["trajectory_stats"]["diverged_step"].dtype.kind == "i"
    assert runs.attrs["seed"] == 3
    for name in ("objective_model", "sampling_law", "divergence", "direction"):
        assert trajectory[name].dims == ("objective",)
    assert set(trajectory["direction"].values) == {"forward"}


def test_every_dimension_has_a_coordinate_and_every_variable_a_name_and_a_unit(runs):
    for group in runs.subtree:
        dataset = group.to_dataset()
        assert set(dataset.sizes) <= set(dataset.coords)
        for name, variable in dataset.variables.items():
            assert variable.attrs.get("long_name"), (group.path, name)
            assert variable.attrs.get("units"), (group.path, name)


def test_attributes_are_plain_and_settings_are_json(runs):
    assert all(isinstance(value, str | int | float) for value in runs.attrs.values())
    settings = json.loads(runs.attrs["settings"])
    assert settings["num_steps"] == 20
    assert settings["objectives"] == ["sft", "sft:replay=0.2"]
    assert json.loads(runs.attrs["versions"])["jax"]


def test_final_is_the_last_step(runs):
    last = runs["trajectory"].to_dataset().isel(step=-1, drop=True)
    xr.testing.assert_identical(last, runs["final"].to_dataset())


def test_the_mixtures_come_back_bit_for_bit(runs):
    target = TwoMode.create(0.4, [0.0, 0.0], [3.0, 0.0], covariance=[[1.0, 0.2], [0.2, 2.0]])
    assert results.two_mode(runs, "target") == target
    assert results.two_mode(runs, "start") == target.replace(old_weight=0.8, new_mean=[2.0, 0.5])


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_a_saved_result_comes_back_whole(runs, tmp_path, suffix):
    path = inference.save(runs, tmp_path / f"r{suffix}")
    assert [item.name for item in tmp_path.iterdir()] == [path.name]  # nothing temporary is left
    xr.testing.assert_identical(inference.open(path), runs)
    with xr.open_datatree(path) as bare:  # by anyone's xarray, without a warning
        np.testing.assert_array_equal(bare["final"]["old_weight"], runs["final"]["old_weight"])


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_a_result_is_only_overwritten_explicitly(runs, tmp_path, suffix):
    path = inference.save(runs, tmp_path / f"r{suffix}")
    before = inference.open(path)
    with pytest.raises(InputError, match="must not exist yet"):
        inference.save(runs, path)
    changed = runs.copy()
    changed.attrs["seed"] = 4
    inference.save(changed, path, overwrite=True)
    assert inference.open(path).attrs["seed"] == 4
    assert before.attrs["seed"] == 3


def test_a_folder_of_something_else_is_never_overwritten(runs, tmp_path):
    foreign = tmp_path / "mine.zarr"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="earlier result"):
        inference.save(runs, foreign, overwrite=True)
    assert (foreign / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_a_failed_write_leaves_the_earlier_result(runs, tmp_path, suffix, monkeypatch):
    path = inference.save(runs, tmp_path / f"r{suffix}")

    def full_disk(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(xr.DataTree, "to_zarr", full_disk)
    monkeypatch.setattr(xr.DataTree, "to_netcdf", full_disk)
    with pytest.raises(OSError, match="No space"):
        inference.save(runs, path, overwrite=True)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    xr.testing.assert_identical(inference.open(path), runs)


def test_bad_paths(runs, tmp_path):
    with pytest.raises(InputError, match="suffix"):
        inference.save(runs, tmp_path / "r.csv")
    with pytest.raises(InputError, match="existing folder"):
        inference.save(runs, tmp_path / "no" / "r.nc")
    with pytest.raises(InputError, match="no such file"):
        inference.open(tmp_path / "r.zarr")


def test_foreign_and_unreadable_files_are_refused(tmp_path):
    garbage = tmp_path / "garbage.nc"
    garbage.write_bytes(b"not netCDF at all")
    with pytest.raises(InputError, match="is not: NetCDF"):
        inference.open(garbage)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match="massdrift result"):
        inference.open(tmp_path / "empty.zarr")
    xr.DataTree.from_dict({"/": xr.Dataset({"x": 1.0})}).to_netcdf(tmp_path / "foreign.nc")
    with pytest.raises(InputError, match="got another file"):
        inference.open(tmp_path / "foreign.nc")
    newer = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"massdrift_layout": results.LAYOUT + 1})})
    newer.to_netcdf(tmp_path / "newer.nc")
    with pytest.raises(InputError, match=f"got layout {results.LAYOUT + 1}"):
        inference.open(tmp_path / "newer.nc")


def test_arviz_reads_a_result_unadapted(runs):
    table = az.summary(
        runs, group="final", var_names=["old_weight", "old_drift"], kind="stats", round_to="none"
    )
    values = runs["final"]["old_weight"].sel(objective="sft").values
    assert table.loc["old_weight[sft]", "mean"] == pytest.approx(values.mean())
    az.plot_forest(runs, group="final", var_names=["old_weight"])
    az.plot_dist(runs, group="final", var_names=["old_weight"])
    assert az.extract(runs, group="final", var_names="old_weight").sizes["sample"] == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "compare sft reverse_kl --num-steps 20 --num-replicates 4",
        "mass-forgetting 3",
        "geometry 3",
        "replay 0 0.2 --num-replicates 4",
        "phase 3 --batch-size 8 --num-steps 20 --num-replicates 4",
        "near-on-policy --num-points 3 --num-trained 2 --num-steps 20 --num-replicates 4",
    ],
)
def test_a_result_says_what_its_variables_are_whatever_else_was_imported(words, tmp_path):
    """Whoever makes a variable registers it: a name of another analysis is not known in its process."""
    run = [sys.executable, "-m", "massdrift", *words.split(), "--quiet", "--out", str(tmp_path / "out")]
    subprocess.run(run, check=True, capture_output=True)
    tree = xr.open_datatree(tmp_path / "out" / "results.zarr").load()
    for group in tree.subtree:
        for name, variable in group.to_dataset(inherit=False).variables.items():
            assert {"long_name", "units"} <= set(variable.attrs), (group.path, name)


def test_a_result_says_what_its_intervals_are():
    with az.rc_context({"stats.ci_prob": 0.5, "stats.ci_kind": "hdi"}):
        assert results.provenance({})["intervals"] == "50 % highest-density interval"
