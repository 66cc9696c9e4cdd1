"""The probability of a cell of counts, integrated over items.

    P(k_b, k_r) = ∫ N(a; μ, σ²) f_b(a) ∫ N(b; a + δ, τ²) f_r(b) db da

where f(x) = p^k (1-p)^(n-k) with p = g + (1-g) s(x) of the base, and p = g + (1-m) (1-g) s(x) of a run. All
functions of an item's logit are held on one grid of spacing h. The logistic function is analytic up to
|Im x| < π, so its powers hold next to nothing beyond the frequency π/h: the trapezoid rule, and a Gaussian
kernel cut at that frequency, are exact to about 1e-8, however wide or narrow the Gaussians are. What does not
decay along the grid, the limits of f at ±∞, is taken apart as a step Φ(x/λ), whose integral is known.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, ndtr, xlogy
from jaxtyping import Array, Float, Int

# Spacing and number of the grid's nodes, and the step's width: what is left at the ends is about 1e-7.
STEP, NUM_NODES, STEP_WIDTH = 0.6, 56, 1.5

NODES = (np.arange(NUM_NODES) - 0.5 * (NUM_NODES - 1)) * STEP

# Frequencies of the cut kernel; with so many it repeats only every 2 · 64 · h.
_NUM_FREQUENCIES = 64
_FREQUENCIES = np.arange(_NUM_FREQUENCIES + 1) * np.pi / (STEP * _NUM_FREQUENCIES)
_FREQUENCY_WEIGHTS = np.r_[0.5, np.ones(_NUM_FREQUENCIES - 1), 0.5] / _NUM_FREQUENCIES

# Differences of nodes.
_LAGS = np.arange(-(NUM_NODES - 1), NUM_NODES) * STEP
_COSINES = np.cos(np.outer(_LAGS, _FREQUENCIES)) * _FREQUENCY_WEIGHTS
_SINES = np.sin(np.outer(_LAGS, _FREQUENCIES)) * _FREQUENCY_WEIGHTS
_NODE_COSINES = np.cos(np.outer(NODES, _FREQUENCIES)) * _FREQUENCY_WEIGHTS
_NODE_SINES = np.sin(np.outer(NODES, _FREQUENCIES)) * _FREQUENCY_WEIGHTS

# A Gaussian this wide holds 1e-6 beyond the greatest frequency, and is evaluated as it stands.
_WIDE = 1.0

# Added to a probability: rounding must not make it negative.
_FLOOR = 1e-11


#: Arrays of NumPy and of JAX alike.
Numbers = Array | np.ndarray


class Patterns(NamedTuple):
    """Distinct outcomes of items: right answers out of some.

    Attributes:
        right: right answers; fractional where scores are.
        num: answers.
        choices: each one's place in `inverse_choices`.
        inverse_choices: the distinct reciprocals of the number of choices, 0 for free answers.
    """

    right: Float[Numbers, "*p"]
    num: Float[Numbers, "*p"]
    choices: Int[Numbers, "*p"]
    inverse_choices: Float[Numbers, "g"]

    def at_choices(self, of_choices: Float[Array, "g n"]) -> Float[Array, "#p n"]:
        """Return each pattern's row of what is given for every number of choices."""
        # Nearly always there is one: no copies then.
        return of_choices if len(self.inverse_choices) == 1 else of_choices[self.choices]


class Task(NamedTuple):
    """What is asked about the items of a task: one law of their logits under the base.

    Attributes:
        mean: μ of the items' logits.
        sd: σ of them.
        guess_share: γ, the guess rate in parts of 1/k.
    """

    mean: Float[Array, "*b"]
    sd: Float[Array, "*b"]
    guess_share: Float[Array, "*b"]


class Run(NamedTuple):
    """How a run differs from the base.

    Attributes:
        mass_lost: m.
        drift: δ.
        drift_spread: τ.
    """

    mass_lost: Float[Array, "*b"]
    drift: Float[Array, "*b"]
    drift_spread: Float[Array, "*b"]


class BaseSide(NamedTuple):
    """Patterns of the base on the grid, times the law of the items' logits."""

    on_grid: Float[Array, "p node"]
    tails: Float[Array, "p 2"]
    tail_places: Float[Array, "2"]


