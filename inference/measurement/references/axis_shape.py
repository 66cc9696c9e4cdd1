"""The shape of each mode along the axis: at most three Gaussians, as many as the references show.

What tells samples apart is where they lie along the axis between the references. There a mode need not be
Gaussian: it has the density that its reference shows, moved with the mode.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mixture_models.types import AnyArray

_MOST_COMPONENTS = 3

# Samples that are fitted one by one; more are put together, but for this many at either end.
_MOST_POINTS, _ENDS = 240, 40

# Of a component: its least standard deviation, in those of all, and what it holds at least beyond its data.
_LEAST_SCALE, _PSEUDO_COUNT = 0.1, 1.0

_STEPS, _STEPS_OF_DRAWS = 100, 25


class AxisShape(NamedTuple):
    """Densities of s, the coordinate along the axis, around each mode's mean; a pytree.

        g_k(s) = Σ_c exp(log_weight) N(s; location, scale²),   with mean 0

    Attributes:
        log_weight: shape (2, component); -inf for a component that a mode does not have.
        location: shape (2, component).
        scale: shape (2, component).
    """

    log_weight: Float[AnyArray, "2 c"]
    location: Float[AnyArray, "2 c"]
    scale: Float[AnyArray, "2 c"]


def fit_axis_shape(
    along: list[Float[np.ndarray, "n"]],
    weights: list[Float[np.ndarray, "R n"]],
    worths: list[float] | None = None,
) -> AxisShape:
    """Return R fits of the shapes, leaves of shape (R, 2, component).

    Each is by maximum likelihood of weighted samples; the number of components is chosen by BIC for every
    fit by itself, so that what the references cannot decide differs between them.

    Args:
        along: residuals along the axis, of the old and of the new reference, or of one alone.
        weights: of these residuals, each row of mean 1.
        worths: how many independent residuals each is worth, None for all.
    """
    counts = list(map(len, along)) if worths is None else worths
    modes = [_fit(x, w, count) for x, w, count in zip(along, weights, counts, strict=True)]
    shape = AxisShape(*(np.stack(parts, axis=1) for parts in zip(*modes, strict=True)))
    used = int(np.isfinite(shape.log_weight).sum(axis=-1).max())
    return AxisShape(*(part[..., :used] for part in shape))


def _fit(x: np.ndarray, weights: np.ndarray, count: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, weights = _condensed(x, weights)
    mean = (weights @ x) / weights.sum(axis=1)
    sd = np.sqrt((weights @ x**2) / weights.sum(axis=1) - mean**2)
    middle = weights.mean(axis=0, keepdims=True)
    best: list[list[np.ndarray]] = [[]] * len(weights)
    lowest = np.full(len(weights), np.inf)
    for size in range(1, _MOST_COMPONENTS + 1):
        starts = _starts(x, size)
        repeated = np.repeat(middle, len(starts[0]), axis=0)
        central, heights = _climb(x, repeated, starts, sd.mean(), _STEPS if size > 1 else 1)
        best_start = int(np.argmax(heights))
        every = tuple(np.repeat(part[best_start][None], len(weights), axis=0) for part in central)
        fitted, height = _climb(x, weights, every, sd.mean(), _STEPS_OF_DRAWS if size > 1 else 1)
        criterion = (3 * size - 1) * np.log(count) - 2.0 * height
        for r in map(int, np.flatnonzero(criterion < lowest)):
            lowest[r], best[r] = criterion[r], [part[r] for part in fitted]
    shape = len(weights), _MOST_COMPONENTS
    logs, locations, scales = np.full(shape, -np.inf), np.zeros(shape), np.ones(shape)
    for r, (share, location, scale) in enumerate(best):
        size = len(share)
        logs[r, :size] = np.log(share)
        locations[r, :size] = location - share @ location
        scales[r, :size] = scale
    return logs, locations, scales


def _condensed(x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put neighbours together where there are many, with their weights; the ends stay as they are."""
    order = np.argsort(x, kind="stable")
    x, weights = x[order], weights[:, order]
    if len(x) <= _MOST_POINTS:
        return x, weights
    inner = np.linspace(_ENDS, len(x) - _ENDS, _MOST_POINTS - 2 * _ENDS + 1).astype(int)
    starts = np.concatenate([np.arange(_ENDS), inner[:-1], np.arange(len(x) - _ENDS, len(x))])
    sums = np.add.reduceat(weights, starts, axis=1)
    return np.add.reduceat(x, starts) / np.diff(np.append(starts, len(x))), sums


def _starts(x: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return starts of the climb: parts of the sorted samples, narrow within wide, a tail of either side."""
    parts, sd = np.array_split(x, size), x.std()
    locations = [[part.mean() for part in parts]]
    scales = [[max(part.std(), _LEAST_SCALE * sd) for part in parts]]
    if size > 1:
        for end, factor in ((0.5, 1.0), (0.15, 0.8), (0.85, 0.8)):
            locations.append(list(np.linspace(np.median(x), np.quantile(x, end), size)))
            scales.append(list(sd * factor * np.geomspace(0.6, 1.8, size)))
    return np.full((len(locations), size), 1.0 / size), np.array(locations), np.array(scales)


def _climb(
    x: np.ndarray, weights: np.ndarray, start: tuple[np.ndarray, ...], sd: float, steps: int
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Return shares, locations and scales after EM steps, each (R, component), and the log-likelihoods."""
    share, location, scale = start
    height = np.full(len(weights), -np.inf)
    floor = (_LEAST_SCALE * sd) ** 2
    for step in range(steps + 1):
        z = (x[None, :, None] - location[:, None]) / scale[:, None]
        logs = np.log(share / scale)[:, None] - 0.5 * z**2
        top = logs.max(axis=-1, keepdims=True)
        dense = np.exp(logs - top)
        total = dense.sum(axis=-1, keepdims=True)
        before, height = height, np.sum(weights * (top + np.log(total))[..., 0], axis=1)
        height = height - 0.5 * np.log(2.0 * np.pi) * weights.sum(axis=1)
        if step == steps or np.all(np.abs(height - before) < 1e-4):
            break
        held = weights[..., None] * dense / total
        mass = held.sum(axis=1)
        location = np.einsum("rnc,n->rc", held, x) / np.maximum(mass, 1e-300)
        second = np.einsum("rnc,rnc->rc", held, (x[None, :, None] - location[:, None]) ** 2)
        scale = np.sqrt((second + _PSEUDO_COUNT * floor) / (mass + _PSEUDO_COUNT))
        scale = np.maximum(scale, np.sqrt(floor))
        share = (mass + _PSEUDO_COUNT) / (mass + _PSEUDO_COUNT).sum(axis=1, keepdims=True)
    return (share, location, scale), height


def log_density(shape: AxisShape, mode: int, s: Float[AnyArray, "*n"]) -> Float[AnyArray, "*n"]:
    """Return log g_k at some values of s, of one fit; arrays of NumPy or of JAX."""
    xp = s.__array_namespace__()
    log_weight, location, scale = (part[mode] for part in shape)
    logs = log_weight - xp.log(scale) - 0.5 * ((s[..., None] - location) / scale) ** 2
    top = logs.max(axis=-1)
    return top + xp.log(xp.sum(xp.exp(logs - top[..., None]), axis=-1)) - 0.5 * np.log(2.0 * np.pi)
