"""The layout of a sweep's store: every array, coordinate and attribute, with nothing trained yet."""

import json
import warnings
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
import zarr.storage
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import Buffer

from inference import results
from inference.sweeps.blocks import variables
from inference.sweeps.cuts import Geometry
from inference.sweeps.grid import Grid, attributes
from inference.sweeps.identity import identity

#: Fill of ``diverged_step`` where nothing was trained yet.
NOT_TRAINED = -2

#: The array of the checksums of every block's files.
COMMITS = "commits/checksum"

#: The array of the first steps that are not finite.
STATS = "trajectory_stats/diverged_step"

_FEATURES = ("feature", "feature_bis")

#: What makes a chunk's file of its bytes: trajectories compress little, but their leading bytes do, and fast.
CODECS = [BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"), Crc32cCodec()]


def empty(grid: Grid, cut: Geometry) -> dict[str, bytes]:
    """Return the files of a store in which nothing is trained, by path."""
    shapes = variables(grid)
    objective = results.objective_coords(grid.objectives)
    axes = {name: (name, values, attributes(name)) for name, values in grid.axes.items()}
    shared = objective | axes | {"chain": [0], "draw": np.arange(grid.num_replicates)}
    per_axis = dict(zip(grid.axes, cut.block, strict=True))
    of_steps = [name for name in grid.axes if name != "num_steps"]
    sizes = dict(zip(grid.axes, grid.shape, strict=True)) | {
        "objective": len(grid.objectives),
        "chain": 1,
        "draw": grid.num_replicates,
        "step": len(grid.steps),
    }
    chunk = per_axis | {"objective": 1, "chain": 1, "draw": cut.replicates, "step": len(grid.steps)}
    leading = ["objective", *of_steps, "chain", "draw", "step"]
    at_end = ["objective", *grid.axes, "chain", "draw"]
    dims: dict[str, tuple[list[str], tuple[int, ...]]] = {}
    for name, event in shapes.items():
        dims[f"trajectory/{name}"] = leading, event
        dims[f"final/{name}"] = at_end, event
    dims[STATS] = at_end, ()
    features = {
        dim: np.arange(max(event[k] for event in shapes.values() if len(event) > k))
        for k, dim in enumerate(_FEATURES)
        if any(len(event) > k for event in shapes.values())
    }
    counts = {
        f"{name}.block": (
            f"{name}.block",
            np.arange(-(-sizes[name] // chunk[name])),
            {"long_name": f"number of the block along {name}", "units": "1"},
        )
        for name in ("objective", *grid.axes, "draw")
    }
    groups = {
        "trajectory": xr.Dataset(
            coords={n: v for n, v in shared.items() if n != "num_steps"} | {"step": grid.steps} | features
        ),
        "final": xr.Dataset(coords=shared | features),
        "trajectory_stats": xr.Dataset(coords=shared),
        "constant_data": _constant_data(grid),
        "commits": xr.Dataset(coords=counts | {"array": list(dims)}),
    }
    facts = identity(grid) | {"cut": cut, "files": list(dims)}
    settings = {name: facts[name] for name in ("objectives", "num_steps", "batch_size", "learning_rate")}
    settings |= {name: facts[name] for name in ("num_replicates", "seed", "record_every")}
    settings |= {
        name: facts[name] for name in ("learning_rate_factors", "common_random_numbers", "precision")
    }
    settings |= {"dimension": facts["dimension"]}
    settings["grid"] = {name: values.tolist() for name, values in grid.axes.items()}
    root = xr.Dataset(attrs=results.provenance(settings) | {"sweep": json.dumps(facts)})
    # In memory: zarr is slow at many small files.
    files: dict[str, Buffer] = {}
    memory = zarr.storage.MemoryStore(files)
    with warnings.catch_warnings():
        # Until the end, when all is there.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        root.to_zarr(memory, zarr_format=3, consolidated=False)
        for name, group in groups.items():
            encoding = {str(v): {"compressors": CODECS} for v in group.variables}
            results.describe(group).to_zarr(
                memory, group=name, mode="a", zarr_format=3, consolidated=False, encoding=encoding
            )
        store = zarr.open_group(memory, mode="a", use_consolidated=False)
        for path, (names, event) in dims.items():
            variable = path.partition("/")[2]
            stats = path == STATS
            _create(
                store,
                path,
                [*names, *_FEATURES[: len(event)]],
                [*(sizes[n] for n in names), *event],
                [*(chunk[n] for n in names), *event],
                "int32" if stats else "float64",
                NOT_TRAINED if stats else np.nan,
                results.attributes_of(variable),
            )
        _create(
            store,
            COMMITS,
            [*counts, "array"],
            [*(len(numbers) for _, numbers, _ in counts.values()), len(dims)],
            [*(1,) * len(counts), len(dims)],
            "int64",
            0,
            {"long_name": "checksum of a chunk's file, 0: not yet trained", "units": "1"},
        )
        zarr.consolidate_metadata(memory)
    return {path: contents.to_bytes() for path, contents in files.items()}


def _create(
    store: zarr.Group,
    path: str,
    dims: Sequence[str],
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: str,
    fill: float,
    attrs: Mapping[str, str],
) -> None:
    store.create_array(
        path,
        shape=tuple(shape),
        chunks=tuple(chunks),
        dtype=dtype,
        fill_value=fill,
        dimension_names=list(dims),
        compressors=CODECS,
        attributes=dict(attrs),
    )


def _constant_data(grid: Grid) -> xr.Dataset:
    """Return start and target at every point of the axes that move them, and the seeds where they differ."""
    data: dict[str, Any] = {}
    moving = {"target": ("target.",), "start": ("target.", "start.")}
    for owner, prefixes in moving.items():
        names = [name for name in grid.axes if name.startswith(prefixes)]
        mixtures = [pair[owner == "target"] for pair in grid.all_mixtures(prefixes)]
        for field in type(mixtures[0]).__dataclass_fields__:
            values = [getattr(mixture, field) for mixture in mixtures]
            if values[0] is not None:
                stacked = np.stack([np.asarray(v) for v in values])
                event = stacked.shape[1:]
                shape = tuple(len(grid.axes[name]) for name in names)
                data[f"{owner}_{field}"] = (
                    [*names, *_FEATURES[: len(event)]],
                    stacked.reshape((*shape, *event)),
                )
    if not grid.common_random_numbers:
        seeds = [
            grid.at(o, place).seed
            for o in range(len(grid.objectives))
            for place in product(*map(range, grid.shape))
        ]
        data["seed_of_point"] = (
            ["objective", *grid.axes],
            np.array(seeds).reshape(len(grid.objectives), *grid.shape),
            {"long_name": "seed with which train gives the same numbers", "units": "1"},
        )
    dims = {dim for names, *_ in data.values() for dim in names}
    coords: dict[str, object] = {n: (n, v, attributes(n)) for n, v in grid.axes.items() if n in dims}
    if "objective" in dims:
        coords |= results.objective_coords(grid.objectives)
    dataset = xr.Dataset(data, coords)
    return dataset.assign_coords({d: np.arange(dataset.sizes[d]) for d in _FEATURES if d in dataset.sizes})
