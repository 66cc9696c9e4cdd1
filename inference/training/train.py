"""Finite-batch training: thousands of SVI runs of an objective at once, in one compiled program."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial
from jaxtyping import Array, Int
from numpyro.infer.svi import SVIState
from tqdm.auto import tqdm

from inference import results
from inference.engine import memory
from inference.engine.blas import on_one_thread
from inference.engine.chunks import chunk_sizes, num_threads, run_together
from inference.engine.programs import Numbers, Program, compiled, program_of, traced_alone
from inference.storage import kept
from inference.training.span import check_span, in_span
from inference.training.steps import Steps, steps_of
from mixture_models.learners import Guide
from mixture_models.losses.precision import in_precision
from mixture_models.mixture.sensible_range import has_left
from mixture_models.mixture.two_mode import Pair, TwoMode
from mixture_models.objectives import Objective
from mixture_models.objectives.companions import Companion
from mixture_models.rewards import check_finite
from mixture_models.types import AnyArray, Index, Params, Scalar
from mixture_models.validation import InputError, flag, integer, number, positive

# A training is cut into calls of one program, of at most about as many samples, so that progress shows and
# Ctrl-C is heard; the number of records in a call is a power of two, so that other lengths find the program.
_SAMPLES, _FEWEST_RECORDS = 2**24, 64

# Among the variables of a chunk that is kept.
_DIVERGED = "diverged_step"

#: Random numbers of a batch.
MOST_NUMBERS = 2**32 - 1

# Of what is recorded: as it is trained, joined, stacked by objective, and handed on.
_COPIES = 3

# At most, of a program of the engines, for every coordinate of every sample in a batch.
_BYTES_A_NUMBER = 64

#: Steps are counted in 32 bits.
MOST_STEPS = 2**31 - 2


@on_one_thread
def train(
    objectives: Objective | Sequence[Objective],
    start: TwoMode,
    target: TwoMode,
    *,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    num_replicates: int,
    seed: int,
    record_every: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate_factors: Mapping[str, float] | None = None,
    common_random_numbers: bool = True,
    precision: str = "float64",
    dimension: int | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """Train every objective from ``start``, ``num_replicates`` times, on fresh batches.

    One step is θ ← θ - η f ∘ ĝ(θ), where ĝ is the minibatch gradient of the objective's divergence, η the
    learning rate and f the learning rate factors. Arithmetic is float64, whatever the caller's
    setting, on float32 random numbers; with ``precision="float32"`` a batch's densities are float32 too.

    Args:
        objectives: one objective or several; those that differ in numbers only share a program.
        start: the learner's parameters at step 0.
        target: the true target; its modes must differ.
        num_steps: number of updates, at least 1.
        batch_size: samples seen in an update, at least 1 (2 for a leave-one-out baseline).
        learning_rate: η > 0.
        num_replicates: number of independent trainings of each objective.
        seed: whole number; equal seeds give equal numbers.
        record_every: steps between two records; step 0 and the last step are always recorded.
        optimizer: an optax transformation in the place of plain SGD; it holds its own learning rate.
        learning_rate_factors: multiplies the updates of the params it names; 0 freezes one.
        common_random_numbers: whether replicate i of every objective sees the same random numbers, so that
            differences between objectives are paired.
        precision: ``"float64"`` or the faster ``"float32"``, see `mixture_models.losses.precision`.
        dimension: of samples, of any size; start and target name the first coordinates of their means, and
            the others are 0. The training is simulated in the span of the means, see `span`: the law of what
            is recorded is the same, vectors are not recorded, and the cost does not grow with it.
            For plain SGD, two modes, and one covariance that is a multiple of the identity. None simulates
            all coordinates of start and target.
        progress: whether a terminal shows a progress bar.

    Returns:
        DataTree with ``/trajectory`` (dims objective, chain, draw, step, and feature), ``/final`` and
        ``/trajectory_stats`` (``diverged_step``, -1 for none). A replicate that becomes non-finite, or
        leaves the range of `mixture_models.mixture.sensible_range`, is NaN from then on. ``loss`` is the
        divergence's estimate at the recorded parameters, in nats.

    Raises:
        InputError: an argument out of range, before anything is computed.
    """
    chosen = check_objectives(objectives)
    num_steps = integer("num_steps", num_steps, at_most=MOST_STEPS)
    record_every = integer("record_every", record_every)
    num_replicates = integer("num_replicates", num_replicates)
    seed = integer("seed", seed, at_least=0, at_most=2**63 - 1)
    batch_size, learning_rate = integer("batch_size", batch_size), positive("learning_rate", learning_rate)
    check_setting(start, target)
    factors = check_factors(learning_rate_factors)
    if not (optimizer is None or isinstance(optimizer, optax.GradientTransformation)):
        raise InputError(
            f"optimizer must be an optax.GradientTransformation such as optax.adam(0.05); got {optimizer!r}"
        )
    check_rewards(chosen, start, target)
    problems = [(objective, start, target) for objective in chosen]
    if dimension is not None:
        dimension = integer("dimension", dimension)
        if optimizer is not None:
            raise InputError("optimizer must be None for dimension to be given: plain SGD; got another one")
        for problem in problems:
            check_span(*problem)
        problems = [in_span(*problem, dimension) for problem in problems]
    settings = {
        "objectives": [objective.name for objective in chosen],
        "num_steps": num_steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "num_replicates": num_replicates,
        "seed": seed,
        "record_every": record_every,
        "optimizer": "sgd" if optimizer is None else "given by the caller",
        "learning_rate_factors": factors,
        "common_random_numbers": flag("common_random_numbers", common_random_numbers),
        "precision": precision,
    } | ({} if dimension is None else {"dimension": dimension})
    with arithmetic():
        programs = [
            training_program(objective, batch_size, optimizer, factors, precision)
            for objective, *_ in problems
        ]
        mixtures = [(inner_start, inner_target) for _, inner_start, inner_target in problems]
        recorded = [_recorded(*pair) for pair in zip(programs, mixtures, strict=True)]
        if any(set(shapes) != set(recorded[0]) for shapes in recorded):
            raise InputError("objectives trained together must have learners that record the same variables")
        num_chunks, size = chunk_sizes(num_replicates)
        check_batch(batch_size, max(inner_start.dim for inner_start, _ in mixtures))
        floats = len(problems) * num_replicates * (1 + sum(map(math.prod, recorded[0].values())))
        memory.check_fits(
            "what is recorded",
            _COPIES * 8.0 * floats * (num_steps // record_every + 2),
            "take fewer replicates, steps or objectives, or record fewer steps (record_every)",
        )
        steps = results.recorded_steps(num_steps, record_every)
        settings_of, rate = jax.tree.map(jnp.asarray, mixtures), jnp.asarray(learning_rate)
        plan = _plan(steps, batch_size * size)
        compiling: dict[Program, Callable[..., None]] = {}
        tasks: list[Callable[..., _Ended]] = []
        for index, (program, setting) in enumerate(zip(programs, settings_of, strict=True)):
            key = jax.random.key(seed, impl="threefry2x32")
            key = jax.random.fold_in(key, 0 if common_random_numbers else index)
            # Keys by number, not by splitting: a run with more replicates begins with those of a smaller.
            keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(num_chunks * size))
            chunks = keys.reshape(num_chunks, size)
            compiling[program.static] = partial(_compile, program, chunks[0], setting, rate, plan)
            facts = (problems[index], batch_size, optimizer, factors, precision, learning_rate, steps)
            tasks += [
                partial(
                    _kept,
                    partial(_run, program, chunk, setting, rate, plan),
                    (*facts, np.asarray(jax.random.key_data(chunk))),
                    kept.folder(),
                )
                for chunk in chunks
            ]
        _check_batches(programs, mixtures, settings_of, chunks[0], rate, plan, batch_size)
        # Before the trainings: threads that share a program would each compile it.
        run_together(list(compiling.values()), arithmetic, lambda _: None)
        total = len(tasks) * size * int(plan.counts.sum())
        with tqdm(total=total, unit="step", unit_scale=True, disable=None if progress else True) as bar:
            ended = run_together(tasks, arithmetic, bar.update)
    trajectories, diverged_steps = [], []
    for parts in zip(*[iter(ended)] * num_chunks, strict=True):
        joined = jax.tree.map(lambda *arrays: np.concatenate(arrays)[:num_replicates], *parts)
        trajectories.append({name: array[:, : len(steps)] for name, array in joined.records.items()})
        diverged_steps.append(joined.diverged_step)
    return results.training_tree(
        chosen, trajectories, diverged_steps, steps, {"start": start, "target": target}, settings
    )


@contextmanager
def arithmetic() -> Iterator[None]:
    """Hold the settings of JAX that training needs, in the thread that enters."""
    # On a CPU these random numbers are cheaper than the partitionable ones.
    with jax.enable_x64(True), jax.threefry_partitionable(False):
        yield


class _Plan(NamedTuple):
    """How a training is cut: ``counts[i, j]`` updates after record j of call i, and the last step."""

    counts: np.ndarray
    num_steps: int


class _Ended(NamedTuple):
    """What is left of a chunk: variables of shape (replicate, record, ...) and the steps of divergence."""

    records: dict[str, np.ndarray]
    diverged_step: np.ndarray


class State(NamedTuple):
    """What is carried from step to step by every replicate."""

    svi: SVIState
    companion: Params | None
    step: Array
    diverged_step: Array


class Taken(NamedTuple):
    """What a training went through: its params, loss and step at every place, shape (place, ...)."""

    params: Params
    loss: Array
    step: Array


def training_program(
    objective: Objective,
    batch_size: int,
    optimizer: optax.GradientTransformation | None,
    factors: Mapping[str, float],
    precision: str = "float64",
) -> Program:
    """Return the program of a training, or refuse an objective that cannot be trained."""
    if not isinstance(objective.guide, Guide):
        raise InputError(
            f"the guide of {objective.name} must be a mixture_models.Guide, with a method "
            f"metrics(params, start, target); got a {type(objective.guide).__name__}"
        )
    loss = in_precision(objective.loss.with_samples(batch_size), precision)
    # An optimizer made of `jax.tree_util.Partial` has numbers too; of plain functions, it is a constant.
    return program_of((objective.model, objective.guide, loss, dict(factors), optimizer, objective.companion))


def _plan(steps: np.ndarray, batch: int) -> _Plan:
    """Cut a training into calls of equal shape, given the recorded steps and the samples in a step."""
    # The last record takes one more update, for its loss; the state after it is not used.
    counts = np.append(np.diff(steps), 1)
    records = max(_FEWEST_RECORDS, 2 ** int(np.ceil(np.log2(len(counts)))))
    while records > 1 and records * int(counts[0]) * batch > _SAMPLES:
        records //= 2
    return _Plan(np.pad(counts, (0, -len(counts) % records)).reshape(-1, records), int(steps[-1]))


def _kept(
    run: Callable[..., _Ended], facts: object, folder: Path | None, report: Callable[[int], None]
) -> _Ended:
    """Return a chunk that is kept, or train it now and keep it."""
    found = kept.arrays(
        ("training", facts),
        lambda: (ended := run(report)).records | {_DIVERGED: ended.diverged_step},
        folder=folder,
    )
    return _Ended(found, found.pop(_DIVERGED))


def _compile(
    program: Program,
    keys: Array,
    setting: Pair,
    learning_rate: Array,
    plan: _Plan,
    report: Callable[[int], None],
) -> None:
    """Compile what `_run` calls, by a call that takes no step."""
    _run(program, keys, setting, learning_rate, plan._replace(counts=0 * plan.counts[:1]))


def _run(
    program: Program,
    keys: Array,
    setting: Pair,
    learning_rate: Array,
    plan: _Plan,
    report: Callable[[int], None] | None = None,
) -> _Ended:
    """Train one chunk of replicates of one objective, reporting the steps taken."""
    parts = []
    state = _initialise(program.static, program.numbers, keys, setting, learning_rate)
    _, guide, *_ = program.parts(program.numbers)
    learner = program_of(guide)
    for counts in plan.counts:
        state, taken = _advance(
            program.static, program.numbers, state, counts, plan.num_steps, setting, learning_rate
        )
        diverged_step, records = _report(
            learner.static, learner.numbers, state.diverged_step, taken, counts > 0, setting
        )
        state = state._replace(diverged_step=diverged_step)
        parts.append(jax.device_get(records))
        if report is not None:
            report(int(counts.sum()) * len(keys))
    joined = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    return _Ended(joined, np.asarray(state.diverged_step))


def _recorded(program: Program, setting: Pair) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a learner's variables; refuses what cannot be trained early."""
    shapes = first_record.eval_shape(program.static, program.numbers, setting)
    return {name: tuple(shape.shape) for name, shape in shapes.items()}


