"""Files that are damaged, empty, foreign or too large: read, or refused in one sentence with their name."""

import shutil
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import inference
from analyses.compare.settings import Settings
from inference import results
from inference.engine import memory
from inference.measurement.samples import inputs, sources
from inference.storage import reading
from mixture_models import InputError

KINDS = (".npz", ".npy", ".parquet", ".nc", ".zarr")

RNG = np.random.default_rng(0)
OLD, NEW = RNG.normal(size=(40, 3)), RNG.normal(size=(40, 3)) + 3.0
RUN = RNG.normal(size=(2, 30, 3))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Return a readable file of every kind."""
    folder = tmp_path_factory.mktemp("good")
    paths = {kind: folder / f"run{kind}" for kind in KINDS}
    np.savez(paths[".npz"], samples=RUN)
    np.save(paths[".npy"], RUN)
    frame = pd.DataFrame(RUN.reshape(-1, 3), columns=["0", "1", "2"]).assign(checkpoint=np.repeat([0, 1], 30))
    frame.to_parquet(paths[".parquet"])
    dataset = xr.Dataset({"samples": (("checkpoint", "sample", "feature"), RUN)})
    dataset.to_netcdf(paths[".nc"])
    dataset.to_zarr(paths[".zarr"], zarr_format=3, consolidated=False)
    return paths


def read_or_refused(path):
    """Read all of a run as a measurement does; return whether it was refused, in one sentence."""
    refused = None
    try:
        checked = inputs.check(path, OLD, NEW, drop_missing=True)
        for index in range(len(checked.samples.names)):
            assert all(np.isfinite(piece).all() for piece in checked.pieces(index))
    except InputError as error:
        refused = str(error)
    assert "\n" not in (refused or "")
    return refused


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_file_is_read(good, kind):
    assert read_or_refused(good[kind]) is None


def chunk_of(path):
    """Return what holds the numbers of a file or folder."""
    return path if path.is_file() else next(p for p in path.rglob("*") if p.is_file() and "/c/" in str(p))


@pytest.mark.parametrize(
    "contents", [b"", b"hello\n" * 9, bytes(4096), b"\x93NUMPY", b"PK\x03\x04" + bytes(99)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_something_else_is_refused_by_name(tmp_path, kind, contents):
    path = tmp_path / f"run{kind}"
    path.write_bytes(contents)
    assert path.name in read_or_refused(path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_there_and_an_empty_folder_are_refused_by_name(tmp_path, kind):
    path = tmp_path / f"run{kind}"
    assert f"there is no {path}" in read_or_refused(path)
    path.mkdir()
    assert read_or_refused(path)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_read_or_refused(good, tmp_path, kind, data):
    path = tmp_path / f"run{kind}"
    shutil.rmtree(path, ignore_errors=True)
    (shutil.copytree if good[kind].is_dir() else shutil.copy)(good[kind], path)
    parts = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    part = data.draw(st.sampled_from(parts))
    contents = bytearray(part.read_bytes())
    if data.draw(st.booleans()):
        contents = contents[: data.draw(st.integers(0, len(contents) - 1))]
    else:
        for place in data.draw(st.lists(st.integers(0, len(contents) - 1), max_size=8)):
            contents[place] = data.draw(st.integers(0, 255))
    part.write_bytes(bytes(contents))
    read_or_refused(path)


@pytest.mark.parametrize("kind", [".npz", ".npy", ".parquet", ".nc", ".zarr"])
def test_a_truncated_file_is_refused_by_name(good, tmp_path, kind):
    path = tmp_path / f"run{kind}"
    (shutil.copytree if good[kind].is_dir() else shutil.copy)(good[kind], path)
    part = chunk_of(path)
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    assert path.name in read_or_refused(path)


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_a_truncated_result_is_refused_by_name(tmp_path, suffix):
    final = xr.Dataset({"retention": (("chain", "draw"), RNG.uniform(size=(1, 50)))})
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"massdrift_layout": 1}), "/final": final})
    path = inference.save(tree, tmp_path / f"result{suffix}")
    assert "final" in results.open(path)
    parts = [path] if path.is_file() else [p for p in path.rglob("zarr.json")][:1]
    for part in parts:
        part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(InputError, match=rf"result{suffix} must be a massdrift result"):
        results.open(path)


def test_a_file_larger_than_the_memory_is_refused_before_it_is_read(good, tmp_path, monkeypatch):
    monkeypatch.setattr(reading.psutil, "virtual_memory", lambda: type("M", (), {"available": 1000})())
    for kind in (".npz", ".parquet"):
        assert "must fit into memory" in read_or_refused(good[kind])
    bomb = tmp_path / "bomb.npz"
    monkeypatch.undo()
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("samples.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (10**13, 3)}
        )
    assert bomb.name in read_or_refused(bomb)


@pytest.mark.parametrize(
    "contents", [b"", b"\xff\xfe", b"x = ", b"\0", b"x = " + b"[" * 3000, b"[grid]\ngrid = 1\n[grid]"]
)
def test_a_settings_file_is_read_or_refused(tmp_path, contents):
    path = tmp_path / "settings.toml"
    path.write_bytes(contents)
    if contents == b"":
        assert Settings.read(path) == Settings()
        return
    with pytest.raises(InputError, match=r"settings\.toml is not: [^\n]+$"):
        Settings.read(path)


@pytest.mark.slow
def test_a_damaged_kept_checkpoint_is_measured_again(tmp_path, monkeypatch):
    arguments = {"num_draws": 400, "keep": tmp_path / "keep", "progress": False}
    first = inference.measure(RUN[:1], OLD, NEW, **arguments)
    (kept,) = (tmp_path / "keep").glob("*.npz")
    kept.write_bytes(b"")
    again = inference.measure(RUN[:1], OLD, NEW, **arguments)
    np.testing.assert_array_equal(first["posterior"]["old_weight"], again["posterior"]["old_weight"])
    with np.load(kept) as whole:
        assert whole.files


def frame_of(array, **others):
    return pd.DataFrame(array.reshape(-1, 3), columns=list("abc")).assign(**others)


def embedded(lists, **others):
    return pd.DataFrame({"embedding": pd.Series(list(lists), dtype=object)}).assign(**others)


# Lists as they come: of a Python program, of NumPy, and of Arrow, of one length or of any.
LISTS = {
    "lists": lambda rows: embedded(row.tolist() for row in rows),
    "arrays": embedded,
    "single precision": lambda rows: embedded(row.astype("f4") for row in rows),
    **{
        name: lambda rows, kind=kind: pd.DataFrame(
            {"embedding": pd.array(rows.tolist(), dtype=pd.ArrowDtype(kind))}
        )
        for name, kind in {"arrow": pa.list_(pa.float64()), "arrow, fixed": pa.list_(pa.float64(), 3)}.items()
    },
}


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("stored", [True, False])
def test_a_column_of_embeddings_is_samples(tmp_path, kind, stored):
    """Labels are mixed, so that a checkpoint's rows lie apart."""
    labels = RNG.permuted(np.repeat(["a", "b"], 30))
    frame = LISTS[kind](RUN.reshape(-1, 3)).assign(checkpoint=labels)
    source = tmp_path / "run.parquet"
    frame.to_parquet(source)
    source = source if stored else frame
    checked = inputs.check(source, LISTS[kind](OLD), NEW, drop_missing=False)
    assert sorted(checked.samples.names) == ["a", "b"]
    assert checked.features == ["0", "1", "2"]
    rtol = 1e-6 if kind == "single precision" else 0.0
    np.testing.assert_allclose(checked.old, OLD, rtol=rtol)
    for index, name in enumerate(checked.samples.names):
        found = np.concatenate(list(checked.pieces(index)))
        np.testing.assert_allclose(found, RUN.reshape(-1, 3)[labels == name], rtol=rtol)


