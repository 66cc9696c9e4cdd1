"""What a reader asks for, from the unknowns of a task and a run: accuracy, its change, lost and won.

With p_b = g + (1-g) s(a) and p_r = g + (1-g) (1-m) s(b) all four follow from integrals over a and b without
g: E s(a) of a normal a, and E max(s(a) - (1-m) s(b), 0).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Float

from inference.measurement.evals.item_integral import (
    NODES,
    STEP_WIDTH,
    Run,
    Task,
    density,
    step,
)

# Gauss-Legendre nodes of the logit's move, up to where the run is as good as the base, and their reach.
_MOVES, _WEIGHTS = np.polynomial.legendre.leggauss(14)
_REACH = 5.5

# A law of logits that is narrower is taken for one so narrow: its integral is exact to 1e-6.
_NARROWEST = 0.5


class Derived(NamedTuple):
    """Of the items as a sample of the task.

    Attributes:
        accuracy: mean success of the run.
        accuracy_change: that less the base's.
        lost: E max(p_base - p_run, 0).
        won: E max(p_run - p_base, 0).
    """

    accuracy: Float[Array, "*b"]
    accuracy_change: Float[Array, "*b"]
    lost: Float[Array, "*b"]
    won: Float[Array, "*b"]


def _weights(mean: Array, sd: Array) -> Float[Array, "node"]:
    """Return the law of logits at the nodes; what is smooth needs no cut kernel, as the cells do."""
    return density(NODES - mean, jnp.maximum(sd, _NARROWEST))


def mean_logistic(mean: Array, sd: Array) -> Array:
    """Return E s(a) for a ~ N(mean, sd²)."""
    rest = jax.nn.sigmoid(NODES) - ndtr(NODES / STEP_WIDTH)
    return _weights(mean, sd) @ rest + ndtr(mean / jnp.sqrt(STEP_WIDTH**2 + sd**2))


def derive(task: Task, run: Run, inverse_choices: Array) -> Derived:
    """Return the derived quantities of one run.

    Args:
        task: unknowns of the task.
        run: unknowns of the run.
        inverse_choices: mean over the items of 1/k.
    """
    guess = task.guess_share * inverse_choices
    kept = 1.0 - run.mass_lost
    base = mean_logistic(task.mean, task.sd)
    after = kept * mean_logistic(task.mean + run.drift, jnp.hypot(task.sd, run.drift_spread))
    # At the upper end of the grid and beyond, m is lost and a little of what moves back.
    places = jnp.asarray(NODES)
    by_logit = _lost_at(places, run, kept)
    steps = step(places, STEP_WIDTH)
    ends = jnp.array([0.0, run.mass_lost])
    width = jnp.sqrt(STEP_WIDTH**2 + task.sd**2)
    lost = _weights(task.mean, task.sd) @ (by_logit - ends @ steps) + ends @ step(task.mean, width)
    lost = jnp.maximum(lost, jnp.maximum(base - after, 0.0))
    scale = 1.0 - guess
    return Derived(guess + scale * after, scale * (after - base), scale * lost, scale * (lost + after - base))


def _lost_at(a: Float[Array, "node"], run: Run, kept: Array) -> Float[Array, "node"]:
    """Return E max(s(a) - (1-m) s(b), 0) given the logits under the base.

    It is integrated in single precision, 15 times as fast: 1e-7 is far below what draws differ by.
    """
    known = jax.nn.sigmoid(a)
    # Where the run is as good as the base, in units of the move; nowhere if even a sure item is worse.
    ratio = known / jnp.maximum(kept - known, 1e-12)
    equal = jnp.where(known < kept, jnp.log(ratio), jnp.inf)
    spread = jnp.maximum(run.drift_spread, 1e-6)
    upper = jnp.clip((equal - a - run.drift) / spread, -_REACH, _REACH)
    a, known, kept, drift, spread, half, places, weights = (
        jnp.asarray(x, jnp.float32)
        for x in (a, known, kept, run.drift, spread, 0.5 * (upper + _REACH), _MOVES + 1.0, _WEIGHTS)
    )
    moves = half[:, None] * places - _REACH
    density = jnp.exp(-0.5 * moves**2) / np.sqrt(2.0 * np.pi).astype(np.float32)
    worse = known[:, None] - kept * jax.nn.sigmoid(a[:, None] + drift + spread * moves)
    return (half * ((density * worse) @ weights)).astype(jnp.float64)
