"""Cases for the calibration of `inference.measure`: checkpoints, references, and what is true of them.

Most are built by `two_modes` in whitened coordinates and mixed by a random matrix; the others split real
labelled data.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from sklearn import datasets
from sklearn.decomposition import PCA

from benchmarks.calibration_modes import Mode, Shape, beside, gaussian, rotation, sometimes

#: Least and most of what is drawn uniformly.
Range = tuple[float, float]


class Case(NamedTuple):
    """Simulated checkpoints of one run with their references, and what is true of each checkpoint.

    Attributes:
        samples: of each checkpoint, shape (sample, feature).
        old: reference of the old task, shape (sample, feature).
        new: reference of the new task, shape (sample, feature).
        old_weights: share of the old task among all samples, in the law of each checkpoint.
        old_displacements: of the old mode from the mean of its task on the day of the references, of each
            checkpoint, shape (feature,); None where it is not defined.
        new_displacements: of the new mode, likewise.
        lengths: of both displacements in the metric of each mode's reference [Mahalanobis], or None.
        num_old: samples of the old task that were drawn, of each checkpoint.
        num_independent: independent samples that hold as much on the old weight as the samples do.
        on_model: whether the measurement's model holds.
    """

    samples: list[Float[np.ndarray, "sample feature"]]
    old: Float[np.ndarray, "sample feature"]
    new: Float[np.ndarray, "sample feature"]
    old_weights: list[float]
    old_displacements: list[Float[np.ndarray, "feature"] | None]
    new_displacements: list[Float[np.ndarray, "feature"] | None]
    lengths: list[tuple[float, float] | None]
    num_old: list[int]
    num_independent: list[float]
    on_model: bool


class Copies(NamedTuple):
    """How often every row occurs, from ``least`` to ``most``, how far off, and whether rows are shuffled."""

    least: int
    most: int
    jitter: float = 0.0
    shuffled: bool = False


# Of correlated samples: how many a prompt, the share of variance that they have in common, and the
# concentration c of the Beta law of a prompt's share; the correlation of their modes is 1/(c+1).
_PROMPT_SIZE, _PROMPT_VARIANCE, _PROMPT_CONCENTRATION = 5, 0.5, 2.0


class Recipe(NamedTuple):
    """How a case of two modes is drawn.

    Attributes:
        dimension: d.
        separation: range of δ.
        old_weights: range of β, of each checkpoint; less the third behaviour's share it is the old weight.
        num_samples: of each checkpoint.
        num_references: of the old and of the new reference.
        old: law of the old mode.
        new: law of the new mode.
        move: draws both displacements, of each checkpoint.
        spread: how much wider the old and the new mode are in the checkpoints than in the references.
        third: share and place of a third behaviour of the checkpoints.
        contamination: share of the other task's samples in the old and in the new reference.
        reference_shift: length by which all references are shifted in a random direction.
        reference_drift: by which the references' variances are larger or smaller, each to a random side.
        lost: whether all clusters of the old mode but one are lost in the checkpoints.
        copies: of the checkpoints' rows.
        reference_copies: of the references' rows.
        correlated: whether every five samples of a checkpoint have a prompt in common.
        scales: range of the singular values of the mixing matrix, log-uniform.
        features: what is done to the features after mixing; nothing may move then.
    """

    dimension: int = 8
    separation: Range = (2.7, 3.3)
    old_weights: tuple[Range, ...] = ((0.1, 0.9),)
    num_samples: int = 1000
    num_references: tuple[int, int] = (500, 500)
    old: Shape = gaussian
    new: Shape = gaussian
    move: Callable[[np.random.Generator, np.ndarray], np.ndarray] = sometimes
    spread: tuple[float, float] = (1.0, 1.0)
    third: tuple[float, Callable[..., np.ndarray]] = (0.0, beside)
    contamination: tuple[float, float] = (0.0, 0.0)
    reference_shift: float = 0.0
    reference_drift: float = 0.0
    lost: bool = False
    copies: Copies = Copies(1, 1)
    reference_copies: Copies = Copies(1, 1)
    correlated: bool = False
    scales: Range = (1.0 / 3.0, 3.0)
    features: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]] | None = None


class _Law(NamedTuple):
    """What all checkpoints and references of a case share, in whitened coordinates.

    Attributes:
        modes: old and new.
        axis: unit vector from the old mode to the new one.
        means: of both tasks, shape (2, d).
        shift: of the references, shape (d,).
        drift: what the references' samples are multiplied by around their mean, shape (d, d).
    """

    modes: tuple[Mode, Mode]
    axis: np.ndarray
    means: np.ndarray
    shift: np.ndarray
    drift: np.ndarray


class _Rows(NamedTuple):
    """Samples, shape (sample, d), and which of them are old, shape (sample,)."""

    y: Float[np.ndarray, "sample d"]
    old: Bool[np.ndarray, "sample"]


def two_modes(rng: np.random.Generator, recipe: Recipe, on_model: bool) -> Case:
    """Draw a case of two modes with a random axis and a random mixing matrix."""
    law, d = _law(rng, recipe), recipe.dimension
    mixing = rotation(rng, d) * np.exp(rng.uniform(np.log(recipe.scales[0]), np.log(recipe.scales[1]), d))
    old, new = (_reference(rng, recipe, law, own) @ mixing.T for own in (0, 1))
    seen = _unchanged if recipe.features is None else recipe.features(np.concatenate([old, new]))
    case = Case([], seen(old), seen(new), [], [], [], [], [], [], on_model)
    for bounds in recipe.old_weights:
        weight, by = float(rng.uniform(*bounds)), _displacements(rng, recipe, law)
        rows = _with_third(rng, recipe, law, _checkpoint(rng, recipe, law, weight, law.means + by))
        places = _places(rng, recipe.copies, recipe.num_samples)
        case.samples.append(seen(_copied(rng, recipe.copies, rows.y[places]) @ mixing.T))
        case.old_weights.append(weight * (1.0 - recipe.third[0]))
        case.num_old.append(int(rows.old[places].sum()))
        case.num_independent.append(_num_independent(recipe, places))
        told = (by - law.shift) @ mixing.T
        case.old_displacements.append(None if recipe.lost else told[0])
        case.new_displacements.append(told[1])
        case.lengths.append(None if recipe.lost else _lengths(by - law.shift, law))
    return case


def _unchanged(y: np.ndarray) -> np.ndarray:
    return y


def _law(rng: np.random.Generator, recipe: Recipe) -> _Law:
    """Draw what checkpoints and references share."""
    d = recipe.dimension
    axis, shift = rng.standard_normal((2, d))
    axis /= np.linalg.norm(axis)
    means = np.stack([np.zeros(d), rng.uniform(*recipe.separation) * axis])
    variances = 1.0 + recipe.reference_drift * rng.choice([-1.0, 1.0], d)
    q = rotation(rng, d)
    return _Law(
        (recipe.old(rng, axis), recipe.new(rng, axis)),
        axis,
        means,
        recipe.reference_shift * shift / np.linalg.norm(shift),
        (q * np.sqrt(variances)) @ q.T,
    )


def _reference(rng: np.random.Generator, recipe: Recipe, law: _Law, own: int) -> np.ndarray:
    """Draw the reference of the old task (0) or the new one (1)."""
    num = recipe.num_references[own]
    which = np.where(rng.uniform(size=num) < recipe.contamination[own], 1 - own, own)
    noise = _either(which == 0, law.modes[0].sample(rng, num), law.modes[1].sample(rng, num))
    y = law.means[which] + noise @ law.drift.T + law.shift
    return _copied(rng, recipe.reference_copies, y[_places(rng, recipe.reference_copies, num)])


def _either(is_old: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return rows of the one or of the other."""
    return np.where(is_old[:, None], old, new)


