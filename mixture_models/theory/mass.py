"""Mass forgetting: misassignment, and how fast forward KL on new data empties the old mode.

Throughout, q = β N(m_o, Σ) + (1-β) N(m_n, Σ), φ = logit β, and δ is the distance of its means in the metric
of Σ⁻¹. Everything holds in every dimension. All functions broadcast over their arguments and return float64
arrays.
"""

import jax
import numpy as np
import scipy.special
from jaxtyping import Float
from numpy.typing import ArrayLike

from mixture_models.integrals import logistic_normal
from mixture_models.integrals.line import Line, along_line, log_expit, logit_of, separation_of
from mixture_models.types import Reals
from mixture_models.validation import InputError, bounded_array, finite_array

# One program for both, and for most lengths: arguments are padded to this one, or to the next power of two.
_sigmoid_means = jax.jit(logistic_normal.sigmoid_means)
_LENGTH = 256


def misassignment(
    weight: ArrayLike | None = None, separation: ArrayLike | None = None, *, logit: ArrayLike | None = None
) -> Float[Reals, "..."]:
    """Return E_{N(m_o)}[r_n], the probability that an old sample is claimed by the new mode.

    It is E[sigmoid(a + δZ)] with a = -φ - δ²/2, right relatively to 1e-10 however small. That of a new
    sample, E_{N(m_n)}[r_o], is the value at weight 1-β (logit -φ).

    Args:
        weight: β in (0, 1), the mass of the old mode. Give this or ``logit``.
        separation: δ in [0, 100].
        logit: φ, for weights too extreme to write down.

    Raises:
        InputError: an argument missing or out of range.

    Source: arXiv:2603.12163 for the quantity; derivation: docs/theory.md.
    """
    log_odds, delta = logit_of(weight, logit), separation_of(separation)
    return sigmoid_mean(-log_odds - 0.5 * delta**2, delta**2)


