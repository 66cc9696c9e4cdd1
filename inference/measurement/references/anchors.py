"""The two modes as the references show them, and draws of them: how uncertain the references leave them.

The measurement is made under each of some draws of the modes' shape and covariance from their posterior given
the references, and pooled. The draws are the same for every checkpoint, and for every run that is measured
against the same references, so that what they share cancels in differences.
"""

from typing import NamedTuple

import jax
import numpy as np
import scipy.linalg
from jaxtyping import Float, Int

from inference.measurement.references.axis_shape import AxisShape, fit_axis_shape
from inference.measurement.references.clusters import Likeness, cluster_weights, sum_covariance, worth_of
from inference.measurement.references.frame import Frame, frame_of
from inference.measurement.references.moments import Moments, fit_tail_dof, moments_of
from mixture_models.types import AnyArray

#: Draws of the modes from what the references say of them.
NUM_DRAWS = 25

#: How the modes' covariances may be related.
COVARIANCES = ("shared", "axis", "proportional", "unequal")


class Kind(NamedTuple):
    """A kind of modes.

    Attributes:
        covariance: ``"shared"``: one covariance; ``"axis"``: along the axis each mode has the shape that its
            reference shows, and what is across it says nothing of the weight; ``"proportional"``: one is a
            multiple of the other; ``"unequal"``: each has its own.
        heavy_tails: whether modes are Student-t; of the kind ``"axis"`` only the axis and the lengths of
            displacements are then those of Student-t modes.
    """

    covariance: str
    heavy_tails: bool


class Anchors(NamedTuple):
    """The two modes in the frame; a pytree of arrays, its leaves with a first axis over draws where batched.

    The precision of mode k is A_k A_kᵀ with A_k = [[κ, 0], [c, B]] lower triangular. K is 1 where the modes
    share a covariance, else 2; T is 1 where they share the correlation of the axis with what is across it.

    Attributes:
        means: of the old and the new reference, shape (2, d).
        mean_covariances: of those means, shape (2, d, d).
        axis_precision: κ, shape (K,).
        tilt: c, shape (K, d - 1).
        across: B, shape (K, d - 1, d - 1).
        tilt_dof: inverse variance of c, in the metric of B, shape (T,).
        tail_dof: of Student-t modes, shape (), or None for Gaussian ones.
        shape: the densities along the axis where d = 1 and modes have their own, or None.
        likeness: of samples of one prompt, as the references show it, or None where samples have no prompts.
    """

    means: Float[AnyArray, "2 d"]
    mean_covariances: Float[AnyArray, "2 d d"]
    axis_precision: Float[AnyArray, "K"]
    tilt: Float[AnyArray, "K p"]
    across: Float[AnyArray, "K p p"]
    tilt_dof: Float[AnyArray, "T"]
    tail_dof: Float[AnyArray, ""] | None
    shape: AxisShape | None
    likeness: Likeness | None = None


class References(NamedTuple):
    """What the references say.

    Attributes:
        kind: of the modes.
        frame: the coordinates.
        old: reference samples of the old task in the frame, shape (n, d), in the order of their place along
            the axis.
        new: of the new task, likewise.
        means: of the old and the new reference, shape (2, d).
        mean_covariances: of those means, shape (2, d, d).
        central: the modes as the references show them best, a batch of 1; of the kind ``"axis"`` along the
            axis alone, with d = 1.
        draws: of the modes, a batch of `NUM_DRAWS`, likewise.
        slopes: of the coordinates across the axis on that along it, shape (2, d - 1).
        residuals: covariances across the axis given the place along it, shape (2, d - 1, d - 1).
        mean_errors: draws of reference mean less its estimate, shape (NUM_DRAWS, 2, d).
        metric: A_k in whose metric |A_kᵀ x| displacements have their length, shape (2, d, d).
        metric_factors: draws of the squared length of a vector over that, shape (NUM_DRAWS, 2).
        dof: degrees of freedom of the covariance within the references.
        prompts: of the samples of the old and of the new reference, or None where samples have no prompts.
    """

    kind: Kind
    frame: Frame
    old: Float[np.ndarray, "n d"]
    new: Float[np.ndarray, "m d"]
    means: Float[np.ndarray, "2 d"]
    mean_covariances: Float[np.ndarray, "2 d d"]
    central: Anchors
    draws: Anchors
    slopes: Float[np.ndarray, "2 p"]
    residuals: Float[np.ndarray, "2 p p"]
    mean_errors: Float[np.ndarray, "R 2 d"]
    metric: Float[np.ndarray, "2 d d"]
    metric_factors: Float[np.ndarray, "R 2"]
    dof: float
    prompts: list[Int[np.ndarray, "n"] | None] | None = None

    @property
    def separation(self) -> float:
        """Distance of the references' means less what the noise of the means adds to it."""
        noise = float(np.trace(self.mean_covariances.sum(axis=0)))
        return float(np.sqrt(max(float(self.means[0, 0]) ** 2 - noise, 0.0)))


