"""Population dynamics: the exact gradient flow of an objective."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from inference.engine.programs import Numbers, Program, compiled
from inference.exact.dynamics import (
    Problem,
    Records,
    State,
    check_records,
    over_settings,
    problem_of,
    smallest_deviation,
    solved,
    value_and_grad,
)
from inference.exact.stepping import stepped
from inference.exact.walk import reported
from mixture_models.mixture.mixture import Mixture, MixturePair
from mixture_models.objectives import Objective
from mixture_models.objectives.companions import Learner
from mixture_models.types import AnyArray, Scalar
from mixture_models.validation import InputError, finite_array, positive

# Beyond this many times the fastest relaxation an implicit solver takes fewer steps, and compiles longer.
_STIFF = 2e4

_MAX_STEPS = 200_000

# Rounding errors, in units of a velocity's own, below which a velocity is not told from rest.
_ROUNDINGS = 8.0


def gradient_flow(
    objectives: Objective | Sequence[Objective],
    start: Mixture | Sequence[Mixture],
    target: Mixture | Sequence[Mixture],
    *,
    times: ArrayLike,
    metric: str = "euclidean",
    learning_rate_factors: Mapping[str, float] | None = None,
    learning_rate: float | None = None,
    rtol: float = 1e-8,
    atol: float = 1e-12,
) -> xr.DataTree:
    """Follow the exact gradient flow dθ/dt = -f ∘ ∂L/∂θ of every objective's population loss from ``start``.

    t is step times learning rate: the flow is the limit of `train` for small learning rates and large
    batches. In the Euclidean metric of the user's coordinates it is what plain SGD follows. In the whitened
    one dm/dt = -Σ ∂L/∂m, which is affine invariant. An objective's companion travels along: its averages
    flow, its jumps happen at their times. Where no param moves faster than the rounding of its velocity the
    flow rests, so that times may lie any way beyond.

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
    problem = problem_of(objectives, start, target, metric, learning_rate_factors, learning_rate)
    check_records(problem, when.size)
    settings = {
        "metric": metric,
        "rtol": tolerances[0],
        "atol": tolerances[1],
        "learning_rate": problem.learning_rate,
        "learning_rate_factors": problem.factors,
    }
    return solved(problem, partial(_integrated, when=when, tolerances=tolerances), {"time": when}, settings)


def _integrated(
    program: Program,
    numbers: Numbers,
    states: State,
    mixtures: MixturePair,
    *,
    objective: Objective,
    problem: Problem,
    when: np.ndarray,
    tolerances: tuple[float, float],
) -> Records:
    """Return the records at all times."""
    # None where no companion asks for it.
    rate, companion, end = cast(float, problem.learning_rate), objective.companion, when[-1]
    interval = np.inf if companion is None else companion.sync_interval(rate)
    # Restarts at every jump; a record at a jump is of the state before it.
    jumps = interval * np.arange(1.0, np.ceil(end / interval)) if np.isfinite(interval) else np.zeros(0)
    grid = np.unique(np.concatenate([[0.0], when, jumps])) if jumps.size else np.zeros(0)
    fastest = 1.0
    if problem.metric == "euclidean":
        fastest = max(1.0 / smallest_deviation(m) ** 2 for m in problem.targets)
    states, succeeded = _integrate(
        _Method(program, bool(fastest * end > _STIFF)),
        numbers,
        states,
        mixtures,
        _Times(when, grid, np.isin(grid, jumps), np.searchsorted(grid, when)),
        1e-2 / fastest,
        rate,
        tolerances,
        _Rounding(fastest, 0.0 if rate is None else 1.0 / rate),
    )
    if not np.all(succeeded):
        raise InputError(
            f"the flow of {objective.name} must reach t = {end:g} at rtol {tolerances[0]:g} within "
            f"{_MAX_STEPS} steps; it did not"
        )
    return reported(program, numbers, states, mixtures)