def patterns_of(num: int, inverse_choices: float, size: int) -> Patterns:
    """Return all outcomes of so many answers, then outcomes of no answer up to a size."""
    counted = np.arange(size) <= num
    right = np.where(counted, np.arange(size), 0.0)
    answers = np.where(counted, float(num), 0.0)
    return Patterns(right, answers, np.zeros(size, dtype=int), np.array([inverse_choices]))


def log_multiplicity(patterns: Patterns) -> Float[Array, "*p"]:
    """Return the log binomial coefficient of patterns."""
    k, n = jnp.asarray(patterns.right), jnp.asarray(patterns.num)
    return gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)


def log_peak(patterns: Patterns) -> Float[Array, "*p"]:
    """Return log of the largest value of p^k (1-p)^(n-k), by which patterns are divided."""
    k, n = jnp.asarray(patterns.right), jnp.maximum(patterns.num, 1e-300)
    return xlogy(k, k / n) + xlogy(patterns.num - k, 1.0 - k / n)


def _outcome(
    patterns: Patterns, right: Float[Array, "g n"], wrong: Float[Array, "g n"]
) -> Float[Array, "p n"]:
    """Return p^k (1-p)^(n-k) over its largest value, from p and 1-p for every number of choices."""
    k, n, peak = (a[:, None] for a in (patterns.right, patterns.num, log_peak(patterns)))
    # No smaller: the square of its reciprocal is in the second derivative.
    log_right, log_wrong = (patterns.at_choices(jnp.log(jnp.maximum(p, 1e-100))) for p in (right, wrong))
    return jnp.exp(k * log_right + (n - k) * log_wrong - peak)


def success(guess: Numbers, mass_lost: Numbers, x: Numbers) -> tuple[Array, Array]:
    """Return the probabilities of a right and of a wrong answer at logits.

    With probability m the run answers in its new behaviour, which is right as often as a guess:
    p = (1-m) (g + (1-g) s(x)) + m g.
    """
    guess, up, down = jnp.asarray(guess), jax.nn.sigmoid(x), jax.nn.sigmoid(-x)
    return guess + (1.0 - guess) * (1.0 - mass_lost) * up, (1.0 - guess) * (down + mass_lost * up)


def _limits(patterns: Patterns, guess: Numbers, mass_lost: Numbers) -> Float[Array, "p 2"]:
    """Return what an outcome's probability goes to where no item, and where every item, is known."""
    ends = jnp.array([-jnp.inf, jnp.inf])
    return _outcome(patterns, *success(guess, mass_lost, ends[None]))


def step(x: Numbers, width: Numbers | float) -> Array:
    """Return the two sides of the step, first axis."""
    return jnp.stack([ndtr(-x / width), ndtr(x / width)])


def base_side(task: Task, patterns: Patterns) -> BaseSide:
    """Return the base's patterns times the law of logits, on the grid and beyond its ends."""
    weights = gaussian_weights(task.mean, task.sd)
    total = step(task.mean, jnp.sqrt(STEP_WIDTH**2 + task.sd**2))
    beyond = jnp.maximum(total - jnp.sum(weights * step(jnp.asarray(NODES), STEP_WIDTH), axis=-1), 0.0)
    guess = (task.guess_share * patterns.inverse_choices)[:, None]
    right, wrong = success(guess, jnp.zeros(()), jnp.asarray(NODES)[None])
    ends = (NODES[-1] + 0.5 * task.sd) * jnp.array([-1.0, 1.0])
    return BaseSide(
        _outcome(patterns, right, wrong) * weights, _limits(patterns, guess, jnp.zeros(())) * beyond, ends
    )


def gaussian_weights(mean: Numbers, sd: Numbers) -> Float[Array, "node"]:
    """Return the law of items' logits at the grid's nodes, times their spacing."""
    narrow = jnp.minimum(sd, _WIDE)
    damped = jnp.exp(-0.5 * (narrow * _FREQUENCIES) ** 2)
    angle = mean * _FREQUENCIES
    cut = _NODE_COSINES @ (jnp.cos(angle) * damped) + _NODE_SINES @ (jnp.sin(angle) * damped)
    # The cut kernel repeats: far from the mean it is 0.
    cut = jnp.where(jnp.abs(NODES - mean) < 30.0, cut, 0.0)
    return jnp.where(sd < _WIDE, cut, density(NODES - mean, jnp.maximum(sd, _WIDE)))


