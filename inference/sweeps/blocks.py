"""Blocks of a sweep: settings × replicates that one call of one compiled program trains.

The program takes a fixed number of settings and replicates, whatever the grid, so that new grids find it
compiled; what a block lacks is filled up with copies. Where random numbers are common, the replicates of all
settings of a block share them: they are drawn once.
"""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Compiled
from jaxtyping import Array
from numpy.typing import ArrayLike
from numpyro.infer.svi import SVIState

from inference.engine.programs import Numbers, Program, traced_alone
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
from mixture_models.mixture.two_mode import Pair
from mixture_models.validation import InputError

# Places of a call, and samples between two looks at whether to stop. The many places leave few unused in
# trainings of 100, 200, 400 or 1000 recorded steps.
_PLACES, _SAMPLES_A_CALL = (4, 68), 2**25

# Samples that trainings on a CPU see in a step together.
_SAMPLES_AT_ONCE = 2**14


class Trained(NamedTuple):
    """What a block gives: variables of shape (setting, replicate, step, ...) and (setting, replicate)."""

    records: dict[str, np.ndarray]
    diverged_step: np.ndarray


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
            point = grid.at(objective, origin)
            program = program_at(point)
            shapes = first_record.eval_shape(program.static, program.numbers, (point.start, point.target))
            found.append({name: tuple(shape.shape) for name, shape in shapes.items()})
    if any(shapes != found[0] for shapes in found):
        raise InputError("objectives swept together must have learners that record the same variables")
    return found[0] | {"loss": ()}


def train_block(grid: Grid, cut: Geometry, block: Block, report: Callable[[int], None]) -> Trained:
    """Train what is in a block.

    Args:
        grid: the sweep's.
        cut: how it is cut.
        block: which piece.
        report: called between calls of the program, to be stopped there.
    """
    inside = positions(grid, cut, block)
    points = [grid.at(block.objective, position) for position in inside]
    programs = [program_at(point) for point in points]
    families: dict[Program, list[int]] = {}
    for index, program in enumerate(programs):
        families.setdefault(program.static, []).append(index)
    first = block.replicates * cut.replicates
    kept = min(cut.replicates, grid.num_replicates - first)
    parts: list[Trained] = []
    for static, members in families.items():
        chosen = [members[min(i, len(members) - 1)] for i in range(cut.settings)]
        trained = _call(
            grid, cut, static, [programs[i] for i in chosen], [points[i] for i in chosen], first, report
        )
        parts.append(jax.tree.map(lambda a, m=members: a[: len(m), :kept], trained))
    if len(parts) == 1:
        return parts[0]
    order = np.argsort([i for members in families.values() for i in members])
    result: Trained = jax.tree.map(lambda *arrays: np.concatenate(arrays)[order], *parts)
    return result


def compile_block(grid: Grid, cut: Geometry, block: Block) -> int:
    """Compile the programs of a block, and return the bytes that a call of the largest needs."""
    needed = 0
    inside = positions(grid, cut, block)
    points = [grid.at(block.objective, position) for position in inside]
    by_static = {program.static: (program, point) for point in points for program in [program_at(point)]}
    for static, (program, point) in by_static.items():
        arguments = _arguments(grid, cut, [program] * cut.settings, [point] * cut.settings, 0)
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
    num_places = _num_places(grid.steps, _samples_a_step(cut, point))
    return _Call(num_places, _together(cut, point), grid.common_random_numbers)


class _Arguments(NamedTuple):
    """What a compiled program takes, but for where it stands: leading axis settings where they differ."""

    numbers: Numbers
    setting: Pair
    rate: np.ndarray
    words: np.ndarray
    replicates: np.ndarray


