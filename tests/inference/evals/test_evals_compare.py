"""Comparison of arms, from posteriors that are written down: what is read, and how likely it is less."""

import numpy as np
import pytest
from evals_simulation import NUM, at_gain, tree_of
from scipy import stats

from inference.measurement.evals.compare_evals import ALL, compare_evals
from mixture_models.validation import InputError


def test_the_probability_to_have_lost_less_is_the_share_of_draws():
    rng = np.random.default_rng(0)
    # Both are known to 0.5 only, but their difference is one of three values.
    common = rng.normal(0.0, 0.5, NUM)
    more = rng.permutation(np.repeat([0.05, 0.005, -0.05], [280, 80, 40]))
    values = np.stack([common, common + more], axis=-1)[:, None, :, None, None]
    tree = tree_of({"lost": values, "old_weight": 1.0 - values})
    found = compare_evals(tree, rope={"lost": 0.01})["comparison"].to_dataset().sel(run="a", other="b")
    for task in ("x", ALL):
        of = found.sel(task=task)
        names = ("smaller", "equivalent", "larger")
        assert [float(of[f"lost_probability_{n}"]) for n in names] == pytest.approx([0.7, 0.2, 0.1])
        assert float(of["lost_difference"]) == pytest.approx(-more.mean())
        # The rope is of what was lost alone.
        assert [float(of[f"old_weight_probability_{n}"]) for n in names] == pytest.approx([0.1, 0.0, 0.9])


def test_new_tasks_and_the_base_itself_are_not_compared():
    values = np.zeros((NUM, 3, 3, 1, 1))
    values[:, :, 1] = np.array([0.1, 0.3, 0.9])[:, None, None]
    tree = tree_of({"lost": values}, new=["z"], retests=["c"])
    found = compare_evals(tree)["comparison"].to_dataset()
    assert found["task"].to_numpy().tolist() == ["x", "y", ALL]
    assert found["run"].to_numpy().tolist() == ["a", "b"]
    np.testing.assert_allclose(found["lost"].sel(run="b"), [0.1, 0.3, 0.2])


def test_the_last_checkpoint_of_each_run_or_one_by_name():
    values = np.full((NUM, 1, 2, 1, 2), [0.1, 0.2])
    values[:, :, 1, :, 1] = np.nan
    values[:, :, 1] += 0.05
    tree = tree_of({"lost": values})
    last = compare_evals(tree)["comparison"]["lost"].sel(task="x")
    np.testing.assert_allclose(last, [0.2, 0.15])
    first = compare_evals(tree, at=1)["comparison"]["lost"].sel(task="x")
    np.testing.assert_allclose(first, [0.1, 0.15])
    with pytest.raises(InputError, match="checkpoint that all have; arm b, seed 0 has no 2"):
        compare_evals(tree, at=2)


def test_arms_are_compared_over_the_tasks_that_all_were_asked():
    values = np.zeros((NUM, 2, 2, 1, 1))
    values[:] = np.array([0.1, 0.5])[:, None, None, None]
    values[:, 1, 1] = np.nan
    found = compare_evals(tree_of({"lost": values}))["comparison"].to_dataset()
    np.testing.assert_allclose(found["lost"], [[0.1, 0.1], [np.nan, np.nan], [0.1, 0.1]])
    values[:, 0, 0] = np.nan
    with pytest.raises(InputError, match="an old task that all arms were asked"):
        compare_evals(tree_of({"lost": values}))


def test_matched_gain_is_read_between_the_checkpoints_around_it():
    found = compare_evals(at_gain(0.3), at="matched_gain", gain=0.2)["comparison"].to_dataset().sel(task="x")
    # Half way between a's checkpoints; half way from the base, where nothing is lost, to b's first.
    np.testing.assert_allclose(found["lost"], [0.04, 0.1])
    np.testing.assert_allclose(found["old_weight"], [0.96, 0.9])
    np.testing.assert_allclose(found["accuracy_change"], [-0.04, -0.1])
    np.testing.assert_allclose(found["reached"], 1.0)
    # What some draws do not reach is said.
    found = compare_evals(at_gain(0.15), at="matched_gain", gain=0.2)["comparison"].to_dataset()
    np.testing.assert_allclose(found["reached"].sel(task="x"), [0.5, 1.0])


@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        (0.0, "gain must be greater than 0; got 0"),
        (0.35, "every run must gain 0.35 on the new tasks in some draw; arm a"),
    ],
)
def test_a_gain_that_no_draw_reaches_is_refused(gain, expected):
    with pytest.raises(InputError, match=expected):
        compare_evals(at_gain(0.3), at="matched_gain", gain=gain)


def test_the_common_gain_is_one_that_every_run_reaches_in_nearly_all_draws():
    assert compare_evals(at_gain(0.15), at="matched_gain")["comparison"].attrs["level"] == pytest.approx(0.15)
    assert compare_evals(at_gain(0.7), at="matched_gain")["comparison"].attrs["level"] == pytest.approx(0.3)


def test_seeds_have_an_error_of_their_own_that_is_pooled_over_arms():
    values = np.zeros((NUM, 1, 3, 3, 1))
    values[:, 0, 0, :, 0], values[:, 0, 1, :, 0] = [0.1, 0.2, 0.3], [0.4, 0.45, 0.5]
    values[:, 0, 2] = np.array([0.7, np.nan, np.nan])[:, None]
    found = compare_evals(tree_of({"lost": values}))["comparison"].to_dataset().sel(task="x")
    # Of the seeds' variances 0.01 and 0.0025, with two degrees of freedom each.
    half = stats.t.ppf(0.945, 4) * np.sqrt(0.00625 / np.array([3, 3, 1]))
    np.testing.assert_allclose(found["lost"], [0.2, 0.45, 0.7], atol=0.02)
    widths = found["lost_interval"].diff("ci_bound").squeeze()
    np.testing.assert_allclose(widths, 2.0 * half, rtol=0.25)


def test_the_words_are_the_worst_of_what_is_read():
    values = np.zeros((NUM, 2, 2, 2, 2))
    words = np.full((2, 2, 2, 2), "good", dtype=object)
    words[0, 0, 1, 1], words[1, 0, 0, 1], words[1, 1, 1, 1] = "weak: of x", "not to be trusted: of y", ""
    words[0, 1, 0, 0] = "weak: earlier"
    tree = tree_of({"lost": values}, words=words)
    found = compare_evals(tree)["comparison"]["words"].to_numpy().tolist()
    assert found == [
        ["weak: of x", "good"],
        ["not to be trusted: of y", "good"],
        ["not to be trusted: of y", "good"],
    ]
    first = compare_evals(tree, at=1)["comparison"]["words"].sel(task=ALL)
    assert first.to_numpy().tolist() == ["good", "weak: earlier"]
