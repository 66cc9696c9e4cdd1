"""Blocks of a sweep: settings × replicates that one call of one compiled program trains.

The program takes a fixed number of settings and replicates, whatever the grid, so that new grids find it
compiled; what a block lacks is filled up with copies. Where random numbers are common, the replicates of all
settings of a block share them: they are drawn once.

A sequence is trained stage after stage: a later stage is the same program, whose learners begin where each of
them has come to, and finished stages of a block can be kept.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Compiled
from jaxtyping import Array
from numpy.typing import ArrayLike
from numpyro.infer.svi import SVIState

from inference.engine.programs import Numbers, Program, traced_alone
from inference.storage import kept
from inference.sweeps.cuts import Block, Geometry, positions, program_at
from inference.sweeps.grid import Grid, Training
from inference.training.loop import (
    State,
    advance,
    arithmetic,
    first_record,
    initial_state,
    report_of,
)
from mixture_models.accel.compiler import compiler_options
from mixture_models.mixture.mixture import Mixture, MixturePair
from mixture_models.validation import InputError

# Places of a call, and samples between two looks at whether to stop. The many places leave few unused in
# trainings of 100, 200, 400 or 1000 recorded steps.
_PLACES, _SAMPLES_A_CALL = (4, 68), 2**25

# Samples that trainings on a CPU see in a step together.
_SAMPLES_AT_ONCE = 2**14

# Among the records of a stage, and among the arrays that are kept of it.
_PARAM, _RECORD, _DIVERGED = "param ", "record ", "diverged_step"


class Trained(NamedTuple):
    """What a block gives: variables of shape (setting, replicate, step, ...) and (setting, replicate)."""

    records: dict[str, np.ndarray]
    diverged_step: np.ndarray


class _Stage(NamedTuple):
    """What a block gives of one stage: `Trained`, and the params at its end, (setting, replicate, ...)."""

    records: dict[str, np.ndarray]
    diverged_step: np.ndarray
    params: dict[str, np.ndarray]


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
        stage = _train_stage(grid, cut, [point[0] for point in points], first, None, report)
        return Trained(stage.records, stage.diverged_step)
    found: list[_Stage] = []
    for number in range(grid.num_stages):
        of_stage = [point[number] for point in points]
        begins = _Begins(number, *found[-1][1:]) if found else _at_start(grid, cut, of_stage, first)
        train = partial(_train_stage, grid, cut, of_stage, first, begins, report)
        facts = ("stage of a sweep", block, cut, number)
        found.append(_loaded(kept.arrays(facts, partial(_stored, train), folder=folder)))
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


def _stored(train: Callable[[], _Stage]) -> dict[str, np.ndarray]:
    """Train a stage, and return it as arrays by name."""
    stage = train()
    records = {f"{_RECORD}{name}": array for name, array in stage.records.items()}
    params = {f"{_PARAM}{name}": array for name, array in stage.params.items()}
    return records | params | {_DIVERGED: stage.diverged_step}


def _loaded(stored: Mapping[str, np.ndarray]) -> _Stage:
    """Return the stage that was stored as arrays by name."""
    records, params = (
        {name.removeprefix(prefix): array for name, array in stored.items() if name.startswith(prefix)}
        for prefix in (_RECORD, _PARAM)
    )
    return _Stage(records, stored[_DIVERGED], params)


def _joined(stages: Sequence[_Stage], num_steps: int) -> Trained:
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
    return Trained(records, diverged)


def _train_stage(
    grid: Grid,
    cut: Geometry,
    points: Sequence[Training],
    first: int,
    begins: _Begins | None,
    report: Callable[[int], None],
) -> _Stage:
    """Train the points of a block, each a setting, for one stage; begins is None for single trainings.

    Returns:
        What they record; the step of divergence is 0 where it was in an earlier stage.
    """
    programs = [program_at(point) for point in points]
    families: dict[Program, list[int]] = {}
    for index, program in enumerate(programs):
        families.setdefault(program.static, []).append(index)
    count = min(cut.replicates, grid.num_replicates - first)
    parts: list[_Stage] = []
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
    result: _Stage = jax.tree.map(lambda *arrays: np.concatenate(arrays)[order], *parts)
    return result


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
        for executable in _executables(static, arguments, _call_of(grid, cut, point)):
            memory: Any = executable.memory_analysis()
            size = memory.temp_size_in_bytes + memory.argument_size_in_bytes + 2 * memory.output_size_in_bytes
            needed = max(needed, size)
    # What is kept of the records until they are written, joined and reordered.
    floats = 1 + sum(int(np.prod(shape)) for shape in variables(grid).values())
    return int(needed + 4 * 8 * cut.settings * cut.replicates * len(grid.steps) * floats)


class _Call(NamedTuple):
    """What a compiled program is made for beside the shapes of its arguments."""

    num_places: int
    #: Replicates that are trained at once, the other ones after them.
    together: int
    #: Whether settings share their random numbers.
    common: bool


def _call_of(grid: Grid, cut: Geometry, point: Training) -> _Call:
    num_places = _num_places(grid.stage_steps, _samples_a_step(cut, point))
    return _Call(num_places, _together(cut, point), grid.common_random_numbers)


class _Stands(NamedTuple):
    """Where a stage of sequences begins, leading axes replicates and settings, and its number."""

    number: np.ndarray
    diverged_step: np.ndarray
    learners: Mixture


class _Arguments(NamedTuple):
    """What a compiled program takes, but for where it stands: leading axis settings where they differ."""

    numbers: Numbers
    setting: MixturePair
    rate: np.ndarray
    words: np.ndarray
    replicates: np.ndarray
    stands: _Stands | None


def _arguments(
    grid: Grid,
    cut: Geometry,
    programs: Sequence[Program],
    points: Sequence[Training],
    first: int,
    begins: _Begins | None,
) -> _Arguments:
    numbers = jax.tree.map(_stacked, *[program.numbers for program in programs])
    setting = jax.tree.map(_stacked, *[(point.start, point.target) for point in points])
    stands = None
    if begins is not None:
        start = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (cut.replicates, *leaf.shape)), setting[0])
        # NumPy's: JAX would round them where its arithmetic is not that of `arithmetic`.
        params: Any = {name: value.swapaxes(0, 1) for name, value in begins.params.items()}
        before = np.where(begins.diverged_step >= 0, 0, -1).astype(np.int32).T
        stands = _Stands(np.asarray(begins.number), before, start.at(params))
    words = np.array([[p.seed >> 32, p.seed & 0xFFFFFFFF] for p in points], np.uint32)
    return _Arguments(
        numbers,
        setting,
        np.array([point.learning_rate for point in points]),
        words[0] if grid.common_random_numbers else words,
        np.arange(first, first + cut.replicates, dtype=np.int64),
        stands,
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
) -> _Stage:
    """Train settings × replicates by one program."""
    with arithmetic():
        given = _arguments(grid, cut, programs, points, first, begins)
        arguments = _placed(given, grid.common_random_numbers)
        counts, recorded = _plan(grid.stage_steps, _samples_a_step(cut, points[0]))
        start, go = _executables(static, arguments, _call_of(grid, cut, points[0]))
        numbers, setting, rate = arguments.numbers, arguments.setting, arguments.rate
        learners = None if arguments.stands is None else arguments.stands.learners
        state = start(*arguments)
        parts: list[dict[str, np.ndarray]] = []
        for taken, wanted in zip(counts, recorded, strict=True):
            report(0)
            num_steps = grid.stage_steps[-1]
            state, records = go(numbers, state, taken, wanted, num_steps, setting, rate, learners)
            if wanted.any():
                kept = slice(None) if wanted.all() else wanted
                parts.append({n: a.swapaxes(0, 1)[:, :, kept] for n, a in jax.device_get(records).items()})
    joined = {n: np.concatenate([p[n] for p in parts], axis=2) for n in parts[0]}
    # The last record is of the params at the end: one more update is taken for its loss alone.
    ends = {n.removeprefix(_PARAM): joined.pop(n)[:, :, -1] for n in [*joined] if n.startswith(_PARAM)}
    return _Stage(joined, np.asarray(state.diverged_step).T, ends)


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


def _placed(arguments: _Arguments, common: bool) -> _Arguments:
    """Spread the settings over this host's devices, where there are several."""
    if jax.local_device_count() == 1:
        return arguments
    spread, whole, each = _on_devices("settings"), _on_devices(), _on_devices(None, "settings")
    stands = None if arguments.stands is None else _Stands(whole, each, each)  # type: ignore[arg-type]
    put = (spread, spread, spread, whole if common else spread, whole, stands)
    return _Arguments(*(jax.device_put(a, where) for a, where in zip(arguments, put, strict=True)))


