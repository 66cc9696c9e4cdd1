"""Training in the span of the means: in law that of d dimensions, at a cost that does not grow with d.

A loss knows the means of the learner, the target and a companion. Where all covariances are one multiple of
the identity and a batch enters only by ratios of densities, a sample matters by its coordinates in the
affine span of these means. The rest of it is noise, which adds Σ_i c_ki z_i to the gradient in mode k's mean,
with coefficients that the coordinates in the span determine: given those, what the K gradients have beside
the span is jointly Gaussian, with covariance c cᵀ in each direction. Whoever reads norms and inner products
alone knows K vectors by K (K+1)/2 numbers, whose law is Bartlett's. So a step is simulated in the span, K
coordinates are opened for what lies beside it, and the means are turned back into as many coordinates as they
span. Derivation: docs/theory.md, "Training in the span of the means".
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.infer.svi import SVIState

from inference.engine.frames import mixtures_in
from inference.engine.programs import traced_alone
from inference.training.beside_span import lower_triangular, vectors_beside
from inference.training.steps import Steps, steps_of
from mixture_models.learners import Guide
from mixture_models.losses.loss import law_of
from mixture_models.metrics import TASK_DIMS
from mixture_models.mixture.law import MixtureLaw
from mixture_models.mixture.mixture import Mixture
from mixture_models.mixture.shifted_law import ShiftedLaw
from mixture_models.objectives.companions import Companion, Learner, params_at, with_companion
from mixture_models.objectives.objective import Objective
from mixture_models.types import AnyArray, ModelOrGuide, Params, Scalar
from mixture_models.validation import InputError, integer

# The params that are means: of two modes one each, of named tasks the rows of one.
_MEANS, _TASK_MEANS = ("old_mean", "new_mean"), "task_mean"

#: An objective and its target.
Problem = tuple[Objective, Mixture]


def in_span(start: Mixture, problems: Sequence[Problem], dimension: int) -> tuple[Mixture, list[Problem]]:
    """Return a start, and objectives with their targets, in coordinates of the span of all means.

    The first target's first mean is the origin. The first axis points to its second mean, the next ones to
    what else stays (other means of targets, demonstrations); the others turn with the means of the companion
    and the learner.

    Args:
        start: the learner at step 0.
        problems: what is trained, one after the other where they are several: each of one fixed covariance
            and of ratios of densities.
        dimension: d, at least that of start and targets, whose further coordinates are 0.

    Raises:
        InputError: several covariances, or fewer dimensions than the means have.
    """
    dimension = integer("dimension", dimension, at_least=start.dim)
    parts = [(objective.model, objective.loss, objective.companion) for objective, _ in problems]
    targets = [target for _, target in problems]
    demonstrations = mixtures_in(parts)
    deviation = _common_deviation(problems[0][0], (start, *targets, *demonstrations))
    origin, *fixed = targets[0].means
    for target in targets[1:]:
        # Stages mostly share their modes.
        known = [origin, *fixed]
        fixed += [mean for mean in target.means if not any(np.array_equal(mean, one) for one in known)]
    fixed += [mean for mixture in demonstrations for mean in mixture.means]
    policies = 1 + any(objective.companion is not None for objective, _ in problems)
    points = np.stack([*fixed, *([*start.means] * policies)]) - origin
    basis = _basis(points)
    # A coordinate for every mean but the origin, also where they span fewer, and those that a step opens.
    room = len(points) + start.num_tasks - basis.shape[1]

    def inside(thing: object) -> object:
        if not isinstance(thing, Mixture):
            return thing
        means = [np.pad((mean - origin) @ basis, (0, room)) for mean in thing.means]
        return thing.moved(means, np.asarray(deviation))

    start, targets, parts = jax.tree.map(
        inside, (start, targets, parts), is_leaf=lambda node: isinstance(node, Mixture)
    )
    reduced = [
        replace(
            objective,
            model=model,
            guide=InSpan(cast(Guide[Mixture], objective.guide), dimension, len(fixed)),
            loss=loss,
            companion=companion,
        )
        for (objective, _), (model, loss, companion) in zip(problems, parts, strict=True)
    ]
    return start, list(zip(reduced, targets, strict=True))


def check_plain(optimizer: object) -> None:
    """Refuse another optimizer than plain SGD, whose steps alone turn with the coordinates."""
    if optimizer is not None:
        raise InputError("optimizer must be None for dimension to be given: plain SGD; got another one")


@traced_alone
def check_span(objective: Objective, start: Mixture, target: Mixture) -> None:
    """Refuse an objective that cannot be trained in the span of the means, whatever its numbers.

    Args:
        objective: not yet in the span.
        start: the learner at step 0.
        target: the true target.

    Raises:
        InputError: another learner than the mixture of fixed covariance, a divergence that does not
            say that it is ``of_ratios``, a reward of the coordinates, a model of another law, or a model,
            learner or companion that knows coordinates: which does not move along with all mixtures.
    """
    wanted = f"for dimension to be given, {objective.name} must have"
    loss = objective.loss
    if not loss.of_ratios:
        raise InputError(f"{wanted} a loss of density ratios alone (of_ratios); got {loss.name}")
    if loss.reward is not None and not loss.reward.has_modes:
        raise InputError(
            f"{wanted} a reward with the methods modes and steepness, as those of mixture_models.rewards; "
            f"got {loss.reward.given!r}"
        )
    names = set(params_at(objective.guide, start, target))
    if names != set(start.params()) or not isinstance(objective.guide, Guide):
        raise InputError(
            f"{wanted} the learner of two modes or of named tasks, of fixed covariance; got params "
            f"{', '.join(sorted(names))}"
        )
    companion = _companion_of(objective, start, target)
    laws = [
        law_of(program, {}, start, target)
        for program in (with_companion(objective.model, companion), objective.guide)
    ]
    if not all(isinstance(law, MixtureLaw) and len(law.scales) == 1 for law in laws):
        kinds = ", ".join(type(law).__name__ for law in laws)
        raise InputError(f"{wanted} a model and a learner of one MixtureLaw with one covariance; got {kinds}")
    for part in _that_know_coordinates(objective, start, target):
        raise InputError(
            f"{wanted} parts that move along with all mixtures, turned and shifted; {part} does not: it "
            "holds coordinates of its own (give them as a TwoMode or a Mixture)"
        )


def _companion_of(objective: Objective, start: Mixture, target: Mixture) -> Params | None:
    """Return the params of an objective's companion at step 0, or None without one."""
    companion = objective.companion
    return None if companion is None else companion.initial(objective.guide, start, target)


