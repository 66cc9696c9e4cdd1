"""Sequences of post-trainings: stages that follow each other, R[stage, task], forgetting, what is refused."""

from dataclasses import replace

import numpy as np
import optax
import pytest
import xarray as xr

from inference import Stage, open, save, sequence_flow, stages_of, train, train_sequence
from inference.results.sequence import forgetting_of, performance_of
from inference.storage import kept
from mixture_models import InputError, Mixture, TwoMode, objectives, theory
from mixture_models.objectives.registry import given_to
from mixture_models.objectives.tasks import on_task

MEANS = {"base": [0.0], "math": [5.0], "code": [-5.0]}
TARGET = Mixture.create(MEANS, {"base": 0.4, "math": 0.3, "code": 0.3})
START = TARGET.replace(weights={"base": 0.98, "math": 0.01, "code": 0.01}, means={"math": [4.0]})
STAGES = [
    Stage("math", objectives.sft(task="math"), TARGET, 30),
    Stage("code", objectives.sft(task="code", replay={"math": 0.3}), TARGET, 20),
]
SETTINGS = dict(batch_size=16, learning_rate=0.3, num_replicates=5, seed=0, record_every=10, progress=False)


@pytest.fixture(scope="module")
def tree():
    return train_sequence(STAGES, START, **SETTINGS)


def test_a_stage_begins_where_the_one_before_it_ended(tree):
    """The first stage is a training; the second one a training of each replicate from its own end."""
    trajectory = tree["trajectory"].to_dataset()
    assert list(trajectory["step"].to_numpy()) == [0, 10, 20, 30, 40, 50]
    assert list(trajectory["stage"].to_numpy()) == [0, 1, 1, 1, 2, 2]
    stages = tree["stages"].to_dataset()
    np.testing.assert_array_equal(stages["weight"][:, :, 1], trajectory["weight"].sel(step=30))
    np.testing.assert_array_equal(stages["weight"][:, :, 2], trajectory["weight"].sel(step=50))
    np.testing.assert_allclose(stages["weight"][0, :, 0], np.tile(START.weights, (5, 1)), rtol=1e-14)
    # Without a step in between the record would be another one of the same place.
    assert np.all(stages["weight"][0, :, 1, 1] > 10.0 * START.weights[1])
    assert np.ptp(stages["weight"][0, :, 1, 1].to_numpy()) > 0.0


@pytest.mark.slow
def test_replicates_are_paired_and_a_larger_run_begins_with_a_smaller(tree):
    more = train_sequence(STAGES, START, **(SETTINGS | {"num_replicates": 7}))
    np.testing.assert_allclose(more["stages"]["weight"][:, :5], tree["stages"]["weight"], rtol=1e-12)
    one = train_sequence(STAGES[:1], START, **SETTINGS)
    np.testing.assert_allclose(
        one["stages"]["weight"].isel(stage=1), tree["stages"]["weight"].isel(stage=1), rtol=1e-12
    )


def test_finished_stages_are_kept(tree, tmp_path, monkeypatch):
    with kept.keeping(tmp_path):
        train_sequence(STAGES[:1], START, **SETTINGS)
        first = set(tmp_path.rglob("*.npz"))
        again = train_sequence(STAGES, START, **SETTINGS)
    assert len(first) == 1
    assert len(set(tmp_path.rglob("*.npz"))) == 2
    for name in ("weight", "task_mean"):
        np.testing.assert_array_equal(again["stages"][name], tree["stages"][name])


def test_performance_is_the_retained_part_of_a_share(tree, tmp_path):
    stages = tree["stages"].to_dataset()
    wanted = np.clip(stages["task_retention"] / TARGET.weights, 0.0, 1.0)
    np.testing.assert_allclose(stages["task_performance"], wanted, rtol=1e-14)
    save(tree, tmp_path / "sequence.zarr")
    stored = open(tmp_path / "sequence.zarr")
    xr.testing.assert_equal(stored["forgetting"].to_dataset(), tree["forgetting"].to_dataset())
    for group in ("trajectory", "stages", "forgetting"):
        for variable in tree[group].to_dataset().variables.values():
            assert {"long_name", "units"} <= set(variable.attrs), variable


def test_the_two_senses_of_forgetting_differ_where_a_task_gains_after_its_stage():
    """Taking either for the other would be off by 0.2; the last stage's task has no forgetting."""
    rows = [[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.5, 0.8, 0.7], [0.2, 0.5, 0.6]]
    performance = xr.DataArray(rows, {"stage": range(4), "task": list("abc")}, ("stage", "task"))
    own = xr.DataArray([0, 1, 3], {"task": list("abc")}, "task")
    found = forgetting_of(performance, own)
    np.testing.assert_allclose(found["forgetting_from_best"], [0.7, 0.3, np.nan])
    np.testing.assert_allclose(found["forgetting_from_own_stage"], [0.7, 0.1, np.nan])
    assert float(found["backward_transfer"]) == pytest.approx(-0.4)
    assert float(found["average_performance"]) == pytest.approx((0.2 + 0.5 + 0.6) / 3.0)
    # Of taught tasks alone: the first one was known, and would make it 0.7.
    assert float(found["plasticity"]) == pytest.approx(0.6)


