"""Replay: what a share λ of old samples changes, and what it only makes visible.

All functions broadcast over their arguments and return float64 arrays.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from mixture_models.integrals.line import Line, along_line, logit_of, separation_of
from mixture_models.types import Reals
from mixture_models.validation import InputError, bounded_array, finite_array


def replay_optimum(replay: ArrayLike) -> Float[Reals, "..."]:
    """Return the old weight at which forward KL with replay and right means is smallest: λ itself.

    The training data (1-λ) p_n + λ p_o are then the learner's law, and the divergence is 0. Without replay
    the optimum is 0, mass forgetting; with λ = α it is the target. Reverse KL's optimum is α whatever the
    replay.

    Args:
        replay: λ in [0, 1], the share of old samples in the training data.

    Raises:
        InputError: a share out of range.

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    return bounded_array("replay", replay, "[0, 1]")


def starvation_probability(
    old_weight: ArrayLike, batch_size: ArrayLike, replay: ArrayLike = 0.0
) -> Float[Reals, "..."]:
    """Return ((1-λ)(1-β))^N, the probability that a batch holds no sample drawn from an old mode.

    Args:
        old_weight: β in [0, 1], the learner's.
        batch_size: N ≥ 1, whole.
        replay: λ in [0, 1], the share of replayed old samples in the sampling law; 0 is on-policy.

    Raises:
        InputError: an argument out of range.

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    size = whole_batch(batch_size)
    with np.errstate(divide="ignore"):
        log_new = np.log1p(-bounded_array("old_weight", old_weight, "[0, 1]"))
        log_new = log_new + np.log1p(-bounded_array("replay", replay, "[0, 1]"))
    return np.exp(size * log_new)


def whole_batch(batch_size: ArrayLike) -> Reals:
    """Return sizes of batches as float64, or refuse what is no whole number of at least 1."""
    size = finite_array("batch_size", batch_size)
    wrong = (size < 1.0) | (size != np.round(size))
    if np.any(wrong):
        raise InputError(f"batch_size must be a whole number of at least 1; got {size[wrong].flat[0]:g}")
    return size


def importance_weight_bound(replay: ArrayLike) -> Float[Reals, "..."]:
    """Return 1/(1-λ) ≥ w = q/b, the bound of replay's importance weights, b = (1-λ) q + λ p_o.

    So is the effective sample fraction at least 1-λ, for every learner.

    Args:
        replay: λ in [0, 1).

    Raises:
        InputError: a share out of range.

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    return 1.0 / (1.0 - bounded_array("replay", replay, "[0, 1)"))


def effective_sample_fraction(
    weight: ArrayLike | None = None,
    separation: ArrayLike | None = None,
    replay: ArrayLike = 0.0,
    *,
    logit: ArrayLike | None = None,
) -> Float[Reals, "..."]:
    """Return 1/E_b[w²] = 1/∫ q²/b dy for replayed reverse KL at right means, in [1-λ, 1].

    w = q/b and b = (1-λ) q + λ p_o. For modes apart E_b[w²] = (1-β)/(1-λ) + β²/(β + λ(1-β)). One integral in
    every dimension.

    Args:
        weight: β in (0, 1), the learner's old weight. Give this or ``logit``.
        separation: δ in [0, 100].
        replay: λ in [0, 1).
        logit: φ, for weights too extreme to write down.

    Raises:
        InputError: an argument missing or out of range.
    """
    share = bounded_array("replay", replay, "[0, 1)")
    log_odds = logit_of(weight, logit)
    # b has old weight β + λ(1-β), hence odds (β + λ(1-β)) / ((1-λ)(1-β)) = e^φ + λ (1 + e^φ) / (1-λ).
    with np.errstate(divide="ignore"):
        sampled = np.logaddexp(log_odds, np.log(share) - np.log1p(-share) + np.logaddexp(0.0, log_odds))
    return 1.0 / along_line(_second_moment, separation_of(separation), log_odds, sampled)


def _second_moment(line: Line, separation: Reals, logit: Reals, sampled: Reals) -> Reals:
    """Return ∫ q²/b dy."""
    return line.integral(np.exp(2.0 * line.log_mixture(logit) - line.log_mixture(sampled)))