def check_batch(batch_size: int, dimension: int) -> None:
    """Refuse a batch for which there are too few random numbers: they are counted in 32 bits."""
    if batch_size * dimension > MOST_NUMBERS:
        raise InputError(
            f"batch_size times dimension must be at most {MOST_NUMBERS}, as random numbers are counted in 32 "
            f"bits; got {batch_size} times {dimension}"
        )


def _check_batches(
    programs: Sequence[Program],
    mixtures: Sequence[Pair],
    settings: Sequence[Pair],
    keys: Array,
    learning_rate: Array,
    plan: _Plan,
    batch_size: int,
) -> None:
    """Refuse batches that do not fit into memory, before a program holds any."""
    threads, numbers = num_threads(), len(keys) * batch_size * max(start.dim for start, _ in mixtures)
    if _BYTES_A_NUMBER * threads * numbers < 0.5 * memory.free():
        return
    # Only then is it worth compiling twice to know what a program needs.
    needed = 0
    for program, setting in {p.static: (p, s) for p, s in zip(programs, settings, strict=True)}.values():
        state = _initialise.eval_shape(program.static, program.numbers, keys, setting, learning_rate)  # type: ignore[attr-defined]
        lowered = _advance.lower(  # type: ignore[attr-defined]
            program.static, program.numbers, state, plan.counts[0], plan.num_steps, setting, learning_rate
        )
        needed = max(needed, lowered.compile().memory_analysis().temp_size_in_bytes)
    memory.check_fits(f"what {threads} batches take at once", threads * needed, "take a smaller batch_size")


