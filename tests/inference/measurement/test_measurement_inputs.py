"""What a measurement takes, and what it refuses before anything is computed."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from measurement_samples import QUIET

from inference import measure
from inference.measurement import checkpoints
from inference.measurement.samples import sources
from mixture_models import InputError


def test_every_form_of_input_is_the_same(data, tmp_path):
    old, _, runs = data
    names = ["x", "y"]
    labels = np.repeat([10, 20, 30], 500)
    flat = np.concatenate(runs)
    frame = pd.DataFrame(flat, columns=names).assign(checkpoint=labels)
    frame.to_parquet(tmp_path / "runs.parquet")
    array = xr.DataArray(
        np.stack(runs),
        dims=("checkpoint", "sample", "feature"),
        coords={"checkpoint": [10, 20, 30], "feature": names},
    )
    array.rename("samples").to_netcdf(tmp_path / "runs.nc")
    array.rename("samples").to_dataset().to_zarr(tmp_path / "runs.zarr", zarr_format=3, consolidated=False)
    np.savez(tmp_path / "named.npz", **{str(n): r for n, r in zip([10, 20, 30], runs, strict=True)})
    np.savez(tmp_path / "rows.npz", samples=flat, checkpoint=labels)
    np.save(tmp_path / "runs.npy", np.stack(runs))
    ragged = [runs[0], runs[1][:7], runs[2]]
    for source in (
        frame,
        array,
        *(tmp_path / f for f in ("runs.parquet", "runs.nc", "runs.zarr", "named.npz", "rows.npz")),
    ):
        found = sources.samples_of("samples", source)
        assert found.names == [10, 20, 30]
        for i, expected in enumerate(runs):
            np.testing.assert_array_equal(found.load(i), expected)
    assert sources.samples_of("samples", tmp_path / "runs.npy").names == [0, 1, 2]
    assert [len(sources.samples_of("samples", ragged).load(i)) for i in range(3)] == [500, 7, 500]
    assert len(sources.reference_of("old_reference", old)[0]) == 600


def _bad(kind):
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(50, 3)), rng.normal(size=(50, 3)) + 3.0
    y = rng.normal(size=(2, 40, 3))
    if kind == "features":
        return y[..., :2], old, new, "old_reference has 3 and samples 2"
    if kind == "reference features":
        return y, old, new[:, :2], "same features"
    if kind == "names":
        return (
            pd.DataFrame(y[0], columns=list("abc")),
            pd.DataFrame(old, columns=list("abd")),
            new,
            "'d' only in old_reference",
        )
    if kind == "few":
        return y, old[:4], new, "at least 5"
    if kind == "few for d":
        return np.tile(y, 20), np.tile(old[:20], 20), np.tile(new[:20], 20), "at least"
    if kind == "nan":
        y[1, 3, 0], y[1, 5, 1] = np.nan, np.inf
        return y, old, new, "2 rows are not: 0 of the old reference, 0 of the new reference, and 2"
    if kind == "constant":
        old[:, 1] = 2.0
        return y, old, new, "constant: 1"
    if kind == "collinear":
        old[:, 2], new[:, 2] = old[:, 0] + old[:, 1], new[:, 0] + new[:, 1]
        return y, old, new, "linear combinations"
    if kind == "identical":
        return y, old, old.copy(), "same samples"
    if kind == "empty":
        return [y[0], y[1][:0]], old, new, "checkpoint 1 has none"
    if kind == "shape":
        return y[0, :, 0], old, new, "shape"
    return "missing.npz", old, new, "there is no"


@pytest.mark.parametrize(
    "kind",
    [
        "features", "reference features", "names", "few", "few for d", "nan", "constant", "collinear",
        "identical", "empty", "shape", "file",
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_before_anything_is_computed(kind, monkeypatch):
    monkeypatch.setattr(checkpoints, "measure_checkpoint", lambda *_: pytest.fail("computed"))
    samples, old, new, message = _bad(kind)
    with pytest.raises(InputError, match=message) as raised:
        measure(samples, old, new, progress=False)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_missing_rows_are_dropped_on_demand_and_counted(data):
    old, new, runs = data
    holed = runs[1].copy()
    holed[:3] = np.nan
    tree = measure([holed], old, new, drop_missing=True, num_draws=100, **QUIET)
    assert tree.attrs["num_dropped"] == 3
    assert tree["sample_stats"]["num_samples"].item() == 497


@pytest.mark.slow
def test_draws_are_as_many_under_every_draw_of_the_references(data):
    """Asked for 101 there are 200: 2 in each of 4 chains under each of 25."""
    old, new, runs = data
    posterior = measure(runs[:1], old, new, num_draws=101, method="laplace", **QUIET)["posterior"]
    assert (posterior.sizes["chain"], posterior.sizes["draw"]) == (4, 50)
    np.testing.assert_array_equal(np.bincount(posterior["reference_draw"]), 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "svi"}, {"covariance": "x"}, {"tails": "x"}, {"num_draws": 5}, {"displacement_scale": 0.0},
        {"weight_prior": (0.5, 1)}, {"seed": -1},
    ],
)  # fmt: skip
def test_unusable_settings_are_refused(data, wrong):
    old, new, runs = data
    (name,) = wrong
    with pytest.raises(InputError, match=f"{name} must be (one of|at least|greater than)"):
        measure(runs, old, new, progress=False, **wrong)
