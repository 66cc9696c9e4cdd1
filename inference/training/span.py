"""Training in the span of the means: in law that of d dimensions, at a cost that does not grow with d.

A loss knows the means of the learner, the target and a companion. Where all covariances are one multiple of
the identity and a batch enters only by ratios of densities, a sample matters by its coordinates in the
affine span of these means. The rest of it is noise, which adds Σ_i c_ki z_i to the gradient in mode k's mean,
with coefficients that the coordinates in the span determine: given those, what the two gradients have beside
the span is jointly Gaussian, with covariance c cᵀ in each direction. Whoever reads norms and inner products
alone knows two vectors by three numbers, whose law is Bartlett's. So a step is simulated in the span, two
coordinates are opened for what lies beside it, and the means are turned back into as many coordinates as they
span. Derivation: docs/theory.md, "Training in the span of the means".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float
from numpyro.infer.svi import SVIState

from inference.engine.frames import mixtures_in
from inference.engine.programs import traced_alone
from inference.training.steps import Steps, steps_of
from mixture_models.learners import Guide
from mixture_models.losses.loss import law_of
from mixture_models.mixture.law import MixtureLaw
from mixture_models.mixture.mixture import Mixture
from mixture_models.mixture.shifted_law import ShiftedLaw
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.objectives.companions import Companion, params_at
from mixture_models.objectives.objective import Objective
from mixture_models.types import AnyArray, Params, Program, Scalar
from mixture_models.validation import InputError, integer

# The params that are vectors. A step takes them out of their span by as many coordinates, which come last.
_MEANS = ("old_mean", "new_mean")
_BESIDE = len(_MEANS)


def in_span[M: Mixture](objective: Objective, start: M, target: M, dimension: int) -> tuple[Objective, M, M]:
    """Return what `train` and `sweep` take, in coordinates of the span of all means.

    The target's old mean is the origin. The first axis points to its new mean, the next ones to what else
    stays (demonstrations); the others turn with the means of the companion and the learner.

    Args:
        objective: of two modes with one fixed covariance, and of ratios of densities.
        start: the learner at step 0.
        target: the true target.
        dimension: d, at least that of start and target, whose further coordinates are 0.

    Raises:
        InputError: several covariances, or fewer dimensions than the means have.
    """
    if not (isinstance(start, TwoMode) and isinstance(target, TwoMode)):
        raise InputError(f"dimension needs a learner and a target of two modes; got {type(start).__name__}")
    dimension = integer("dimension", dimension, at_least=start.dim)
    parts = (objective.model, objective.loss, objective.companion)
    demonstrations = [cast(TwoMode, mixture) for mixture in mixtures_in(parts)]
    deviation = _common_deviation(objective, (start, target, *demonstrations))
    origin = target.old_mean
    fixed = [target.new_mean, *(mean for mixture in demonstrations for mean in _means(mixture))]
    moving = _means(start) * (1 if objective.companion is None else 2)
    points = np.stack([*fixed, *moving]) - origin
    basis = _basis(points)
    # A coordinate for every mean but the origin, also where they span fewer, and those that a step opens.
    room = len(points) + _BESIDE - basis.shape[1]

    def inside(thing: object) -> object:
        if not isinstance(thing, TwoMode):
            return thing
        old, new = (np.pad((mean - origin) @ basis, (0, room)) for mean in _means(thing))
        return replace(thing, old_mean=old, new_mean=new, scale=np.asarray(deviation))

    model, loss, companion, start, target = jax.tree.map(
        inside, (*parts, start, target), is_leaf=lambda node: isinstance(node, TwoMode)
    )
    guide = InSpan(cast(Guide[TwoMode], objective.guide), dimension, len(fixed))
    reduced = replace(objective, model=model, guide=guide, loss=loss, companion=companion)
    return reduced, start, target


@traced_alone
def check_span(objective: Objective, start: Mixture, target: Mixture) -> None:
    """Refuse an objective that cannot be trained in the span of the means, whatever its numbers.

    Args:
        objective: not yet in the span.
        start: the learner at step 0.
        target: the true target.

    Raises:
        InputError: another learner than that of two modes with fixed covariance, a divergence that does not
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
    if names != {"old_logit", *_MEANS} or not isinstance(objective.guide, Guide):
        raise InputError(
            f"{wanted} the learner of two modes and fixed covariance; got params {', '.join(sorted(names))}"
        )
    companion = _companion_of(objective, start, target)
    laws = [
        law_of(program, {}, start, target)
        for program in (_beside(objective.model, companion), objective.guide)
    ]
    if not all(isinstance(law, MixtureLaw) and len(law.scales) == 1 for law in laws):
        kinds = ", ".join(type(law).__name__ for law in laws)
        raise InputError(f"{wanted} a model and a learner of one MixtureLaw with one covariance; got {kinds}")
    for part in _that_know_coordinates(objective, cast(TwoMode, start), cast(TwoMode, target)):
        raise InputError(
            f"{wanted} parts that move along with all mixtures, turned and shifted; {part} does not: it "
            "holds coordinates of its own (give them as a TwoMode)"
        )


