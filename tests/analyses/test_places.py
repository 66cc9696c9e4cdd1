"""Where results are written: what is refused before anything is computed, and that no one loses a file."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import analyses
import inference
from analyses.core import outputs
from inference import results
from inference.storage import files, kept
from mixture_models import InputError

COMMANDS = {
    "compare": ["sft", "--num-steps=4", "--batch-size=8", "--num-replicates=4"],
    "mass-forgetting": ["4"],
    "drift": [],
    "geometry": ["4"],
    "replay": [],
    "near-on-policy": [],
    "plan": [],
    "phase": [],
    "reproduce": ["chen2025"],
    "measure": ["a.npz", "--old-reference=b.npz", "--new-reference=c.npz"],
    "measure-scores": ["a.csv"],
    "compare-runs": ["a", "b"],
}


@pytest.fixture
def nothing_computed(monkeypatch):
    for module in ("compare", "mass_forgetting", "drift", "geometry", "replay", "near_on_policy", "plan"):
        stub(monkeypatch, module)
    for module in ("phase", "chen2025", "measure", "measure_scores", "compare_runs", "sweep"):
        stub(monkeypatch, module)


def stub(monkeypatch, module):
    monkeypatch.setattr(getattr(analyses, module), "run", lambda *a, **k: pytest.fail("computed first"))


def refused(massdrift, command, *options):
    code, printed, error = massdrift(command, *COMMANDS.get(command, []), *options)
    assert code == 2, error
    assert printed == ""
    assert error.startswith("massdrift: ")
    assert len(error.strip().splitlines()) == 1
    return error


def earlier(path, name="figure.png"):
    """Write what a command leaves."""
    tree = xr.DataTree(xr.Dataset({"x": ("n", np.arange(3.0))}, attrs={"massdrift_layout": 1}))
    with outputs.folder(path, overwrite=True) as folder:
        results.save(tree, folder / "results.zarr")
        (folder / "summary.csv").write_text("a\n1\n")
        (folder / name).write_bytes(b"picture")
    return path


def contents(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_checks_its_place_before_it_computes(massdrift, tmp_path, nothing_computed, command):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file" / "x", tmp_path / "file" / "x" / "y", Path("/proc/x"), Path("/dev/null/x")):
        assert "must lie in a folder that can be written to" in refused(massdrift, command, "--out", out)
    long = tmp_path / ("n" * 300)
    assert "File name too long" in refused(massdrift, command, "--out", long)
    refused(massdrift, command, "--out", tmp_path / "file", "--overwrite")
    refused(massdrift, command, "--out", tmp_path, "--overwrite")
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("command", ["sweep", "digits"])
def test_commands_that_resume_check_their_place_too(massdrift, tmp_path, command):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "grid.toml").write_text("[grid]\nbatch_size = [2, 4]\n")
    grid = [tmp_path / "grid.toml"] if command == "sweep" else ["--quick"]
    for out in (tmp_path / "file" / "x.zarr", Path("/proc/x.zarr"), Path("/sys/x/y.zarr")):
        assert "must lie in a folder that can be written to" in refused(
            massdrift, command, *grid, "--out", out
        )
    assert set(contents(tmp_path)) == {"file", "grid.toml"}


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_folder_that_cannot_be_written_to_is_refused(
    massdrift, tmp_path, nothing_computed, monkeypatch, number
):
    def failing(*args, **kwargs):
        raise OSError(number, "as the system says")

    # A full disk takes a folder, and fails at the contents.
    monkeypatch.setattr(Path, "write_bytes" if number == errno.ENOSPC else "mkdir", failing)
    error = refused(massdrift, "compare", "--out", tmp_path / "deep" / "out")
    monkeypatch.undo()
    assert error.endswith("can be written to: as the system says\n")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_at_the_end_is_one_sentence(massdrift, tmp_path, monkeypatch):
    earlier(tmp_path / "out")
    before = contents(tmp_path)
    # The trainings alone: neither exact side nor figures.
    monkeypatch.setattr("analyses.compare.compare.has_exact", lambda *a: False)
    monkeypatch.setattr("analyses.compare.plot", lambda tree: {})

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "results.zarr")

    options = ["--quiet", "--overwrite", "--out", tmp_path / "out"]
    with monkeypatch.context() as patch:
        patch.setattr(xr.DataTree, "to_zarr", full)
        code, _, error = massdrift("compare", *COMMANDS["compare"], *options)
    assert code == 1
    assert error.startswith("massdrift: stopped: No space left on device: results.zarr; what was finished is")
    assert len(error.strip().splitlines()) == 1
    left = {name: b for name, b in contents(tmp_path).items() if not name.startswith(".out.massdrift-kept")}
    assert left == before
    assert massdrift("compare", *COMMANDS["compare"], *options)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


FOREIGN = [
    "note.txt",
    "results.zarr/note.txt",
    "results.zarr/x/note.txt",
    "results.zarr/x/c/note.txt",
    "results.zarr/mine/data.bin",
    "figures/mine.png",
    ".hidden",
    "results.nc",
    "old_weight.png",  # of another command, which did not write here
]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_folder_that_holds_anything_else_is_not_overwritten(massdrift, tmp_path, nothing_computed, name):
    out = earlier(tmp_path / "out")
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("years of work")
    before = contents(out)
    error = refused(massdrift, "compare", "--out", out, "--overwrite")
    assert "must be an earlier result, and nothing else, to be overwritten; it also holds" in error
    assert contents(out) == before


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_foreign_file_is_called_it_stays(tmp_path, name):
    ours = {"results.zarr", "summary.csv", "settings.toml", "figure.png", ".DS_Store", "Thumbs.db"}
    if name in {".", "..", *ours}:
        return
    out = earlier(tmp_path / "out")
    (out / name).write_text("mine")
    with pytest.raises(InputError, match="it also holds"):
        outputs.check(out, overwrite=True)
    assert (out / name).read_text() == "mine"
    shutil.rmtree(out)


@pytest.mark.parametrize("fake", ["empty", "file", "foreign zarr", "garbage"])
def test_a_fake_result_is_not_overwritten(tmp_path, fake):
    out = tmp_path / "out"
    out.mkdir()
    store = out / "results.zarr"
    if fake == "file":
        store.write_text("mine")
    elif fake == "foreign zarr":
        xr.Dataset({"x": 1.0}).to_zarr(store, zarr_format=3, consolidated=False)
    else:
        store.mkdir()
        if fake == "garbage":
            (store / "zarr.json").write_text("{")
    before = contents(out)
    with pytest.raises(InputError, match="must be an earlier result"):
        outputs.check(out, overwrite=True)
    assert contents(out) == before


def test_an_earlier_result_is_replaced_and_a_finder_s_file_is_not_in_the_way(tmp_path):
    out = earlier(tmp_path / "out", "first.png")
    (out / ".DS_Store").write_bytes(b"")
    with pytest.raises(InputError, match="must not exist yet"):
        outputs.check(out, overwrite=False)
    earlier(out, "second.png")
    assert {path.name for path in out.iterdir()} == {"results.zarr", "summary.csv", "second.png"}
    assert list(tmp_path.iterdir()) == [out]
    assert inference.open(out / "results.zarr").attrs["massdrift_layout"] == 1


@pytest.mark.parametrize("name", ["out", "αβγ δ", "a" * 255, "é" * 120, ".hidden", "-x", "a.zarr"])
def test_names_and_empty_folders(tmp_path, name):
    for place in (tmp_path / name, tmp_path / "deep" / "er" / name):
        earlier(place)
        shutil.rmtree(place)
        place.mkdir()  # an empty folder is as good as none
        earlier(place)
        assert (place / "results.zarr").is_dir()
        assert list(place.parent.iterdir()) in ([place], sorted([place, tmp_path / "deep"]), [place])


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "real")
    for _ in range(2):
        earlier(tmp_path / "out")
        assert (tmp_path / "out").is_symlink()
        assert [p.name for p in (tmp_path / "disk").iterdir()] == ["real"]
    (tmp_path / "disk" / "real" / "note").symlink_to(tmp_path / "disk")
    with pytest.raises(InputError, match="it also holds note"):
        outputs.check(tmp_path / "out", overwrite=True)


def test_the_folder_one_is_in_is_not_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in (Path("."), tmp_path):
        with pytest.raises(InputError, match="the folder that you are in"):
            outputs.check(out, overwrite=False)


def test_what_comes_while_it_is_computed_is_not_overwritten(tmp_path):
    out = tmp_path / "out"

    def computed():
        with outputs.folder(out, overwrite=False):
            out.mkdir()
            (out / "note").write_text("mine")

    with pytest.raises(InputError, match="must not exist yet"):
        computed()
    assert contents(tmp_path) == {"out/note": b"mine"}


def test_an_earlier_result_comes_back_where_it_cannot_be_replaced(tmp_path, monkeypatch):
    out = earlier(tmp_path / "out")
    before, rename = contents(tmp_path), Path.rename

    def interrupted(self, target):
        if Path(target) == out and self.name == "part":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        earlier(out)
    assert contents(tmp_path) == before


KILLED = """
import os, sys
from pathlib import Path
from analyses.core import outputs
from inference.storage import files
out = Path(sys.argv[1])
with outputs.folder(out, overwrite=True) as part, files.whole_file(out.parent / "store" / "0") as partial:
    (part / "half").write_text("half")
    partial.write_text("half")
    if sys.argv[2] == "moving":
        out.rename(part.with_name("earlier"))
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("when", ["computing", "moving"])
def test_what_a_killed_process_left_is_cleaned_by_the_next(tmp_path, when):
    out = earlier(tmp_path / "out")
    before = contents(out)
    (tmp_path / "store").mkdir()
    (tmp_path / ".out.massdrift-mine").write_text("not ours by its name's form")
    subprocess.run([sys.executable, "-c", KILLED, str(out), when], check=False)
    assert len(list(tmp_path.glob(".out.massdrift-*"))) == 2
    assert len(list((tmp_path / "store").iterdir())) == 1
    outputs.check(out, overwrite=True)
    files.clean_within(tmp_path / "store")
    assert contents(out) == before
    assert {p.name for p in tmp_path.iterdir()} == {"out", "store", ".out.massdrift-mine"}
    assert list((tmp_path / "store").iterdir()) == []


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    out = tmp_path / "out"
    with files.folder_beside(out) as folder:
        files.clean_beside(out)
        outputs.check(out, overwrite=False)
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_save_replaces_nothing_but_results(tmp_path):
    tree = xr.DataTree(xr.Dataset({"x": 1.0}, attrs={"massdrift_layout": 1}))
    for name in ("a.zarr", "a.nc"):
        path = inference.save(tree, tmp_path / name)
        inference.save(tree, path, overwrite=True)
    (tmp_path / "a.zarr" / "note.txt").write_text("mine")
    xr.Dataset({"x": 1.0}).to_netcdf(tmp_path / "b.nc")
    (tmp_path / "c.nc").write_text("mine")
    (tmp_path / "d.nc").mkdir()
    (tmp_path / "d.nc" / "note").write_text("mine")
    before = contents(tmp_path)
    for name in ("a.zarr", "b.nc", "c.nc", "d.nc"):
        with pytest.raises(InputError, match="must be an earlier result"):
            inference.save(tree, tmp_path / name, overwrite=True)
    for path in ("/proc/x.nc", "/proc/x.zarr"):
        with pytest.raises(InputError, match="can be written to"):
            inference.save(tree, path)
    assert contents(tmp_path) == before


# Finished parts


def test_parts_are_found_by_what_determines_them(tmp_path):
    calls = []

    def part(*facts):
        def compute():
            calls.append(facts)
            return {"x": np.arange(3.0), "n": np.asarray(2)}

        return kept.arrays(facts, compute, folder=tmp_path)

    first = part(1, np.zeros(2))
    again = part(1, np.zeros(2))
    assert len(calls) == 1
    np.testing.assert_array_equal(first["x"], again["x"])
    part(1, np.ones(2))
    part(1, np.zeros(2, np.float32))
    part(2, np.zeros(2))
    assert len(calls) == 4
    for path in tmp_path.iterdir():  # damaged, they are computed again
        path.write_bytes(path.read_bytes()[:-30])
    part(1, np.zeros(2))
    assert len(calls) == 5
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    part(1, np.zeros(2))
    assert len(calls) == 6


def test_the_list_of_what_was_written_is_in_the_result(tmp_path):
    out = earlier(tmp_path / "out")
    assert json.loads(inference.open(out / "results.zarr").attrs["written_beside"]) == [
        "figure.png",
        "summary.csv",
    ]
