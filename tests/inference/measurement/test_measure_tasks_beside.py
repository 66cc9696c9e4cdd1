"""The means of several tasks beside the discriminants, and their errors."""

import jax
import numpy as np
import pytest
from scipy import stats
from task_samples import references

from inference.measurement.posterior.law import rows_of
from inference.measurement.tasks import across, law
from inference.measurement.tasks.discriminants import discriminants_of
from inference.measurement.tasks.law import TaskNeither, TaskUnknowns
from inference.measurement.tasks.references import anchor_tasks
from inference.measurement.tasks.scales import Beside


def test_the_evidence_beside_the_discriminants_is_that_of_gaussians():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(3, 3))
    covariance, noise, p = root @ root.T * 0.1 + 0.05 * np.eye(3), np.array([0.02, 0.01, 0.03]), 4
    away = rng.normal(size=(3, p))
    precision = np.linalg.inv(covariance)
    beside = Beside(precision, precision @ away @ away.T @ precision, noise, p)
    scales = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.2], [1.0, 2.0, 0.0]])
    exact = [
        stats.multivariate_normal(np.zeros(3), covariance + np.diag(noise + s**2)).logpdf(away.T).sum()
        for s in scales
    ]
    np.testing.assert_allclose(np.diff(beside.log_evidence(scales)), np.diff(exact), rtol=1e-9)


def test_means_beside_the_discriminants_are_those_of_samples_whose_task_is_known():
    rng = np.random.default_rng(4)
    far = np.zeros((3, 5))
    far[:, :2] = [[0.0, 0.0], [60.0, 0.0], [0.0, 60.0]]
    given = [mean + rng.normal(size=(400, 5)) for mean in far]
    known = anchor_tasks(discriminants_of(given, 64), "unequal", "gaussian")
    shift = np.array([[0, 0, 0.5, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, -1.0, 0.0]])
    parts = [
        mean + one + rng.normal(size=(n, 5)) for mean, one, n in zip(far, shift, (50, 80, 130), strict=True)
    ]
    rows = [known.space.coordinates(part) for part in parts]
    modes = jax.tree.map(lambda a: a[0], known.central)
    centres = np.stack([part[:, :2].mean(axis=0) for part in rows])
    sets = [(modes, TaskUnknowns(np.zeros(3), centres))]
    found, _ = across._estimate(known, sets, [rows_of(np.concatenate(rows))])
    for k, (part, size) in enumerate(zip(rows, (50, 80, 130), strict=True)):
        np.testing.assert_allclose(found.means[0, k], part[:, 2:].mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(found.covariances[0, k, :, k], known.residuals[k] / size, rtol=1e-5)


def test_what_belongs_to_neither_task_does_not_pull_the_means_beside_the_discriminants():
    rng = np.random.default_rng(23)
    far = np.zeros((3, 5))
    far[:, :2] = [[0.0, 0.0], [60.0, 0.0], [0.0, 60.0]]
    known = anchor_tasks(
        discriminants_of([mean + rng.normal(size=(400, 5)) for mean in far], 64), "unequal", "gaussian"
    )
    parts = [mean + rng.normal(size=(n, 5)) for mean, n in zip(far, (50, 80, 130), strict=True)]
    spread = np.array([1.0, 1.0, 3.0, 1.0, 0.5])
    parts.append(np.array([40.0, 40.0, 8.0, 0.0, 0.0]) + spread * rng.normal(size=(400, 5)))
    rows = [known.space.coordinates(part) for part in parts]
    modes = jax.tree.map(lambda a: a[0], known.central)
    centres = np.stack([part[:, :2].mean(axis=0) for part in rows])
    third = TaskNeither(centres[3], np.array(0.0))
    unknowns = TaskUnknowns(np.zeros(4), centres[:3], third)
    found, beyond = across._estimate(known, [(modes, unknowns)], [rows_of(np.concatenate(rows))])
    for k, (part, size) in enumerate(zip(rows[:3], (50, 80, 130), strict=True)):
        np.testing.assert_allclose(found.means[0, k], part[:, 2:].mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(found.covariances[0, k, :, k], known.residuals[k] / size, rtol=1e-5)
    # Priors that are worth 1/9 of a sample, and 5 samples of variance 4.
    np.testing.assert_allclose(beyond.means[0], rows[3][:, 2:].mean(axis=0) * 400 / (400 + 1 / 9), rtol=1e-6)
    away = rows[3][:, 2:] - beyond.means[0]
    np.testing.assert_allclose(beyond.covariances[0], (away.T @ away + 20 * np.eye(3)) / 405, rtol=1e-6)


@pytest.mark.slow
def test_that_tasks_are_not_known_is_part_of_the_error_of_means_beside_the_discriminants():
    """Samples whose responsibilities are right: the covariance that is said is that of replicates."""
    rng = np.random.default_rng(19)
    known = anchor_tasks(discriminants_of(list(references(rng).values()), 64), "shared", "gaussian")
    known = known._replace(slopes=np.zeros((3, 2, 2)), residuals=np.tile(0.01 * np.eye(2), (3, 1, 1)))
    modes = jax.tree.map(lambda a: a[0], known.central)
    unknowns = TaskUnknowns(np.array([0.5, 0.0, 0.2]), modes.means)
    u = 0.4 * rng.normal(size=(80, 2)) + modes.means.mean(axis=0)
    held = law.responsibilities(modes, unknowns, u)
    assert np.mean(held.max(axis=1)) < 0.9
    places, found = np.array([[0.0, 1.0], [3.0, 0.0], [-2.0, 5.0]]), []
    for _ in range(3000):
        task = np.array([rng.choice(3, p=row) for row in held])
        beside = places[task] + 0.1 * rng.normal(size=(80, 2))
        found.append(np.linalg.solve(held.T @ held, held.T @ beside))
    middle = np.concatenate([u, held @ places], axis=1)
    said, _ = across._estimate(known, [(modes, unknowns)], [rows_of(middle)])
    np.testing.assert_allclose(said.means[0], places, atol=1e-3)
    exact = np.cov(np.reshape(found, (3000, 6)), rowvar=False)
    spread = np.sqrt(np.diag(exact))
    errors = (said.covariances[0].reshape(6, 6) - exact) / np.outer(spread, spread)
    # The standard error of a correlation of 3,000 replicates is at most 0.018.
    assert np.abs(errors).max() < 0.15
