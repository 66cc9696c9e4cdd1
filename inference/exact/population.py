"""The population's objective: its exact value and gradient, without a batch."""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple, cast, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import ArrayLike

from inference.engine.blas import on_one_thread
from inference.engine.frames import in_frame
from inference.engine.programs import Numbers, Program, program_of, traced_alone
from mixture_models.integrals.divergences import MOST_MODES
from mixture_models.integrals.logistic_normal import FINEST
from mixture_models.learners import Guide
from mixture_models.losses.loss import Loss, law_of
from mixture_models.mixture.mixture import Mixture, MixturePair, TaskParameters, like_tasks, mixture_of
from mixture_models.mixture.two_mode import Parameters as Parameters
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.objectives import Objective
from mixture_models.objectives.companions import with_companion
from mixture_models.types import Index, ModelOrGuide, Params
from mixture_models.validation import InputError

#: Two resolutions of the integrals; what they differ by is the estimate of the coarser one's error.
FINE, COARSE = FINEST, FINEST - 1

# Relative to the largest entry of the gradient and to 1; the finer resolution is far better.
_TOLERANCE = 1e-9

# Of more than two tasks, whose integrals can be quasi-Monte Carlo: the error is reported.
_TOLERANCE_OF_MANY = 1e-2


class Population(NamedTuple):
    """An exact value [nat], its gradient, and the estimated error of both, the largest of any entry."""

    value: float
    gradient: Parameters | TaskParameters
    error: float


@overload
def population_value_and_grad(
    objective: Objective, learner: TwoMode, target: TwoMode, **companion: TwoMode
) -> tuple[float, Parameters]: ...


@overload
def population_value_and_grad(
    objective: Objective, learner: Mixture, target: Mixture, **companion: Mixture
) -> tuple[float, Parameters | TaskParameters]: ...


def population_value_and_grad(
    objective: Objective, learner: Mixture, target: Mixture, **companion: Mixture
) -> tuple[float, Parameters | TaskParameters]:
    """Return the exact value L(θ) of an objective and its gradient ∂L/∂θ, θ = (φ, m_o, m_n), at a learner.

    Of a learner of named tasks θ = (φ_k, m_k), and the derivative by φ_k is twice what a step of training
    moves it by.

    The divergence's expectation becomes integrals in few dimensions whatever d is, in the span of the means,
    evaluated in float64 whatever the caller's setting, at two resolutions. `population` also returns the
    estimated error.

    Args:
        objective: one of `mixture_models.objectives` with the mixture learner.
        learner: where to evaluate; its covariance must be the target's.
        target: the true target.
        companion: the policy beside the learner, under the name of the objective's companion: ``teacher``,
            ``reference`` or ``lagged``. Left out, it is the learner itself.

    Returns:
        The value in nats (that of the loss which training minimises), and the gradient, Euclidean in the
        user's coordinates.

    Raises:
        InputError: covariances or tasks that differ, more than six tasks, a companion of another name, a
            divergence or a reward without an exact form, or an estimated error above 1e-9 (of more than two
            tasks above 1e-2, as their integrals can be quasi-Monte Carlo, see `population`).

    Warns:
        UserWarning: an adaptive temperature that cannot meet its budget.

    Source: derivation in docs/theory.md.
    """
    return population(objective, learner, target, **companion)[:2]


@on_one_thread
def population(objective: Objective, learner: Mixture, target: Mixture, **companion: Mixture) -> Population:
    """Return what `population_value_and_grad` does, and the estimated error, by comparing two resolutions."""
    if not isinstance(objective, Objective):
        raise InputError(f"objective must be an Objective; got {type(objective).__name__}")
    for name, given in {"learner": learner, "target": target, **companion}.items():
        like_tasks(name, mixture_of(name, given), mixture_of("target", target))
        if given.dim != target.dim:
            raise InputError(f"{name} must have the target's dimension {target.dim}; got {given.dim}")
    known = [] if objective.companion is None else [objective.companion.name]
    if not set(companion) <= set(known):
        expected = known[0] if known else "left out, for it has none"
        raise InputError(f"the companion of {objective.name} must be {expected}; got {', '.join(companion)}")
    for mixture in (learner, *companion.values()):
        check_exact(objective, mixture, target)
    parts = (objective.model, objective.guide, objective.loss.exact(FINE))
    frame, (parts, *inside, beside) = in_frame(
        (parts, learner, target, list(companion.values())), metric="whitened"
    )
    with jax.enable_x64(True):
        program = program_of(parts)
        # A companion that is left out is the learner itself.
        params = params_of(*beside or inside[:1]) if known else None
        (*fine, unmet), (*coarse, _) = (
            _at_resolution(program.static, program.numbers, *inside, params, resolution)
            for resolution in (FINE, COARSE)
        )
    warn_of(objective, unmet)
    # Not Python's max, which passes over a NaN.
    error = float(
        np.max([np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (fine, coarse)), strict=True)])
    )
    value, gradient = jax.tree.map(np.asarray, fine)
    check_error(error, max(np.abs(g).max() for g in gradient.values()), target.num_tasks)
    by_param = {name: frame.gradient(g) if name.endswith("mean") else g for name, g in gradient.items()}
    parameters = cast(Parameters | TaskParameters, learner.gradient(by_param))
    return Population(float(value), parameters, error)


