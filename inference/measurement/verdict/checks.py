"""Whether two modes, as the references show them, describe a checkpoint's samples: predictive checks.

What is predicted is drawn from the references themselves, moved as the fitted modes are and mixed as the
fitted weight says, not from the law that was fitted to them. So no shape of the references is held against a
checkpoint, and whatever it holds beyond them shows.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from inference.measurement.posterior.laplace import Draws
from inference.measurement.posterior.prompts import PromptDraws
from inference.measurement.prompts.effects import shift_of
from inference.measurement.references.anchors import References
from inference.measurement.references.axis_shape import AxisShape

#: What is compared between the samples and samples that are predicted.
STATISTICS = (
    "spread_along_axis",
    "skewness_along_axis",
    "kurtosis_along_axis",
    "places_along_axis",
    "spread_across_axis_old",
    "spread_across_axis_new",
    "widest_across_axis",
    "far_from_both",
)

#: Those of them that look across the axis alone.
ACROSS = ("spread_across_axis_old", "spread_across_axis_new", "widest_across_axis")

#: Samples that are looked at, at most.
MOST_ROWS = 1000

_REPLICATES = 60

# Least samples on a mode's side of the middle for their spread to be looked at.
_LEAST_SIDE = 10


class Prediction(NamedTuple):
    """The statistics of some samples, and of as many that are predicted.

    Attributes:
        observed: shape (statistic,).
        replicated: shape (replicate, statistic).
    """

    observed: Float[np.ndarray, "statistic"]
    replicated: Float[np.ndarray, "replicate statistic"]

    @property
    def deviations(self) -> Float[np.ndarray, "statistic"]:
        """How many standard deviations of the replicates the samples' statistics lie from their mean."""
        spread = np.maximum(self.replicated.std(axis=0), 1e-300)
        return (self.observed - self.replicated.mean(axis=0)) / spread


class Prompted(NamedTuple):
    """What is known of the prompts of the samples that are looked at.

    Attributes:
        codes: number of each sample's prompt, shape (n,).
        draw: returns draws of what prompts have of their own under some draws of the posterior.
        across: intraclass correlation of every coordinate across the axis, shape (p,).
    """

    codes: Int[np.ndarray, "n"]
    draw: Callable[[tuple[np.ndarray, np.ndarray]], PromptDraws]
    across: Float[np.ndarray, "p"]


class _OfPrompts(NamedTuple):
    """Under one draw: codes of the samples, old share and place v of the prompts, ρ, and across the axis."""

    codes: Int[np.ndarray, "n"]
    old_share: Float[np.ndarray, "prompt"]
    place: Float[np.ndarray, "prompt"]
    shift: float
    across: Float[np.ndarray, "p"]


def predictive_check(
    references: References,
    draws: Draws,
    y: Float[np.ndarray, "n d"],
    rng: np.random.Generator,
    prompted: Prompted | None = None,
) -> Prediction:
    """Return the statistics of some samples, and of as many that draws of the posterior predict.

    They are spread, skewness and kurtosis along the axis between the references, the greatest difference
    between the samples' distribution there and the predicted one, the mean squared distance across the axis
    from the mean of either side of the middle, the largest variance across it, and the 99.5 % quantile of the
    distance to the nearer reference. Every replicate draws its samples from a bootstrap of the references,
    and where samples have prompts from the same prompts.
    """
    picked = np.unravel_index(
        rng.choice(draws.scales.shape[0] * draws.scales.shape[1], _REPLICATES), draws.scales.shape[:2]
    )
    of_prompts: list[_OfPrompts | None] = [None] * _REPLICATES
    if prompted is not None and draws.unknowns.prompts is not None:
        shifts = shift_of(np.asarray(draws.unknowns.prompts.shift_score)[picked])
        drawn = zip(*prompted.draw((picked[0], picked[1])), shifts, strict=True)
        of_prompts = [_OfPrompts(prompted.codes, *one, prompted.across) for one in drawn]
    replicates = [
        simulate(references, draws, (r, j), len(y), rng, one)
        for r, j, one in zip(*picked, of_prompts, strict=True)
    ]
    means = np.stack(
        [np.asarray(m)[picked].mean(axis=0) for m in (draws.unknowns.old_mean, draws.unknowns.new_mean)]
    )
    pool = np.sort(np.concatenate([one[:, 0] for one in replicates]))
    return Prediction(
        _statistics(means, pool, y), np.stack([_statistics(means, pool, one) for one in replicates])
    )


