"""Sweeps: the numbers of `train`, one program for every grid, and nothing lost, whatever happens."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import arviz as az
import numpy as np
import pytest
import xarray as xr

import inference
from analyses import cli
from inference import open_sweep, sweep, train
from inference.engine import chunks
from inference.storage import versions
from inference.sweeps import run as engine
from inference.sweeps import store
from inference.sweeps.identity import _fingerprint
from inference.sweeps.store import SweepStore
from mixture_models import InputError, TwoMode, TwoModeLearner, objectives

TARGET = TwoMode.create(old_weight=0.4, old_mean=0.0, new_mean=3.0)
CHOSEN = [objectives.sft(replay=0.2), objectives.reverse_kl()]
SETTINGS = {"num_steps": 9, "batch_size": 8, "learning_rate": 0.1, "num_replicates": 3, "seed": 4}
GRID = {
    "target.separation": [2.0, 3.5],
    "start.old_weight": list(np.linspace(0.2, 0.8, 33)),
    "learning_rate": [0.02, 0.1, 0.3],
    "num_steps": [4, 9],
}
GROUPS = ("trajectory", "final", "trajectory_stats")


def start_of(target):
    return target.replace(old_weight=0.8, new_mean=target.new_mean - 0.7)


def run(store, grid=GRID, chosen=CHOSEN, **changes):
    settings = SETTINGS | {"start": start_of, "target": TARGET, "record_every": 3, "progress": False}
    return sweep(chosen, grid, store=store, **(settings | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted sweep, of ten chunks."""
    store = tmp_path_factory.mktemp("sweep") / "whole.zarr"
    run(store)
    return store


@pytest.fixture
def copy(whole, tmp_path):
    """A finished sweep of one's own."""
    shutil.copytree(whole, tmp_path / "copy.zarr")
    return tmp_path / "copy.zarr"


def numbers(store):
    """Return everything that was trained, as bytes by group and variable."""
    tree = open_sweep(store)
    return {(g, n): v.to_numpy().tobytes() for g in GROUPS for n, v in tree[g].data_vars.items()}


@pytest.fixture
def trained(monkeypatch):
    """The blocks that were trained since, in their order."""
    seen, original = [], engine.train_block

    def train_block(grid, cut, block, report, folder):
        seen.append(block)
        return original(grid, cut, block, report, folder)

    monkeypatch.setattr(engine, "train_block", train_block)
    return seen


def point(grid, chosen, precision="float64", **at):
    """Train one point of a grid by `train`, and return its tree."""
    target = TARGET
    if "target.separation" in at:
        target = target.replace(new_mean=target.old_mean + at["target.separation"])
    start = start_of(target)
    if "start.old_weight" in at:
        start = start.replace(old_weight=at["start.old_weight"])
    changes = {name: at[name] for name in ("learning_rate", "num_steps", "batch_size", "seed") if name in at}
    changes |= {"record_every": 3, "progress": False, "precision": precision}
    return train(chosen, start, target, **(SETTINGS | changes))


def assert_agrees(tree, single, at, tolerance=1e-10):
    """Assert that a sweep at a point is a training, in every variable, step and replicate."""
    steps = single["trajectory"]["step"].to_numpy()
    inside = {name: value for name, value in at.items() if name != "num_steps"}
    swept = tree["trajectory"].to_dataset().sel(inside).sel(step=steps)
    length = {"num_steps": at["num_steps"]} if "num_steps" in tree["final"].dims else {}
    ended = tree["final"].to_dataset().sel(inside | length)
    for name, values in single["trajectory"].data_vars.items():
        np.testing.assert_allclose(swept[name].to_numpy(), values, rtol=0.0, atol=tolerance, err_msg=name)
        np.testing.assert_allclose(ended[name].to_numpy(), values.isel(step=-1), rtol=0.0, atol=tolerance)
    there = tree["trajectory_stats"]["diverged_step"].sel(inside | length)
    np.testing.assert_array_equal(there, single["trajectory_stats"]["diverged_step"])


# The numbers


def test_points_of_a_sweep_are_trainings(whole):
    tree = open_sweep(whole)
    rng = np.random.default_rng(0)
    for _ in range(4):
        at = {name: values[rng.integers(len(values))] for name, values in GRID.items()}
        assert_agrees(tree, point(GRID, CHOSEN, **at), at)


