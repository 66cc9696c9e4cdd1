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

#: Two resolutions of the integrals; what they differ by is the estimate of the coarser one's error.
FINE, COARSE = 36, 28

# Relative to the largest entry of the gradient and to 1; the finer resolution is far better.
_TOLERANCE = 1e-9


class Parameters(NamedTuple):
    """The coordinates of a two-mode learner, or a gradient in them."""

    old_logit: Float[np.ndarray, ""]
    old_mean: Float[np.ndarray, "d"]
    new_mean: Float[np.ndarray, "d"]


class Population(NamedTuple):
    """An exact value [nat], its gradient, and the estimated error of both, the largest of any entry."""

    value: float
    gradient: Parameters
    error: float


def population_value_and_grad(
    objective: Objective, learner: TwoMode, target: TwoMode, **companion: TwoMode
) -> tuple[float, Parameters]:
    """Return the exact value L(θ) of an objective and its gradient ∂L/∂θ, θ = (φ, m_o, m_n), at a learner.

    The divergence's expectation becomes integrals in few dimensions whatever d is, evaluated in float64
    whatever the caller's setting, at two resolutions. `population` also returns the estimated error.

    Args:
        objective: one of `mixture_models.objectives` with the two-mode learner.
        learner: where to evaluate; its covariance must be the target's.
        target: the true target.
        companion: the policy beside the learner, under the name of the objective's companion: ``teacher``,
            ``reference`` or ``lagged``. Left out, it is the learner itself.

    Returns:
        The value in nats (that of the loss which training minimises), and the gradient, Euclidean in the
        user's coordinates.

    Raises:
        InputError: covariances that differ, a companion of another name, a divergence without an exact form,
            or an estimated error above 1e-9.

    Source: derivation in docs/theory.md.
    """
    return population(objective, learner, target, **companion)[:2]


def population(
    objective: Objective, learner: TwoMode, target: TwoMode, **companion: TwoMode
) -> Population:
    """Return what `population_value_and_grad` does, and the estimated error, by comparing two resolutions."""
    known = [] if objective.companion is None else [objective.companion.name]
    if not set(companion) <= set(known):
        raise InputError(
            f"the companion of {objective.name} must be {known[0] if known else 'left out, for it has none'}; "
            f"got {', '.join(companion)}"
        )
    for mixture in (learner, *companion.values()):
        check_exact(objective, mixture, target)
    with jax.enable_x64(True):
        fine, coarse = (
            _evaluated(exact_objective(objective, nodes), learner, target, companion)
            for nodes in (FINE, COARSE)
        )
    entries, others = (np.concatenate([[v], *(np.ravel(g) for g in gradient)]) for v, gradient in (fine, coarse))
    error = float(np.abs(entries - others).max())
    check_error(error, np.abs(entries[1:]).max())
    return Population(*fine, error)


def check_exact(objective: Objective, learner: TwoMode, target: TwoMode) -> None:
    """Refuse an objective without an exact form, and mixtures of more than one covariance."""
    if target.new_scale is not None or learner.new_scale is not None:
        raise InputError("the exact population needs one covariance for both modes; got a new_covariance")
    if not np.array_equal(learner.scale, target.scale):
        raise InputError("learner and target must have the same covariance; got two")
    if not hasattr(objective.divergence, "exact"):
        kind = type(objective.divergence).__name__
        raise InputError(f"the divergence of {objective.name} must have an exact form; got {kind}")


def check_error(error: float, largest: float) -> None:
    """Refuse an estimated error above the tolerance, given the largest entry of the gradient."""
    if not error <= _TOLERANCE * max(1.0, largest):
        raise InputError(
            f"the integrals must be accurate to {_TOLERANCE:g}; the estimated error is {error:.1e}"
        )


def exact_objective(objective: Objective, num_nodes: int) -> Objective:
    """Return the objective with the expectation of its divergence by integrals."""
    return replace(objective, divergence=objective.divergence.exact(num_nodes))


def loss_and_grad(
    divergence: Any, params: dict[str, Array], model: Any, guide: Any, mixtures: tuple[TwoMode, TwoMode]
) -> tuple[Array, dict[str, Array]]:
    """Return an exact divergence's value and its derivatives in the learner's params."""
    loss = partial(divergence.loss, jax.random.key(0))
    return jax.value_and_grad(loss)(params, model, guide, *mixtures)


def _evaluated(
    exact: Objective, learner: TwoMode, target: TwoMode, companion: dict[str, TwoMode]
) -> tuple[float, Parameters]:
    program = program_of((exact.model, exact.guide, exact.divergence))
    beside = _params(*companion.values()) if companion else None
    value, gradient = _loss_and_grad(program.static, program.numbers, learner, target, beside)
    return float(value), Parameters(*(np.asarray(gradient[name]) for name in Parameters._fields))


@partial(jax.jit, static_argnums=0)
def _loss_and_grad(
    program: Program, numbers: Any, learner: TwoMode, target: TwoMode, companion: Any
) -> tuple[Array, Any]:
    model, guide, divergence = program.parts(numbers)
    if companion is not None:
        model = partial(model, companion=companion)
    return loss_and_grad(divergence, _params(learner), model, guide, (learner, target))


def _params(mixture: TwoMode) -> dict[str, Any]:
    return {name: getattr(mixture, name) for name in Parameters._fields}
