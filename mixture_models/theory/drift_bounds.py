"""Bounds of old-component drift under reverse KL: of its drive anywhere, and of the drift along a path.

Both are 0 where learner and target agree, so that neither keeps growing once a flow has arrived.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from mixture_models.mixture import covariance as cov
from mixture_models.mixture.two_mode import TwoMode, expit
from mixture_models.theory.drift import check_one_covariance
from mixture_models.theory.mass import sigmoid_mean, sigmoid_mean_bound, sigmoid_slope_mean
from mixture_models.types import Reals
from mixture_models.validation import InputError, finite_array

# Gauss-Legendre rule on [0, 1], for the way between two mixtures.
_NODES, _SHARES = (np.array(half) for half in np.polynomial.legendre.leggauss(64))
_NODES, _SHARES = 0.5 + 0.5 * _NODES, 0.5 * _SHARES

# sup of sigmoid'(x) e^(-x/2), u³/(1+u²)² at u² = 3, and of sigmoid(x) sigmoid'(x).
_SLOPE, _CLAIMED_SLOPE = 3.0**1.5 / 16.0, 4.0 / 27.0


def old_mean_drive_bound(learner: TwoMode, target: TwoMode) -> Float[Reals, "..."]:
    """Return an upper bound of the length of `old_mean_drive` in the metric of Σ⁻¹, 0 at the target.

    β {δ(m_o, μ_o) + min(G, H)}, where H bounds misassignments and G their difference: with w = m_n - m_o,
    e = m_n - μ_n and x = m_o - μ_o,

        H = E[r_n] |w| + E[s_n] δ,    G = |E[r_n] - E[s_n]| |w| + E[s_n] |e - x|,

    each expectation, under N(m_o, Σ), replaced by its bound. E[r_n] ≤ ½ √((1-β)/β) BC(m_o, m_n), and the
    difference is at most |Δφ| times a bound of E[r_o r_n] and |Δ|w|²| times one of E[r_o r_n²] on the way
    from the target to the learner. All decay like exp(-δ²/8).

    Arguments and errors are those of `old_mean_drive`; of shape (...).

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    check_one_covariance(learner, target)
    away = _length(_whitened(learner, target)[0])
    result: Reals = expit(learner.old_logit) * (away + _misassigned_bound(learner, target))
    return result


def _misassigned_bound(learner: TwoMode, target: TwoMode) -> Reals:
    """Return min(G, H) of `old_mean_drive_bound`."""
    x, e, w = _whitened(learner, target)
    apart, at_target = _length(w), target.separation
    # Under N(m_o, Σ) the target's log odds have the mean of a mixture with this logit and a right old mode.
    logit = target.log_odds(learner.old_mean) - 0.5 * at_target**2
    claimed = _bounds(learner.old_logit, apart**2).claim
    truly_new = _bounds(logit, at_target**2).claim
    change, stretch = learner.old_logit - logit, apart**2 - at_target**2
    way = _NODES.reshape(-1, *[1] * np.ndim(change * stretch))
    between = _bounds(logit + way * change, at_target**2 + way * stretch)
    rate = between.slope * np.abs(change) + between.claimed_slope * np.abs(stretch)
    difference = np.tensordot(_SHARES, rate, axes=1)
    of_difference = difference * apart + truly_new * _length(e - x)
    of_both = claimed * apart + truly_new * at_target
    result: Reals = np.minimum(of_difference, of_both)
    return result


class _Bounds(NamedTuple):
    """Upper bounds of E[r_n], E[r_o r_n] and E[r_o r_n²] under the old mode, at logit φ and variance v."""

    claim: Reals
    slope: Reals
    claimed_slope: Reals


def _bounds(logit: ArrayLike, variance: ArrayLike) -> _Bounds:
    """Return the smaller of two bounds: one by sigmoid(x) ≤ ½ e^(x/2), one by N(x; a, v) ≤ N(0; a, v) e^(θx).

    The log odds of the new mode are N(a, v) with a = -φ - v/2. With θ = a/v in (-1, 0),
    ∫ e^(θx) f(x) dx is π/sin(-πθ) for f = sigmoid, -θ times it for sigmoid', and (1+θ)/2 times that for
    sigmoid sigmoid'.
    """
    phi, v = np.broadcast_arrays(np.asarray(logit, np.float64), np.asarray(variance, np.float64))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        theta = -0.5 - phi / v
        inside = np.abs(theta + 0.5) < 0.5
        simple = sigmoid_mean_bound(-phi - 0.5 * v, v)
        theta = np.where(inside, theta, -0.5)
        sharp = (
            np.pi
            / np.sin(-np.pi * theta)
            * np.exp(-0.5 * (0.5 * v + phi) ** 2 / v)
            / np.sqrt(2.0 * np.pi * v)
        )
        sharp = np.where(inside, sharp, np.inf)
    slope = np.minimum(np.minimum(0.25, 2.0 * _SLOPE * simple), -theta * sharp)
    return _Bounds(
        np.minimum(np.minimum(1.0, simple), sharp),
        slope,
        np.minimum(np.minimum(_CLAIMED_SLOPE, slope), -0.5 * theta * (1.0 + theta) * sharp),
    )