def misassignment_bound(
    weight: ArrayLike | None = None, separation: ArrayLike | None = None, *, logit: ArrayLike | None = None
) -> Float[Reals, "..."]:
    """Return ½ √((1-β)/β) BC with BC = exp(-δ²/8), an upper bound of `misassignment`.

    The ratio of the two is E[sech((φ - δZ)/2)]: near 1 for balanced modes that overlap, √(2π)/δ for balanced
    modes far apart, and small where the weight is extreme.

    Arguments and errors are those of `misassignment`.

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    log_odds, delta = logit_of(weight, logit), separation_of(separation)
    return sigmoid_mean_bound(-log_odds - 0.5 * delta**2, delta**2)


def sigmoid_mean(a: Reals | float, v: Reals | float) -> Float[Reals, "..."]:
    """Return E[sigmoid(a + √v Z)], Z ~ N(0, 1), in float64, NumPy in, NumPy out.

    Args:
        a: mean of log odds, shape (...).
        v: variance of log odds, at least 0.
    """
    return _padded(a, v)[0]


def sigmoid_slope_mean(a: Reals | float, v: Reals | float) -> Float[Reals, "..."]:
    """Return E[sigmoid'(a + √v Z)], Z ~ N(0, 1), the mean of r_o r_n, in float64, NumPy in, NumPy out.

    Arguments are those of `sigmoid_mean`.
    """
    return _padded(a, v)[1]


def _padded(a: Reals | float, v: Reals | float) -> list[Reals]:
    """Return both means, element by element."""
    mean, variance = np.broadcast_arrays(np.float64(a), np.float64(v))
    count = mean.size
    pad = (0, max(_LENGTH, 2 ** (count - 1).bit_length()) - count)
    with jax.enable_x64(True):
        values = _sigmoid_means(np.pad(mean.ravel(), pad), np.pad(variance.ravel(), pad))
    return [np.asarray(value)[:count].reshape(mean.shape) for value in values]


def sigmoid_mean_bound(a: ArrayLike, v: ArrayLike) -> Float[Reals, "..."]:
    """Return ½ e^(a/2 + v/8) ≥ E[sigmoid(a + √v Z)], since sigmoid(x) = ½ e^(x/2) sech(x/2) ≤ ½ e^(x/2).

    Arguments are those of `sigmoid_mean`.
    """
    with np.errstate(over="ignore"):
        return 0.5 * np.exp(0.5 * np.asarray(a) + 0.125 * np.asarray(v))


def sft_logit_velocity(
    weight: ArrayLike | None = None, separation: ArrayLike | None = None, *, logit: ArrayLike | None = None
) -> Float[Reals, "..."]:
    """Return the velocity of φ under forward KL on new data with right means, -(β - E_{p_n}[r_o]) < 0.

    By the equal -β²(1-β) ∫ (p_n - p_o)²/q dy, whose integrand is positive: right relatively to 1e-10 where
    the difference cancels.

    Args:
        weight: β in (0, 1), the learner's old weight. Give this or ``logit``.
        separation: δ in [0, 100].
        logit: φ, for weights too extreme to write down.

    Returns:
        dφ/dt of the flow φ' = -∂L/∂φ, shape (...).

    Raises:
        InputError: an argument missing or out of range.

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    log_odds, delta = logit_of(weight, logit), separation_of(separation)
    return -np.exp(log_expit(log_odds)) * along_line(one_minus_overlap, delta, log_odds)


def one_minus_overlap(line: Line, separation: Reals, logit: Reals) -> Reals:
    """Return 1 - ∫ p_o p_n/q dy = w(1-w) ∫ (p_n - p_o)²/q dy at weights w = sigmoid(logit)."""
    log_weights = log_expit(logit) + log_expit(-logit)
    return line.integral(np.exp(log_weights + 2.0 * line.log_gap - line.log_mixture(logit)))


def sft_logit_velocity_separated(
    weight: ArrayLike | None = None, *, logit: ArrayLike | None = None
) -> Float[Reals, "..."]:
    """Return -β, the limit of `sft_logit_velocity` for modes apart: β(t) ~ 1/t.

    The true velocity is never faster. It is reached where E_{p_n}[r_o] ≪ β, that is where both β and 1-β are
    ≫ exp(-δ²/2): to 1 % for δ ≥ 6 and |φ| ≤ δ²/2 - 2.5 δ. A new mode that is rarer than that sees little of
    its own data as its own: at δ = 4 and 1-β = 1e-5 the velocity is -0.21 β.

    Arguments and errors are those of `sft_logit_velocity`, but for the separation.
    """
    return -np.exp(log_expit(logit_of(weight, logit)))


def sft_logit_velocity_rare(
    weight: ArrayLike | None = None, separation: ArrayLike | None = None, *, logit: ArrayLike | None = None
) -> Float[Reals, "..."]:
    """Return -β² (exp(δ²) - 1), the limit of `sft_logit_velocity` for a rare old mode: β(t) ~ t^(-1/2).

    The true velocity is never faster. It is reached once β ≪ exp(-2δ²), where q is p_n wherever p_o²/q
    weighs.

    Arguments and errors are those of `sft_logit_velocity`, with δ in [0, 26]: beyond it exp(δ²) overflows.
    """
    log_odds, delta = logit_of(weight, logit), _moderate(separation)
    return -np.exp(2.0 * log_expit(log_odds)) * np.expm1(delta**2)


def sft_logit_velocity_bound(
    weight: ArrayLike | None = None, separation: ArrayLike | None = None, *, logit: ArrayLike | None = None
) -> Float[Reals, "..."]:
    """Return -min(β, β² (1-β) (exp(δ²) - 1)): `sft_logit_velocity` is never below it.

    The second bound is the velocity's limit for β → 0 and for β → 1, the first that for modes apart between
    them. Hence the speed is also at most β² (exp(δ²) - 1) and β (1-β) (exp(δ²) - 1).

    Arguments and errors are those of `sft_logit_velocity`.
    """
    log_odds, delta = logit_of(weight, logit), separation_of(separation)
    with np.errstate(divide="ignore"):  # δ = 0, where nothing moves
        log_gap = delta**2 + np.log(-np.expm1(-(delta**2)))
    log_weight = log_expit(log_odds)
    return -np.exp(log_weight + np.minimum(0.0, log_weight + log_expit(-log_odds) + log_gap))


def sft_old_weight_separated(time: ArrayLike, start_weight: ArrayLike) -> Float[Reals, "..."]:
    """Return the weight that starts at β₀ and follows φ' = -β: 1/(1 + x) with x + log x = t + x₀ + log x₀.

    x = (1-β)/β is Wright's ω function of the right-hand side; for large times β ~ 1/t. The true weight under
    forward KL on new data with right means is never lower.

    Args:
        time: t ≥ 0 of the gradient flow (steps times learning rate).
        start_weight: β₀ in (0, 1).

    Raises:
        InputError: an argument out of range.
    """
    t, start = _time(time), logit_of(start_weight, None, "start_weight")
    result: Reals = 1.0 / (1.0 + scipy.special.wrightomega(t + np.exp(-start) - start))
    return result


def sft_old_weight_rare(
    time: ArrayLike, start_weight: ArrayLike, separation: ArrayLike
) -> Float[Reals, "..."]:
    """Return the weight that starts at β₀ and follows β' = -c β³, c = exp(δ²) - 1: (β₀⁻² + 2ct)^(-1/2).

    The limit of forward KL on new data with right means once β ≪ exp(-2δ²); the true weight is never lower.

    Args:
        time: t ≥ 0 of the gradient flow (steps times learning rate).
        start_weight: β₀ in (0, 1).
        separation: δ in [0, 26].

    Raises:
        InputError: an argument out of range.
    """
    t, start = _time(time), bounded_array("start_weight", start_weight, "(0, 1)")
    return start / np.sqrt(1.0 + 2.0 * t * start**2 * np.expm1(_moderate(separation) ** 2))


def sft_crossover_weight(separation: ArrayLike) -> Float[Reals, "..."]:
    """Return 1/(exp(δ²) - 1), the weight at which the two asymptotes of `sft_logit_velocity` meet.

    Above it modes apart set the pace, below it the rarity of the old mode; at it the true velocity is a
    fraction of both, of about Φ(-δ/2) once the modes are apart. A value of 1 or more (δ below 0.83) says that
    the old mode is rare at every weight; at δ = 0 it is infinite.

    Args:
        separation: δ in [0, 26].

    Raises:
        InputError: an argument out of range.
    """
    with np.errstate(divide="ignore"):
        return 1.0 / np.expm1(_moderate(separation) ** 2)


def _moderate(separation: ArrayLike | None) -> Reals:
    if separation is None:
        raise InputError("separation must be given")
    return bounded_array("separation", separation, "[0, 26]")


def _time(time: ArrayLike) -> Reals:
    result = finite_array("time", time)
    if np.any(result < 0.0):
        raise InputError(f"time must be at least 0; got {result.min():g}")
    return result
