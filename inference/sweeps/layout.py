"""The layout of a sweep's store: every array, coordinate and attribute, with nothing trained yet."""

import json
import warnings
from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np
import xarray as xr
import zarr.storage
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import Buffer

from inference import results
from inference.results.build import event_dims, with_features
from inference.results.sequence import own_stages
from inference.sweeps.axes import attributes
from inference.sweeps.blocks import variables
from inference.sweeps.cuts import Geometry
from inference.sweeps.grid import Grid
from inference.sweeps.identity import identity
from inference.sweeps.sequences import DERIVED

#: Fill of ``diverged_step`` where nothing was trained yet.
NOT_TRAINED = -2

#: The array of the checksums of every block's files.
COMMITS = "commits/checksum"

#: The array of the first steps that are not finite.
STATS = "trajectory_stats/diverged_step"

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
    dims: dict[str, list[str]] = {}
    features: dict[str, object] = {}
    for name, event in shapes.items():
        of_event = event_dims(name, len(event))
        dims[f"trajectory/{name}"] = [*leading, *of_event]
        if not grid.new_tasks:
            dims[f"final/{name}"] = [*at_end, *of_event]
        elif name != "loss":
            dims[f"stages/{name}"] = [*at_end, "stage", *of_event]
        for dim, size in zip(of_event, event, strict=True):
            sizes[dim] = max(size, sizes.get(dim, 0))
            features[dim] = list(grid.target.names) if dim == "task" else np.arange(sizes[dim])
    if grid.new_tasks:
        sizes["stage"] = grid.num_stages + 1
        for path, of_event in DERIVED.items():
            dims[path] = [*at_end, *(["stage"] if path.startswith("stages/") else []), *of_event]
    dims[STATS] = at_end
    counts = {
        f"{name}.block": (
            f"{name}.block",
            np.arange(-(-sizes[name] // chunk[name])),
            {"long_name": f"number of the block along {name}", "units": "1"},
        )
        for name in ("objective", *grid.axes, "draw")
    }
    if grid.new_tasks:
        taught = {"stage": np.arange(grid.num_stages + 1), "stage_task": ("stage", ["", *grid.new_tasks])}
        by_task = shared | {name: value for name, value in features.items() if not name.startswith("feature")}
        at_ends = {"stages": xr.Dataset(coords=shared | features | taught)}
        at_ends |= {"forgetting": xr.Dataset(coords=by_task)}
    else:
        at_ends = {"final": xr.Dataset(coords=shared | features)}
    along = {"stage": ("step", np.minimum(-(-grid.steps // grid.num_steps), grid.num_stages))}
    groups = {
        "trajectory": xr.Dataset(
            coords={n: v for n, v in shared.items() if n != "num_steps"}
            | {"step": grid.steps}
            | features
            | (along if grid.new_tasks else {})
        ),
        **at_ends,
        "trajectory_stats": xr.Dataset(coords=shared),
        "constant_data": _constant_data(grid),
        "commits": xr.Dataset(coords=counts | {"array": list(dims)}),
    }
    facts = identity(grid) | {"cut": cut, "files": list(dims)}
    settings = {"objectives": facts["objectives"]} | grid.of_training
    settings |= {"tasks": grid.new_tasks} if grid.new_tasks else {}
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
        create = partial(store.create_array, compressors=CODECS)
        for path, names in dims.items():
            create(
                path,
                shape=tuple(sizes[n] for n in names),
                chunks=tuple(chunk.get(n, sizes[n]) for n in names),
                dtype="int32" if path == STATS else "float64",
                fill_value=NOT_TRAINED if path == STATS else np.nan,
                dimension_names=names,
                attributes=dict(results.attributes_of(path.partition("/")[2])),
            )
        create(
            COMMITS,
            shape=(*(len(numbers) for _, numbers, _ in counts.values()), len(dims)),
            chunks=(*(1,) * len(counts), len(dims)),
            dtype="int64",
            fill_value=0,
            dimension_names=[*counts, "array"],
            attributes={"long_name": "checksum of a chunk's file, 0: not yet trained", "units": "1"},
        )
        zarr.consolidate_metadata(memory)
    return {path: contents.to_bytes() for path, contents in files.items()}


def _constant_data(grid: Grid) -> xr.Dataset:
    """Return start and target at every point of the axes that move them, and the seeds where they differ."""
    data: dict[str, tuple[Sequence[str], np.ndarray, dict[str, str]]] = {}
    moving = {"target": ("target.",), "start": ("target.", "start.")}
    for owner, prefixes in moving.items():
        names = [name for name in grid.axes if name.startswith(prefixes)]
        mixtures = [pair[owner == "target"] for pair in grid.all_mixtures(prefixes)]
        stored = [mixture.arrays() for mixture in mixtures]
        for field in stored[0]:
            stacked = np.stack([np.asarray(arrays[field]) for arrays in stored])
            event = stacked.shape[1:]
            shape = tuple(len(grid.axes[name]) for name in names)
            data[f"{owner}_{field}"] = (
                [*names, *event_dims(field, len(event))],
                stacked.reshape((*shape, *event)),
                {},
            )
    if grid.new_tasks:
        data["own_stage"] = (["task"], own_stages(grid.target.names, grid.new_tasks).to_numpy(), {})
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
    return with_features(xr.Dataset(data, coords), grid.target.names)
