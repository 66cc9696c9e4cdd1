"""How well so many items and answers would measure a run: the expected information of the cells.

The information of one item on x = (task's scores, δ, τ², m) is the expected outer product of the slopes of
its cell's log probability. Near the truth the log-likelihood of N items is then g·d - d·(N I)·d / 2 with
d = x - x₀ and g ~ N(0, N I). The posterior is this times the prior, which keeps m and τ at or above 0: δ and
the task's scores are normal given (m, τ), and the rest is a sum over points of (√m, τ). τ² and m move the
cells in proportion even at 0, where the posterior of m is half of a normal law, and not a normal one; of m a
scale is used on which its information is constant.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.ndimage import map_coordinates, spline_filter
from scipy.special import ndtri

from inference.intervals import interval_kind, interval_probability
from inference.measurement.evals.derived import derive
from inference.measurement.evals.item_integral import (
    Patterns,
    Run,
    log_base,
    log_cells,
    log_multiplicity,
    patterns_of,
)
from inference.measurement.evals.likelihood import compiled
from inference.measurement.evals.prior import DRIFT_SCALE, LOGISTIC_VARIANCE, run_of, task_of, task_scores_of

#: Answers an item at most that are planned with.
MOST_ANSWERS = 32

#: What can be planned for, by the name of its draws: its value where nothing is lost, and the sign of a loss.
QUANTITIES = {
    "old_weight": (1.0, -1.0),
    "drift": (0.0, -1.0),
    "lost": (0.0, 1.0),
    "accuracy_change": (0.0, -1.0),
}

# Where τ = 0 its slope is, and where m = 0 a sure item's answers are, a limit: they are taken this far away.
_LEAST_SPREAD, _LEAST_MASS = 0.05, 1e-4

# By what coordinates are moved for their slopes.
_MOVE = 1e-3

# Data sets that are averaged over, points of each posterior with values at each, and the largest τ of them.
_NUM_DATA, _NUM_POINTS, _NUM_EVEN, _MOST_SPREAD = 128, 1024, 4, 8.0

# Of a task: a guess rate of exactly 0 or 1/k is none that the prior holds likely.
_MOST_SCORE = 3.0

# Standard deviations around the truth in which points lie.
_REACH = 5.0


class Truth(NamedTuple):
    """What is supposed of a run while it is planned.

    Attributes:
        task_scores: of the task, as `prior.task_of` reads them.
        inverse_choices: 1/k, 0 for free answers.
        mass_lost: m.
        drift: δ.
        drift_spread: τ.
    """

    task_scores: Float[np.ndarray, "3"]
    inverse_choices: float
    mass_lost: float = 0.0
    drift: float = 0.0
    drift_spread: float = 0.0


_compiled_scores = compiled(task_scores_of)


def truth_of(
    item_mean: float, item_sd: float, guess_rate: float, num_choices: int | None, *run: float
) -> Truth:
    """Return what is supposed of the items' logits, N(μ, σ²), of the guess rate and of the run, (m, δ, τ)."""
    inverse_choices = 1.0 / num_choices if num_choices else 0.0
    share = guess_rate * num_choices if num_choices else 1.0
    location = item_mean / np.hypot(item_sd, np.sqrt(LOGISTIC_VARIANCE))
    scores = _compiled_scores(*map(np.asarray, (location, np.log(item_sd), share)))
    return Truth(np.clip(scores, -_MOST_SCORE, _MOST_SCORE), inverse_choices, *run)


class Expected(NamedTuple):
    """What the posterior of a quantity will be like.

    Attributes:
        width: mean width of its interval, of ArviZ's kind and probability.
        power: probability that the interval lies beyond the region of practical equivalence, on the side of
            a loss.
        sd: standard deviation, over data sets, of the posterior mean.
    """

    width: float
    power: float
    sd: float


@compiled
def _information(
    coordinates: Float[Array, "6"], base: Patterns, answers: Patterns, real: Float[Array, "b r"]
) -> Float[Array, "6 6"]:
    """Return the information by central differences, which compile in half the time of derivatives."""
    of_base, of_run = (a.ravel() for a in jnp.indices(real.shape))
    many = log_multiplicity(base)[of_base] + log_multiplicity(answers)[of_run]

    def cells(x: Array) -> Array:
        task, run = task_of(x[:3]), Run(x[5], x[3], jnp.sqrt(x[4]))
        of_cells = log_cells(task, run, base, answers, of_base, of_run)
        return jnp.exp(of_cells + log_base(task, base)[of_base] + many)

    size = jnp.where(jnp.arange(6) < 4, _MOVE, jnp.minimum(_MOVE, 0.1 * coordinates))
    moves = jnp.concatenate([jnp.diag(size), -jnp.diag(size), jnp.zeros((1, 6))])
    values = jax.lax.map(cells, coordinates + moves) * real.ravel()
    slopes = (values[:6] - values[6:12]) / (2.0 * size[:, None])
    return (slopes / jnp.maximum(values[12], 1e-300)) @ slopes.T