def unbatched[Tree](batch: Tree) -> Tree:
    """Return the first of a batch: of a pytree whose leaves have a first axis over it."""
    first: Tree = jax.tree.map(lambda leaf: leaf[0], batch)
    return first


def anchor(
    old: Float[np.ndarray, "n feature"],
    new: Float[np.ndarray, "m feature"],
    kind: Kind,
    *,
    tail_dof: float | None = None,
    shape: AxisShape | None = None,
    worth: float = 1.0,
    num_draws: int = NUM_DRAWS,
    prompts: list[Int[np.ndarray, "n"] | None] | None = None,
) -> References:
    """Return what two references say of modes of a kind.

    The posterior of a covariance is inverse-Wishart with as many degrees of freedom as its samples are worth;
    that of the shapes along the axis a Bayesian bootstrap. Draws depend on the references alone, not on the
    order of their rows nor on the coordinates of their features.

    Args:
        old: reference samples of the old task.
        new: reference samples of the new task.
        kind: of the modes.
        tail_dof: degrees of freedom of Student-t modes, None to fit them.
        shape: along the axis, a batch of 1, None to fit it.
        worth: share of the samples that their covariance is worth.
        num_draws: of the modes.
        prompts: where samples have prompts, those of the old and of the new reference, None for one without:
            samples of one prompt are then not independent. Of the kind ``"axis"`` only.

    Raises:
        InputError: references with the same mean.
    """
    shared = kind.covariance in ("shared", "axis")
    if kind.heavy_tails and tail_dof is None:
        tail_dof = fit_tail_dof([old, new], shared=shared)
    frame, old, new, orders = ordered(old, new, tail_dof, shared=shared)
    labels = [
        None if p is None else p[order] for p, order in zip(prompts or [None, None], orders, strict=True)
    ]
    # A checkpoint's means across an axis are found by least squares: where a mode is skewed, a location by
    # Student's law is another place.
    on_line = kind.covariance == "axis"
    seen_dof = None if on_line else tail_dof
    own = moments_of([old, new], seen_dof, shared=False)
    law = moments_of([old, new], seen_dof, shared=True) if shared else own
    rng = np.random.default_rng([len(old), len(new), old.shape[1]])
    sizes = np.array([s.worth for s in own])
    own_dofs = np.maximum(worth * sizes - 1.0, old.shape[1] + 1.0)
    dofs = np.full(2, own_dofs.sum()) if kind.covariance != "unequal" else own_dofs
    d = old.shape[1]
    # Too few samples of a mode have no covariance of their own.
    few = min(len(old), len(new)) < d + 7
    spread = law if kind.covariance == "shared" or few else own
    scatters = [s.scatter for s in spread]
    metric_dofs = np.maximum(dofs if kind.covariance == "shared" or few else own_dofs, d + 1.0) - d
    covariances = np.stack(
        [
            s / w if p is None else sum_covariance(y - y.mean(0), p, s * w) / w**2
            for y, s, w, p in zip((old, new), scatters, sizes, labels, strict=True)
        ]
    )
    lengths = [s.scatter for s in moments_of([old, new], tail_dof, shared=few)] if on_line else scatters
    metric = np.stack(
        [lower_precision(s) * np.sqrt(f / (f + d)) for s, f in zip(lengths, metric_dofs, strict=True)]
    )
    batches = [_precisions(kind, law, dofs, rng, size) for size in (None, num_draws)]
    shapes: list[AxisShape | None] = [shape if kind.covariance == "axis" else None, None]
    if kind.covariance == "axis" and shape is None:
        # In the sample the axis separates the references better than it does elsewhere.
        widen = np.sqrt(dofs[0] / max(dofs[0] - d + 1.0, 1.0))
        along = [(y[:, 0] - s.mean[0]) * widen for y, s in zip((old, new), own, strict=True)]
        weights = [
            np.concatenate([np.ones((1, len(x))), cluster_weights(p, len(x), num_draws, rng)])
            for x, p in zip(along, labels, strict=True)
        ]
        # Prompts that lie apart are no clusters of a mode.
        worths = [len(x) if p is None else worth_of(x, p) for x, p in zip(along, labels, strict=True)]
        fitted = fit_axis_shape(along, weights, worths)
        shapes = [AxisShape(*(part[rows] for part in fitted)) for rows in (slice(1), slice(1, None))]
    likeness = None
    if prompts is not None and shapes[0] is not None:
        residual = [y[:, 0] - s.mean[0] for y, s in zip((old, new), own, strict=True)]
        likeness = Likeness.of(residual, labels, AxisShape(*(part[0] for part in shapes[0])))
    means = np.stack([s.mean for s in law])
    # What the law sees of the coordinates.
    seen = 1 if kind.covariance == "axis" else d
    anchors = [
        Anchors(
            np.broadcast_to(means[:, :seen], (len(kappa), 2, seen)),
            np.broadcast_to(covariances[:, :seen, :seen], (len(kappa), 2, seen, seen)),
            kappa,
            tilt,
            across,
            np.broadcast_to(_tilt_dofs(kind, dofs, d), (len(kappa), 1 + (kind.covariance == "unequal"))),
            None if tail_dof is None or on_line else np.full(len(kappa), tail_dof),
            shape,
            None
            if likeness is None
            else Likeness(*(np.broadcast_to(part, (len(kappa), 2)) for part in likeness)),
        )
        for (kappa, tilt, across), shape in zip(batches, shapes, strict=True)
    ]
    slopes = np.stack([s[1:, 0] / s[0, 0] for s in scatters])
    residuals = np.stack([s[1:, 1:] - np.outer(s[1:, 0], s[0, 1:]) / s[0, 0] for s in scatters])
    roots = np.linalg.cholesky(covariances)
    errors = np.einsum("kij,rkj->rki", roots, balanced(rng.standard_normal((num_draws, 2, d)), 0.0, 1.0))
    factors = rng.chisquare(metric_dofs, (num_draws, 2)) / metric_dofs
    factors = balanced(factors, 1.0, np.sqrt(2.0 / metric_dofs))
    return References(
        kind,
        frame,
        old,
        new,
        means,
        covariances,
        anchors[0],
        anchors[1],
        slopes,
        residuals,
        errors,
        metric,
        factors,
        float(own_dofs.sum()),
        None if prompts is None else labels,
    )


