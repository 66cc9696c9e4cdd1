"""How a sweep is cut into blocks: rectangles of the grid, each as large as one call of a program takes."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import jax
import numpy as np

from inference.engine.programs import Program
from inference.sweeps.grid import Grid, Position, Training
from inference.training.loop import arithmetic, training_program


class _Room(NamedTuple):
    """What a call takes at most: samples that it sees in a step, and trainings."""

    samples: int
    trainings: int


# Many trainings keep an accelerator busy.
_CPU, _ACCELERATOR = _Room(2**18, 1024), _Room(2**24, 2**16)

# The least trainings in a call, and how far a small grid's calls are smaller.
_FEWEST, _SMALLER = 64, 8

# Replicates in a block: the more settings share a draw, the less drawing costs. A CPU trains them one after
# another, and gets more of them where a block's work (trainings · samples · steps) stays below a second
# and the grid keeps as many blocks.
_REPLICATES, _MOST_REPLICATES, _WORK, _FEWEST_BLOCKS = 8, 64, 2**28, 8


class Geometry(NamedTuple):
    """How a sweep is cut: the same for every machine that works on it."""

    #: Settings of every axis in a block; of the number of steps, all.
    block: tuple[int, ...]
    #: Replicates in a block.
    replicates: int
    #: Settings that the program takes.
    settings: int


class Block(NamedTuple):
    """One piece of work: an objective, and the number of the block on every axis and among the replicates."""

    objective: int
    place: tuple[int, ...]
    replicates: int


def geometry(grid: Grid, most: int | None = None) -> Geometry:
    """Return how a grid is cut.

    Args:
        grid: what is trained.
        most: trainings that a call may hold at most, if fewer than usual.
    """
    on_cpu = jax.default_backend() == "cpu"
    # What may share a block, on every axis, and how many trainings that is.
    lengths = tuple(n if shared else 1 for n, shared in zip(grid.shape, _shared(grid), strict=True))
    together = float(np.prod(lengths, dtype=float)) * grid.num_replicates
    batch = int(max(grid.axes.get("batch_size", [grid.batch_size])))
    trainings = _trainings_in_a_call(_CPU if on_cpu else _ACCELERATOR, batch, together, most)
    replicates = _evenly(grid.num_replicates, min(_REPLICATES, trainings))
    devices = jax.local_device_count()
    settings = -(-max(1, trainings // replicates) // devices) * devices
    if on_cpu:
        # A block is written in the same time however large it is.
        more = min(
            _WORK // (trainings * batch * int(grid.steps[-1])),
            int(together / (_FEWEST_BLOCKS * trainings)),
            (most or settings * _MOST_REPLICATES) // (settings * replicates),
        )
        replicates = _evenly(grid.num_replicates, min(_MOST_REPLICATES, replicates * max(1, more)))
    sides = zip(grid.axes, grid.shape, _rectangle(lengths, settings), strict=True)
    return Geometry(
        tuple(n if name == "num_steps" else side for name, n, side in sides), replicates, settings
    )


def _trainings_in_a_call(room: _Room, batch: int, together: float, most: int | None) -> int:
    """Return how many trainings a call holds: a power of two that has room, fewer on a small grid."""
    trainings = 2 ** int(np.log2(max(1.0, room.samples / batch)))
    trainings = int(np.clip(trainings, _FEWEST, room.trainings))
    if together < 4 * trainings:
        trainings = max(_FEWEST, trainings // _SMALLER)
    return trainings if most is None else max(1, min(trainings, most))


def _evenly(number: int, most: int) -> int:
    """Return the largest part where a number is cut into the fewest equal parts of at most ``most``."""
    return -(-number // -(-number // most))


def _shared(grid: Grid) -> list[bool]:
    """Return which axes may have several values in one block: those that leave program and draws alone."""
    origin = (0,) * len(grid.shape)
    result = []
    for axis, (name, length) in enumerate(zip(grid.axes, grid.shape, strict=True)):
        shared = name not in ("batch_size", "num_steps") and (
            name != "seed" or not grid.common_random_numbers
        )
        owner = name.partition(".")[0]
        if shared and "." in name and owner not in ("target", "start", "learning_rate_factors"):
            for objective in range(len(grid.objectives)):
                programs = {
                    tuple(program_at(stage).static for stage in grid.stages_at(objective, position))
                    for i in range(length)
                    for position in [(*origin[:axis], i, *origin[axis + 1 :])]
                }
                shared = shared and len(programs) == 1
        result.append(shared)
    return result


def _rectangle(lengths: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Return the sides, with a product of at most ``most``, of which the fewest cover the lengths."""

    @cache
    def fewest(axis: int, room: int) -> tuple[int, tuple[int, ...]]:
        if axis == len(lengths):
            return 1, ()
        n = lengths[axis]
        best: tuple[int, tuple[int, ...]] | None = None
        for side in sorted({-(-n // count) for count in range(1, n + 1)}):
            if side > room:
                break
            count, rest = fewest(axis + 1, room // side)
            count *= -(-n // side)
            if best is None or count < best[0]:
                best = count, (side, *rest)
        return best or (n, (1,) * (len(lengths) - axis))

    return fewest(0, most)[1]


def blocks(grid: Grid, cut: Geometry) -> Iterator[Block]:
    """Yield every block of a sweep, in order."""
    counts = [-(-n // side) for n, side in zip(grid.shape, cut.block, strict=True)]
    parts = -(-grid.num_replicates // cut.replicates)
    for objective in range(len(grid.objectives)):
        for place in product(*map(range, counts)):
            for part in range(parts):
                yield Block(objective, place, part)


def positions(grid: Grid, cut: Geometry, block: Block) -> list[Position]:
    """Return the positions in a block, in the order of the grid; the number of steps is left at its first."""
    ranges = [
        range(1) if name == "num_steps" else range(i * side, min((i + 1) * side, n))
        for name, i, side, n in zip(grid.axes, block.place, cut.block, grid.shape, strict=True)
    ]
    return list(product(*ranges))


def distinct(grid: Grid, work: Sequence[Block], cut: Geometry) -> list[Block]:
    """Return blocks, one for every program that the given ones use."""
    found: dict[tuple[int, ...], Block] = {}
    changing = [i for i, shared in enumerate(_shared(grid)) if not shared]
    for block in work:
        # Blocks that differ in nothing else share their programs.
        found.setdefault((block.objective, *(block.place[i] for i in changing)), block)
    return list(found.values())


def heaviest(grid: Grid, work: Sequence[Block]) -> list[Block]:
    """Return of every objective a block with the largest batch among the given ones."""
    axis = list(grid.axes).index("batch_size") if "batch_size" in grid.axes else None

    def batch(block: Block) -> float:
        return 0.0 if axis is None else float(grid.axes["batch_size"][block.place[axis]])

    found: dict[int, Block] = {}
    for block in work:
        if block.objective not in found or batch(block) > batch(found[block.objective]):
            found[block.objective] = block
    return list(found.values())


def program_at(point: Training) -> Program:
    """Return the program of a point of a grid, with its numbers."""
    with arithmetic():
        return training_program(point.objective, point.batch_size, None, point.factors, point.precision)