def test_little_that_is_asked_for_before_its_stage_is_no_performance():
    """The target of stage 1 asks for as little of code as there is; dividing by that would make R = 1."""
    stages = stages_of(objectives.reverse_kl(), START, TARGET, ["math", "code"], num_steps=5)
    shares = np.array([[0.9, 0.05, 0.05], [0.6, 0.35, 0.05], [0.5, 0.2, 0.3]])
    recorded = xr.Dataset(
        {"task_retention": (("chain", "draw", "stage", "task"), shares[None, None])}, {"stage": range(3)}
    )
    own = xr.DataArray([0, 1, 2], {"task": list(MEANS)}, "task")
    targets = [stages[0].target, *(stage.target for stage in stages)]
    found = performance_of(recorded, targets, own)[0, 0]
    of_math = 0.99 * 0.3 / 0.7
    wanted = [[1.0, 0.05 / of_math, 0.05 / 0.3], [1.0, 0.35 / of_math, 0.05 / 0.3], [1.0, 0.2 / 0.3, 1.0]]
    np.testing.assert_allclose(found, np.minimum(wanted, 1.0), rtol=1e-12)


def test_the_stages_of_an_objective_are_said_in_its_tasks():
    stages = stages_of(objectives.sft(replay=0.3), START, TARGET, ["math", "code"], num_steps=7)
    assert [(stage.task, stage.num_steps, stage.objective.name) for stage in stages] == [
        ("math", 7, "sft:replay=0.3"),
        ("code", 7, "sft:replay=0.3"),
    ]
    assert [given_to(stage.objective) for stage in stages] == [
        {"replay": {"base": 0.3}, "task": "math"},
        {"replay": {"base": 0.15, "math": 0.15}, "task": "code"},
    ]
    first, last = (stage.target for stage in stages)
    assert last == TARGET
    # Of what is not seen the target is the start; the others share the rest as they will in the end.
    np.testing.assert_allclose(first.weights, [0.99 * 0.4 / 0.7, 0.99 * 0.3 / 0.7, 0.01], rtol=1e-12)
    np.testing.assert_array_equal(first.means[:, 0], [0.0, 5.0, -5.0])
    off = START.replace(means={"code": [-3.0]})
    assert stages_of(objectives.sft(), off, TARGET, ["math", "code"], num_steps=1)[0].target.means[2] == -3.0


def test_rewards_of_a_stage_are_those_of_its_task_unless_given():
    def rewards_in(objective):
        stages = stages_of(objective, START, TARGET, ["math", "code"], num_steps=1)
        return [str(stage.objective.loss.reward) for stage in stages]

    for objective in (objectives.ttt_discover(), objectives.oapl()):
        assert rewards_in(objective) == ["task_reward({'math': 1.0})", "task_reward({'code': 1.0})"]
    assert rewards_in(objectives.oapl(reward="log_ratio_reward")) == ["log_ratio_reward()"] * 2
    by_hand = replace(objectives.sft(task="math"), recipe=None)
    assert on_task(by_hand, "code", ["base"]) is by_hand


@pytest.mark.parametrize(
    ("start", "tasks", "message"),
    [
        (
            START,
            [],
            "new_tasks must be different tasks, at least one and not all of base, math, code; got none",
        ),
        (START, ["math", "math"], "new_tasks must be different tasks"),
        (START, ["base", "math", "code"], "not all of base, math, code; got base, math, code"),
        (START, ["art"], "task must be one of base, math, code; got 'art'"),
        (
            TwoMode.create(0.5, 0.0, 1.0),
            ["new"],
            "start must be a mixture of named tasks",
        ),
    ],
)
def test_stages_that_cannot_be_made_are_refused(start, tasks, message):
    with pytest.raises(InputError, match=message):
        stages_of(objectives.sft(), start, TARGET, tasks, num_steps=1)


@pytest.mark.slow
def test_an_optimizer_takes_the_place_of_plain_sgd(tree):
    """SGD that an optimizer says is that of the learning rate; a smaller rate of it is not."""
    for rate, same in ((0.3, True), (0.1, False)):
        given = SETTINGS | {"learning_rate": 7.0, "optimizer": optax.sgd(rate)}
        found = train_sequence(STAGES, START, **given)["stages"]["weight"]
        assert np.allclose(found, tree["stages"]["weight"], rtol=1e-9, atol=0.0) == same


def test_what_is_no_optimizer_is_refused():
    with pytest.raises(InputError, match=r"optimizer must be an optax\.GradientTransformation such as"):
        train_sequence(STAGES, START, **SETTINGS, optimizer="adam")


