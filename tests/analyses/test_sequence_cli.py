"""Sequences of tasks from the command line, and their plan against the law of separated modes."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from ink import colours
from scipy.optimize import brentq

import inference
from analyses import plan_sequence, sequence
from analyses.plan_sequence.plan_sequence import _End, _smallest
from mixture_models import objectives, theory

TASKS = ["--old-tasks=a", "--old-tasks=b", "--new-tasks=c", "--new-tasks=d"]
SMALL = [*TASKS, "--num-steps=40", "--num-replicates=6", "--batch-size=16", "--record-every=10", "--quiet"]


def test_a_sequence_writes_every_stage_and_task_with_intervals(massdrift, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "out"
    code, printed, _ = massdrift("sequence", "reverse_kl", *SMALL, "--out", out)
    assert code == 0
    assert max(map(len, printed.splitlines()[:-2])) <= 80
    assert "forgetting from" in printed
    names = {"results.zarr", "summary.csv", "settings.toml", "report.html"}
    names |= {f"{n}.{s}" for n in ("weights", "retention", "performance", "frontier") for s in ("png", "svg")}
    assert {path.name for path in out.iterdir()} == names
    tree = inference.open(out / "results.zarr")
    stages, lost = tree["stages"].to_dataset(), tree["forgetting"].to_dataset()
    assert stages["task_performance"].dims == ("objective", "chain", "draw", "stage", "task")
    assert (stages.sizes["draw"], stages.sizes["stage"], stages.sizes["task"]) == (6, 3, 4)
    assert list(stages["stage_task"].to_numpy()) == ["", "c", "d"]
    row = pd.read_csv(out / "summary.csv").iloc[0]
    # Means of tasks first, then of replicates; the last task has no forgetting.
    earlier = lost["forgetting_from_own_stage"].sel(task=list("abc")).mean("task")
    assert row["forgetting_from_own_stage"] == pytest.approx(float(earlier.mean()))
    assert row["forgetting_from_own_stage_lower"] < row["forgetting_from_own_stage"]
    assert row["backward_transfer"] == pytest.approx(-row["forgetting_from_own_stage"])
    own = [stages["task_performance"].sel(stage=number, task=task) for number, task in ((1, "c"), (2, "d"))]
    assert row["plasticity"] == pytest.approx(float(sum(own).mean() / 2.0))
    # The flow is what the trainings do without noise, at the same step.
    flow = tree["population"].to_dataset().set_index(time="step")["weight"].sel(time=[40.0, 80.0])
    trained = tree["trajectory"]["weight"].sel(step=[40, 80]).mean(["chain", "draw"])
    np.testing.assert_allclose(trained.transpose(*flow.dims[:1], "step", "task"), flow, atol=0.03)
    exact = tree["population_stages"]["task_performance"]
    np.testing.assert_allclose(stages["task_performance"].mean(["chain", "draw"]), exact, atol=0.08)
    (sentence,) = sequence.answer(tree)
    assert sentence.startswith("reverse_kl changes the performance on an earlier task by ")
    assert sequence.remarks(tree) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["sft", "sft:learner=single_mode"],
            "the single_mode learner must have an old and a new task, see TwoMode; got a, b, c, d",
        ),
        (["sft", "reverse_kl", "--batch-size=1"], "batch_size must be at least 2; got 1"),
        (["sft", "dpo"], f"objective must be one of {', '.join(objectives.registry)}; got 'dpo'"),
        (["sft", "sft"], "objectives must have different names; got sft more than once"),
        (["sft:task=d"], "sft:task=d must leave its task to the stages of the sequence; got task=d"),
    ],
)
def test_what_a_later_objective_makes_impossible_is_refused_before_the_first(
    massdrift, monkeypatch, tmp_path, arguments, sentence
):
    trained = "analyses.sequence.sequence.train_sequence"
    monkeypatch.setattr(trained, lambda *a, **k: pytest.fail("trained"))
    code, printed, error = massdrift("sequence", *SMALL, *arguments, "--out", tmp_path / "out")
    assert (code, printed, len(error.splitlines())) == (2, "", 1)
    assert sentence in error
    assert list(tmp_path.iterdir()) == []


def test_places_are_apart_as_they_are_said_to_be():
    start, target = sequence.Settings(places="simplex", separation=3.0, start_new_gap=0.5).mixtures()
    apart = np.asarray(target.separations)
    np.testing.assert_allclose(apart, 3.0 * (1.0 - np.eye(5)), atol=1e-12)
    moved = np.linalg.norm(np.asarray(start.means) - np.asarray(target.means), axis=1)
    np.testing.assert_allclose(moved, [0.0, 0.0, 0.0, 0.5, 0.5], atol=1e-12)
    np.testing.assert_allclose(start.weights, [0.3, 0.3, 0.3, 0.05, 0.05], rtol=1e-12)
    _, line = sequence.Settings(separation=3.0, weights=(0.1, 0.2, 0.3, 0.2, 0.2)).mixtures()
    np.testing.assert_allclose(np.diff(np.asarray(line.means)[:, 0]), 3.0)
    np.testing.assert_allclose(line.weights, [0.1, 0.2, 0.3, 0.2, 0.2])


def test_a_diverged_sequence_is_left_out_and_counted():
    dims = ("objective", "chain", "draw")
    groups = {
        "trajectory_stats": xr.Dataset({"diverged_step": (dims, [[[-1, 4, -1]]])}, {"objective": ["x"]}),
        "stages": xr.Dataset(
            {"task_performance": ((*dims, "stage", "task"), np.full((1, 1, 3, 2, 2), 0.5))},
            {"task": ["a", "b"], "objective": ["x"]},
        ),
        "forgetting": xr.Dataset(
            {
                name: ((*dims, "task"), [[[[0.2, np.nan], [9.0, np.nan], [0.4, np.nan]]]])
                for name in ("forgetting_from_best", "forgetting_from_own_stage")
            }
            | {
                name: (dims, [[[0.1, 9.0, 0.3]]])
                for name in ("plasticity", "backward_transfer", "average_performance")
            },
            {"objective": ["x"]},
        ),
    }
    tree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
    row = sequence.summary(tree).loc["x"]
    assert row["forgetting_from_best"] == pytest.approx(0.3)
    assert row["plasticity"] == pytest.approx(0.2)
    assert row["num_diverged"] == 1
    assert sequence.remarks(tree) == ["1 of 3 sequences of x diverged, and are left out."]


@pytest.mark.slow
@pytest.mark.parametrize("num_stages", [1, 2])
def test_the_plan_is_that_of_separated_modes(massdrift, num_stages):
    """Right means far apart: weights follow φ_k' = ½ (λ_k - β_k) stage after stage, solved independently."""
    keep, given = 0.4, ["--separation=12", "--start-new-gap=0", "--num-steps=150", "--learning-rate=0.1"]
    code, printed, _ = massdrift(
        "plan-sequence", "sft", *TASKS[: 2 + num_stages], *given, f"--keep={keep}", "--quiet", "--json"
    )
    assert code == 0
    (row,) = json.loads(printed)["summary"]

    def kept(replay):
        weights = np.array([0.5 * (1.0 - 0.05 * num_stages)] * 2 + [0.05] * num_stages)
        for seen in range(2, 2 + num_stages):
            shares = np.zeros(2 + num_stages)
            shares[:seen], shares[seen] = replay / seen, 1.0 - replay
            weights = theory.sft_task_weights_separated([15.0], weights / weights.sum(), shares)[-1]
        # Each was done in full after its own stage.
        return weights[:-1].min() * (2 + num_stages)

    wanted = brentq(lambda replay: kept(replay) - keep, 0.0, 0.9)
    assert row["smallest_value"] == pytest.approx(wanted, abs=2e-3)
    assert keep <= row["kept_part"] < keep + 5e-3
    assert row["answer"] == f"replay {row['smallest_value']:.3g}"