def _that_know_coordinates(objective: Objective, start: Mixture, target: Mixture) -> Iterator[str]:
    """Yield the parts that do not move along when all mixtures are turned and shifted by the same motion."""
    rng, dim = np.random.default_rng(0), target.dim
    turn = -np.eye(1) if dim == 1 else np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    shift = rng.normal(size=dim)

    def move(thing: object) -> object:
        return _with_all_means(thing, lambda means: means @ turn + shift)

    def moved[Things](things: Things) -> Things:
        return jax.tree.map(move, things, is_leaf=_has_means)

    def law(
        program: ModelOrGuide, companion: Params | None, start: Mixture, target: Mixture
    ) -> tuple[Array, Params]:
        found = law_of(with_companion(program, companion), {}, start, target)
        return found.log_weights, {_TASK_MEANS: found.means}

    def walk(companion: Companion, params: Params, start: Mixture, target: Mixture) -> list[Params]:
        learner = Learner(params, objective.guide, start, target)
        policies = [companion.initial(objective.guide, start, target)]
        for step in range(1, 4):
            policies.append(companion.after_step(policies[-1], learner, step))
        return policies

    with jax.enable_x64(True):
        learner = {
            n: v + rng.normal(size=v.shape) for n, v in params_at(objective.guide, start, target).items()
        }
        checks: dict[str, tuple[Callable[..., object], *tuple[object, ...]]] = {
            "the model": (law, objective.model, _companion_of(objective, start, target)),
            "the learner": (law, objective.guide, None),
        }
        if objective.companion is not None:
            checks["the companion"] = (walk, objective.companion, learner)
        for part, (function, *things) in checks.items():
            before, after = (
                function(*things, start, target),
                function(*moved(things), *moved((start, target))),
            )
            pairs = zip(*map(jax.tree.leaves, (moved(before), after)), strict=True)
            if not all(np.allclose(a, b, rtol=1e-6, atol=1e-6, equal_nan=True) for a, b in pairs):
                yield part


@partial(jax.tree_util.register_dataclass, data_fields=["learner", "dimension"], meta_fields=["fixed"])
@dataclass(frozen=True)
class InSpan(Guide[Mixture]):
    """A mixture learner whose means are coordinates in a span that turns, as a guide.

    Args:
        learner: the guide.
        dimension: d, a number that a compiled program takes.
        fixed: how many of the coordinates do not turn.
    """

    learner: Guide[Mixture]
    dimension: Scalar
    fixed: int

    @property
    def sample_dimension(self) -> Scalar:
        """The dimension of samples, d."""
        return self.dimension

    def __call__(self, start: Mixture, target: Mixture) -> None:
        """Run the guide."""
        self.learner(start, target)

    def metrics(self, params: dict[str, Array], start: Mixture, target: Mixture) -> dict[str, Array]:
        """Return what is recorded of one state of the parameters: what does not depend on coordinates."""
        observed = self.learner.metrics(params, start, target)
        # One number, or one a task.
        return {n: v for n, v in observed.items() if not v.ndim or TASK_DIMS.get(n) == ("task",)}