def _on_devices(*axes: str | None) -> NamedSharding:
    """Return how an array lies on the devices of this host, by what its leading axes are."""
    return NamedSharding(Mesh(np.array(jax.local_devices()), ("settings",)), PartitionSpec(*axes))


def _outputs(common: bool) -> tuple[Any, Any]:
    """Return how a state and its records lie on several devices; what one call gives the next one takes."""
    spread: Any = _on_devices(None, "settings")
    whole: Any = _on_devices()
    return State(SVIState(spread, None, whole if common else spread), spread, whole, spread), spread


_COMPILED: dict[tuple[object, ...], tuple[Compiled, Compiled]] = {}
_LOCKS: dict[tuple[object, ...], Lock] = {}
_GUARD = Lock()


def _executables(static: Program, arguments: _Arguments, call: _Call) -> tuple[Compiled, Compiled]:
    """Return the programs that start trainings and go on with them, for arguments of these shapes."""
    leaves, structure = jax.tree.flatten(arguments)
    key = (static, call, structure, tuple((np.shape(leaf), str(leaf.dtype)) for leaf in leaves))
    with _GUARD:
        lock = _LOCKS.setdefault(key, Lock())
    with lock:
        if key not in _COMPILED:
            with arithmetic():
                _COMPILED[key] = _compile(static, _placed(arguments, call.common), call)
    return _COMPILED[key]


