"""Which of two objectives forgets less, on results made by hand."""

from dataclasses import replace

import arviz as az
import numpy as np
import pytest
import xarray as xr
from scipy import stats

from inference import intervals, results
from inference.comparison import replicates as comparison
from mixture_models import TwoMode, objectives


def _named(name):
    """An objective of a name: a result's labels need one."""
    return replace(objectives.sft(), name=name)


def tree_of(values, *, paired=True, means=None, target=None, diverged=None):
    """A result whose final retention is ``values[objective][replicate]``."""
    values = np.asarray(values, float)
    count, size = values.shape
    target = target or TwoMode.create(0.5, [0.0, 0.0], [4.0, 0.0])
    means = np.zeros((count, size, target.dim)) if means is None else means
    diverged = np.full((count, size), -1) if diverged is None else diverged
    trajectories = [
        {"retention": v[:, None], "old_mean": m[:, None]} for v, m in zip(values, means, strict=True)
    ]
    return results.training_tree(
        [_named(f"o{i}") for i in range(count)],
        trajectories,
        list(diverged),
        np.array([0]),
        {"start": target, "target": target},
        {"common_random_numbers": paired},
    )


def test_paired_probability_counts_pairs_of_one_replicate_with_ties_half():
    table = comparison.compare(tree_of([[1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 1.0, 5.0]]))
    probability = table["probability_larger"].sel(objective="o1", other="o0")
    assert probability.item() == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert table["num_pairs"].sel(objective="o1", other="o0") == 4
    assert np.diag(table["probability_larger"]) == pytest.approx([0.5, 0.5])


def test_unpaired_probability_counts_all_pairs_with_ties_half():
    a, b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 0.0])
    table = comparison.compare(tree_of([a, b], paired=False))
    wins = np.mean(np.greater.outer(b, a)) + 0.5 * np.mean(np.equal.outer(b, a))
    assert table["probability_larger"].sel(objective="o1", other="o0").item() == pytest.approx(wins)
    assert table["num_pairs"].sel(objective="o1", other="o0") == 9


def test_the_interval_of_the_mean_difference_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=12), rng.normal(0.3, 2.0, size=12)
    probability = az.rcParams["stats.ci_prob"]
    for paired, test in ((True, stats.ttest_rel(b, a)), (False, stats.ttest_ind(b, a, equal_var=False))):
        table = comparison.compare(tree_of([a, b], paired=paired)).sel(objective="o1", other="o0")
        expected = test.confidence_interval(probability)
        assert table["mean_difference_interval"].values == pytest.approx([expected.low, expected.high])
        assert table["mean_difference"].item() == pytest.approx(b.mean() - a.mean())


def test_diverged_replicates_leave_their_pairs():
    diverged = np.array([[-1, -1, 7], [-1, 3, -1]])
    for paired, pairs in ((True, 1), (False, 4)):
        tree = tree_of([[1.0, 2.0, np.nan], [2.0, np.nan, 0.0]], paired=paired, diverged=diverged)
        table = comparison.compare(tree).sel(objective="o1", other="o0")
        assert table["num_pairs"] == pairs
        assert np.isfinite(table["probability_larger"])


def test_one_replicate_has_a_probability_but_no_interval():
    for paired in (True, False):
        table = comparison.compare(tree_of([[1.0], [2.0]], paired=paired)).sel(objective="o1", other="o0")
        assert table["probability_larger"] == 1.0
        assert np.isnan(table["mean_difference_interval"]).all()


def test_without_any_converged_replicate_nothing_is_claimed():
    diverged = np.array([[-1, -1], [1, 1]])
    tree = tree_of([[1.0, 2.0], [np.nan, np.nan]], diverged=diverged)
    assert np.isnan(comparison.compare(tree)["probability_larger"].sel(objective="o1", other="o0"))
    assert np.isnan(comparison.systematic_displacement(tree)["displacement"].sel(objective="o1"))


@pytest.mark.slow
def test_the_mean_displacement_has_a_calibrated_error():
    """Over 400 experiments of 25 replicates the squared error averages to the reported one.

    Power: the ratio's relative standard error is below 0.08, so a factor 2 in the variance or a missing
    whitening (variance ratio 4 here) is 10 standard errors away.
    """
    rng = np.random.default_rng(1)
    target = TwoMode.create(0.5, [1.0, -1.0], [4.0, 0.0], covariance=[4.0, 0.25])
    shift = np.array([0.3, 0.1])
    whitened_shift = shift / np.sqrt([4.0, 0.25])
    ratio, norms = [], []
    for _ in range(400):
        means = target.old_mean + shift + rng.normal(size=(1, 25, 2)) * np.sqrt([4.0, 0.25]) * 0.5
        found = comparison.systematic_displacement(tree_of(np.zeros((1, 25)), means=means, target=target))
        vector = ((means[0] - target.old_mean) / np.sqrt([4.0, 0.25])).mean(axis=0)
        assert found["displacement"].item() == pytest.approx(np.linalg.norm(vector))
        ratio.append(np.sum((vector - whitened_shift) ** 2) / found["error"].item() ** 2)
        norms.append(found["displacement"].item())
    standard_error = np.std(ratio) / 20.0
    assert standard_error < 0.08
    assert abs(np.mean(ratio) - 1.0) < 5.0 * standard_error


def test_intervals_follow_arviz():
    rng = np.random.default_rng(2)
    values = xr.DataArray(rng.exponential(size=(1, 200, 3)), dims=("chain", "draw", "step"))
    for kind, compute in (("eti", az.eti), ("hdi", az.hdi)):
        with az.rc_context({"stats.ci_kind": kind, "stats.ci_prob": 0.5}):
            found = intervals.interval(values)
            expected = compute(values.values[0, :, 1], prob=0.5)
            assert found.isel(step=1).values == pytest.approx(np.asarray(expected))


def test_intervals_are_over_the_dims_that_are_named():
    rng = np.random.default_rng(3)
    values = xr.DataArray(rng.exponential(size=(3, 1, 200, 2)), dims=("seed", "chain", "draw", "step"))
    found = intervals.interval(values, ["seed", "chain", "draw"])
    assert found.dims == ("step", "ci_bound")
    assert found.isel(step=1).values == pytest.approx(np.asarray(az.eti(values.values[..., 1].ravel())))


def test_intervals_leave_nan_out_and_say_nothing_of_nothing():
    values = xr.DataArray([[[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]]], dims=("chain", "draw", "step"))
    found = intervals.interval(values)
    assert found.isel(step=0).values == pytest.approx(np.asarray(az.eti(np.array([1.0, 3.0]))))
    assert np.isnan(found.isel(step=1)).all()


def test_one_value_has_no_interval():
    values = xr.DataArray([[[0.857, np.nan]], [[0.5, 0.6]]], dims=("objective", "chain", "draw"))
    for kind in ("eti", "hdi"):
        with az.rc_context({"stats.ci_kind": kind}):
            found = intervals.interval(values)
        assert np.isnan(found.isel(objective=0)).all()
        assert np.isfinite(found.isel(objective=1)).all()
