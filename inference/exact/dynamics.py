"""What exact dynamics share: objectives at settings, in few dimensions, solved in chunks and observed."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax
from jaxtyping import Array, Int

from inference import results
from inference.engine import memory
from inference.engine.blas import on_one_thread
from inference.engine.chunks import run_together
from inference.engine.frames import METRICS, Frame, in_frame
from inference.engine.programs import Numbers, Program, compiled, program_of
from inference.exact.population import Place, check_error, check_exact, loss_and_grad, warn_of
from inference.storage import kept
from inference.training.checks import check_factors, check_objectives, check_setting
from mixture_models.mixture.mixture import Mixture, MixturePair, like_tasks
from mixture_models.mixture.sensible_range import FARTHEST, has_left
from mixture_models.objectives import Objective
from mixture_models.objectives.companions import params_at
from mixture_models.types import Index, Params, Scalar
from mixture_models.validation import InputError, one_of, positive

# Settings that one call solves together: enough to fill vector registers, few enough to wait for.
_CHUNK = 64

# Of the integrals along the way; what is reported of the states is computed at the finest.
RESOLUTION = 0

# The context of exact arithmetic, which is that of a thread.
_arithmetic = partial(jax.enable_x64, True)

# Of what is found of a chunk.
_PARTS = ("observed", "unmet", "params", "left")
_Found = tuple[dict[str, np.ndarray], ...]


class Problem(NamedTuple):
    """What is solved: objectives at settings; ``batched`` where sequences of settings were given."""

    objectives: list[Objective]
    starts: list[Mixture]
    targets: list[Mixture]
    batched: bool
    metric: str
    factors: dict[str, float]
    learning_rate: float | None


class State(NamedTuple):
    """The params of the learner and those of its companion, None without one."""

    learner: Params
    companion: Params | None


class Records(NamedTuple):
    """What is known of the states at the records, shape (setting, record, ...).

    Attributes:
        states: the params.
        loss: the exact loss [nat].
        error: the estimated error of its gradient, the largest of any entry.
        unmet: what the loss cannot fulfil there, see `Loss.unmet`.
    """

    states: State
    loss: Array
    error: Array
    unmet: dict[str, Array]


def problem_of(
    objectives: Objective | Sequence[Objective],
    start: Mixture | Sequence[Mixture],
    target: Mixture | Sequence[Mixture],
    metric: str,
    factors: Mapping[str, float] | None,
    learning_rate: float | None,
) -> Problem:
    """Check the arguments that `gradient_flow` and `population_descent` share."""
    chosen = check_objectives(objectives)
    one_of("metric", metric, METRICS)
    starts, targets = (_listed(name, m) for name, m in (("start", start), ("target", target)))
    batched = not (isinstance(start, Mixture) and isinstance(target, Mixture))
    if not (starts and targets) or len({len(starts), len(targets), 1}) > 2:
        raise InputError(
            f"start and target must be one mixture or as many settings; got {len(starts)} and {len(targets)}"
        )
    count = max(len(starts), len(targets))
    starts, targets = starts * (count // len(starts)), targets * (count // len(targets))
    for one_start, one_target in zip(starts, targets, strict=True):
        check_setting(one_start, one_target)
    for one_target in targets[1:]:
        like_tasks("every target", one_target, targets[0])
    shapes = {(m.dim, m.scales[0].shape) for m in targets}
    if len(shapes) > 1:
        raise InputError("all settings must have one dimension and one form of covariance; got several")
    for objective in chosen:
        for one_start, one_target in zip(starts, targets, strict=True):
            check_exact(objective, one_start, one_target)
    if learning_rate is not None:
        learning_rate = positive("learning_rate", learning_rate)
    elif any(o.companion is not None and o.companion.paced for o in chosen):
        raise InputError("learning_rate must be given for an objective whose companion has a pace in steps")
    return Problem(chosen, starts, targets, batched, metric, check_factors(factors), learning_rate)


def check_records(problem: Problem, count: int) -> None:
    """Refuse to record more states of every objective and setting than fit into memory."""
    # Of learner and companion, of what is reported and of its error; as computed, joined and stacked.
    target = problem.targets[0]
    floats = 3 * (2 * target.num_tasks * target.dim + 8 * target.num_tasks)
    states = float(len(problem.objectives) * len(problem.targets) * count)
    memory.check_fits("what is recorded", 8.0 * floats * states, "record fewer states or settings")


def _listed(name: str, mixtures: Mixture | Sequence[Mixture]) -> list[Mixture]:
    """Return one mixture or several as a list, or refuse anything else."""
    if not isinstance(mixtures, Mixture | Sequence) or isinstance(mixtures, str | bytes):
        raise InputError(f"{name} must be a TwoMode or a list of them; got {type(mixtures).__name__}")
    return [mixtures] if isinstance(mixtures, Mixture) else list(mixtures)


@on_one_thread
def solved(
    problem: Problem, solve: Callable[..., Records], coords: Mapping[str, object], settings: dict[str, object]
) -> xr.DataTree:
    """Solve every objective at all settings, in chunks side by side on the cores, and assemble the result."""
    with _arithmetic():
        batches = [_batch_of(problem, objective) for objective in problem.objectives]
        tasks = [
            partial(
                _kept,
                batch,
                problem.targets[0].dim,
                rows,
                partial(solve, objective=objective, problem=problem),
                kept.folder(),
            )
            for objective, batch in zip(problem.objectives, batches, strict=True)
            for rows in batch.chunks
        ]
        # First one chunk of every program, so that no two threads compile the same.
        programs = [batch.program for batch in batches for _ in batch.chunks]
        leading = [programs.index(program) == i for i, program in enumerate(programs)]
        done: dict[int, _Found] = {}
        for turn in (True, False):
            numbers = [i for i, leads in enumerate(leading) if leads == turn]
            if numbers:
                ended = run_together([tasks[i] for i in numbers], _arithmetic, lambda _: None)
                done |= dict(zip(numbers, ended, strict=True))
    parts = iter([done[i] for i in range(len(tasks))])
    populations = [
        _joined(objective, batch, [next(parts) for _ in batch.chunks])
        for objective, batch in zip(problem.objectives, batches, strict=True)
    ]
    return results.population_tree(
        problem.objectives,
        populations,
        coords,
        {"start": problem.starts, "target": problem.targets},
        {"objectives": [o.name for o in problem.objectives], **settings},
        batched=problem.batched,
    )


class _Batch(NamedTuple):
    """One objective at all settings, each in its frame; ``chunks`` are rows of settings, of equal length."""

    program: Program
    guide: Program
    frames: list[Frame]
    numbers: list[Numbers]
    guide_numbers: list[Numbers]
    states: list[State]
    mixtures: list[MixturePair]
    chunks: Int[np.ndarray, "chunk setting"]


def _batch_of(problem: Problem, objective: Objective) -> _Batch:
    # In its exact form an objective is rid of what concerns its batches, and shares programs with others.
    divergence = objective.loss.exact(RESOLUTION)
    parts = (objective.model, objective.guide, divergence, objective.companion)
    frames, programs, guides, states, mixtures = [], [], [], [], []
    for start, target in zip(problem.starts, problem.targets, strict=True):
        frame, (inner, *pair) = in_frame((parts, start, target), problem.metric)
        _, guide, _, companion = inner
        learner = params_at(guide, *pair)
        unknown = sorted(set(problem.factors) - set(learner))
        if unknown:
            raise InputError(
                f"learning_rate_factors must name params of the learner ({', '.join(sorted(learner))}); "
                f"got {', '.join(unknown)}"
            )
        frames.append(frame)
        programs.append(program_of((*inner, problem.factors)))
        guides.append(program_of(guide))
        states.append(State(learner, None if companion is None else companion.initial(guide, *pair)))
        mixtures.append((pair[0], pair[1]))
    count = len(states)
    size = min(_CHUNK, count)
    chunks = np.minimum(np.arange(-(-count // size) * size), count - 1).reshape(-1, size)
    numbers, guide_numbers = ([p.numbers for p in several] for several in (programs, guides))
    return _Batch(
        programs[0].static, guides[0].static, frames, numbers, guide_numbers, states, mixtures, chunks
    )


def _kept(
    batch: _Batch,
    dimension: int,
    rows: np.ndarray,
    solve: Callable[..., Records],
    folder: Path | None,
    report: Callable[[int], None],
) -> _Found:
    """Return a chunk that is kept, or solve it now and keep it."""
    compute = partial(_solve_chunk, batch, dimension, rows, solve, report)
    return kept.groups(("exact dynamics", solve, rows), _PARTS, compute, folder=folder)


def _solve_chunk(
    batch: _Batch,
    dimension: int,
    rows: np.ndarray,
    solve: Callable[..., Records],
    report: Callable[[int], None],
) -> _Found:
    """Return what is observed at some settings, what is unmet there, the params, and if they left."""
    numbers, guide_numbers, states, mixtures = (
        jax.tree.map(lambda *leaves: np.stack(leaves).astype(float), *[one[i] for i in rows])
        for one in (batch.numbers, batch.guide_numbers, batch.states, batch.mixtures)
    )
    records = solve(batch.program, numbers, states, mixtures)
    report(1)
    params = records.states.learner
    seen, left = _observe(batch.guide, guide_numbers, params, mixtures, dimension)
    exact = {"loss": records.loss, "integration_error": records.error}
    result: _Found = jax.device_get((seen | exact, records.unmet, params, {"left": left}))
    return result


def _joined(objective: Objective, batch: _Batch, parts: list[_Found]) -> dict[str, np.ndarray]:
    """Return the variables of one objective, each of shape (setting, time, *event)."""
    count = len(batch.states)
    observed, unmet, params, left = jax.tree.map(lambda *arrays: np.concatenate(arrays)[:count], *parts)
    if np.any(left["left"]) or not all(np.all(np.isfinite(value)) for value in params.values()):
        raise InputError(
            f"the exact dynamics of {objective.name} must stay finite, and within {FARTHEST:g} times the "
            "reach of start and target; they do not"
        )
    warn_of(objective, unmet)
    # A gradient by a mean, and with it its error, is in units of one over a sample's.
    steepest = max(1.0 / smallest_deviation(target) for _, target in batch.mixtures)
    num_tasks = batch.mixtures[0][1].num_tasks
    check_error(float(observed["integration_error"].max()), steepest, num_tasks)
    embedded = {
        name: np.stack([frame.embed(u) for frame, u in zip(batch.frames, value, strict=True)])
        for name, value in params.items()
        if name.endswith("mean")
    }
    return observed | embedded


@compiled
def _observe(
    guide: Program, numbers: Numbers, params: Params, mixtures: MixturePair, dimension: Scalar
) -> tuple[dict[str, Array], Array]:
    """Return what a learner reports at params (setting, time, ...), and where it left the sensible range."""
    # A program by itself, which objectives with the same learner share.

    def one(
        numbers: Numbers, params: dict[str, Array], mixtures: MixturePair
    ) -> tuple[dict[str, Array], Array]:
        learner = guide.parts(numbers)
        result: tuple[dict[str, Array], Array] = lax.map(
            lambda at: (
                learner.metrics(at, *mixtures),
                has_left(*mixtures, at, dimension),
            ),
            params,
        )
        return result

    return over_settings(one, numbers, params, mixtures)


def value_and_grad(
    program: Program, numbers: Numbers, state: State, mixtures: MixturePair, resolution: Index = RESOLUTION
) -> tuple[Array, dict[str, Array]]:
    """Return the exact loss and its gradient in the learner's params."""
    result: tuple[Array, dict[str, Array]] = _value_and_grad(
        program, numbers, state, mixtures, jnp.asarray(resolution, int)
    )
    return result


@partial(jax.jit, static_argnums=0)
def _value_and_grad(
    program: Program, numbers: Numbers, state: State, mixtures: MixturePair, resolution: Array
) -> tuple[Array, dict[str, Array]]:
    # A program by itself, so that JAX traces it once for all dynamics and every stage of their solvers.
    model, guide, loss, *_ = program.parts(numbers)
    return loss_and_grad(Place(loss, resolution, state.learner, model, guide, mixtures, state.companion))


def over_settings[T](function: Callable[..., T], *settings: object) -> T:
    """Return a function's values at all settings of a chunk, along the first axis.

    One setting alone is not batched, which would make its program longer to compile.
    """
    if len(jax.tree.leaves(settings)[0]) > 1:
        return jax.vmap(function)(*settings)
    value = function(*jax.tree.map(lambda x: x[0], settings))
    return jax.tree.map(lambda x: x[None], value)


def smallest_deviation(mixture: Mixture) -> float:
    """Return the smallest standard deviation of samples within a mode, in any direction."""
    scale = np.asarray(mixture.scales[0])
    return float(np.linalg.svd(scale, compute_uv=False)[-1] if scale.ndim == 2 else scale.min())
