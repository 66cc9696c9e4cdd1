"""OAPL: where its rounds lead, and how much of the old mode they keep.

The means are right unless said otherwise, φ = logit β, and Δ = R_n - R_o is the gap of the rewards.
"Separated" formulas hold up to terms of the order of the overlap, "exact" ones at every separation, for
`mode_reward`. All functions broadcast over their arguments and return float64 arrays.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import expit

from mixture_models.integrals.line import logit_of
from mixture_models.theory.resting import LARGEST, Retention, nonzero_separation
from mixture_models.theory.rounds import after_rounds, exact_slope, separated_slope
from mixture_models.types import Reals
from mixture_models.validation import InputError, bounded_array, finite_array, integer


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

    Arguments and errors are those of `oapl_logit_after`, with δ in (0, 100] of the means and the α in (0, 1)
    of the responsibilities in r.

    Source: arXiv:2602.19362 for the method; derivation: docs/theory.md.
    """
    start = logit_of(start_weight, start_logit, "start_weight")
    target = logit_of(target_weight, None, "target_weight")
    gap, one, two = _temperatures(reward_gap, beta1, beta2)
    count, delta = integer("num_syncs", num_syncs, at_least=0), nonzero_separation(separation)
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
    """
    start, gap = logit_of(start_weight, None, "start_weight"), finite_array("reward_gap", reward_gap)
    tau, count = bounded_array("beta", beta, "(0, inf)"), np.asarray(num_syncs, np.float64)
    if not np.all(count >= 0.0):
        raise InputError(f"num_syncs must be at least 0; got {np.min(count):g}")
    if separation is None:
        with np.errstate(invalid="ignore"):
            logit = start - np.where(gap == 0.0, 0.0, count * (gap / tau))
    else:
        target = logit_of(target_weight, None, "target_weight")
        delta, (gap, tau, _) = nonzero_separation(separation), _temperatures(gap, tau, tau)
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


def _temperatures(gap: ArrayLike, beta1: ArrayLike, beta2: ArrayLike) -> tuple[Reals, Reals, Reals]:
    delta, one = finite_array("reward_gap", gap), bounded_array("beta1", beta1, "(0, inf)")
    bounded_array("reward_gap over beta1", delta / one, f"[-{LARGEST:g}, {LARGEST:g}]")
    return delta, one, bounded_array("beta2", beta2, "(0, inf)")
