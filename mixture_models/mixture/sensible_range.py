"""The range that a learner must not leave: beyond it a training is called diverged, though it is finite."""

from functools import singledispatch

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mixture_models.mixture import covariance as cov
from mixture_models.mixture.mixture import TaskMixture
from mixture_models.mixture.task import Task
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.types import Scalar

#: How many times as far as the problem reaches a mean may be, and as wide a mode.
FARTHEST = 1000.0

#: How far the old logit may be from 0, beyond those of start and target [nat]: a weight of e^(-10⁶).
LARGEST_LOGIT = 1e6

_MEANS = ("old_mean", "new_mean", "mean")
_SCALES = ("scale", "old_scale", "new_scale")


def reach(start: TwoMode, target: TwoMode, dimension: Scalar | None = None) -> Float[Array, ""]:
    """Return √d + the largest distance of a mean of start or target from the target's old mean [Mahalanobis].

    About as far from there as samples of the problem are, for √d is their typical distance from a mean.

    Args:
        start: the learner at step 0.
        target: the true target.
        dimension: d, where it is not that of the target's coordinates.
    """
    means = (target.new_mean, start.old_mean, start.new_mean)
    distances = [cov.length(target.scale, mean - target.old_mean) for mean in means]
    return jnp.sqrt(target.dim if dimension is None else dimension) + jnp.max(jnp.stack(distances))


@singledispatch
def has_left(
    start: Task, target: Task, params: dict[str, Array], dimension: Scalar | None = None
) -> Bool[Array, ""]:
    """Return whether a learner is where no training that works takes it: nowhere without a range."""
    return jnp.zeros((), bool)


@has_left.register
def _(
    start: TwoMode, target: TwoMode, params: dict[str, Array], dimension: Scalar | None = None
) -> Bool[Array, ""]:
    """Return whether a learner is where no training that works takes it.

    A mean is more than `FARTHEST` × `reach` from the target's old mean [Mahalanobis], a standard deviation is
    more than that many times those of start and target, or the old logit is beyond `LARGEST_LOGIT`. Params of
    other names or shapes are not looked at. A weight of 0 or 1, a mode at the other's place or one that is
    a hundred standard deviations off are no divergence: they are what is measured.

    Args:
        start: the learner at step 0.
        target: the true target.
        params: the learner's, by name.
        dimension: d, where it is not that of the target's coordinates.
    """
    farthest = FARTHEST * reach(start, target, dimension)
    left = jnp.zeros((), bool)
    for name in _MEANS:
        if name in params and params[name].shape == target.old_mean.shape:
            left |= cov.length(target.scale, params[name] - target.old_mean) > farthest
    widest = jnp.max(jnp.stack([jnp.max(jnp.abs(s)) for m in (start, target) for s in m.scales]))
    for name in _SCALES:
        if name in params:
            left |= jnp.max(jnp.abs(params[name])) > farthest * widest
    if "old_logit" in params:
        given = jnp.maximum(jnp.abs(start.old_logit), jnp.abs(target.old_logit))
        left |= jnp.abs(params["old_logit"]) > LARGEST_LOGIT + given
    return left


@has_left.register
def _(
    start: TaskMixture, target: TaskMixture, params: dict[str, Array], dimension: Scalar | None = None
) -> Bool[Array, ""]:
    """Return whether a learner of named tasks is where no training that works takes it, as for two modes."""
    origin = target.means[0]
    places = jnp.concatenate([jnp.asarray(target.means[1:]), jnp.asarray(start.means)])
    width = jnp.sqrt(target.dim if dimension is None else dimension)
    farthest = FARTHEST * (width + jnp.max(cov.length(target.scale, places - origin)))
    left = jnp.zeros((), bool)
    if "task_mean" in params:
        left |= jnp.any(cov.length(target.scale, params["task_mean"] - origin) > farthest)
    if "scale" in params:
        widest = jnp.max(jnp.stack([jnp.max(jnp.abs(m.scale)) for m in (start, target)]))
        left |= jnp.max(jnp.abs(params["scale"])) > farthest * widest
    if "scaled_logits" in params:
        given = jnp.maximum(jnp.max(jnp.abs(start.logits)), jnp.max(jnp.abs(target.logits)))
        left |= jnp.any(jnp.abs(params["scaled_logits"]) > LARGEST_LOGIT + given)
    return left
