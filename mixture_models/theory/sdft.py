"""SDFT: where student and teacher come to rest, how fast, and how much of the old mode they keep.

The means are right unless said otherwise. All functions broadcast over their arguments and return float64
arrays.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import expit

from mixture_models.integrals.line import logit_of
from mixture_models.theory.geometry import local_rates
from mixture_models.theory.resting import Retention, nonzero_separation
from mixture_models.types import Reals
from mixture_models.validation import bounded_array


def sdft_fixed_point(
    anchor: ArrayLike, start_weight: ArrayLike, demonstrated_weight: ArrayLike
) -> Float[Reals, "..."]:
    """Return the old weight at which SDFT's student and teacher rest as one: ω_demo's if λ > 0.

    The student rests where q is the teacher's law. Where its labels are the teacher's too, the teacher then
    moves by λ (ω_demo - ω). With λ = 0 every student that is its own teacher rests, so the weight is where it
    started. With swapped labels there is another rest, `sdft_swapped_rest`.

    Args:
        anchor: λ in [0, 1].
        start_weight: in (0, 1), the student's and the teacher's at the start.
        demonstrated_weight: in [0, 1], the demonstrations'.

    Raises:
        InputError: an argument out of range.
    """
    pull = bounded_array("anchor", anchor, "[0, 1]")
    start = bounded_array("start_weight", start_weight, "(0, 1)")
    shown = bounded_array("demonstrated_weight", demonstrated_weight, "[0, 1]")
    return np.where(pull > 0.0, *np.broadcast_arrays(shown, start))


class SwappedRest(NamedTuple):
    """A teacher that rests beside a student with its law and the other labels.

    Attributes:
        old_weight: the teacher's; the student's is one minus it.
        old_mean: the teacher's, and the student's new one: from the demonstrated old mean toward the new one.
        new_mean: the teacher's, and the student's old one.
    """

    old_weight: Float[Reals, "..."]
    old_mean: Float[Reals, "..."]
    new_mean: Float[Reals, "..."]


def sdft_swapped_rest(
    anchor: ArrayLike, demonstrated_weight: ArrayLike, separation: ArrayLike
) -> SwappedRest:
    """Return SDFT's other rest, where the student's old mode is the teacher's new one and the reverse.

    Teacher ω = (1-λ) θ + λ ω_demo with θ the swap of ω: φ_ω = λ φ_demo/(2-λ), and means at (1-λ) δ/(2-λ) and
    δ/(2-λ), only λ δ/(2-λ) apart. Training from right means does not come here; one whose means cross can.

    Args:
        anchor: λ in (0, 1].
        demonstrated_weight: in (0, 1).
        separation: δ in (0, 100] of the demonstrated means.

    Raises:
        InputError: an argument out of range.
    """
    pull = bounded_array("anchor", anchor, "(0, 1]")
    shown, delta = logit_of(demonstrated_weight, None, "demonstrated_weight"), nonzero_separation(separation)
    share = 1.0 / (2.0 - pull)
    rest = np.broadcast_arrays(expit(pull * share * shown), (1.0 - pull) * share * delta, share * delta)
    return SwappedRest(*rest)


def sdft_local_rate(
    weight: ArrayLike | None = None,
    separation: ArrayLike | None = None,
    *,
    anchor: ArrayLike,
    teacher_rate: ArrayLike,
    alpha: ArrayLike | None = None,
    logit: ArrayLike | None = None,
) -> Float[Reals, "..."]:
    """Return the rate at which SDFT's student and teacher approach the demonstrations, once near them.

    In an eigendirection of the Fisher information with eigenvalue f the student obeys x' = -c f (x - z) and
    the teacher z' = ρ [(1-λ) x - z], of which the slower rate is

        2 c f ρ λ / (c f + ρ + √((c f + ρ)² - 4 c f ρ λ)).

    It increases with f, so the smallest eigenvalue, `local_rate`, sets the pace; it is at most ρ λ. For KL
    divergences c = 1, for the interpolation c = α(1-α). The whitened flow's, with all parameters free.

    Args:
        weight: in (0, 1), the old mass of the demonstrations. Give this or ``logit``.
        separation: δ in [0, 100] of their means.
        anchor: λ in [0, 1].
        teacher_rate: ρ > 0, the moving average's rate a step over the learning rate.
        alpha: α in (0, 1) of the interpolated divergence, None for a KL divergence.
        logit: of the old mass, for weights too extreme to write down.

    Raises:
        InputError: an argument missing or out of range.
    """
    pull, rho = (
        bounded_array("anchor", anchor, "[0, 1]"),
        bounded_array("teacher_rate", teacher_rate, "(0, inf)"),
    )
    share = None if alpha is None else bounded_array("alpha", alpha, "(0, 1)")
    curvature = 1.0 if share is None else share * (1.0 - share)
    f = curvature * local_rates(weight, separation, logit=logit)
    return 2.0 * f * rho * pull / (f + rho + np.sqrt((f + rho) ** 2 - 4.0 * f * rho * pull))


def sdft_retains(
    anchor: ArrayLike,
    start_weight: ArrayLike,
    demonstrated_weight: ArrayLike,
    *,
    separation: ArrayLike | None = None,
) -> Retention:
    """Return whether SDFT restores old mass: from right means iff λ > 0 and the demonstrations hold some.

    So it is at every separation: the student's weight goes toward the teacher's, the teacher's toward the
    demonstrated one, and nowhere else do both rest; overlap only makes it slow, see `sdft_local_rate`. Starts
    whose means cross on their way, or whose labels are swapped, may end elsewhere, see `sdft_swapped_rest`.
    With λ = 0 the old mass is that of the start for as long as nothing disturbs it, and nothing restores it:
    noise makes it wander.

    Arguments and errors are those of `sdft_fixed_point`, with δ in (0, 100] of the means, on which the answer
    does not depend; None for any.
    """
    apart = 1.0 if separation is None else nonzero_separation(separation)
    pull, weight, _ = np.broadcast_arrays(
        anchor, sdft_fixed_point(anchor, start_weight, demonstrated_weight), apart
    )
    return Retention((pull > 0.0) & (weight > 0.0), weight)