def _compile(static: Program, arguments: _Arguments, call: _Call) -> tuple[Compiled, Compiled]:
    """Compile, for a block, what starts trainings and what goes on with them."""
    over_settings = _axes(key=None if call.common else 0)
    over_replicates = _axes(key=0)

    @traced_alone
    def start(
        numbers: Numbers,
        setting: MixturePair,
        rate: Array,
        words: Array,
        replicates: Array,
        stands: _Stands | None,
    ) -> State:
        def one(numbers: Numbers, setting: MixturePair, rate: Array, words: Array, replicate: Array) -> State:
            key = jax.random.wrap_key_data(words, impl="threefry2x32")
            key = jax.random.fold_in(jax.random.fold_in(key, 0), replicate)
            # As `train_sequence` has it.
            key = key if stands is None else jax.random.fold_in(key, stands.number)
            return initial_state(static, numbers, key, setting, rate)

        settings = jax.vmap(one, (0, 0, 0, None if call.common else 0, None), over_settings)
        begins, target = setting if stands is None else (stands.learners, setting[1])
        along = None if stands is None else (0, None)
        states = jax.vmap(settings, (None, along, None, None, 0), over_replicates)(
            numbers, (begins, target), rate, words, replicates
        )
        if stands is None:
            return states
        return states._replace(diverged_step=jnp.asarray(stands.diverged_step))

    @traced_alone
    def go(
        numbers: Numbers,
        state: State,
        counts: Array,
        recorded: Array,
        num_steps: Array,
        setting: MixturePair,
        rate: Array,
        learners: Mixture | None,
    ) -> tuple[State, dict[str, Array]]:
        def one(
            numbers: Numbers, state: State, setting: MixturePair, rate: Array
        ) -> tuple[State, dict[str, Array]]:
            state, taken = advance(static, numbers, state, counts, num_steps, setting, rate)
            _, guide, *_ = static.parts(numbers)
            diverged_step, records = report_of(guide, state.diverged_step, taken, recorded, setting)
            if learners is not None:
                # From these a next stage begins.
                records |= {f"{_PARAM}{name}": value for name, value in taken.params.items()}
            return state._replace(diverged_step=diverged_step), records

        def replicate(state: State, begins: Mixture | None) -> tuple[State, dict[str, Array]]:
            settings = jax.vmap(one, (0, over_settings, 0, 0), (over_settings, 0))
            return settings(numbers, state, setting if begins is None else (begins, setting[1]), rate)

        none: Any = None
        ended, records = lax.map(
            lambda each: replicate(each[0]._replace(step=state.step), each[1]),
            (state._replace(step=none), learners),
            batch_size=call.together,
        )
        return ended._replace(step=ended.step[0]), records

    numbers, setting, rate = arguments[:3]
    learners = None if arguments.stands is None else arguments.stands.learners
    counts, recorded = np.zeros(call.num_places, np.int64), np.zeros(call.num_places, bool)
    options: dict[str, Any] = {"compiler_options": compiler_options()}
    several = jax.local_device_count() > 1
    state_on, records_on = _outputs(call.common) if several else (None, None)
    started = jax.jit(start, out_shardings=state_on, **options).lower(*arguments).compile()
    state = started(*arguments) if several else jax.eval_shape(start, *arguments)
    going = jax.jit(go, out_shardings=(state_on, records_on) if several else None, **options).lower(
        numbers, state, counts, recorded, np.int64(1), setting, rate, learners
    )
    return started, going.compile()


def _axes(key: int | None) -> Any:
    """Return the axes of a state for ``vmap``: the step is that of all, the key may be."""
    none: Any = None
    first: Any = 0
    return State(SVIState(0, None, key), first, none, first)
