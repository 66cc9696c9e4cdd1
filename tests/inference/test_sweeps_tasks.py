"""Sweeps of several named tasks: the numbers of `train` and of `train_sequence`, resumed stage by stage."""

import numpy as np
import pytest
import xarray as xr

from inference import open_sweep, stages_of, sweep, train, train_sequence
from inference.sweeps import blocks
from inference.sweeps.grid import Grid, attributes
from inference.sweeps.store import SweepStore
from mixture_models import InputError, Mixture, TwoMode, objectives
from mixture_models.objectives.registry import changed

TARGET = Mixture.create(
    {"chat": [0.0, 0.0], "math": [3.0, 0.0], "code": [0.0, 3.5]}, {"chat": 0.4, "math": 0.3, "code": 0.3}
)
NEW = ("math", "code")
SETTINGS = {"num_steps": 6, "batch_size": 8, "num_replicates": 3, "seed": 4, "record_every": 4}
GRID = {
    "learning_rate": [0.05, 0.2],
    "objective.replay": [0.1, 0.3],
    "start.weight.code": [0.02, 0.1],
    "target.separation": [2.5, 4.0],
}


def start_of(target):
    return target.replace(
        weights={"chat": 0.9, "math": 0.05, "code": 0.05}, means={"code": target.means[2] - [0.0, 0.7]}
    )


def run(store, grid=GRID, chosen=None, **changes):
    given = SETTINGS | {"learning_rate": 0.1, "start": start_of, "target": TARGET, "progress": False}
    chosen = [objectives.sft(replay=0.2), objectives.reverse_kl(replay=0.2)] if chosen is None else chosen
    return sweep(chosen, grid, store=store, **(given | {"new_tasks": NEW} | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted sweep of sequences."""
    store = tmp_path_factory.mktemp("sweep") / "whole.zarr"
    run(store)
    return store


def placed(at):
    """Return start and target at a point, by hand."""
    target = TARGET
    if "target.separation" in at:
        stretch = at["target.separation"] / 3.0
        target = TARGET.replace(means={"math": [3.0 * stretch, 0.0], "code": [0.0, 3.5 * stretch]})
    start = start_of(target)
    if "start.weight.code" in at:
        code = at["start.weight.code"]
        start = start.replace(
            weights={"chat": 0.9 * (1 - code) / 0.95, "math": 0.05 * (1 - code) / 0.95, "code": code}
        )
    return start, target


def assert_agrees(swept, single, group, names=None):
    there, alone = (tree[group].to_dataset() for tree in (swept, single))
    assert set(there.data_vars) == set(alone.data_vars)
    for name in alone.data_vars:
        np.testing.assert_allclose(
            there[name].transpose(*alone[name].dims), alone[name], rtol=0.0, atol=1e-10, err_msg=name
        )


@pytest.mark.parametrize("objective", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_points_of_a_sweep_of_sequences_are_sequences(objective, whole):
    """In every variable, step, stage and replicate, at corners of the grid that differ in every axis."""
    tree = open_sweep(whole)
    name = ["sft:replay=0.2", "reverse_kl:replay=0.2"][objective]
    for corner in (0, 1):
        at = {axis: values[corner] for axis, values in GRID.items()}
        start, target = placed(at)
        chosen = changed(objectives.parse(name), replay=at["objective.replay"])
        stages = stages_of(chosen, start, target, NEW, num_steps=6)
        settings = {key: value for key, value in SETTINGS.items() if key != "num_steps"}
        alone = train_sequence(stages, start, learning_rate=at["learning_rate"], progress=False, **settings)
        point = tree.sel(at | {"objective": name})
        for group in ("trajectory", "stages", "forgetting", "trajectory_stats"):
            assert_agrees(point, alone, group)
        assert point["trajectory"]["step"].to_numpy().tolist() == [0, 4, 6, 10, 12]
        np.testing.assert_array_equal(point["trajectory"]["stage"], alone["trajectory"]["stage"])
        np.testing.assert_array_equal(point["stages"]["stage_task"], alone["stages"]["stage_task"])
        np.testing.assert_array_equal(tree["constant_data"]["own_stage"], alone["constant_data"]["own_stage"])
        # A sweep that lost an axis, or began each stage at the start, would be off by far more.
        weights = tree["stages"]["weight"].isel(stage=-1)
        for axis in GRID:
            assert np.abs(weights.diff(axis)).max() > 1e-3
