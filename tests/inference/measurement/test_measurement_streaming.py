"""Checkpoints larger than memory: the numbers of those that are held, in few passes and little memory."""

import os
import subprocess
import sys
from itertools import chain

import dask.array as da
import jax
import numpy as np
import pytest
import xarray as xr
import zarr

from inference import measure
from inference.measurement import checkpoints
from inference.measurement.posterior import climb, laplace, law, nuts, pieces
from inference.measurement.samples import inputs, sources, stored
from inference.measurement.verdict import words as verdict
from mixture_models import InputError

QUIET = {
    "progress": False,
    "covariance": "shared",
    "tails": "gaussian",
    "method": "laplace",
    "num_draws": 200,
}

# More than a chunk of the stored samples below, and less than a checkpoint.
MEMORY = 8e5


def simulated(num, weight, d=3, moved=0.2, seed=0):
    """Return samples of two modes 4 apart, the old one moved along the second coordinate."""
    rng = np.random.default_rng(seed)
    mean = np.zeros((2, d))
    mean[0, 1], mean[1, 0] = moved, 4.0
    return rng.normal(size=(num, d)) + mean[np.where(rng.uniform(size=num) < weight, 0, 1)]


@pytest.fixture(scope="module")
def references():
    return simulated(400, 1.0, moved=0.0), simulated(400, 0.0, seed=1)


@pytest.fixture
def small_pieces(monkeypatch):
    """Cut 20,000 samples into three pieces, each put together from several readings."""
    monkeypatch.setattr(pieces, "_NUMBERS", 1)
    monkeypatch.setattr(stored, "_NUMBERS", 9_000)


@pytest.fixture
def readings(monkeypatch):
    """Count how often a checkpoint is read."""
    real, count = stored.Stored.pieces, []

    def counted(self):
        count.append(self.name)
        yield from real(self)

    monkeypatch.setattr(stored.Stored, "pieces", counted)
    return count


