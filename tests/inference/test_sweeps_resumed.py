"""A sweep loses nothing: neither what was stopped nor what was damaged, whatever the cores and the order."""

import shutil
import sys

import numpy as np
import pytest
import xarray as xr
from sweep_runs import GROUPS, committed, killed, numbers, run

import inference
from inference import open_sweep
from inference.engine import chunks
from inference.sweeps import run as engine
from inference.sweeps.store import SweepStore
from mixture_models import InputError


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