def _companion_of(objective: Objective, start: Mixture, target: Mixture) -> Params | None:
    """Return the params of an objective's companion at step 0, or None without one."""
    companion = objective.companion
    return None if companion is None else companion.initial(objective.guide, start, target)


def _beside(model: Program, companion: Params | None) -> Program:
    """Return a model that knows its companion's params."""
    return model if companion is None else partial(model, companion=companion)


def _that_know_coordinates(objective: Objective, start: TwoMode, target: TwoMode) -> Iterator[str]:
    """Yield the parts that do not move along when all mixtures are turned and shifted by the same motion."""
    rng, dim = np.random.default_rng(0), target.dim
    turn = -np.eye(1) if dim == 1 else np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    shift = rng.normal(size=dim)

    def move(thing: object) -> object:
        if isinstance(thing, TwoMode):
            return replace(thing, **{name: getattr(thing, name) @ turn + shift for name in _MEANS})
        if isinstance(thing, dict):
            return {name: v @ turn + shift if jnp.ndim(v) else v for name, v in thing.items()}
        return thing

    def moved[Things](things: Things) -> Things:
        result: Things = jax.tree.map(move, things, is_leaf=lambda node: isinstance(node, TwoMode | dict))
        return result

    def law(
        program: Program, companion: Params | None, start: TwoMode, target: TwoMode
    ) -> tuple[Array, dict[int, Array]]:
        found = law_of(_beside(program, companion), {}, start, target)
        return found.log_weights, dict(enumerate(found.means))

    def walk(companion: Companion, learner: Params, start: TwoMode, target: TwoMode) -> list[Params]:
        policies = [companion.initial(objective.guide, start, target)]
        for step in range(1, 4):
            after = companion.after_step(policies[-1], learner, step, objective.guide, start, target)
            policies.append(after)
        return policies

    with jax.enable_x64(True):
        learner = {
            n: v + rng.normal(size=v.shape) for n, v in params_at(objective.guide, start, target).items()
        }
        checks: dict[str, tuple[Any, ...]] = {
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
class InSpan(Guide[TwoMode]):
    """A two-mode learner whose means are coordinates in a span that turns, as a guide.

    Args:
        learner: the guide.
        dimension: d, a number that a compiled program takes.
        fixed: how many of the coordinates do not turn.
    """

    learner: Guide[TwoMode]
    dimension: Scalar
    fixed: int

    @property
    def sample_dimension(self) -> Scalar:
        """The dimension of samples, d."""
        return self.dimension

    def __call__(self, start: TwoMode, target: TwoMode) -> None:
        """Run the guide."""
        self.learner(start, target)

    def metrics(self, params: dict[str, Array], start: TwoMode, target: TwoMode) -> dict[str, Array]:
        """Return what is recorded of one state of the parameters: what does not depend on coordinates."""
        observed = self.learner.metrics(params, start, target)
        return {name: value for name, value in observed.items() if not value.ndim}


class SpanSteps(Steps):
    """The steps of an `InSpan` by plain SGD: an `update` draws a batch in the span and beside it."""

    def update(self, svi_state: SVIState, *args: object, **kwargs: object) -> tuple[SVIState, Array]:
        """Take a step from means that are 0 in the last two coordinates, where afterwards they are not."""
        key, batch_key, beside_key = jax.random.split(svi_state.rng_key, 3)
        params = self.get_params(svi_state)
        model, guide, divergence, inside, setting = jax.tree.map(
            _without_beside, (self.model, self.guide, self.loss, params, args)
        )
        law = law_of(model, {}, *setting)

        def loss(params: dict[str, Array], shifts: Array) -> Array:
            learner = ShiftedLaw(law_of(guide, params, *setting), shifts)
            result: Array = divergence.between(batch_key, law, learner, setting)
            return result

        shifts = jnp.zeros((len(_MEANS), divergence.expectation.num_samples))
        value, (gradient, c) = jax.value_and_grad(loss, argnums=(0, 1))(inside, shifts)
        coordinates = _stacked(inside).shape[1]
        # In fewer dimensions than coordinates all means are 0 in the last of these, and so must stay.
        real = jnp.arange(coordinates) < guide.dimension
        beside = vectors_beside(beside_key, c, guide.dimension - coordinates) / setting[-1].scale
        for name, vector in zip(_MEANS, beside, strict=True):
            gradient[name] = jnp.concatenate([jnp.where(real, gradient[name], 0.0), vector])
        return SVIState(self.optim.update(gradient, svi_state.optim_state, value), None, key), value

    def settled(self, svi_state: SVIState, companion: Params | None) -> tuple[SVIState, Params | None]:
        """Turn the means of learner and companion until they are 0 in the last two coordinates."""
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


def vectors_beside(key: Array, c: Float[Array, "2 n"], directions: Float[Array, ""]) -> Float[Array, "2 2"]:
    """Return Σ_i c_ki z_i, k = 1, 2, for standard normal z_i, in coordinates that these two vectors span.

    With L Lᵀ = c cᵀ the two are the rows of L Z, Z of shape (2, directions), and Z = B Q with orthonormal
    rows Q and an independent B = [[χ(directions), 0], [N(0, 1), χ(directions - 1)]], Bartlett's.

    Args:
        key: for the three random numbers.
        c: coefficients.
        directions: their number; 0 or less gives zeros.
    """
    # Without the barrier XLA computes the coefficients anew for every sum.
    old, new = lax.optimization_barrier((c[0], c[1]))
    squared, product, other = jnp.sum(old * old), jnp.sum(old * new), jnp.sum(new * new)
    first = jnp.sqrt(squared)
    across = jnp.where(squared > 0.0, product / jnp.where(squared > 0.0, first, 1.0), 0.0)
    second = jnp.sqrt(jnp.maximum(other - across * across, 0.0))
    normal_key, *chi_keys = jax.random.split(key, 3)
    freedoms = jnp.maximum(jnp.stack([directions, directions - 1.0]), 0.0)
    gammas = jax.vmap(jax.random.gamma)(jnp.stack(chi_keys), 0.5 * jnp.maximum(freedoms, 1.0))
    chi = jnp.where(freedoms > 0.0, jnp.sqrt(2.0 * gammas), 0.0)
    normal = jnp.where(directions > 0.0, jax.random.normal(normal_key, dtype=chi.dtype), 0.0)
    zero = jnp.zeros_like(first)
    return jnp.stack(
        [
            jnp.stack([first * chi[0], zero]),
            jnp.stack([across * chi[0] + second * normal, second * chi[1]]),
        ]
    )


def lower_triangular(points: Float[Array, "m n"]) -> Float[Array, "m n"]:
    """Return a rotation of the rows, n ≥ m, in which row i is 0 beyond coordinate i.

    By Householder's reflections, unrolled since m is small.
    """
    for i in range(len(points)):
        row = points[i, i:]
        length = jnp.sqrt(jnp.sum(row * row))
        away = row.at[0].add(jnp.where(row[0] < 0.0, -length, length))
        square = jnp.sum(away * away)
        factor = jnp.where(square > 0.0, 2.0 / jnp.where(square > 0.0, square, 1.0), 0.0)
        reflected = points[:, i:] - factor * (points[:, i:] @ away)[:, None] * away
        # The reflection turns the first coordinate's sign, which is turned back: small steps turn little.
        points = points.at[:, i:].set(reflected.at[:, 0].multiply(jnp.where(square > 0.0, -1.0, 1.0)))
        points = points.at[i, i + 1 :].set(0.0)
    return points


def _without_beside(leaf: AnyArray) -> AnyArray:
    """Return a vector without the coordinates that a step opens, and anything else as it is."""
    return leaf[:-_BESIDE] if getattr(leaf, "ndim", 0) == 1 else leaf


def _means(mixture: TwoMode) -> list[Float[AnyArray, "d"]]:
    return [getattr(mixture, name) for name in _MEANS]


def _stacked(params: Params) -> Float[Array, "2 d"]:
    """Return the means among params."""
    return jnp.stack([params[name] for name in _MEANS])


def _with_means(params: Params, means: Float[Array, "2 d"]) -> Params:
    """Return params with other means."""
    return params | dict(zip(_MEANS, means, strict=True))


def _basis(points: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "d n"]:
    """Return orthonormal columns that span the points, in which point i has a positive coordinate i, or 0."""
    basis, triangle = np.linalg.qr(points.T)
    result: np.ndarray = basis * np.where(np.diag(triangle) < 0.0, -1.0, 1.0)
    return result


def _common_deviation(objective: Objective, mixtures: Sequence[TwoMode]) -> float:
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


def _deviation(mixture: TwoMode) -> float | None:
    """Return the standard deviation of isotropic modes, None for others."""
    scale = np.asarray(mixture.scale)
    diagonal = np.diag(scale) if scale.ndim == 2 else np.atleast_1d(scale)
    isotropic = np.all(diagonal == diagonal[0]) and (scale.ndim < 2 or np.all(scale == np.diag(diagonal)))
    return float(diagonal[0]) if isotropic and mixture.new_scale is None else None