def test_a_diverged_replicate_is_nan_from_then_on():
    wild = [
        Stage("math", objectives.reverse_kl(), TARGET, 4),
        Stage("code", objectives.sft(task="code"), TARGET, 3),
    ]
    settings = SETTINGS | {"learning_rate": 1e9, "record_every": 1}
    tree = train_sequence(wild, START, **settings)
    steps = tree["trajectory_stats"]["diverged_step"].to_numpy()
    assert np.all((steps >= 1) & (steps <= 4))
    assert np.all(np.isnan(tree["stages"]["weight"].isel(stage=2)))
    assert np.all(np.isnan(tree["forgetting"]["average_performance"]))
    assert np.all(np.isfinite(tree["stages"]["weight"].isel(stage=0)))


@pytest.mark.slow
def test_two_modes_have_a_sequence_of_one_stage():
    target = TwoMode.create(0.5, [0.0], [4.0])
    start = target.replace(old_weight=0.9, new_mean=[3.0])
    settings = SETTINGS | {"record_every": 5}
    found = train_sequence([Stage("new", objectives.sft(), target, 20)], start, **settings)
    performance = found["stages"]["task_performance"]
    kept_old = found["stages"]["retention"]
    np.testing.assert_allclose(performance.sel(task="old"), np.clip(kept_old / 0.5, 0.0, 1.0), rtol=1e-12)
    alone = train(objectives.sft(), start, target, num_steps=20, **settings)
    a = float(alone["final"]["old_weight"].mean())
    b = float(found["stages"]["old_weight"].isel(stage=1).mean())
    assert a == pytest.approx(b, abs=0.05)


@pytest.mark.slow
def test_the_flow_of_a_sequence_is_that_of_its_stages():
    """Right means held and modes apart: the weights are those of the separated theory, stage after stage."""
    start = START.replace(means={"math": [5.0]})
    far = {"base": [0.0], "math": [9.0], "code": [-9.0]}
    start, target = (m.replace(means=far) for m in (start, TARGET))
    stages = [Stage(name, objectives.sft(task=name), target, 300) for name in ("math", "code")]
    tree = sequence_flow(
        stages, start, learning_rate=0.1, num_records=3, learning_rate_factors={"task_mean": 0.0}
    )
    wanted = theory.sft_sequence_weights_separated(start.weights, [(1, 30.0), (2, 30.0)])
    np.testing.assert_allclose(tree["stages"]["weight"], wanted, atol=1e-4)
    np.testing.assert_allclose(tree["population"]["time"], [0, 10, 20, 30, 40, 50, 60])
    assert float(tree["population"]["integration_error"].max()) < 1e-9
    # Trainings of many samples a step are the flow, but for its discretisation.
    trained = train_sequence(
        stages,
        start,
        batch_size=256,
        learning_rate=0.1,
        num_replicates=8,
        seed=1,
        record_every=300,
        learning_rate_factors={"task_mean": 0.0},
        progress=False,
    )
    mean = trained["stages"]["weight"].mean(("chain", "draw"))
    np.testing.assert_allclose(mean, tree["stages"]["weight"], atol=0.02)


@pytest.mark.parametrize(
    ("stages", "start", "message"),
    [
        ([], START, "stages must be a list of at least one Stage"),
        ("sft", START, "stages must be a list of at least one Stage"),
        ([objectives.sft()], START, "stages must be a list of Stage; got a Objective"),
        (
            [Stage("art", objectives.sft(task="math"), TARGET, 5)],
            START,
            "the task of stage 1 must be one of base, math, code; got 'art'",
        ),
        (
            [Stage("math", objectives.sft(task="math", replay={"code": 0.1}), TARGET, 5), STAGES[1]],
            START,
            r"stage 1 must replay tasks that are seen before it \(base\); got code",
        ),
        ([STAGES[0], STAGES[0]], START, "a task must be taught by one stage; stage 2 teaches math again"),
        (
            [Stage("math", objectives.sft(task="math"), TARGET, 0)],
            START,
            "num_steps of stage 1 must be at least 1; got 0",
        ),
        (STAGES, TwoMode.create(0.5, 0.0, 1.0), "start must have the target's tasks base, math, code"),
        (STAGES, 3.0, "start must be a TwoMode or a Mixture; got float"),
        ([Stage("math", "sft", TARGET, 5)], START, "the objective of stage 1 must be an Objective; got str"),
        (
            [Stage("math", objectives.sft(task="art"), TARGET, 5)],
            START,
            "task must be one of base, math, code; got 'art'",
        ),
    ],
)
def test_what_cannot_be_a_sequence_is_refused_in_one_sentence(stages, start, message):
    with pytest.raises(InputError, match=message):
        train_sequence(stages, start, **SETTINGS)


def test_a_learner_of_one_mode_cannot_begin_the_next_stage():
    target = TwoMode.create(0.5, [0.0], [4.0])
    stages = [Stage("new", objectives.sft(learner="single_mode"), target, 5)]
    with pytest.raises(InputError, match="the mixture learner in every stage; that of sft"):
        train_sequence(stages, target, **SETTINGS)
