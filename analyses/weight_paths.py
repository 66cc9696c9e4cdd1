"""Where each objective takes the old weight and, to first order, the old mean: ODEs of integrals on a line.

The weight's equation is the exact gradient flow with the means right. Along it the old mean's displacement x
toward the new mode follows x' = g - k x with the exact drive g at right means and k of modes apart: first
order in the overlap. One solve follows all settings of a knob, and no program is compiled.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from scipy.special import expit, logit

from mixture_models import theory
from mixture_models.theory.line import Line, along_line, log_expit
from mixture_models.theory.rounds import densities, half_steps

# Times at which a path is known, the step of tabulated logits, and the solver's tolerances.
_NUM_TIMES = 201
_LOGIT_STEP = 0.02
_ACCURACY: Any = {"method": "DOP853", "rtol": 1e-6, "atol": 1e-8}


class Path(NamedTuple):
    """A path of the gradient flow; ``sampled_weight`` is the old mass of the law that batches come from."""

    time: Float[np.ndarray, "t"]
    old_weight: Float[np.ndarray, "n t"]
    old_drift: Float[np.ndarray, "n t"]
    sampled_weight: Float[np.ndarray, "n t"]


class Setting(NamedTuple):
    """What all objectives share: δ, the target's and the start's old weight, steps and learning rate."""

    separation: float
    target_weight: float
    start_weight: float
    num_steps: int
    learning_rate: float

    @property
    def end_time(self) -> float:
        """Return steps times learning rate."""
        return self.num_steps * self.learning_rate


def sft(setting: Setting, replay: Any) -> Path:
    """Follow forward KL from (1-λ) p_n + λ p_o: φ' = (1-λ) v(φ) - λ v(-φ), v of `theory.sft_logit_velocity`.

    As v(φ) = -β κ(φ), this is (λ - β) κ. The drive of the old mean is E_data[r_o (y - μ_o)] = (β-λ)/β δ
    E_n[r_o²], its pull-back E_data[r_o].

    Args:
        setting: the shared one.
        replay: λ in [0, 1), shape (n,).
    """
    share, on_line = _knob(replay), _OnLine(setting)

    def velocity(state: np.ndarray) -> np.ndarray:
        phi, x = state
        weight = expit(phi)
        turn = (share - weight) * on_line.kappa(phi)
        drive = (weight - share) / weight * setting.separation * on_line.twice_claimed(phi)
        return np.stack([turn, drive - (weight + turn) * x])

    path = _follow(setting, velocity, share)
    return path._replace(sampled_weight=np.broadcast_to(share[:, None], path.old_weight.shape))


def reverse_kl(setting: Setting, replay: Any) -> Path:
    """Follow reverse KL to the target, whatever the replay: φ' = -`theory.weight_gradient`.

    The old mean follows x' = -β {x + δ (E_o[r_n] - E_o[s_n])}, see `theory.old_mean_drive`.

    Args:
        setting: the shared one.
        replay: λ in [0, 1), shape (n,); changes the batches only.
    """
    share, on_line = _knob(replay), _OnLine(setting)
    goal = logit(setting.target_weight)

    def velocity(state: np.ndarray) -> np.ndarray:
        phi, x = state
        return np.stack([-on_line.weight_gradient(phi, goal), -expit(phi) * (x + on_line.apart(phi, goal))])

    path = _follow(setting, velocity, share)
    replayed = share[:, None]
    return path._replace(sampled_weight=replayed + (1.0 - replayed) * path.old_weight)


def sdft(setting: Setting, anchor: Any, ema: float) -> Path:
    """Follow SDFT's student and teacher, demonstrated the target: reverse KL to a teacher (ψ, z) that moves.

    ψ' = ρ {(1-λ) φ + λ φ_α - ψ} and z' = ρ {(1-λ) x - z} with ρ = ema / learning rate.

    Args:
        setting: the shared one.
        anchor: λ in [0, 1], shape (n,).
        ema: the teacher's rate a step, in [0, 1].
    """
    pull, on_line = _knob(anchor), _OnLine(setting)
    goal, rate = logit(setting.target_weight), ema / setting.learning_rate

    def velocity(state: np.ndarray) -> np.ndarray:
        phi, x, psi, z = state
        return np.stack(
            [
                -on_line.weight_gradient(phi, psi),
                -expit(phi) * (x - z + on_line.apart(phi, psi)),
                rate * ((1.0 - pull) * phi + pull * goal - psi),
                rate * ((1.0 - pull) * x - z),
            ]
        )

    return _follow(setting, velocity, pull, logit(setting.start_weight), 0.0)


def ttt_discover(setting: Setting, kl_weight: Any, eta: float) -> Path:
    """Follow TTT-Discover: -log E_q[exp(η r)] + λ KL(q ‖ q_0), r = s_n, q_0 the start.

    φ' = β(1-β) (A_o - A_n)/M - λ ∂KL/∂φ with A_k = E_k[exp(η r)], M = β A_o + (1-β) A_n; the old mean's drive
    is β E_o[η r' exp(η r)]/M - λ β {x + δ (E_o[r_n] - E_o[r_n at the start])}.

    Args:
        setting: the shared one.
        kl_weight: λ ≥ 0, shape (n,).
        eta: η > 0.
    """
    anchor, on_line = _knob(kl_weight), _OnLine(setting)
    start, goal = logit(setting.start_weight), logit(setting.target_weight)
    of_old, of_new, slope = along_line(_tilted, np.asarray(setting.separation), goal, np.asarray(eta))

    def velocity(state: np.ndarray) -> np.ndarray:
        phi, x = state
        weight = expit(phi)
        total = weight * of_old + expit(-phi) * of_new
        turn = weight * expit(-phi) * (of_old - of_new) / total
        home = x + on_line.apart(phi, start)
        return np.stack(
            [
                turn - anchor * on_line.weight_gradient(phi, start),
                weight * (slope / total - anchor * home),
            ]
        )

    return _follow(setting, velocity, anchor)


def oapl(setting: Setting, beta: Any, lag: int) -> Path:
    """Follow OAPL's rounds with β₁ = β₂, r = s_n: each regresses from its lagged policy, then syncs.

    φ' is that of `theory.oapl_logit_after_exact`; the old mean's drive is -2 β₂ E_lag[ρ r_o (y - μ_o)] with
    the residual ρ, its pull-back to the lagged mean 2 β₂ (β₂ b - E_lag[ρ r_o]), b the lagged weight.

    Args:
        setting: the shared one.
        beta: β₁ = β₂ > 0, shape (n,).
        lag: steps between two syncs.
    """
    tau, delta = _knob(beta), setting.separation
    # The trapezoid rule on this grid is right to about 1e-8.
    y, step = np.linspace(-0.5 * delta - 8.0, 0.5 * delta + 8.0, _num_nodes(delta), retstep=True)
    old, new = (step * density for density in densities(y, np.asarray(delta)))
    odds, temperature = -delta * y, tau[:, None]
    reward = expit(-odds - logit(setting.target_weight))

    def round_from(lagged: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        anchor = lagged[0][:, None]
        law = expit(anchor) * old + expit(-anchor) * new
        best = 1.0 + temperature * np.log(
            (law * np.exp((reward - 1.0) / temperature)).sum(axis=-1, keepdims=True)
        )
        fixed = best - reward - temperature * (np.logaddexp(0.0, anchor + odds) + log_expit(-anchor))

        def velocity(now: np.ndarray) -> np.ndarray:
            phi, x = now[0][:, None], now[1]
            residual = temperature * (np.logaddexp(0.0, phi + odds) + log_expit(-phi)) + fixed
            pulled, claim = -2.0 * temperature * law * residual, expit(phi + odds)
            push = (pulled * claim).sum(axis=-1)
            turn = push - expit(now[0]) * pulled.sum(axis=-1)
            drive = (pulled * claim * (y + 0.5 * delta)).sum(axis=-1)
            back = 2.0 * tau**2 * expit(lagged[0]) + push
            return np.stack([turn, drive - back * (x - lagged[1])])

        return velocity

    state = np.stack([np.full(tau.size, logit(setting.start_weight)), np.zeros(tau.size)])
    times, pieces, sampled = [np.zeros(1)], [state[..., None]], [expit(state[0])[:, None]]
    ends = [*range(lag, setting.num_steps, lag), setting.num_steps]
    for begin, end in zip([0, *ends], ends, strict=False):
        num_times = 2 + (end - begin) * _NUM_TIMES // setting.num_steps
        time = np.linspace(begin, end, num_times) * setting.learning_rate
        solved = _solve(round_from(state), time, state)
        times.append(time[1:])
        pieces.append(solved[..., 1:])
        sampled.append(np.repeat(expit(state[0])[:, None], time.size - 1, axis=-1))
        state = solved[..., -1]
    together = np.concatenate(pieces, axis=-1)
    return Path(
        np.concatenate(times),
        expit(together[0]),
        np.abs(together[1]),
        np.concatenate(sampled, axis=-1),
    )


class _OnLine:
    """Integrals of right means as splines of the logit, over all logits that a path can reach.

    No path leaves the hull of start and target by more than φ' = -β carries it, which is a logarithm of time.
    """

    def __init__(self, setting: Setting) -> None:
        start, goal = logit(setting.start_weight), logit(setting.target_weight)
        low = min(start, goal) - np.log1p(setting.end_time + np.exp(-start)) - 1.0
        high = max(start, goal) + np.log1p(setting.end_time + np.exp(start)) + 1.0
        grid = np.linspace(low, high, int(np.ceil((high - low) / _LOGIT_STEP)) + 1)
        self._separation = np.asarray(setting.separation, np.float64)
        speed = theory.sft_logit_velocity(logit=grid, separation=self._separation)
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


def _knob(values: Any) -> Float[np.ndarray, "n"]:
    return np.atleast_1d(np.asarray(values, np.float64))


def _num_nodes(delta: float) -> int:
    # Responsibilities steepen with δ, but from δ = 8 on where they change there is no mass.
    return int(np.ceil(2.0 * np.clip(delta, 1.5, 8.0) * (delta + 16.0))) + 1


def _follow(
    setting: Setting, velocity: Callable[[np.ndarray], np.ndarray], knob: np.ndarray, *beside: float
) -> Path:
    """Follow (φ, x, ...) from the start, where x = 0 and the others are given, at every value of a knob."""
    first = [logit(setting.start_weight), 0.0, *beside]
    start = np.stack([np.full(knob.size, value) for value in first])
    time = np.linspace(0.0, setting.end_time, _NUM_TIMES)
    solved = _solve(velocity, time, start)
    weight = expit(solved[0])
    return Path(time, weight, np.abs(solved[1]), weight)


def _solve(
    velocity: Callable[[np.ndarray], np.ndarray], time: np.ndarray, start: np.ndarray
) -> Float[np.ndarray, "s n t"]:
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


def _tilted(line: Line, separation: np.ndarray, target: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Return E_o and E_n of exp(g - g_max), and E_o of its slope, g = gap s_n, last axis 3."""
    y, step = half_steps(line)
    old, new = densities(y, separation)
    claim = expit(separation * y - target)
    tilt = np.exp(gap * claim - np.maximum(gap, 0.0))
    slope = tilt * gap * separation * claim * (1.0 - claim)
    return np.stack([(step * value).sum(axis=-1) for value in (old * tilt, new * tilt, old * slope)], axis=-1)
