"""What `inference.measure` is held against by `benchmarks.rivals`: distances, by closed forms, and tables."""

import importlib.util
from math import prod

import numpy as np
import pandas as pd
import pytest

from benchmarks import rivals, rivals_digits, rivals_tables
from benchmarks.rivals_changes import alarms
from benchmarks.rivals_distances import frechet_distance, mmd_test, neighbourhood
from benchmarks.rivals_settings import CHANGES, SETTINGS, world
from benchmarks.rivals_weights import Estimate, Task


def _mean_and_error(values):
    return np.mean(values, axis=0), np.std(values, axis=0, ddof=1) / np.sqrt(len(values))


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_squared_mmd_is_unbiased_for_that_of_two_gaussians(shift):
    """Of N(0, I) and N(m, I): 2 (h² / (h² + 2))^(d/2) (1 - exp(-|m|² / (2 (h² + 2))))."""
    d, h, rng = 3, 1.3, np.random.default_rng(0)
    exact = 2.0 * (h**2 / (h**2 + 2.0)) ** (d / 2) * -np.expm1(-(shift**2) / (2.0 * (h**2 + 2.0)))
    found = []
    for _ in range(600):
        first, second = rng.standard_normal((12, d)), rng.standard_normal((9, d))
        second[:, 0] += shift
        found.append(mmd_test(first, second, rng, bandwidth=h, num_permutations=1).squared_mmd)
    mean, error = _mean_and_error(found)
    # The biased estimate is larger by about 0.1.
    assert error < 0.01
    assert abs(mean - exact) < 5.0 * error


def test_permutation_p_is_uniform_where_laws_are_equal_and_small_where_they_are_not():
    rng = np.random.default_rng(1)

    def draw(shift):
        x, y = rng.standard_normal((15, 2)), rng.standard_normal((25, 2)) + shift
        return mmd_test(x, y, rng, num_permutations=19).p_value

    equal = np.array([draw(0.0) for _ in range(400)])
    # Of 20 equally likely values, 1/20 to 1.
    for level in (0.05, 0.25, 0.5):
        assert abs(np.mean(equal <= level + 1e-9) - level) < 5.0 * np.sqrt(level * (1.0 - level) / 400)
    assert [draw(3.0) for _ in range(5)] == [0.05] * 5


def test_a_permutation_statistic_is_that_of_the_permuted_samples():
    """The sums over labels are those of a kernel matrix that is summed pair by pair."""
    rng = np.random.default_rng(2)
    x, y, h = rng.standard_normal((4, 2)), rng.standard_normal((6, 2)), 0.9

    def kernel(a, b):
        return np.exp(-np.sum((a[:, None] - b[None]) ** 2, axis=-1) / (2.0 * h**2))

    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(x, x), kernel(y, y))]
    expected = sum(within) - 2.0 * kernel(x, y).mean()
    found = mmd_test(x, y, rng, bandwidth=h, num_permutations=1).squared_mmd
    assert found == pytest.approx(expected, abs=1e-12)


def test_median_distance_is_the_bandwidth_unless_it_is_given():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((8, 2)), rng.standard_normal((7, 2))
    both = np.concatenate([x, y])
    lengths = np.linalg.norm(both[:, None] - both[None], axis=-1)[np.triu_indices(15, 1)]
    given = mmd_test(x, y, rng, bandwidth=float(np.median(lengths)), num_permutations=1)
    assert mmd_test(x, y, rng, num_permutations=1).squared_mmd == pytest.approx(given.squared_mmd)
    assert mmd_test(5.0 * x, 5.0 * y, rng, num_permutations=1).squared_mmd == pytest.approx(given.squared_mmd)


