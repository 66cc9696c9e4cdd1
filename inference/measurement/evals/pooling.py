"""Partial pooling: how much runs of one arm have in common, over seeds and over tasks.

The score x of a run (of δ, of τ and of m, each by itself) is a sum of what its arm's checkpoint has in all
tasks, what this has in the task, and what the training seed adds, with variances ρ ~ Dirichlet(1, 1, 2)
that sum to 1:

    x = A + B + C,   A ~ N(0, ρ_1),   B ~ N(0, ρ_2),   C ~ N(0, ρ_3)

so that the prior of one run is the same whether or not it is pooled. The answers enter by the normal law
that the fast path has learnt of each run; A + B and ρ_3 are drawn by Gibbs' sampler, and each lane of the
fast path then draws its runs anew, under the law N(A + B, ρ_3) that one draw of these gives.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

_WARMUP, _THIN = 300, 4

# Shapes of the prior of the variances, how far Metropolis' steps of their logs go, and the least variance.
_SHAPES, _STEP, _LEAST = np.array([1.0, 1.0, 2.0]), 0.35, 1e-3


class Groups(NamedTuple):
    """Which runs belong together.

    Attributes:
        arm: place of the run's arm and checkpoint, over all tasks.
        task: place of the run's task, arm and checkpoint.
    """

    arm: Int[np.ndarray, "R"]
    task: Int[np.ndarray, "R"]

    @property
    def alone(self) -> bool:
        """Whether no run shares a group with another."""
        return len(np.unique(self.arm)) == len(self.arm)


class Pooled(NamedTuple):
    """Draws of the pooled law of each run.

    Attributes:
        mean: A + B of each run.
        sd: sqrt(ρ_3).
        shares: ρ.
    """

    mean: Float[np.ndarray, "S R 3"]
    sd: Float[np.ndarray, "S 3"]
    shares: Float[np.ndarray, "S 3 3"]


def pool(
    mean: Float[np.ndarray, "R 3"],
    covariance: Float[np.ndarray, "R 3 3"],
    groups: Groups,
    num: int,
    rng: np.random.Generator,
) -> Pooled:
    """Return draws of what runs have in common.

    Args:
        mean: of each run's scores under the prior N(0, I).
        covariance: of them.
        groups: of the runs.
        num: draws.
        rng: of all that is random.
    """
    precision = np.linalg.inv(covariance)
    values, vectors = np.linalg.eigh(precision - np.eye(3))
    answers = (vectors * np.maximum(values, 1e-6)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    pull = np.einsum("rab,rb->ra", precision, mean)
    # Arm of each task's group.
    first = np.unique(groups.task, return_index=True)[1]
    arm_of = groups.arm[first]
    num_arms, num_tasks = groups.arm.max() + 1, groups.task.max() + 1
    runs_in = np.bincount(groups.task, minlength=num_tasks)[:, None]
    tasks_in = np.bincount(arm_of, minlength=num_arms)[:, None]
    rho = np.tile(_SHAPES / _SHAPES.sum(), (3, 1))
    centre = np.zeros((num_tasks, 3))
    kept = []
    for i in range(_WARMUP + num * _THIN):
        # Runs given their group's centre.
        within = rho[:, 2]
        total = answers + np.diag(1.0 / within)
        x = _normal(total, pull + centre[groups.task] / within, rng)
        # The arm's part given the runs, the task's integrated out, then the task's.
        sums = np.zeros((num_tasks, 3))
        np.add.at(sums, groups.task, x)
        averages, noise = sums / runs_in, rho[:, 1] + within / runs_in
        weight, weighted = np.zeros((num_arms, 3)), np.zeros((num_arms, 3))
        np.add.at(weight, arm_of, 1.0 / noise)
        np.add.at(weighted, arm_of, averages / noise)
        weight += 1.0 / rho[:, 0]
        arms = weighted / weight + rng.standard_normal(weight.shape) / np.sqrt(weight)
        weight = runs_in / within + 1.0 / rho[:, 1]
        centre = (sums / within + arms[arm_of] / rho[:, 1]) / weight
        centre = centre + rng.standard_normal(centre.shape) / np.sqrt(weight)
        squares = np.stack(
            [
                np.square(arms).sum(axis=0),
                np.square(centre - arms[arm_of]).sum(axis=0),
                np.square(x - centre[groups.task]).sum(axis=0),
            ],
            axis=-1,
        )
        counts = np.array([len(tasks_in), num_tasks, len(x)])
        for _ in range(3):
            rho = _moved(rho, squares, counts, rng)
        if i >= _WARMUP and (i - _WARMUP) % _THIN == 0:
            kept.append((centre[groups.task], np.sqrt(rho[:, 2]), rho))
    return Pooled(*(np.stack(part) for part in zip(*kept, strict=True)))


def _normal(
    precision: Float[np.ndarray, "R 3 3"], pull: Float[np.ndarray, "R 3"], rng: np.random.Generator
) -> Float[np.ndarray, "R 3"]:
    factor = np.linalg.cholesky(precision)
    half = np.linalg.solve(factor, pull[..., None])
    noise = rng.standard_normal(half.shape)
    return np.linalg.solve(np.swapaxes(factor, 1, 2), half + noise)[..., 0]


def _moved(
    rho: Float[np.ndarray, "3 3"],
    squares: Float[np.ndarray, "3 3"],
    counts: Int[np.ndarray, "3"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "3 3"]:
    """Move the variances of each score by a step of Metropolis on the logs of their ratios."""

    def log_density(rho: np.ndarray) -> np.ndarray:
        # The Dirichlet law on the scale of log ratios has the shapes themselves as powers.
        powers = _SHAPES - 0.5 * counts
        return np.sum(powers * np.log(rho) - 0.5 * squares / rho, axis=-1)

    tried = rho * np.exp(_STEP * rng.standard_normal(rho.shape))
    tried /= tried.sum(axis=-1, keepdims=True)
    accepted = np.log(rng.uniform(size=3)) < log_density(tried) - log_density(rho)
    accepted &= tried.min(axis=-1) > _LEAST
    return np.where(accepted[:, None], tried, rho)
