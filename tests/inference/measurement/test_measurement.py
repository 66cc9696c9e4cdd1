"""The measurement: against quadrature, closed forms and NUTS; what it writes, and what it refuses."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import inference
from benchmarks import calibration
from inference import measure
from inference.intervals import interval
from inference.measurement import checkpoints
from inference.measurement.posterior import climb, laplace, law
from inference.measurement.posterior import derived as posterior
from inference.measurement.posterior.prior import Prior
from inference.measurement.references import anchors as anchoring
from inference.measurement.references.anchors import Kind
from inference.measurement.samples import sources
from mixture_models import InputError

QUIET = {"progress": False, "covariance": "shared", "tails": "gaussian"}


def simulated(num, weight, moved_old, new_mean, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    moved_old, new_mean = np.asarray(moved_old, float), np.asarray(new_mean, float)
    old = rng.uniform(size=num) < weight
    return noise * rng.normal(size=(num, new_mean.size)) + np.where(old[:, None], moved_old, new_mean)


@pytest.fixture(scope="module")
def data():
    """References 4 apart in 2 dimensions, and three checkpoints that lose the old mode and move it."""
    old, new = simulated(600, 1.0, [0, 0], [4, 0]), simulated(600, 0.0, [0, 0], [4, 0], seed=1)
    runs = [
        simulated(500, w, [d, 0], [4, 0.5], seed=2 + i)
        for i, (w, d) in enumerate([(0.9, 0), (0.5, 0.3), (0.2, 0.6)])
    ]
    return old, new, runs


@pytest.fixture(scope="module")
def tree(data):
    old, new, runs = data
    return measure(runs, old, new, num_log_likelihood_rows=50, num_draws=400, **QUIET)


@pytest.mark.parametrize(
    ("separation", "num", "seed"), [pytest.param(2.5, 300, 0, marks=pytest.mark.slow), (4.0, 150, 1)]
)
def test_posterior_is_that_of_brute_force_quadrature(separation, num, seed):
    """One feature, huge references: weight and two displacements are all that is unknown."""
    rng = np.random.default_rng(seed)
    # Exact quantiles make the references' mean and variance what they are meant to be.
    z = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)[:, None]
    y = rng.normal(size=(num, 1)) + np.where(rng.uniform(size=(num, 1)) < 0.35, 0.3, separation - 0.2)
    beta = np.linspace(0.0, 1.0, 81)[1:-1]
    # Last, where a mode has not moved at all.
    shift = np.append(np.linspace(-1.3, 1.3, 79), 0.0)
    old, new = (np.exp(-0.5 * (y - m - shift) ** 2) for m in (0.0, separation))
    log_posterior = np.zeros((len(beta), len(shift), len(shift)))
    for o, n in zip(old, new, strict=True):
        log_posterior += np.log(
            beta[:, None, None] * o[None, :, None] + (1 - beta[:, None, None]) * n[None, None, :]
        )
    # Half of the prior lies on the grid's cells, half on the last point: each of four configurations has 1/4.
    prior = np.log(0.5 * (shift[1] - shift[0])) + stats.t(3, scale=Prior().displacement_scale).logpdf(shift)
    prior[-1] = np.log(0.5)
    log_posterior += prior[:, None] + prior[None, :]
    # What lies on the other side of the middle is not counted.
    steep = 40.0 / separation
    log_posterior += -np.logaddexp(0.0, -steep * (0.5 * separation - shift))[None, :, None]
    log_posterior += -np.logaddexp(0.0, -steep * (0.5 * separation + shift))[None, None, :]
    weights = np.exp(log_posterior - log_posterior.max())
    weights /= weights.sum()
    assert weights[:, [0, -2]].sum() < 1e-3
    assert weights[:, :, [0, -2]].sum() < 1e-3

    tree = measure(y, z, z + separation, num_draws=4000, **QUIET)
    assert tree["sample_stats"]["k_hat"].item() < 0.7
    efficiency = tree["sample_stats"]["efficiency"].item()
    grids = np.meshgrid(beta, shift, shift, indexing="ij")
    still = np.arange(len(shift)) == len(shift) - 1
    stills = np.meshgrid(beta, still, still, indexing="ij")[1:]
    posterior = tree["posterior"].to_dataset().isel(checkpoint=0)
    expected = [
        (posterior["old_weight"].values, grids[0]),
        (posterior["old_displacement"].values, grids[1]),
        (posterior["new_displacement"].values, grids[2]),
        (posterior["old_drift"].values == 0.0, stills[0]),
        (posterior["new_gap"].values == 0.0, stills[1]),
    ]
    for values, grid in expected:
        draws = values.ravel()
        mean = np.sum(weights * grid)
        sd = np.sqrt(np.sum(weights * (grid - mean) ** 2))
        error = sd / np.sqrt(8000 * efficiency)
        # 5 standard errors are at most 0.12 posterior standard deviations; a wrong weight or shift shows, and
        # so does a wrong chance of not having moved.
        assert abs(draws.mean() - mean) < 5.0 * error + 0.01 * sd
        assert draws.std() == pytest.approx(sd, rel=0.12)
    for name, length in (("old", "old_drift"), ("new", "new_gap")):
        found = tree["sample_stats"][f"{name}_unmoved_probability"].item()
        assert found == np.mean(posterior[length].values == 0.0)
        assert np.all(
            (posterior[length].values == 0.0) == (posterior[f"{name}_displacement"].values[..., 0] == 0.0)
        )


@pytest.mark.slow
def test_where_modes_are_far_apart_the_weight_is_beta_and_nothing_else(data):
    y = simulated(300, 0.3, [0, 0], [30, 0], seed=5)
    count = int(np.sum(y[:, 0] < 15.0))
    old, new = simulated(600, 1.0, [0, 0], [30, 0]), simulated(600, 0.0, [0, 0], [30, 0], seed=1)
    tree = measure(y, old, new, num_draws=4000, weight_prior=(2.0, 5.0), **QUIET)
    draws = tree["posterior"]["old_weight"].values.ravel()
    exact = stats.beta(2 + count, 5 + 300 - count)
    probabilities = [0.055, 0.25, 0.5, 0.75, 0.945]
    # The standard error of an empirical probability of 4,000 draws is at most 0.008.
    np.testing.assert_allclose(
        np.mean(draws[:, None] < exact.ppf(probabilities), axis=0), probabilities, atol=0.04
    )


@pytest.mark.slow
def test_displacement_is_in_the_users_coordinates_and_of_its_own_mode():
    mix, origin = np.array([[2.0, 0.0], [1.0, 0.5]]), np.array([10.0, -3.0])
    old, new = simulated(3000, 1.0, [0, 0], [5, 0]), simulated(3000, 0.0, [0, 0], [5, 0], seed=1)
    y = simulated(4000, 0.25, [0.5, 0.0], [5.0, -0.8], seed=2)
    tree = measure(y @ mix.T + origin, old @ mix.T + origin, new @ mix.T + origin, **QUIET)
    posterior = tree["posterior"].to_dataset().isel(checkpoint=0)
    for name, truth in (("old_displacement", [0.5, 0.0]), ("new_displacement", [0.0, -0.8])):
        found = posterior[name]
        z = (found.mean(["chain", "draw"]) - mix @ np.array(truth)) / found.std(["chain", "draw"])
        assert np.all(np.abs(z) < 4.0)
    assert float(posterior["old_weight"].mean()) == pytest.approx(0.25, abs=0.03)
    assert float(posterior["old_drift"].mean()) == pytest.approx(0.5, abs=0.12)
    assert float(posterior["new_gap"].mean()) == pytest.approx(0.8, abs=0.1)


@pytest.mark.slow
def test_no_drift_is_reachable_and_no_old_samples_are_no_old_weight():
    old, new = (
        simulated(1000, 1.0, np.zeros(8), 4 * np.eye(8)[0]),
        simulated(1000, 0.0, np.zeros(8), 4 * np.eye(8)[0], 1),
    )
    same = measure(simulated(1000, 0.5, np.zeros(8), 4 * np.eye(8)[0], 2), old, new, **QUIET)
    assert same["sample_stats"]["old_unmoved_probability"].item() > 0.2
    gone = measure(
        simulated(1000, 0.0, np.zeros(8), 4 * np.eye(8)[0], 3), old, new, method="laplace", **QUIET
    )
    assert float(gone["posterior"]["old_weight"].mean()) < 0.02
    assert "too few samples of the old mode" in gone["sample_stats"]["words"].item()


@pytest.mark.slow
@pytest.mark.parametrize("far", ["old", "new"])
def test_a_mode_that_moved_far_across_the_axis_keeps_its_name(far):
    """The side of the middle tells whose a mode is, even where a climb begins closer to the other one."""
    old_place, new_place = ([1.0, 18.0], [3.0, 1.0]) if far == "old" else ([-0.9, -1.0], [1.4, 18.0])
    old, new = simulated(300, 1.0, [0, 0], [2.2, 0]), simulated(300, 0.0, [0, 0], [2.2, 0], seed=1)
    tree = measure(simulated(1000, 0.3, old_place, new_place, seed=2), old, new, num_draws=400, **QUIET)
    mean = tree["posterior"].to_dataset().mean(["chain", "draw"]).isel(checkpoint=0)
    # The sd of a share of 1,000 known samples is 0.0145.
    assert abs(mean["old_weight"] - 0.3) < 0.06
    assert np.allclose(mean["old_displacement"], old_place, atol=0.4)


@pytest.mark.parametrize("tails", ["gaussian", "student"])
def test_skewed_modes_that_stay_have_not_moved(tails):
    """Locations of Student-t modes are not the means that least squares find in a checkpoint."""
    rng = np.random.default_rng(0)

    def drawn(num, at):
        return np.column_stack([rng.normal(at, 1.0, num), rng.exponential(1.0, (num, 4)) ** 1.5])

    run = rng.permutation(np.concatenate([drawn(200, 0.0), drawn(200, 5.0)]))
    tree = measure(
        [run], drawn(300, 0.0), drawn(300, 5.0), **(QUIET | {"covariance": "axis", "tails": tails})
    )
    assert float((tree["posterior"]["old_drift"] == 0.0).mean()) > 0.7


@pytest.mark.slow
def test_a_feature_that_is_nearly_always_one_number_in_one_reference_is_measured():
    """No Student-t mode fits it: its likelihood has no bound."""
    rng = np.random.default_rng(0)

    def drawn(num, is_new):
        counts = rng.poisson(0.05 if is_new else 3.0, num)
        return np.column_stack([rng.normal(4.0 * is_new, 1.0, num), counts, rng.normal(size=num)])

    run = np.concatenate([drawn(120, False), drawn(280, True)])
    tree = measure([run], drawn(300, False), drawn(300, True), progress=False, num_draws=400)
    low, high = interval(tree["posterior"]["old_weight"])[0].to_numpy()
    assert low < 0.3 < high


@pytest.mark.slow
def test_drift_knows_how_far_the_metric_of_few_references_is_off():
    """A displacement of length 50 that is known: what is unknown of its length is the references' metric.

    References of one size share the random numbers of their draws: there are so many that they do not matter.
    """
    d, num, size, covered, rng = 4, 40, 4000, [], np.random.default_rng(0)
    for _ in range(300):
        old, new = rng.normal(size=(num, d)), rng.normal(size=(num, d)) + 20.0 * np.eye(d)[0]
        references = anchoring.anchor(old, new, Kind("shared", False), num_draws=size)
        anchors = climb.unbatched(references.draws)
        moved = anchors.means[0] + references.frame.forward @ [0.0, 50.0, 0.0, 0.0]
        means = [np.tile(mean, (size, 1, 1)) for mean in (moved, anchors.means[1])]
        tilt = rng.normal(size=(size, 1, 1, d - 1)) / np.sqrt(anchors.tilt_dof[0])
        unknowns = law.Unknowns(np.zeros((size, 1)), *means, tilt)
        draws = laplace.Draws(unknowns, np.full((size, 1, 2, 2), 1e3), 0.0, 1.0)
        drift = posterior.report(references, draws, rng).old_drift
        low, high = np.quantile(drift, [0.055, 0.945], method="weibull")
        covered.append(low <= 50.0 <= high)
    # The share's standard error is 0.018; with the metric taken as it is, the interval holds 50 once in 20.
    assert abs(np.mean(covered) - 0.89) < 0.055


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
def test_many_features_are_projected_and_the_loss_is_said():
    rng = np.random.default_rng(0)
    mean = np.zeros(30)
    mean[:2] = [3.0, 2.0]
    old, new = rng.normal(size=(1500, 30)), rng.normal(size=(1500, 30)) + mean
    y = rng.normal(size=(1500, 30)) + np.where(rng.uniform(size=(1500, 1)) < 0.4, 0.0, mean)
    tree = measure(y, old, new, max_features=4, **QUIET)
    assert list(tree["posterior"]["feature"].values) == [
        "discriminant",
        "component_1",
        "component_2",
        "component_3",
    ]
    assert 0.9 < tree.attrs["information_kept"] <= 1.0
    weight = tree["posterior"]["old_weight"]
    assert abs(float(weight.mean()) - 0.4) < 4 * float(weight.std())


def test_an_unmodelled_mode_and_overlap_are_said_in_words(data):
    old, new, runs = data
    strange = np.concatenate([runs[1][:450], simulated(50, 1.0, [2, 9], [0, 0], seed=9)])
    words = measure(strange, old, new, method="laplace", **QUIET)["sample_stats"]["words"].item()
    assert words.startswith("not to be trusted")
    assert "two modes do not describe the samples" in words
    near = old + np.array([1.0, 0.0])
    overlap = measure(simulated(500, 0.5, [0, 0], [1, 0], seed=4), old, near, method="laplace", **QUIET)
    assert "overlap" in overlap["sample_stats"]["words"].item()


@pytest.mark.slow
def test_neither_takes_what_belongs_to_no_task(data):
    old, new, _ = data
    y = np.concatenate(
        [simulated(900, 0.5, [0, 0], [4, 0], seed=3), simulated(100, 1.0, [2, 8], [0, 0], seed=9)]
    )
    tree = measure(y, old, new, neither=True, method="laplace", **QUIET)
    posterior = tree["posterior"].to_dataset()
    left = 1.0 - posterior["old_weight"] - posterior["new_weight"]
    assert float(left.mean()) == pytest.approx(0.1, abs=0.04)
    assert float(posterior["old_weight"].mean()) == pytest.approx(0.45, abs=0.06)


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


@pytest.mark.slow
def test_fast_path_agrees_with_nuts():
    old, new = (
        simulated(1000, 1.0, np.zeros(3), [3.5, 0, 0]),
        simulated(1000, 0.0, np.zeros(3), [3.5, 0, 0], seed=1),
    )
    y = simulated(1500, 0.3, [0.3, 0, 0.1], [3.5, 0.4, 0], seed=2)
    fast, slow = (
        measure(y, old, new, method=method, num_draws=8000, **QUIET)["posterior"].to_dataset()
        for method in ("laplace", "nuts")
    )
    for name in ("old_weight", "old_displacement", "new_displacement", "old_drift", "new_gap"):
        means, sds = (
            [d[name].isel(checkpoint=0).reduce(f, ("chain", "draw")) for d in (fast, slow)]
            for f in (np.mean, np.std)
        )
        assert np.all(np.abs(means[0] - means[1]) < 0.1 * sds[1]), name
        np.testing.assert_allclose(sds[0], sds[1], rtol=0.1, err_msg=name)


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", ["d = 2, displacements of the prior", "d = 8, lengths 0.3 to 1", "d = 8, nothing moved"]
)
def test_intervals_cover(words):
    """Over 500 runs the coverage's standard error is 0.014 for the weight; the bounds are 2 of them wider."""
    scenario = next(s for s in calibration.SCENARIOS if words in s.words)
    row = calibration.row(scenario, calibration.run(scenario, 500))
    assert row["k_hat_good"] > 0.9
    assert row["old_weight"] > 0.832
    assert 0.5 * (row["old_displacement"] + row["new_displacement"]) > 0.86
    if "prior" in words:
        assert row["old_weight"] < 0.948
        assert min(row["old_weight_rank_p"], row["old_drift_rank_p"]) > 1e-3
    if "nothing" in words:
        assert row["interval_reaches_none"] > 0.99