class SpanSteps(Steps):
    """The steps of an `InSpan` by plain SGD: an `update` draws a batch in the span and beside it."""

    def update(self, svi_state: SVIState, *args: object, **kwargs: object) -> tuple[SVIState, Array]:
        """Take a step from means that are 0 in the last K coordinates, where afterwards they are not."""
        key, batch_key, beside_key = jax.random.split(svi_state.rng_key, 3)
        params = self.get_params(svi_state)
        model, guide, divergence, inside, setting = jax.tree.map(
            _without_beside, (self.model, self.guide, self.loss, params, args), is_leaf=_has_means
        )
        law = law_of(model, {}, *setting)

        def loss(params: dict[str, Array], shifts: Array) -> Array:
            learner = ShiftedLaw(law_of(guide, params, *setting), shifts)
            return divergence.between(batch_key, law, learner, setting)

        num_modes, coordinates = _stacked(inside).shape
        shifts = jnp.zeros((num_modes, divergence.expectation.num_samples))
        value, (gradient, c) = jax.value_and_grad(loss, argnums=(0, 1))(inside, shifts)
        # In fewer dimensions than coordinates all means are 0 in the last of these, and so must stay.
        real = jnp.arange(coordinates) < guide.dimension
        beside = vectors_beside(beside_key, c, guide.dimension - coordinates) / setting[-1].scales[0]
        within = jnp.where(real, _stacked(gradient), 0.0)
        gradient = _with_means(gradient, jnp.concatenate([within, beside], axis=1))
        return SVIState(self.optim.update(gradient, svi_state.optim_state, value), None, key), value

    def settled(self, svi_state: SVIState, companion: Params | None) -> tuple[SVIState, Params | None]:
        """Turn the means of learner and companion until they are 0 in the last K coordinates."""
        params = self.get_params(svi_state)
        # The companion's means come first: they turn least.
        policies = [params] if companion is None else [companion, params]
        means, fixed = jnp.concatenate([_stacked(policy) for policy in policies]), self.guide.fixed
        turned = jnp.concatenate([means[:, :fixed], lower_triangular(means[:, fixed:])], axis=1)
        *before, learner = jnp.split(turned, len(policies))
        count, _ = svi_state.optim_state
        state = svi_state._replace(optim_state=(count, self.optim.init(_with_means(params, learner))[1]))
        return state, None if companion is None else _with_means(companion, before[0])


@steps_of.register
def _(guide: InSpan) -> type[Steps]:
    return SpanSteps


def _has_means(node: object) -> bool:
    """Return whether a node of a pytree is a mixture, or params with means."""
    return isinstance(node, Mixture) or (
        isinstance(node, dict)
        and any(jnp.ndim(node.get(name, 0.0)) == rank for name, rank in ((_MEANS[0], 1), (_TASK_MEANS, 2)))
    )


def _with_all_means(node: object, change: Callable[[AnyArray], AnyArray]) -> object:
    """Return a node with its means, shape (K, d), changed where it `_has_means`; anything else as it is."""
    if isinstance(node, Mixture):
        return node.moved([*change(node.means)], node.scales[0])
    return _with_means(node, change(_stacked(node))) if isinstance(node, dict) and _has_means(node) else node


def _without_beside(node: object) -> object:
    """Return a node without the coordinates that a step opens, one a mode."""
    return _with_all_means(node, lambda means: means[:, : -len(means)])


def _stacked(params: Params) -> Float[Array, "K d"]:
    """Return the means among params."""
    if _TASK_MEANS in params:
        return params[_TASK_MEANS]
    return jnp.stack([params[name] for name in _MEANS])


def _with_means(params: Params, means: Float[AnyArray, "K d"]) -> Params:
    """Return params with other means."""
    if _TASK_MEANS in params:
        return params | {_TASK_MEANS: means}
    return params | dict(zip(_MEANS, means, strict=True))


def _basis(points: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "d n"]:
    """Return orthonormal columns that span the points, in which point i has a positive coordinate i, or 0."""
    basis, triangle = np.linalg.qr(points.T)
    return basis * np.where(np.diag(triangle) < 0.0, -1.0, 1.0)


def _common_deviation(objective: Objective, mixtures: Sequence[Mixture]) -> float:
    """Return the standard deviation that isotropic modes share, or refuse mixtures that have no one."""
    if any(mixture.dim != mixtures[0].dim for mixture in mixtures):
        raise InputError(
            f"all mixtures of {objective.name} must have dimension {mixtures[0].dim}; got others"
        )
    deviations = {_deviation(mixture) for mixture in mixtures}
    (deviation, *others) = deviations
    if others or deviation is None:
        raise InputError(
            f"for dimension to be given, all mixtures of {objective.name} must have one covariance, a "
            "multiple of the identity; got another (whiten the means)"
        )
    return deviation


def _deviation(mixture: Mixture) -> float | None:
    """Return the standard deviation of isotropic modes, None for others."""
    if mixture.shared_scale is None:
        return None
    scale = np.asarray(mixture.shared_scale)
    diagonal = np.diag(scale) if scale.ndim == 2 else np.atleast_1d(scale)
    isotropic = np.all(diagonal == diagonal[0]) and (scale.ndim < 2 or np.all(scale == np.diag(diagonal)))
    return float(diagonal[0]) if isotropic else None
