"""Blocks of a sweep: settings × replicates that one call of one compiled program trains.

The program takes a fixed number of settings and replicates, whatever the grid, so that new grids find it
compiled; what a block lacks is filled up with copies. Where random numbers are common, the replicates of all
settings of a block share them: they are drawn once.

A sequence is trained stage after stage: a later stage is the same program, whose learners begin where each of
them has come to, and finished stages of a block can be kept.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from inference.engine.programs import Program
from inference.storage import kept
from inference.sweeps.cuts import Block, Geometry, positions, program_at
from inference.sweeps.grid import Grid, Training
from inference.sweeps.programs import Arguments, Beginning, Call, Records, executables, placed
from inference.training.loop import arithmetic, first_record
from inference.training.replicates import Ended
from mixture_models.validation import InputError

# Places of a call, and samples between two looks at whether to stop. The many places leave few unused in
# trainings of 100, 200, 400 or 1000 recorded steps.
_PLACES, _SAMPLES_A_CALL = (4, 68), 2**25

# Samples that trainings on a CPU see in a step together.
_SAMPLES_AT_ONCE = 2**14

# What is kept of a stage.
_PARTS, _DIVERGED = ("record", "param", "lost"), "diverged_step"


#: What a block gives, or one stage of it: settings come before replicates in every shape.
Trained = Ended


def variables(grid: Grid) -> dict[str, tuple[int, ...]]:
    """Return the event shape of every variable that the learners record; refuses what cannot be trained.

    Raises:
        InputError: learners that record other variables than those of the first objective, or that cannot be
            trained.
    """
    found: list[dict[str, tuple[int, ...]]] = []
    origin = (0,) * len(grid.shape)
    with arithmetic():
        for objective in range(len(grid.objectives)):
            for point in grid.stages_at(objective, origin):
                program = program_at(point)
                shapes = first_record.eval_shape(program.static, program.numbers, (point.start, point.target))
                found.append({name: tuple(shape.shape) for name, shape in shapes.items()})
    if any(shapes != found[0] for shapes in found):
        raise InputError("objectives swept together must have learners that record the same variables")
    return found[0] | {"loss": ()}


def train_block(
    grid: Grid, cut: Geometry, block: Block, report: Callable[[int], None], folder: Path | None = None
) -> Trained:
    """Train what is in a block.

    Args:
        grid: the sweep's.
        cut: how it is cut.
        block: which piece.
        report: called between calls of the program, to be stopped there.
        folder: where finished stages of a sequence are kept, for this sweep alone; None keeps none.
    """
    points = [grid.stages_at(block.objective, position) for position in positions(grid, cut, block)]
    first = block.replicates * cut.replicates
    if not grid.new_tasks:
        return _train_stage(grid, cut, [point[0] for point in points], first, None, report)
    found: list[Trained] = []
    for number in range(grid.num_stages):
        of_stage = [point[number] for point in points]
        begins = _at_start(grid, cut, of_stage, first)
        if found:
            begins = _Begins(number, found[-1].diverged_step, found[-1].params)
        train = partial(_train_stage, grid, cut, of_stage, first, begins, report)
        facts = ("stage of a sweep's block", block, cut, number)
        records, params, lost = kept.groups(facts, _PARTS, partial(_parts_of, train), folder=folder)
        found.append(Trained(records, params, lost[_DIVERGED]))
    return _joined(found, int(grid.stage_steps[-1]))


class _Begins(NamedTuple):
    """Where learners begin a stage.

    Attributes:
        number: of the stage, from 0 on; each has random numbers of its own.
        diverged_step: of the stages before, shape (setting, replicate), -1 for none.
        params: shape (setting, replicate, ...).
    """

    number: int
    diverged_step: np.ndarray
    params: dict[str, np.ndarray]


def _at_start(grid: Grid, cut: Geometry, points: Sequence[Training], first: int) -> _Begins:
    """Return where learners begin the first stage: all replicates of a setting at its start."""
    count = min(cut.replicates, grid.num_replicates - first)
    params = jax.tree.map(_stacked, *[point.start.params() for point in points])
    repeated = {name: np.repeat(value[:, None], count, axis=1) for name, value in params.items()}
    return _Begins(0, np.full((len(points), count), -1, np.int32), repeated)


def _parts_of(train: Callable[[], Trained]) -> tuple[dict[str, np.ndarray], ...]:
    """Train a stage, and return its arrays in the groups `_PARTS`."""
    records, params, diverged_step = train()
    return records, params, {_DIVERGED: diverged_step}


def _joined(stages: Sequence[Trained], num_steps: int) -> Trained:
    """Return what the stages of a block record, one after the other: each begins with the last record before.

    Args:
        stages: in their order.
        num_steps: of each.
    """
    # The first record of a later stage is the state that the stage before it recorded last.
    records = {
        name: np.concatenate([s.records[name][:, :, (i > 0) :] for i, s in enumerate(stages)], axis=2)
        for name in stages[0].records
    }
    diverged = stages[0].diverged_step
    for number, stage in enumerate(stages[1:], 1):
        own = np.where(stage.diverged_step >= 0, stage.diverged_step + number * num_steps, -1)
        diverged = np.where(diverged >= 0, diverged, own)
    return Trained(records, stages[-1].params, diverged)


def _train_stage(
    grid: Grid,
    cut: Geometry,
    points: Sequence[Training],
    first: int,
    begins: _Begins | None,
    report: Callable[[int], None],
) -> Trained:
    """Train the points of a block, each a setting, for one stage; begins is None for single trainings.

    Returns:
        What they record; the step of divergence is 0 where it was in an earlier stage.
    """
    programs = [program_at(point) for point in points]
    families: dict[Program, list[int]] = {}
    for index, program in enumerate(programs):
        families.setdefault(program.static, []).append(index)
    count = min(cut.replicates, grid.num_replicates - first)
    parts: list[Trained] = []
    for static, members in families.items():
        chosen = [members[min(i, len(members) - 1)] for i in range(cut.settings)]
        here = None if begins is None else _filled(begins, chosen, cut.replicates)
        trained = _call(
            grid, cut, static, [programs[i] for i in chosen], [points[i] for i in chosen], first, here, report
        )
        parts.append(jax.tree.map(lambda a, m=members: a[: len(m), :count], trained))
    if len(parts) == 1:
        return parts[0]
    order = np.argsort([i for members in families.values() for i in members])
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[order], *parts)


def _filled(begins: _Begins, settings: Sequence[int], replicates: int) -> _Begins:
    """Return where chosen settings begin, with copies of the last replicate up to their number."""
    count = begins.diverged_step.shape[1]
    wanted = np.minimum(np.arange(replicates), count - 1)
    return begins._replace(
        diverged_step=begins.diverged_step[settings][:, wanted],
        params={name: value[settings][:, wanted] for name, value in begins.params.items()},
    )


def compile_block(grid: Grid, cut: Geometry, block: Block) -> int:
    """Compile the programs of a block, and return the bytes that a call of the largest needs."""
    needed = 0
    inside = positions(grid, cut, block)
    points = [point for position in inside for point in grid.stages_at(block.objective, position)]
    by_static = {program.static: (program, point) for point in points for program in [program_at(point)]}
    for static, (program, point) in by_static.items():
        begins = None
        if grid.new_tasks:
            begins = _filled(_at_start(grid, cut, [point], 0), [0] * cut.settings, cut.replicates)
        arguments = _arguments(grid, cut, [program] * cut.settings, [point] * cut.settings, 0, begins)
        for executable in executables(static, arguments, _call_of(grid, cut, point)):
            memory = executable.memory_analysis()
            assert memory is not None  # of a device that does not say, which is none that JAX has
            size = memory.temp_size_in_bytes + memory.argument_size_in_bytes + 2 * memory.output_size_in_bytes
            needed = max(needed, size)
    # What is kept of the records until they are written, joined and reordered.
    floats = 1 + sum(int(np.prod(shape)) for shape in variables(grid).values())
    return int(needed + 4 * 8 * cut.settings * cut.replicates * len(grid.steps) * floats)


def _call_of(grid: Grid, cut: Geometry, point: Training) -> Call:
    num_places = _num_places(grid.stage_steps, _samples_a_step(cut, point))
    return Call(num_places, _together(cut, point), grid.common_random_numbers)


def _arguments(
    grid: Grid,
    cut: Geometry,
    programs: Sequence[Program],
    points: Sequence[Training],
    first: int,
    begins: _Begins | None,
) -> Arguments:
    numbers = jax.tree.map(_stacked, *[program.numbers for program in programs])
    setting = jax.tree.map(_stacked, *[(point.start, point.target) for point in points])
    beginning = None
    if begins is not None:
        start = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (cut.replicates, *leaf.shape)), setting[0])
        # NumPy's: JAX would round them where its arithmetic is not that of `arithmetic`.
        params = {name: value.swapaxes(0, 1) for name, value in begins.params.items()}
        before = np.where(begins.diverged_step >= 0, 0, -1).astype(np.int32).T
        beginning = Beginning(np.asarray(begins.number), before, start.at(params))
    words = np.array([[p.seed >> 32, p.seed & 0xFFFFFFFF] for p in points], np.uint32)
    return Arguments(
        numbers,
        setting,
        np.array([point.learning_rate for point in points]),
        words[0] if grid.common_random_numbers else words,
        np.arange(first, first + cut.replicates, dtype=np.int64),
        beginning,
    )


def _stacked(*leaves: ArrayLike) -> np.ndarray:
    return np.stack([np.asarray(leaf, np.float64) for leaf in leaves])


def _call(
    grid: Grid,
    cut: Geometry,
    static: Program,
    programs: Sequence[Program],
    points: Sequence[Training],
    first: int,
    begins: _Begins | None,
    report: Callable[[int], None],
) -> Trained:
    """Train settings × replicates by one program."""
    with arithmetic():
        given = _arguments(grid, cut, programs, points, first, begins)
        arguments = placed(given, grid.common_random_numbers)
        counts, recorded = _plan(grid.stage_steps, _samples_a_step(cut, points[0]))
        start, go = executables(static, arguments, _call_of(grid, cut, points[0]))
        numbers, setting, rate = arguments.numbers, arguments.setting, arguments.rate
        learners = None if arguments.beginning is None else arguments.beginning.learners
        state = start(*arguments)
        parts: list[Records[np.ndarray]] = []
        for taken, wanted in zip(counts, recorded, strict=True):
            report(0)
            num_steps = grid.stage_steps[-1]
            state, records = go(numbers, state, taken, wanted, num_steps, setting, rate, learners)
            if wanted.any():
                kept = slice(None) if wanted.all() else wanted
                here: Records[np.ndarray] = jax.device_get(records)
                parts.append(jax.tree.map(lambda a, kept=kept: a.swapaxes(0, 1)[:, :, kept], here))
    joined: Records[np.ndarray] = jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=2), *parts)
    # The last record is of the params at the end: one more update is taken for its loss alone.
    ends = {name: value[:, :, -1] for name, value in joined.params.items()}
    return Trained(joined.reported, ends, np.asarray(state.diverged_step).T)


def _plan(steps: np.ndarray, seen: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the updates after every place, and which places are recorded, a row a call."""
    num_places = _num_places(steps, seen)
    most = max(1, _SAMPLES_A_CALL // (num_places * seen))
    places = np.union1d(steps, np.arange(0, steps[-1], most))
    # The last record takes one more update, for its loss; the state after it is not used.
    counts = np.append(np.diff(places), 1)
    recorded = np.isin(places, steps)
    padding = (0, -len(places) % num_places)
    return tuple(np.pad(a, padding).reshape(-1, num_places) for a in (counts, recorded))  # type: ignore[return-value]


def _num_places(steps: np.ndarray, seen: int) -> int:
    """Return the places of a call: few, or many where records are many and updates between them few."""
    # One of two numbers, so that grids find each other's programs.
    few, many = _PLACES
    updates = int(np.diff(steps).max(initial=1))
    return many if min(_SAMPLES_A_CALL // (updates * seen), len(steps)) >= many else few


def _samples_a_step(cut: Geometry, point: Training) -> int:
    """Return the samples that a call sees in a step."""
    return cut.settings * cut.replicates * point.batch_size


def _together(cut: Geometry, point: Training) -> int:
    """Return how many replicates are trained at once, the other ones after them.

    On a CPU the fewest, in equal parts, that see many samples in a step: what they see then stays in a
    core's cache. On an accelerator all.
    """
    most, seen = cut.replicates, cut.settings * point.batch_size
    if jax.default_backend() != "cpu":
        return most
    parts = [n for n in range(1, most + 1) if most % n == 0]
    return next((n for n in parts if n * seen >= _SAMPLES_AT_ONCE), most)
