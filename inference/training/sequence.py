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
from jaxtyping import Array, Int
from tqdm.auto import tqdm

from inference import results
from inference.engine import memory
from inference.engine.blas import on_one_thread
from inference.engine.chunks import chunk_sizes, run_together
from inference.engine.programs import Numbers, Program, compiled, program_of
from inference.progress import hidden
from inference.results.sequence import sequence_tree
from inference.storage import kept
from inference.training.checks import check_batch, check_factors, check_optimizer, check_rewards
from inference.training.loop import (
    State,
    Taken,
    advance,
    arithmetic,
    first_record,
    initial_state,
    report_of,
    training_program,
)
from inference.training.span import check_plain, check_span, in_span
from inference.training.stages import Stage, check_stages
from inference.training.train import Plan, plan_of
from mixture_models.mixture.mixture import Mixture, MixturePair
from mixture_models.types import AnyArray, Index, Params
from mixture_models.validation import InputError, flag, integer, positive

# Among the arrays of a stage that is kept.
_PARAM, _DIVERGED = "param ", "diverged_step"

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
    record_every = integer("record_every", record_every)
    num_replicates = integer("num_replicates", num_replicates)
    seed = integer("seed", seed, at_least=0, at_most=2**63 - 1)
    batch_size, rate = integer("batch_size", batch_size), positive("learning_rate", learning_rate)
    factors = check_factors(learning_rate_factors)
    check_optimizer(optimizer)
    for stage in checked:
        check_rewards([stage.objective], start, stage.target)
    begin, problems = start, [(stage.objective, stage.target) for stage in checked]
    if dimension is not None:
        check_plain(optimizer)
        for objective, target in problems:
            check_span(objective, start, target)
        begin, problems = in_span(start, problems, dimension)
    check_batch(batch_size, begin.dim)
    settings = {
        "objectives": [stage.objective.name for stage in checked],
        "tasks": [stage.task for stage in checked],
        "num_steps": [stage.num_steps for stage in checked],
        "batch_size": batch_size,
        "learning_rate": rate,
        "num_replicates": num_replicates,
        "seed": seed,
        "record_every": record_every,
        "optimizer": "sgd" if optimizer is None else "given by the caller",
        "learning_rate_factors": factors,
        "precision": precision,
    } | ({} if dimension is None else {"dimension": dimension})
    flag("progress", progress)
    with arithmetic():
        num_chunks, size = chunk_sizes(num_replicates)
        legs = [
            _Leg(
                training_program(objective, batch_size, optimizer, factors, precision),
                jax.tree.map(jnp.asarray, target),
                plan_of(results.recorded_steps(stage.num_steps, record_every), batch_size * size),
                (
                    objective,
                    target,
                    stage.num_steps,
                    batch_size,
                    optimizer,
                    factors,
                    precision,
                    rate,
                ),
            )
            for stage, (objective, target) in zip(checked, problems, strict=True)
        ]
        recorded = [
            set(first_record.eval_shape(leg.program.static, leg.program.numbers, (begin, leg.target)))
            for leg in legs
        ]
        if any(names != recorded[0] for names in recorded):
            raise InputError("all stages must have learners that record the same variables")
        floats = start.num_tasks * (8 + 2 * begin.dim) * num_replicates
        memory.check_fits(
            "what is recorded",
            _COPIES * 8.0 * floats * sum(stage.num_steps // record_every + 2 for stage in checked),
            "take fewer replicates, steps or stages, or record fewer steps (record_every)",
        )
        key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), 0)
        keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(num_chunks * size))
        chunks = keys.reshape(num_chunks, size)
        begins = _Place(
            {name: np.repeat(np.asarray(v, float)[None], size, axis=0) for name, v in begin.params().items()},
            np.full(size, -1, np.int32),
        )
        settings_of = jnp.asarray(rate)
        first = {leg.program.static: leg for leg in reversed(legs)}
        compiling: list[Callable[..., object]] = [
            partial(_compile, leg, chunks[0], begin, begins, settings_of) for leg in first.values()
        ]
        run_together(compiling, arithmetic, lambda _: None)
        tasks: list[Callable[..., list[dict[str, np.ndarray]]]] = [
            partial(_through, legs, chunk, begin, begins, settings_of, record_every, kept.folder())
            for chunk in chunks
        ]
        total = num_chunks * size * sum(stage.num_steps for stage in checked)
        with tqdm(total=total, unit="step", unit_scale=True, disable=hidden(progress)) as bar:
            ended = run_together(tasks, arithmetic, bar.update)
    joined = [
        {name: np.concatenate([chunk[s][name] for chunk in ended])[:num_replicates] for name in ended[0][s]}
        for s in range(len(checked))
    ]
    records = [
        {name: array for name, array in stage.items() if not name.startswith(_PARAM) and name != _DIVERGED}
        for stage in joined
    ]
    steps = [results.recorded_steps(stage.num_steps, record_every) for stage in checked]
    return sequence_tree(
        records,
        steps,
        joined[-1][_DIVERGED],
        [stage.task for stage in checked],
        [stage.objective for stage in checked],
        {"start": start, "target": checked[-1].target},
        [stage.target for stage in checked],
        settings,
    )


