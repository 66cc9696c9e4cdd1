"""The posterior mode of a checkpoint of several tasks given scales of displacement, by Newton steps."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from inference.measurement.posterior.climb import concave, newton
from inference.measurement.posterior.law import Rows
from inference.measurement.posterior.pieces import total
from inference.measurement.posterior.prior import NEITHER_LOG_SCALE, NEITHER_SPREAD
from inference.measurement.posterior.scales import Quadratic, steadied
from inference.measurement.references.anchors import unbatched
from inference.measurement.tasks import law
from inference.measurement.tasks import prior as prior_of
from inference.measurement.tasks.law import TaskNeither, TaskUnknowns
from inference.measurement.tasks.prior import TaskPrior
from inference.measurement.tasks.references import TaskModes
from inference.measurement.tasks.scales import scales_of

_TOLERANCE, _TOLERANCE_OF_DRAWS = 1e-7, 1e-2

# Blocks of rows that are climbed before all are, and EM steps of the weights before that.
_FIRST_BLOCKS, _EM_STEPS = 8, 30

# Log scale from which the component for neither task starts, and samples that its prior scale counts as; how
# far the logit of one that holds little is below the largest.
_BROAD, _COUNTS, _LITTLE = float(np.log(3.0)), 2.0, 4.0


class TaskMode(NamedTuple):
    """Posterior modes given scales, one for each draw of the references' modes.

    Attributes:
        unknowns: a batch.
        base: the task whose logit is 0.
        quadratic: the log posterior around the modes, without the Gaussian prior of the means, in the other
            logits, mean and log scale of the component for neither task, and the raveled means.
        scales: τ_a, shape (K,).
        height: log posterior up to a constant, shape (R,).
    """

    unknowns: TaskUnknowns
    base: int
    quadratic: Quadratic
    scales: Float[np.ndarray, "K"]
    height: Float[np.ndarray, "R"]


def find_mode(modes: TaskModes, prior: TaskPrior, rows: Iterable[Rows], *, neither: bool) -> TaskMode:
    """Return the posterior mode that starts at the references, its scales fitted along.

    Where the first climb ends with modes at each other's references, it is climbed again with these
    exchanged, and the higher end is taken. A component for neither task is climbed from where EM steps put it
    and from a broad one that holds little, and the end with more evidence is taken: the first finds a
    cluster, but may as well imitate a task's mode.

    Arguments as those of `posterior.climb.find_mode`.
    """
    num = modes.means.shape[1]
    some = [jax.tree.map(lambda a: a[:_FIRST_BLOCKS], next(iter(rows)))]
    starts = [_first(modes, some[0], neither=neither)]
    if neither:
        starts.append(_with_little(_first(modes, some[0], neither=False), modes))
    unknowns, scales = starts[0], np.full(num, prior.displacement_scale)
    for climbed in (some, rows):
        mode = _climb(modes, prior, climbed, unknowns, scales, _TOLERANCE)
        if climbed is some:
            others = [_climb(modes, prior, climbed, one, scales, _TOLERANCE) for one in starts[1:]]
            mode = max(mode, *others, key=lambda found: _log_evidence(modes, found)) if others else mode
            nearest = linear_sum_assignment(cdist(modes.means[0], mode.unknowns.means[0]))[1]
            if not np.array_equal(nearest, np.arange(num)):
                found = mode.unknowns
                logits = np.append(found.logits[:, nearest], found.logits[:, num:], axis=1)
                exchanged = TaskUnknowns(logits, found.means[:, nearest], found.neither)
                other = _climb(modes, prior, climbed, exchanged, scales, _TOLERANCE)
                mode = max(mode, other, key=lambda found: found.height[0])
        unknowns = mode.unknowns
        scales = scales_of(unbatched(modes), prior, mode.quadratic).typical
    return _climb(modes, prior, rows, unknowns, scales, _TOLERANCE)


def modes_of_draws(modes: TaskModes, prior: TaskPrior, rows: Iterable[Rows], central: TaskMode) -> TaskMode:
    """Return the posterior modes under draws of the references' modes, climbed from the central one."""
    count = len(modes.means)
    unknowns = jax.tree.map(lambda part: np.repeat(part, count, axis=0), central.unknowns)
    return _climb(modes, prior, rows, unknowns, central.scales, _TOLERANCE_OF_DRAWS)


def _first(modes: TaskModes, rows: Rows, *, neither: bool) -> TaskUnknowns:
    """Return weights, and the component for neither task, by EM steps with the modes at the references."""
    y, weights = (np.asarray(a).reshape(-1, *a.shape[2:]) for a in rows)
    one = unbatched(modes)
    num, q = one.means.shape
    centre, third = one.means.mean(axis=0), None
    if neither:
        third = TaskNeither(centre, np.array(_BROAD))
    unknowns = TaskUnknowns(np.zeros(num + neither), one.means, third)
    for _ in range(_EM_STEPS):
        held = law.responsibilities(one, unknowns, y)
        logits = np.log(weights @ held + 1.0)
        if third is not None:
            mass = weights * held[:, num]
            precision = np.exp(-2.0 * third.log_scale)
            near = precision * mass @ y + centre / NEITHER_SPREAD**2
            mean = near / (precision * mass.sum() + 1.0 / NEITHER_SPREAD**2)
            squared = mass @ np.sum((y - mean) ** 2, axis=1) + q * _COUNTS * np.exp(
                2.0 * NEITHER_LOG_SCALE[0]
            )
            third = TaskNeither(mean, 0.5 * np.log(squared / (q * (mass.sum() + _COUNTS))))
        unknowns = TaskUnknowns(logits, one.means, third)
    return jax.tree.map(lambda part: np.asarray(part)[None], unknowns)