def test_frechet_distance_is_the_wasserstein_distance_of_gaussians():
    """Of y = m + A x, A symmetric and positive definite: |μ_y - μ_x|² + tr((A - I) Σ (A - I))."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((50, 3)) @ rng.standard_normal((3, 3))
    root = rng.standard_normal((3, 3))
    a, m = root @ root.T + 0.1 * np.eye(3), np.array([1.0, -2.0, 0.5])
    y = x @ a + m
    shift, change = y.mean(axis=0) - x.mean(axis=0), a - np.eye(3)
    exact = shift @ shift + np.trace(change @ np.cov(x, rowvar=False) @ change)
    assert frechet_distance(x, y) == pytest.approx(exact, rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(exact, rel=1e-9)
    assert abs(frechet_distance(x, x)) < 1e-9


@pytest.mark.slow
def test_coverage_and_density_of_equal_laws_are_as_published():
    """Means are 1 - Π_i (n - i) / (m + n - i) over i = 1..k, whatever the law, and 1."""
    n, m, k, rng = 20, 12, 3, np.random.default_rng(5)
    found = [neighbourhood(rng.gamma(2.0, size=(n, 2)), rng.gamma(2.0, size=(m, 2)), k) for _ in range(1500)]
    mean, error = _mean_and_error(found)
    covered = 1.0 - prod((n - i) / (m + n - i) for i in range(1, k + 1))
    assert max(error) < 0.01
    assert abs(mean[0] - 1.0) < 5.0 * error[0]
    assert abs(mean[1] - covered) < 5.0 * error[1]


def test_coverage_and_density_by_hand():
    """Balls around 0, 1 and 3 reach to 1, 1 and 2, so that 0.5, 1.2 and 9 lie in two, three and none."""
    first, second = np.array([[0.0], [1.0], [3.0]]), np.array([[0.5], [1.2], [9.0]])
    assert neighbourhood(first, second, 1) == pytest.approx((4 / 3, 1.0))
    assert neighbourhood(first, second[2:], 1) == (0.0, 0.0)


def test_worlds_change_as_they_are_called():
    found = {change: [] for change in CHANGES}
    for number in range(20):
        here = world(6.0, np.random.default_rng(number))
        axis = here.new.mean(axis=0) - here.old.mean(axis=0)
        axis /= np.linalg.norm(axis)
        for change, samples in here.after.items():
            old = samples @ axis < 3.5
            shift = samples[old].mean(axis=0) - here.old.mean(axis=0)
            along = shift @ axis
            found[change].append((old.mean(), along, np.linalg.norm(shift - along * axis)))
    weight, along, across = (
        dict(zip(CHANGES, v, strict=True))
        for v in zip(*(np.mean(found[c], axis=0) for c in CHANGES), strict=True)
    )
    assert {c for c in CHANGES if weight[c] < 0.74} == {"mass", "both"}
    assert {c for c in CHANGES if along[c] > 0.3} == {"drift toward new", "both"}
    assert {c for c in CHANGES if across[c] > 0.4} == {"drift across"}


def test_alarms_are_counted_at_the_same_rate():
    """A method that sees all but the null, and one that sees nothing."""
    num, rng = 200, np.random.default_rng(6)
    change = np.repeat(CHANGES, num)

    def noise():
        return rng.uniform(size=len(change))

    sees = noise() + 10.0 * (change != "nothing")
    frame = pd.DataFrame(
        {name: noise() for name in ("frechet", "uncovered", "density_off", "mmd_p", "moved")}
    )
    frame = frame.assign(
        change=change, squared_mmd=sees, mass=noise() + 10.0 * (change == "mass"), lost_mass=False
    )
    table = alarms(frame).set_index("method")
    at_the_rate = table.drop(
        index=[name for name in table.index if "<" in name or ">" in name or "interval" in name]
    )
    assert np.allclose(at_the_rate["nothing"], 0.05, atol=0.011)
    assert (table.loc["MMD", list(CHANGES[1:])] == 1.0).all()
    assert (table.loc["Fréchet distance", list(CHANGES[1:])] < 0.15).all()
    assert table.loc["massdrift: mass", "mass"] == 1.0
    assert table.loc["massdrift: either", "mass"] == 1.0
    assert table.loc["massdrift: mass", "drift over mass"] == 0.0
    assert table.loc["MMD", "drift over mass"] == pytest.approx(0.5, abs=0.1)


def test_the_table_counts_bias_coverage_and_verdicts():
    rows = pd.DataFrame(
        {
            "setting": "one",
            "method": ["a"] * 4 + ["b"] * 2,
            "old_weight": 0.3,
            "estimate": [0.4, 0.2, 0.4, 0.4, 0.3, 0.3],
            "lower": [0.2, 0.1, 0.35, 0.2, 0.3, 0.31],
            "upper": [0.5, 0.29, 0.5, 0.5, 0.3, 0.4],
            "seconds": 1.0,
            "word": ["good", "good", "weak", "good", "", ""],
        }
    )
    a, b = (row for _, row in rivals_tables.of_weights(rows).iterrows())
    assert (a["bias"], a["rmse"]) == pytest.approx((0.05, 0.1))
    assert (a["coverage"], a["good"], a["coverage where good"]) == pytest.approx((0.5, 0.75, 2 / 3))
    assert (b["coverage"], b["bias"]) == (0.5, 0.0)
    assert np.isnan(b["good"])


def test_tables_set_methods_side_by_side_and_sum_settings_up():
    rows = pd.DataFrame(
        {
            "setting": ["x, old moved toward new", "y, nothing moved", "z, nothing moved", "third behaviour"]
            * 2,
            "method": ["a"] * 4 + ["b"] * 4,
            "old_weight": 0.5,
            "estimate": [0.4, 0.5, 0.6, 0.9, 0.3, 0.4, 0.4, 0.9],
            "lower": 0.3,
            "upper": 0.55,
            "seconds": 1.0,
            "word": "",
        }
    )
    shown = rivals_tables.side_by_side(rivals_tables.of_weights(rows))
    assert list(shown.columns) == ["setting", "a", "b"]
    assert list(shown["setting"]) == list(rows["setting"][:4])
    assert shown.iloc[0].to_list()[1:] == ["-0.100, 1.00", "-0.200, 1.00"]
    summed = rivals_tables.by_method(rows).set_index(["setting", "method"])
    assert summed["bias"].to_dict() == pytest.approx(
        {
            ("nothing moved", "a"): 0.05,
            ("nothing moved", "b"): -0.1,
            ("old moved", "a"): -0.1,
            ("old moved", "b"): -0.2,
        }
    )
    assert rivals_tables.text(pd.DataFrame({"n": [1], "x": [0.25], "y": [np.nan]})) == (
        "| n | x | y |\n|---|---|---|\n| 1 | 0.250 |  |"
    )


def test_names_of_settings_are_unique():
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS) >= 12


def test_without_quapy_one_sentence_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        rivals.main(["weight", "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "quapy must be installed, by `pip install massdrift[rivals]`; it is not\n"
    )


def test_an_old_weight_agrees_with_the_count_where_both_errors_explain_the_difference():
    rng = np.random.default_rng(7)
    counted = 0.5 + 0.02 * rng.standard_normal((3, 1000))
    network = rivals_digits.Network(["a", "b", "c"], Task([], np.empty((0, 1)), np.empty((0, 1))), counted)
    # Errors of 0.02 and 0.03 make one of 0.036; an interval of 89 % reaches to 1.6 of it.
    estimates = [Estimate(0.5 + by + 0.03 * rng.standard_normal(500), 1.0) for by in (0.0, 0.05, -0.07)]
    found = rivals_digits.agreement(network, "method", estimates, rng)
    assert found["agrees"].to_list() == [True, True, False]
    assert found["held"].to_list() == [True, False, False]
    assert np.allclose(found["error"], [0.0, 0.05, -0.07], atol=0.01)
    assert np.allclose(found["width"], 2 * 1.6 * 0.03, atol=0.01)


def test_what_is_no_run_of_digits_is_refused_in_one_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with pytest.raises(SystemExit) as stopped:
        rivals.main(["digits", str(tmp_path), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "must be the folder of a finished run of massdrift digits" in capsys.readouterr().err


@pytest.mark.slow
def test_the_quantifiers_and_the_measurement_find_a_known_weight(tmp_path, capsys):
    pytest.importorskip("quapy")
    call = [
        "weight",
        "--num",
        "2",
        "--num-resamples",
        "40",
        "--only",
        "δ = 4, nothing",
        "--out",
        str(tmp_path),
    ]
    rivals.main(call)
    table = pd.read_csv(tmp_path / "weight_table.csv")
    assert set(table["method"]) == {"massdrift", *rivals.QUANTIFIERS}
    # Modes are as the references show them, and far apart: the standard deviation of a share is at most 0.02.
    assert (table["rmse"] < 0.05).all()
    assert (table["width"] < 0.1).all()
    assert (table["seconds"] > 0.0).all()
    assert (tmp_path / "rivals.png").exists()
    shown = capsys.readouterr().out
    # What is kept is not computed again.
    rivals.main(call)
    assert capsys.readouterr().out == shown


@pytest.mark.slow
def test_changes_are_told_apart(tmp_path):
    rivals.main(["change", "--num", "6", "--out", str(tmp_path)])
    table = pd.read_csv(tmp_path / "change-4_table.csv").set_index("method")
    assert table.loc["massdrift: drift", "drift over mass"] > 0.8
    assert table.loc["massdrift: mass", "drift over mass"] < 0.2


@pytest.mark.slow
def test_the_checkpoints_of_a_run_of_digits_are_measured_and_counted(tmp_path, massdrift):
    pytest.importorskip("quapy")
    code, _, errors = massdrift("digits", "--quick", "--num-seeds", "1", "--quiet", "--out", tmp_path / "run")
    assert code == 0, errors
    call = ["digits", str(tmp_path / "run"), "--num-resamples", "20", "--out", str(tmp_path / "out")]
    rivals.main(call)
    table = pd.read_csv(tmp_path / "out" / "digits_table.csv").set_index("method")
    assert set(table["checkpoints"]) == {1 + 6 * 2}
    # By the kind of modes that these data need, as the analysis measures them.
    assert table.loc["massdrift, unequal", "agrees"] >= 0.8
    changes = pd.read_csv(tmp_path / "out" / "digits-changes_table.csv").set_index("checkpoint")
    assert changes.loc["sft", "frechet"] == changes["frechet"].max()
    assert np.isnan(changes.loc["start", "frechet"])