@partial(jax.jit, static_argnums=0)
@traced_alone
def first_record(program: Program, numbers: Numbers, setting: Pair) -> dict[str, Array]:
    """Return what a learner reports at the start."""
    svi, state, guide, beside = _svi(program, numbers, jax.random.key(0), setting, jnp.ones(()))
    params = svi.get_params(state)
    if beside is not None:
        beside.after_step(beside.initial(guide, *setting), params, jnp.ones(()), guide, *setting)
    return guide.metrics(params, *setting)


def _svi(
    program: Program, numbers: Numbers, key: Array, setting: Pair, learning_rate: Array
) -> tuple[Steps, SVIState, Guide[TwoMode], Companion | None]:
    """Build the SVI of a program with its parameter transforms.

    Returns:
        The SVI, its first state, the guide, and the learner's companion or None.
    """
    model, guide, loss, factors, optimizer, beside = program.parts(numbers)
    descent = optax.sgd(learning_rate) if optimizer is None else optimizer
    svi = steps_of(guide)(model, guide, optax.chain(descent, scale_by_name(factors)), loss)
    if beside is not None:
        svi.model = Partial(model, companion=beside.initial(guide, *setting))
    state = svi.init(key, *setting)
    svi.model = model
    known = svi.get_params(state)
    unknown = sorted(set(factors) - set(known))
    if unknown:
        raise InputError(
            f"learning_rate_factors must name params of the learner ({', '.join(sorted(known))}); "
            f"got {', '.join(unknown)}"
        )
    return svi, state, guide, beside


