"""What a plan starts from, by samples: how far apart two tasks are, and how much old behaviour is left.

Unlike `inference.measure` nothing is taken to have moved, which needs no posterior draws.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import chdtrc, ncfdtr

from inference.engine.blas import on_one_thread
from inference.intervals import interval_probability
from inference.measurement.posterior.weight_posterior import weight_posterior
from inference.measurement.samples import inputs
from inference.measurement.samples.references import check_own_covariances
from inference.measurement.samples.sources import Source
from mixture_models.validation import InputError, flag

# Least samples of a half of both references beyond the features, for a discriminant that is one.
_SPARE = 10

# A ratio of spreads further than this from 1, and told from 1 by this many standard errors, is remarked.
_RATIO, _ERRORS = 1.2, 3.0


class Estimate(NamedTuple):
    """A value with the bounds of its interval, whose probability is ``arviz.rcParams["stats.ci_prob"]``."""

    value: float
    lower: float
    upper: float


class EstimatedSetting(NamedTuple):
    """What samples say of the setting of a training.

    Attributes:
        separation: δ, its square estimated without bias.
        plug_in_separation: what the samples' means and covariance give as they are, too large by noise.
        covariance: pooled within the tasks, shape (d, d).
        features: their names.
        old_weight: β of the learner, or None without its samples.
        num_samples: of the old task, the new task and the learner.
        spread_ratio: standard deviation of the new task over that of the old one, along their discriminant.
        remark: what a reader must know, or nothing.
    """

    separation: Estimate
    plug_in_separation: float
    covariance: Float[np.ndarray, "d d"]
    features: list[str]
    old_weight: Estimate | None
    num_samples: tuple[int, int, int]
    spread_ratio: float
    remark: str


@on_one_thread
def estimate_setting(
    old_samples: Source,
    new_samples: Source,
    learner_samples: Source | None = None,
    *,
    drop_missing: bool = False,
) -> EstimatedSetting:
    """Estimate separation, covariance and, from samples of the learner, its old weight.

    The old weight's posterior (uniform prior) takes the learner's modes to be the two tasks', on the linear
    discriminant of one half of the references and with means and variance of the other half: a discriminant
    that is used where it was fitted would look sharper than it is.

    Args:
        old_samples: of the old task, in any form that `inference.measure` reads.
        new_samples: of the new task.
        learner_samples: of the learner as it is now; of several checkpoints the last is taken.
        drop_missing: whether rows that are not finite are left out.

    Raises:
        InputError: samples that cannot be used, or too few of them.
    """
    shown = old_samples if learner_samples is None else learner_samples
    checked = inputs.check(shown, old_samples, new_samples, drop_missing=flag("drop_missing", drop_missing))
    old, new, d = checked.old, checked.new, len(checked.features)
    check_own_covariances(old, new)
    covariance = pooled_covariance(old, new)
    plug_in, separation = separation_of_samples(old, new)
    if min(len(old), len(new)) < 4 or len(old) + len(new) < 2 * (d + _SPARE):
        raise InputError(
            f"both tasks together must have at least {2 * (d + _SPARE)} samples for {d} features; "
            f"got {len(old)} and {len(new)}"
        )
    learn, hold = (tuple(half) for half in zip(*(_halves(task) for task in (old, new)), strict=True))
    axis = np.linalg.solve(pooled_covariance(*learn), learn[0].mean(axis=0) - learn[1].mean(axis=0))
    along = [task @ axis for task in hold]
    ratio = float(along[1].std(ddof=1) / along[0].std(ddof=1))
    weight, count = None, 0
    if learner_samples is not None:
        now = np.concatenate([y @ axis for y in checked.pieces(len(checked.samples.names) - 1)])
        weight, count = _old_weight(now, *along), len(now)
    return EstimatedSetting(
        separation,
        plug_in,
        covariance,
        checked.features,
        weight,
        (len(old), len(new), count),
        ratio,
        _remark(ratio, *along),
    )


def separation_of_samples(
    old: Float[np.ndarray, "n d"], new: Float[np.ndarray, "m d"]
) -> tuple[float, Estimate]:
    """Return the Mahalanobis distance of two samples as it is, and an estimate of the law's with an interval.

    With the pooled covariance, ν = n + m - 2 degrees of freedom and c = 1/n + 1/m, a sample distance D has

        E[D²] = ν/(ν-d-1) (δ² + d c),

    so that (ν-d-1)/ν D² - d c is unbiased for δ²; where it is negative the estimate is 0. D² (ν-d+1)/(ν d c)
    follows the noncentral F law with d and ν-d+1 degrees of freedom and noncentrality δ²/c, whose quantiles
    in δ are the interval: exact for Gaussian tasks with one covariance.

    Args:
        old: n samples of the old task.
        new: m samples of the new task, with n + m > d + 3.

    Source: Hotelling's two-sample T²; the moments are those of the inverse Wishart law.
    """
    (n, d), m = old.shape, len(new)
    freedom, noise = n + m - 2, 1.0 / n + 1.0 / m
    apart = old.mean(axis=0) - new.mean(axis=0)
    squared = float(apart @ np.linalg.solve(pooled_covariance(old, new), apart))
    unbiased = (freedom - d - 1) / freedom * squared - d * noise
    statistic = squared * (freedom - d + 1) / (freedom * d * noise)
    tail = 0.5 * (1.0 - interval_probability())

    step = float(np.sqrt(noise + squared / (2.0 * freedom)))

    def bound(probability: float) -> float:
        """Return the δ under which a statistic at most this large has a probability."""

        def excess(delta: float) -> float:
            return _noncentral_f(d, freedom - d + 1, delta**2 / noise, statistic) - probability

        # Outward from D in about its standard deviations: far off SciPy's law is NaN.
        low = high = float(np.sqrt(squared))
        while excess(high) > 0.0:
            high += step
        while low > 0.0 and excess(low) <= 0.0:
            low = max(low - step, 0.0)
        return float(brentq(excess, low, high)) if excess(low) > 0.0 else 0.0

    value = float(np.sqrt(max(unbiased, 0.0)))
    return float(np.sqrt(squared)), Estimate(value, bound(1.0 - tail), bound(tail))


def pooled_covariance(
    old: Float[np.ndarray, "n d"], new: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "d d"]:
    """Return the covariance within the two tasks, with n + m - 2 degrees of freedom."""
    centred = np.concatenate([task - task.mean(axis=0) for task in (old, new)])
    result: np.ndarray = centred.T @ centred / (len(centred) - 2)
    return result


def _halves(task: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two halves at random, the same for the same samples."""
    order = np.random.default_rng(0).permutation(len(task))
    return task[order[::2]], task[order[1::2]]


