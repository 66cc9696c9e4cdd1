"""What exact dynamics share: objectives at settings, in few dimensions, solved in chunks and observed."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax
from jaxtyping import Array

from inference import results
from inference.frames import METRICS, in_frame
from inference.population import FINE, check_error, check_exact, loss_and_grad, unmet_of, warn_of
from inference.programs import Program, program_of
from inference.training import check_factors, check_objectives, check_setting
from mixture_models.companions import params_at
from mixture_models.objectives import Objective
from mixture_models.two_mode import TwoMode
from mixture_models.validation import InputError, one_of, positive

# Settings that one call solves together: enough to fill vector registers, few enough to wait for.
_CHUNK = 64

# Of the integrals along the way; what is reported of the states is computed at the finest.
RESOLUTION = 0


class Problem(NamedTuple):
    """What is solved: objectives at settings; ``batched`` where sequences of settings were given."""

    objectives: list[Objective]
    starts: list[TwoMode]
    targets: list[TwoMode]
    batched: bool
    metric: str
    factors: dict[str, float]
    learning_rate: float | None


class State(NamedTuple):
    """The params of the learner and those of its companion, None without one."""

    learner: dict[str, Array]
    companion: dict[str, Array] | None


def problem_of(
    objectives: Any, start: Any, target: Any, metric: str, factors: Any, learning_rate: float | None
) -> Problem:
    """Check the arguments that `gradient_flow` and `population_descent` share."""
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
    return Problem(chosen, starts, targets, batched, metric, check_factors(factors or {}), learning_rate)


def solved(problem: Problem, solve: Any, coords: Mapping[str, Any], settings: dict[str, Any]) -> xr.DataTree:
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


def _with_all_settings(problem: Problem, objective: Objective, solve: Any) -> dict[str, np.ndarray]:
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
        states.append(State(learner, beside))
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
    (observed, unmet), params = jax.tree.map(lambda *arrays: np.concatenate(arrays)[:count], *solved)
    warn_of(objective, unmet)
    check_error(float(observed["integration_error"].max()), 1.0)
    embedded = {
        name: np.stack([frame.embed(u) for frame, u in zip(frames, value, strict=True)])
        for name, value in params.items()
        if value.ndim > 2
    }
    return observed | embedded


@partial(jax.jit, static_argnums=0)
def _observe(program: Program, numbers: Any, states: State, mixtures: Any) -> tuple[Any, Any]:
    """Return what is reported of states (setting, time, ...), and what the exact loss there cannot fulfil."""

    def one(numbers: Any, states: State, mixtures: Any) -> tuple[Any, Any]:
        parts = program.parts(numbers)
        model, guide, divergence, *_ = parts

        def at(state: State) -> tuple[Any, Any]:
            def by_resolution(resolution: Array) -> Any:
                return value_and_grad(parts, state, mixtures, resolution)

            value, gradient = lax.map(by_resolution, jnp.asarray([FINE, RESOLUTION]))
            errors = [jnp.max(jnp.abs(g[0] - g[1])) for g in gradient.values()]
            seen = guide.observables(state.learner, *mixtures)
            unmet = unmet_of(divergence, FINE, state.learner, model, guide, mixtures, state.companion)
            seen = seen | {"loss": value[0], "integration_error": jnp.max(jnp.stack(errors))}
            return seen, unmet

        return jax.vmap(at)(states)

    return jax.vmap(one)(numbers, states, mixtures)


def value_and_grad(
    parts: Any, state: State, mixtures: Any, resolution: Any = RESOLUTION
) -> tuple[Array, dict[str, Array]]:
    """Return the exact loss and its gradient in the learner's params."""
    model, guide, divergence, *_ = parts
    return loss_and_grad(divergence, resolution, state.learner, model, guide, mixtures, state.companion)
