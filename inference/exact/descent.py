"""Population dynamics: the exact gradient taken in the steps of training."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import numpy as np
import xarray as xr

from inference import results
from inference.engine.programs import Numbers, Program
from inference.exact.dynamics import Problem, Records, State, check_records, problem_of, solved
from inference.exact.walk import descended
from inference.training.checks import MOST_STEPS
from mixture_models.mixture.mixture import Mixture, MixturePair
from mixture_models.objectives import Objective
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
    return solved(problem, partial(_descended, steps=steps), coords, settings)


def _descended(
    program: Program,
    numbers: Numbers,
    states: State,
    mixtures: MixturePair,
    *,
    objective: Objective,
    problem: Problem,
    steps: np.ndarray,
) -> Records:
    """Return the records at the steps that are recorded."""
    rate = cast(float, problem.learning_rate)
    return descended(program, numbers, states, mixtures, np.diff(steps), rate)