def _old_weight(now: np.ndarray, old: np.ndarray, new: np.ndarray) -> Estimate:
    """Return mean and interval of the posterior of the old weight, all samples along one axis."""
    variance = float(pooled_covariance(old[:, None], new[:, None])[0, 0])
    scores = (old.mean() - new.mean()) / variance * (now - 0.5 * (old.mean() + new.mean()))
    posterior = weight_posterior(scores)
    tail = 0.5 * (1.0 - interval_probability())
    return Estimate(posterior.mean, *map(float, posterior.quantiles([tail, 1.0 - tail])))


def _remark(ratio: float, old: np.ndarray, new: np.ndarray) -> str:
    error = np.sqrt(0.5 / (len(old) - 1) + 0.5 / (len(new) - 1))
    if abs(np.log(ratio)) < max(np.log(_RATIO), _ERRORS * error):
        return ""
    return (
        f"Along their axis the new task spreads {ratio:.2g} times as wide as the old one: the plan takes one "
        "covariance, their pooled one."
    )


def _noncentral_f(d: int, freedom: int, noncentrality: float, value: float) -> float:
    """Return the probability of at most ``value`` under the noncentral F law, (χ'²_d/d)/(χ²_ν/ν)."""
    if noncentrality < 1e10:
        return float(ncfdtr(d, freedom, noncentrality, value))
    # SciPy's is NaN there, and χ'²_d within 1e-4 of its mean.
    return float(chdtrc(freedom, freedom * (noncentrality + d) / (d * value)))
