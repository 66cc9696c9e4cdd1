"""Paths of a learner whose weight and means are all free, on the line through the target's modes.

A learner whose means are right at the start never leaves that line, so its loss is an integral over one
coordinate, and the gradient of every objective has the form ∫ c(y) ∂log q(y)/∂θ dy with its own c. One loop
takes the steps of a training for all values of a knob; no program is compiled.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp
from scipy.special import expit, logit

#: Most updates that are taken one by one; longer trainings follow the gradient flow, their limit.
MOST_STEPS = 5000

# Intervals between recorded steps.
_NUM_INTERVALS = 200

# Standard deviations beyond the outermost mean: e^(-8.5²/2) = 2e-16; and what a new grid has to spare.
_REACH, _SPARE = 8.5, 1.0

# Distance from the old mode, in multiples of δ + 10, beyond which a learner has diverged.
_FARTHEST = 10.0

_NORMALISER = 1.0 / np.sqrt(2.0 * np.pi)

# Keeps quotients and logarithms of densities finite where they underflow.
_TINY = 1e-300

_ACCURACY: Any = {"method": "LSODA", "rtol": 1e-7, "atol": 1e-9}


class Path(NamedTuple):
    """A path at n values of a setting; NaN from where the learner diverged.

    Attributes:
        time: steps times learning rate.
        old_weight: β.
        retention: old behaviour that is left, see `mixture_models.observables.retention`.
        old_drift: δ(m_o, μ_o).
        sampled_weight: old mass of the law that batches are drawn from.
        effective_fraction: effective sample fraction of a batch, 1 where nothing is weighted.
    """

    time: Float[np.ndarray, "t"]
    old_weight: Float[np.ndarray, "n t"]
    retention: Float[np.ndarray, "n t"]
    old_drift: Float[np.ndarray, "n t"]
    sampled_weight: Float[np.ndarray, "n t"]
    effective_fraction: Float[np.ndarray, "n t"]


class Setting(NamedTuple):
    """What all objectives share.

    Attributes:
        separation: δ of the modes.
        target_weight: α, the target's old weight.
        start_weight: β at the start, where the means are right.
        num_steps: updates.
        learning_rate: of plain SGD.
    """

    separation: float
    target_weight: float
    start_weight: float
    num_steps: int
    learning_rate: float

    @property
    def end_time(self) -> float:
        """Return steps times learning rate."""
        return self.num_steps * self.learning_rate

    def mixture(self, weight: float) -> Float[np.ndarray, "3 1"]:
        """Return (φ, m_o, m_n) of a mixture with right means."""
        return np.array([[logit(weight)], [0.0], [self.separation]])


class Grid(NamedTuple):
    """Equidistant nodes on the line; the old mode is at 0, the new one at δ.

    Attributes:
        y: the nodes.
        step: between two.
        moments: step times (1, y), which take integrals of a function and of y times it.
    """

    y: Float[np.ndarray, "k"]
    step: float
    moments: Float[np.ndarray, "k 2"]

    def density(self, mean: Any) -> Float[np.ndarray, "n k"]:
        """Return the density of a mode at the nodes."""
        away = self.y - np.reshape(mean, (-1, 1))
        away *= away
        away *= -0.5
        return np.exp(away, out=away) * _NORMALISER

    def parts(self, mixture: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "2 n k"]:
        """Return β N(y; m_o) and (1-β) N(y; m_n)."""
        both = self.density(mixture[1:]).reshape(2, -1, self.y.size)
        both *= expit(np.stack([mixture[0], -mixture[0]]))[:, :, None]
        return both

    def law(self, mixture: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n k"]:
        """Return the density of a mixture at the nodes."""
        old, new = self.parts(mixture)
        new += old
        new += _TINY
        return new

    def integral(self, values: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n"]:
        """Return the trapezoid sums of values at the nodes."""
        return values @ self.moments[:, 0]


#: Takes the grid and the companion (None without one); returns c(y) as a function of q at the nodes.
Pull = Callable[[Grid, Any], Callable[[np.ndarray], np.ndarray]]


class Beside(NamedTuple):
    """How a companion, which starts as the learner, moves.

    Attributes:
        goal: of the learner; the companion goes a share ``rate`` of its way there at every step.
        rate: in [0, 1].
        lag: steps between two jumps onto the learner, 0 for none.
    """

    goal: Callable[[np.ndarray], np.ndarray] | None = None
    rate: float = 0.0
    lag: int = 0


class Course(NamedTuple):
    """Where learner and companion are at recorded times, and a grid for all of it.

    Attributes:
        time: shape (t,).
        learner: (φ, m_o, m_n), shape (t, 3, n).
        companion: the same, None without one.
        grid: that reaches all means.
    """

    time: np.ndarray
    learner: np.ndarray
    companion: np.ndarray | None
    grid: Grid

    def at_records(self, value: Callable[[np.ndarray], np.ndarray]) -> Float[np.ndarray, "n t"]:
        """Return a function of the learner's density at the nodes, at all recorded times."""
        return np.stack([value(self.grid.law(at)) for at in self.learner], axis=-1)

    def path(self, setting: Setting) -> Path:
        """Return what is reported; batches are the learner's own, and nothing is weighted."""
        modes = self.grid.parts(setting.mixture(setting.target_weight))
        old = modes[0] / (modes[0] + modes[1] + _TINY)
        right = [self.grid.integral(self.grid.density(at) * old)[0] for at in (0.0, setting.separation)]
        weight, drift = expit(self.learner[:, 0].T), np.abs(self.learner[:, 1].T)
        left = self.at_records(lambda law: self.grid.integral(law * old) - right[1]) / (right[0] - right[1])
        return Path(self.time, weight, left, drift, weight, np.ones_like(weight))