@pytest.mark.slow
def test_a_sweep_in_single_precision_is_trainings_in_single_precision(whole, tmp_path):
    tree = run(tmp_path / "single.zarr", precision="float32")
    at = {name: values[-1] for name, values in GRID.items()}
    # To rounding in float32, where sums of another width differ.
    assert_agrees(tree, point(GRID, CHOSEN, "float32", **at), at, tolerance=1e-5)
    assert numbers(tmp_path / "single.zarr") != numbers(whole)
    with pytest.raises(InputError, match="precision must be one of float64, float32; got 'float16'"):
        run(tmp_path / "half.zarr", precision="float16")


def test_every_axis_is_a_labelled_dimension(whole):
    tree = open_sweep(whole)
    final = tree["final"]["old_weight"]
    assert final.dims == ("objective", *GRID, "chain", "draw")
    for name, values in GRID.items():
        np.testing.assert_array_equal(tree["final"][name], values)
        assert set(tree["final"][name].attrs) >= {"long_name", "units"}
    assert tree["trajectory"]["step"].to_numpy().tolist() == [0, 3, 4, 6, 9]
    assert not np.isnan(final).any()
    # Readable by whoever has xarray alone, without a warning.
    with xr.open_datatree(whole) as bare:
        assert bare["final"]["old_weight"].attrs["units"] == "1"


def test_numbers_are_read_when_they_are_asked_for(copy):
    tree = open_sweep(copy)
    for chunk in (copy / "final" / "old_weight" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"")
    with pytest.raises(Exception, match=r"(?i)checksum|crc|byte|size"):
        tree["final"]["old_weight"].to_numpy()
    assert np.isfinite(tree["final"]["old_drift"]).all()


def listed(dataset, names):
    return np.concatenate([dataset[name].to_numpy().ravel() for name in names])


def test_arviz_reads_a_sweep_as_it_is(whole):
    at = {"target.separation": 2.0, "learning_rate": 0.1, "start.old_weight": GRID["start.old_weight"][:2]}
    names = ["old_weight", "retention"]
    summary = az.summary(open_sweep(whole).sel(at), group="final", var_names=names, round_to="none")
    with xr.open_datatree(whole) as stored:
        final = stored["final"].to_dataset().sel(at)[names].load()
    # ArviZ lists the points of a variable in their order; its first version divides by n, not by n - 1.
    of_n, of_n_less_1 = (listed(final.std(["chain", "draw"], ddof=ddof), names) for ddof in (0, 1))
    np.testing.assert_allclose(
        np.asarray(summary["mean"], float), listed(final.mean(["chain", "draw"]), names), rtol=1e-9
    )
    sd = np.asarray(summary["sd"], float)
    assert any(np.allclose(sd, expected, rtol=1e-9, atol=0.0) for expected in (of_n, of_n_less_1))
    forest = az.plot_forest(open_sweep(whole).sel(at), group="final", var_names=["old_weight"])
    assert "old_weight" in forest.viz["trunk"].data_vars


def test_a_sweep_larger_than_memory_is_reduced_chunk_by_chunk(whole, monkeypatch):
    in_memory = open_sweep(whole)
    # Such that the trajectories are too large and their ends are not.
    between = float(in_memory["trajectory"].nbytes + in_memory["final"].nbytes) / 2
    free = SimpleNamespace(available=between / store._WHOLE)
    monkeypatch.setattr(store, "psutil", SimpleNamespace(virtual_memory=lambda: free))
    tree = open_sweep(whole)
    assert tree["trajectory"]["loss"].chunks
    assert max(map(len, tree["trajectory"]["loss"].chunks)) > 1
    assert not tree["final"]["loss"].chunks
    assert tree.attrs == in_memory.attrs
    for group in GROUPS:
        xr.testing.assert_identical(*(t[group].to_dataset().load() for t in (tree, in_memory)))


@pytest.mark.slow
def test_own_random_numbers_are_those_of_the_seed_that_is_recorded(tmp_path):
    grid = {"start.old_weight": [0.3, 0.6], "seed": [5, 6]}
    tree = run(tmp_path / "own.zarr", grid, CHOSEN[:1], common_random_numbers=False)
    seeds = tree["constant_data"]["seed_of_point"].isel(objective=0)
    assert len(np.unique(seeds)) == 4
    for weight in grid["start.old_weight"]:
        at = {"start.old_weight": weight, "seed": 6}
        seed = int(seeds.sel(at))
        assert_agrees(tree, point(grid, CHOSEN[:1], **(at | {"seed": seed})), at)


