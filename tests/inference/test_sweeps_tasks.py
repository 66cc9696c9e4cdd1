"""Sweeps of several named tasks: the numbers of `train` and of `train_sequence`, resumed stage by stage."""

import inspect

import numpy as np
import pytest

from inference import open_sweep, stages_of, sweep, train, train_sequence
from inference.engine import chunks
from inference.sweeps import blocks
from inference.sweeps import run as engine
from inference.sweeps.axes import attributes
from inference.sweeps.grid import Grid
from mixture_models import InputError, Mixture, TwoMode, objectives
from mixture_models.objectives.registry import changed

TARGET = Mixture.create(
    {"chat": [0.0], "math": [3.0], "code": [-3.5]}, {"chat": 0.4, "math": 0.3, "code": 0.3}
)
NEW = ("math", "code")
SETTINGS = {"num_steps": 6, "batch_size": 8, "num_replicates": 3, "seed": 4, "record_every": 4}
GRID = {
    "learning_rate": [0.05, 0.2],
    "objective.replay": [0.1, 0.3],
    "start.weight.code": [0.02, 0.1],
    "target.separation": [2.5, 4.0],
}
SFT, KL = objectives.sft(replay=0.2), objectives.reverse_kl(replay=0.2)
GROUPS = ("trajectory", "stages", "forgetting", "trajectory_stats")


def start_of(target):
    return target.replace(
        weights={"chat": 0.9, "math": 0.05, "code": 0.05}, means={"code": target.means[2] + 0.7}
    )


