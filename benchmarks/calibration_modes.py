"""Laws of modes and what happens to them, in whitened coordinates: shapes, displacements, a third behaviour.

Modes have zero mean before they are placed. What a calibration draws of them is in `calibration_cases`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special


class Mode(NamedTuple):
    """The law of a mode around its mean, in whitened coordinates.

    Attributes:
        sample: draws samples from a generator and their number, shape (sample, d).
        root: a matrix R whose R Rᵀ is the mode's scatter, or None where no length is to be told.
        left: draws samples of what is left when all clusters but one are lost, or None.
    """

    sample: Callable[[np.random.Generator, int], np.ndarray]
    root: np.ndarray | None
    left: Callable[[np.random.Generator, int], np.ndarray] | None = None


#: Draws the law of a mode from a generator and the axis, a unit vector from the old mode to the new one.
Shape = Callable[[np.random.Generator, np.ndarray], Mode]


def rotation(rng: np.random.Generator, d: int) -> np.ndarray:
    """Draw an orthogonal matrix."""
    q, r = np.linalg.qr(rng.standard_normal((d, d)))
    return q * np.sign(np.diag(r))


def gaussian(rng: np.random.Generator, axis: np.ndarray, scale: float = 1.0) -> Mode:
    """Return a Gaussian mode of this standard deviation."""
    d = len(axis)
    return Mode(lambda r, num: scale * r.standard_normal((num, d)), scale * np.eye(d))


def student(rng: np.random.Generator, axis: np.ndarray, dof: float) -> Mode:
    """Return a Student-t mode of unit scatter."""
    d = len(axis)

    def sample(r: np.random.Generator, num: int) -> np.ndarray:
        return r.standard_normal((num, d)) / np.sqrt(r.chisquare(dof, (num, 1)) / dof)

    return Mode(sample, np.eye(d))


def lognormal(rng: np.random.Generator, axis: np.ndarray, sigma: float) -> Mode:
    """Return a mode whose coordinates are log-normal, standardised, each skewed to a random side."""
    sign = rng.choice([-1.0, 1.0], len(axis))
    mean, sd = np.exp(0.5 * sigma**2), np.sqrt(np.expm1(sigma**2) * np.exp(sigma**2))

    def sample(r: np.random.Generator, num: int) -> np.ndarray:
        return sign * (np.exp(sigma * r.standard_normal((num, len(sign)))) - mean) / sd

    return Mode(sample, np.eye(len(axis)))


def gamma(rng: np.random.Generator, axis: np.ndarray, shape: float) -> Mode:
    """Return a mode whose coordinates are gamma, standardised, each skewed to a random side."""
    sign = rng.choice([-1.0, 1.0], len(axis))

    def sample(r: np.random.Generator, num: int) -> np.ndarray:
        return sign * (r.gamma(shape, size=(num, len(sign))) - shape) / np.sqrt(shape)

    return Mode(sample, np.eye(len(axis)))


def one_sided(rng: np.random.Generator, axis: np.ndarray, side: float, dof: float = 3.0) -> Mode:
    """Return a Gaussian mode, but with a Student-t tail along the axis, toward the new task if side is 1."""
    heavy = np.sqrt(dof / np.pi) * 2.0 / (dof - 1.0) * special.poch(0.5 * dof, 0.5)
    mean = 0.5 * (heavy - np.sqrt(2.0 / np.pi))
    sd = np.sqrt(0.5 * (dof / (dof - 2.0) + 1.0) - mean**2)

    def sample(r: np.random.Generator, num: int) -> np.ndarray:
        y = r.standard_normal((num, len(axis)))
        light, t = np.abs(r.standard_normal(num)), np.abs(r.standard_t(dof, num))
        along = side * (np.where(r.uniform(size=num) < 0.5, t, -light) - mean) / sd
        return y + (along - y @ axis)[:, None] * axis

    return Mode(sample, np.eye(len(axis)))


def clusters(
    rng: np.random.Generator, axis: np.ndarray, num: int, radius: float, across: bool = False
) -> Mode:
    """Return equally many samples of clusters of unit scatter, their mean in the middle.

    Args:
        rng: draws where the clusters lie.
        axis: from the old mode to the new one.
        num: of clusters.
        radius: their distance from the mode's mean, root mean square.
        across: whether they lie across the axis only.
    """
    centres = rng.standard_normal((num, len(axis)))
    if across:
        centres -= (centres @ axis)[:, None] * axis
    centres -= centres.mean(axis=0)
    centres *= radius / np.sqrt(np.mean(np.sum(centres**2, axis=1)))

    def sample(r: np.random.Generator, n: int) -> np.ndarray:
        return centres[r.integers(num, size=n)] + r.standard_normal((n, len(axis)))

    def left(r: np.random.Generator, n: int) -> np.ndarray:
        return centres[0] + r.standard_normal((n, len(axis)))

    return Mode(sample, None, left)


def anisotropic(rng: np.random.Generator, axis: np.ndarray, ratio: float = 3.0) -> Mode:
    """Return a Gaussian mode of random orientation, its standard deviations up to this ratio apart."""
    d = len(axis)
    root = rotation(rng, d) * ratio ** rng.permutation(np.linspace(-0.5, 0.5, d))
    return Mode(lambda r, num: r.standard_normal((num, d)) @ root.T, root)


# --- Displacements of both modes, shape (2, d).


def unmoved(rng: np.random.Generator, axis: np.ndarray) -> np.ndarray:
    """Return no displacement."""
    return np.zeros((2, len(axis)))


def moved(rng: np.random.Generator, axis: np.ndarray) -> np.ndarray:
    """Draw displacements of random direction and a length between 0.3 and 1."""
    directions = rng.standard_normal((2, len(axis)))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True) * rng.uniform(0.3, 1.0, (2, 1))


def moved_along(rng: np.random.Generator, axis: np.ndarray) -> np.ndarray:
    """Draw displacements along the axis, to either side, of a length between 0.3 and 1."""
    return rng.choice([-1.0, 1.0], (2, 1)) * rng.uniform(0.3, 1.0, (2, 1)) * axis


def sometimes(rng: np.random.Generator, axis: np.ndarray) -> np.ndarray:
    """Draw displacements as `moved` does, either one with probability 1/2; else none."""
    return moved(rng, axis) * (rng.uniform(size=(2, 1)) < 0.5)


# --- Where a third behaviour lies.


def beside(rng: np.random.Generator, axis: np.ndarray, separation: float) -> np.ndarray:
    """Return a place 4 off the middle between the modes, across the axis."""
    across = rng.standard_normal(len(axis))
    across -= (across @ axis) * axis
    return 0.5 * separation * axis + 4.0 * across / np.linalg.norm(across)


def beyond(rng: np.random.Generator, axis: np.ndarray, separation: float) -> np.ndarray:
    """Return a place on the axis, 4 beyond either mode."""
    return (separation + 4.0 if rng.uniform() < 0.5 else -4.0) * axis


# --- What is done to features: from the references of both tasks to a map of samples.


def quantised(references: np.ndarray, levels: int = 8) -> Callable[[np.ndarray], np.ndarray]:
    """Return what rounds each feature to equally spaced levels over ±2.5 standard deviations."""
    mean, sd = references.mean(axis=0), references.std(axis=0)
    step = 5.0 * sd / (levels - 1)
    return lambda y: (
        mean + step * (np.clip(np.rint((y - mean) / step - 0.5), -levels / 2, levels / 2 - 1) + 0.5)
    )


def clipped(references: np.ndarray, tail: float = 0.1) -> Callable[[np.ndarray], np.ndarray]:
    """Return what clips each feature at these quantiles of the references."""
    low, high = np.quantile(references, [tail, 1.0 - tail], axis=0)
    return lambda y: np.clip(y, low, high)