def _toward(svi: Steps, companion: Params | None) -> Steps:
    """Return the SVI whose model is told the companion's params."""
    if companion is None:
        return svi
    svi = copy.copy(svi)
    svi.model = Partial(svi.model, companion=companion)
    return svi


@compiled
def _initialise(
    program: Program, numbers: Numbers, keys: Array, setting: Pair, learning_rate: Array
) -> State:
    return jax.vmap(lambda key: initial_state(program, numbers, key, setting, learning_rate))(keys)


def initial_state(
    program: Program, numbers: Numbers, key: Array, setting: Pair, learning_rate: Array
) -> State:
    """Return what one training carries at step 0."""
    _, state, guide, beside = _svi(program, numbers, key, setting, learning_rate)
    companion = None if beside is None else beside.initial(guide, *setting)
    return State(state, companion, jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32))


@compiled
def _advance(
    program: Program,
    numbers: Numbers,
    states: State,
    counts: Int[AnyArray, "place"],
    num_steps: Index,
    setting: Pair,
    learning_rate: Array,
) -> tuple[State, Taken]:
    """Take ``counts[i]`` updates after place i, for every replicate."""

    def one(state: State) -> tuple[State, Taken]:
        return advance(program, numbers, state, counts, num_steps, setting, learning_rate)

    return jax.vmap(one)(states)


