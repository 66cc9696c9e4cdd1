"""Which of two measured runs forgot less: against the laws of their draws."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import inference
from inference import compare_runs
from inference.comparison.draws import compare_draws
from mixture_models import InputError


def measured_tree(weight, drift, gap, seed, *, shared=0.0, words=None, features=("x",), **attrs):
    """Return what `compare_runs` reads, with Gaussian draws of these means and sds over checkpoints.

    ``shared`` is the sd of an error of the weight that is the references', the same in every tree; ``words``
    the verdicts on the weight and on the drift at every checkpoint.
    """
    rng = np.random.default_rng(seed)
    shape, of_draw = (4, 500, len(weight[0])), np.arange(500) % 25
    values = {
        name: (("chain", "draw", "checkpoint"), np.asarray(mean) + np.asarray(sd) * rng.normal(size=shape))
        for name, (mean, sd) in {"old_weight": weight, "old_drift": drift, "new_gap": gap}.items()
    }
    values["old_weight"][1][...] += shared * np.random.default_rng(99).normal(size=25)[of_draw, None]
    checkpoint = {"checkpoint": np.arange(len(weight[0]))}
    coords = {"chain": range(4), "draw": range(500), "reference_draw": ("draw", of_draw)} | checkpoint
    good = ["good"] * len(weight[0])
    stats = {f"{n}_words": ("checkpoint", (words or {}).get(n, good)) for n in ("weight", "drift")}
    known = {"kind": "measurement", "references": "0a", "covariance": "axis", "tails": "gaussian"}
    groups = {
        "/": xr.Dataset(attrs=known | attrs),
        "/posterior": inference.results.describe(xr.Dataset(values, coords)),
        "/sample_stats": xr.Dataset(stats, checkpoint),
        "/constant_data": xr.Dataset(coords={"source_feature": list(features)}),
    }
    return xr.DataTree.from_dict(groups)


def test_compared_runs_have_the_probabilities_of_their_laws():
    a = measured_tree(([0.9, 0.5], 0.03), ([0.1, 0.4], 0.05), ([1.0, 0.2], 0.01), 0)
    b = measured_tree(([0.9, 0.46], 0.04), ([0.1, 0.3], 0.05), ([1.0, 0.2], 0.01), 1)
    result = compare_runs({"a": a, "b": b}, rope={"old_weight": 0.02})["comparison"].to_dataset()
    pair = {"run": "a", "other": "b"}
    # The draws' own error: two samples of 1,000 put 0.02 on a probability.
    difference = stats.norm(0.04, 0.05)
    assert float(result["old_weight_probability_larger"].sel(**pair)) == pytest.approx(
        difference.sf(0.02), abs=0.06
    )
    assert float(result["old_weight_probability_smaller"].sel(**pair)) == pytest.approx(
        difference.cdf(-0.02), abs=0.06
    )
    total = sum(result[f"old_weight_probability_{w}"] for w in ("larger", "smaller", "equivalent"))
    np.testing.assert_allclose(total.sel(**pair), 1.0)
    drift = stats.norm(0.1, 0.05 * np.sqrt(2))
    assert float(result["old_drift_probability_smaller"].sel(**pair)) == pytest.approx(
        drift.cdf(0.0), abs=0.05
    )
    np.testing.assert_allclose(
        result["old_weight_difference_interval"].sel(**pair), difference.ppf([0.055, 0.945]), atol=0.012
    )
    assert float(result["old_weight_probability_larger"].sel(run="b", other="a")) == pytest.approx(
        float(result["old_weight_probability_smaller"].sel(**pair))
    )


def test_without_a_region_of_equivalence_nothing_is_within_it():
    """Where 1 - 0.7 - 0.3 is not 0."""
    found = compare_draws("old_drift", [np.arange(10.0), np.array([2.5])], [None, None], 0.0)
    assert found["old_drift_probability_larger"][1][0, 1] == 0.7
    assert np.all(found["old_drift_probability_equivalent"][1] == 0.0)


def test_ties_count_half():
    """Draws of what has not moved are 0 in both runs: neither has moved farther."""
    still, half = np.zeros(10), np.repeat([0.0, 1.0], 5)
    found = compare_draws("old_drift", [still, half], [None, None], 0.0)
    assert found["old_drift_probability_larger"][1][0, 1] == 0.25
    assert found["old_drift_probability_larger"][1][1, 0] == 0.75
    found = compare_draws("old_drift", [still, half], [None, None], 0.5)
    assert found["old_drift_probability_larger"][1][1, 0] == 0.5
    assert found["old_drift_probability_equivalent"][1][0, 1] == 0.5


def test_the_error_of_the_references_cancels_where_runs_share_it():
    """An error of sd 0.2 that both have, and one of 0.01 that each has by itself."""
    a = measured_tree(([0.53], 0.01), ([0.1], 0.05), ([0.1], 0.05), 0, shared=0.2)
    b = measured_tree(([0.5], 0.01), ([0.1], 0.05), ([0.1], 0.05), 1, shared=0.2)
    other = measured_tree(([0.5], 0.01), ([0.1], 0.05), ([0.1], 0.05), 1, shared=0.2, tails="student")
    for tree, difference in ((b, stats.norm(0.03, 0.01 * np.sqrt(2))), (other, None)):
        result = compare_runs({"a": a, "b": tree})["comparison"].to_dataset()
        found = result.sel(run="a", other="b")
        low, high = found["old_weight_difference_interval"].values
        if difference is None:
            # What the references say of other kinds of modes is not the same draw of it.
            assert high - low > 0.5
            continue
        np.testing.assert_allclose([low, high], difference.ppf([0.055, 0.945]), atol=0.003)
        assert float(found["old_weight_probability_larger"]) == pytest.approx(difference.sf(0.0), abs=0.02)


def test_the_verdict_on_what_was_read_is_said_of_every_run():
    words = {"weight": ["good", "weak: w"], "drift": ["not to be trusted: d", "good"]}
    a = measured_tree(([0.9, 0.5], 0.03), ([0.1, 0.4], 0.05), ([1.0, 0.2], 0.01), 0, words=words)
    b = measured_tree(([0.9, 0.5], 0.03), ([0.1, 0.4], 0.05), ([1.0, 0.2], 0.01), 1)
    final = compare_runs({"a": a, "b": b})["comparison"]
    assert list(final["old_weight_words"].values) == ["weak: w", "good"]
    assert list(final["old_drift_words"].values) == ["good", "good"]
    # Between the checkpoints both are read.
    between = compare_runs({"a": a, "b": b}, at="matched_gain", gain=0.6)["comparison"]
    assert list(between["old_weight_words"].values) == ["weak: w", "good"]
    assert list(between["old_drift_words"].values) == ["not to be trusted: d", "good"]


def test_matched_gain_reads_where_the_gap_is_the_same():
    # a falls linearly from 1 to 0 in gap as its weight falls from 1 to 0.5; b needs all of its weight for it.
    a = measured_tree(([1.0, 0.75, 0.5], 0.0), ([0.0, 0.1, 0.2], 0.0), ([1.0, 0.5, 0.0], 0.0), 0)
    b = measured_tree(([1.0, 0.4], 0.0), ([0.0, 1.0], 0.0), ([1.0, 0.25], 0.0), 1)
    result = compare_runs({"a": a, "b": b}, at="matched_gain")["comparison"].to_dataset()
    assert result.attrs["level"] == pytest.approx(0.25)
    np.testing.assert_allclose(result["old_weight"], [0.625, 0.4])
    np.testing.assert_allclose(result["old_drift"], [0.15, 1.0])
    assert float(result["old_weight_probability_larger"].sel(run="a", other="b")) == 1.0
    halfway = compare_runs({"a": a, "b": b}, at="matched_gain", gain=0.625)["comparison"].to_dataset()
    np.testing.assert_allclose(halfway["old_weight"], [0.8125, 0.7])
    with pytest.raises(InputError, match="b does not"):
        compare_runs({"a": a, "b": b}, at="matched_gain", gain=0.1)


def test_comparison_refuses_what_it_cannot_compare():
    laws = ([0.5], 0.1), ([0.5], 0.1), ([0.5], 0.1)
    a = measured_tree(*laws, 0)
    elsewhere, turned = measured_tree(*laws, 1, references="0b"), measured_tree(*laws, 1, features=("y",))
    for trees, settings, message in (
        ({"a": a}, {}, "at least two"),
        ({"a": a, "b": np.zeros((3, 2))}, {}, "measured run"),
        ({"a": a, "b": elsewhere}, {}, "against the same references; those of b are not those of a"),
        ({"a": a, "b": turned}, {}, "against the same features"),
        ({"a": a, "b": a}, {"at": "7"}, "checkpoint that every run has"),
        ({"a": a, "b": a}, {"gain": 0.5}, "matched_gain"),
        ({"a": a, "b": a}, {"rope": -1.0}, "at least 0"),
        ({"a": a, "b": a}, {"rope": {"x": 1.0}}, "rope may name"),
        ({"a": a, "b": by_tasks(0)}, {}, "a was from samples of an old .* b from samples of tasks by name"),
        ({"a": by_tasks(0), "b": by_tasks(1, names=("math", "law", "new"))}, {}, "against the same tasks"),
        ({"a": by_tasks(0), "b": by_tasks(1, new="math")}, {}, "against the same new task"),
        ({"a": by_tasks(0, new=""), "b": by_tasks(1, new="")}, {"at": "matched_gain"}, "of a is new"),
        ({"a": by_tasks(0), "b": by_tasks(1)}, {"rope": {"old_drift": 1.0}}, "have no old_drift"),
    ):
        with pytest.raises(InputError, match=message):
            compare_runs(trees, **settings)


def by_tasks(seed, *, names=("math", "code", "new"), new="new", shift=0.0):
    """Return what `compare_runs` reads of tasks by name, with Gaussian draws of sd 0.02."""
    rng = np.random.default_rng(seed)
    means = {"math": (0.5, 0.3), "code": (0.2, 0.6), "law": (0.2, 0.6), "new": (0.3, 1.0)}
    dims, shape = ("chain", "draw", "checkpoint", "task"), (4, 500, 2, len(names))
    # The first checkpoint has learnt nothing: its new mode lies 3 from its reference.
    drift = np.stack([[3.0 if n == new else 0.0, means[n][1]] for n in names], axis=-1)
    weight = np.array([means[n][0] for n in names])
    weight = weight + shift * (np.array(names) == "math")
    posterior = xr.Dataset(
        {
            "weight": (dims, weight + 0.02 * rng.normal(size=shape)),
            "task_drift": (dims, drift + 0.02 * rng.normal(size=shape)),
        },
        {
            "chain": range(4),
            "draw": range(500),
            "checkpoint": [0, 1],
            "task": list(names),
            "reference_draw": ("draw", np.arange(500) % 25),
        },
    )
    if new:
        posterior["old_weight"] = posterior["weight"].drop_sel(task=new).sum("task")
    words = {f"{name}_words": ("checkpoint", ["good", f"weak: {name}"]) for name in ("weight", "drift")}
    known = {"kind": "measurement of tasks", "references": "0a", "covariance": "unequal", "new_task": new}
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs=known),
            "/posterior": inference.results.describe(posterior),
            "/sample_stats": xr.Dataset(words, {"checkpoint": [0, 1]}),
            "/constant_data": xr.Dataset(coords={"source_feature": ["x"]}),
        }
    )


def test_runs_of_several_tasks_are_compared_task_by_task():
    # Tasks stand in another order in the second run.
    trees = {"a": by_tasks(0, shift=0.05), "b": by_tasks(1, names=("code", "new", "math"))}
    data = compare_runs(trees, rope={"weight": 0.01})["comparison"].to_dataset()
    pair = data.sel(run="a", other="b")
    law = stats.norm(0.05, 0.02 * np.sqrt(2))
    larger = pair["weight_probability_larger"]
    assert float(larger.sel(task="math")) == pytest.approx(law.sf(0.01), abs=0.02)
    assert float(pair["weight_probability_equivalent"].sel(task="math")) == pytest.approx(
        law.cdf(0.01) - law.cdf(-0.01), abs=0.02
    )
    assert float(larger.sel(task="code")) == pytest.approx(
        stats.norm(0.0, 0.02 * np.sqrt(2)).sf(0.01), abs=0.05
    )
    np.testing.assert_allclose(
        pair["weight_difference_interval"].sel(task="math"), law.ppf([0.055, 0.945]), atol=0.005
    )
    np.testing.assert_allclose(data["task_drift"].sel(task="new"), 1.0, atol=0.005)
    # Weights of the old tasks together have their own draws: 0.75 and 0.7.
    np.testing.assert_allclose(data["old_weight"], [0.75, 0.7], atol=0.005)
    assert list(data["weight_words"].values) == ["weak: weight"] * 2
    assert data["weight"].attrs["units"] == "1"
    assert data["task_drift_difference"].attrs["units"] == "Mahalanobis"


def test_runs_of_several_tasks_are_matched_at_the_gap_of_the_new_one():
    trees = {"a": by_tasks(0, shift=0.05), "b": by_tasks(1)}
    data = compare_runs(trees, at="matched_gain", gain=2.0)["comparison"].to_dataset()
    # Halfway from a gap of 3 to one of 1.
    np.testing.assert_allclose(data["task_drift"].sel(task="code"), 0.3, atol=0.01)
    np.testing.assert_allclose(data["task_drift"].sel(task="new"), 2.0, atol=1e-6)