class _Rounding(NamedTuple):
    """How velocities round.

    Attributes:
        fastest: the fastest relaxation of a mean, so that a mean's velocity is at most that times distances.
        pace: steps of training in a unit of time: what a companion covers of its distance.
    """

    fastest: Scalar
    pace: Scalar

    def at_rest(self, state: State, velocity: State) -> Array:
        """Return whether no param moves faster than the rounding of its velocity."""
        slow = [
            jnp.abs(v) <= pace * self._unit(x)
            for params, velocities, pace in (
                (state.learner, velocity.learner, 1.0),
                (state.companion, velocity.companion, jnp.maximum(1.0, self.pace)),
            )
            for x, v in zip(jax.tree.leaves(params), jax.tree.leaves(velocities), strict=True)
        ]
        return jnp.all(jnp.stack([jnp.all(s) for s in slow]))

    def _unit(self, param: Array) -> Array:
        unit = _ROUNDINGS * jnp.finfo(param.dtype).eps
        if not param.ndim:
            return unit * (1.0 + jnp.abs(param))
        return unit * self.fastest * (self.fastest**-0.5 + jnp.max(jnp.abs(param)))


class _Times(NamedTuple):
    """The times to report; with jumps also those between which one integrates, and what happens there."""

    when: Float[AnyArray, "time"]
    grid: Float[AnyArray, "node"]
    jumps: Bool[AnyArray, "node"]
    reported: Int[AnyArray, "time"]


class _Method(NamedTuple):
    """What is compiled: the field, and whether the solver is an implicit one."""

    program: Program
    implicit: bool


@compiled
def _integrate(
    method: _Method,
    numbers: Numbers,
    states: State,
    mixtures: MixturePair,
    times: _Times,
    first_step: Scalar,
    learning_rate: Scalar,
    tolerances: tuple[Scalar, Scalar],
    rounding: _Rounding,
) -> tuple[State, Array]:
    program = method.program
    controller: Any = diffrax.PIDController(*tolerances)
    solver: diffrax.AbstractSolver[Any] = diffrax.Tsit5()
    if method.implicit:
        root_finder: Any = diffrax.VeryChord(controller.rtol, controller.atol, norm=controller.norm)
        solver = diffrax.Kvaerno5(root_finder=root_finder)

    def one(numbers: Numbers, state: State, mixtures: MixturePair) -> tuple[State, Array]:
        _, guide, _, companion, factors = program.parts(numbers)

        def field(t: object, state: State, args: object) -> State:
            _, gradient = value_and_grad(program, numbers, state, mixtures)
            learner = {name: -factors.get(name, 1.0) * g for name, g in gradient.items()}
            pace = None
            if companion is not None:
                followed = Learner(state.learner, guide, *mixtures)
                pace = companion.velocity(state.companion, followed, learning_rate)
            velocity = State(learner, pace)
            # Rounding errors would keep the solver's steps short for as long as it is to stay at a rest.
            rests = rounding.at_rest(state, velocity)
            return jax.tree.map(lambda v: jnp.where(rests, 0.0, v), velocity)

        def follow(state: State, begin: Scalar, when: Array) -> tuple[State, Array]:
            first = jnp.minimum(first_step, 0.5 * (when[-1] - begin))
            return stepped(diffrax.ODETerm(field), solver, controller, state, begin, when, first, _MAX_STEPS)

        if not times.grid.size:
            return follow(state, 0.0, jnp.asarray(times.when))

        def leap(state: State, ends: tuple[Array, Array, Array]) -> tuple[State, tuple[State, Array]]:
            begin, end, jump = ends
            saved, succeeded = follow(state, begin, end[None])
            state = jax.tree.map(lambda x: x[0], saved)
            moved = jax.tree.map(partial(jnp.where, jump), state.learner, state.companion)
            return State(state.learner, moved), (state, succeeded)

        _, (reached, succeeded) = lax.scan(leap, state, (times.grid[:-1], times.grid[1:], times.jumps[1:]))
        every = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, reached)
        return jax.tree.map(lambda x: x[times.reported], every), jnp.all(succeeded)

    return over_settings(one, numbers, states, mixtures)
