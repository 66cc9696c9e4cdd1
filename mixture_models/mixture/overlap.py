"""The overlap area of two weighted normal densities: the retention measure of the published simulation."""

import jax.numpy as jnp
from jax.scipy.special import erfc
from jaxtyping import Array, Float

from mixture_models.mixture import covariance as cov
from mixture_models.mixture.two_mode import TwoMode, expit
from mixture_models.types import AnyArray, Scalar

_ROOT_HALF = 0.5**0.5


def overlap_area(
    weight: Array,
    mean: Array,
    scale: Array,
    other_weight: Scalar,
    other_mean: Array,
    other_scale: Array,
) -> Float[Array, "..."]:
    """Return ∫ min(w N(x; m, s²), w' N(x; m', s'²)) dx in closed form.

    The densities cross where a quadratic vanishes, at most twice. Between crossings one density is
    below the other throughout, so the area is the sum over intervals of the smaller of the two masses.

    Args:
        weight: w > 0 of the first density, shape (...), as all that follow.
        mean: m.
        scale: s > 0.
        other_weight: w' > 0 of the second density.
        other_mean: m'.
        other_scale: s' > 0.
    """
    # log ratio of the densities as a x² + b x + c, x measured from the first mean in units of its scale
    ratio, shift = other_scale / scale, (other_mean - mean) / scale
    a = 0.5 * (1.0 / ratio**2 - 1.0)
    b = -shift / ratio**2
    c = jnp.log(weight / other_weight) + jnp.log(ratio) + 0.5 * (shift / ratio) ** 2
    # Without a crossing the root is any point: splitting an interval leaves the sum as it is.
    root = jnp.sqrt(jnp.maximum(b * b - 4.0 * a * c, 0.0))
    q = -0.5 * (b + jnp.where(b < 0.0, -root, root))
    one = jnp.where(q == 0.0, 0.0, c / jnp.where(q == 0.0, 1.0, q))
    other = jnp.where(a == 0.0, jnp.inf, q / jnp.where(a == 0.0, 1.0, a))
    low, high = jnp.minimum(one, other), jnp.maximum(one, other)
    masses = _masses(low, high)
    others = _masses((low - shift) / ratio, (high - shift) / ratio)
    below, between, above = (
        jnp.minimum(weight * a, other_weight * b) for a, b in zip(masses, others, strict=True)
    )
    return below + between + above


def _masses(low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Return the mass of the standard normal law below, between and above two points."""
    # Cheaper in this form than `jax.scipy.special.ndtr`, and as exact.
    below, above = 0.5 * erfc(-_ROOT_HALF * low), 0.5 * erfc(_ROOT_HALF * high)
    return below, 1.0 - below - above, above


def single_mode_overlaps(mean: Float[Array, "d"], scale: cov.Scale, target: TwoMode) -> dict[str, Array]:
    """Return the share of each target mode that a learner N(mean, scale²) covers; empty unless d = 1.

    ``old_overlap`` = ∫ min(p_o, q) dx / ∫ p_o dx with p_o the weighted old mode of the target, and
    ``new_overlap`` likewise.

    Source: Chen et al. 2025 (arXiv:2510.18874).
    """
    if target.dim != 1:
        return {}
    return {
        name: overlap_area(weight, centre[0], width.reshape(()), 1.0, mean[0], scale.reshape(())) / weight
        for name, weight, centre, width in _weighted_modes(target)
    }


def two_mode_overlaps(learner: TwoMode, target: TwoMode) -> dict[str, Array]:
    """Return the share of each target mode that the learner's own mode covers; empty unless d = 1.

    Both densities carry their mixture weights, as in the published simulation.
    """
    if target.dim != 1:
        return {}
    return {
        name: overlap_area(weight, centre[0], width.reshape(()), own, mean[0], scale.reshape(())) / weight
        for (name, weight, centre, width), (_, own, mean, scale) in zip(
            _weighted_modes(target), _weighted_modes(learner), strict=True
        )
    }


def _weighted_modes(mixture: TwoMode) -> list[tuple[str, AnyArray, AnyArray, cov.Scale]]:
    old_scale, new_scale = mixture.scales
    return [
        ("old_overlap", expit(mixture.old_logit), mixture.old_mean, old_scale),
        ("new_overlap", expit(-mixture.old_logit), mixture.new_mean, new_scale),
    ]
