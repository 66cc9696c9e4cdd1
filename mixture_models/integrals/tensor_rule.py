"""Expectations of anything that modes of one covariance are mixed into, in the span of their means.

Whitened, densities of modes N(m_j, Σ) differ by linear functions of y, whose slopes lie in the span of the
differences m_i - m_j. So the expectation under any such mode of a function of these densities is an integral
over that span alone, of k ≤ d dimensions: one for two modes, three for a learner and a target.

In each principal direction of the means the trapezoid rule converges geometrically: a ratio of positive
mixtures has poles where phases of modes are π apart, at a distance π/s of the real axis if the means spread
by s. So a step h costs an error exp(-2π²/(h s)), and exp(-2π²/h²) for the normal density itself.
Where more than two modes are mixed the span can have so many dimensions that the rule would take too many
nodes: then the nodes are those of randomised quasi-Monte Carlo, see `quasi_monte_carlo`, whose error the
difference between two resolutions tells too. Derivation: docs/theory.md.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from mixture_models.integrals.logistic_normal import FINEST
from mixture_models.integrals.quasi_monte_carlo import FIRST, SIZES, normal_nodes
from mixture_models.mixture import covariance as cov
from mixture_models.mixture.law import MixtureLaw
from mixture_models.mixture.mixture import Mixture
from mixture_models.types import Index, Scalar
from mixture_models.validation import InputError

#: The resolution of what is reported of many learners, not minimised: its error is about 1e-8.
REPORTED = FINEST + 1

# By resolution: minus the log of a rule's error, and the standard deviations that it covers on either side.
_EXPONENTS = (26.0, 30.0, 35.0, 22.0)
_REACHES = (7.6, 8.1, 8.7, 6.8)

# Nodes of one turn of the loop, by the number of dimensions; beyond the maximum there is no value.
_BLOCKS = (1, 128, 1024, 4096)
_MOST_NODES = 2.0**24

# Of more than two modes: beyond as many at the finest resolution the nodes are quasi-random.
_MOST_OF_MANY = 2.0**20

# A spread of means that is rounding error.
_FLAT = 1e-12

_ROOT_2PI = float(np.sqrt(2.0 * np.pi))


def expectation[Out](
    law: MixtureLaw,
    function: Callable[[Array], Out],
    means: Float[Array, "m d"],
    resolution: Index = FINEST,
    *,
    phase: float = np.pi,
    tilt: Scalar = 0.0,
    many: bool = False,
) -> Out:
    """Return E_law[f(y)] for a function of the densities of modes N(m_j, Σ), Σ the covariance of the law.

    Differentiable in reverse, in the law's weights and means and in all that the function closes over, not in
    Σ; a second time forward, within the span. The cost grows with the spread of the means in every direction.

    Args:
        law: of one covariance Σ; its own means need not be among ``means``.
        function: f, which depends on samples of shape (n, d) only through densities of the modes, and
            returns a pytree of arrays of shape (n, ...).
        means: m_j of the modes that f depends on, shape (m, d).
        resolution: whole number from 0 to `FINEST`, or `REPORTED`, which may be traced; the difference
            between two is the estimate of the coarser one's error.
        phase: f stays of order 1 where phases of modes differ by less: π for logarithms of mixtures and for
            ratios, π/2 for exponentials of these.
        tilt: how steeply log f may rise far out, in whitened coordinates; for where nodes must be.
        many: whether f mixes more than two modes, so that quasi-random nodes take the place of too many.

    Returns:
        The pytree of f's arrays without their first axis; NaN where it would take more than 2²⁴ nodes, and
        not ``many``.

    Raises:
        InputError: a law with a covariance a mode.
    """
    if len(law.scales) > 1:
        raise InputError(f"an expectation needs a law of one covariance; got {len(law.scales)}")
    points = cov.whiten(law.scale(0), means - means[:1])
    if not many:
        rule = _rule_of(stop_gradient(points), resolution, phase, stop_gradient(tilt))
    else:
        rule = rule_of_many(stop_gradient(points), resolution, phase, stop_gradient(tilt))
    example = jnp.zeros((law.num_modes * _block(rule), law.means.shape[-1]), law.means.dtype)
    converted, constants = jax.closure_convert(function, example)
    result: Out = _integral(converted, rule, law.scale(0), law.log_weights, law.means, constants)
    return result


class Span(NamedTuple):
    """Coordinates u = B L⁻¹ (y - origin) of samples, in which the covariance L Lᵀ is the identity."""

    origin: Float[Array, "d"]
    scale: cov.Scale
    basis: Float[Array, "k d"]

    def coordinates(self, y: Float[Array, "... d"]) -> Float[Array, "... k"]:
        """Return u for samples."""
        result: Array = cov.whiten(self.scale, y - self.origin) @ self.basis.T
        return result

    def law(self, law: MixtureLaw) -> MixtureLaw:
        """Return a law in the span; ratios of densities stay what they are."""
        return MixtureLaw(law.log_weights, self.coordinates(law.means), (jnp.ones(()),))

    def mixture[M: Mixture](self, mixture: M) -> M:
        """Return a mixture in the span."""
        means = mixture.means
        return mixture.moved([self.coordinates(mean) for mean in means], jnp.ones(()))


def span_of(scale: cov.Scale, means: Float[Array, "m d"]) -> Span:
    """Return the span of means, whitened: min(d, m - 1) dimensions, whatever d is.

    By reflection an expectation of ratios of densities has no derivative in a mean orthogonally to the span:
    gradients through `Span.coordinates` are those in d dimensions.
    """
    means = stop_gradient(means)
    return Span(means[0], scale, _principal_axes(cov.whiten(scale, means - means[:1])))


def same_covariance(*laws: MixtureLaw) -> Array:
    """Return whether all laws have the one covariance of the first."""
    scales = [scale for law in laws for scale in law.scales]
    if any(scale.shape != scales[0].shape for scale in scales):
        return jnp.asarray(False)
    return reduce(jnp.logical_and, [jnp.all(scale == scales[0]) for scale in scales])


class _Rule(NamedTuple):
    """Axes in whitened coordinates, with the number of nodes and the step on each."""

    basis: Array
    counts: Array
    steps: Array
    sample: "_Sample | None" = None


class _Sample(NamedTuple):
    """The quasi-random nodes that may take the place of a rule's.

    Attributes:
        chosen: 1 where they do, else 0.
        first: the place of the first among all nodes.
        size: their number.
        basis: axes that turn smoothly with the means, in the place of the principal ones, which may leap.
    """

    chosen: Array
    first: Array
    size: Array
    basis: Array


# Log weights and means of the law, and what the function closes over.
_Inputs = tuple[Array, Array, list[Array]]

# The rule, the scale, then those.
_Arguments = tuple[_Rule, Array, Array, Array, list[Array]]


def _principal_axes(points: Array) -> Array:
    """Return orthonormal rows that span points, the first of which is 0; the largest spread comes first."""
    if points.shape[1] == 1:
        return jnp.ones((1, 1), points.dtype)
    rank = min(points.shape[1], len(points) - 1)
    return jnp.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][:rank]


def _rule_of(points: Array, resolution: Index, phase: float, tilt: Scalar) -> _Rule:
    exponent, reach = (jnp.asarray(t, points.dtype)[resolution] for t in (_EXPONENTS, _REACHES))
    basis = _principal_axes(points)
    along = points @ basis.T
    spread = jnp.max(along, axis=0) - jnp.min(along, axis=0)
    steps = jnp.minimum(np.pi * jnp.sqrt(2.0 / exponent), 2.0 * np.pi * phase / (exponent * spread))
    flat = spread < _FLAT
    counts = jnp.where(flat, 1.0, jnp.ceil(2.0 * (reach + tilt) / steps))
    return _Rule(basis, counts, jnp.where(flat, _ROOT_2PI, steps))


def rule_of_many(
    points: Float[Array, "m d"], resolution: Index, phase: float = np.pi, tilt: Scalar = 0.0
) -> _Rule:
    """Return the rule for more than two modes at whitened points, the first of which is 0."""
    rule = _rule_of(points, resolution, phase, tilt)
    chosen = jnp.prod(_rule_of(points, FINEST, phase, tilt).counts) > _MOST_OF_MANY
    first, count = (jnp.asarray(t, points.dtype)[resolution] for t in (FIRST, SIZES))
    axes, lengths = jnp.linalg.qr((points[1:] - points[:1]).T)
    along = jnp.diagonal(lengths)
    # Of a definite sign, whatever that of the factors.
    basis = (axes * jnp.where(along < 0.0, -1.0, 1.0)).T[: len(rule.counts)]
    return rule._replace(sample=_Sample(chosen.astype(points.dtype), first, count, basis))


def _block(rule: _Rule) -> int:
    return _BLOCKS[min(len(rule.counts), 3)]


def turn_nodes(rule: _Rule, turn: Array) -> tuple[Array, Array]:
    """Return the nodes of one turn, whitened and from a mode's mean, and their weights, 0 beyond the last."""
    index = (turn * _block(rule) + jnp.arange(_block(rule))).astype(rule.steps.dtype)
    z, log_weight = [], jnp.zeros_like(index)
    for count, step in zip(rule.counts, rule.steps, strict=True):
        above = jnp.floor((index + 0.5) / count)
        offset = (index - above * count - 0.5 * (count - 1.0)) * step
        log_weight = log_weight - 0.5 * offset * offset
        z.append(offset)
        index = above
    volume = jnp.prod(rule.steps / _ROOT_2PI)
    nodes = jnp.stack(z, axis=-1) @ rule.basis
    weights = jnp.where(index > 0.0, 0.0, volume * jnp.exp(log_weight))
    if rule.sample is None:
        return nodes, weights
    sample, size = rule.sample, _block(rule)
    place = (sample.first + turn * size).astype(int)
    drawn = lax.dynamic_slice_in_dim(jnp.asarray(normal_nodes(len(rule.counts)), nodes.dtype), place, size)
    return (
        jnp.where(sample.chosen > 0.0, drawn @ sample.basis, nodes),
        jnp.where(sample.chosen > 0.0, 1.0 / sample.size, weights),
    )


