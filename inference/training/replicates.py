"""Replicates of one training side by side: a chunk of them goes through its programs, call after call."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int

from inference.engine import memory
from inference.engine.chunks import num_threads
from inference.engine.programs import Numbers, Program, compiled, program_of
from inference.training.loop import State, Taken, advance, initial_state, report_of
from mixture_models.mixture.mixture import MixturePair
from mixture_models.types import AnyArray, Index, Params

# A training is cut into calls of one program, of at most about as many samples, so that progress shows and
# Ctrl-C is heard; the number of records in a call is a power of two, so that other lengths find the program.
_SAMPLES, _FEWEST_RECORDS = 2**24, 64

# At most, of a program of the engines, for every coordinate of every sample in a batch: 65 were found.
_BYTES_A_NUMBER = 80


class Schedule(NamedTuple):
    """How a training is cut: ``counts[i, j]`` updates after record j of call i, and the last step."""

    counts: np.ndarray
    num_steps: int


class Ended(NamedTuple):
    """What is left of a chunk.

    Attributes:
        records: variables of shape (replicate, record, ...).
        params: at the end, of shape (replicate, ...).
        diverged_step: of every replicate, -1 for none.
    """

    records: dict[str, np.ndarray]
    params: dict[str, np.ndarray]
    diverged_step: np.ndarray


class Batched(NamedTuple):
    """What is compiled: a program, and whether every replicate has a start of its own."""

    program: Program
    own_starts: bool = False

    @property
    def axes(self) -> tuple[int | None, None]:
        """The axes of replicates in start and target, for ``vmap``."""
        return 0 if self.own_starts else None, None


def schedule_of(steps: np.ndarray, batch: int) -> Schedule:
    """Cut a training into calls of equal shape, given the recorded steps and the samples in a step."""
    # The last record takes one more update, for its loss; the state after it is not used.
    counts = np.append(np.diff(steps), 1)
    records = max(_FEWEST_RECORDS, 2 ** int(np.ceil(np.log2(len(counts)))))
    while records > 1 and records * int(counts[0]) * batch > _SAMPLES:
        records //= 2
    return Schedule(np.pad(counts, (0, -len(counts) % records)).reshape(-1, records), int(steps[-1]))


def run(
    batched: Batched,
    keys: Array,
    setting: MixturePair,
    learning_rate: Array,
    schedule: Schedule,
    report: Callable[[int], None] | None = None,
    diverged_step: Array | None = None,
) -> Ended:
    """Train one chunk of replicates, one a key.

    Args:
        batched: the training's program, with its numbers.
        keys: of all random numbers.
        setting: start and target.
        learning_rate: of plain SGD.
        schedule: how the training is cut.
        report: called with the steps taken after every call.
        diverged_step: of every replicate before the first step; None where none is lost.
    """
    numbers, static = batched.program.numbers, batched._replace(program=batched.program.static)
    state = _initialise(static, numbers, keys, setting, learning_rate)
    if diverged_step is not None:
        state = state._replace(diverged_step=diverged_step)
    _, guide, *_ = batched.program.parts(numbers)
    learner = program_of(guide)
    reported, parts = batched._replace(program=learner.static), []
    for counts in schedule.counts:
        state, taken = _advance(static, numbers, state, counts, schedule.num_steps, setting, learning_rate)
        lost, records = _report(reported, learner.numbers, state.diverged_step, taken, counts > 0, setting)
        state = state._replace(diverged_step=lost)
        parts.append(jax.device_get(records))
        if report is not None:
            report(int(counts.sum()) * len(keys))
    count, last = np.count_nonzero(schedule.counts), np.count_nonzero(counts) - 1
    joined = {name: np.concatenate([part[name] for part in parts], axis=1)[:, :count] for name in parts[0]}
    # The last record is of the params at the end: one more update is taken for its loss alone.
    ends = {name: np.asarray(value)[:, last] for name, value in taken.params.items()}
    return Ended(joined, ends, np.asarray(state.diverged_step))


def compile_run(
    batched: Batched,
    keys: Array,
    setting: MixturePair,
    learning_rate: Array,
    schedule: Schedule,
    report: Callable[[int], None],
) -> None:
    """Compile what `run` calls, by a call that takes no step."""
    run(batched, keys, setting, learning_rate, schedule._replace(counts=0 * schedule.counts[:1]))


def bytes_of_call(
    batched: Batched, keys: Array, setting: MixturePair, learning_rate: Array, schedule: Schedule
) -> int:
    """Return the bytes that a call of `run` holds beside its arguments, by compiling it."""
    numbers, static = batched.program.numbers, batched._replace(program=batched.program.static)
    state = _initialise.eval_shape(static, numbers, keys, setting, learning_rate)  # type: ignore[attr-defined]
    lowered = _advance.lower(  # type: ignore[attr-defined]
        static, numbers, state, schedule.counts[0], schedule.num_steps, setting, learning_rate
    )
    return int(lowered.compile().memory_analysis().temp_size_in_bytes)


def check_batches(
    runs: Sequence[tuple[Batched, MixturePair, Schedule]], keys: Array, learning_rate: Array, batch_size: int
) -> None:
    """Refuse batches that do not fit into memory, before a program holds any.

    Args:
        runs: what is trained, each toward its setting.
        keys: of a chunk.
        learning_rate: of plain SGD.
        batch_size: samples in an update.
    """
    threads = num_threads()
    numbers = len(keys) * batch_size * max(target.dim for _, (_, target), _ in runs)
    if _BYTES_A_NUMBER * threads * numbers < 0.5 * memory.free():
        return
    # Only then is it worth compiling twice to know what a program needs.
    several = {
        (batched.program.static, schedule.counts.shape): (batched, keys, setting, learning_rate, schedule)
        for batched, setting, schedule in runs
    }
    needed = threads * max(bytes_of_call(*call) for call in several.values())
    memory.check_fits(f"what {threads} batches take at once", needed, "take a smaller batch_size")


@compiled
def _initialise(
    batched: Batched, numbers: Numbers, keys: Array, setting: MixturePair, learning_rate: Array
) -> State:
    def one(key: Array, setting: MixturePair) -> State:
        return initial_state(batched.program, numbers, key, setting, learning_rate)

    return jax.vmap(one, (0, batched.axes))(keys, setting)


@compiled
def _advance(
    batched: Batched,
    numbers: Numbers,
    states: State,
    counts: Int[AnyArray, "place"],
    num_steps: Index,
    setting: MixturePair,
    learning_rate: Array,
) -> tuple[State, Taken]:
    """Take ``counts[i]`` updates after place i, for every replicate."""

    def one(state: State, setting: MixturePair) -> tuple[State, Taken]:
        return advance(batched.program, numbers, state, counts, num_steps, setting, learning_rate)

    return jax.vmap(one, (0, batched.axes))(states, setting)


# A program by itself, which objectives and stages with the same learner share.
@compiled
def _report(
    learner: Batched,
    numbers: Numbers,
    diverged_step: Array,
    taken: Taken,
    recorded: Array,
    setting: MixturePair,
) -> tuple[Array, Params]:
    """Return what `report_of` says of every replicate."""

    def one(diverged_step: Array, taken: Taken, setting: MixturePair) -> tuple[Array, Params]:
        guide = learner.program.parts(numbers)
        return report_of(guide, diverged_step, taken, recorded, setting)

    return jax.vmap(one, (0, 0, learner.axes))(diverged_step, taken, setting)