def old_drift_bound(learner: TwoMode, target: TwoMode, times: ArrayLike) -> Float[Reals, "t"]:
    """Return an upper bound of the old drift along a path of reverse KL's whitened flow.

    It solves B' = β min(g - κ B, G - B) from the drift at the start, where

        g = |E_{N(μ_o)}[r_n] (m_n - μ_o) - E_{N(μ_o)}[s_n] (μ_n - μ_o)|

    is what drives a right old mode, the difference of two misassignments, κ the least that pulls a displaced
    one back, 1 - sup E[r_n] - δ² sup E[s_o s_n] between μ_o and m_o, and G that of `old_mean_drive_bound`.
    With the flow g and G go to 0, and so does B. Between the times all are taken as their means, so that
    these must resolve the path.

    Args:
        learner: q along the path; its leading axis runs over times.
        target: p_α, with the same covariance Σ.
        times: t, increasing, shape (t,).

    Returns:
        float64 of shape (t,).

    Raises:
        InputError: covariances that differ, dimensions that do, or times that do not fit the path.
    """
    check_one_covariance(learner, target)
    when = finite_array("times", times)
    if when.ndim != 1 or np.shape(learner.old_logit) != when.shape or np.any(np.diff(when) <= 0.0):
        raise InputError("times must be an increasing list with as many entries as the path has")
    x, _, w = _whitened(learner, target)
    phi, delta = np.asarray(learner.old_logit), float(target.separation)
    axis, new = cov.whiten(target.scale, target.new_mean - target.old_mean), w + x
    drive = (
        _claim(phi, _length(new))[:, None] * new - float(_claim(target.old_logit, target.separation)) * axis
    )
    # E[r_n] grows as the new mean comes nearer; E[s_o s_n] is largest where the log odds are nearest 0.
    closest = np.clip((new * x).sum(axis=-1) / np.maximum((x * x).sum(axis=-1), 1e-300), 0.0, 1.0)
    claim = _claim(phi, _length(new - closest[:, None] * x))
    right = -target.old_logit - 0.5 * delta**2
    shifted = right + (axis * x).sum(axis=-1)
    nearest = np.clip(0.0, np.minimum(right, shifted), np.maximum(right, shifted))
    back = 1.0 - claim - delta**2 * sigmoid_slope_mean(nearest, delta**2)
    rates = (_length(drive), back, _misassigned_bound(learner, target), np.ones_like(phi))
    along = [expit(phi) * rate for rate in rates]
    every = [np.diff(when), *(0.5 * (values[1:] + values[:-1]) for values in along)]
    bound = [float(_length(x)[0])]
    for step, push, pull, other, weight in zip(*every, strict=True):
        bound.append(min(_relaxed(bound[-1], step, push, pull), _relaxed(bound[-1], step, other, weight)))
    return np.array(bound)


def _relaxed(value: float, step: float, push: float, pull: float) -> float:
    """Return where B' = push - pull B leads after a step."""
    fade = pull * step
    share = -np.expm1(-fade) / fade if fade else 1.0
    return float(value * np.exp(-fade) + push * step * share)


def _claim(logit: Reals, separation: Reals) -> Reals:
    """Return E[r_n] under the old mode."""
    return sigmoid_mean(-logit - 0.5 * separation**2, separation**2)


def _whitened(learner: TwoMode, target: TwoMode) -> tuple[Reals, Reals, Reals]:
    """Return x = m_o - μ_o, e = m_n - μ_n and w = m_n - m_o, whitened."""
    differences = (
        learner.old_mean - target.old_mean,
        learner.new_mean - target.new_mean,
        learner.new_mean - learner.old_mean,
    )
    x, e, w = (np.asarray(cov.whiten(target.scale, difference)) for difference in differences)
    return x, e, w


def _length(vectors: Reals) -> Reals:
    return np.sqrt((vectors * vectors).sum(axis=-1))
