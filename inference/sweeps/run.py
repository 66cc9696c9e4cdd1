"""Sweeps: trainings over a grid of settings, one compiled program an objective, resumable at any moment."""

import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import xarray as xr
from tqdm.auto import tqdm

from inference.engine import memory as memory_of
from inference.engine.blas import on_one_thread
from inference.engine.chunks import num_threads, run_together
from inference.progress import hidden
from inference.storage import files
from inference.sweeps import cluster
from inference.sweeps.blocks import compile_block, train_block, variables
from inference.sweeps.cuts import Block, Geometry, blocks, distinct, geometry, heaviest
from inference.sweeps.grid import Grid
from inference.sweeps.store import SweepStore, open_sweep
from mixture_models.mixture.mixture import Mixture
from mixture_models.objectives import Objective
from mixture_models.validation import InputError, integer, one_of, path_of, positive

_MEBIBYTE = 2**20

# Of a chunk in the list of the work, and the most trainings that a chunk has.
_BYTES_A_BLOCK, _MOST_TRAININGS = 200, 2**16


@on_one_thread
def sweep[M: Mixture](
    objectives: Objective | Sequence[Objective],
    grid: Mapping[str, Sequence[float]],
    *,
    start: M | Callable[[M], M],
    target: M,
    store: str | Path,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    num_replicates: int,
    seed: int,
    new_tasks: Sequence[str] | None = None,
    record_every: int | None = None,
    learning_rate_factors: Mapping[str, float] | None = None,
    common_random_numbers: bool = True,
    precision: str = "float64",
    dimension: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    memory: float | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """Train every objective at every point of a grid, ``num_replicates`` times, into a zarr store.

    A sweep that is stopped, by whatever, goes on when it is called again with the same arguments. Its
    numbers depend on its settings and on how the store says that it is cut; not on the number of cores or
    workers, on interruptions or on the order of the work. Of a sequence finished stages of a chunk are kept
    too.

    Args:
        objectives: one objective or several.
        grid: the values of every axis, by name; `inference.sweeps.axes` lists the names. An axis is a
            dimension of the result. Others than those listed there are not settings of a training.
        start: the learner's parameters at step 0, or a function of the target that returns them.
        target: the true target.
        store: folder to write, ends in ``.zarr``; a sweep of the same settings that lies there is resumed.
        num_steps: updates of a training, or of every stage of a sequence. As an axis it costs nothing: a
            shorter training is the beginning of the longest, and is read off it. No axis of sequences.
        batch_size: samples in an update. As an axis it has a program for every size.
        learning_rate: of plain SGD.
        num_replicates: trainings of every objective at every point.
        seed: whole number; equal seeds give equal numbers.
        new_tasks: names of the tasks that are taught one after the other, each in a stage of its own: a point
            is then the sequence of `stages_of` and `train_sequence`. None for single trainings.
        record_every: steps between two records; None records the start and the end. Recorded steps are those
            of the longest training, and all lengths of the axis ``num_steps``.
        learning_rate_factors: multiplies the updates of the params it names.
        common_random_numbers: whether replicate i sees the same random numbers at every point and for every
            objective, those of `train` with this seed; otherwise each has its own, those of `train` with the
            seed in ``/constant_data``'s ``seed_of_point``.
        precision: ``"float64"`` or the faster ``"float32"``, see `mixture_models.losses.precision`.
        dimension: of samples, of any size, see `train`; None for that of start and target. Where it is an
            axis, all points are trained in the span of their means, by one program.
        workers: processes of a Dask cluster on this machine; None for the threads of this process.
        scheduler: address of a running Dask scheduler, to work on its workers.
        memory: bytes that a process, or its accelerator, may hold in all; None for what it holds and half of
            what is free.
        progress: whether the estimate of memory is printed and a terminal shows a progress bar.

    Returns:
        DataTree that is read from the store when asked for: ``/trajectory``, ``/final``,
        ``/trajectory_stats`` (dims objective, the axes, chain, draw, and step or feature; the axis
        ``num_steps`` is not in ``/trajectory``, which has ``step``) and ``/constant_data`` as of `train`. Of
        sequences ``/stages`` and ``/forgetting`` as of `train_sequence` in the place of ``/final``.

    Raises:
        InputError: an argument out of range, a store of something else, or too little memory; before anything
            is trained.
        OSError: the store cannot be written; what was trained before is kept.
    """
    path = _store_path(store)
    if workers is not None and scheduler is not None:
        raise InputError("give at most one of workers and scheduler; got both")
    if workers is not None:
        integer("workers", workers)
    if not (scheduler is None or isinstance(scheduler, str)):
        raise InputError(f"scheduler must be the address of a Dask scheduler; got {scheduler!r}")
    limit = memory_of.default_limit() if memory is None else positive("memory", memory)
    whole = Grid.create(
        objectives,
        grid,
        start,
        target,
        num_steps=num_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        num_replicates=num_replicates,
        seed=seed,
        record_every=record_every,
        learning_rate_factors=learning_rate_factors,
        common_random_numbers=common_random_numbers,
        precision=precision,
        dimension=dimension,
        new_tasks=new_tasks,
    )
    _check_size(whole, path)
    existing = SweepStore.find(path, whole) if path.exists() else None
    distributed = workers is not None or scheduler is not None
    threads = 1 if distributed else num_threads()
    if existing is None:
        cut, needed = _cut_to_memory(whole, limit, threads, every=not distributed, progress=progress)
        existing = SweepStore.create(path, whole, cut)
        work, damaged = list(blocks(whole, existing.cut)), 0
    else:
        existing.mend(whole)
        work, damaged = existing.missing(whole)
        needed = None
    total = sum(1 for _ in blocks(whole, existing.cut))
    if damaged and progress:
        print(f"{damaged} of {total} chunks are damaged and will be trained again.", file=sys.stderr)
    if work:
        if needed is None:
            compiled = heaviest(whole, work) if distributed else work
            needed = _compile(whole, existing.cut, compiled, progress=progress)
        if progress:
            print(_words(existing, needed, threads, distributed=distributed), file=sys.stderr)
        with tqdm(total=total, initial=total - len(work), unit="chunk", disable=hidden(progress)) as bar:
            if distributed:
                cluster.run_on(whole, existing, work, bar.update, workers=workers, scheduler=scheduler)
            else:
                tasks = [partial(train_into, whole, existing, block) for block in work]
                run_together(tasks, nullcontext, bar.update)
    shutil.rmtree(existing.unfinished, ignore_errors=True)
    return open_sweep(path)


def train_into(grid: Grid, store: SweepStore, block: Block, report: Callable[[int], None]) -> None:
    """Train a block and commit it to the store; reports 1 then."""
    store.write(grid, block, train_block(grid, store.cut, block, report, store.stages_of(block)))
    report(1)


def _store_path(store: str | Path) -> Path:
    path = path_of("store", store)
    one_of("the suffix of a sweep's store", path.suffix, [".zarr"])
    if not path.resolve().parent.is_dir():
        raise InputError(f"{path} must lie in an existing folder; there is no {path.resolve().parent}")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} must be the store of a sweep; it is a file")
    if not path.exists():
        files.check_writable(path)
    return path