def _of_turn[Out](
    function: Callable[..., Out], rule: _Rule, scale: Array, turn: Array, inputs: _Inputs
) -> Out:
    """Return what the nodes of one turn contribute."""
    log_weights, means, constants = inputs
    u, weight = turn_nodes(rule, turn)
    y = means[:, None] + cov.colour(scale, u)
    values = function(y.reshape(-1, means.shape[-1]), *constants)
    weights = (jnp.exp(log_weights)[:, None] * weight).ravel()
    result: Out = jax.tree.map(lambda v: jnp.tensordot(weights, v, 1), values)
    return result


def over_turns[Out](terms: Callable[[Array], Out], rule: _Rule) -> Out:
    """Return the sum over all turns; their number is traced, so that memory and programs stay small."""
    total = jnp.prod(rule.counts)
    if rule.sample is not None:
        total = jnp.where(rule.sample.chosen > 0.0, rule.sample.size, total)
    turns = jnp.where(total <= _MOST_NODES, jnp.ceil(total / _block(rule)), 0).astype(int)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(terms, jnp.zeros((), int)))
    sums = lax.fori_loop(0, turns, lambda i, sums: jax.tree.map(jnp.add, sums, terms(i)), zeros)
    result: Out = jax.tree.map(lambda x: jnp.where(total <= _MOST_NODES, x, jnp.nan), sums)
    return result


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _integral[Out](
    function: Callable[..., Out],
    rule: _Rule,
    scale: Array,
    log_weights: Array,
    means: Array,
    constants: list[Array],
) -> Out:
    return _sum(function, rule, scale, log_weights, means, constants)


def _sum[Out](function: Callable[..., Out], rule: _Rule, scale: Array, *inputs: *_Inputs) -> Out:
    return over_turns(lambda turn: _of_turn(function, rule, scale, turn, inputs), rule)


def _forward[Out](function: Callable[..., Out], *arguments: *_Arguments) -> tuple[Out, _Arguments]:
    # The sum can be differentiated forward, unlike the rule itself.
    return _sum(function, *arguments), arguments


def _backward[Out](
    function: Callable[..., Out], arguments: _Arguments, cotangents: Out
) -> tuple[_Rule | Array | list[Array], ...]:
    rule, scale, *inputs = arguments

    def terms(turn: Array) -> _Inputs:
        _, pull_back = jax.vjp(lambda x: _of_turn(function, rule, scale, turn, x), tuple(inputs))
        result: _Inputs = pull_back(cotangents)[0]
        return result

    gradients = over_turns(terms, rule)
    return (*jax.tree.map(jnp.zeros_like, (rule, scale)), *gradients)


_integral.defvjp(_forward, _backward)
