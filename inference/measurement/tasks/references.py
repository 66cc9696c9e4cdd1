"""The modes of several tasks as their references show them, and draws of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from inference.measurement.references.anchors import (
    NUM_DRAWS,
    Kind,
    balanced,
    lower_precision,
    wishart_root,
)
from inference.measurement.references.moments import (
    Moments,
    fit_tail_dof,
    has_heavy_tails,
    moments_of,
)
from inference.measurement.tasks.discriminants import Discriminants
from mixture_models.types import AnyArray

#: How the modes' covariances along the discriminants may be related.
COVARIANCES = ("shared", "unequal")


class TaskModes(NamedTuple):
    """The K modes along the q discriminants; a pytree of arrays, its leaves with a first axis over draws.

    Attributes:
        means: of the references, shape (K, q).
        mean_covariances: of those means, shape (K, q, q).
        roots: A_k, lower triangular, with precision A_k A_kᵀ; shape (K, q, q).
        tail_dof: of Student-t modes, shape (), or None for Gaussian ones.
    """

    means: Float[AnyArray, "K q"]
    mean_covariances: Float[AnyArray, "K q q"]
    roots: Float[AnyArray, "K q q"]
    tail_dof: Float[AnyArray, ""] | None


class TaskReferences(NamedTuple):
    """What the references of several tasks say, in the coordinates of their discriminants.

    Attributes:
        kind: of the modes along the discriminants.
        space: the coordinates, and the references in them.
        means: of the references, shape (K, d).
        mean_covariances: of those means, shape (K, d, d).
        central: the modes as the references show them best, a batch of 1.
        draws: of the modes, a batch of `NUM_DRAWS`.
        slopes: of the coordinates beside the discriminants on those along them, shape (K, q, p).
        residuals: covariances beside the discriminants given the place along them, shape (K, p, p).
        mean_errors: draws of reference mean less its estimate, shape (NUM_DRAWS, K, d).
        metric: A_k in whose metric |A_kᵀ x| displacements have their length, shape (K, d, d).
        metric_factors: draws of the squared length of a vector over that, shape (NUM_DRAWS, K).
        dof: degrees of freedom of the covariance within the references.
    """

    kind: Kind
    space: Discriminants
    means: Float[np.ndarray, "K d"]
    mean_covariances: Float[np.ndarray, "K d d"]
    central: TaskModes
    draws: TaskModes
    slopes: Float[np.ndarray, "K q p"]
    residuals: Float[np.ndarray, "K p p"]
    mean_errors: Float[np.ndarray, "R K d"]
    metric: Float[np.ndarray, "K d d"]
    metric_factors: Float[np.ndarray, "R K"]
    dof: float


def anchor_tasks(space: Discriminants, covariance: str, tails: str) -> TaskReferences:
    """Return what the references say of the modes.

    The posterior of a covariance along the discriminants is inverse-Wishart with as many degrees of freedom
    as its samples are worth. The draws depend on the references alone.

    Args:
        space: the coordinates, and the references in them.
        covariance: one of `COVARIANCES`, or ``"auto"``: unequal unless samples are few.
        tails: ``"gaussian"``, ``"student"``, or ``"auto"``: by BIC.
    """
    q, (count, d) = space.num, (len(space.rows), space.rows[0].shape[1])
    along = [y[:, :q] for y in space.rows]
    kind = _kind_of(along, covariance, tails)
    shared = kind.covariance == "shared"
    tail_dof = fit_tail_dof(along, shared=shared) if kind.heavy_tails else None
    law = moments_of(along, tail_dof, shared=shared)
    # Too few samples of a mode have no covariance of their own.
    few = min(map(len, space.rows)) < d + 7
    # Means beside the discriminants are those of least squares; lengths are those of the modes' law.
    whole, inside = moments_of(space.rows, None, shared=few), moments_of(space.inside, tail_dof, shared=few)
    worths = np.array([one.worth for one in law])
    own_dofs = np.maximum(space.worth * worths - 1.0, d + 1.0)
    means = np.stack([np.append(a.mean, b.mean[q:]) for a, b in zip(law, whole, strict=True)])
    covariances = np.stack([one.scatter / one.worth for one in whole])
    if tail_dof is not None:
        own = moments_of(along, tail_dof, shared=few)
        covariances[:, :q, q:] = covariances[:, q:, :q] = 0.0
        covariances[:, :q, :q] = [one.scatter / one.worth for one in own]
    rng = np.random.default_rng([len(y) for y in space.rows] + [d])
    dofs = np.full(count, own_dofs.sum()) if shared else own_dofs
    roots = _roots(law, dofs, rng, shared=shared)
    metric_dofs = np.full(count, own_dofs.sum()) - d if few else np.maximum(own_dofs, d + 1.0) - d
    metric = np.stack(
        [lower_precision(s.scatter) * np.sqrt(f / (f + d)) for s, f in zip(inside, metric_dofs, strict=True)]
    )
    errors = balanced(rng.standard_normal((NUM_DRAWS, count, d)), 0.0, 1.0)
    factors = rng.chisquare(metric_dofs, (NUM_DRAWS, count)) / metric_dofs
    central, draws = (
        TaskModes(
            np.broadcast_to(means[:, :q], (len(batch), count, q)),
            np.broadcast_to(covariances[:, :q, :q], (len(batch), count, q, q)),
            batch,
            None if tail_dof is None else np.full(len(batch), tail_dof),
        )
        for batch in roots
    )
    scatters = [one.scatter for one in whole]
    slopes = np.stack([np.linalg.solve(s[:q, :q], s[:q, q:]) for s in scatters])
    return TaskReferences(
        kind,
        space,
        means,
        covariances,
        central,
        draws,
        slopes,
        np.stack([s[q:, q:] - s[q:, :q] @ g for s, g in zip(scatters, slopes, strict=True)]),
        np.einsum("kij,rkj->rki", np.linalg.cholesky(covariances), errors),
        metric,
        balanced(factors, 1.0, np.sqrt(2.0 / metric_dofs)),
        float(own_dofs.sum()),
    )


def _kind_of(along: Sequence[np.ndarray], covariance: str, tails: str) -> Kind:
    """Return the kind of modes that is asked for.

    One covariance for modes that differ makes weights wrong long before a criterion of fit sees it, and there
    are few numbers along the discriminants: unless samples are few every mode has its own.
    """
    if covariance == "auto":
        covariance = "unequal" if min(map(len, along)) >= 5 * along[0].shape[1] + 10 else "shared"
    return Kind(covariance, has_heavy_tails(along, tails, shared=covariance == "shared"))


def _roots(
    law: Sequence[Moments], dofs: Float[np.ndarray, "K"], rng: np.random.Generator, *, shared: bool
) -> tuple[Float[np.ndarray, "1 K q q"], Float[np.ndarray, "R K q q"]]:
    """Return roots of the precisions at their centre, and draws of them."""
    q = law[0].scatter.shape[0]
    rows, columns = np.tril_indices(q)
    central, drawn = [], []
    for one, dof in zip(law[:1] if shared else law, dofs, strict=False):
        root, centre = lower_precision(one.scatter), np.sqrt((dof - q) / dof)
        factors = np.stack([wishart_root(rng, dof - q, dof, q) for _ in range(NUM_DRAWS)])
        spread = np.where(rows == columns, np.sqrt(0.5 / dof), np.sqrt(1.0 / dof))
        entries = balanced(factors[:, rows, columns], np.where(rows == columns, centre, 0.0), spread)
        factors[:, rows, columns] = np.where(rows == columns, np.maximum(entries, 0.1), entries)
        central.append(root[None] * centre)
        drawn.append(root @ factors)
    times = len(law) if shared else 1
    return np.repeat(np.stack(central, axis=1), times, axis=1), np.repeat(
        np.stack(drawn, axis=1), times, axis=1
    )
