"""Where each objective takes the old weight and the old mean, by its own equation: see `theory.paths`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit, logit

from mixture_models.theory.line import Line, along_line, log_expit
from mixture_models.theory.paths import NUM_TIMES, Path, Setting, follow, knob_values, on_line, solve
from mixture_models.theory.replay import effective_sample_fraction
from mixture_models.theory.rounds import densities, half_steps

#: Most rounds of OAPL that are worth following.
MOST_ROUNDS = 100


def sft(setting: Setting, replay: Any) -> Path:
    """Follow forward KL from (1-λ) p_n + λ p_o: φ' = (1-λ) v(φ) - λ v(-φ), v of `theory.sft_logit_velocity`.

    As v(φ) = -β κ(φ), this is (λ - β) κ. The drive of the old mean is E_data[r_o (y - μ_o)] = (β-λ)/β δ
    E_n[r_o²], its pull-back E_data[r_o].

    Args:
        setting: the shared one.
        replay: λ in [0, 1), shape (n,).
    """
    share, integrals = knob_values(replay), on_line(setting)

    def velocity(state: np.ndarray) -> np.ndarray:
        phi, x = state
        weight = expit(phi)
        turn = (share - weight) * integrals.kappa(phi)
        drive = (weight - share) / weight * setting.separation * integrals.twice_claimed(phi)
        return np.stack([turn, drive - (weight + turn) * x])

    path = follow(setting, velocity, share)
    return path._replace(sampled_weight=np.broadcast_to(share[:, None], path.old_weight.shape))


def reverse_kl(setting: Setting, replay: Any) -> Path:
    """Follow reverse KL to the target, whatever the replay: φ' = -`theory.weight_gradient`.

    The old mean follows x' = -β {x + δ (E_o[r_n] - E_o[s_n])}, see `theory.old_mean_drive`.

    Args:
        setting: the shared one.
        replay: λ in [0, 1), shape (n,); changes the batches only.
    """
    share, integrals = knob_values(replay), on_line(setting)
    goal = logit(setting.target_weight)

    def velocity(state: np.ndarray) -> np.ndarray:
        phi, x = state
        return np.stack(
            [-integrals.weight_gradient(phi, goal), -expit(phi) * (x + integrals.apart(phi, goal))]
        )

    path = follow(setting, velocity, share)
    replayed = share[:, None]
    return path._replace(
        sampled_weight=replayed + (1.0 - replayed) * path.old_weight,
        effective_fraction=effective_sample_fraction(path.old_weight, setting.separation, replayed),
    )


def sdft(setting: Setting, anchor: Any, ema: float) -> Path:
    """Follow SDFT's student and teacher, demonstrated the target: reverse KL to a teacher (ψ, z) that moves.

    ψ' = ρ {(1-λ) φ + λ φ_α - ψ} and z' = ρ {(1-λ) x - z} with ρ = ema / learning rate.

    Args:
        setting: the shared one.
        anchor: λ in [0, 1], shape (n,).
        ema: the teacher's rate a step, in [0, 1].
    """
    pull, integrals = knob_values(anchor), on_line(setting)
    goal, rate = logit(setting.target_weight), ema / setting.learning_rate

    def velocity(state: np.ndarray) -> np.ndarray:
        phi, x, psi, z = state
        return np.stack(
            [
                -integrals.weight_gradient(phi, psi),
                -expit(phi) * (x - z + integrals.apart(phi, psi)),
                rate * ((1.0 - pull) * phi + pull * goal - psi),
                rate * ((1.0 - pull) * x - z),
            ]
        )

    return follow(setting, velocity, pull, logit(setting.start_weight), 0.0)


def ttt_discover(setting: Setting, kl_weight: Any, exponent: float) -> Path:
    """Follow TTT-Discover: -log E_q[exp(η r)] + λ KL(q ‖ q_0), r = Δ s_n, q_0 the start.

    φ' = β(1-β) (A_o - A_n)/M - λ ∂KL/∂φ with A_k = E_k[exp(η r)], M = β A_o + (1-β) A_n; the old mean's drive
    is β E_o[η r' exp(η r)]/M - λ β {x + δ (E_o[r_n] - E_o[r_n at the start])}.

    Args:
        setting: the shared one.
        kl_weight: λ ≥ 0, shape (n,).
        exponent: η Δ, with Δ = R_n - R_o of a reward that is flat on each mode.
    """
    anchor, integrals = knob_values(kl_weight), on_line(setting)
    start, goal = logit(setting.start_weight), logit(setting.target_weight)
    of_old, of_new, slope = along_line(_tilted, np.asarray(setting.separation), goal, np.asarray(exponent))

    def velocity(state: np.ndarray) -> np.ndarray:
        phi, x = state
        weight = expit(phi)
        total = weight * of_old + expit(-phi) * of_new
        turn = weight * expit(-phi) * (of_old - of_new) / total
        home = x + integrals.apart(phi, start)
        return np.stack(
            [
                turn - anchor * integrals.weight_gradient(phi, start),
                weight * (slope / total - anchor * home),
            ]
        )

    return follow(setting, velocity, anchor)


def oapl(setting: Setting, beta: Any, lag: int, reward_gap: float = 1.0) -> Path:
    """Follow OAPL's rounds with β₁ = β₂, r = Δ s_n: each regresses from its lagged policy, then syncs.

    φ' is that of `theory.oapl_logit_after_exact`; the old mean's drive is -2 β₂ E_lag[ρ r_o (y - μ_o)] with
    the residual ρ, its pull-back to the lagged mean 2 β₂ (β₂ b - E_lag[ρ r_o]), b the lagged weight.

    Args:
        setting: the shared one.
        beta: β₁ = β₂ > 0, shape (n,).
        lag: steps between two syncs.
        reward_gap: Δ = R_n - R_o of a reward that is flat on each mode.
    """
    tau, delta = knob_values(beta), setting.separation
    # The trapezoid rule on this grid is right to about 1e-8.
    y, step = np.linspace(-0.5 * delta - 8.0, 0.5 * delta + 8.0, _num_nodes(delta), retstep=True)
    old, new = (step * density for density in densities(y, np.asarray(delta)))
    odds, temperature = -delta * y, tau[:, None]
    reward, top = reward_gap * expit(-odds - logit(setting.target_weight)), max(reward_gap, 0.0)

    def round_from(lagged: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        anchor = lagged[0][:, None]
        law = expit(anchor) * old + expit(-anchor) * new
        best = top + temperature * np.log(
            (law * np.exp((reward - top) / temperature)).sum(axis=-1, keepdims=True)
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
        num_times = 2 + (end - begin) * NUM_TIMES // setting.num_steps
        time = np.linspace(begin, end, num_times) * setting.learning_rate
        solved = solve(round_from(state), time, state)
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
        np.ones_like(together[0]),
    )


def _num_nodes(delta: float) -> int:
    # Responsibilities steepen with δ, but from δ = 8 on where they change there is no mass.
    return int(np.ceil(2.0 * np.clip(delta, 1.5, 8.0) * (delta + 16.0))) + 1


def _tilted(line: Line, separation: np.ndarray, target: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Return E_o and E_n of exp(g - g_max), and E_o of its slope, g = gap s_n, last axis 3."""
    y, step = half_steps(line)
    old, new = densities(y, separation)
    claim = expit(separation * y - target)
    tilt = np.exp(gap * claim - np.maximum(gap, 0.0))
    slope = tilt * gap * separation * claim * (1.0 - claim)
    return np.stack([(step * value).sum(axis=-1) for value in (old * tilt, new * tilt, old * slope)], axis=-1)
