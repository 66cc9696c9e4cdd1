"""Near-on-policy methods: where they come to rest, how fast, and how much of the old mode they keep.

The means are right unless said otherwise, φ = logit β, and Δ = R_n - R_o is the gap of the rewards.
"Separated" formulas hold up to terms of the order of the overlap, "exact" ones at every separation, for
`mode_reward`. All functions broadcast over their arguments and return float64 arrays.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.optimize.elementwise import find_root
from scipy.special import expit

from mixture_models.integrals.line import Line, along_line, logit_of, separation_of
from mixture_models.theory.geometry import local_rates, weight_pull
from mixture_models.theory.rounds import (
    after_rounds,
    densities,
    exact_slope,
    half_steps,
    separated_slope,
)
from mixture_models.types import Reals
from mixture_models.validation import InputError, bounded_array, finite_array, integer

# Largest η Δ and Δ/β, whose exponentials are formed.
_LARGEST = 500.0


class Retention(NamedTuple):
    """Whether a method keeps old mass, and how much.

    Attributes:
        retains: whether the condition that the function states holds.
        old_weight: the old mass that is kept.
    """

    retains: Bool[np.ndarray, "..."]
    old_weight: Float[Reals, "..."]


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

    Source: derivation: docs/theory.md.
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

    Source: derivation: docs/theory.md.
    """
    pull = bounded_array("anchor", anchor, "(0, 1]")
    shown, delta = logit_of(demonstrated_weight, None, "demonstrated_weight"), _apart(separation)
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

    Source: derivation: docs/theory.md.
    """
    pull, rho = bounded_array("anchor", anchor, "[0, 1]"), _positive("teacher_rate", teacher_rate)
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

    Args:
        anchor: λ in [0, 1].
        start_weight: in (0, 1).
        demonstrated_weight: in [0, 1].
        separation: δ in (0, 100] of the means, which the answer does not depend on; None for any.

    Raises:
        InputError: an argument out of range.

    Source: derivation: docs/theory.md.
    """
    apart = 1.0 if separation is None else _apart(separation)
    pull, weight, _ = np.broadcast_arrays(
        anchor, sdft_fixed_point(anchor, start_weight, demonstrated_weight), apart
    )
    return Retention((pull > 0.0) & (weight > 0.0), weight)


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
    gap, anchor = _exponent(eta, reward_gap), _at_least_zero("kl_weight", kl_weight)

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

    Args:
        start_weight: β₀ in (0, 1), the reference policy's old mass. Give this or ``start_logit``.
        separation: δ in (0, 100] of the means.
        target_weight: α in (0, 1), of the responsibilities in r = R_o s_o + R_n s_n.
        reward_gap: Δ = R_n - R_o.
        kl_weight: λ ≥ 0.
        eta: η > 0, with |η Δ| at most 500.
        start_logit: φ₀.

    Raises:
        InputError: an argument missing or out of range.

    Source: arXiv:2601.16175 for the method; derivation: docs/theory.md.
    """
    start = logit_of(start_weight, start_logit, "start_weight")
    gap, anchor = _exponent(eta, reward_gap), _at_least_zero("kl_weight", kl_weight)
    delta = _apart(separation)
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

    Args:
        start_weight: β₀ in (0, 1), the reference policy's old mass. Give this or ``start_logit``.
        separation: δ in (0, 100] of the means.
        target_weight: α in (0, 1), of the responsibilities in r = R_o s_o + R_n s_n.
        reward_gap: Δ = R_n - R_o.
        eta: η > 0, with |η Δ| at most 500.
        start_logit: φ₀.

    Raises:
        InputError: an argument missing or out of range.

    Source: derivation: docs/theory.md.
    """
    start = logit_of(start_weight, start_logit, "start_weight")
    gap, delta = _exponent(eta, reward_gap), _apart(separation)
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

    Args:
        start_weight: β₀ in (0, 1).
        reward_gap: Δ = R_n - R_o.
        kl_weight: λ ≥ 0.
        eta: η > 0, with |η Δ| at most 500.
        separation: δ in (0, 100] of the means; None for separated modes.
        target_weight: α in (0, 1), needed with a separation.

    Raises:
        InputError: an argument out of range.

    Source: derivation: docs/theory.md.
    """
    settings: dict[str, ArrayLike] = {"reward_gap": reward_gap, "kl_weight": kl_weight, "eta": eta}
    if separation is None:
        logit = ttt_discover_stationary_logit(start_weight, **settings)
    else:
        logit = ttt_discover_stationary_logit_exact(
            start_weight, separation, target_weight=target_weight, **settings
        )
    return Retention(logit > -np.inf, expit(logit))


def oapl_logit_after(
    num_syncs: int,
    start_weight: ArrayLike | None = None,
    *,
    reward_gap: ArrayLike,
    beta1: ArrayLike = 1.0,
    beta2: ArrayLike = 1.0,
    time_per_round: float = np.inf,
    start_logit: ArrayLike | None = None,
) -> Float[Reals, "..."]:
    """Return OAPL's logit after K rounds, each ended by a sync, for separated modes.

    A round from the lagged weight b follows φ' = -2 β₂ {b (1-β) ρ_o - (1-b) β ρ_n}, with the residuals
    ρ_k = β₂ log(w_k/b_k) - R_k + V*. With β₁ = β₂ = τ and an unlimited time both vanish at φ - Δ/τ, so that K
    rounds shift the logit by -K Δ/τ. Otherwise the flow is followed, to its first rest.

    Args:
        num_syncs: K ≥ 0.
        start_weight: β₀ in (0, 1). Give this or ``start_logit``.
        reward_gap: Δ = R_n - R_o, with |Δ/β₁| at most 500.
        beta1: β₁ > 0.
        beta2: β₂ > 0.
        time_per_round: lag times learning rate; infinite for rounds that are trained to convergence.
        start_logit: φ₀.

    Raises:
        InputError: an argument missing or out of range.

    Source: arXiv:2602.19362 for the method; derivation: docs/theory.md.
    """
    start = logit_of(start_weight, start_logit, "start_weight")
    gap, one, two = _temperatures(reward_gap, beta1, beta2)
    count = integer("num_syncs", num_syncs, at_least=0)
    if np.all(one == two) and np.isinf(time_per_round):
        return start - count * gap / two
    return after_rounds(separated_slope, count, time_per_round, start, gap, one, two)


def oapl_logit_after_exact(
    num_syncs: int,
    start_weight: ArrayLike | None = None,
    separation: ArrayLike | None = None,
    *,
    target_weight: ArrayLike | None,
    reward_gap: ArrayLike,
    beta1: ArrayLike = 1.0,
    beta2: ArrayLike = 1.0,
    time_per_round: float = np.inf,
    start_logit: ArrayLike | None = None,
) -> Float[Reals, "..."]:
    """Return OAPL's logit after K rounds with right means at any separation, by integrals.

    A round follows φ' = -2 β₂ E_{π_lag}[(β₂ log(q/π_lag) - r + V*) (r_o - β)] with r = R_o s_o + R_n s_n, to
    its first rest where the time is unlimited; ∓∞ where there is none.

    Args:
        num_syncs: K ≥ 0.
        start_weight: β₀ in (0, 1). Give this or ``start_logit``.
        separation: δ in (0, 100] of the means.
        target_weight: α in (0, 1), of the responsibilities in r.
        reward_gap: Δ = R_n - R_o, with |Δ/β₁| at most 500.
        beta1: β₁ > 0.
        beta2: β₂ > 0.
        time_per_round: lag times learning rate; infinite for rounds that are trained to convergence.
        start_logit: φ₀.

    Raises:
        InputError: an argument missing or out of range.

    Source: arXiv:2602.19362 for the method; derivation: docs/theory.md.
    """
    start = logit_of(start_weight, start_logit, "start_weight")
    target = logit_of(target_weight, None, "target_weight")
    gap, one, two = _temperatures(reward_gap, beta1, beta2)
    count, delta = integer("num_syncs", num_syncs, at_least=0), _apart(separation)
    return after_rounds(exact_slope, count, time_per_round, start, gap, one, two, delta, target)


def oapl_retains(
    start_weight: ArrayLike,
    num_syncs: ArrayLike,
    *,
    reward_gap: ArrayLike,
    beta: ArrayLike = 1.0,
    separation: ArrayLike | None = None,
    target_weight: ArrayLike | None = None,
) -> Retention:
    """Return whether OAPL keeps old mass through K rounds trained to convergence, with right means.

    Without a separation, for modes apart, iff Δ ≤ 0 or K is finite: every round multiplies the odds of the
    old mode by e^(-Δ/τ), so that sigmoid(φ₀ - KΔ/τ) is left. With overlap and Δ > 0 finitely many rounds can
    take all: once the old mode is rare, even its loss changes log(q/π) by less than the advantage asks for,
    and the round has no rest. With a separation that is found out, round after round, as by
    `oapl_logit_after_exact`.

    Args:
        start_weight: β₀ in (0, 1).
        num_syncs: K ≥ 0, infinite for training that never stops; with a separation whole, at most 1000.
        reward_gap: Δ = R_n - R_o.
        beta: τ = β₁ = β₂ > 0.
        separation: δ in (0, 100] of the means; None for separated modes.
        target_weight: α in (0, 1), needed with a separation.

    Raises:
        InputError: an argument missing or out of range.

    Source: derivation: docs/theory.md.
    """
    start, gap = logit_of(start_weight, None, "start_weight"), finite_array("reward_gap", reward_gap)
    tau, count = _positive("beta", beta), np.asarray(num_syncs, np.float64)
    if not np.all(count >= 0.0):
        raise InputError(f"num_syncs must be at least 0; got {np.min(count):g}")
    if separation is None:
        with np.errstate(invalid="ignore"):
            logit = start - np.where(gap == 0.0, 0.0, count * (gap / tau))
    else:
        target = logit_of(target_weight, None, "target_weight")
        delta, (gap, tau, _) = _apart(separation), _temperatures(gap, tau, tau)
        logit = _after_syncs(count, *np.broadcast_arrays(start, gap, tau, delta, target, count)[:-1])
    return Retention(np.broadcast_to((gap <= 0.0) | (logit > -np.inf), logit.shape), expit(logit))


# Most syncs that are followed one by one.
_MOST_SYNCS = 1000


def _after_syncs(
    count: Reals,
    start: Reals,
    gap: Reals,
    tau: Reals,
    delta: Reals,
    target: Reals,
) -> Reals:
    """Return the logits after numbers of rounds; endless ones lead to the better mode."""
    endless = np.isinf(count)
    last = int(np.max(count, where=~endless, initial=0.0))
    if last > _MOST_SYNCS or np.any(count[~endless] % 1.0):
        raise InputError(
            f"num_syncs with a separation must be whole and at most {_MOST_SYNCS}, or infinite; got "
            f"{np.max(count[~endless]):g}"
        )
    count, logit = np.broadcast_to(count, start.shape), start.astype(np.float64)
    best = np.where(gap > 0.0, -np.inf, np.where(gap < 0.0, np.inf, start))
    left = np.where(np.isinf(count), best, start)
    for done in range(1, last + 1):
        going = np.isfinite(logit) & (count >= done) & ~np.isinf(count)
        if going.any():
            settings = (array[going] for array in (gap, tau, tau, delta, target))
            logit[going] = after_rounds(exact_slope, 1, np.inf, logit[going], *settings)
        left = np.where(count >= done, np.where(np.isinf(count), left, logit), left)
    return left


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
    product = _positive("eta", eta) * finite_array("reward_gap", gap)
    return bounded_array("eta times reward_gap", product, f"[-{_LARGEST:g}, {_LARGEST:g}]")


def _temperatures(gap: ArrayLike, beta1: ArrayLike, beta2: ArrayLike) -> tuple[Reals, Reals, Reals]:
    delta, one = finite_array("reward_gap", gap), _positive("beta1", beta1)
    bounded_array("reward_gap over beta1", delta / one, f"[-{_LARGEST:g}, {_LARGEST:g}]")
    return delta, one, _positive("beta2", beta2)


def _apart(separation: ArrayLike | None) -> Reals:
    delta = separation_of(separation)
    if np.any(delta == 0.0):
        raise InputError("separation must be greater than 0; got 0")
    return delta


def _positive(name: str, value: ArrayLike) -> Reals:
    return bounded_array(name, value, "(0, inf)")


def _at_least_zero(name: str, value: ArrayLike) -> Reals:
    return bounded_array(name, value, "[0, inf)")