def information(truth: Truth, num_base: int, num_run: int) -> Float[np.ndarray, "6 6"]:
    """Return the expected information of one item on the task's scores, δ, τ² and m.

    Args:
        truth: where.
        num_base: answers of the base.
        num_run: answers of the run.
    """
    size = MOST_ANSWERS + 1
    spread, mass = max(truth.drift_spread, _LEAST_SPREAD), max(truth.mass_lost, _LEAST_MASS)
    coordinates = np.array([*truth.task_scores, truth.drift, spread**2, mass])
    base, answers = (patterns_of(num, truth.inverse_choices, size) for num in (num_base, num_run))
    real = np.outer(np.arange(size) <= num_base, np.arange(size) <= num_run).astype(float)
    return np.asarray(_information(coordinates, base, answers, real))


@compiled
def _derived(
    tasks: Float[Array, "n 3"], runs: Float[Array, "n 3"], inverse_choices: Array
) -> Float[Array, "n 2"]:
    def one(given: tuple[Array, Array]) -> Array:
        found = derive(task_of(given[0]), Run(*given[1]), inverse_choices)
        return jnp.stack([found.lost, found.accuracy_change])

    return jax.lax.map(one, (tasks, runs), batch_size=64)


# Of a surface: nodes of √m and of √τ, and of δ around the supposed one on a scale that widens outward.
_ROOTS, _SPREADS = np.linspace(0.0, 1.0, 17), np.linspace(0.0, _MOST_SPREAD**0.5, 17)
_DRIFTS = np.linspace(-2.4, 2.4, 25)


class Surface(NamedTuple):
    """A quantity around a truth.

    Attributes:
        value: at the truth.
        nothing: where nothing is lost.
        sign: of a loss.
        at: the quantity at (√m, τ, δ).
        slopes: on the task's scores.
    """

    value: float
    nothing: float
    sign: float
    at: Callable[..., np.ndarray]
    slopes: Float[np.ndarray, "3"]


def surface(truth: Truth, quantity: str) -> Surface:
    """Return one of `QUANTITIES` around a truth."""
    here = np.array([truth.mass_lost, truth.drift, truth.drift_spread])
    if quantity == "old_weight":
        return Surface(
            1.0 - here[0], *QUANTITIES[quantity], lambda *places: 1.0 - places[0] ** 2, np.zeros(3)
        )
    if quantity == "drift":
        return Surface(here[1], *QUANTITIES[quantity], lambda *places: places[2], np.zeros(3))
    grid = np.stack(np.meshgrid(_ROOTS**2, here[1] + np.sinh(_DRIFTS), _SPREADS**2, indexing="ij"), axis=-1)
    moves = _MOVE * np.concatenate([np.eye(3), -np.eye(3), np.zeros((1, 3))])
    tasks = truth.task_scores + np.concatenate([np.zeros((grid[..., 0].size, 3)), moves])
    runs = np.concatenate([grid.reshape(-1, 3), np.tile(here, (7, 1))])
    derived = _derived(tasks, runs, np.asarray(truth.inverse_choices))
    values = derived[:, int(quantity == "accuracy_change")]
    coefficients = spline_filter(values[:-7].reshape(grid.shape[:3]), mode="nearest")

    def at(root: np.ndarray, spread: np.ndarray, drift: np.ndarray) -> np.ndarray:
        scaled = (root, np.arcsinh(drift - here[1]), np.sqrt(spread))
        axes = (_ROOTS, _DRIFTS, _SPREADS)
        places = [(x - axis[0]) / (axis[1] - axis[0]) for x, axis in zip(scaled, axes, strict=True)]
        return np.asarray(map_coordinates(coefficients, places, prefilter=False, mode="nearest"))

    slopes = (values[-7:-4] - values[-4:-1]) / (2.0 * _MOVE)
    return Surface(float(values[-1]), *QUANTITIES[quantity], at, slopes)


class Scale(NamedTuple):
    """Values from 0 on, and where they lie on a scale from the truth on."""

    values: Float[np.ndarray, "n"]
    places: Float[np.ndarray, "n"]