def density(x: Numbers, sd: Numbers) -> Array:
    """Return a normal density times the spacing of the nodes."""
    return jnp.exp(-0.5 * (x / sd) ** 2) * (STEP / jnp.sqrt(2.0 * jnp.pi)) / sd


def _by_lag(drift: Numbers, spread: Numbers) -> Float[Array, "lag"]:
    """Return the law of an item's logit in the run less that under the base, at the grid's differences."""
    narrow, wide = jnp.minimum(spread, _WIDE), jnp.maximum(spread, _WIDE)
    damped = jnp.exp(-0.5 * (narrow * _FREQUENCIES) ** 2)
    angle = drift * _FREQUENCIES
    cut = _COSINES @ (jnp.cos(angle) * damped) + _SINES @ (jnp.sin(angle) * damped)
    # Without a barrier the density is computed again for each element of the matrix that is made of it.
    return jax.lax.optimization_barrier(jnp.where(spread < _WIDE, cut, density(_LAGS - drift, wide)))


def _toeplitz(by_lag: Float[Array, "lag"]) -> Float[Array, "node node"]:
    """Return the matrix (from, to) of a function of the difference; copies are faster than a gather."""
    rows = jnp.tile(jnp.append(by_lag, 0.0), NUM_NODES)[: NUM_NODES * (2 * NUM_NODES - 1)]
    return rows.reshape(NUM_NODES, 2 * NUM_NODES - 1)[:, NUM_NODES - 1 :]


def drifted(side: BaseSide, drift: Numbers, spread: Numbers) -> Float[Array, "p node+2"]:
    """Return the law of the logits in the run, joint with the base's patterns: on the grid and at ±∞.

    The product with `answers_side` is the integral over items.
    """
    on_grid = side.on_grid @ _toeplitz(_by_lag(drift, spread))
    width = jnp.sqrt(STEP_WIDTH**2 + spread**2)
    limits = (
        side.on_grid @ step(NODES + drift, width).T + side.tails @ step(side.tail_places + drift, width).T
    )
    return jnp.concatenate([on_grid, limits - on_grid @ step(jnp.asarray(NODES), STEP_WIDTH).T], axis=-1)


def answers_side(guess_share: Numbers, mass_lost: Numbers, patterns: Patterns) -> Float[Array, "p node+2"]:
    """Return the probability of a run's patterns at the grid's logits and at ±∞."""
    guess = (guess_share * patterns.inverse_choices)[:, None]
    on_grid = _outcome(patterns, *success(guess, mass_lost, jnp.asarray(NODES)[None]))
    return jnp.concatenate([on_grid, _limits(patterns, guess, mass_lost)], axis=-1)


def log_base(task: Task, patterns: Patterns) -> Float[Array, "p"]:
    """Return log probabilities of the base's patterns."""
    side = base_side(task, patterns)
    return jnp.log(jnp.maximum(_sum_base(side), 0.0) + _FLOOR) + log_peak(patterns)


def _sum_base(side: BaseSide) -> Array:
    return jnp.sum(side.on_grid, axis=-1) + jnp.sum(side.tails, axis=-1)


def log_conditional(side: BaseSide, law: Array, outcome: Array) -> Float[Array, "p q"]:
    """Return log P(run's pattern | base's pattern) from `drifted` and `answers_side`, less `log_peak`."""
    joint = law @ outcome.T
    return jnp.log((jnp.maximum(joint, 0.0) + _FLOOR) / (jnp.maximum(_sum_base(side), 0.0) + _FLOOR)[:, None])


def log_cells(
    task: Task,
    run: Run,
    base: Patterns,
    answers: Patterns,
    of_base: Int[Numbers, "c"],
    of_run: Int[Numbers, "c"],
) -> Float[Array, "c"]:
    """Return log probabilities of a run's outcome given the base's, for each cell; no binomial coefficient.

    Args:
        task: the items' law.
        run: how the run differs.
        base: patterns of the base.
        answers: patterns of the run.
        of_base: each cell's place in the base's patterns.
        of_run: each cell's place in the run's patterns.
    """
    side = base_side(task, base)
    law = drifted(side, run.drift, run.drift_spread)
    outcome = answers_side(task.guess_share, run.mass_lost, answers)
    return log_conditional(side, law, outcome)[of_base, of_run] + log_peak(answers)[of_run]
