"""OAPL's rounds in the weight alone: the slope of a round's loss, and where rounds lead.

R_o = 0 and R_n = Δ: a constant added to the reward changes nothing.
"""

from collections.abc import Callable

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize.elementwise import find_root
from scipy.special import expit

from mixture_models.integrals.line import Line, along_line, log_expit
from mixture_models.types import Reals
from mixture_models.validation import InputError

# Beyond this logit a weight is about to underflow: the flow has no rest.
_ENDLESS = 600.0


def separated_slope(logit: Reals, lagged: Reals, gap: Reals, beta1: Reals, beta2: Reals) -> Reals:
    """Return ∂L/∂φ of a round for separated modes."""
    weight, share = expit(logit), expit(lagged)
    best = beta1 * np.logaddexp(log_expit(lagged), log_expit(-lagged) + gap / beta1)
    of_old = beta2 * (log_expit(logit) - log_expit(lagged)) + best
    of_new = beta2 * (log_expit(-logit) - log_expit(-lagged)) - gap + best
    result: Reals = 2.0 * beta2 * (share * (1.0 - weight) * of_old - (1.0 - share) * weight * of_new)
    return result


def exact_slope(
    logit: Reals,
    lagged: Reals,
    gap: Reals,
    beta1: Reals,
    beta2: Reals,
    separation: Reals,
    target: Reals,
) -> Reals:
    """Return ∂L/∂φ of a round with right means; the target's logit is for the reward's responsibilities."""
    return along_line(_regressed, separation, logit, lagged, target, gap, beta1, beta2)


def _regressed(line: Line, separation: Reals, *settings: Reals) -> Reals:
    logit, lagged, target, gap, beta1, beta2 = settings
    y, step = half_steps(line)
    old, new = densities(y, separation)
    law = expit(lagged) * old + expit(-lagged) * new
    reward = gap * expit(separation * y - target)
    top = np.maximum(gap, 0.0)
    best = beta1 * np.log((step * law * np.exp((reward - top) / beta1)).sum(axis=-1, keepdims=True)) + top
    odds = -separation * y
    log_ratio = np.logaddexp(0.0, logit + odds) - np.logaddexp(0.0, lagged + odds)
    log_ratio = log_ratio + log_expit(-logit) - log_expit(-lagged)
    # r_o - β as a product: the difference would be rounding noise where β is near 0 or 1.
    claimed = expit(np.maximum(logit, logit + odds)) * expit(-np.minimum(logit, logit + odds))
    claimed = np.sign(odds) * claimed * -np.expm1(-np.abs(odds))
    residual = beta2 * log_ratio - reward + best
    result: Reals = (2.0 * beta2 * step * law * residual * claimed).sum(axis=-1)
    return result


def after_rounds(
    slope: Callable[..., Reals], count: int, time: float, start: Reals, *settings: Reals
) -> Reals:
    """Return the logit after rounds that descend a loss with a slope (φ, lagged φ, *settings)."""
    if not time > 0.0:
        raise InputError(f"time_per_round must be greater than 0; got {time:g}")
    arrays = [array.ravel() for array in np.broadcast_arrays(start, *settings)]
    shape = np.broadcast_shapes(start.shape, *(s.shape for s in settings))
    logit, others = arrays[0].astype(np.float64), arrays[1:]
    for _ in range(count):
        within = np.isfinite(logit)
        lagged, inside = logit[within], [array[within] for array in others]
        reached = (
            _first_rest(slope, lagged, *inside) if np.isinf(time) else _followed(slope, time, lagged, *inside)
        )
        logit[within] = reached
    return logit.reshape(shape)


def _followed(slope: Callable[..., Reals], time: float, lagged: Reals, *settings: Reals) -> Reals:
    """Return where the flow is after a time."""
    solved = solve_ivp(
        lambda t, phi: -slope(phi, lagged, *settings),
        (0.0, time),
        lagged,
        method="LSODA",
        rtol=1e-11,
        atol=1e-12,
        t_eval=[time],
    )
    end: Reals = solved.y[:, -1]
    return end


def _first_rest(slope: Callable[..., Reals], lagged: Reals, *settings: Reals) -> Reals:
    """Return where the flow comes to rest: downhill in steps to the first change of sign."""
    gap, _, beta2, *_ = settings
    sign = np.sign(gap)
    step = 0.05 * np.minimum(1.0, np.abs(gap) / beta2)
    near, far = lagged, lagged - sign * step
    # Far out the slope underflows, which ends the search.
    while (short := sign * slope(far, lagged, *settings) > 0.0).any():
        step = 1.02 * step
        near, far = np.where(short, far, near), np.where(short, far - sign * step, far)
    between = np.minimum(near, far), np.maximum(near, far)
    rest = np.where(gap == 0.0, lagged, find_root(slope, between, args=(lagged, *settings)).x)
    return np.where(np.abs(rest) > _ENDLESS, np.where(rest < 0.0, -np.inf, np.inf), rest)


def half_steps(line: Line) -> tuple[Reals, Reals]:
    """Return nodes of half the step, for exponentials of responsibilities, and the step of shape (n, 1)."""
    step = line.step[:, None]
    return np.concatenate([line.y, line.y + 0.5 * step], axis=-1), 0.5 * step


def densities(y: Reals, separation: Reals) -> list[Reals]:
    """Return the densities of the old and the new mode on the line."""
    return [np.exp(-0.5 * (y + s * separation) ** 2) / np.sqrt(2.0 * np.pi) for s in (0.5, -0.5)]
