"""The range that a learner must not leave: beyond it a training is called diverged, though it is finite."""

from functools import singledispatch

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mixture_models.mixture import covariance as cov
from mixture_models.mixture.mixture import Mixture
from mixture_models.mixture.task import Task
from mixture_models.types import Scalar

#: How many times as far as the problem reaches a mean may be, and as wide a mode.
FARTHEST = 1000.0

#: How far a logit may be from 0, beyond those of start and target [nat]: a weight of e^(-10⁶).
LARGEST_LOGIT = 1e6

_MEANS = ("old_mean", "new_mean", "mean", "task_mean")
_SCALES = ("scale", "old_scale", "new_scale")
_LOGITS = ("old_logit", "scaled_logits")


def reach(start: Mixture, target: Mixture, dimension: Scalar | None = None) -> Float[Array, ""]:
    """Return √d + the largest distance of a mean of start or target from the target's first [Mahalanobis].

    About as far from there as samples of the problem are, for √d is their typical distance from a mean.

    Args:
        start: the learner at step 0.
        target: the true target.
        dimension: d, where it is not that of the target's coordinates.
    """
    means = jnp.concatenate([jnp.asarray(target.means[1:]), jnp.asarray(start.means)])
    distances = cov.length(target.scales[0], means - target.means[0])
    return jnp.sqrt(target.dim if dimension is None else dimension) + jnp.max(distances)


@singledispatch
def has_left(
    start: Task, target: Task, params: dict[str, Array], dimension: Scalar | None = None
) -> Bool[Array, ""]:
    """Return whether a learner is where no training that works takes it: nowhere without a range."""
    return jnp.zeros((), bool)


@has_left.register
def _(
    start: Mixture, target: Mixture, params: dict[str, Array], dimension: Scalar | None = None
) -> Bool[Array, ""]:
    """Return whether a learner is where no training that works takes it.

    A mean is more than `FARTHEST` × `reach` from the target's first [Mahalanobis], a standard deviation is
    more than that many times those of start and target, or a logit is beyond `LARGEST_LOGIT`. Params of other
    names or shapes are not looked at. A weight of 0 or 1, a mode at the other's place or one that is
    a hundred standard deviations off are no divergence: they are what is measured.

    Args:
        start: the learner at step 0.
        target: the true target.
        params: the learner's, by name.
        dimension: d, where it is not that of the target's coordinates.
    """
    farthest, origin = FARTHEST * reach(start, target, dimension), target.means[0]
    widest = jnp.max(jnp.stack([jnp.max(jnp.abs(s)) for m in (start, target) for s in m.scales]))
    left, given = jnp.zeros((), bool), start.params()
    for name, value in params.items():
        if name in _MEANS and value.shape in (origin.shape, target.means.shape):
            left |= jnp.any(cov.length(target.scales[0], value - origin) > farthest)
        elif name in _SCALES:
            left |= jnp.max(jnp.abs(value)) > farthest * widest
        elif name in _LOGITS and name in given:
            largest = LARGEST_LOGIT + jnp.max(jnp.abs(jnp.stack([given[name], target.params()[name]])))
            left |= jnp.any(jnp.abs(value) > largest)
    return left