# A program by itself, which objectives with the same learner share.
@compiled
def _report(
    learner: Program, numbers: Numbers, diverged_step: Array, taken: Taken, recorded: Array, setting: Pair
) -> tuple[Array, dict[str, Array]]:
    """Return what `report_of` says of every replicate."""

    def one(diverged_step: Array, taken: Taken) -> tuple[Array, dict[str, Array]]:
        return report_of(learner.parts(numbers), diverged_step, taken, recorded, setting)

    return jax.vmap(one)(diverged_step, taken)


def advance(
    program: Program,
    numbers: Numbers,
    state: State,
    counts: Int[AnyArray, "place"],
    num_steps: Index,
    setting: Pair,
    learning_rate: Array,
) -> tuple[State, Taken]:
    """Take ``counts[i]`` updates of one training after place i.

    Args:
        program: the training's, see `program_of`.
        numbers: the program's.
        state: what the training carries.
        counts: updates after each place, shape (place,); over all calls one more than ``num_steps``, for the
            last loss.
        num_steps: updates of the whole training.
        setting: start and target.
        learning_rate: of plain SGD.

    Returns:
        The state, and what was gone through.
    """
    svi, _, guide, beside = _svi(program, numbers, jax.random.key(0), setting, learning_rate)

    def update(i: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
        state, first_loss = carry
        svi_state, loss = _toward(svi, state.companion).update(state.svi, *setting)
        diverged_step = _earlier(state.diverged_step, state.step, ~jnp.isfinite(loss))
        after_last = state.step == num_steps  # the update for the last loss is not taken
        params, step = svi.get_params(svi_state), state.step + 1
        left = has_left(params, setting[0], setting[1], guide.sample_dimension)
        lost = (~_all_finite(params) | left) & ~after_last
        diverged_step = _earlier(diverged_step, step, lost)
        companion = state.companion
        if beside is not None and companion is not None:
            companion = beside.after_step(companion, params, step, guide, *setting)
        svi_state, companion = svi.settled(svi_state, companion)
        return State(svi_state, companion, step, diverged_step), jnp.where(i == 0, loss, first_loss)

    def record(state: State, count: Array) -> tuple[State, tuple[Params, Array, Array]]:
        params, step = svi.get_params(state.svi), state.step
        state, loss = jax.lax.fori_loop(0, count, update, (state, jnp.full((), jnp.nan, float)))
        return state, (params, loss, step)

    state, (params, loss, steps) = jax.lax.scan(record, state, counts)
    return state, Taken(params, loss, steps)


def report_of(
    guide: Guide[TwoMode], diverged_step: Array, taken: Taken, recorded: Array, setting: Pair
) -> tuple[Array, dict[str, Array]]:
    """Say what one training is at every place that it went through.

    Args:
        guide: the learner.
        diverged_step: the step of the training's divergence, -1 for none.
        taken: what `advance` went through.
        recorded: the places where what is reported must be finite, shape (place,).
        setting: start and target.

    Returns:
        The step of divergence, and what is reported at every place, shape (place, ...): NaN from a
        divergence on.
    """
    steps = taken.step
    observed = jax.vmap(lambda p: guide.metrics(p, *setting))(taken.params) | {"loss": taken.loss}
    # Without the barrier XLA evaluates them again where they are looked at.
    observed = jax.lax.optimization_barrier(observed)
    # Finite parameters can be too far off for what is reported of them.
    lost = ~jax.vmap(_all_finite)(observed) & recorded
    first_lost = steps[jnp.argmax(lost)]
    lost_before = (diverged_step < 0) | (first_lost < diverged_step)
    diverged_step = jnp.where(jnp.any(lost) & lost_before, first_lost, diverged_step)
    diverged = (diverged_step >= 0) & (steps >= diverged_step)
    masked = {name: jnp.where(_like(diverged, value), jnp.nan, value) for name, value in observed.items()}
    return diverged_step, masked


def scale_by_name(factors: Mapping[str, Scalar]) -> optax.GradientTransformation:
    """Return an optax transformation that multiplies the updates of the params that ``factors`` names."""
    return optax.stateless(
        lambda updates, params: {name: update * factors.get(name, 1.0) for name, update in updates.items()}
    )


def _all_finite(params: Params) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(value)) for value in jax.tree.leaves(params)]))