def test_a_plan_takes_the_end_of_the_last_gap():
    """A curve that keeps enough twice: only what all larger values keep counts; NaN is not kept."""

    def end(value):
        return _End(abs(value - 1.0), "a", 0.5)

    values = (0.0, 0.5, 1.5, 2.0)
    value, found = _smallest(end, values, [end(one) for one in values], 0.7)
    assert value == pytest.approx(1.7, abs=1e-3)
    assert found.kept >= 0.7
    assert _smallest(end, values, [end(one) for one in values], 0.2)[0] == 0.0
    # The largest value can keep too little again.
    assert _smallest(end, (0.5, 2.0, 2.5, 1.2), [end(one) for one in (0.5, 2.0, 2.5, 1.2)], 0.6)[0] > 0.5
    lost = [_End(np.nan, "", np.nan), *(end(one) for one in values[1:])]
    assert _smallest(end, values, lost, 0.3)[0] == 0.5


@pytest.mark.slow
def test_every_objective_has_a_plan_and_a_figure(massdrift, tmp_path):
    given = [*TASKS, "--num-steps=100", "--quiet", "--out", tmp_path / "plan"]
    code, *_ = massdrift("plan-sequence", *given)
    assert code == 0
    frame = pd.read_csv(tmp_path / "plan" / "summary.csv")
    assert list(frame["objective"]) == list(objectives.registry)
    inside = colours(tmp_path / "plan" / "plan")
    assert all(inside)
    assert len(set.union(*inside)) >= 5
    kept = frame["kept_part"].dropna()
    assert (kept >= 0.5).all()
    assert len(plan_sequence.answer(inference.open(tmp_path / "plan" / "results.zarr"))) == 5


@pytest.mark.slow
def test_every_registered_objective_has_a_sequence(massdrift, tmp_path):
    code, printed, _ = massdrift("sequence", *SMALL, "--out", tmp_path / "out")
    assert code == 0
    assert "…" not in printed
    frame = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert len(frame) == 7
    assert np.isfinite(frame["forgetting_from_best"]).all()