def test_embeddings_without_checkpoints_are_of_one_and_missing_ones_can_be_dropped(tmp_path):
    rows = [*RUN[0].tolist(), None, [1.0, None, 2.0]]
    table = pa.table({"embedding": pa.array(rows, pa.list_(pa.float64()))})
    pq.write_table(table, tmp_path / "run.parquet")
    with pytest.raises(InputError, match=r"dropped explicitly \(drop_missing\); 2 rows are not"):
        inputs.check(tmp_path / "run.parquet", OLD, NEW, drop_missing=False)
    checked = inputs.check(tmp_path / "run.parquet", OLD, NEW, drop_missing=True)
    assert checked.samples.names == [0]
    np.testing.assert_array_equal(np.concatenate(list(checked.pieces(0))), RUN[0])


def test_a_stored_index_is_no_feature(tmp_path):
    frame_of(RUN[0]).set_index(np.arange(30)[::-1]).to_parquet(tmp_path / "run.parquet")
    found = sources.samples_of("samples", tmp_path / "run.parquet")
    assert found.features == ["a", "b", "c"]
    np.testing.assert_array_equal(found.load(0), RUN[0])


def test_the_numbers_in_lists_count_in_the_size_of_a_file(tmp_path, monkeypatch):
    embedded(RUN[0]).to_parquet(tmp_path / "run.parquet")
    for free, refused in ((8 * 90 - 1, True), (8 * 90, False)):
        memory_now = type("M", (), {"available": free})
        monkeypatch.setattr(reading, "psutil", type("P", (), {"virtual_memory": memory_now}))
        assert ("must fit into memory" in (read_or_refused(tmp_path / "run.parquet") or "")) == refused