def _arguments(
    grid: Grid, cut: Geometry, programs: Sequence[Program], points: Sequence[Training], first: int
) -> _Arguments:
    numbers = jax.tree.map(_stacked, *[program.numbers for program in programs])
    setting = jax.tree.map(_stacked, *[(point.start, point.target) for point in points])
    words = np.array([[p.seed >> 32, p.seed & 0xFFFFFFFF] for p in points], np.uint32)
    return _Arguments(
        numbers,
        setting,
        np.array([point.learning_rate for point in points]),
        words[0] if grid.common_random_numbers else words,
        np.arange(first, first + cut.replicates, dtype=np.int64),
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
    report: Callable[[int], None],
) -> Trained:
    """Train settings × replicates by one program."""
    with arithmetic():
        arguments = _placed(_arguments(grid, cut, programs, points, first), grid.common_random_numbers)
        counts, recorded = _plan(grid.steps, _samples_a_step(cut, points[0]))
        start, go = _executables(static, arguments, _call_of(grid, cut, points[0]))
        numbers, setting, rate = arguments.numbers, arguments.setting, arguments.rate
        state = start(*arguments)
        parts: list[dict[str, np.ndarray]] = []
        for taken, wanted in zip(counts, recorded, strict=True):
            report(0)
            state, records = go(numbers, state, taken, wanted, grid.steps[-1], setting, rate)
            if wanted.any():
                kept = slice(None) if wanted.all() else wanted
                parts.append({n: a.swapaxes(0, 1)[:, :, kept] for n, a in jax.device_get(records).items()})
    joined = {n: np.concatenate([p[n] for p in parts], axis=2) for n in parts[0]}
    return Trained(joined, np.asarray(state.diverged_step).T)


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
    spread, whole = _on_devices("settings"), _on_devices()
    put = (spread, spread, spread, whole if common else spread, whole)
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
    def start(numbers: Numbers, setting: Pair, rate: Array, words: Array, replicates: Array) -> State:
        def one(numbers: Numbers, setting: Pair, rate: Array, words: Array, replicate: Array) -> State:
            key = jax.random.wrap_key_data(words, impl="threefry2x32")
            key = jax.random.fold_in(jax.random.fold_in(key, 0), replicate)
            return initial_state(static, numbers, key, setting, rate)

        settings = jax.vmap(one, (0, 0, 0, None if call.common else 0, None), over_settings)
        return jax.vmap(settings, (None, None, None, None, 0), over_replicates)(
            numbers, setting, rate, words, replicates
        )

    @traced_alone
    def go(
        numbers: Numbers,
        state: State,
        counts: Array,
        recorded: Array,
        num_steps: Array,
        setting: Pair,
        rate: Array,
    ) -> tuple[State, dict[str, Array]]:
        def one(numbers: Numbers, state: State, setting: Pair, rate: Array) -> tuple[State, dict[str, Array]]:
            state, taken = advance(static, numbers, state, counts, num_steps, setting, rate)
            _, guide, *_ = static.parts(numbers)
            diverged_step, records = report_of(guide, state.diverged_step, taken, recorded, setting)
            return state._replace(diverged_step=diverged_step), records

        def replicate(state: State) -> tuple[State, dict[str, Array]]:
            settings = jax.vmap(one, (0, over_settings, 0, 0), (over_settings, 0))
            return settings(numbers, state, setting, rate)

        none: Any = None
        ended, records = lax.map(
            lambda each: replicate(each._replace(step=state.step)),
            state._replace(step=none),
            batch_size=call.together,
        )
        return ended._replace(step=ended.step[0]), records

    numbers, setting, rate = arguments[:3]
    counts, recorded = np.zeros(call.num_places, np.int64), np.zeros(call.num_places, bool)
    options: dict[str, Any] = {"compiler_options": compiler_options()}
    several = jax.local_device_count() > 1
    state_on, records_on = _outputs(call.common) if several else (None, None)
    started = jax.jit(start, out_shardings=state_on, **options).lower(*arguments).compile()
    state = started(*arguments) if several else jax.eval_shape(start, *arguments)
    going = jax.jit(go, out_shardings=(state_on, records_on) if several else None, **options).lower(
        numbers, state, counts, recorded, np.int64(1), setting, rate
    )
    return started, going.compile()


def _axes(key: int | None) -> Any:
    """Return the axes of a state for ``vmap``: the step is that of all, the key may be."""
    none: Any = None
    first: Any = 0
    return State(SVIState(0, None, key), first, none, first)
