"""How well so many items and answers would measure a run: the expected information of the cells.

The information of one item on x = (task's scores, δ, τ², m) is the expected outer product of the slopes of
its cell's log probability. Near the truth the log-likelihood of N items is then g·d - d·(N I)·d / 2 with d = x
- x₀ and g ~ N(0, N I). The posterior is this times the prior, which keeps m and τ at or above 0: δ and the
task's scores are normal given (m, τ), and the rest is a sum over points of (√m, τ). τ² and m are used as they
move the cells in proportion even at 0, where the posterior of m is half of a normal law, not a normal one.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import RectBivariateSpline
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

# Data sets that are averaged over, points of each posterior, and the largest τ on their grid.
_NUM_DATA, _NUM_POINTS, _MOST_SPREAD = 128, 1024, 8.0

# Of a task: a guess rate of exactly 0 or 1/k is none that the prior holds likely.
_MOST_SCORE = 3.0

# Standard deviations around the truth in which points lie.
_REACH = 5.0


class Truth(NamedTuple):
    """What is supposed of a run while it is planned.

    Attributes:
        task_scores: of the task, as `prior.task_of` reads them.
        run: m, δ and τ.
        inverse_choices: 1/k, 0 for free answers.
    """

    task_scores: Float[np.ndarray, "3"]
    run: Run
    inverse_choices: float


def truth_of(
    item_mean: float, item_sd: float, guess_rate: float, num_choices: int | None, run: Run
) -> Truth:
    """Return what is supposed from the law of the items' logits N(μ, σ²) and the guess rate."""
    inverse_choices = 1.0 / num_choices if num_choices else 0.0
    share = guess_rate * num_choices if num_choices else 1.0
    location = item_mean / np.hypot(item_sd, np.sqrt(LOGISTIC_VARIANCE))
    with jax.enable_x64(True):
        scores = np.asarray(task_scores_of(location, np.log(item_sd), share))
    return Truth(np.clip(scores, -_MOST_SCORE, _MOST_SCORE), run, inverse_choices)


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


def _information(
    coordinates: Float[Array, "6"], base: Patterns, answers: Patterns, real: Float[Array, "b r"]
) -> Float[Array, "6 6"]:
    """Return the information; slopes are central differences, which compile in half the time of derivatives."""
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


_compiled_information = compiled(_information)


def information(truth: Truth, num_base: int, num_run: int) -> Float[np.ndarray, "6 6"]:
    """Return the expected information of one item on the task's scores, δ, τ² and m.

    Args:
        truth: where.
        num_base: answers of the base.
        num_run: answers of the run.
    """
    run, size = truth.run, MOST_ANSWERS + 1
    spread, mass = max(float(run.drift_spread), _LEAST_SPREAD), max(float(run.mass_lost), _LEAST_MASS)
    coordinates = np.array([*truth.task_scores, run.drift, spread**2, mass], dtype=float)
    base, answers = (patterns_of(num, truth.inverse_choices, size) for num in (num_base, num_run))
    real = np.outer(np.arange(size) <= num_base, np.arange(size) <= num_run).astype(float)
    return np.asarray(_compiled_information(coordinates, base, answers, real))


def _derived(
    tasks: Float[Array, "n 3"], runs: Float[Array, "n 3"], inverse_choices: Array
) -> Float[Array, "n 2"]:
    def one(given: tuple[Array, Array]) -> Array:
        found = derive(task_of(given[0]), Run(*given[1]), inverse_choices)
        return jnp.stack([found.lost, found.accuracy_change])

    return jax.lax.map(one, (tasks, runs), batch_size=64)


_compiled_derived = compiled(_derived)

# Of a surface, a direction.
_NODES = 33


class Surface(NamedTuple):
    """A quantity around a truth.

    Attributes:
        value: at the truth.
        nothing: where nothing is lost.
        sign: of a loss.
        at: the quantity as a function of √m and τ.
        slopes: on the task's scores and δ.
    """

    value: float
    nothing: float
    sign: float
    at: RectBivariateSpline
    slopes: Float[np.ndarray, "4"]


def surface(truth: Truth, quantity: str) -> Surface:
    """Return one of `QUANTITIES` around a truth."""
    roots, spreads = np.linspace(0.0, 1.0, _NODES), np.linspace(0.0, _MOST_SPREAD**0.5, _NODES) ** 2
    grid = np.stack(np.meshgrid(roots**2, spreads, indexing="ij"), axis=-1).reshape(-1, 2)
    here = np.array([truth.run.mass_lost, truth.run.drift, truth.run.drift_spread], dtype=float)
    moves = _MOVE * np.concatenate([np.eye(4), -np.eye(4), np.zeros((1, 4))])
    tasks = np.concatenate([np.tile(truth.task_scores, (len(grid), 1)), truth.task_scores + moves[:, :3]])
    runs = np.concatenate([np.insert(grid, 1, here[1], axis=1), here + moves[:, 3:] * [0.0, 1.0, 0.0]])
    if quantity == "old_weight":
        values = 1.0 - runs[:, 0]
    elif quantity == "drift":
        values = runs[:, 1]
    else:
        lost_and_change = _compiled_derived(tasks, runs, np.asarray(truth.inverse_choices))
        values = lost_and_change[:, int(quantity == "accuracy_change")]
    on_grid, moved = values[: len(grid)].reshape(_NODES, _NODES), values[len(grid) :]
    slopes = (moved[:4] - moved[4:8]) / (2.0 * _MOVE)
    at = RectBivariateSpline(roots, spreads, on_grid, s=0)
    return Surface(float(moved[8]), *QUANTITIES[quantity], at, slopes)


