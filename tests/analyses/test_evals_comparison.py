"""What `massdrift evals` prints, draws and writes where there are two arms or more."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from evals_simulation import NUM, at_gain, tree_of
from rich.console import Console

from analyses.evals.comparison import GROUP, add, parts, plot, remarks, summary
from inference import results
from inference.measurement.evals.compare_evals import ALL, compare_evals


def measured(tree, num_answers=4.0):
    """Give a tree of posteriors what a measurement has beside them."""
    posterior = tree["posterior"].to_dataset()
    new = [str(name) for name in tree["constant_data"]["new_task"].to_numpy()]
    old = [task for task in posterior["task"].to_numpy() if task not in new]
    tree["over_tasks"] = xr.DataTree(posterior.sel(task=old).mean("task", skipna=True))
    sizes = tree["sample_stats"]["words"]
    stats = (
        tree["sample_stats"].to_dataset().assign(num_answers=xr.full_like(sizes, num_answers, dtype=float))
    )
    tree["sample_stats"] = xr.DataTree(results.describe(stats))
    for group in ("posterior", "over_tasks"):
        results.describe(tree[group].dataset)
        tree[group] = xr.DataTree(results.describe(tree[group].to_dataset()))
    return tree


def printed(tree, capsys, width=80):
    Console(width=width, color_system=None).print(*parts(tree), sep="\n")
    return capsys.readouterr().out


def two_arms(**labels):
    lost = np.zeros((NUM, 1, 2, 1, 1))
    # In 3 of 4 draws the first arm has lost 0.1 less, else 0.1 more.
    lost[:, 0, 0], lost[:, 0, 1] = 0.2, np.repeat([0.3, 0.1], [3 * NUM // 4, NUM // 4])[:, None, None]
    return measured(tree_of({"lost": lost, "old_weight": 1.0 - lost, "accuracy_change": -lost}, **labels))


def test_the_table_has_the_probability_and_the_difference(capsys):
    tree = add(two_arms())
    lines = printed(tree, capsys).splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if line.startswith("  x")).split()
    assert row == ["x", "0.75", "-0.050", "0.75", "0.050"]
    assert lines[lines.index("a against b") + 2].split(maxsplit=1)[0] == "[-0.100,"
    frame = summary(tree).set_index(["at", "task", "run", "other"])
    one, other = (frame.loc[("final", "x", *pair)] for pair in (("a", "b"), ("b", "a")))
    assert one["lost_probability_smaller"] == other["lost_probability_larger"] == 0.75
    assert one["lost_difference"] == pytest.approx(-other["lost_difference"]) == pytest.approx(-0.05)
    assert one["lost"] == other["lost_of_other"] == pytest.approx(0.2)
    # The mean of one task is no other row of the table, but it is in the file.
    assert not any(ALL in line for line in lines)
    assert len(frame) == 4


def test_names_are_never_broken(capsys):
    arms = ["reverse_kl_with_a_replay_of_0.25_and_a_long_name", "sft"]
    tree = add(two_arms(arm=arms, task=["a_task_with_a_name_that_is_longer_than_its_column"]))
    found = printed(tree, capsys)
    assert f"{arms[0]} against sft\n" in found
    assert "  a_task_with_a_name_that_is_longer_than_its_column\n" in found
    assert max(map(len, found.splitlines())) <= 80


def test_of_many_pairs_and_tasks_the_mean_alone_is_printed(capsys):
    lost = np.random.default_rng(0).uniform(0.0, 0.2, (NUM, 20, 3, 1, 1))
    labels = {"task": [f"task {i}" for i in range(20)]}
    tree = add(measured(tree_of({"lost": lost, "accuracy_change": -lost}, **labels)))
    found = printed(tree, capsys)
    assert found.count(ALL) == 3
    assert "task 1" not in found
    assert "Each task is in comparison.csv." in " ".join(found.split())
    assert summary(tree)["task"].nunique() == 21
    # Without an old weight it is the change of accuracy.
    assert "accuracy change:" in found


def test_the_verdict_is_the_worse_of_both(capsys):
    words = np.array([["good", "weak: few items"]], dtype=object).reshape(1, 2, 1, 1)
    lost = np.zeros((NUM, 1, 2, 1, 1))
    tree = add(measured(tree_of({"lost": lost, "accuracy_change": -lost}, words=words)))
    assert any(line.split()[:1] == ["weak"] for line in printed(tree, capsys).splitlines())


def test_both_places_are_compared_where_there_are_new_tasks(tmp_path, capsys):
    tree = add(measured(at_gain(0.3)))
    data = tree[GROUP].to_dataset()
    assert data["at"].to_numpy().tolist() == ["final", "matched_gain"]
    for at in ("final", "matched_gain"):
        alone = compare_evals(tree, at=at)["comparison"].to_dataset()
        xr.testing.assert_allclose(data["lost_difference"].sel(at=at, drop=True), alone["lost_difference"])
    assert np.isnan(data["level"].sel(at="final"))
    assert "Where each has gained" in printed(tree, capsys)
    # Anyone can open it.
    results.save(tree, tmp_path / "results.zarr")
    again = xr.open_datatree(tmp_path / "results.zarr")
    xr.testing.assert_allclose(again[GROUP]["lost"], tree[GROUP]["lost"])
    for variable in again[GROUP].data_vars.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["units"]


def test_one_checkpoint_an_arm_is_read_on_the_way_from_the_base_and_says_so():
    tree = add(measured(one_checkpoint(0.4)))
    data = tree[GROUP].to_dataset().sel(task="x")
    # Arms have gained 0.2 and 0.4, and lost 0.1 and 0.4: half of what the second has lost.
    np.testing.assert_allclose(data["lost"].sel(at="matched_gain"), [0.1, 0.2])
    np.testing.assert_allclose(data["before_first"].sel(at="matched_gain"), [0.0, 1.0])
    words = data["words"].sel(at="matched_gain").to_numpy().tolist()
    assert words[0] == "good"
    assert words[1].startswith("weak: 100 % of the draws lie between the base and the first checkpoint")
    assert data["words"].sel(at="final").to_numpy().tolist() == ["good", "good"]
    (remark,) = remarks(tree)
    assert "b (100 %)" in remark
    assert "a (" not in remark


def one_checkpoint(gain):
    lost, change = np.zeros((2, NUM, 2, 2, 1, 1))
    lost[:, 0, :, 0, 0], change[:, 1, :, 0, 0] = [0.1, 0.4], [0.2, gain]
    change[:, 0] = -lost[:, 0]
    return tree_of({"lost": lost, "old_weight": 1.0 - lost, "accuracy_change": change}, new=["y"])


def test_an_arm_that_has_learnt_nothing_is_compared_at_the_end_alone():
    tree = add(measured(one_checkpoint(-0.1)))
    assert tree[GROUP]["at"].to_numpy().tolist() == ["final"]
    (remark,) = remarks(tree)
    assert remark.startswith("Not compared: every run must have learnt the new tasks")
    assert "arm b, seed 0" in remark
    assert "frontier" in plot(tree)
    plt.close("all")


def test_one_arm_is_compared_with_nothing():
    lost = np.zeros((NUM, 1, 2, 1, 1))
    tree = add(measured(tree_of({"lost": lost}, retests=["b"])))
    assert GROUP not in tree.children
    assert parts(tree) == remarks(tree) == []
    assert plot(tree) == {}


def test_arms_of_different_tasks_are_said_not_to_be_compared():
    lost = np.zeros((NUM, 2, 2, 1, 1))
    lost[:, 0, 0] = lost[:, 1, 1] = np.nan
    tree = add(measured(tree_of({"lost": lost})))
    assert GROUP not in tree.children
    assert remarks(tree) == [
        "Not compared: an old task that all arms were asked is needed to compare them; there is none."
    ]


@pytest.mark.parametrize(("num_answers", "shown"), [(4.0, "old weight, β"), (1.0, "success on the task")])
def test_the_frontier_shows_each_checkpoint_where_it_is(num_answers, shown):
    tree = add(measured(at_gain(0.3), num_answers))
    (figure,) = plot(tree).values()
    axes = figure.axes[0]
    assert shown in axes.get_ylabel()
    lines = {line.get_label(): line for line in axes.get_lines()}
    paths = [line.get_xydata() for line in axes.get_lines() if len(line.get_xydata()) == 3]
    first = 1.0 if num_answers > 1.0 else 0.0
    np.testing.assert_allclose(paths[1], [[0.0, first], [0.4, first - 0.2], [0.3, first - 0.5]], atol=1e-9)
    assert {"a", "b", "base", "matched gain"} <= set(lines)
    plt.close("all")


def test_the_file_is_written_beside_the_results(tmp_path):
    assert summary(add(two_arms())).to_csv(tmp_path / "comparison.csv", index=False) is None
    frame = pd.read_csv(tmp_path / "comparison.csv")
    assert set(frame["run"]) == {"a", "b"}
