"""Sequences of post-trainings: each stage begins where the one before it ended, in every replicate."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array
from tqdm.auto import tqdm

from inference import results
from inference.engine import memory
from inference.engine.blas import on_one_thread
from inference.engine.chunks import chunk_sizes, run_together
from inference.engine.programs import Program
from inference.progress import hidden
from inference.results.sequence import sequence_tree
from inference.storage import kept
from inference.training.checks import check_batch, check_rewards
from inference.training.loop import arithmetic, first_record
from inference.training.replicates import Batched, Schedule, check_batches, compile_run, run, schedule_of
from inference.training.settings import training_settings
from inference.training.stages import Stage, check_stages
from mixture_models.mixture.mixture import Mixture, MixturePair
from mixture_models.validation import InputError

# What is kept of a stage.
_PARTS, _DIVERGED = ("record", "param", "lost"), "diverged_step"

# Of what is recorded: as it is trained, joined over chunks, joined over stages, and handed on.
_COPIES = 4


@on_one_thread
def train_sequence(
    stages: Sequence[Stage],
    start: Mixture,
    *,
    batch_size: int,
    learning_rate: float,
    num_replicates: int,
    seed: int,
    record_every: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate_factors: Mapping[str, float] | None = None,
    precision: str = "float64",
    dimension: int | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """Train stage after stage, ``num_replicates`` times, on fresh batches.

    Stage s begins at the params that stage s-1 of the same replicate ended with. Companions, and what an
    optimizer remembers, begin with their stage: a reference policy is the learner at the stage's start. Equal
    seeds give replicate i of stage s equal random numbers whatever the objectives, so that sequences are
    paired. Stages that differ in numbers only share a compiled program, and within
    `inference.storage.kept.keeping` finished stages are kept.

    Args:
        stages: what is trained, in this order.
        start: the learner before the first stage; tasks that no stage teaches count as known.
        batch_size: samples seen in an update, at least 1 (2 for a leave-one-out baseline).
        learning_rate: η > 0.
        num_replicates: number of independent sequences.
        seed: whole number; equal seeds give equal numbers.
        record_every: steps between two records; the last step of every stage is always recorded.
        optimizer: an optax transformation in the place of plain SGD; it holds its own learning rate.
        learning_rate_factors: multiplies the updates of the params it names; 0 freezes one.
        precision: ``"float64"`` or the faster ``"float32"``, see `mixture_models.losses.precision`.
        dimension: of samples, of any size, as in `train`: all stages are simulated in the span of the means
            of the start and of all targets.
        progress: whether a terminal shows a progress bar.

    Returns:
        DataTree with ``/trajectory`` (dims chain, draw, step over all stages, and task or feature; coordinate
        ``stage`` along step), ``/stages`` (dim stage, 0 the start: what is recorded at the end of each),
        ``/forgetting`` (dims chain, draw, task, see `inference.results.sequence.forgetting_of`),
        ``/trajectory_stats`` (``diverged_step``, -1 for none) and ``/constant_data``. A replicate that
        diverges is NaN from then on, in all later stages too.

    Raises:
        InputError: an argument out of range, before anything is computed.
    """
    checked = check_stages(stages, start)
    own = training_settings(
        batch_size=batch_size,
        learning_rate=learning_rate,
        num_replicates=num_replicates,
        seed=seed,
        record_every=record_every,
        optimizer=optimizer,
        learning_rate_factors=learning_rate_factors,
        precision=precision,
        dimension=dimension,
        progress=progress,
    )
    for stage in checked:
        check_rewards([stage.objective], start, stage.target)
    begin, problems = own.trained(start, [(stage.objective, stage.target) for stage in checked])
    check_batch(own.batch_size, begin.dim)
    with arithmetic():
        num_chunks, size = chunk_sizes(own.num_replicates)
        legs = [
            _Leg(
                own.program_of(objective),
                jax.tree.map(jnp.asarray, target),
                schedule_of(results.recorded_steps(stage.num_steps, own.record_every), own.batch_size * size),
                (objective, target, stage.num_steps, *own.facts),
            )
            for stage, (objective, target) in zip(checked, problems, strict=True)
        ]
        recorded = [
            set(first_record.eval_shape(leg.program.static, leg.program.numbers, (begin, leg.target)))
            for leg in legs
        ]
        if any(names != recorded[0] for names in recorded):
            raise InputError("all stages must have learners that record the same variables")
        floats = start.num_tasks * (8 + 2 * begin.dim) * own.num_replicates
        memory.check_fits(
            "what is recorded",
            _COPIES * 8.0 * floats * sum(stage.num_steps // own.record_every + 2 for stage in checked),
            "take fewer replicates, steps or stages, or record fewer steps (record_every)",
        )
        chunks, rate = own.keys(0), jnp.asarray(own.learning_rate)
        begins = _Place(
            {name: np.repeat(np.asarray(v, float)[None], size, axis=0) for name, v in begin.params().items()},
            np.full(size, -1, np.int32),
        )
        runs = [
            (Batched(leg.program, own_starts=True), _setting(leg, begin, begins), leg.schedule)
            for leg in legs
        ]
        check_batches(runs, chunks[0], rate, own.batch_size)
        compiling = {
            leg.program.static: partial(compile_run, batched, chunks[0], setting, rate, schedule)
            for leg, (batched, setting, schedule) in reversed(list(zip(legs, runs, strict=True)))
        }
        run_together(list(compiling.values()), arithmetic, lambda _: None)
        tasks: list[Callable[..., tuple[list[dict[str, np.ndarray]], np.ndarray]]] = [
            partial(_through, legs, chunk, begin, begins, rate, own.record_every, kept.folder())
            for chunk in chunks
        ]
        total = num_chunks * size * sum(stage.num_steps for stage in checked)
        with tqdm(total=total, unit="step", unit_scale=True, disable=hidden(progress)) as bar:
            ended = run_together(tasks, arithmetic, bar.update)
    records, diverged_step = jax.tree.map(
        lambda *chunks: np.concatenate(chunks)[: own.num_replicates], *ended
    )
    steps = [results.recorded_steps(stage.num_steps, own.record_every) for stage in checked]
    return sequence_tree(checked, start, records, steps, diverged_step, own.listed())


class _Leg(NamedTuple):
    """What a stage runs: its program, target and schedule, and the facts that determine it."""

    program: Program
    target: Mixture
    schedule: Schedule
    facts: object


class _Place(NamedTuple):
    """Where a chunk of replicates is: params of shape (replicate, ...), and the steps of divergence."""

    params: dict[str, np.ndarray]
    diverged_step: np.ndarray


def _through(
    legs: Sequence[_Leg],
    keys: Array,
    start: Mixture,
    place: _Place,
    learning_rate: Array,
    record_every: int,
    folder: Path | None,
    report: Callable[[int], None],
) -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
    """Take one chunk of replicates through all stages, kept ones as they are.

    Returns:
        What each stage recorded, and the steps of divergence, counted over all stages.
    """
    found, passed = [], 0
    for number, leg in enumerate(legs):
        own = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys)
        of_stage = (leg.facts, record_every, start, place, passed, np.asarray(jax.random.key_data(own)))
        train = partial(_run, leg, own, start, place, learning_rate, passed, report)
        records, params, lost = kept.groups(("stage", of_stage), _PARTS, train, folder=folder)
        found.append(records)
        place = _Place(params, lost[_DIVERGED])
        passed += leg.schedule.num_steps
    return found, place.diverged_step


def _setting(leg: _Leg, start: Mixture, place: _Place) -> MixturePair:
    """Return where every replicate begins a stage, and the stage's target."""
    # Every array of the mixture gets the axis of replicates, also one that is the same in all.
    return jax.vmap(start.at)({n: jnp.asarray(a) for n, a in place.params.items()}), leg.target


def _run(
    leg: _Leg,
    keys: Array,
    start: Mixture,
    place: _Place,
    learning_rate: Array,
    passed: int,
    report: Callable[[int], None],
) -> tuple[dict[str, np.ndarray], ...]:
    """Train one chunk of replicates through one stage; return the groups `_PARTS` of what is left of it."""
    before = jnp.asarray(np.where(place.diverged_step >= 0, 0, -1), jnp.int32)
    batched, setting = Batched(leg.program, own_starts=True), _setting(leg, start, place)
    ended = run(batched, keys, setting, learning_rate, leg.schedule, report, before)
    own = np.where(ended.diverged_step >= 0, ended.diverged_step + passed, -1)
    lost = np.where(place.diverged_step >= 0, place.diverged_step, own)
    return ended.records, ended.params, {_DIVERGED: lost}