def test_a_diverged_training_is_nan_and_counted_where_train_says(tmp_path):
    grid = {"learning_rate": [0.1, 1e3, 1e300]}
    tree = run(tmp_path / "far.zarr", grid, CHOSEN)
    for rate in grid["learning_rate"]:
        at = {"learning_rate": rate}
        single = point(grid, CHOSEN, **at)
        # What flies off by factors of a thousand a step magnifies round-off: only the start is compared.
        first = tree["trajectory"].to_dataset().sel(at).isel(step=0)
        np.testing.assert_allclose(first["old_weight"], single["trajectory"]["old_weight"].isel(step=0))
        np.testing.assert_array_equal(
            tree["trajectory_stats"]["diverged_step"].sel(at), single["trajectory_stats"]["diverged_step"]
        )
    assert (tree["trajectory_stats"]["diverged_step"].sel(learning_rate=1e300) >= 0).all()
    assert np.isnan(tree["final"]["old_weight"].sel(learning_rate=1e300)).all()


def test_a_chunk_of_nothing_but_nan_is_not_lost(tmp_path):
    """Zarr leaves out chunks that are all fill value, unless it is told not to."""
    settings = {"grid": {"learning_rate": [1e300]}, "chosen": CHOSEN[:1], "record_every": 40}
    path = tmp_path / "nan.zarr"
    assert np.isnan(run(path, **settings)["final"]["old_weight"]).all()
    before = {file: file.stat().st_mtime_ns for file in path.rglob("c/**/*") if file.is_file()}
    run(path, **settings)
    assert before == {file: file.stat().st_mtime_ns for file in before}


@pytest.mark.slow
def test_the_old_mean_alone_may_be_frozen_along_an_axis(tmp_path):
    grid = {"learning_rate_factors.old_mean": [0.0, 1.0]}
    tree = run(tmp_path / "frozen.zarr", grid, CHOSEN[:1])
    moved = tree["final"]["old_drift"].isel(objective=0, chain=0)
    assert np.all(moved.sel({"learning_rate_factors.old_mean": 0.0}) == 0.0)
    assert np.all(moved.sel({"learning_rate_factors.old_mean": 1.0}) > 0.0)


# One program


@pytest.mark.slow
def test_a_new_grid_over_known_objectives_compiles_nothing(whole, tmp_path, compilations):
    grids = [
        {"target.old_weight": [0.1, 0.2, 0.7], "start.new_gap": [0.5, 1.0], "objective.replay": [0.3]},
        {"sft:replay=0.2.replay": [0.1, 0.5, 0.6, 0.9], "start.old_drift": [0.0, 0.2]},
        {"start.old_logit": np.linspace(-3.0, 3.0, 40), "num_steps": [3, 40], "seed": [1, 2]},
        {},
    ]
    chosen = [objectives.sft(replay=0.2), objectives.reverse_kl()]
    for index, grid in enumerate(grids):
        of_all = chosen[:1] if "objective.replay" in grid else chosen
        store = tmp_path / f"{index}.zarr"
        assert compilations(lambda g=grid, o=of_all, s=store: run(s, g, o)) == []
    # The counter counts: another batch is another shape.
    one = {"batch_size": [5], "start.old_weight": [0.5]}
    assert len(compilations(lambda: run(tmp_path / "other.zarr", one, chosen[:1]))) >= 2


# Nothing lost


def test_the_numbers_depend_on_neither_cores_nor_order(whole, tmp_path, monkeypatch, trained):
    monkeypatch.setattr(chunks, "num_threads", lambda: 1)
    monkeypatch.setattr(engine, "num_threads", lambda: 1)
    original = engine.blocks
    monkeypatch.setattr(engine, "blocks", lambda grid, cut: reversed(list(original(grid, cut))))
    run(tmp_path / "backward.zarr")
    assert len(trained) > 4
    assert trained == sorted(trained, reverse=True)
    assert numbers(tmp_path / "backward.zarr") == numbers(whole)


