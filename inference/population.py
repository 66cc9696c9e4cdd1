"""The population's objective: its exact value and gradient, without a batch."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from inference.programs import Program, program_of
from mixture_models.objectives import Objective
from mixture_models.two_mode import TwoMode
from mixture_models.validation import InputError

# Two resolutions of the integrals; what they differ by is the estimate of the coarser one's error.
_NODES, _COARSER = 36, 28

# Relative to the largest entry of the gradient and to 1; the finer resolution is far better.
_TOLERANCE = 1e-8


class Parameters(NamedTuple):
    """The coordinates of a two-mode learner, or a gradient in them."""

    old_logit: Float[np.ndarray, ""]
    old_mean: Float[np.ndarray, "d"]
    new_mean: Float[np.ndarray, "d"]


def population_value_and_grad(
    objective: Objective, learner: TwoMode, target: TwoMode
) -> tuple[float, Parameters]:
    """Return the exact value L(θ) of an objective and its gradient ∂L/∂θ, θ = (φ, m_o, m_n), at a learner.

    The divergence's expectation becomes logistic-normal integrals in any dimension, evaluated in float64
    whatever the caller's setting, at two resolutions.

    Args:
        objective: one of `mixture_models.objectives` with the two-mode learner.
        learner: where to evaluate; its covariance must be the target's.
        target: the true target.

    Returns:
        The value in nats, and the gradient, Euclidean in the user's coordinates.

    Raises:
        InputError: covariances that differ, a divergence without an exact form, or an estimated error above
            1e-8.

    Source: derivation in docs/theory.md.
    """
    if target.new_scale is not None or learner.new_scale is not None:
        raise InputError("the exact population needs one covariance for both modes; got a new_covariance")
    if not np.array_equal(learner.scale, target.scale):
        raise InputError("learner and target must have the same covariance; got two")
    if objective.companion is not None:
        raise InputError(
            f"the exact population needs an objective without a companion; got {objective.name} with its "
            f"{objective.companion.name}"
        )
    if not hasattr(objective.divergence, "exact"):
        kind = type(objective.divergence).__name__
        raise InputError(f"the divergence of {objective.name} must have an exact form; got {kind}")
    with jax.enable_x64(True):
        fine, coarse = (_evaluate(objective, nodes, learner, target) for nodes in (_NODES, _COARSER))
    (value, gradient), entries = fine, np.concatenate([np.ravel(g) for g in fine[1]])
    others = np.concatenate([np.ravel(g) for g in coarse[1]])
    error = max(abs(value - coarse[0]), np.abs(entries - others).max())
    if not error <= _TOLERANCE * max(1.0, np.abs(entries).max()):
        raise InputError(
            f"the integrals must be accurate to {_TOLERANCE:g}; the estimated error is {error:.1e}"
        )
    return value, gradient


def _evaluate(
    objective: Objective, num_nodes: int, learner: TwoMode, target: TwoMode
) -> tuple[float, Parameters]:
    exact = replace(objective, divergence=objective.divergence.exact(num_nodes))
    program = program_of((exact.model, exact.guide, exact.divergence))
    value, gradient = _value_and_grad(program.static, program.numbers, learner, target)
    return float(value), Parameters(*(np.asarray(gradient[name]) for name in Parameters._fields))


@partial(jax.jit, static_argnums=0)
def _value_and_grad(program: Program, numbers: Any, learner: TwoMode, target: TwoMode) -> tuple[Array, Any]:
    model, guide, divergence = program.parts(numbers)
    params = {name: getattr(learner, name) for name in Parameters._fields}
    loss = partial(divergence.loss, jax.random.key(0))
    return jax.value_and_grad(loss)(params, model, guide, learner, target)