class _Leg(NamedTuple):
    """What a stage runs: its program, target and plan, and the facts that determine it."""

    program: Program
    target: Mixture
    plan: Plan
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
) -> list[dict[str, np.ndarray]]:
    """Take one chunk of replicates through all stages; return what each recorded, kept stages as they are."""
    found, passed = [], 0
    for number, leg in enumerate(legs):
        own = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys)
        facts = (
            "sequence",
            leg.facts,
            record_every,
            start,
            place,
            passed,
            np.asarray(jax.random.key_data(own)),
        )
        stage = kept.arrays(
            facts,
            partial(_run, leg, own, start, place, learning_rate, passed, report),
            folder=folder,
        )
        found.append(stage)
        params = {n.removeprefix(_PARAM): a for n, a in stage.items() if n.startswith(_PARAM)}
        place = _Place(params, stage[_DIVERGED])
        passed += leg.plan.num_steps
    return found


def _compile(
    leg: _Leg, keys: Array, start: Mixture, place: _Place, learning_rate: Array, report: Callable[[int], None]
) -> None:
    """Compile what `_run` calls, by a call that takes no step."""
    plan = leg.plan._replace(counts=0 * leg.plan.counts[:1])
    _run(leg._replace(plan=plan), keys, start, place, learning_rate, 0, report)


def _run(
    leg: _Leg,
    keys: Array,
    start: Mixture,
    place: _Place,
    learning_rate: Array,
    passed: int,
    report: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """Train one chunk of replicates through one stage.

    Returns:
        What is recorded, shape (replicate, record, ...), the params at the end, and the steps of divergence,
        counted over all stages.
    """
    program, parts = leg.program, []
    static, numbers = program.static, program.numbers
    # Every array of the mixture gets the axis of replicates, also one that is the same in all.
    setting = (jax.vmap(start.at)({n: jnp.asarray(a) for n, a in place.params.items()}), leg.target)
    state = _initialise(static, numbers, keys, setting, learning_rate)
    before = jnp.asarray(np.where(place.diverged_step >= 0, 0, -1), jnp.int32)
    state = state._replace(diverged_step=before)
    _, guide, *_ = program.parts(numbers)
    learner = program_of(guide)
    for counts in leg.plan.counts:
        state, taken = _advance(static, numbers, state, counts, leg.plan.num_steps, setting, learning_rate)
        diverged_step, records = _report(
            learner.static, learner.numbers, state.diverged_step, taken, counts > 0, setting
        )
        state = state._replace(diverged_step=diverged_step)
        parts.append(jax.device_get((records, taken.params)))
        report(int(counts.sum()) * len(keys))
    joined = {n: np.concatenate([part[0][n] for part in parts], axis=1) for n in parts[0][0]}
    # The last record is of the params at the end: one more update is taken for its loss alone.
    count = int(np.sum(leg.plan.counts > 0))
    ends = {n: np.concatenate([part[1][n] for part in parts], axis=1)[:, count - 1] for n in parts[0][1]}
    own = np.asarray(state.diverged_step)
    diverged = np.where(place.diverged_step >= 0, place.diverged_step, np.where(own >= 0, own + passed, -1))
    return (
        {name: array[:, :count] for name, array in joined.items()}
        | {f"{_PARAM}{name}": array for name, array in ends.items()}
        | {_DIVERGED: diverged}
    )


@compiled
def _initialise(
    program: Program, numbers: Numbers, keys: Array, setting: MixturePair, learning_rate: Array
) -> State:
    begins, target = setting
    return jax.vmap(lambda key, begin: initial_state(program, numbers, key, (begin, target), learning_rate))(
        keys, begins
    )


@compiled
def _advance(
    program: Program,
    numbers: Numbers,
    states: State,
    counts: Int[AnyArray, "place"],
    num_steps: Index,
    setting: MixturePair,
    learning_rate: Array,
) -> tuple[State, Taken]:
    """Take ``counts[i]`` updates after place i, for every replicate."""
    begins, target = setting

    def one(state: State, begin: Mixture) -> tuple[State, Taken]:
        return advance(program, numbers, state, counts, num_steps, (begin, target), learning_rate)

    return jax.vmap(one)(states, begins)


# A program by itself, which stages with the same learner share.
@compiled
def _report(
    learner: Program,
    numbers: Numbers,
    diverged_step: Array,
    taken: Taken,
    recorded: Array,
    setting: MixturePair,
) -> tuple[Array, Params]:
    """Return what `report_of` says of every replicate."""
    begins, target = setting

    def one(diverged_step: Array, taken: Taken, begin: Mixture) -> tuple[Array, Params]:
        return report_of(learner.parts(numbers), diverged_step, taken, recorded, (begin, target))

    return jax.vmap(one)(diverged_step, taken, begins)