def simulate(
    references: References,
    draws: Draws,
    place: tuple[int, int],
    num: int,
    rng: np.random.Generator,
    prompts: _OfPrompts | None = None,
) -> Float[np.ndarray, "n d"]:
    """Draw samples that one draw of the posterior predicts, from a bootstrap of the references."""
    unknowns = draws.unknowns
    share = special.expit(unknowns.old_logit[place]) if prompts is None else prompts.old_share[prompts.codes]
    component = np.where(rng.uniform(size=num) < share, 0, 1)
    if unknowns.neither is not None:
        component[rng.uniform(size=num) < special.expit(unknowns.neither.logit[place])] = 2
    d = references.old.shape[1]
    y = rng.standard_normal((num, d))
    beside = None if prompts is None else rng.standard_normal((len(prompts.place), d - 1))
    # The references spread less in the metric that was made of them than other samples do.
    widen = np.sqrt(references.dof / max(references.dof - d - 1.0, 1.0))
    anchored = references.means
    modes = ((references.old, unknowns.old_mean), (references.new, unknowns.new_mean))
    for mode, (reference, mean) in enumerate(modes):
        rows = component == mode
        some = rng.integers(len(reference), size=len(reference))
        drawn = reference[some[rng.integers(len(some), size=rows.sum())]] - anchored[mode]
        if prompts is not None and references.draws.shape is not None:
            shape = AxisShape(*(np.asarray(part)[place[0]] for part in references.draws.shape))
            of_mode = prompts._replace(codes=prompts.codes[rows])
            drawn = _shifted(drawn, of_mode, AxisShape(*(part[mode] for part in shape)), beside)
        y[rows] = np.asarray(mean)[place] + widen * drawn
    if unknowns.neither is not None:
        third, rows = unknowns.neither, component == 2
        y[rows] = third.mean[place] + np.exp(third.log_scale[place]) * y[rows]
    return y


def _shifted(
    residual: Float[np.ndarray, "n d"],
    prompts: _OfPrompts,
    shape: AxisShape,
    beside: Float[np.ndarray, "prompt p"] | None,
) -> Float[np.ndarray, "n d"]:
    """Give residuals of a mode the shifts of their prompts, and keep their variance."""
    along, codes = residual[:, 0], prompts.codes
    logs = (
        shape.log_weight - np.log(shape.scale) - 0.5 * ((along[:, None] - shape.location) / shape.scale) ** 2
    )
    component = logs.argmax(axis=1)
    location, scale = shape.location[component], shape.scale[component]
    found = np.empty_like(residual)
    within, between = np.sqrt(1.0 - prompts.shift), np.sqrt(prompts.shift)
    found[:, 0] = location + within * (along - location) + between * scale * prompts.place[codes]
    found[:, 1:] = np.sqrt(1.0 - prompts.across) * residual[:, 1:]
    if beside is not None and len(residual):
        found[:, 1:] += np.sqrt(prompts.across) * residual[:, 1:].std(axis=0) * beside[codes]
    return found


def _statistics(
    means: Float[np.ndarray, "2 d"], pool: Float[np.ndarray, "p"], y: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "statistic"]:
    along = y[:, 0] - y[:, 0].mean()
    variance = np.mean(along**2)
    ordered = np.sort(y[:, 0])
    below = np.searchsorted(pool, ordered, side="right") / len(pool)
    places = np.max(np.abs(below - (np.arange(len(y)) + 0.5) / len(y)))
    old_side = y[:, 0] > means[:, 0].mean()
    sides = []
    for mode, side in enumerate((old_side, ~old_side)):
        beside = y[side][:, 1:] - means[mode, 1:]
        sides.append(np.mean(np.sum(beside**2, axis=1)) if len(beside) >= _LEAST_SIDE else 0.0)
    nearer = np.min([np.sum((y - mean) ** 2, axis=1) for mean in means], axis=0)
    across = y[:, 1:] - y[:, 1:].mean(axis=0)
    widest = np.linalg.eigvalsh(across.T @ across / len(y))[-1] if y.shape[1] > 1 else 0.0
    return np.array(
        [
            np.sqrt(variance),
            np.mean(along**3) / variance**1.5,
            np.mean(along**4) / variance**2,
            places,
            *sides,
            widest,
            np.sqrt(np.quantile(nearer, 0.995)),
        ]
    )