def _earlier(diverged_step: Array, step: Array, lost: Array) -> Array:
    """Return ``step`` if something was lost there and nothing before."""
    return jnp.where((diverged_step < 0) & lost, step, diverged_step)


def _like(flags: Array, value: Array) -> Array:
    """Give flags (step,) the rank of ``value`` (step, *event)."""
    return flags.reshape(-1, *(1,) * (value.ndim - 1))


def check_objectives(objectives: Objective | Sequence[Objective]) -> list[Objective]:
    """Return one objective or several as a list, or refuse anything else."""
    if isinstance(objectives, Iterable) and not isinstance(objectives, Objective):
        chosen = [*objectives]
    else:
        chosen = [objectives]
    if not chosen or not all(isinstance(objective, Objective) for objective in chosen):
        kinds = ", ".join(type(objective).__name__ for objective in chosen) or "none"
        raise InputError(
            f"objectives must be at least one Objective, see mixture_models.objectives; got {kinds}"
        )
    results.names(chosen)
    return chosen


def check_setting(start: TwoMode, target: TwoMode) -> None:
    """Refuse what is no pair of mixtures of one dimension, and a target of one mode."""
    for name, mixture in (("start", start), ("target", target)):
        if not isinstance(mixture, TwoMode):
            raise InputError(f"{name} must be a TwoMode; got {type(mixture).__name__}")
    if start.dim != target.dim:
        raise InputError(f"start and target must have one dimension; got {start.dim} and {target.dim}")
    if target.new_scale is None and not target.separation > 0.0:
        raise InputError("the target's modes must differ; got separation 0")


def check_rewards(objectives: Sequence[Objective], start: TwoMode, target: TwoMode) -> None:
    """Refuse rewards that are not finite where the learner starts."""
    for objective in objectives:
        if objective.loss.reward is not None:
            with jax.enable_x64(True):
                check_finite(objective.name, objective.loss.reward, start, target)


def check_factors(factors: Mapping[str, float] | None) -> dict[str, float]:
    """Return learning rate factors as floats, none for None, or refuse what is negative or no number."""
    if factors is None:
        return {}
    if not isinstance(factors, Mapping):
        raise InputError(f"learning_rate_factors must map names of params to numbers; got {factors!r}")
    checked = {
        name: float(number(f"learning_rate_factors[{name!r}]", value)) for name, value in factors.items()
    }
    negative = sorted(name for name, value in checked.items() if value < 0.0)
    if negative:
        raise InputError(
            f"learning_rate_factors must not be negative; got {checked[negative[0]]:g} for {negative[0]}"
        )
    return checked