def knob_values(values: Any) -> Float[np.ndarray, "n"]:
    """Return one or more values of a setting as a float64 array."""
    return np.atleast_1d(np.asarray(values, np.float64))


def follow(setting: Setting, knob: np.ndarray, pull: Pull, beside: Beside | None = None) -> Course:
    """Descend from right means at every value of a knob: θ ← θ - η ∫ c ∂log q/∂θ dy.

    Step by step as a training does; beyond `MOST_STEPS` as the flow θ' = -∫ c ∂log q/∂θ dy.

    Args:
        setting: the shared one.
        knob: its values, shape (n,).
        pull: c of the objective.
        beside: of an objective with a companion.
    """
    start = np.repeat(setting.mixture(setting.start_weight), knob.size, axis=1)
    solve = _stepped if setting.num_steps <= MOST_STEPS else _flowed
    with np.errstate(invalid="ignore"):  # of what diverged
        steps, states = solve(setting, start, pull, beside)
    learner = np.stack([state[0] for state in states])
    companion = None if beside is None else np.stack([state[1] for state in states])
    grid = _reaching(None, setting, learner[:, 1:])
    return Course(steps * setting.learning_rate, learner, companion, grid)


_State = tuple[np.ndarray, Any]


def _stepped(
    setting: Setting, start: np.ndarray, pull: Pull, beside: Beside | None
) -> tuple[np.ndarray, list[_State]]:
    """Take the steps of a training; return the recorded ones and the states there."""
    steps = _recorded(setting.num_steps)
    learner, companion = start, None if beside is None else start
    grid, weigh, states = None, None, [(learner, companion)]
    for step in range(1, setting.num_steps + 1):
        means = learner[1:] if companion is None else np.stack([learner[1:], companion[1:]])
        if (reaching := _reaching(grid, setting, means)) is not grid or weigh is None:
            grid, weigh = reaching, pull(reaching, companion)
        learner = learner - setting.learning_rate * _gradient(grid, learner, weigh)
        learner = np.where(np.abs(learner[1:]).max(axis=0) < _limit(setting), learner, np.nan)
        if beside is not None:
            moved = companion
            if beside.goal is not None:
                moved = companion + beside.rate * (beside.goal(learner) - companion)
            if beside.lag and step % beside.lag == 0:
                moved = learner
            if moved is not companion:
                companion, weigh = moved, None
        if step in steps:
            states.append((learner, companion))
    return np.array(sorted(steps)), states