@pytest.mark.parametrize(
    ("samples", "old", "sentence"),
    [
        (
            embedded(RUN[0], prompt="x", id=1),
            OLD,
            "samples must have no column beside embedding, checkpoint and prompt; got id",
        ),
        (
            embedded([[1.0, 2.0], [3.0]]),
            OLD,
            "must be lists of as many numbers each, at least one; got 1 and 2",
        ),
        (embedded([[], []]), OLD, "must be lists of as many numbers each, at least one; got 0"),
        (embedded([None, None]), OLD, "must be lists of as many numbers each, at least one; got none"),
        (embedded(["[1.0, 2.0, 3.0]"]), OLD, r"must be lists of numbers; got '\[1\.0, 2\.0, 3\.0\]'"),
        (embedded([[True, 1.0, 2.0]]), OLD, "must be numeric, real numbers"),
        (embedded([["x", "y", "z"]]), OLD, "must be numeric, real numbers"),
        (embedded([[[1.0], [2.0], [3.0]]]), OLD, r"must be lists of numbers; got shape \(3, 1\)"),
        (embedded(RUN[0][:, :2]), OLD, "samples and references must have the same features"),
        (
            embedded(RUN[0]).rename(columns={"embedding": "vector"}),
            OLD,
            "or a column embedding of lists and, optionally, a column checkpoint; not numeric: vector",
        ),
        (frame_of(RUN, d=1.0), frame_of(OLD), "the same features; 'd' only in samples"),
        (frame_of(RUN, d=1.0), OLD, r"samples has 4 \(a, b, c, d\) and old_reference 3"),
        (
            frame_of(RUN, checkpoint=pd.array([1, None] * 30, "Int64")),
            OLD,
            "name the checkpoint of every row",
        ),
        (
            pd.DataFrame(RUN[0], columns=["a", "a", "b"]),
            OLD,
            "the columns of samples must differ; got a twice",
        ),
        ({"samples": RUN, "features": ["a", "b"]}, OLD, "the 3 features of samples must have a name each"),
        ({"samples": RUN, "checkpoint": ["x", "x"]}, OLD, "must have different names; got x twice"),
        ({"samples": RUN, "checkpoint": 3}, OLD, "1 checkpoints"),
        ({"samples": RUN[0], "checkpoint": np.zeros((30, 2))}, OLD, "must have one axis"),
        ({"samples": None}, OLD, "must be numeric, .*; got objects that are not: None"),
        (RUN, {"a": OLD, "b": OLD[:, :2]}, r"as many features each; got \[2, 3\]"),
        ([[[1, 2], [3]]], OLD, "rows of several lengths"),
        (np.zeros((0, 5, 3)), OLD, "at least one checkpoint"),
        # Copies of rows count once; of features with few values the different rows must be enough.
        (RUN, np.tile(OLD[:3], (20, 1)), "the old reference must have at least 5 samples; got 3"),
        (RUN, np.tile(np.eye(3), (20, 1)), "at least 10 different samples for 3 features; got 3 different"),
        (RUN * 1e200, OLD, "at most 1e\\+100 in size"),
        (RUN, OLD * [1.0, 1.0, 1e200], "units in which they range"),
        (RUN, OLD * 1e-200, "units in which they range"),
    ],
)
def test_samples_that_cannot_be_measured_say_why(samples, old, sentence):
    new = frame_of(NEW) if isinstance(old, pd.DataFrame) else NEW
    with pytest.raises(InputError, match=sentence):
        inputs.check(samples, old, new, drop_missing=False)


def test_nullable_columns_are_numbers_with_missing_values():
    column = pd.array([1.5, None, 2.5] * 20, "Float64")
    checked = inputs.check(frame_of(RUN, a=column), OLD, NEW, drop_missing=True)
    assert checked.num_dropped == 20
    (piece,) = checked.pieces(0)
    np.testing.assert_array_equal(np.unique(piece[:, 0]), [1.5, 2.5])


@pytest.mark.parametrize(
    ("samples", "old", "sentence"),
    [
        (np.zeros((1, 30, 3)), OLD, "checkpoint 0 cannot be measured .* spread 0 to 0 times as wide"),
        (RUN[:1], np.c_[OLD[:, :2], OLD[:, 1]], "in the old reference the features must not be linear"),
    ],
)
def test_what_is_found_degenerate_later_is_one_sentence(samples, old, sentence):
    with pytest.raises(InputError, match=sentence):
        inference.measure(samples, old, NEW, num_draws=400, progress=False)


def test_units_do_not_matter():
    """The widest that are taken give the weight of ordinary ones."""
    weights = [
        inference.measure(RUN[:1] * unit, OLD * unit, NEW * unit, num_draws=400, progress=False)["posterior"][
            "old_weight"
        ].mean()
        for unit in (1.0, 1e-98, 1e98)
    ]
    np.testing.assert_allclose(weights, weights[0], rtol=1e-4)


def test_free_memory_is_what_a_training_is_held_against(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: 1e9)
    memory.check_fits("this", 0.9e9, "take less")
    with pytest.raises(InputError, match=r"this must fit .*; it takes 1\.1 GB and 1 GB are free: take less"):
        memory.check_fits("this", 1.1e9, "take less")
