"""Where each objective takes weight, means and retention: c of its gradient ∫ c ∂log q/∂θ dy, see `paths`."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from mixture_models.integrals.nodes import TINY, Nodes
from mixture_models.theory.paths import Beside, Path, Setting, Weigh, follow, values_of
from mixture_models.types import Reals

#: Most rounds of OAPL whose flow is worth following.
MOST_ROUNDS = 100


def sft(setting: Setting, replay: ArrayLike) -> Path:
    """Follow forward KL from p = (1-λ) p_n + λ p_o: c = -p.

    Args:
        setting: the shared one.
        replay: λ in [0, 1), shape (n,).
    """
    share = values_of(replay)

    def pull(nodes: Nodes, _: None) -> Weigh:
        old, new = nodes.density(0.0), nodes.density(setting.separation)
        data = share[:, None] * old + (1.0 - share)[:, None] * new
        return lambda law: -data

    path = follow(setting, share, pull).path(setting)
    return path._replace(sampled_weight=np.broadcast_to(share[:, None], path.old_weight.shape))


def reverse_kl(setting: Setting, replay: ArrayLike) -> Path:
    """Follow reverse KL to the target, whatever the replay: c = q log(q/p_α).

    Args:
        setting: the shared one.
        replay: λ in [0, 1), shape (n,); changes the batches only, drawn from b = (1-λ) q + λ p_o.
    """
    share = values_of(replay)

    def pull(nodes: Nodes, _: None) -> Weigh:
        return _toward(np.log(nodes.law(setting.mixture(setting.target_weight))))

    course = follow(setting, share, pull)
    path, replayed = course.path(setting), share[:, None]
    old = course.nodes.density(0.0)
    squares = course.at_records(
        lambda law: course.nodes.integral(law**2 / ((1.0 - replayed) * law + replayed * old))
    )
    return path._replace(
        sampled_weight=replayed + (1.0 - replayed) * path.old_weight, effective_fraction=1.0 / squares
    )


def sdft(setting: Setting, anchor: ArrayLike, ema: float) -> Path:
    """Follow SDFT's student and teacher, demonstrated the target: c = q log(q/teacher).

    Args:
        setting: the shared one.
        anchor: λ in [0, 1], shape (n,).
        ema: the teacher's rate a step, in [0, 1].
    """
    strength, shown = values_of(anchor), setting.mixture(setting.target_weight)

    def pull(nodes: Nodes, teacher: Reals) -> Weigh:
        return _toward(np.log(nodes.law(teacher)))

    beside = Beside(lambda learner: (1.0 - strength) * learner + strength * shown, ema)
    return follow(setting, strength, pull, beside).path(setting)


def ttt_discover(setting: Setting, kl_weight: ArrayLike, exponent: float) -> Path:
    """Follow TTT-Discover: c = -q exp(η r)/E_q[exp(η r)] + λ q log(q/q_0), r = Δ s_n, q_0 the start.

    Args:
        setting: the shared one.
        kl_weight: λ ≥ 0, shape (n,).
        exponent: η Δ, with Δ = R_n - R_o of a reward that is flat on each mode.
    """
    anchor = values_of(kl_weight)

    def pull(nodes: Nodes, _: None) -> Weigh:
        home = _toward(np.log(nodes.law(setting.mixture(setting.start_weight))))
        tilt = np.exp(exponent * _new_claim(setting, nodes) - max(exponent, 0.0))

        def weigh(law: Reals) -> Reals:
            tilted = law * tilt
            return anchor[:, None] * home(law) - tilted / nodes.integral(tilted)[:, None]

        return weigh

    return follow(setting, anchor, pull).path(setting)


def oapl(setting: Setting, beta: ArrayLike, lag: int, reward_gap: float = 1.0) -> Path:
    """Follow OAPL's rounds with β₁ = β₂ = τ: c = 2τ π (τ log(q/π) - r + V*), π the lagged policy, r = Δ s_n.

    Args:
        setting: the shared one.
        beta: τ > 0, shape (n,).
        lag: steps between two syncs.
        reward_gap: Δ = R_n - R_o of a reward that is flat on each mode.
    """
    tau = values_of(beta)
    temperature, top = tau[:, None], max(reward_gap, 0.0)

    def pull(nodes: Nodes, lagged: Reals) -> Weigh:
        law = nodes.law(lagged)
        reward = reward_gap * _new_claim(setting, nodes)
        best = top + tau * np.log(nodes.integral(law * np.exp((reward - top) / temperature)))
        fixed = best[:, None] - reward - temperature * np.log(law)
        weight = 2.0 * temperature * law
        return lambda learner: weight * (temperature * np.log(learner) + fixed)

    course = follow(setting, tau, pull, Beside(lag=lag))
    lagged = np.asarray(course.companion)[:, 0].T
    return course.path(setting)._replace(sampled_weight=expit(lagged))


def _toward(log_goal: Reals) -> Weigh:
    """Return c of KL(q ‖ goal)."""
    return lambda law: law * (np.log(law) - log_goal)


def _new_claim(setting: Setting, nodes: Nodes) -> Reals:
    """Return the target's responsibility s_n at the nodes."""
    old, new = nodes.parts(setting.mixture(setting.target_weight))
    result: Reals = new / (old + new + TINY)
    return result