def _displacements(rng: np.random.Generator, recipe: Recipe, law: _Law) -> np.ndarray:
    """Draw displacements that leave both modes on their own side of the middle, shape (2, d)."""
    middle = 0.5 * np.linalg.norm(law.means[1])
    while True:
        by = recipe.move(rng, law.axis)
        # Beyond the middle a mode is the other task's by definition.
        if max(by[0] @ law.axis, -by[1] @ law.axis) <= middle:
            return by


def _checkpoint(
    rng: np.random.Generator, recipe: Recipe, law: _Law, weight: float, means: np.ndarray
) -> _Rows:
    """Draw the samples of a checkpoint whose modes have these means."""
    num, (old, new) = recipe.num_samples, law.modes
    if recipe.correlated:
        is_old = rng.uniform(size=num) < _prompt_shares(rng, weight, num)
        noise = _either(is_old, _of_prompts(rng, old, num), _of_prompts(rng, new, num))
    else:
        is_old = rng.uniform(size=num) < weight
        sample = old.left if recipe.lost and old.left is not None else old.sample
        noise = _either(is_old, sample(rng, num), new.sample(rng, num))
    which = np.where(is_old, 0, 1)
    return _Rows(means[which] + np.array(recipe.spread)[which, None] * noise, is_old)


def _prompt_shares(rng: np.random.Generator, weight: float, num: int) -> np.ndarray:
    """Draw the old share of every sample's prompt."""
    c = _PROMPT_CONCENTRATION
    shares = rng.beta(c * weight, c * (1.0 - weight), -(-num // _PROMPT_SIZE))
    return np.repeat(shares, _PROMPT_SIZE)[:num]


def _of_prompts(rng: np.random.Generator, mode: Mode, num: int) -> np.ndarray:
    """Draw samples around a mode's mean of which every five have a part in common."""
    common = np.repeat(mode.sample(rng, -(-num // _PROMPT_SIZE)), _PROMPT_SIZE, axis=0)[:num]
    return np.sqrt(_PROMPT_VARIANCE) * common + np.sqrt(1.0 - _PROMPT_VARIANCE) * mode.sample(rng, num)


def _with_third(rng: np.random.Generator, recipe: Recipe, law: _Law, rows: _Rows) -> _Rows:
    """Replace a share of the samples by a third behaviour's."""
    share, place = recipe.third
    strange = rng.uniform(size=len(rows.y)) < share
    where = place(rng, law.axis, float(np.linalg.norm(law.means[1])))
    third = where + rng.standard_normal(rows.y.shape)
    return _Rows(_either(strange, third, rows.y), rows.old & ~strange)


def _places(rng: np.random.Generator, copies: Copies, num: int) -> np.ndarray:
    """Return which distinct row each of some rows is a copy of."""
    # The last ones are cut.
    places = np.repeat(np.arange(num), rng.integers(copies.least, copies.most + 1, num))[:num]
    return rng.permutation(places) if copies.shuffled else places


def _copied(rng: np.random.Generator, copies: Copies, y: np.ndarray) -> np.ndarray:
    """Return copies as far off each other as they are to be."""
    return y + copies.jitter * rng.standard_normal(y.shape)


def _num_independent(recipe: Recipe, places: np.ndarray) -> float:
    """Return how many independent samples hold as much on the old weight."""
    distinct = len(places) ** 2 / float(np.sum(np.bincount(places) ** 2))
    if not recipe.correlated:
        return distinct
    return distinct / (1.0 + (_PROMPT_SIZE - 1.0) / (_PROMPT_CONCENTRATION + 1.0))


def _lengths(by: np.ndarray, law: _Law) -> tuple[float, float] | None:
    """Return lengths of displacements in the metric of the references [Mahalanobis], or None."""
    old, new = (mode.root for mode in law.modes)
    if old is None or new is None:
        return None
    lengths = [np.linalg.norm(np.linalg.solve(law.drift @ r, b)) for r, b in zip((old, new), by, strict=True)]
    return float(lengths[0]), float(lengths[1])


def labelled(
    rng: np.random.Generator, load: Callable[[], tuple[np.ndarray, np.ndarray]], num_samples: int
) -> Case:
    """Draw a case of real data: at random one half are references, from the other a checkpoint is drawn.

    Args:
        rng: splits the data and draws the share.
        load: returns samples, shape (sample, feature), and which of them are old.
        num_samples: of the checkpoint, at most as many as the half of either task.
    """
    y, old = load()
    halves = []
    for rows in (np.flatnonzero(old), np.flatnonzero(~old)):
        rows = rng.permutation(rows)
        halves.append((y[rows[: len(rows) // 2]], y[rows[len(rows) // 2 :]]))
    weight = float(rng.uniform(0.1, 0.9))
    num_old = int(rng.binomial(num_samples, weight))
    # Without replacement: rows are then as independent as those of the data.
    rows = np.concatenate([halves[0][1][:num_old], halves[1][1][: num_samples - num_old]])
    still = np.zeros(y.shape[1])
    return Case(
        [rng.permutation(rows)],
        halves[0][0],
        halves[1][0],
        [weight],
        [still],
        [still],
        [(0.0, 0.0)],
        [num_old],
        [float(num_samples)],
        False,
    )


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return images of digits in 12 principal components; old are 0 to 4."""
    y, label = datasets.load_digits(return_X_y=True)
    return PCA(12, random_state=0).fit_transform(y), label <= 4


@functools.cache
def wine() -> tuple[np.ndarray, np.ndarray]:
    """Return wines by 13 standardised features; old are those of the second of three classes."""
    y, label = datasets.load_wine(return_X_y=True)
    return (y - y.mean(axis=0)) / y.std(axis=0), label == 1


@functools.cache
def breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    """Return tumours by 30 standardised features; old are the benign ones."""
    y, label = datasets.load_breast_cancer(return_X_y=True)
    return (y - y.mean(axis=0)) / y.std(axis=0), label == 1
