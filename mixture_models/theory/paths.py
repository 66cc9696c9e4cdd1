"""Paths of a learner whose weight and means are all free, on the line through the target's modes.

A learner whose means are right at the start never leaves that line, so its loss is an integral over one
coordinate, and the gradient of every objective has the form ∫ c(y) ∂log q(y)/∂θ dy with its own c. One loop
takes the steps of a training for all values of a hyperparameter; no program is compiled.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp
from scipy.special import expit, logit

from mixture_models.integrals.nodes import TINY, Nodes, gradient, reaching
from mixture_models.types import Reals
from mixture_models.validation import InputError

#: Most updates that are taken one by one; longer trainings follow the gradient flow, their limit.
MOST_STEPS = 5000

# Intervals between recorded steps.
_NUM_INTERVALS = 200

# Distance from the old mode, in multiples of δ + 10, beyond which a learner has diverged.
_FARTHEST = 10.0

_ACCURACY = {"method": "LSODA", "rtol": 1e-7, "atol": 1e-9}


class Path(NamedTuple):
    """A path at n values of a setting; NaN from where the learner diverged.

    Attributes:
        time: steps times learning rate.
        old_weight: β.
        retention: old behaviour that is left, see `mixture_models.metrics.retention`.
        old_drift: δ(m_o, μ_o).
        sampled_weight: old mass of the law that batches are drawn from.
        effective_fraction: effective sample fraction of a batch, 1 where nothing is weighted.
    """

    time: Float[Reals, "t"]
    old_weight: Float[Reals, "n t"]
    retention: Float[Reals, "n t"]
    old_drift: Float[Reals, "n t"]
    sampled_weight: Float[Reals, "n t"]
    effective_fraction: Float[Reals, "n t"]


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

    def mixture(self, weight: float) -> Float[Reals, "3 1"]:
        """Return (φ, m_o, m_n) of a mixture with right means."""
        return np.array([[logit(weight)], [0.0], [self.separation]])


#: Takes q at the nodes to c there.
Weigh = Callable[[Reals], Reals]

#: Takes the nodes and the companion (None without one); returns c(y) as a function of q at the nodes.
Pull = Callable[..., Weigh]


class Beside(NamedTuple):
    """How a companion, which starts as the learner, moves.

    Attributes:
        goal: of the learner; the companion goes a share ``rate`` of its way there at every step.
        rate: in [0, 1].
        lag: steps between two jumps onto the learner, 0 for none.
    """

    goal: Callable[[Reals], Reals] | None = None
    rate: float = 0.0
    lag: int = 0


class Course(NamedTuple):
    """Where learner and companion are at recorded times, and nodes for all of it.

    Attributes:
        time: shape (t,).
        learner: (φ, m_o, m_n), shape (t, 3, n).
        companion: the same, None without one.
        nodes: that reaches all means.
    """

    time: Reals
    learner: Reals
    companion: Reals | None
    nodes: Nodes

    def at_records(self, value: Callable[[Reals], Reals]) -> Float[Reals, "n t"]:
        """Return a function of the learner's density at the nodes, at all recorded times."""
        return np.stack([value(self.nodes.law(at)) for at in self.learner], axis=-1)

    def path(self, setting: Setting) -> Path:
        """Return what is reported; batches are the learner's own, and nothing is weighted."""
        modes = self.nodes.parts(setting.mixture(setting.target_weight))
        old = modes[0] / (modes[0] + modes[1] + TINY)
        right = [self.nodes.integral(self.nodes.density(at) * old)[0] for at in (0.0, setting.separation)]
        weight, drift = expit(self.learner[:, 0].T), np.abs(self.learner[:, 1].T)
        left = self.at_records(lambda law: self.nodes.integral(law * old) - right[1]) / (right[0] - right[1])
        return Path(self.time, weight, left, drift, weight, np.ones_like(weight))


def values_of(values: ArrayLike) -> Float[Reals, "n"]:
    """Return one or more values of a setting as a float64 array."""
    return np.atleast_1d(np.asarray(values, np.float64))