def written(kind, folder, y):
    """Return a source of two checkpoints, the second with the fewer rows of ``y``, in chunks that cut it."""
    short = y[: len(y) // 3]
    both = np.full((2, *y.shape), np.nan)
    both[0], both[1, : len(short)] = y, short
    dims = ("checkpoint", "sample", "feature")
    array = xr.DataArray(both, dims=dims, name="samples")
    if kind == "npy":
        np.save(folder / "run.npy", both[:1])
        return folder / "run.npy"
    if kind == "zarr":
        array.to_dataset().chunk(sample=4_100, feature=2, checkpoint=2).to_zarr(
            folder / "run.zarr", consolidated=False, zarr_format=3
        )
        return folder / "run.zarr"
    if kind == "nc":
        encoding = {"samples": {"chunksizes": (1, 3_000, y.shape[1])}}
        array.transpose("sample", "checkpoint", "feature").transpose(*dims).to_netcdf(
            folder / "run.nc", encoding=encoding
        )
        return folder / "run.nc"
    if kind == "labelled rows":
        # Rows of both checkpoints in turn, as long as the second has any, turned on their side.
        labels = np.r_[np.tile([7, 3], len(short)), np.full(len(y) - len(short), 7)]
        rows = np.empty((len(labels), y.shape[1]))
        rows[labels == 7], rows[labels == 3] = y, short
        one = xr.DataArray(
            rows.T, dims=dims[:0:-1], coords={"checkpoint": ("sample", labels)}, name="samples"
        )
        one.chunk(sample=2_500).to_dataset().to_zarr(folder / "rows.zarr", consolidated=False, zarr_format=3)
        return folder / "rows.zarr"
    if kind == "dask":
        third = (len(y) - 1_000) // 3
        return da.from_array(both, chunks=(2, (1_000, third, third, len(y) - 1_000 - 2 * third), 2))[:1]
    if kind == "labelled dask":
        return array.chunk(sample=3_333)
    if kind == "list of dask":
        return [da.from_array(a, chunks=(2_000, 1)) for a in (y, short)]
    store = zarr.create_array(folder / "bare.zarr", shape=both[:1].shape, chunks=(1, 4_096, 2), dtype="f8")
    store[:] = both[:1]
    return store


SOURCES = ["npy", "zarr", "nc", "labelled rows", "dask", "labelled dask", "list of dask", "zarr array"]


@pytest.mark.parametrize("kind", SOURCES)
def test_pieces_of_every_source_are_its_rows(kind, tmp_path, monkeypatch):
    y = simulated(10_000, 0.5)
    source = sources.samples_of("samples", written(kind, tmp_path, y))
    for most in (3 * 700, 3 * 5_000, 1 << 20):
        monkeypatch.setattr(stored, "_NUMBERS", most)
        for index, expected in enumerate([y, y[: len(y) // 3]][: len(source.names)]):
            found = list(source.pieces(index, ["0", "1", "2"]))
            assert max(map(len, found)) <= most // 3
            np.testing.assert_array_equal(np.concatenate(found), expected)
            np.testing.assert_array_equal(source.load(index), expected)


class Recorded:
    """An array in chunks that records which of its chunks a reading takes."""

    ndim, dtype = 2, np.dtype(np.float64)

    def __init__(self, values, length):
        self.values, self.shape, self.chunks = values, values.shape, (length, 2)
        self.taken, self.most = [], 0

    def __getitem__(self, at):
        rows = np.arange(self.shape[0])[at[0]]
        self.taken.append(list(dict.fromkeys((rows // self.chunks[0]).tolist())))
        self.most = max(self.most, len(rows))
        return self.values[at]


@pytest.mark.parametrize(("length", "most"), [(100, 250), (100, 1000), (700, 250)])
def test_each_chunk_is_read_once_and_never_more_than_needed(length, most, monkeypatch):
    monkeypatch.setattr(stored, "_NUMBERS", 2 * most)
    recorded = Recorded(np.arange(3300.0).reshape(-1, 2), length)
    rows = stored.of_array("it", recorded)
    assert rows.chunk_bytes == 16 * length
    assert sum(map(len, rows.pieces())) == 1650
    assert [*chain(*recorded.taken)] == [*range(-(-1650 // length))]
    assert max(0.7 * most, length) <= recorded.most <= max(most, length)
    recorded.taken.clear()
    # Every third row, as of one checkpoint among several: the chunks are cut where they end.
    places = np.arange(50, 1650, 3)
    found = np.concatenate(list(rows.picked("some", places).pieces()))
    np.testing.assert_array_equal(found, recorded.values[places])
    assert [*chain(*recorded.taken)] == [*range(-(-1650 // length))]


def test_some_rows_are_taken_in_the_order_they_are_asked_for():
    y = np.random.default_rng(0).normal(size=(1000, 2))
    places = np.random.default_rng(1).choice(1000, 300)
    np.testing.assert_array_equal(stored.take(np.split(y, [1, 400, 400, 999]), places), y[places])


def test_one_reading_has_moments_and_a_digest_of_all_finite_rows(references, monkeypatch):
    y = 1e3 + simulated(5_000, 0.3)
    y[::7, 1] = np.nan
    finite = y[np.isfinite(y).all(axis=1)]
    found = []
    for most in (3 * 999, 3 * 5_000):
        monkeypatch.setattr(stored, "_NUMBERS", most)
        checked = inputs.check(y, *references, drop_missing=True)
        (summary,) = checked.summaries
        assert (summary.num, summary.num_dropped, checked.num_dropped) == (len(finite), 715, 715)
        np.testing.assert_allclose(summary.mean, finite.mean(0), rtol=1e-13)
        np.testing.assert_allclose(summary.sd, finite.std(0), rtol=1e-11)
        found.append(summary.digest)
    y[4_999, 2] += 1e-12 * y[4_999, 2]
    found.append(inputs.check(y, *references, drop_missing=True).summaries[0].digest)
    assert found[0] == found[1] != found[2]


def assert_same(streamed, held):
    """Compare all that is measured; k-hat and the like are differences of sums over all samples."""
    assert set(streamed["sample_stats"]["streamed"].values) == {1}
    assert set(held["sample_stats"]["streamed"].values) == {0}
    for name, group in held.children.items():
        for variable, values in group.to_dataset().data_vars.items():
            found = streamed[name][variable].values
            if variable == "streamed":
                continue
            if values.dtype.kind in "fi":
                loose = variable in ("k_hat", "efficiency")
                scale = np.nanmax(np.abs(values)) if values.notnull().any() else 0.0
                np.testing.assert_allclose(
                    found, values, rtol=0.0, atol=(1e-5 if loose else 1e-9) * scale, err_msg=variable
                )
            else:
                np.testing.assert_array_equal(found, values, err_msg=variable)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("zarr array", {"num_log_likelihood_rows": 40}),
        pytest.param("zarr", {}, marks=pytest.mark.slow),
        pytest.param("npy", {"tails": "student"}, marks=pytest.mark.slow),
        pytest.param("labelled dask", {"neither": True, "covariance": "unequal"}, marks=pytest.mark.slow),
        pytest.param("dask", {"max_features": 2}, marks=pytest.mark.slow),
        pytest.param("labelled rows", {}, marks=pytest.mark.slow),
        pytest.param("nc", {}, marks=pytest.mark.slow),
    ],
)
def test_streamed_numbers_are_those_in_memory(kind, settings, tmp_path, references, small_pieces):
    y = simulated(20_000, 0.4, seed=2)
    y[np.random.default_rng(3).choice(len(y), 1_500, replace=False), 1] = np.nan
    settings = QUIET | {"drop_missing": True} | settings
    source = written(kind, tmp_path, y)
    streamed = measure(source, *references, memory=5e5, **settings)
    assert_same(streamed, measure(source, *references, **settings))
    assert streamed["sample_stats"]["num_samples"].values[0] == 18_500
    weight = streamed["posterior"]["old_weight"].isel(checkpoint=0)
    assert abs(float(weight.mean()) - 0.4) < 5.0 * float(weight.std())


def test_sums_over_pieces_are_those_of_all_rows(small_pieces):
    """What fills the last piece weighs nothing, and no sample is left out, whatever their number."""
    for num in (8_192, 8_193, 20_000):
        y = simulated(num, 0.4)
        arrays = np.split(y, [5, 3_000, 3_000])
        found = pieces.pieces_of(lambda arrays=arrays: arrays, num, 3, streamed=True)
        shapes = {piece.y.shape for piece in found}
        assert shapes == {(8, 1024, 3)}
        np.testing.assert_allclose(
            pieces.total(lambda piece: np.einsum("br,brd->d", piece.weights, piece.y), found), y.sum(0)
        )
        whole = law.rows_of(y)
        for of in (
            lambda rows: rows.weights.sum(),
            lambda rows: (rows.weights[..., None] * rows.y**2).sum(),
        ):
            with jax.enable_x64(True):
                assert pieces.total(of, found) == pytest.approx(of(whole), rel=1e-12)
        np.testing.assert_array_equal(
            np.concatenate(list(pieces.sample_arrays(found)))[:num], whole.y.reshape(-1, 3)[:num]
        )


def test_nothing_is_compiled_for_a_piece_and_passes_are_few(references, small_pieces, compilations, readings):
    settings = QUIET | {"memory": MEMORY}
    measure(simulated(20_000, 0.4), *references, **settings)
    # One to check; the start, which reads the first piece alone; the climb; draws and predictive check.
    assert len(readings) <= 1 + 1 + 7 + 2
    readings.clear()
    # Six pieces instead of three.
    assert compilations(lambda: measure(simulated(45_000, 0.4), *references, **settings)) == []


def test_a_finished_checkpoint_is_read_once_to_know_it(
    references, tmp_path, small_pieces, readings, monkeypatch
):
    y = simulated(20_000, 0.4)
    settings = QUIET | {"memory": MEMORY, "keep": tmp_path / "kept"}
    first = measure([y], *references, **settings)
    readings.clear()
    monkeypatch.setattr(checkpoints, "measure_checkpoint", lambda *_: pytest.fail("measured again"))
    again = measure([y], *references, **settings)
    assert readings == ["checkpoint 0"]
    xr.testing.assert_identical(again["posterior"].to_dataset(), first["posterior"].to_dataset())


@pytest.mark.slow
def test_a_streamed_checkpoint_never_goes_to_nuts(references, small_pieces, monkeypatch):
    monkeypatch.setattr(laplace, "MOST_K_HAT", -5.0)
    monkeypatch.setattr(verdict, "MOST_K_HAT", -5.0)
    monkeypatch.setattr(nuts, "sample", lambda *_, **__: pytest.fail("NUTS"))
    y = simulated(20_000, 0.4)
    stats = measure(y, *references, memory=MEMORY, **QUIET | {"method": "auto"})["sample_stats"]
    assert stats["method"].item() == "laplace"
    words = stats["words"].item()
    assert words.startswith("not to be trusted")
    assert "and the samples take more memory than NUTS may have" in words


def test_what_cannot_be_streamed_is_refused_in_one_sentence(references, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "measure_checkpoint", lambda *_: pytest.fail("computed"))
    y = simulated(20_000, 0.4)
    path = written("zarr", tmp_path, y)
    for source, settings, message in (
        (
            y,
            {"method": "nuts", "memory": MEMORY},
            "must fit into memory for NUTS.* checkpoint 0 takes 0.0024 GB",
        ),
        (
            path,
            {"memory": 1e5},
            "chunks that fit into memory twice; a chunk of checkpoint 0 takes 0.00013 GB",
        ),
        (y, {"memory": 0.0}, "memory must be"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            measure(source, *references, **QUIET | settings)
        assert "\n" not in str(raised.value)
    monkeypatch.setattr(stored, "default_memory", lambda: 1e4)
    with pytest.raises(InputError, match="must fit into memory twice; they take"):
        measure(y, *references, **QUIET)


def test_samples_that_change_while_they_are_measured_are_refused(references, small_pieces, monkeypatch):
    y = simulated(20_000, 0.4)
    find_mode = climb.find_mode

    def changing(*arguments, **settings):
        y[7] = np.nan
        return find_mode(*arguments, **settings)

    monkeypatch.setattr(climb, "find_mode", changing)
    with pytest.raises(InputError, match="had 20000 finite ones and now has 19999"):
        measure(y, *references, memory=MEMORY, **QUIET)


PEAK = """
import sys
import numpy as np
from inference import measure
from inference.engine.memory import peak

run, old, new, memory = sys.argv[1:]
tree = measure(run, old, new, memory=float(memory), progress=False, covariance="shared", tails="gaussian",
               method="laplace", num_draws=100)
print(int(tree["sample_stats"]["streamed"][0]), peak())
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_a_streamed_checkpoint(tmp_path):
    """256 MB of samples take at most 128 MB more than a tenth of them; held, they take all of it at least."""
    d = 16
    old, new = (simulated(1_000, w, d, moved=0.0, seed=i) for i, w in enumerate((1.0, 0.0)))
    np.save(tmp_path / "old.npy", old)
    np.save(tmp_path / "new.npy", new)
    peaks = []
    for num, memory in ((200_000, 48e6), (2_000_000, 48e6), (2_000_000, 1e10)):
        path = tmp_path / f"{num}.zarr"
        if not path.exists():
            group = zarr.open_group(path, mode="w", zarr_format=3)
            array = group.create_array(
                "samples",
                shape=(1, num, d),
                chunks=(1, 50_000, d),
                dtype="f8",
                dimension_names=("checkpoint", "sample", "feature"),
            )
            for start in range(0, num, 50_000):
                array[0, start : start + 50_000] = simulated(50_000, 0.4, d, seed=start)
        command = [path, tmp_path / "old.npy", tmp_path / "new.npy", memory]
        # What compiling takes must be in all of them.
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *map(str, command)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        )
        streamed, peak = map(int, done.stdout.split())
        assert streamed == (memory < 1e10)
        peaks.append(peak)
    print([f"{peak / 1e6:.0f} MB" for peak in peaks])
    assert peaks[1] - peaks[0] < 128e6
    assert peaks[2] - peaks[0] > 256e6