def _flowed(
    setting: Setting, start: np.ndarray, pull: Pull, beside: Beside | None
) -> tuple[np.ndarray, list[_State]]:
    """Follow the flow; return the recorded steps and the states there."""
    steps = np.array(sorted(_recorded(setting.num_steps)))
    lag = 0 if beside is None else beside.lag
    ends = [*range(lag, setting.num_steps, lag), setting.num_steps] if lag else [setting.num_steps]
    begin, learner, companion = 0, start, None if beside is None else start
    states: list[_State] = [(learner, companion)]
    for end in ends:
        inside = steps[(steps > begin) & (steps <= end)]
        reached = _solved(setting, np.append(inside, end)[: inside.size + (end not in inside)], begin)
        pieces = reached(learner, companion, pull, beside)
        states += pieces[: inside.size]
        learner, companion = pieces[-1]
        begin = end
        if lag:
            companion = learner
    return steps, states


def _solved(setting: Setting, steps: np.ndarray, begin: int) -> Callable[..., list[_State]]:
    """Return a function of a state that follows the flow to given steps, with no jump on the way."""

    def reached(learner: np.ndarray, companion: Any, pull: Pull, beside: Beside | None) -> list[_State]:
        goal = None if beside is None else beside.goal
        first = learner if goal is None else np.stack([learner, companion])
        grid: Grid | None = None
        weigh: Any = None

        def velocity(_: float, flat: np.ndarray) -> np.ndarray:
            nonlocal grid, weigh
            now = flat.reshape(first.shape)
            mine, other = (now, companion) if goal is None else (now[0], now[1])
            means = mine[1:] if other is None else np.stack([mine[1:], other[1:]])
            wider = _reaching(grid, setting, means)
            if wider is not grid or goal is not None:
                grid, weigh = wider, pull(wider, other)
            turn = -_gradient(grid, mine, weigh)
            if goal is None or beside is None:
                return turn.ravel()
            return np.stack([turn, beside.rate / setting.learning_rate * (goal(mine) - other)]).ravel()

        times = setting.learning_rate * np.append(begin, steps)
        solved = solve_ivp(velocity, times[[0, -1]], first.ravel(), t_eval=times, **_ACCURACY)
        found = solved.y.T.reshape(-1, *first.shape)[1:]
        return [(at, companion) if goal is None else (at[0], at[1]) for at in found]

    return reached


def _gradient(grid: Grid, learner: np.ndarray, weigh: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return ∫ c ∂log q/∂θ dy, shape (3, n)."""
    old, law = grid.parts(learner)
    law += old
    law += _TINY
    weights = weigh(law)
    old /= law
    old *= weights
    (total, of_all), (mine, far) = (weights @ grid.moments).T, (old @ grid.moments).T
    phi, old_mean, new_mean = learner
    return np.stack(
        [mine - expit(phi) * total, far - old_mean * mine, of_all - far - new_mean * (total - mine)]
    )


def _reaching(grid: Grid | None, setting: Setting, means: np.ndarray) -> Grid:
    """Return the grid if it reaches all means, else a wider one; right to about 1e-8."""
    old, new = means[..., 0, :], means[..., 1, :]
    finite = means[np.isfinite(means)]
    low, high = min(0.0, finite.min(initial=0.0)), max(setting.separation, finite.max(initial=0.0))
    if grid is not None and grid.y[0] <= low - _REACH and grid.y[-1] >= high + _REACH:
        return grid
    apart = np.nanmax(np.abs(new - old), initial=setting.separation, where=np.isfinite(new - old))
    # Responsibilities steepen with the distance, but from 8 on where they change there is no mass.
    step = 0.8 / np.clip(apart, 1.6, 8.0)
    number = int(np.ceil((high - low + 2.0 * (_REACH + _SPARE)) / step)) + 1
    y = low - _REACH - _SPARE + step * np.arange(number)
    return Grid(y, float(step), step * np.stack([np.ones_like(y), y], axis=-1))


def _limit(setting: Setting) -> float:
    return _FARTHEST * (setting.separation + 10.0)


def _recorded(num_steps: int) -> set[int]:
    return {int(step) for step in np.round(np.linspace(0.0, num_steps, _NUM_INTERVALS + 1))}
