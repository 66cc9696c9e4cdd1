"""The measurement of two modes: posterior, drift and coverage, against quadrature, closed forms and NUTS."""

import numpy as np
import pytest
from measurement_samples import QUIET, simulated
from scipy import stats

from benchmarks import calibration
from inference import measure
from inference.intervals import interval
from inference.measurement.posterior import climb, laplace, law
from inference.measurement.posterior import derived as posterior
from inference.measurement.posterior.prior import Prior
from inference.measurement.references import anchors as anchoring
from inference.measurement.references.anchors import Kind


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