# Values of m and of τ² at which their scales are known, and those at which the information is computed.
_MASSES, _SQUARES = np.linspace(0.0, 1.0, 1025) ** 3, np.linspace(0.0, _MOST_SPREAD ** (2.0 / 3.0), 1025) ** 3
_MASS_NODES = np.array([1e-4, 1e-3, 4e-3, 1e-2, 2e-2, 4e-2, 8e-2, 0.16, 0.3, 0.5, 0.8, 0.97])
_SQUARE_NODES = np.array([_LEAST_SPREAD, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 4.0, _MOST_SPREAD]) ** 2


class PerItem(NamedTuple):
    """What one item tells.

    Attributes:
        truth: at which it does.
        information: of it.
        mass: m on a scale on which the information on it is everywhere that of the truth.
        square: τ² on such a scale.
    """

    truth: Truth
    information: Float[np.ndarray, "6 6"]
    mass: Scale
    square: Scale


def per_item(truth: Truth, num_base: int, num_run: int) -> PerItem:
    """Return what one item tells.

    A sure item's wrong answers are few where little is lost, so that the information on m falls steeply with
    m, and that on τ² falls with τ². On the scale ∫ sqrt(I(m) / I(m₀)) dm the log-likelihood is close to a
    parabola.

    Args:
        truth: what is supposed.
        num_base: answers of the base.
        num_run: answers of the run.
    """

    def on_mass(mass: float) -> float:
        return float(information(truth._replace(mass_lost=mass), num_base, num_run)[5, 5])

    def on_square(square: float) -> float:
        there = truth._replace(drift_spread=float(np.sqrt(square)))
        return float(information(there, num_base, num_run)[4, 4])

    return PerItem(
        truth,
        information(truth, num_base, num_run),
        _scale(on_mass, truth.mass_lost, _MASS_NODES, _MASSES),
        _scale(on_square, truth.drift_spread**2, _SQUARE_NODES, _SQUARES),
    )


def _scale(
    information_at: Callable[[float], float],
    here: float,
    nodes: Float[np.ndarray, "k"],
    values: Float[np.ndarray, "n"],
) -> Scale:
    """Return the scale of one unknown from the information on it at some nodes."""
    logs = np.log([information_at(float(node)) for node in nodes]) - np.log(information_at(here))
    middle = 0.5 * (values[1:] + values[:-1])
    slopes = np.exp(0.5 * np.interp(np.log(middle), np.log(nodes), logs))
    places = np.concatenate([[0.0], np.cumsum(slopes * np.diff(values))])
    return Scale(values, places - np.interp(here, values, places))


def expected(item: PerItem, of: Surface, num_items: float, rope: float = 0.0) -> Expected:
    """Return what the posterior of a quantity will be like.

    Args:
        item: what one item tells.
        of: `surface` of the quantity, at the same truth.
        num_items: items.
        rope: half width of the region around no loss that counts as none.
    """
    posterior = _Posterior(item, num_items)
    lower, upper, mean = posterior.summary(of)
    nearest = lower if of.sign > 0.0 else upper
    return Expected(
        float(np.mean(upper - lower)),
        float(np.mean(of.sign * (nearest - of.nothing) > rope)),
        float(np.std(mean)),
    )