def _check_size(grid: Grid, path: Path) -> None:
    """Refuse a sweep whose result has no room on the disk, or whose chunks cannot even be listed."""
    trainings = len(grid.objectives) * math.prod(grid.shape) * grid.num_replicates
    listed = _BYTES_A_BLOCK * trainings / _MOST_TRAININGS + 8.0 * grid.num_replicates
    memory_of.check_fits("the list of chunks", listed, "take fewer replicates or points")
    floats = 1 + sum(math.prod(shape) for shape in variables(grid).values())
    # The axis of the steps is that of the records.
    of_steps = len(grid.axes.get("num_steps", [0]))
    records = grid.num_stages * (int(max(grid.lengths)) // grid.record_every + 2)
    needed, free = 8.0 * floats * records * trainings / of_steps, shutil.disk_usage(path.parent).free
    if needed > free and not path.exists():
        raise InputError(
            f"a sweep must fit on the disk; its {trainings} trainings of {records} records take about "
            f"{needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free: take fewer replicates, points "
            "or records"
        )


def _cut_to_memory(
    grid: Grid, limit: float, threads: int, *, every: bool, progress: bool
) -> tuple[Geometry, int]:
    """Return how to cut a grid so that blocks fit into memory, and the bytes that one needs."""
    most = None
    while True:
        cut = geometry(grid, most)
        work = list(blocks(grid, cut))
        needed = _compile(grid, cut, work if every else heaviest(grid, work), progress=progress)
        rest = memory_of.beside_blocks()
        if rest + threads * needed <= limit:
            return cut, needed
        held = cut.settings * cut.replicates
        fitting = int(held * (limit - rest) / (threads * needed))
        if fitting < 1 or held == 1:
            least = rest + threads * needed / held
            raise InputError(
                f"memory must be at least {least / _MEBIBYTE:.0f} MiB, for one training at a time on each of "
                f"{threads} threads; got {limit / _MEBIBYTE:.0f} MiB"
            )
        # A power of two, so that sweeps with about as much room find each other's programs.
        most = min(held - 1, 1 << (fitting.bit_length() - 1))


def _compile(grid: Grid, cut: Geometry, work: Sequence[Block], *, progress: bool) -> int:
    """Compile what blocks need, side by side, and return the bytes of the largest block."""
    several = distinct(grid, work, cut)

    def compiled(block: Block, report: Callable[[int], None]) -> int:
        needed = compile_block(grid, cut, block)
        report(1)
        return needed

    tasks = [partial(compiled, block) for block in several]
    with tqdm(
        total=len(tasks), desc="compiling", unit="program", leave=False, disable=hidden(progress)
    ) as bar:
        return max(run_together(tasks, nullcontext, bar.update))


def estimate(needed: int, threads: int) -> int:
    """Return the bytes that will have been held at most once all is trained."""
    return max(memory_of.peak(), memory_of.beside_blocks() + threads * needed)


def _words(store: SweepStore, needed: int, threads: int, *, distributed: bool) -> str:
    cut = store.cut
    who = "a worker" if distributed else memory_of.whose()
    return (
        f"Chunks of at most {cut.settings} settings x {cut.replicates} replicates; at most "
        f"{math.ceil(estimate(needed, threads) / _MEBIBYTE)} MiB of memory in {who}, "
        f"{needed / _MEBIBYTE:.3g} MiB for each of {threads} at a time."
    )
