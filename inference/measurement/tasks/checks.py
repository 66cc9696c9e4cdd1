"""Whether the tasks' modes describe a checkpoint's samples, and whether the references fit their law.

As `verdict.checks`: what is predicted is drawn from the references themselves, moved as the fitted modes
are and mixed as the fitted weights say.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float
from scipy import special

from inference.measurement.references.anchors import lower_precision, unbatched
from inference.measurement.references.contamination import foreign_share
from inference.measurement.tasks import law
from inference.measurement.tasks.draws import TaskDraws
from inference.measurement.tasks.law import TaskUnknowns, along_of
from inference.measurement.tasks.references import TaskReferences
from inference.measurement.verdict.checks import Prediction

#: What is compared along and beside the discriminants; then the spread beside them of what is nearest to
# each task.
STATISTICS = (
    "spread along discriminants",
    "places along discriminants",
    "density along discriminants",
    "far from all",
    "widest beside discriminants",
)

#: How many of them look along the discriminants, which tell the weights.
NUM_ALONG = 4

_REPLICATES, _LEAST_SIDE = 60, 10

# Samples of a reference nearest to another one's mean, below which none are looked for.
_LEAST_NEAR = 3

# EM steps of the references' own shares.
_STEPS = 500


def fresh_rows(references: TaskReferences) -> list[Float[np.ndarray, "n d"]]:
    """Return the reference samples spread as other samples are beside the discriminants."""
    q, d = references.space.num, references.means.shape[1]
    widen = np.sqrt(references.dof / max(references.dof - d - 1.0, 1.0))
    factors = np.where(np.arange(d) < q, 1.0, widen)
    return [
        mean + factors * (rows - mean)
        for rows, mean in zip(references.space.rows, references.means, strict=True)
    ]


def predictive_check(
    references: TaskReferences, draws: TaskDraws, y: Float[np.ndarray, "n d"], rng: np.random.Generator
) -> Prediction:
    """Return the statistics of some samples, and of as many that draws of the posterior predict.

    They are the spread along the discriminants, the greatest difference between the samples' distribution and
    the predicted one along any of these, the mean log density there, the 99.5 % quantile of the distance to
    the nearest mode, the largest variance beside the discriminants, and there the mean squared distance of
    the samples that are nearest to each mode.
    """
    shape = draws.scales.shape[:2]
    picked = np.unravel_index(rng.choice(shape[0] * shape[1], _REPLICATES), shape)
    rows = fresh_rows(references)
    replicates = [
        _simulated(references, rows, draws, place, len(y), rng) for place in zip(*picked, strict=True)
    ]
    q = references.space.num
    means = draws.unknowns.means[picked].mean(axis=0)
    # One covariance for all: in a mode's own its reference looks nearer to its mean than other samples do.
    within = [np.cov(one[:, :q], rowvar=False).reshape(q, q) for one in references.space.rows]
    root = lower_precision(np.average(within, axis=0, weights=[len(one) for one in rows]))
    central = unbatched(references.central)
    central = central._replace(roots=np.tile(root, (len(rows), 1, 1)))
    centre = along_of(jax.tree.map(lambda a: a[picked].mean(axis=0), draws.unknowns), q)
    pool = np.sort(np.concatenate([one[:, :q] for one in replicates]), axis=0)

    def statistics(one: np.ndarray) -> np.ndarray:
        logs, _ = law.log_densities(central, centre, one[:, :q])
        return _statistics(means, q, pool, special.logsumexp(logs, axis=1).mean(), one)

    return Prediction(statistics(y), np.stack([statistics(one) for one in replicates]))


def _simulated(
    references: TaskReferences,
    rows: Sequence[np.ndarray],
    draws: TaskDraws,
    place: tuple[int, int],
    num: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "n d"]:
    """Draw samples that one draw of the posterior predicts, from a bootstrap of the references."""
    shares, third = special.softmax(draws.unknowns.logits[place]), draws.unknowns.neither
    task = rng.choice(len(shares), size=num, p=shares)
    y = np.zeros((num, rows[0].shape[1]))
    for k, reference in enumerate(rows):
        some = rng.integers(len(reference), size=len(reference))
        drawn = reference[some[rng.integers(len(some), size=np.sum(task == k))]]
        y[task == k] = draws.unknowns.means[place][k] + drawn - references.means[k]
    if third is not None:
        q, z = references.space.num, rng.standard_normal((int(np.sum(task == len(rows))), y.shape[1]))
        z[:, :q] *= np.exp(third.log_scale[place])
        if draws.neither_beside is not None:
            z[:, q:] = z[:, q:] @ np.linalg.cholesky(draws.neither_beside).T
        y[task == len(rows)] = third.mean[place] + z
    return y


def _statistics(
    means: Float[np.ndarray, "K d"], q: int, pool: Float[np.ndarray, "p q"], density: float, y: np.ndarray
) -> Float[np.ndarray, "statistic"]:
    ordered = np.sort(y[:, :q], axis=0)
    even = (np.arange(len(y)) + 0.5) / len(y)
    places = [
        np.max(np.abs(np.searchsorted(pool[:, j], ordered[:, j], side="right") / len(pool) - even))
        for j in range(q)
    ]
    squared = np.sum((y[:, None] - means) ** 2, axis=2)
    nearest = np.argmin(np.sum((y[:, None, :q] - means[:, :q]) ** 2, axis=2), axis=1)
    beside = y[:, q:] - means[nearest, q:]
    lengths = np.sum(beside**2, axis=1)
    widest = np.linalg.eigvalsh(beside.T @ beside / len(y))[-1] if beside.shape[1] else 0.0
    counts = np.bincount(nearest, minlength=len(means))
    sides = np.bincount(nearest, lengths, minlength=len(means)) / np.maximum(counts, 1)
    return np.array(
        [
            np.sqrt(np.sum(y[:, :q].var(axis=0))),
            max(places),
            density,
            np.sqrt(np.quantile(squared.min(axis=1), 0.995)),
            widest,
            *np.where(counts >= _LEAST_SIDE, sides, 0.0),
        ]
    )


def centred(
    references: TaskReferences, draws: TaskDraws, y: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "m c"]:
    """Return samples less the mean of those that are nearest to the same reference, or belong to neither."""
    q, num = references.space.num, len(references.means)
    nearest = np.argmin(np.sum((y[:, None, :q] - references.means[:, :q]) ** 2, axis=2), axis=1)
    if draws.unknowns.neither is not None:
        modes = unbatched(references.central)
        centre = along_of(jax.tree.map(lambda a: a.mean(axis=(0, 1)), draws.unknowns), q)
        held = law.responsibilities(modes, centre, y[:, :q])
        nearest = np.where(held[:, num] > 0.5, num, nearest)
    found = y.copy()
    for k in np.unique(nearest):
        found[nearest == k] -= y[nearest == k].mean(axis=0)
    return found[:, q:] if y.shape[1] > q else found


def left_out_deviation(
    rest: Float[np.ndarray, "feature e"],
    references: Sequence[np.ndarray],
    weights: Float[np.ndarray, "K"],
    mean: Float[np.ndarray, "feature"],
    num: int,
) -> float:
    """Return what `verdict.checks.left_out_deviation` does, for the mixture of several tasks."""
    if not rest.shape[1]:
        return 0.0
    there = [y @ rest for y in references]
    means = np.stack([y.mean(axis=0) for y in there])
    own = [np.atleast_2d(np.cov(y, rowvar=False)) for y in there]
    centre = weights @ means
    within = sum(w * c for w, c in zip(weights, own, strict=True))
    between = (means - centre).T @ (weights[:, None] * (means - centre))
    noise = sum(w**2 * c / len(y) for w, c, y in zip(weights, own, there, strict=True))
    covariance = np.asarray((within + between) / num + noise)
    shift = mean @ rest - centre
    return float((shift @ shift - np.trace(covariance)) / np.sqrt(2.0 * np.sum(covariance**2)))


def foreign_shares(references: TaskReferences) -> Float[np.ndarray, "K K"]:
    """Return the share of each reference (rows) that looks like each other task, along their axis."""
    q, means = references.space.num, references.means
    found = np.zeros((len(means), len(means)))
    for k, rows in enumerate(references.space.rows):
        nearest = np.argmin(np.sum((rows[:, None, :q] - means[:, :q]) ** 2, axis=2), axis=1)
        for j, others in enumerate(references.space.rows):
            if j != k and np.sum(nearest == j) >= _LEAST_NEAR:
                axis = means[j, :q] - means[k, :q]
                found[k, j] = foreign_share(rows[:, :q] @ axis, others[:, :q] @ axis)
    return found


def own_share_errors(references: TaskReferences) -> tuple[Float[np.ndarray, "K"], Float[np.ndarray, "K"]]:
    """Return how far the estimated weights of all references together are off, and the standard errors.

    Each reference counts 1/K: where its samples do not follow the law of the modes, this need not come out.
    """
    q, num = references.space.num, len(references.means)
    modes = unbatched(references.central)
    logs = [
        law.log_densities(modes, TaskUnknowns(np.zeros(num), modes.means), rows[:, :q])[0]
        for rows in references.space.rows
    ]
    shares = np.full(num, 1.0 / num)
    for _ in range(_STEPS):
        held = [special.softmax(one + np.log(shares), axis=1) for one in logs]
        before, shares = shares, np.mean([one.mean(axis=0) for one in held], axis=0)
        if np.abs(shares - before).max() < 1e-9:
            break
    bends = np.outer(shares, shares) - np.mean([one.T @ one / len(one) for one in held], axis=0)
    noise = sum(np.cov(one, rowvar=False) / len(one) for one in held) / num**2
    slope = (np.diag(shares) - np.outer(shares, shares)) @ np.linalg.pinv(bends)
    return shares - 1.0 / num, np.sqrt(np.diagonal(slope @ noise @ slope.T))