def check_exact(objective: Objective, learner: Mixture, target: Mixture) -> None:
    """Refuse an objective without an exact form, and mixtures of more than one covariance or six tasks."""
    if target.shared_scale is None or learner.shared_scale is None:
        raise InputError("the exact population needs one covariance for both modes; got a new_covariance")
    if target.num_tasks > MOST_MODES:
        raise InputError(f"the exact population needs at most {MOST_MODES} tasks; got {target.num_tasks}")
    if not np.array_equal(learner.shared_scale, target.shared_scale):
        raise InputError("learner and target must have the same covariance; got two")
    if not objective.loss.has_exact:
        raise InputError(f"the loss of {objective.name} must have an exact form; got {objective.loss.name}")
    if not (isinstance(objective.guide, Guide) and objective.guide.fixed_covariance):
        raise InputError(
            f"the exact population needs a learner of fixed covariance; that of {objective.name} trains it"
        )
    objective.loss.exact(FINE)  # which refuses a reward that has none


def has_exact(objective: Objective, start: Mixture, target: Mixture) -> bool:
    """Return whether the population of an objective can be had exactly in a setting."""
    try:
        check_exact(objective, start, target)
    except InputError:
        return False
    return True


def check_error(error: float, largest: float, num_tasks: int) -> None:
    """Refuse an estimated error above the tolerance, given the largest entry of the gradient."""
    tolerance = _TOLERANCE if num_tasks == 2 else _TOLERANCE_OF_MANY
    if not error <= tolerance * max(1.0, largest):
        found = f"the estimated error is {error:.1e}"
        if np.isnan(error):
            found = "here they have no value, or take more nodes than the means' span allows"
        raise InputError(f"the integrals must be accurate to {tolerance:g}; {found}")


def warn_of(objective: Objective, unmet: Mapping[str, ArrayLike]) -> None:
    """Warn of what an exact loss could not fulfil, see `Loss.unmet`, given where it did not."""
    for sentence, where in unmet.items():
        places = np.ravel(where)
        if places.any():
            count = f"in {places.sum()} of {places.size} states" if places.size > 1 else "here"
            warnings.warn(f"{sentence}; that of {objective.name} does not {count}", UserWarning, stacklevel=4)


class Place(NamedTuple):
    """Where an exact loss is evaluated.

    Attributes:
        loss: one with an exact form.
        resolution: of the integrals.
        params: the learner's.
        model: the law that the learner is pulled toward.
        guide: the learner.
        mixtures: start and target.
        companion: the companion's params, None without one.
    """

    loss: Loss
    resolution: Index
    params: Params
    model: ModelOrGuide
    guide: ModelOrGuide
    mixtures: MixturePair
    companion: Params | None


def loss_and_grad(place: Place) -> tuple[Array, dict[str, Array]]:
    """Return the exact loss at params of the learner and its derivatives in them."""
    loss = partial(place.loss.exact(place.resolution).loss, jax.random.key(0))
    model = with_companion(place.model, place.companion)
    return jax.value_and_grad(loss)(place.params, model, place.guide, *place.mixtures)


def unmet_of(place: Place) -> dict[str, Array]:
    """Return what the exact loss at params of the learner cannot fulfil, see `Loss.unmet`."""
    target = law_of(with_companion(place.model, place.companion), place.params, *place.mixtures)
    learner = law_of(place.guide, place.params, *place.mixtures)
    return place.loss.unmet(place.resolution, target, learner, place.mixtures)


@partial(jax.jit, static_argnums=0)
@traced_alone
def _at_resolution(
    program: Program,
    numbers: Numbers,
    learner: Mixture,
    target: Mixture,
    companion: Params | None,
    resolution: Index,
) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    model, guide, loss = program.parts(numbers)
    place = Place(loss, resolution, params_of(learner), model, guide, (learner, target), companion)
    return *loss_and_grad(place), unmet_of(place)


def params_of(mixture: Mixture) -> Params:
    """Return the coordinates under training of a mixture, as JAX arrays."""
    return {name: jnp.asarray(value) for name, value in mixture.params().items()}