class _Posterior:
    """The posteriors of many data sets: points of (√m, τ) with weights, and the normal law of the rest."""

    def __init__(self, item: PerItem, num_items: float) -> None:
        truth, answers, scales = item.truth, num_items * item.information, (item.square, item.mass)
        values, vectors = np.linalg.eigh(answers)
        gradient = ndtri(_uniform(_NUM_DATA, 6)) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
        uniform = _uniform(_NUM_POINTS, 4)
        self.drift = truth.drift
        # What is normal takes an even spread of values at each point.
        even = (uniform[:, 2:] + np.array([[[k, 3 * k % _NUM_EVEN]] for k in range(_NUM_EVEN)])) / _NUM_EVEN
        self.normal = ndtri(even % 1.0)
        # The prior of δ is logistic, near the truth it is taken as normal; the task's scores are normal.
        tilt = np.tanh(self.drift / (2.0 * DRIFT_SCALE))
        prior = np.diag([1.0, 1.0, 1.0, (1.0 - tilt**2) / (2.0 * DRIFT_SCALE**2)])
        rest = gradient[:, :4] - np.array([*truth.task_scores, tilt / DRIFT_SCALE])
        self.covariance = np.linalg.inv(answers[:4, :4] + prior)
        onto = self.covariance @ answers[:4, 4:]
        bounded = answers[4:, 4:] - answers[4:, :4] @ onto
        # Points lie where the answers, and bounds, let the posteriors be.
        reach = _REACH * np.sqrt(np.diag(np.linalg.inv(bounded + np.diag([1e-3, 1.0]))))
        low, high = (
            np.sqrt([np.interp(sign * r, *reversed(scale)) for r, scale in zip(reach, scales, strict=True)])
            for sign in (-1.0, 1.0)
        )
        self.spread, self.root = (low + (high - low) * uniform[:, :2]).T
        squares = (self.spread**2, self.root**2)
        away = np.stack([np.interp(x, *scale) for x, scale in zip(squares, scales, strict=True)], axis=-1)
        pull = gradient[:, 4:] - rest @ onto
        log_prior = np.log1p(-self.root) - self.spread
        log_density = log_prior - 0.5 * np.sum(away @ bounded * away, axis=-1) + pull @ away.T
        weights = np.exp(log_density - log_density.max(axis=1, keepdims=True))
        self.weights = weights / weights.sum(axis=1, keepdims=True)
        #: Means of the rest at each point, and what each data set adds to them.
        self.means, self.shift = -away @ onto.T, rest @ self.covariance

    def summary(self, of: Surface) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the limits of a quantity's intervals, and its mean."""
        sd = np.sqrt(self.covariance[3, 3])
        drift = self.drift + self.means[:, 3] + sd * self.normal[..., 0]
        # The task's scores given δ.
        onto = self.covariance[:3, 3] / sd
        left = self.covariance[:3, :3] - np.outer(onto, onto)
        of_task = self.means[:, :3] @ of.slopes + self.normal[..., 0] * (onto @ of.slopes)
        of_task = of_task + self.normal[..., 1] * np.sqrt(max(of.slopes @ left @ of.slopes, 0.0))
        places = [np.broadcast_to(x, drift.shape) for x in (self.root, self.spread)]
        values = (of.at(*places, drift) + of_task).ravel()
        # By how much data move δ, a quantity is moved in proportion, with the mean slope over that distance.
        moved = of.at(*places, drift + sd) - of.at(*places, drift - sd)
        slope = self.weights.mean(axis=0) @ moved.mean(axis=0) / (2.0 * sd)
        shift = self.shift @ np.append(of.slopes, slope)
        order = np.argsort(values)
        # Rows of points are copied faster than columns.
        weights = self.weights.T[order % _NUM_POINTS] / len(drift)
        lower, upper = _limits(values[order], weights)
        return lower + shift, upper + shift, values[order] @ weights + shift


def _limits(values: Float[np.ndarray, "n"], weights: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "2 d"]:
    """Return the limits of the intervals of weighted values, which are in order."""
    probability = interval_probability()
    outside = 1.0 - probability
    tails = np.linspace(0.0, outside, 41) if interval_kind() == "hdi" else np.array([0.5 * outside])
    below = np.cumsum(weights, axis=0) - 0.5 * weights
    found = np.empty((2, weights.shape[1]))
    for number, of_data in enumerate(below.T):
        lower, upper = (np.interp(tails + p, of_data, values) for p in (0.0, probability))
        found[:, number] = min(zip(lower, upper, strict=True), key=lambda pair: pair[1] - pair[0])
    return found


@cache
def _uniform(num: int, dims: int) -> Float[np.ndarray, "num d"]:
    """Return evenly spread points of the unit cube: multiples of powers of the root of x^(d+1) = x + 1."""
    root = 2.0
    for _ in range(64):
        root = (1.0 + root) ** (1.0 / (dims + 1.0))
    return (0.5 + np.arange(1, num + 1)[:, None] * root ** -np.arange(1.0, dims + 1.0)) % 1.0


def fewest_answers(
    scores: Float[np.ndarray, "6"],
    num_items: float,
    inverse_choices: float,
    width: float,
    tried: Sequence[int] = (2, 4, 8, 16, 32),
) -> int | None:
    """Return how many answers an item, of base and run, make the interval of the mass lost so narrow.

    Args:
        scores: of task (3) and run (δ, τ, m).
        num_items: items.
        inverse_choices: 1/k, 0 for free answers.
        width: of the interval.
        tried: answers an item, increasing.
    """
    with jax.enable_x64(True):
        truth = Truth(scores[:3], inverse_choices, *map(float, run_of(jnp.asarray(scores[3:]))))
    of_mass = surface(truth, "old_weight")
    for num in tried:
        if expected(per_item(truth, num, num), of_mass, num_items).width <= width:
            return num
    return None