def _with_little(unknowns: TaskUnknowns, modes: TaskModes) -> TaskUnknowns:
    """Return unknowns with a broad component for neither task that holds little."""
    top = unknowns.logits.max(axis=1, keepdims=True)
    third = TaskNeither(np.asarray(modes.means).mean(axis=1), np.array([NEITHER_LOG_SCALE[0]]))
    return TaskUnknowns(np.append(unknowns.logits, top - _LITTLE, axis=1), unknowns.means, third)


def _log_evidence(modes: TaskModes, mode: TaskMode) -> float:
    """Return the log evidence of the basin of a mode given its scales, up to a constant: a batch of 1."""
    one = unbatched(modes)
    num, q = one.means.shape
    precision, factors = mode.quadratic.precision[0].copy(), prior_of.mean_factors(one, mode.scales)
    for place, factor in zip(np.arange(len(precision))[-num * q :].reshape(num, q), factors, strict=True):
        precision[np.ix_(place, place)] += np.linalg.inv(factor @ factor.T)
    sign, volume = np.linalg.slogdet(precision)
    return float(mode.height[0] - 0.5 * volume) if sign > 0.0 else -np.inf


def _climb(
    modes: TaskModes,
    prior: TaskPrior,
    rows: Iterable[Rows],
    start: TaskUnknowns,
    scales: Float[np.ndarray, "K"],
    tolerance: float,
) -> TaskMode:
    """Maximise likelihood times prior given the scales."""
    one = unbatched(modes)
    num, q = one.means.shape
    base = int(np.argmax(start.logits[0, :num]))
    first = start.logits.shape[1] + (0 if start.neither is None else q + 1)
    free = np.delete(np.arange(first + num * q), base)
    factors = prior_of.mean_factors(one, scales)
    precisions = np.linalg.inv(factors @ np.swapaxes(factors, 1, 2))
    gaussian = np.zeros((first + num * q, first + num * q))
    for k in range(num):
        place = slice(first + k * q, first + (k + 1) * q)
        gaussian[place, place] = precisions[k]

    def evaluate(flat: np.ndarray) -> list[np.ndarray]:
        unknowns = restored(flat, base, (num, q))
        value, gradient, hessian = (
            np.asarray(part) for part in total(lambda piece: law.derivatives(modes, unknowns, piece), rows)
        )
        height = value + prior_of.log_prior(one, prior, unknowns, factors)
        slope, bends = prior_of.derivatives(one, prior, unknowns)
        away = np.concatenate(
            [np.zeros((len(flat), first)), (unknowns.means - one.means).reshape(len(flat), -1)], 1
        )
        slope, bends = slope - away @ gaussian, bends - gaussian
        square = np.ix_(np.arange(len(flat)), free, free)
        parts = [gradient[:, free], hessian[square], slope[:, free], bends[square]]
        finite = np.isfinite(height)
        for part in parts:
            finite &= np.isfinite(part).all(axis=tuple(range(1, part.ndim)))
        return [np.where(finite, height, -np.inf), *(np.nan_to_num(part) for part in parts)]

    logits = start.logits - start.logits[:, base : base + 1]
    third = () if start.neither is None else (start.neither.mean, start.neither.log_scale[:, None])
    flat = np.concatenate([logits, *third, start.means.reshape(len(logits), -1)], axis=1)[:, free]
    flat, here, _ = newton(evaluate, flat, tolerance)
    unknowns = restored(flat, base, (num, q))
    slope, bends = prior_of.derivatives(one, prior, unknowns)
    likelihood = concave(-here[2])
    square = np.ix_(np.arange(len(flat)), free, free)
    precision = steadied(likelihood - bends[square], num * q)
    quadratic = Quadratic(flat, here[1] + slope[:, free], precision, likelihood)
    return TaskMode(unknowns, base, quadratic, scales, here[0])


def restored(flat: Float[np.ndarray, "*n D"], base: int, shape: tuple[int, int]) -> TaskUnknowns:
    """Return unknowns from all logits but that of ``base``, the component for neither task and the means.

    Args:
        flat: the numbers; whether there is a component for neither task their count tells.
        base: the task whose logit is 0.
        shape: (K, q).
    """
    num, q = shape
    first = flat.shape[-1] - num * q
    free = num - 1 if first == num - 1 else num
    logits = np.insert(flat[..., :free], base, 0.0, axis=-1)
    means = flat[..., first:].reshape(*flat.shape[:-1], num, q)
    if free == first:
        return TaskUnknowns(logits, means)
    return TaskUnknowns(logits, means, TaskNeither(flat[..., free : first - 1], flat[..., first - 1]))
