"""Population dynamics: the exact gradient taken in the steps of training."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax
from jaxtyping import Array, Int

from inference import results
from inference.engine.programs import Numbers, Program, compiled
from inference.exact.dynamics import (
    Problem,
    State,
    check_records,
    over_settings,
    problem_of,
    solved,
    value_and_grad,
)
from inference.training.checks import MOST_STEPS
from mixture_models.mixture.mixture import Mixture, MixturePair
from mixture_models.objectives import Objective
from mixture_models.types import AnyArray, Scalar
from mixture_models.validation import integer, number, positive


def population_descent(
    objectives: Objective | Sequence[Objective],
    start: Mixture | Sequence[Mixture],
    target: Mixture | Sequence[Mixture],
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
    num_steps = integer("num_steps", num_steps, at_most=MOST_STEPS)
    record_every = integer("record_every", record_every)
    rate = positive("learning_rate", learning_rate)
    number("num_steps times learning_rate", num_steps * rate)
    problem = problem_of(objectives, start, target, "euclidean", learning_rate_factors, rate)
    check_records(problem, num_steps // record_every + 2)
    steps = results.recorded_steps(num_steps, record_every)
    settings = {
        "num_steps": num_steps,
        "learning_rate": rate,
        "record_every": record_every,
        "learning_rate_factors": problem.factors,
    }
    coords = {"time": steps * rate, "step": ("time", steps)}
    return solved(problem, partial(_stepped, steps=steps), coords, settings)


def _stepped(
    program: Program,
    numbers: Numbers,
    states: State,
    mixtures: MixturePair,
    *,
    objective: Objective,
    problem: Problem,
    steps: np.ndarray,
) -> State:
    """Return the states at all recorded steps, shape (setting, step, ...)."""
    return _descend(program, numbers, states, mixtures, np.diff(steps), cast(float, problem.learning_rate))


@compiled
def _descend(
    program: Program,
    numbers: Numbers,
    states: State,
    mixtures: MixturePair,
    counts: Int[AnyArray, "step"],
    learning_rate: Scalar,
) -> State:
    def one(numbers: Numbers, state: State, mixtures: MixturePair) -> State:
        _, guide, _, companion, factors = program.parts(numbers)

        def update(_: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
            state, step = carry
            _, gradient = value_and_grad(program, numbers, state, mixtures)
            learner = {
                name: value - learning_rate * factors.get(name, 1.0) * gradient[name]
                for name, value in state.learner.items()
            }
            beside = None
            if companion is not None:
                beside = companion.after_step(state.companion, learner, step + 1, guide, *mixtures)
            return State(learner, beside), step + 1

        def record(carry: tuple[State, Array], count: Array) -> tuple[tuple[State, Array], State]:
            carry = lax.fori_loop(0, count, update, carry)
            return carry, carry[0]

        _, states = lax.scan(record, (state, jnp.zeros((), int)), counts)
        result: State = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, states)
        return result

    return over_settings(one, numbers, states, mixtures)
