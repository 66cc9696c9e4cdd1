"""Paths of a learner whose means are right: its weight exactly and, to first order, its old mean.

Along the weight's path the old mean's displacement x toward the new mode follows x' = g - k x with the exact
drive g at right means and k of modes apart: first order in the overlap. One solve follows all values of a
knob, from integrals on a line that are tabulated once; no program is compiled.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from scipy.special import expit, logit

from mixture_models.theory.line import Line, along_line, log_expit
from mixture_models.theory.mass import sft_logit_velocity

#: Times at which a path is known.
NUM_TIMES = 201

# The step of tabulated logits, and the solver's tolerances.
_LOGIT_STEP = 0.02
_ACCURACY: Any = {"method": "DOP853", "rtol": 1e-6, "atol": 1e-8}


class Path(NamedTuple):
    """A path of the gradient flow at n values of a setting.

    Attributes:
        time: steps times learning rate.
        old_weight: β.
        old_drift: δ(m_o, μ_o), to first order in the overlap.
        sampled_weight: old mass of the law that batches are drawn from.
        effective_fraction: effective sample fraction of a batch, 1 where nothing is weighted.
    """

    time: Float[np.ndarray, "t"]
    old_weight: Float[np.ndarray, "n t"]
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


class OnLine:
    """Integrals of right means as splines of the logit, over all logits that a path can reach.

    No path leaves the hull of start and target by more than φ' = -β carries it, which is a logarithm of time.
    """

    def __init__(self, setting: Setting) -> None:
        start, goal = logit(setting.start_weight), logit(setting.target_weight)
        low = min(start, goal) - np.log1p(setting.end_time + np.exp(-start)) - 1.0
        high = max(start, goal) + np.log1p(setting.end_time + np.exp(start)) + 1.0
        grid = np.linspace(low, high, int(np.ceil((high - low) / _LOGIT_STEP)) + 1)
        self._separation = np.asarray(setting.separation, np.float64)
        speed = sft_logit_velocity(logit=grid, separation=self._separation)
        self.kappa = CubicSpline(grid, -speed / expit(grid))
        self.twice_claimed = CubicSpline(grid, along_line(_twice_claimed, self._separation, grid))
        self._pull = self.kappa.antiderivative()
        self._claimed = CubicSpline(grid, along_line(_claimed, self._separation, grid))

    def weight_gradient(self, phi: Any, goal: Any) -> np.ndarray:
        """Return `theory.weight_gradient`, β(1-β) ∫ κ from the goal to φ."""
        return expit(phi) * expit(-phi) * (self._pull(phi) - self._pull(goal))

    def apart(self, phi: Any, goal: Any) -> np.ndarray:
        """Return δ times the difference of E_o[r_n] at two logits."""
        return self._separation * (self._claimed(phi) - self._claimed(goal))


@lru_cache(maxsize=8)
def on_line(setting: Setting) -> OnLine:
    """Return the tabulated integrals of a setting, which all objectives share."""
    return OnLine(setting)


def knob_values(values: Any) -> Float[np.ndarray, "n"]:
    """Return one or more values of a setting as a float64 array."""
    return np.atleast_1d(np.asarray(values, np.float64))


def follow(
    setting: Setting, velocity: Callable[[np.ndarray], np.ndarray], knob: np.ndarray, *beside: float
) -> Path:
    """Follow (φ, x, ...) from the start, where x = 0 and the others are given, at every value of a knob."""
    first = [logit(setting.start_weight), 0.0, *beside]
    start = np.stack([np.full(knob.size, value) for value in first])
    time = np.linspace(0.0, setting.end_time, NUM_TIMES)
    solved = solve(velocity, time, start)
    weight = expit(solved[0])
    return Path(time, weight, np.abs(solved[1]), weight, np.ones_like(weight))


def solve(
    velocity: Callable[[np.ndarray], np.ndarray], time: np.ndarray, start: np.ndarray
) -> Float[np.ndarray, "s n t"]:
    """Return states of shape (s, n) that follow a velocity from a start, at given times."""
    solved = solve_ivp(
        lambda _, flat: velocity(flat.reshape(start.shape)).ravel(),
        (time[0], time[-1]),
        start.ravel(),
        t_eval=time,
        **_ACCURACY,
    )
    return solved.y.reshape(*start.shape, time.size)


def _claimed(line: Line, separation: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return E_o[r_n]."""
    return line.integral(np.exp(line.log_old + line.log_new + log_expit(-logits) - line.log_mixture(logits)))


def _twice_claimed(line: Line, separation: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return E_n[r_o²]; by Stein's identity δ times it is E_n[r_o (y - μ_o)]."""
    claim = log_expit(logits) + line.log_old - line.log_mixture(logits)
    return line.integral(np.exp(line.log_new + 2.0 * claim))