def expected(
    truth: Truth, of: Surface, num_items: float, num_base: int, num_run: int, rope: float = 0.0
) -> Expected:
    """Return what the posterior of a quantity will be like.

    Args:
        truth: what is supposed.
        of: `surface` of the quantity.
        num_items: items.
        num_base: answers of the base to each.
        num_run: answers of the run to each.
        rope: half width of the region around no loss that counts as none.
    """
    at_truth = num_items * information(truth, num_base, num_run)
    gradient = ndtri(_uniform(_NUM_DATA, 6)) @ _root(at_truth).T
    # Near 0 the information on m falls steeply with m: that of the posterior is the one at its mean.
    mass = float(np.mean(_Posterior(truth, at_truth, gradient).mass()))
    there = truth._replace(run=truth.run._replace(mass_lost=max(mass, float(truth.run.mass_lost))))
    posterior = _Posterior(truth, num_items * information(there, num_base, num_run), gradient)
    lower, upper, mean = posterior.summary(of)
    nearest = lower if of.sign > 0.0 else upper
    return Expected(
        float(np.mean(upper - lower)),
        float(np.mean(of.sign * (nearest - of.nothing) > rope)),
        float(np.std(mean)),
    )


class _Posterior:
    """The posteriors of many data sets: points of (√m, τ) with weights, and the normal law of the rest."""

    def __init__(
        self, truth: Truth, answers: Float[np.ndarray, "6 6"], gradient: Float[np.ndarray, "d 6"]
    ) -> None:
        self.uniform = _uniform(_NUM_POINTS, 3)
        # The prior of δ is logistic, near the truth it is taken as normal; that of the task's scores is normal.
        tilt = np.tanh(float(truth.run.drift) / (2.0 * DRIFT_SCALE))
        prior = np.diag([1.0, 1.0, 1.0, (1.0 - tilt**2) / (2.0 * DRIFT_SCALE**2)])
        self.rest = gradient[:, :4] - np.array([*truth.task_scores, tilt / DRIFT_SCALE])
        self.covariance = np.linalg.inv(answers[:4, :4] + prior)
        self.onto = self.covariance @ answers[:4, 4:]
        bounded = answers[4:, 4:] - answers[4:, :4] @ self.onto
        here = np.array([float(truth.run.drift_spread) ** 2, float(truth.run.mass_lost)])
        # Points lie where the answers, and bounds, let the posteriors be.
        sd = np.sqrt(np.diag(np.linalg.inv(bounded + np.diag([1e-3, 1.0]))))
        low = np.sqrt(np.maximum(here - _REACH * sd, 0.0))
        high = np.sqrt(np.minimum(here + _REACH * sd, [_MOST_SPREAD**2, 1.0]))
        self.spread, self.root = (low + (high - low) * self.uniform[:, :2]).T
        self.away = np.stack([self.spread**2, self.root**2], axis=-1) - here
        pull = gradient[:, 4:] - self.rest @ self.onto
        log_prior = np.log1p(-self.root) - self.spread
        log_density = log_prior - 0.5 * np.sum(self.away @ bounded * self.away, axis=-1) + pull @ self.away.T
        weights = np.exp(log_density - log_density.max(axis=1, keepdims=True))
        self.weights = weights / weights.sum(axis=1, keepdims=True)

    def mass(self) -> Float[np.ndarray, "d"]:
        """Return the mean of m."""
        return self.weights @ self.root**2

    def summary(self, of: Surface) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the limits of a quantity's intervals, and its mean."""
        values = of.at(self.root, self.spread, grid=False) - self.away @ (self.onto.T @ of.slopes)
        # What the rest adds is normal, and shifted by the data.
        values = values + np.sqrt(of.slopes @ self.covariance @ of.slopes) * ndtri(self.uniform[:, 2])
        shift = self.rest @ (self.covariance @ of.slopes)
        order = np.argsort(values)
        lower, upper = _limits(values[order], self.weights[:, order])
        return lower + shift, upper + shift, self.weights @ values + shift


def _limits(values: Float[np.ndarray, "n"], weights: Float[np.ndarray, "d n"]) -> Float[np.ndarray, "2 d"]:
    """Return the limits of the intervals of weighted values, which are in order."""
    probability = interval_probability()
    tails = np.linspace(0.0, 1.0 - probability, 41) if interval_kind() == "hdi" else [0.5 * (1.0 - probability)]
    found = np.empty((2, len(weights)))
    for number, of_data in enumerate(weights):
        below = np.cumsum(of_data) - 0.5 * of_data
        lower, upper = (np.interp(np.add(tails, p), below, values) for p in (0.0, probability))
        found[:, number] = min(zip(lower, upper, strict=True), key=lambda pair: pair[1] - pair[0])
    return found


def _root(matrix: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0.0))


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
    truth = Truth(scores[:3], Run(*map(float, run_of(scores[3:]))), inverse_choices)
    of_mass = surface(truth, "old_weight")
    for num in tried:
        if expected(truth, of_mass, num_items, num, num).width <= width:
            return num
    return None