def left_out_deviation(
    rest: Float[np.ndarray, "feature e"],
    references: tuple[np.ndarray, np.ndarray],
    weight: float,
    mean: Float[np.ndarray, "feature"],
    num: float,
) -> float:
    """Return how far the mean of a checkpoint lies from that of its mixture in what a projection leaves out.

    The squared distance, were nothing moved, is a sum of scaled chi-squared variables with mean tr(C) and
    variance 2 tr(C²), C the covariance of the means; returned is its distance from the mean in standard
    deviations, 0 where nothing is left out.

    Args:
        rest: directions that are left out.
        references: samples of the old and of the new task.
        weight: of the old mode.
        mean: of the checkpoint's samples.
        num: of the checkpoint's samples, or of independent ones that they are worth.
    """
    if not rest.shape[1]:
        return 0.0
    old, new = (y @ rest for y in references)
    shift = mean @ rest - weight * old.mean(0) - (1.0 - weight) * new.mean(0)
    gap = (old.mean(0) - new.mean(0))[:, None]
    within = weight * np.cov(old, rowvar=False) + (1.0 - weight) * np.cov(new, rowvar=False)
    covariance = (
        (within + weight * (1.0 - weight) * gap @ gap.T) / num
        + weight**2 * np.cov(old, rowvar=False) / len(old)
        + (1.0 - weight) ** 2 * np.cov(new, rowvar=False) / len(new)
    )
    covariance = np.atleast_2d(covariance)
    return float((shift @ shift - np.trace(covariance)) / np.sqrt(2.0 * np.sum(covariance**2)))


class Independence(NamedTuple):
    """Whether samples are independent of one another.

    Attributes:
        near_rows: log ratio of the distance between nearest samples to that of the references', its mean.
        near_rows_error: its standard error.
        lag_correlation: correlation of neighbours in the file, what their modes explain taken away.
        lag_correlation_error: its standard error were they independent.
    """

    near_rows: float
    near_rows_error: float
    lag_correlation: float
    lag_correlation_error: float


def independence_of(
    references: Sequence[Float[np.ndarray, "r d"]],
    weights: Sequence[float],
    y: Float[np.ndarray, "n d"],
    centred: Float[np.ndarray, "m c"],
    rng: np.random.Generator,
    prompts: tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m"]] | None = None,
) -> Independence:
    """Compare distances between nearest samples with the references', and neighbours in the file.

    Args:
        references: samples of every one.
        weights: of the modes.
        y: some of the samples, at random.
        centred: some that follow one another in the file, what their modes explain taken away.
        rng: picks reference samples.
        prompts: of both kinds of samples, where they have some: what is compared is then of two prompts.
    """
    sizes = np.array([len(r) / max(weight, 1e-6) for r, weight in zip(references, weights, strict=True)])
    num = int(min(len(y), sizes.min()))
    near, error = 0.0, np.inf
    if num >= 20:
        counts = np.round(np.asarray(weights) * num).astype(int)
        rows = [
            reference[rng.choice(len(reference), min(count, len(reference)), replace=False)]
            for reference, count in zip(references, counts, strict=True)
        ]
        of_prompts = None if prompts is None else prompts[0][:num]
        both = [_log_nearest(np.concatenate(rows)), _log_nearest(y[:num], of_prompts)]
        near = float(both[1].mean() - both[0].mean())
        error = float(np.sqrt(sum(b.var() / len(b) for b in both)))
    if len(centred) < 20:
        return Independence(near, error, 0.0, np.inf)
    products = np.sum(centred[1:] * centred[:-1], axis=1)
    if prompts is not None:
        products = products[prompts[1][1:] != prompts[1][:-1]]
        if len(products) < 20:
            return Independence(near, error, 0.0, np.inf)
    power = np.mean(np.sum(centred**2, axis=1))
    return Independence(
        near,
        error,
        float(products.mean() / power),
        float(products.std() / np.sqrt(len(products)) / power),
    )


def _log_nearest(y: np.ndarray, prompts: np.ndarray | None = None) -> np.ndarray:
    """Return the log distance of every sample to the nearest other one, of another prompt if known."""
    if prompts is None:
        distance = cKDTree(y).query(y, k=2)[0][:, 1]
    else:
        apart = np.where(prompts[:, None] == prompts, np.inf, cdist(y, y))
        distance = apart.min(axis=1)
        distance = distance[np.isfinite(distance)]
        if not len(distance):
            return np.zeros(len(y))
    result: np.ndarray = np.log(np.maximum(distance, 1e-9 * max(distance.max(), 1e-300)))
    return result


def without_modes(references: References, y: np.ndarray) -> np.ndarray:
    """Return samples less the mean of their side of the middle: a file may hold one side after the other."""
    old_side = y[:, 0] > 0.5 * references.means[:, 0].sum()
    centred = y.copy()
    for side in (old_side, ~old_side):
        if side.any():
            centred[side] -= y[side].mean(axis=0)
    # Where modes overlap the first coordinate tells which side of the middle a sample is on.
    return centred[:, 1:] if y.shape[1] > 1 else centred
