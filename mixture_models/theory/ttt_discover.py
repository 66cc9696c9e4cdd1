"""TTT-Discover: where the learner comes to rest, and how much of the old mode it keeps.

The means are right unless said otherwise, φ = logit β, and Δ = R_n - R_o is the gap of the rewards.
"Separated" formulas hold up to terms of the order of the overlap, "exact" ones at every separation, for
`mode_reward`. All functions broadcast over their arguments and return float64 arrays.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize.elementwise import find_root
from scipy.special import expit

from mixture_models.integrals.line import Line, along_line, logit_of
from mixture_models.theory.geometry import weight_pull
from mixture_models.theory.resting import LARGEST, Retention, nonzero_separation
from mixture_models.theory.rounds import densities, half_steps
from mixture_models.types import Reals
from mixture_models.validation import bounded_array, finite_array


def ttt_discover_stationary_logit(
    start_weight: ArrayLike | None = None,
    *,
    reward_gap: ArrayLike,
    kl_weight: ArrayLike,
    eta: ArrayLike = 1.0,
    start_logit: ArrayLike | None = None,
) -> Float[Reals, "..."]:
    """Return the logit at which TTT-Discover rests, for separated modes.

    It is the root of

        φ - φ₀ = -(1/λ) (1 - e^(-ηΔ)) / (1 - β (1 - e^(-ηΔ))).

    The difference of both sides increases with φ at a slope of at least 1, so there is one root, to which
    the flow goes from everywhere. Without an anchor there is none: -∞ for Δ > 0, +∞ for Δ < 0.

    Args:
        start_weight: β₀ in (0, 1), the reference policy's old mass. Give this or ``start_logit``.
        reward_gap: Δ = R_n - R_o.
        kl_weight: λ ≥ 0.
        eta: η > 0, with |η Δ| at most 500.
        start_logit: φ₀.

    Raises:
        InputError: an argument missing or out of range.

    Source: arXiv:2601.16175 for the method; derivation: docs/theory.md.
    """
    start = logit_of(start_weight, start_logit, "start_weight")
    gap, anchor = _exponent(eta, reward_gap), bounded_array("kl_weight", kl_weight, "[0, inf)")

    def excess(logit: Reals, start: Reals, gap: Reals, anchor: Reals) -> Reals:
        drive = -np.expm1(-gap) / (expit(-logit) + expit(logit) * np.exp(-gap))
        result: Reals = logit - start + drive / anchor
        return result

    # Beyond φ = 0 and φ₀ - 2/λ the right-hand side is at most 2/λ.
    with np.errstate(divide="ignore"):
        reach = np.abs(start) + np.where(anchor > 0.0, 2.0 / anchor, 0.0) + 1.0
    return _rest(excess, reach, start, gap, anchor)


def ttt_discover_stationary_logit_exact(
    start_weight: ArrayLike | None = None,
    separation: ArrayLike | None = None,
    *,
    target_weight: ArrayLike | None,
    reward_gap: ArrayLike,
    kl_weight: ArrayLike,
    eta: ArrayLike = 1.0,
    start_logit: ArrayLike | None = None,
) -> Float[Reals, "..."]:
    """Return the logit at which TTT-Discover rests with right means at any separation, by integrals.

    With A_k = E_{N(μ_k)}[exp(η r)] and κ of `weight_gradient` it is the root of

        ∫_{φ₀}^{φ} κ(s) ds = -(1/λ) (A_n - A_o) / (β A_o + (1-β) A_n),

    of which there is one at most, as both sides are monotone. Unlike for separated modes the left-hand side
    is bounded, for β₀ = ½ by δ²/2: where λ is too small the old mass is lost altogether, and the value is
    -∞, see `ttt_discover_critical_kl_weight`.

    Arguments and errors are those of `ttt_discover_stationary_logit`, with δ in (0, 100] of the means and the
    α in (0, 1) of the responsibilities in r = R_o s_o + R_n s_n.

    Source: arXiv:2601.16175 for the method; derivation: docs/theory.md.
    """
    start = logit_of(start_weight, start_logit, "start_weight")
    gap, anchor = _exponent(eta, reward_gap), bounded_array("kl_weight", kl_weight, "[0, inf)")
    delta = nonzero_separation(separation)
    means = along_line(_tilted_means, delta, logit_of(target_weight, None, "target_weight"), gap)

    def excess(logit: Reals, *settings: Reals) -> Reals:
        start, _, anchor, delta, of_old, rise = settings
        pull = weight_pull(logit, start, delta)
        result: Reals = pull + rise / (of_old + expit(-logit) * rise) / anchor
        return result

    return _rest(excess, _fading(start, delta), start, gap, anchor, delta, means[..., 0], means[..., 1])


def _fading(start: Reals, delta: Reals) -> Reals:
    """Return how far from the start κ has faded, which it does for |φ| ≫ 2 δ²: beyond it nothing rests."""
    return np.abs(start) + 3.0 * delta**2 + 100.0


def _tilted_means(line: Line, separation: Reals, logit: Reals, gap: Reals) -> Reals:
    """Return A_o and A_n - A_o but for exp(η R_n), the latter with an integrand of one sign."""
    y, step = half_steps(line)
    old, new = densities(y, separation)
    tilted = np.exp(-gap * expit(logit - separation * y))
    rise = (new - old) * (tilted - np.exp(-gap * expit(logit)))
    return np.stack([(step * values).sum(axis=-1) for values in (old * tilted, rise)], axis=-1)


def ttt_discover_critical_kl_weight(
    start_weight: ArrayLike | None = None,
    separation: ArrayLike | None = None,
    *,
    target_weight: ArrayLike,
    reward_gap: ArrayLike,
    eta: ArrayLike = 1.0,
    start_logit: ArrayLike | None = None,
) -> Float[Reals, "..."]:
    """Return λ_c(δ), the KL weight above which TTT-Discover keeps old mass with right means: 0 for Δ ≤ 0.

        λ_c = (1 - A_o/A_n) / ∫_{-∞}^{φ₀} κ ds,

    which is the anchor's pull against the reward's where the old mode is rare. It falls with δ, and for modes
    far apart like 2 (1 - e^(-ηΔ))/δ².

    Arguments and errors are those of `ttt_discover_stationary_logit_exact`.
    """
    start = logit_of(start_weight, start_logit, "start_weight")
    gap, delta = _exponent(eta, reward_gap), nonzero_separation(separation)
    means = along_line(_tilted_means, delta, logit_of(target_weight, None, "target_weight"), gap)
    rise = means[..., 1] / (means[..., 0] + means[..., 1])
    start, far, delta, rise = np.broadcast_arrays(start, _fading(start, delta), delta, rise)
    return np.maximum(rise, 0.0) / -weight_pull(start - far, start, delta)


def ttt_discover_retains(
    start_weight: ArrayLike,
    *,
    reward_gap: ArrayLike,
    kl_weight: ArrayLike,
    eta: ArrayLike = 1.0,
    separation: ArrayLike | None = None,
    target_weight: ArrayLike | None = None,
) -> Retention:
    """Return whether TTT-Discover keeps old mass with right means.

    Iff Δ ≤ 0 or λ > λ_c(δ), `ttt_discover_critical_kl_weight`; without a separation, for modes so far apart
    that λ_c is 0, iff Δ ≤ 0 or λ > 0. How much is the weight of `ttt_discover_stationary_logit_exact`, or of
    `ttt_discover_stationary_logit`: little where 1 - e^(-ηΔ) is large against λ. The means are held: free
    ones may carry the weight to the new mode, see `massdrift plan`.

    Arguments and errors are those of `ttt_discover_stationary_logit_exact`; a separation of None is that of
    separated modes, and needs no target_weight.
    """
    settings: dict[str, ArrayLike] = {"reward_gap": reward_gap, "kl_weight": kl_weight, "eta": eta}
    if separation is None:
        logit = ttt_discover_stationary_logit(start_weight, **settings)
    else:
        logit = ttt_discover_stationary_logit_exact(
            start_weight, separation, target_weight=target_weight, **settings
        )
    return Retention(logit > -np.inf, expit(logit))


def _rest(excess: Callable[..., Reals], reach: Reals, *given: Reals) -> Reals:
    """Return the root in φ of a function that increases: between the start and ``reach`` from it, or ∓∞.

    Args:
        excess: of φ and what is given.
        reach: how far from the start a root may be.
        *given: the start, the gap, whose sign the excess has at the start, the anchor, and others.
    """
    reach, start, gap, anchor, *others = np.broadcast_arrays(reach, *given)
    free, sign = anchor == 0.0, np.sign(gap)
    settings = (start, gap, np.where(free, 1.0, anchor), *others)
    far = start - sign * reach
    endless = free | (sign * excess(far, *settings) > 0.0)
    found = find_root(excess, (np.minimum(start, far), np.maximum(start, far)), args=settings)
    return np.select([gap == 0.0, endless], [start, np.where(gap > 0.0, -np.inf, np.inf)], found.x)


def _exponent(eta: ArrayLike, gap: ArrayLike) -> Reals:
    """Return η Δ."""
    product = bounded_array("eta", eta, "(0, inf)") * finite_array("reward_gap", gap)
    return bounded_array("eta times reward_gap", product, f"[-{LARGEST:g}, {LARGEST:g}]")