def test_what_was_stopped_goes_on_with_what_is_missing(whole, tmp_path, monkeypatch, trained):
    store, original = tmp_path / "stopped.zarr", SweepStore.write

    def full_disk(self, grid, block, content):
        if len(trained) > 3:
            raise OSError(28, "No space left on device")
        original(self, grid, block, content)

    monkeypatch.setattr(engine, "num_threads", lambda: 1)
    monkeypatch.setattr(chunks, "num_threads", lambda: 1)
    with monkeypatch.context() as patched:
        patched.setattr(SweepStore, "write", full_disk)
        with pytest.raises(OSError, match="No space left"):
            run(store)
    done = trained[:3]
    with pytest.raises(InputError, match=r"must be finished to be read; \d+ of \d+ chunks are missing"):
        open_sweep(store)
    with pytest.raises(InputError, match="must be finished to be read"):
        inference.open(store)
    unfinished = open_sweep(store, incomplete=True)
    assert np.isnan(unfinished["final"]["old_weight"]).any()
    assert (unfinished["trajectory_stats"]["diverged_step"] == -2).any()
    trained.clear()
    run(store)
    assert len(trained) > 3
    assert not set(done) & set(trained)
    assert numbers(store) == numbers(whole)
    trained.clear()
    run(store)
    assert trained == []


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flipped", "shortened", "removed", "swapped"])
def test_damage_is_found_and_mended(damage, copy, whole, trained):
    folder = copy / "final" / "retention" / "c"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hit = files[1]
    content = bytearray(hit.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 4
        hit.write_bytes(content)
        # Whoever reads without us is told too.
        with xr.open_datatree(copy) as bare, pytest.raises(ValueError, match="checksum"):
            bare["final"]["retention"].load()
    elif damage == "shortened":
        hit.write_bytes(content[:10])
    elif damage == "removed":
        hit.unlink()
    else:
        hit.write_bytes(files[2].read_bytes())
    run(copy)
    assert len(trained) == 1
    assert numbers(copy) == numbers(whole)


def test_a_damaged_commit_is_no_commit(copy, whole, trained):
    files = sorted(path for path in (copy / "commits" / "checksum" / "c").rglob("*") if path.is_file())
    content = bytearray(files[0].read_bytes())
    content[3] ^= 1
    files[0].write_bytes(content)
    files[1].unlink()
    run(copy)
    assert len(trained) == 2
    assert numbers(copy) == numbers(whole)


@pytest.mark.slow
def test_damaged_metadata_and_coordinates_are_mended(copy, whole, trained):
    (copy / "final" / "retention" / "zarr.json").write_text("{")
    coordinate = next(
        path for path in (copy / "final" / "start.old_weight" / "c").rglob("*") if path.is_file()
    )
    coordinate.write_bytes(b"nonsense")
    shutil.rmtree(copy / "trajectory" / "step")
    run(copy)
    assert trained == []
    assert numbers(copy) == numbers(whole)
    for group in GROUPS:
        xr.testing.assert_identical(
            open_sweep(copy)[group].to_dataset(), open_sweep(whole)[group].to_dataset()
        )


SCRIPT = """
import test_sweeps
test_sweeps.run({store!r})
"""


def killed(store, wait):
    """Run the sweep in another process and kill it after a chunk; return whether it was still at work."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.Popen([sys.executable, "-c", SCRIPT.format(store=str(store))], env=environment)
    try:
        begun = time.monotonic()
        while process.poll() is None and not committed(store):
            assert time.monotonic() - begun < 300.0
            time.sleep(0.02)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    return process.returncode == -signal.SIGKILL


def committed(store):
    return sum(path.is_file() for path in (store / "commits" / "checksum").glob("c/**/*"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_sweep_goes_on_and_ends_as_if_it_had_not_been(whole, tmp_path, trained):
    store = tmp_path / "killed.zarr"
    assert killed(store, 0.05)
    there = committed(store)
    total = committed(whole)
    assert there > 0
    run(store)
    assert len(trained) <= total - there + 1
    assert numbers(store) == numbers(whole)


# Refusals


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"learning_rate": 0.2}, "learning_rate is 0.1 there and 0.2 here"),
        ({"seed": 5}, "seed is 4 there and 5 here"),
        ({"num_replicates": 4}, "num_replicates is 3 there and 4 here"),
        ({"grid": GRID | {"learning_rate": [0.02, 0.1, 0.4]}}, "values of learning_rate is"),
        ({"grid": {"learning_rate": [0.1]}}, "axes is"),
        ({"start": lambda target: start_of(target).replace(new_mean=1.0)}, "start.new_mean is"),
        ({"target": TARGET.replace(old_weight=0.3)}, "target.old_logit is"),
        ({"chosen": [objectives.sft(replay=0.2), objectives.sft()]}, "objectives is"),
        (
            {"chosen": [replace(objectives.sft(replay=0.3), name="sft:replay=0.2"), CHOSEN[1]]},
            "parts of the objectives",
        ),
        (
            {"chosen": [CHOSEN[0], replace(objectives.reverse_kl(estimator="pathwise"), name="reverse_kl")]},
            "parts of the objectives",
        ),
        ({"common_random_numbers": False}, "common_random_numbers is true there and false here"),
    ],
)
def test_a_sweep_of_other_settings_is_refused_and_kept(changes, sentence, whole, trained):
    before = numbers(whole)
    with pytest.raises(InputError, match="to be resumed; " + sentence.replace(".", r"\.")):
        run(whole, **changes)
    assert trained == []
    assert numbers(whole) == before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (objectives.oapl(group_size=2), objectives.oapl(group_size=4)),
        (objectives.oapl(group_size=4), objectives.oapl()),
        (objectives.oapl(beta1=0.5, beta2=0.5), objectives.oapl()),
        (objectives.reverse_kl(estimator="pathwise"), objectives.reverse_kl()),
        (objectives.sft(replay=0.2), objectives.sft(replay=0.3)),
        (objectives.sft(learner=TwoModeLearner(train_scales=True)), objectives.sft()),
        (objectives.sft(learner="single_mode"), objectives.sft()),
        (objectives.sdft(divergence="forward"), objectives.sdft()),
        (objectives.sdft(divergence=0.3), objectives.sdft(divergence=0.4)),
        (objectives.sdft(demonstrations=TARGET), objectives.sdft()),
        (objectives.sdft(demonstrations=TARGET), objectives.sdft(demonstrations=start_of(TARGET))),
        (objectives.ttt_discover(eta="adaptive"), objectives.ttt_discover()),
        (objectives.oapl(reward=lambda y: y[:, 0]), objectives.oapl(reward=lambda y: -y[:, 0])),
        (objectives.oapl(reward=lambda y: y[:, 0]), objectives.oapl(reward=lambda y: 2.0 * y[:, 0])),
    ],
)
def test_objectives_that_differ_in_any_part_have_fingerprints_that_differ(one, other):
    """Whatever they are called."""
    assert json.dumps(_fingerprint(one)) != json.dumps(_fingerprint(other))
    assert _fingerprint(one) == _fingerprint(replace(one, name="mine"))


@pytest.mark.slow
def test_the_identity_of_an_objective_is_the_same_in_another_process():
    code = (
        "import json; from inference.sweeps.identity import _fingerprint; "
        "from mixture_models import objectives; "
        "print(json.dumps([_fingerprint(objectives.parse(text)) for text in objectives.by_default()]))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = [_fingerprint(objectives.parse(text)) for text in objectives.by_default()]
    assert json.loads(other.stdout) == here
    assert "0x" not in other.stdout


def test_a_sweep_of_another_version_is_refused(whole, monkeypatch):
    original = versions.version_of
    monkeypatch.setattr(versions, "version_of", lambda name: "9.9" if name == "jax" else original(name))
    with pytest.raises(InputError, match=r'version of jax is ".*" there and "9.9" here'):
        run(whole)


def test_what_is_no_sweep_is_refused(tmp_path):
    (tmp_path / "file.zarr").write_text("precious")
    with pytest.raises(InputError, match="must be the store of a sweep; it is a file"):
        run(tmp_path / "file.zarr")
    (tmp_path / "folder.zarr").mkdir()
    with pytest.raises(InputError, match="must be the store of a sweep; it is something else"):
        run(tmp_path / "folder.zarr")
    with pytest.raises(InputError, match=r"the suffix of a sweep's store must be one of \.zarr"):
        run(tmp_path / "store.nc")
    with pytest.raises(InputError, match="must lie in an existing folder"):
        run(tmp_path / "nowhere" / "store.zarr")
    with pytest.raises(InputError, match="must be the store of a sweep"):
        open_sweep(tmp_path / "none.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.zarr", "folder.zarr"]
    assert (tmp_path / "file.zarr").read_text() == "precious"


def test_too_little_memory_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"memory must be at least \d+ MiB, .*; got 1 MiB"):
        run(tmp_path / "store.zarr", memory=2**20)
    with pytest.raises(InputError, match="at most one of workers and scheduler; got both"):
        run(tmp_path / "store.zarr", workers=2, scheduler="tcp://127.0.0.1:1")
    with pytest.raises(InputError, match="workers must be at least 1; got 0"):
        run(tmp_path / "store.zarr", workers=0)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_recorded_as_others_are(whole):
    tree = open_sweep(whole)
    assert tree.attrs["seed"] == 4
    stored = json.loads(tree.attrs["settings"])
    assert stored["grid"]["learning_rate"] == GRID["learning_rate"]
    assert stored["objectives"] == [objective.name for objective in CHOSEN]
    np.testing.assert_array_equal(tree["constant_data"]["target_new_mean"].squeeze(), [2.0, 3.5])


# The command


TOML = """
objectives = ["sft:replay=0.2", "reverse_kl"]
dimension = 1
num_steps = 9
batch_size = 8
num_replicates = 3
start_new_gap = 0.7
[grid]
start.old_weight = [0.2, 0.8]
"target.separation" = {first = 2.0, last = 8.0, count = 3, spacing = "log"}
"""


@pytest.fixture
def massdrift(monkeypatch, capsys, tmp_path):
    """Write a file, run the command on it, and return its exit code, output and error output."""

    def run(text, *arguments):
        file = tmp_path / "grid.toml"
        file.write_text(text)
        monkeypatch.setattr(sys, "argv", ["massdrift", "sweep", str(file), *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


def test_the_command_writes_a_store_and_resumes_it(massdrift, tmp_path, trained):
    store = tmp_path / "deep" / "mine.zarr"
    code, printed, words = massdrift(TOML, "--out", store)
    assert code == 0
    assert "retention" in printed
    assert "nan" not in printed.lower()
    assert re.search(r"at most \d+ MiB of memory in this process", words)
    tree = open_sweep(store)
    np.testing.assert_allclose(tree["final"]["target.separation"], [2.0, 4.0, 8.0])
    target = TwoMode.create(0.5, 0.0, 4.0)
    start = target.replace(old_weight=0.2, new_mean=3.3)
    settings = SETTINGS | {"seed": 0, "learning_rate": 0.05, "record_every": 3, "progress": False}
    single = train(CHOSEN, start, target, **settings)["final"].to_dataset()
    swept = tree["final"].to_dataset().sel({"start.old_weight": 0.2}).isel({"target.separation": 1})
    for name in single:
        np.testing.assert_allclose(swept[name], single[name], rtol=0.0, atol=1e-10)
    trained.clear()
    assert massdrift(TOML, "--out", store, "--quiet")[0] == 0
    assert trained == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("num_steps = ", "must be readable TOML"),
        ("temperature = 3", "may set objectives, .*, grid, learning_rate_factors; got temperature"),
        ("grid = 3", "grid must be a table; got 3"),
        (
            "[grid]\nlearning_rate = {count = 3}",
            "learning_rate must be a list, or have first, last, count and perhaps spacing",
        ),
        (
            "[grid]\nlearning_rate = {first = 0, last = 1, count = 3, spacing = 'log'}",
            "the first value of learning_rate must be greater than 0; got 0",
        ),
        (
            "[grid]\nlearning_rate = {first = 0.1, last = 1, count = 3, spacing = 'cubic'}",
            "the spacing of learning_rate must be one of linear, log; got 'cubic'",
        ),
        ("[grid]\ntarget.colour = [1]", "the field of target.colour must be one of"),
        ("[learning_rate_factors]\nnothing = 1.0", "learning_rate_factors must name params of the learner"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence_and_code_2(text, sentence, massdrift, tmp_path):
    code, printed, words = massdrift(text, "--out", tmp_path / "store.zarr")
    assert (code, printed) == (2, "")
    assert re.fullmatch(f"massdrift: .*{sentence}.*\n", words)
    assert not (tmp_path / "store.zarr").exists()


def test_a_full_disk_is_one_sentence_and_the_command_goes_on_later(massdrift, tmp_path, monkeypatch):
    def full_disk(self, grid, block, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(SweepStore, "write", full_disk)
        code, _, words = massdrift(TOML, "--out", tmp_path / "full.zarr", "--quiet")
    assert code == 1
    assert words == "massdrift: stopped: No space left on device; nothing was finished yet\n"
    assert massdrift(TOML, "--out", tmp_path / "full.zarr", "--quiet")[0] == 0
