"""From draws along and beside the discriminants to what is reported of every task, and its precision."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from scipy import special, stats

from inference.measurement.posterior.derived import LEAST_INFORMATION, displaced
from inference.measurement.tasks import law
from inference.measurement.tasks.draws import TaskDraws
from inference.measurement.tasks.law import along_of
from inference.measurement.tasks.references import TaskReferences


class TaskReported(NamedTuple):
    """Draws of one checkpoint: J for each of R draws of the modes.

    Attributes:
        weight: of every task, shape (R, J, K); they add to 1 less the share of what belongs to neither.
        displacement: of its mean, in the user's coordinates, shape (R, J, K, feature).
        task_drift: length of the displacement, shape (R, J, K) [Mahalanobis].
    """

    weight: Float[np.ndarray, "R J K"]
    displacement: Float[np.ndarray, "R J K feature"]
    task_drift: Float[np.ndarray, "R J K"]


def report(references: TaskReferences, draws: TaskDraws, rng: np.random.Generator) -> TaskReported:
    """Draw the reference means given the checkpoint's, as `posterior.derived.report` does."""
    q, d = references.space.num, references.means.shape[1]
    moved, lengths = [], []
    for k, noise in enumerate(references.mean_covariances):
        spread = np.repeat(draws.scales[:, :, k], [q, d - q], axis=-1)
        reference = references.means[k] + references.mean_errors[:, None, k]
        displacement = displaced(draws.unknowns.means[:, :, k], spread, reference, noise, rng)
        length = np.linalg.norm(displacement @ references.metric[k], axis=-1)
        lengths.append(length * np.sqrt(references.metric_factors[:, None, k]))
        moved.append(displacement @ references.space.backward.T)
    weight = special.softmax(draws.unknowns.logits, axis=-1)[..., : len(references.means)]
    return TaskReported(weight, np.stack(moved, axis=2), np.stack(lengths, axis=2))


class TaskPrecision(NamedTuple):
    """How well a checkpoint can be measured, every task by itself.

    Attributes:
        resolution: the length that an estimated displacement exceeds by noise alone once in 20 when nothing
            has moved, without shrinkage, shape (K,) [Mahalanobis].
        task_information: variance of the weight were every sample's task known, over its variance were the
            references known, shape (K,).
        task_reference_share: part of the variance of the weight from the references' own error, shape (K,).
        confusion: probability that a sample of a task (rows) is taken for one of another, shape (K, K); rows
            add to 1 less the probability that it is taken for one of neither.
    """

    resolution: Float[np.ndarray, "K"]
    task_information: Float[np.ndarray, "K"]
    task_reference_share: Float[np.ndarray, "K"]
    confusion: Float[np.ndarray, "K K"]


def precision_of(
    references: TaskReferences, draws: TaskDraws, y: Float[np.ndarray, "n d"], num_samples: int
) -> TaskPrecision:
    """Return the resolutions and the information on the weights, as `posterior.derived.precision_of`.

    Arguments as those there.
    """
    q, num = references.space.num, len(references.means)
    share = special.softmax(draws.unknowns.logits, axis=-1)
    every, share = share.shape[-1], share[..., :num]
    within, between = share.var(axis=1).mean(axis=0), share.mean(axis=1).var(axis=0)
    known = np.mean(share * (1.0 - share), axis=(0, 1)) / max(num_samples, 1)
    products = np.zeros((every, every))
    for r in range(len(share)):
        modes = jax.tree.map(lambda a, r=r: a[r], references.draws)
        unknowns = along_of(jax.tree.map(lambda a, r=r: a[r, 0], draws.unknowns), q)
        held = law.responsibilities(modes, unknowns, y[:, :q])
        products += held.T @ held / len(share)
    inverse = np.linalg.inv(products * num_samples / len(y) + LEAST_INFORMATION * np.eye(len(products)))
    resolutions = []
    for k, noise in enumerate(np.diagonal(references.mean_covariances, axis1=1, axis2=2)):
        variances = inverse[k, k] + noise
        moved = draws.scales[:, :, k, 0] > 0.0
        if moved.sum() > 1:
            spread = draws.unknowns.means[:, :, k, :q][moved].var(axis=0) + noise[:q]
            variances[:q] = np.maximum(variances[:q], spread)
        scale, dof = np.sum(variances**2) / variances.sum(), variances.sum() ** 2 / np.sum(variances**2)
        resolutions.append(float(np.sqrt(scale * stats.chi2(dof).ppf(0.95))))
    return TaskPrecision(
        np.array(resolutions),
        np.clip(known / np.maximum(within, 1e-300), 0.0, 1.0),
        between / np.maximum(within + between, 1e-300),
        (products / np.maximum(products.sum(axis=1, keepdims=True), 1e-300))[:num, :num],
    )
