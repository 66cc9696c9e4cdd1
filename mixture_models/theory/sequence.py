"""Several named tasks: how their weights move and rest, what moves their means, and which batch shows none.

β_k are the learner's weights, in the order of the tasks, with sum 1. Gradient flow moves the symmetric
softmax logits by half of their derivatives, φ' = -½ ∂L/∂φ, so that for two tasks φ_o - φ_n moves as
`TwoMode.old_logit` does. "Separated" formulas hold up to terms of the order of the overlaps. Derivations are
in the docstrings.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from mixture_models.mixture import covariance as cov
from mixture_models.mixture.mixture import Mixture, like_tasks, overlaps
from mixture_models.theory.mass import sft_old_weight_separated
from mixture_models.theory.replay import whole_batch
from mixture_models.types import Reals
from mixture_models.validation import (
    InputError,
    bounded_array,
    finite_array,
    integer,
    not_negative,
    positive,
)

# By how much weights may miss a sum of 1.
_SUM_ERROR = 1e-9


def sft_task_weights_separated(
    times: ArrayLike, start_weights: ArrayLike, shares: ArrayLike
) -> Float[Reals, "time K"]:
    """Return the weights under forward KL on data with shares λ_k of the tasks, for separated modes.

    They follow φ_k' = ½ (λ_k - β_k), since E_data[r_k] = λ_k. On one task j, λ_j = 1, the others lose in
    proportion to what they hold, (φ_k - φ_l)' = -½ (β_k - β_l): their weights equalise while they die.
    With replay the only rest is β_k = λ_k.

    Args:
        times: t ≥ 0 of the gradient flow, increasing, shape (time,).
        start_weights: β_k in (0, 1) at t = 0, with sum 1.
        shares: λ_k in [0, 1], with sum 1.

    Raises:
        InputError: an argument out of range.
    """
    when = finite_array("times", times)
    if when.ndim != 1 or not when.size or when[0] < 0.0 or np.any(np.diff(when) <= 0.0):
        raise InputError("times must be an increasing list of numbers of at least 0")
    start, data = _simplex("start_weights", start_weights, "(0, 1)"), _simplex("shares", shares, "[0, 1]")
    if start.shape != data.shape:
        raise InputError(f"shares must be one a task, {start.size}; got {data.size}")
    if not when[-1] > 0.0:
        return np.tile(start, (when.size, 1))
    solved = solve_ivp(
        lambda t, logits: 0.5 * (data - softmax(logits)),
        (0.0, when[-1]),
        np.log(start),
        method="LSODA",
        t_eval=when,
        rtol=1e-11,
        atol=1e-11,
    )
    return np.asarray(softmax(solved.y.T, axis=-1))


def sft_sequence_weights_separated(
    start_weights: ArrayLike, stages: Sequence[tuple[int, float]]
) -> Float[Reals, "stage K"]:
    """Return the weights after each stage of forward KL on one task, without replay, for separated modes.

    A task that holds little, while another old one and the trained one hold B and 1-B, keeps its logit, and
    so does the sum of theirs: its weight follows √(B (1-B)). So a stage multiplies what the first task is
    left with by √(B_T (1-B_T) / (B_0 (1-B_0))), which is *above* 1 while a rare new task rises to ½.

    Args:
        start_weights: β_k in (0, 1), with sum 1.
        stages: the place of the task that is trained on, and the time t > 0 that it takes, of every stage.

    Returns:
        Shape (stages + 1, K), the start first.

    Raises:
        InputError: an argument out of range.
    """
    weights = [_simplex("start_weights", start_weights, "(0, 1)")]
    if not stages:
        raise InputError("stages must be at least one (task, time); got none")
    for place, time in stages:
        task = integer("the task of a stage", place, at_least=0, at_most=weights[0].size - 1)
        duration = positive("the time of a stage", time)
        shares = np.eye(weights[0].size)[task]
        # Rounding, which would be refused.
        start = weights[-1] / weights[-1].sum()
        weights.append(sft_task_weights_separated([duration], start, shares)[-1])
    return np.stack(weights)


def sft_old_weight_of_equal_tasks(
    time: ArrayLike, start_weight: ArrayLike, num_tasks: int
) -> Float[Reals, "..."]:
    """Return the weight B of all old tasks that hold equally much, under forward KL on the K-th.

    logit(B)' = -c B with c = K/(2 (K-1)): two tasks' law in the time c t, B ~ 2 (K-1)/(K t) in the end. What
    old tasks' weights differ by fades on the way, log(β_k/β_l) ~ t^(-1/K), so slowly that the law is an
    asymptote of unequal ones.

    Args:
        time: t ≥ 0 of the gradient flow.
        start_weight: B in (0, 1) at t = 0.
        num_tasks: K ≥ 2, the trained one included.

    Raises:
        InputError: an argument out of range.
    """
    count = integer("num_tasks", num_tasks, at_least=2)
    pace = count / (2.0 * (count - 1.0))
    return sft_old_weight_separated(pace * finite_array("time", time), start_weight)


def task_drive_bounds(learner: Mixture, target: Mixture) -> Float[Reals, "K K"]:
    """Return what each other task adds to the bound of a right mean's drive under reverse KL.

    Where m_k = μ_k, Σ ∂L/∂m_k = β_k Σ_l {E[r_l] (m_l - μ_k) - E[s_l] (μ_l - μ_k)} under N(μ_k, Σ), and
    E[r_l] ≤ ½ √(β_l/β_k) BC. So its length [Mahalanobis] is at most the sum over l of

        β_k {½ √(β_l/β_k) BC(μ_k, m_l) δ(μ_k, m_l) + ½ √(α_l/α_k) BC(μ_k, μ_l) δ(μ_k, μ_l)}.

    Each pair is gated by its own Bhattacharyya coefficient exp(-δ²/8), so that the nearest pair dominates.

    Args:
        learner: q; row k holds where its mean k is right.
        target: p_α, of the same tasks and the same covariance.

    Returns:
        Entry (k, l) is what task l adds for the mean of task k, 0 for l = k.

    Raises:
        InputError: other tasks, or covariances that are not one.

    Source: arXiv:2603.12163 for two tasks; derivation: docs/theory.md.
    """
    like_tasks("learner", learner, target)
    scale = target.shared_scale
    own = learner.shared_scale
    if scale is None or own is None or not np.array_equal(scale, own):
        raise InputError("the bound needs one covariance of learner and target; got several")
    total = np.zeros((target.num_tasks,) * 2)
    right = np.asarray(target.means)
    for mixture in (learner, target):
        # Of the right mean k and the mixture's own l.
        rows = [
            [_pair(scale, right[k], mean) for mean in np.asarray(mixture.means)]
            for k in range(target.num_tasks)
        ]
        log_weights = np.asarray(mixture.log_weights, np.float64)
        total += 0.5 * np.exp(0.5 * (log_weights[None] - log_weights[:, None])) * np.array(rows)
    np.fill_diagonal(total, 0.0)
    result: Reals = total * np.exp(np.asarray(learner.log_weights, np.float64))[:, None]
    return result


def nearest_task(mixture: Mixture) -> tuple[str, ...]:
    """Return for every task the one that its mode overlaps most: whose pair gates its drift."""
    between = np.array(overlaps(mixture))
    np.fill_diagonal(between, -1.0)
    return tuple(mixture.names[place] for place in between.argmax(axis=1))


def task_starvation_probability(
    weights: ArrayLike, batch_size: ArrayLike, replay: ArrayLike = 0.0
) -> Float[Reals, "... K"]:
    """Return (1 - (1-λ) β_k - λ_k)^N, the probability that a batch holds no sample of task k.

    λ = Σ_k λ_k is the replayed share. Without replay it is (1-β_k)^N: the rarest task starves first.

    Args:
        weights: β_k in [0, 1], with sum 1.
        batch_size: N ≥ 1, whole; a number, or shape (..., 1).
        replay: λ_k in [0, 1] by the place of the task, with a sum of at most 1; 0 is on-policy.

    Raises:
        InputError: an argument out of range.

    Source: arXiv:2603.12163 for two tasks; derivation: docs/theory.md.
    """
    own = _simplex("weights", weights, "[0, 1]")
    shares = np.broadcast_to(bounded_array("replay", replay, "[0, 1]"), own.shape)
    total = shares.sum()
    if total > 1.0 + _SUM_ERROR:
        raise InputError(f"replay must sum to at most 1; it sums to {total:.12g}")
    size = whole_batch(batch_size)
    with np.errstate(divide="ignore"):
        log_missing = np.log1p(-np.minimum((1.0 - min(total, 1.0)) * own + shares, 1.0))
    return np.exp(size * log_missing)


def starvation_batch_size(weight: ArrayLike, probability: ArrayLike) -> Float[Reals, "..."]:
    """Return the smallest batch that holds no sample of a task with at most a probability.

    N = log p / log(1-β), rounded up.

    Args:
        weight: β in (0, 1) of the task.
        probability: p in (0, 1).

    Raises:
        InputError: an argument out of range.
    """
    own = bounded_array("weight", weight, "(0, 1)")
    allowed = bounded_array("probability", probability, "(0, 1)")
    # What is whole but for rounding stays.
    exact = np.log(allowed) / np.log1p(-own)
    return np.maximum(1.0, np.ceil(exact * (1.0 - 4.0 * np.finfo(float).eps)))


def starvation_replay(
    weight: ArrayLike, batch_size: ArrayLike, probability: ArrayLike
) -> Float[Reals, "..."]:
    """Return the least replayed share of a task with which a batch holds none of it with a probability.

    ((1-λ) (1-β))^N = p gives λ = 1 - p^(1/N)/(1-β), and 0 where no replay is needed.

    Args:
        weight: β in [0, 1) of the task.
        batch_size: N ≥ 1, whole.
        probability: p in (0, 1).

    Raises:
        InputError: an argument out of range.
    """
    own = bounded_array("weight", weight, "[0, 1)")
    allowed = bounded_array("probability", probability, "(0, 1)")
    return np.maximum(0.0, -np.expm1(np.log(allowed) / whole_batch(batch_size) - np.log1p(-own)))


def ttt_discover_task_weights(
    start_weights: ArrayLike, *, rewards: ArrayLike, kl_weight: float, eta: float = 1.0
) -> Float[Reals, "K"]:
    """Return the weights at which TTT-Discover rests, for separated modes and a reward a task.

    J = log Σ_k β_k w_k - λ Σ_k β_k log(β_k/β⁰_k), w_k = exp(η R_k), is concave, and its maximum for λ > 0

        β_k ∝ β⁰_k exp(w_k/(λ Z)),  Z = Σ_k β_k w_k,

    keeps every task. Z is the one root of an increasing function. For λ = 0 only the tasks that earn most are
    left, in the proportions of the start if they rise together.

    Args:
        start_weights: β⁰_k in (0, 1), the reference policy's, with sum 1.
        rewards: R_k.
        kl_weight: λ ≥ 0.
        eta: η > 0, with η times the range of rewards at most 500.

    Raises:
        InputError: an argument out of range.

    Source: arXiv:2601.16175 for the method; derivation: docs/theory.md.
    """
    start, earned = _start_and_rewards(start_weights, rewards)
    anchor, gain = not_negative("kl_weight", kl_weight), positive("eta", eta)
    below = gain * (earned - earned.max())
    if below.min() < -500.0:
        raise InputError(f"eta times the range of rewards must be at most 500; got {-below.min():g}")
    if anchor == 0.0:
        best: Reals = np.where(below == 0.0, start, 0.0)
        return best / float(best.sum())
    w = np.exp(below)

    def at(normaliser: float) -> Reals:
        result: Reals = np.exp(log_softmax(np.log(start) + w / (anchor * normaliser)))
        return result

    low = float(w.min())
    if low == 1.0:
        return start
    root: float = brentq(lambda z: z - float(at(z) @ w), low, 1.0, xtol=1e-300, rtol=1e-14)
    return at(root)


def oapl_task_weights(
    num_syncs: int, start_weights: ArrayLike, *, rewards: ArrayLike, beta: float = 1.0
) -> Float[Reals, "K"]:
    """Return OAPL's weights after n rounds that are trained to convergence, for separated modes.

    With β₁ = β₂ = τ a round multiplies the lagged policy by exp(r/τ): β_k ∝ β⁰_k exp(n R_k/τ). Every task
    survives any finite number of rounds, and without end only the tasks that earn most do.

    Args:
        num_syncs: n ≥ 0.
        start_weights: β⁰_k in (0, 1), with sum 1.
        rewards: R_k.
        beta: τ > 0.

    Raises:
        InputError: an argument out of range.

    Source: arXiv:2602.19362 for the method; derivation: docs/theory.md.
    """
    start, earned = _start_and_rewards(start_weights, rewards)
    rounds = integer("num_syncs", num_syncs, at_least=0)
    result: Reals = softmax(np.log(start) + rounds * (earned - earned.max()) / positive("beta", beta))
    return result


def _start_and_rewards(start_weights: ArrayLike, rewards: ArrayLike) -> tuple[Reals, Reals]:
    """Return the checked weights at the start, and the rewards, one of each a task."""
    start, earned = _simplex("start_weights", start_weights, "(0, 1)"), finite_array("rewards", rewards)
    if earned.shape != start.shape:
        raise InputError(f"rewards must be one a task, {start.size}; got shape {earned.shape}")
    return start, earned


def _pair(scale: Reals, a: Reals, b: Reals) -> float:
    """Return BC(a, b) δ(a, b)."""
    distance = float(cov.length(scale, a - b))
    return distance * float(np.exp(-(distance**2) / 8.0))


def _simplex(name: str, value: ArrayLike, interval: str) -> Reals:
    """Return numbers of an interval with sum 1, one a task, or raise `InputError`."""
    result = bounded_array(name, value, interval)
    if result.ndim != 1 or result.size < 2:
        raise InputError(f"{name} must be one a task, of at least 2 tasks; got shape {result.shape}")
    total = float(result.sum())
    if abs(total - 1.0) > _SUM_ERROR:
        raise InputError(f"{name} must sum to 1; they sum to {total:.12g}")
    return result
