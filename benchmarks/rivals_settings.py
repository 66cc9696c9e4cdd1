"""Checkpoints on which `benchmarks.rivals` holds `inference.measure` against other methods.

Of the weight: cases of `calibration_cases`, whose checkpoints have old weights of 0.1, 0.3 and 0.7. Of what
changed: worlds, in each of which a model is post-trained in five ways. Features have unit variance in a
mode, so that distances and classifiers that depend on the scale of features see them at their best.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from benchmarks.calibration_cases import Recipe
from benchmarks.calibration_modes import lognormal, student, unmoved

Samples = Float[np.ndarray, "sample feature"]

#: Old weights of a case's checkpoints.
WEIGHTS = (0.1, 0.3, 0.7)

_DIMENSION = 8


class Setting(NamedTuple):
    """A kind of checkpoints: its name, how it is drawn, and whether a third behaviour may be asked for."""

    name: str
    recipe: Recipe
    third: bool = False


def _toward(rng: np.random.Generator, axis: np.ndarray) -> np.ndarray:
    """Return displacements of both modes: the old one by 1 toward the new one."""
    return np.stack([axis, np.zeros_like(axis)])


def _across(rng: np.random.Generator, axis: np.ndarray) -> np.ndarray:
    """Draw displacements of both modes: the old one by 1 across the axis."""
    return np.stack([_orthogonal(rng, axis), np.zeros_like(axis)])


def _orthogonal(rng: np.random.Generator, axis: np.ndarray) -> np.ndarray:
    direction = rng.standard_normal(len(axis))
    direction -= (direction @ axis) * axis
    return direction / np.linalg.norm(direction)


def _setting(
    name: str, separation: float, move: Callable[..., np.ndarray] = unmoved, **changes: Any
) -> Setting:
    recipe = Recipe(
        dimension=_DIMENSION,
        separation=(separation, separation),
        old_weights=tuple((weight, weight) for weight in WEIGHTS),
        move=move,
        scales=(1.0, 1.0),
        **changes,
    )
    return Setting(name, recipe, recipe.third[0] > 0.0)


def _shapes(shape: Callable[..., Any], **values: Any) -> dict[str, Any]:
    return dict.fromkeys(("old", "new"), functools.partial(shape, **values))


def _settings() -> tuple[Setting, ...]:
    moves = (("nothing moved", unmoved), ("old moved toward new", _toward), ("old moved across", _across))
    skewed, heavy = _shapes(lognormal, sigma=0.6), _shapes(student, dof=3.0)
    third = Recipe().third[1]
    return (
        *(_setting(f"δ = {s:g}, {name}", s, move) for s in (4.0, 2.5) for name, move in moves),
        _setting("log-normal, nothing moved", 3.0, **skewed),
        _setting("log-normal, old moved toward new", 3.0, _toward, **skewed),
        _setting("Student-t 3, nothing moved", 3.0, **heavy),
        _setting("Student-t 3, old moved toward new", 3.0, _toward, **heavy),
        _setting("references of 50, nothing moved", 3.0, num_references=(50, 50)),
        _setting("references of 50, old moved toward new", 3.0, _toward, num_references=(50, 50)),
        _setting("100 samples, nothing moved", 3.0, num_samples=100),
        _setting("100 samples, old moved toward new", 3.0, _toward, num_samples=100),
        _setting("third behaviour, 10 %", 3.0, third=(0.1, third)),
    )


SETTINGS = _settings()

#: What post-training did, in a world.
CHANGES = ("nothing", "mass", "drift toward new", "drift across", "both")

# Old weight before post-training, samples of a reference and of a model, and what post-training takes from
# the weight and how far it moves the old mode, uniformly drawn.
_START, _REFERENCE, _SAMPLES, _LOST, _LENGTH = 0.8, 500, 500, (0.03, 0.2), (0.2, 0.9)


class World(NamedTuple):
    """Samples of a model before post-training and after each of `CHANGES`, and of both tasks."""

    before: Samples
    after: dict[str, Samples]
    old: Samples
    new: Samples


def world(separation: float, rng: np.random.Generator) -> World:
    """Draw a world of two Gaussian modes at this distance [Mahalanobis]."""
    axis = rng.standard_normal(_DIMENSION)
    axis /= np.linalg.norm(axis)

    def mode(mean: np.ndarray | float, num: int) -> Samples:
        return mean + rng.standard_normal((num, _DIMENSION))

    def model(weight: float, displacement: np.ndarray | float) -> Samples:
        is_old = rng.uniform(size=_SAMPLES) < weight
        return np.where(is_old[:, None], mode(displacement, _SAMPLES), mode(separation * axis, _SAMPLES))

    after = {}
    for change in CHANGES:
        lost, length = rng.uniform(*_LOST), rng.uniform(*_LENGTH)
        direction = _orthogonal(rng, axis) if change == "drift across" else axis
        after[change] = model(
            _START - lost * (change in ("mass", "both")),
            length * ("drift" in change or change == "both") * direction,
        )
    return World(model(_START, 0.0), after, mode(0.0, _REFERENCE), mode(separation * axis, _REFERENCE))