def balanced(
    draws: Float[np.ndarray, "R *n"], mean: float | np.ndarray, sd: float | np.ndarray
) -> Float[np.ndarray, "R *n"]:
    """Return draws shifted and scaled to a mean and a standard deviation: a few stand for their law."""
    if len(draws) < 2:
        return draws
    return np.asarray(mean + sd * (draws - draws.mean(axis=0)) / draws.std(axis=0))


def ordered(
    old: np.ndarray, new: np.ndarray, tail_dof: float | None, *, shared: bool
) -> tuple[Frame, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return the frame, the references in it, and where their rows were before.

    The rows are in the order of their place along the axis.
    """
    moments = moments_of([old, new], tail_dof, shared=shared)
    pooled = sum(len(y) * s.scatter for y, s in zip((old, new), moments, strict=True))
    frame = frame_of(moments[0].mean, moments[1].mean, np.asarray(pooled) / (len(old) + len(new)), old)
    inside = [frame.coordinates(y) for y in (old, new)]
    orders = [np.argsort(y[:, 0], kind="stable") for y in inside]
    return frame, inside[0][orders[0]], inside[1][orders[1]], orders


def _tilt_dofs(kind: Kind, dofs: np.ndarray, d: int) -> np.ndarray:
    freedom: np.ndarray = np.maximum(dofs - d, 1.0)
    return freedom if kind.covariance == "unequal" else freedom[:1]


def _precisions(
    kind: Kind, moments: list[Moments], dofs: np.ndarray, rng: np.random.Generator, size: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return draws of (κ, c, B) with a first axis over draws, or a batch of 1 at their centre.

    The precision across the axis has the mean (ν - d)/ν Σ̂⁻¹, which is unbiased; κ² ν/κ̂² is chi-squared with
    ν - d + 1 degrees of freedom.
    """
    d, num = moments[0].mean.shape[0], 1 if size is None else size
    if kind.covariance == "axis":
        return np.ones((num, 1)), np.zeros((num, 1, 0)), np.zeros((num, 1, 0, 0))
    scatters = [s.scatter for s in moments]
    ratios = np.ones((num, 1))
    if kind.covariance == "proportional":
        scatter, ratio, error = _proportional(moments)
        drawn = np.log(ratio) + (
            np.zeros(1) if size is None else error * balanced(rng.standard_normal(num), 0.0, 1.0)
        )
        ratios = np.column_stack([np.exp(drawn), np.ones(num)])
        scatters = [scatter]
    elif kind.covariance == "shared":
        scatters = scatters[:1]
    kappas, tilts, acrosses = [], [], []
    for scatter, dof in zip(scatters, dofs, strict=False):
        triangle = lower_precision(scatter)
        freedom = dof - d + 1.0
        chi2 = np.full(num, freedom)
        if size is not None:
            chi2 = balanced(rng.chisquare(freedom, num), freedom, np.sqrt(2.0 * freedom))
        factor = np.sqrt(chi2 / dof)
        across = triangle[1:, 1:] * np.sqrt((dof - d) / dof)
        across = np.broadcast_to(across, (num, d - 1, d - 1))
        if kind.covariance == "unequal" and size is not None:
            roots = [wishart_root(rng, dof - d, dof, d - 1) for _ in range(num)]
            across = triangle[1:, 1:] @ np.reshape(roots, (num, d - 1, d - 1))
        kappas.append(triangle[0, 0] * factor)
        tilts.append(triangle[1:, 0] * factor[:, None])
        acrosses.append(across)
    kappa, tilt, across = (np.stack(parts, axis=1) for parts in (kappas, tilts, acrosses))
    return kappa / ratios, tilt / ratios[..., None], across / ratios[..., None, None]


def wishart_root(rng: np.random.Generator, dof: float, scale: float, size: int) -> np.ndarray:
    """Return a lower triangle whose square is Wishart with mean dof/scale times the identity (Bartlett)."""
    lower = np.tril(rng.standard_normal((size, size)), -1)
    freedom = np.maximum(dof - np.arange(size), 0.5)
    result: np.ndarray = (lower + np.diag(np.sqrt(rng.chisquare(freedom)))) / np.sqrt(scale)
    return result


def _proportional(moments: list[Moments]) -> tuple[np.ndarray, float, float]:
    """Return the new mode's scatter, the old one's spread over the new one's, and the error of its log."""
    d = len(moments[0].mean)
    worths = np.array([s.worth for s in moments])
    old, new = (s.scatter for s in moments)
    ratio = 1.0
    for _ in range(50):
        scatter = (worths[0] * old / ratio**2 + worths[1] * new) / worths.sum()
        before, ratio = ratio, float(np.sqrt(np.trace(np.linalg.solve(scatter, old)) / d))
        if abs(ratio - before) < 1e-12 * ratio:
            break
    return scatter, ratio, float(np.sqrt(np.sum(1.0 / worths) / (2.0 * d)))


def lower_precision(covariance: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """Return the lower triangle A with A Aᵀ the inverse of a covariance."""
    upper = np.linalg.cholesky(covariance[::-1, ::-1])[::-1, ::-1]
    result: np.ndarray = scipy.linalg.solve_triangular(upper, np.eye(len(covariance)), lower=False).T
    return result
