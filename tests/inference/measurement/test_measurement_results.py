"""The result of a measurement: layout, ArviZ, seeds, what an interruption leaves, compilations."""

import numpy as np
import pytest
import xarray as xr
from measurement_samples import QUIET, simulated

import inference
from inference import measure
from inference.measurement import checkpoints


def test_layout(tree, tmp_path):
    assert tree["posterior"]["old_displacement"].dims == ("chain", "draw", "checkpoint", "feature")
    assert tree["posterior"].sizes["chain"] * tree["posterior"].sizes["draw"] == 400
    reference_draw = tree["posterior"]["reference_draw"]
    assert reference_draw.dims == ("draw",)
    np.testing.assert_array_equal(np.bincount(reference_draw), 4)
    assert set(tree["observed_data"].data_vars) == {"check_statistic"}
    for name in ("sample_mean", "sample_sd"):
        assert tree["constant_data"][name].dims == ("checkpoint", "source_feature")
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "checkpoint", "row")
    for group in tree.children.values():
        for name, variable in group.to_dataset().variables.items():
            assert {"long_name", "units"} <= set(variable.attrs), name
    for suffix in (".zarr", ".nc"):
        path = inference.save(tree, tmp_path / f"measured{suffix}")
        again = inference.open(path)
        xr.testing.assert_identical(again["posterior"].to_dataset(), tree["posterior"].to_dataset())
    truth = np.array([0.9, 0.5, 0.2])
    posterior = tree["posterior"]["old_weight"]
    assert np.all(np.abs(posterior.mean(["chain", "draw"]) - truth) < 4 * posterior.std(["chain", "draw"]))
    for name in ("words", "weight_words", "drift_words"):
        assert set(tree["sample_stats"][name].values) == {"good"}


@pytest.mark.slow
def test_arviz_reads_it_and_compares_variants(data, tree):
    import arviz as az

    old, new, runs = data
    assert len(az.summary(tree, var_names=["old_weight", "old_drift"])) == 6
    other = measure(
        runs,
        old,
        new,
        num_log_likelihood_rows=50,
        num_draws=400,
        progress=False,
        tails="student",
        covariance="shared",
    )
    sizes = tree["log_likelihood"]["y"].sizes
    assert (sizes["checkpoint"], sizes["row"]) == (3, 50)
    compared = az.compare({"gaussian": tree, "student": other})
    assert set(compared.index) == {"gaussian", "student"}


def test_the_same_seed_gives_the_same_numbers_and_checkpoints_do_not_depend_on_each_other(data, tree):
    old, new, runs = data
    again = measure(runs[:2], old, new, num_log_likelihood_rows=50, num_draws=400, **QUIET)
    xr.testing.assert_identical(
        again["posterior"].to_dataset(), tree["posterior"].to_dataset().isel(checkpoint=slice(0, 2))
    )


def test_an_interrupted_measurement_goes_on(data, tree, tmp_path, monkeypatch):
    old, new, runs = data
    real, measured = checkpoints.measure_checkpoint, []

    def interrupted(*arguments):
        index = arguments[-1]
        if index == 2 and not measured.count("stopped"):
            measured.append("stopped")
            raise KeyboardInterrupt
        measured.append(index)
        return real(*arguments)

    monkeypatch.setattr(checkpoints, "measure_checkpoint", interrupted)
    settings = dict(num_log_likelihood_rows=50, num_draws=400, keep=tmp_path / "kept", **QUIET)
    with pytest.raises(KeyboardInterrupt):
        measure(runs, old, new, **settings)
    resumed = measure(runs, old, new, **settings)
    assert measured == [0, 1, "stopped", 2]
    xr.testing.assert_identical(resumed["posterior"].to_dataset(), tree["posterior"].to_dataset())
    # Other data are not taken for the same.
    measure([runs[0] + 0.1, *runs[1:]], old, new, **settings)
    assert measured[4:] == [0]


@pytest.mark.slow
def test_nuts_measures_checkpoints_of_one_size_with_one_compilation_and_agrees(compilations):
    """By draws of the references, each of which has a chain, so that their differences have a standard error.

    Five of these are at most 0.6 posterior sds of the weight and of a displacement that is sure.
    """
    old, new = simulated(400, 1.0, [0, 0], [3.5, 0]), simulated(400, 0.0, [0, 0], [3.5, 0], seed=1)
    runs = [simulated(200, w, [0.0, 1.0], [3.5, 1.2], seed=2 + i) for i, w in enumerate((0.6, 0.4))]
    trees = {}
    compiled = compilations(lambda: trees.update(nuts=measure(runs, old, new, method="nuts", **QUIET)))
    assert sum("_chains" in message for message in compiled) == 1
    trees["laplace"] = measure(runs, old, new, method="laplace", num_draws=4000, **QUIET)
    assert set(trees["nuts"]["sample_stats"]["method"].values) == {"nuts"}
    assert np.all(trees["nuts"]["sample_stats"]["ess"] > 200)
    for name in ("old_weight", "old_displacement", "new_displacement"):
        draws = [tree["posterior"][name] for tree in trees.values()]
        means = [d.mean("chain").groupby("reference_draw").mean() for d in draws]
        sd = draws[1].std(["chain", "draw"])
        difference = means[0] - means[1]
        error = difference.std("reference_draw") / 5.0
        assert np.all(5.0 * error < 0.6 * sd), name
        assert np.all(np.abs(difference.mean("reference_draw")) < 5.0 * error), name
        np.testing.assert_allclose(draws[0].std(["chain", "draw"]), sd, rtol=0.2, err_msg=name)