def follow(setting: Setting, values: Reals, pull: Pull, beside: Beside | None = None) -> Course:
    """Descend from right means at every value of a hyperparameter: θ ← θ - η ∫ c ∂log q/∂θ dy.

    Step by step as a training does; beyond `MOST_STEPS` as the flow θ' = -∫ c ∂log q/∂θ dy.

    Args:
        setting: the shared one.
        values: of the hyperparameter, shape (n,).
        pull: c of the objective.
        beside: of an objective with a companion.
    """
    start = np.repeat(setting.mixture(setting.start_weight), values.size, axis=1)
    solve = _stepped if setting.num_steps <= MOST_STEPS else _flowed
    with np.errstate(invalid="ignore"):  # of what diverged
        steps, states = solve(setting, start, pull, beside)
    learner = np.stack([state[0] for state in states])
    companion = None if beside is None else np.stack([at for _, at in states if at is not None])
    nodes = reaching(None, setting.separation, learner[:, 1:])
    return Course(steps * setting.learning_rate, learner, companion, nodes)


_State = tuple[Reals, Reals | None]


def _stepped(setting: Setting, start: Reals, pull: Pull, beside: Beside | None) -> tuple[Reals, list[_State]]:
    """Take the steps of a training; return the recorded ones and the states there."""
    steps, limit = _recorded(setting.num_steps), _FARTHEST * (setting.separation + 10.0)
    learner, companion = start, None if beside is None else start
    nodes, weigh, states = None, None, [(learner, companion)]
    for step in range(1, setting.num_steps + 1):
        means = _means(learner, companion)
        if (wider := reaching(nodes, setting.separation, means)) is not nodes or weigh is None:
            nodes, weigh = wider, pull(wider, companion)
        learner = learner - setting.learning_rate * gradient(nodes, learner, weigh)
        learner = np.where(np.abs(learner[1:]).max(axis=0) < limit, learner, np.nan)
        if beside is not None:
            moved = companion
            if beside.goal is not None and companion is not None:
                moved = companion + beside.rate * (beside.goal(learner) - companion)
            if beside.lag and step % beside.lag == 0:
                moved = learner
            if moved is not companion:
                companion, weigh = moved, None
        if step in steps:
            states.append((learner, companion))
    return np.array(sorted(steps)), states


def _flowed(setting: Setting, start: Reals, pull: Pull, beside: Beside | None) -> tuple[Reals, list[_State]]:
    """Follow the flow; return the recorded steps and the states there."""
    steps = np.array(sorted(_recorded(setting.num_steps)))
    lag = 0 if beside is None else beside.lag
    ends = [*range(lag, setting.num_steps, lag), setting.num_steps] if lag else [setting.num_steps]
    begin, state = 0, (start, None if beside is None else start)
    states: list[_State] = [state]
    for end in ends:
        stops = np.unique(np.append(steps[(steps > begin) & (steps <= end)], end))
        reached = _between_jumps(setting, state, pull, beside, np.append(begin, stops))
        states += [at for at, step in zip(reached, stops, strict=True) if step in steps]
        begin, state = end, (reached[-1][0], reached[-1][0] if lag else reached[-1][1])
    return steps, states


def _between_jumps(
    setting: Setting, state: _State, pull: Pull, beside: Beside | None, steps: Reals
) -> list[_State]:
    """Follow the flow from a state at the first of some steps; return the states at the others."""
    goal = None if beside is None else beside.goal
    first = state[0] if goal is None else np.stack([at for at in state if at is not None])
    nodes: Nodes | None = None
    weigh: Weigh | None = None

    def velocity(_: float, flat: Reals) -> Reals:
        nonlocal nodes, weigh
        now = flat.reshape(first.shape)
        learner, companion = (now, state[1]) if goal is None else now
        wider = reaching(nodes, setting.separation, _means(learner, companion))
        if wider is not nodes or goal is not None or weigh is None:
            nodes, weigh = wider, pull(wider, companion)
        turn = -gradient(nodes, learner, weigh)
        if goal is None or beside is None or companion is None:
            return turn.ravel()
        return np.stack([turn, beside.rate / setting.learning_rate * (goal(learner) - companion)]).ravel()

    times = setting.learning_rate * steps
    solved = solve_ivp(velocity, times[[0, -1]], first.ravel(), t_eval=times[1:], **_ACCURACY)
    if not solved.success:
        raise InputError(f"the flow must be followed to t = {times[-1]:g}; {solved.message}")
    found = solved.y.T.reshape(-1, *first.shape)
    return [(at, state[1]) if goal is None else (at[0], at[1]) for at in found]


def _means(learner: Reals, companion: Reals | None) -> Reals:
    """Return the means of all that the nodes must reach, shape (..., 2, n)."""
    return learner[1:] if companion is None else np.stack([learner[1:], companion[1:]])


def _recorded(num_steps: int) -> set[int]:
    return {int(step) for step in np.round(np.linspace(0.0, num_steps, _NUM_INTERVALS + 1))}
