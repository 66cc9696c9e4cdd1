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
from inference.measurement.posterior.scales import Quadratic
from inference.measurement.tasks import law
from inference.measurement.tasks import prior as prior_of
from inference.measurement.tasks.law import TaskUnknowns
from inference.measurement.tasks.prior import TaskPrior
from inference.measurement.tasks.references import TaskModes
from inference.measurement.tasks.scales import scales_of

_TOLERANCE, _TOLERANCE_OF_DRAWS = 1e-7, 1e-2

# Blocks of rows that are climbed before all are, and EM steps of the weights before that.
_FIRST_BLOCKS, _EM_STEPS = 8, 30


class TaskMode(NamedTuple):
    """Posterior modes given scales, one for each draw of the references' modes.

    Attributes:
        unknowns: a batch.
        base: the task whose logit is 0.
        quadratic: the log posterior around the modes, without the Gaussian prior of the means, in the other
            logits and the raveled means.
        scales: τ_a, shape (K,).
        height: log posterior up to a constant, shape (R,).
    """

    unknowns: TaskUnknowns
    base: int
    quadratic: Quadratic
    scales: Float[np.ndarray, "K"]
    height: Float[np.ndarray, "R"]


def find_mode(modes: TaskModes, prior: TaskPrior, rows: Iterable[Rows]) -> TaskMode:
    """Return the posterior mode that starts at the references, its scales fitted along.

    Where the first climb ends with modes at each other's references, it is climbed again with these
    exchanged, and the higher end is taken.

    Args:
        modes: a batch of 1.
        prior: the numbers of the prior.
        rows: the samples.
    """
    num = modes.means.shape[1]
    some = [jax.tree.map(lambda a: a[:_FIRST_BLOCKS], next(iter(rows)))]
    unknowns = _first(modes, some[0])
    scales = np.full(num, prior.displacement_scale)
    for climbed in (some, rows):
        mode = _climb(modes, prior, climbed, unknowns, scales, _TOLERANCE)
        if climbed is some:
            nearest = linear_sum_assignment(cdist(modes.means[0], mode.unknowns.means[0]))[1]
            if not np.array_equal(nearest, np.arange(num)):
                exchanged = TaskUnknowns(*(part[:, nearest] for part in mode.unknowns))
                other = _climb(modes, prior, climbed, exchanged, scales, _TOLERANCE)
                mode = max(mode, other, key=lambda found: found.height[0])
        unknowns = mode.unknowns
        scales = scales_of(jax.tree.map(lambda a: a[0], modes), prior, mode.quadratic).typical
    return _climb(modes, prior, rows, unknowns, scales, _TOLERANCE)


def modes_of_draws(modes: TaskModes, prior: TaskPrior, rows: Iterable[Rows], central: TaskMode) -> TaskMode:
    """Return the posterior modes under draws of the references' modes, climbed from the central one."""
    count = len(modes.means)
    unknowns = TaskUnknowns(*(np.repeat(part, count, axis=0) for part in central.unknowns))
    return _climb(modes, prior, rows, unknowns, central.scales, _TOLERANCE_OF_DRAWS)


def _first(modes: TaskModes, rows: Rows) -> TaskUnknowns:
    """Return weights by EM steps with the modes at the references."""
    y, weights = (np.asarray(a).reshape(-1, *a.shape[2:]) for a in rows)
    one = jax.tree.map(lambda a: a[0], modes)
    logits = np.zeros(len(one.means))
    for _ in range(_EM_STEPS):
        held = law.responsibilities(one, TaskUnknowns(logits, one.means), y)
        logits = np.log(weights @ held + 1.0)
    return TaskUnknowns(logits[None], np.asarray(modes.means))


def _climb(
    modes: TaskModes,
    prior: TaskPrior,
    rows: Iterable[Rows],
    start: TaskUnknowns,
    scales: Float[np.ndarray, "K"],
    tolerance: float,
) -> TaskMode:
    """Maximise likelihood times prior given the scales."""
    one = jax.tree.map(lambda a: a[0], modes)
    num, q = one.means.shape
    base = int(np.argmax(start.logits[0]))
    free = np.delete(np.arange(num + num * q), base)
    factors = prior_of.mean_factors(one, scales)
    precisions = np.linalg.inv(factors @ np.swapaxes(factors, 1, 2))
    gaussian = np.zeros((num + num * q, num + num * q))
    for k in range(num):
        place = slice(num + k * q, num + (k + 1) * q)
        gaussian[place, place] = precisions[k]

    def evaluate(flat: np.ndarray) -> list[np.ndarray]:
        unknowns = restored(flat, base, num)
        value, gradient, hessian = (
            np.asarray(part) for part in total(lambda piece: law.derivatives(modes, unknowns, piece), rows)
        )
        height = value + prior_of.log_prior(one, prior, unknowns, factors)
        slope, bends = prior_of.derivatives(one, prior, unknowns)
        away = np.concatenate(
            [np.zeros((len(flat), num)), (unknowns.means - one.means).reshape(len(flat), -1)], 1
        )
        slope, bends = slope - away @ gaussian, bends - gaussian
        square = np.ix_(np.arange(len(flat)), free, free)
        parts = [gradient[:, free], hessian[square], slope[:, free], bends[square]]
        finite = np.isfinite(height)
        for part in parts:
            finite &= np.isfinite(part).all(axis=tuple(range(1, part.ndim)))
        return [np.where(finite, height, -np.inf), *(np.nan_to_num(part) for part in parts)]

    logits = start.logits - start.logits[:, base : base + 1]
    flat = np.concatenate([logits, start.means.reshape(len(logits), -1)], axis=1)[:, free]
    flat, here, _ = newton(evaluate, flat, tolerance)
    unknowns = restored(flat, base, num)
    slope, bends = prior_of.derivatives(one, prior, unknowns)
    likelihood = concave(-here[2])
    square = np.ix_(np.arange(len(flat)), free, free)
    quadratic = Quadratic(flat, here[1] + slope[:, free], likelihood - bends[square], likelihood)
    return TaskMode(unknowns, base, quadratic, scales, here[0])


def restored(flat: Float[np.ndarray, "*n D"], base: int, num: int) -> TaskUnknowns:
    """Return unknowns from the logits of all tasks but ``base`` and the raveled means.

    Args:
        flat: the numbers.
        base: the task whose logit is 0.
        num: K.
    """
    logits = np.insert(flat[..., : num - 1], base, 0.0, axis=-1)
    return TaskUnknowns(logits, flat[..., num - 1 :].reshape(*flat.shape[:-1], num, -1))