def run(store, grid=GRID, chosen=SFT, **changes):
    given = SETTINGS | {"learning_rate": 0.1, "start": start_of, "target": TARGET, "progress": False}
    return sweep(chosen, grid, store=store, **(given | {"new_tasks": NEW} | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted sweep of sequences."""
    store = tmp_path_factory.mktemp("sweep") / "whole.zarr"
    run(store)
    return store


def placed(at):
    """Return start and target at a point, by hand."""
    stretch, code = at["target.separation"] / 3.0, at["start.weight.code"]
    target = TARGET.replace(means={"math": [3.0 * stretch], "code": [-3.5 * stretch]})
    weights = {"chat": 0.9 * (1 - code) / 0.95, "math": 0.05 * (1 - code) / 0.95, "code": code}
    return start_of(target).replace(weights=weights), target


def sequence(objective, start, target, learning_rate, **changes):
    """Train the sequence of a point by itself."""
    settings = {key: value for key, value in SETTINGS.items() if key != "num_steps"} | changes
    stages = stages_of(objective, start, target, NEW, num_steps=6)
    return train_sequence(stages, start, learning_rate=learning_rate, progress=False, **settings)


def assert_agrees(swept, single, groups=GROUPS):
    """Assert that a point of a sweep is a training, in every variable, step, stage and replicate."""
    for group in groups:
        there, alone = (tree[group].to_dataset() for tree in (swept, single))
        assert set(there.data_vars) == set(alone.data_vars)
        for name, values in alone.data_vars.items():
            point = there[name].transpose(*values.dims)
            np.testing.assert_allclose(point, values, rtol=0.0, atol=1e-10, err_msg=name)


def test_points_of_a_sweep_of_sequences_are_sequences(whole):
    """At corners of the grid that differ in every axis; a stage that began at the start would be far off."""
    tree = open_sweep(whole)
    for corner in (0, 1):
        at = {axis: values[corner] for axis, values in GRID.items()}
        start, target = placed(at)
        alone = sequence(changed(SFT, replay=at["objective.replay"]), start, target, at["learning_rate"])
        point = tree.sel(at | {"objective": SFT.name})
        assert_agrees(point, alone)
        assert point["trajectory"]["step"].to_numpy().tolist() == [0, 4, 6, 10, 12]
        for group, name in (
            ("trajectory", "stage"),
            ("stages", "stage_task"),
            ("constant_data", "own_stage"),
        ):
            np.testing.assert_array_equal(tree[group][name], alone[group][name])
    weights = tree["stages"]["weight"].isel(stage=-1)
    for axis in GRID:
        assert np.abs(weights.diff(axis)).max() > 1e-3


def test_every_variable_is_labelled(whole):
    tree = open_sweep(whole)
    assert tree["stages"]["weight"].dims == ("objective", *GRID, "chain", "draw", "stage", "task")
    assert tree["forgetting"]["plasticity"].dims == ("objective", *GRID, "chain", "draw")
    for group in GROUPS:
        for variable in tree[group].to_dataset().variables.values():
            assert {"long_name", "units"} <= set(variable.attrs), variable
    assert attributes("start.weight.code")["long_name"] == "start: weight of code"
    assert attributes("target.mean.a.b.1")["long_name"] == "target: coordinate 1 of the mean of a.b"


def test_a_sweep_that_is_stopped_goes_on_at_the_stage_where_it_was(whole, tmp_path, monkeypatch):
    """Stopped when a stage begins, it has kept the one before: what is trained again is the rest."""
    store, seen, original = tmp_path / "stopped.zarr", [], blocks._train_stage

    def counted(grid, cut, points, first, begins, report):
        seen.append(begins.number)
        if len(seen) == stop:
            raise KeyboardInterrupt
        return original(grid, cut, points, first, begins, report)

    monkeypatch.setattr(chunks, "num_threads", lambda: 1)
    monkeypatch.setattr(engine, "num_threads", lambda: 1)
    monkeypatch.setattr(blocks, "_train_stage", counted)
    stop = 2
    with pytest.raises(KeyboardInterrupt):
        run(store)
    assert seen == [0, 1]
    with pytest.raises(InputError, match="must be finished to be read"):
        open_sweep(store)
    kept = list((store / "unfinished").rglob("*.npz"))
    assert len(kept) == 1
    seen.clear()
    stop = None
    run(store)
    assert seen[0] == 1
    assert len(seen) % 2 == 1
    assert not (store / "unfinished").exists()
    ended, uninterrupted = open_sweep(store), open_sweep(whole)
    for group in GROUPS:
        for name, values in uninterrupted[group].data_vars.items():
            assert ended[group][name].to_numpy().tobytes() == values.to_numpy().tobytes(), name


def test_new_settings_of_a_known_sequence_compile_nothing(whole, tmp_path, compilations):
    grid = {"learning_rate": [0.3], "objective.replay": [0.25], "start.mean.code.0": [1.0, 2.0]}
    assert compilations(lambda: run(tmp_path / "more.zarr", grid, seed=9)) == []


def test_a_sequence_that_diverges_is_nan_from_then_on_and_counted(whole, tmp_path):
    grid = {"learning_rate": [0.1, 1e300]}
    tree = run(tmp_path / "far.zarr", grid).sel(objective=SFT.name)
    alone = sequence(SFT, start_of(TARGET), TARGET, 1e300)
    lost = tree.sel(learning_rate=1e300)
    assert_agrees(lost, alone)
    assert np.all(lost["trajectory_stats"]["diverged_step"] == 1)
    assert np.isnan(lost["forgetting"]["plasticity"]).all()
    assert np.isfinite(tree["forgetting"]["plasticity"].sel(learning_rate=0.1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reverse_kl:replay=0.2", "sdft", "ttt_discover", "oapl:lag=2"])
def test_every_kind_of_objective_is_swept_as_it_is_trained(name, tmp_path):
    """With random numbers of their own at every point."""
    chosen = objectives.parse(name)
    tree = run(tmp_path / "a.zarr", {"learning_rate": [0.1, 0.2]}, chosen, common_random_numbers=False)
    for rate in (0.1, 0.2):
        at = {"objective": name, "learning_rate": rate}
        seed = int(tree["constant_data"]["seed_of_point"].sel(at))
        alone = sequence(chosen, start_of(TARGET), TARGET, rate, seed=seed)
        assert_agrees(tree.sel(at), alone)


@pytest.mark.slow
def test_a_sweep_of_trainings_of_named_tasks_is_trainings(tmp_path):
    chosen = objectives.sft(task="code", replay={"chat": 0.2})
    grid = {"num_steps": [3, 6], "target.covariance": [1.0, 2.0]}
    tree = run(tmp_path / "a.zarr", grid, chosen, new_tasks=None)
    for steps, variance in ((3, 2.0), (6, 1.0)):
        target = TARGET.replace(covariance=variance)
        settings = SETTINGS | {"num_steps": steps, "learning_rate": 0.1, "progress": False}
        alone = train(chosen, start_of(target), target, **settings)
        point = tree.sel({"num_steps": steps, "target.covariance": variance})
        assert_agrees(point, alone, ("final", "trajectory_stats"))


@pytest.mark.slow
def test_an_axis_of_dimensions_is_the_sequence_in_the_span(tmp_path):
    tree = run(tmp_path / "a.zarr", {"dimension": [2, 50]}).sel(objective=SFT.name)
    for dimension in (2, 50):
        alone = sequence(SFT, start_of(TARGET), TARGET, 0.1, dimension=dimension)
        assert_agrees(tree.sel(dimension=dimension), alone)


def grid_of(axes, target=TARGET, new_tasks=NEW, start=start_of):
    names = inspect.signature(Grid.create).parameters
    others = dict.fromkeys(["learning_rate_factors", "dimension"]) | {"precision": "float64"}
    given = SETTINGS | others | {"learning_rate": 0.1, "common_random_numbers": True, "new_tasks": new_tasks}
    return Grid.create(SFT, axes, start, target, **{n: v for n, v in given.items() if n in names})


def test_axes_change_what_they_name_and_nothing_else():
    grid = grid_of({"target.weight.chat": [0.5], "target.weight.math": [0.4], "start.mean.code.0": [9.0]})
    training = grid.stages_at(0, (0, 0, 0))[-1]
    np.testing.assert_allclose(training.target.weights, [0.5, 0.4, 0.1], rtol=1e-12)
    np.testing.assert_array_equal(training.start.means[2], [9.0])
    np.testing.assert_array_equal(training.start.means[:2], TARGET.means[:2])
    # Weights without an axis keep their proportions.
    training = grid_of({"target.weight.chat": [0.7]}).stages_at(0, (0,))[-1]
    np.testing.assert_allclose(training.target.weights, [0.7, 0.15, 0.15], rtol=1e-12)
    skewed = TARGET.replace(covariance=2.0)
    training = grid_of({"target.separation": [2.0]}, skewed).stages_at(0, (0,))[-1]
    assert np.sort(np.ravel(training.target.separations))[3] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("axes", "changes", "sentence"),
    [
        ({"num_steps": [3, 6]}, {}, "num_steps cannot be an axis of sequences"),
        ({"target.old_weight": [0.5]}, {}, "the field of target.old_weight must be one of weight.chat"),
        ({"target.weight.art": [0.5]}, {}, "the field of target.weight.art must be one of weight.chat"),
        ({"start.separation": [1.0]}, {}, "the field of start.separation must be one of"),
        (
            {"target.mean.math.1": [1.0]},
            {},
            r"the field of target.mean.math.1 must be one of .*mean\.chat\.0",
        ),
        ({"target.separation": [1.0], "target.mean.math.0": [1.0]}, {}, "set one parameter"),
        ({"target.weight.chat": [0.7], "target.weight.math": [0.3]}, {}, "must sum to less than 1, as other"),
        ({"target.weight.chat": [1.2]}, {}, "the weights of chat must sum to less than 1"),
        (
            {},
            {"new_tasks": ()},
            "new_tasks must be at least one task, or None for single trainings; got none",
        ),
        ({}, {"new_tasks": ("math", "art")}, "task must be one of chat, math, code; got 'art'"),
        (
            {},
            {"target": TwoMode.create(0.5, 0.0, 1.0), "start": TwoMode.create(0.5, 0.0, 1.0)},
            "named tasks",
        ),
        ({}, {"start": 3.0}, "start must be a TwoMode, a Mixture or a function of the target; got float"),
    ],
)
def test_what_cannot_be_swept_is_one_sentence(axes, changes, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        grid_of(axes, **changes)
    assert "\n" not in str(error.value)


def test_a_store_of_other_stages_is_refused(whole):
    sentence = 'new_tasks is \\["math", "code"\\] there and \\["code", "math"\\] here'
    with pytest.raises(InputError, match=sentence):
        run(whole, new_tasks=("code", "math"))
