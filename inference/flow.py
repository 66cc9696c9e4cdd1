"""Population dynamics: the exact gradient flow of an objective, and its exact descent in steps of training."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax
from jaxtyping import Array, Float

from inference import results
from inference.frames import METRICS, in_frame
from inference.population import FINE, check_error, check_exact, loss_and_grad
from inference.programs import Program, program_of
from inference.training import check_factors, check_objectives, check_setting
from mixture_models.companions import params_at
from mixture_models.objectives import Objective
from mixture_models.two_mode import TwoMode
from mixture_models.validation import InputError, finite_array, integer, one_of, positive

# Settings that one call integrates together: enough to fill vector registers, few enough to wait for.
_CHUNK = 64

# Beyond this many times the fastest relaxation an implicit solver takes fewer steps, for a longer compilation.
_STIFF = 2e4

_MAX_STEPS = 200_000

# Of the integrals along the way; what is reported of the states is computed at the finest.
_RESOLUTION = 0


def gradient_flow(
    objectives: Objective | Sequence[Objective],
    start: TwoMode | Sequence[TwoMode],
    target: TwoMode | Sequence[TwoMode],
    *,
    times: Any,
    metric: str = "euclidean",
    learning_rate_factors: Mapping[str, float] | None = None,
    learning_rate: float | None = None,
    rtol: float = 1e-8,
    atol: float = 1e-12,
) -> xr.DataTree:
    """Follow the exact gradient flow dθ/dt = -f ∘ ∂L/∂θ of every objective's population loss from ``start``.

    t is step times learning rate: the flow is the limit of `train` for small learning rates and large
    batches. In the Euclidean metric of the user's coordinates it is what plain SGD follows. In the whitened one
    dm/dt = -Σ ∂L/∂m, which is affine invariant. An objective's companion travels along: its averages flow, its
    jumps happen at their times.

    Args:
        objectives: one objective or several, with an exact form and a learner of fixed covariance.
        start: the learner's parameters at t = 0, one or a sequence of settings.
        target: the true target, one or a sequence of settings.
        times: t to report, increasing, at least 0, shape (time,).
        metric: ``"euclidean"`` or ``"whitened"``.
        learning_rate_factors: f by name of the param; 0 freezes one.
        learning_rate: η, in which a companion's pace (a rate or a lag in steps) is expressed.
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step.

    Returns:
        DataTree with ``/population``: dims objective, setting (where sequences were given), time, feature;
        the variables of a ``/trajectory``, and ``loss``, the exact divergence.

    Raises:
        InputError: an argument out of range, an objective without an exact form, or a flow that cannot be
            followed to the end.

    Source: derivation: docs/theory.md.
    """
    when = finite_array("times", times)
    if when.ndim != 1 or not when.size or when[0] < 0.0 or np.any(np.diff(when) <= 0.0):
        raise InputError("times must be an increasing list of numbers of at least 0")
    if not when[-1] > 0.0:
        raise InputError(f"times must end after 0; got {when[-1]:g}")
    tolerances = (positive("rtol", rtol), positive("atol", atol))
    problem = _problem(objectives, start, target, metric, learning_rate_factors, learning_rate)
    settings = {
        "metric": metric,
        "rtol": tolerances[0],
        "atol": tolerances[1],
        "learning_rate": problem.learning_rate,
        "learning_rate_factors": problem.factors,
    }
    return _solved(problem, partial(_integrated, when=when, tolerances=tolerances), {"time": when}, settings)


def population_descent(
    objectives: Objective | Sequence[Objective],
    start: TwoMode | Sequence[TwoMode],
    target: TwoMode | Sequence[TwoMode],
    *,
    num_steps: int,
    learning_rate: float,
    record_every: int = 1,
    learning_rate_factors: Mapping[str, float] | None = None,
) -> xr.DataTree:
    """Take the steps of `train` with the exact gradient: θ ← θ - η f ∘ ∂L/∂θ.

    What `train` does without the noise of its batches; from `gradient_flow` it differs by discretisation.

    Args:
        objectives: one objective or several, with an exact form and a learner of fixed covariance.
        start: the learner's parameters at step 0, one or a sequence of settings.
        target: the true target, one or a sequence of settings.
        num_steps: number of updates, at least 1.
        learning_rate: η > 0.
        record_every: steps between two records; step 0 and the last step are always recorded.
        learning_rate_factors: f by name of the param; 0 freezes one.

    Returns:
        DataTree with ``/population`` as `gradient_flow` returns it, at t = step · η, with a coordinate
        ``step``.

    Raises:
        InputError: an argument out of range, or an objective without an exact form.

    Source: derivation: docs/theory.md.
    """
    num_steps, record_every = integer("num_steps", num_steps), integer("record_every", record_every)
    rate = positive("learning_rate", learning_rate)
    problem = _problem(objectives, start, target, "euclidean", learning_rate_factors, rate)
    steps = results.recorded_steps(num_steps, record_every)
    settings = {
        "num_steps": num_steps,
        "learning_rate": rate,
        "record_every": record_every,
        "learning_rate_factors": problem.factors,
    }
    coords = {"time": steps * rate, "step": ("time", steps)}
    return _solved(problem, partial(_stepped, steps=steps), coords, settings)


class _Problem(NamedTuple):
    """What is solved: objectives at settings; ``batched`` where sequences of settings were given."""

    objectives: list[Objective]
    starts: list[TwoMode]
    targets: list[TwoMode]
    batched: bool
    metric: str
    factors: dict[str, float]
    learning_rate: float | None


class _State(NamedTuple):
    """The params of the learner and those of its companion, None without one."""

    learner: dict[str, Array]
    companion: dict[str, Array] | None


def _problem(
    objectives: Any, start: Any, target: Any, metric: str, factors: Any, learning_rate: float | None
) -> _Problem:
    chosen = check_objectives(objectives)
    one_of("metric", metric, METRICS)
    starts, targets = ([m] if isinstance(m, TwoMode) else list(m) for m in (start, target))
    batched = not (isinstance(start, TwoMode) and isinstance(target, TwoMode))
    if not (starts and targets) or len({len(starts), len(targets), 1}) > 2:
        raise InputError(
            f"start and target must be one mixture or as many settings; got {len(starts)} and {len(targets)}"
        )
    count = max(len(starts), len(targets))
    starts, targets = starts * (count // len(starts)), targets * (count // len(targets))
    for one_start, one_target in zip(starts, targets, strict=True):
        check_setting(one_start, one_target)
    shapes = {(m.dim, m.scale.shape) for m in targets}
    if len(shapes) > 1:
        raise InputError("all settings must have one dimension and one form of covariance; got several")
    for objective in chosen:
        for one_start, one_target in zip(starts, targets, strict=True):
            check_exact(objective, one_start, one_target)
    if learning_rate is not None:
        learning_rate = positive("learning_rate", learning_rate)
    elif any(o.companion is not None and o.companion.paced for o in chosen):
        raise InputError("learning_rate must be given for an objective whose companion has a pace in steps")
    return _Problem(chosen, starts, targets, batched, metric, check_factors(factors or {}), learning_rate)


def _solved(problem: _Problem, solve: Any, coords: Mapping[str, Any], settings: dict[str, Any]) -> xr.DataTree:
    """Solve every objective at all settings, in chunks that two threads take, and assemble the result."""
    populations = []
    with jax.enable_x64(True):
        for objective in problem.objectives:
            populations.append(_with_all_settings(problem, objective, solve))
    return results.population_tree(
        problem.objectives,
        populations,
        coords,
        {"start": problem.starts, "target": problem.targets},
        {"objectives": [o.name for o in problem.objectives], **settings},
        batched=problem.batched,
    )


def _with_all_settings(problem: _Problem, objective: Objective, solve: Any) -> dict[str, np.ndarray]:
    """Return the variables of one objective, each of shape (setting, time, *event)."""
    parts = (objective.model, objective.guide, objective.divergence, objective.companion)
    frames, programs, states, mixtures = [], [], [], []
    for start, target in zip(problem.starts, problem.targets, strict=True):
        frame, (inner, start_inside, target_inside) = in_frame((parts, start, target), problem.metric)
        program = program_of((*inner, problem.factors))
        companion = inner[3]
        learner = params_at(inner[1], start_inside, target_inside)
        unknown = sorted(set(problem.factors) - set(learner))
        if unknown:
            raise InputError(
                f"learning_rate_factors must name params of the learner ({', '.join(sorted(learner))}); "
                f"got {', '.join(unknown)}"
            )
        beside = None if companion is None else companion.initial(inner[1], start_inside, target_inside)
        frames.append(frame)
        programs.append(program)
        states.append(_State(learner, beside))
        mixtures.append((start_inside, target_inside))
    count = len(states)
    size = min(_CHUNK, count)
    index = np.minimum(np.arange(-(-count // size) * size), count - 1).reshape(-1, size)

    static = programs[0].static

    def batch(items: list[Any], rows: np.ndarray) -> Any:
        chosen = [items[i] for i in rows]
        return jax.tree.map(lambda *leaves: np.stack([np.asarray(x, float) for x in leaves]), *chosen)

    def work(rows: np.ndarray) -> Any:
        with jax.enable_x64(True):
            numbers = batch([p.numbers for p in programs], rows)
            inside = batch(mixtures, rows)
            solved = solve(static, numbers, batch(states, rows), inside, objective=objective, problem=problem)
            return jax.device_get((_observe(static, numbers, solved, inside), solved.learner))

    with ThreadPoolExecutor(2) as pool:
        solved = list(pool.map(work, index))
    observed, params = jax.tree.map(lambda *arrays: np.concatenate(arrays)[:count], *solved)
    check_error(float(observed["integration_error"].max()), 1.0)
    embedded = {
        name: np.stack([frame.embed(u) for frame, u in zip(frames, value, strict=True)])
        for name, value in params.items()
        if value.ndim > 2
    }
    return observed | embedded


def _integrated(
    program: Program,
    numbers: Any,
    states: _State,
    mixtures: Any,
    *,
    objective: Objective,
    problem: _Problem,
    when: np.ndarray,
    tolerances: tuple[float, float],
) -> _State:
    """Return the states at all times, shape (setting, time, ...)."""
    rate, companion, end = problem.learning_rate, objective.companion, when[-1]
    interval = np.inf if companion is None else companion.sync_interval(rate)
    # Restarts at every jump; a record at a jump is of the state before it.
    jumps = interval * np.arange(1.0, np.ceil(end / interval)) if np.isfinite(interval) else np.zeros(0)
    grid = np.unique(np.concatenate([[0.0], when, jumps])) if jumps.size else np.zeros(0)
    fastest = 1.0
    if problem.metric == "euclidean":
        fastest = max(1.0 / _smallest_deviation(m) ** 2 for m in problem.targets)
    states, succeeded = _integrate(
        program,
        numbers,
        states,
        mixtures,
        _Grid(when, grid, np.isin(grid, jumps), np.searchsorted(grid, when)),
        1e-2 / fastest,
        rate,
        tolerances,
        implicit=bool(fastest * end > _STIFF),
    )
    if not np.all(succeeded):
        raise InputError(
            f"the flow of {objective.name} must reach t = {end:g} at rtol {tolerances[0]:g} within "
            f"{_MAX_STEPS} steps; it did not"
        )
    return states


class _Grid(NamedTuple):
    """The times to report; with jumps also those between which one integrates, and what happens there."""

    when: Float[np.ndarray, "time"]
    grid: Float[np.ndarray, "grid"]
    jumps: Any
    reported: Any


@partial(jax.jit, static_argnums=0, static_argnames="implicit")
def _integrate(
    program: Program,
    numbers: Any,
    states: _State,
    mixtures: Any,
    times: _Grid,
    first_step: Any,
    learning_rate: Any,
    tolerances: Any,
    *,
    implicit: bool,
) -> tuple[_State, Array]:
    solver = diffrax.Kvaerno5() if implicit else diffrax.Tsit5()
    controller = diffrax.PIDController(rtol=tolerances[0], atol=tolerances[1])

    def one(numbers: Any, state: _State, mixtures: Any) -> tuple[_State, Array]:
        _, guide, _, companion, factors = program.parts(numbers)

        def field(t: Any, state: _State, args: Any) -> _State:
            _, gradient = _value_and_grad(program.parts(numbers), state, mixtures)
            learner = {name: -factors.get(name, 1.0) * g for name, g in gradient.items()}
            if companion is None:
                return _State(learner, None)
            pace = companion.velocity(state.companion, state.learner, learning_rate, guide, *mixtures)
            return _State(learner, pace)

        def follow(state: _State, begin: Any, end: Any, saved: diffrax.SaveAt) -> tuple[_State, Array]:
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(field),
                solver,
                begin,
                end,
                jnp.minimum(first_step, 0.5 * (end - begin)),
                state,
                saveat=saved,
                stepsize_controller=controller,
                adjoint=diffrax.ForwardMode(),
                max_steps=_MAX_STEPS,
                throw=False,
            )
            return solution.ys, solution.result == diffrax.RESULTS.successful

        if not times.grid.size:
            return follow(state, 0.0, times.when[-1], diffrax.SaveAt(ts=times.when))

        def leap(state: _State, ends: tuple[Array, Array, Array]) -> tuple[_State, tuple[_State, Array]]:
            begin, end, jump = ends
            saved, succeeded = follow(state, begin, end, diffrax.SaveAt(t1=True))
            state = jax.tree.map(lambda x: x[0], saved)
            moved = jax.tree.map(partial(jnp.where, jump), state.learner, state.companion)
            return _State(state.learner, moved), (state, succeeded)

        _, (reached, succeeded) = lax.scan(leap, state, (times.grid[:-1], times.grid[1:], times.jumps[1:]))
        every = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, reached)
        return jax.tree.map(lambda x: x[times.reported], every), jnp.all(succeeded)

    return jax.vmap(one)(numbers, states, mixtures)


def _stepped(
    program: Program,
    numbers: Any,
    states: _State,
    mixtures: Any,
    *,
    objective: Objective,
    problem: _Problem,
    steps: np.ndarray,
) -> _State:
    """Return the states at all recorded steps, shape (setting, step, ...)."""
    return _descend(program, numbers, states, mixtures, np.diff(steps), problem.learning_rate)


@partial(jax.jit, static_argnums=0)
def _descend(
    program: Program, numbers: Any, states: _State, mixtures: Any, counts: Array, learning_rate: Array
) -> _State:
    def one(numbers: Any, state: _State, mixtures: Any) -> _State:
        _, guide, _, companion, factors = program.parts(numbers)

        def update(_: Array, carry: tuple[_State, Array]) -> tuple[_State, Array]:
            state, step = carry
            _, gradient = _value_and_grad(program.parts(numbers), state, mixtures)
            learner = {
                name: value - learning_rate * factors.get(name, 1.0) * gradient[name]
                for name, value in state.learner.items()
            }
            beside = None
            if companion is not None:
                beside = companion.after_step(state.companion, learner, step + 1, guide, *mixtures)
            return _State(learner, beside), step + 1

        def record(carry: tuple[_State, Array], count: Array) -> tuple[tuple[_State, Array], _State]:
            carry = lax.fori_loop(0, count, update, carry)
            return carry, carry[0]

        _, states = lax.scan(record, (state, jnp.zeros((), int)), counts)
        return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, states)

    return jax.vmap(one)(numbers, states, mixtures)


@partial(jax.jit, static_argnums=0)
def _observe(program: Program, numbers: Any, states: _State, mixtures: Any) -> dict[str, Array]:
    """Return what is reported of states (setting, time, ...), with the exact loss and the integrals' error."""

    def one(numbers: Any, states: _State, mixtures: Any) -> dict[str, Array]:
        parts = program.parts(numbers)
        guide = parts[1]

        def at(state: _State) -> dict[str, Array]:
            def by_resolution(resolution: Array) -> Any:
                return _value_and_grad(parts, state, mixtures, resolution)

            value, gradient = lax.map(by_resolution, jnp.asarray([FINE, _RESOLUTION]))
            errors = [jnp.max(jnp.abs(g[0] - g[1])) for g in gradient.values()]
            seen = guide.observables(state.learner, *mixtures)
            return seen | {"loss": value[0], "integration_error": jnp.max(jnp.stack(errors))}

        return jax.vmap(at)(states)

    return jax.vmap(one)(numbers, states, mixtures)


def _value_and_grad(
    parts: Any, state: _State, mixtures: Any, resolution: Any = _RESOLUTION
) -> tuple[Array, dict[str, Array]]:
    """Return the exact loss and its gradient in the learner's params."""
    model, guide, divergence, *_ = parts
    return loss_and_grad(divergence, resolution, state.learner, model, guide, mixtures, state.companion)


def _smallest_deviation(mixture: TwoMode) -> float:
    """Return the smallest standard deviation of behaviours within a mode, in any direction."""
    scale = np.asarray(mixture.scale)
    return float(np.linalg.svd(scale, compute_uv=False)[-1] if scale.ndim == 2 else scale.min())
