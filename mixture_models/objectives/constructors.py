"""Post-training objectives: a model, a guide, a sampling law and a divergence.

An objective is only its parts, so NumPyro alone can train it::

    sft = objectives.sft()
    SVI(sft.model, sft.guide, optax.sgd(0.05), sft.loss).run(key, 500, start, target)

except where a companion moves beside the learner (`sdft`, `oapl`): the model then refuses to run without
``companion=``, its params, which `inference.train` moves.

Adding one is one constructor under ``@register``, see `mixture_models.objectives.registry`.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence

from jax.tree_util import Partial

from mixture_models import learners, rewards
from mixture_models.losses.advantage_regression import AdvantageRegression
from mixture_models.losses.entropic import AdaptiveTemperature, EntropicUtility, FixedTemperature
from mixture_models.losses.jensen_shannon import JensenShannon, OnPolicyForwardKL
from mixture_models.losses.kl import ForwardKL, ReverseKL
from mixture_models.losses.loss import Loss
from mixture_models.mixture.mixture import Mixture
from mixture_models.objectives.companions import (
    Lagged,
    Reference,
    Teacher,
    companion_law,
    moving_companion_law,
)
from mixture_models.objectives.models import Seen, new_data, task_data, true_target
from mixture_models.objectives.objective import Objective
from mixture_models.objectives.registry import register, variant
from mixture_models.rewards import RewardLike, mode_reward
from mixture_models.types import ModelOrGuide
from mixture_models.validation import (
    InputError,
    closed_interval,
    fraction,
    integer,
    not_negative,
    open_interval,
    positive,
)

# The default reward: what is new earns 1, what is old nothing.
_NEW_EARNS = mode_reward(0.0, 1.0)


@register
@variant(replay=0.2)
def sft(
    replay: float | Mapping[str, float] = 0.0,
    learner: str | ModelOrGuide = "two_mode",
    task: str | None = None,
) -> Objective:
    """Supervised fine-tuning: forward KL from the new data, KL((1-λ) N(μ_n, Σ) + λ N(μ_o, Σ) ‖ q).

    Without replay its only optimum with right means is β = 0, mass forgetting; with replay it is β = λ. Of
    named tasks the data are (1 - Σ_k λ_k) N(μ_j, Σ) + Σ_k λ_k N(μ_k, Σ), and the optimum is β_k = λ_k.

    Args:
        replay: λ in [0, 1), the share of the old task in the training data; or shares by the names of tasks.
        learner: the guide, ``"two_mode"``, ``"single_mode"`` or a NumPyro program.
        task: the task j that is trained on; None for the new one.

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    guide = learners.resolve(learner)
    if task is not None or isinstance(replay, Mapping):
        model, description = _data_of("new" if task is None else task, replay)
    else:
        share = fraction("replay", replay) or None  # without replay there is no mode to choose
        model = Partial(new_data, share)
        description = "new data" if share is None else "new data with replay of the old mode"
    return Objective(name="sft", model=model, guide=guide, loss=ForwardKL(), description=description)


@register
@variant(replay=0.2)
def reverse_kl(
    replay: float | Mapping[str, float] = 0.0,
    estimator: str = "score",
    learner: str | ModelOrGuide = "two_mode",
    tasks: Sequence[str] | None = None,
) -> Objective:
    """On-policy reinforcement learning: reverse KL to the true target, KL(q ‖ p_α).

    Its optimum is the target, so no mass is forgotten; a right old mode moves only through overlap.
    Replay leaves the population objective as it is and keeps old samples in every batch.

    Args:
        replay: λ in [0, 1), the replayed share of a batch, weighted by q/b ≤ 1/(1-λ); of the old task, or
            shares by the names of tasks.
        estimator: ``"score"`` (leave-one-out baseline) or ``"pathwise"``, see `ReverseKL`.
        learner: the guide, ``"two_mode"``, ``"single_mode"`` or a NumPyro program.
        tasks: the target's tasks that count, such as those seen so far, in the proportions of their weights;
            None for all.

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    guide = learners.resolve(learner)
    shares = _replayed(replay) or None if isinstance(replay, Mapping) else fraction("replay", replay)
    seen = None if tasks is None else _seen(tasks)
    return Objective(
        name="reverse_kl",
        model=Partial(true_target) if seen is None else Partial(Seen(seen)),
        guide=guide,
        loss=ReverseKL(estimator=estimator, replay=shares),
        description="the true target" if seen is None else f"the true target's tasks {', '.join(seen)}",
    )


@register
def sdft(
    anchor: float = 0.1,
    ema: float = 0.05,
    divergence: str | float = "reverse",
    demonstrations: Mixture | None = None,
    learner: str | ModelOrGuide = "two_mode",
) -> Objective:
    """Self-distillation fine-tuning: toward an average of the learner's past, pulled by demonstrations.

    With a teacher ω ← (1-a) ω + a [(1-λ) θ + λ ω_demo] and λ > 0 training from right means goes to the
    demonstrations: old mass is retained iff they hold it, see `theory.sdft_retains`. For λ = 0 every student
    that is its own teacher rests, and nothing restores what is lost.

    Args:
        anchor: λ in [0, 1], the strength of the demonstrations.
        ema: a in [0, 1], the teacher's rate a step.
        divergence: ``"reverse"``, KL(q ‖ teacher); ``"forward"``, KL(teacher ‖ q) on the learner's samples,
            as in the authors' runs; or α in (0, 1) for the published interpolation, see `JensenShannon`.
        demonstrations: the mixture that is demonstrated, None for the target; it acts through the params
            that the learner has when it is started there.
        learner: the guide, ``"two_mode"``, ``"single_mode"`` or a NumPyro program.

    Source: arXiv:2601.19897 for the method; derivation: docs/theory.md.
    """
    if not (demonstrations is None or isinstance(demonstrations, Mixture)):
        kind = type(demonstrations).__name__
        raise InputError(f"demonstrations must be a TwoMode, a Mixture or None; got {kind}")
    guide = learners.resolve(learner)
    return Objective(
        name="sdft",
        model=Partial(moving_companion_law, guide),
        guide=guide,
        loss=_divergence(divergence),
        description="a moving average of the learner, anchored to demonstrations",
        companion=Teacher(closed_interval("anchor", anchor), closed_interval("ema", ema), demonstrations),
    )


@register
def ttt_discover(
    reward: RewardLike = _NEW_EARNS,
    kl_weight: float = 0.1,
    eta: str | float = 1.0,
    kl_budget: float = math.log(2.0),
    learner: str | ModelOrGuide = "two_mode",
) -> Objective:
    """TTT-Discover: maximise log E_q[exp(η r)] - λ KL(q ‖ q_0), q_0 the learner at the start.

    Where the new mode earns more than the old one, old mass is retained iff λ > 0 for modes apart, iff
    λ > λ_c(δ) where they overlap, see `theory.ttt_discover_retains`.

    Args:
        reward: see `mixture_models.rewards`; a function of (y) or of (y, target, reference).
        kl_weight: λ ≥ 0.
        eta: η > 0, or ``"adaptive"`` for the η that spends ``kl_budget`` on each batch.
        kl_budget: KL(softmax(η r) ‖ uniform) of an adaptive η, in nats.
        learner: the guide, ``"two_mode"``, ``"single_mode"`` or a NumPyro program.

    Source: arXiv:2601.16175 for the method; derivation: docs/theory.md.
    """
    guide, earned = learners.resolve(learner), rewards.resolve(reward)
    anchor, temperature = not_negative("kl_weight", kl_weight), _temperature(eta, kl_budget)
    return Objective(
        name="ttt_discover",
        model=Partial(companion_law, guide),
        guide=guide,
        loss=EntropicUtility(earned, anchor, temperature),
        description="reward, anchored to the learner at the start",
        companion=Reference(),
    )


@register
def oapl(
    reward: RewardLike = _NEW_EARNS,
    beta1: float = 1.0,
    beta2: float = 1.0,
    lag: int = 50,
    group_size: int | None = None,
    learner: str | ModelOrGuide = "two_mode",
) -> Objective:
    """OAPL: regress log ratios to a lagged policy onto advantages, on the lagged policy's samples.

    With β₁ = β₂ = τ a round that is trained to convergence multiplies the lagged policy by exp(r/τ): for
    modes apart the old logit falls by (R_n - R_o)/τ at every sync, and less in shorter rounds. Where modes
    overlap a few such rounds take all, see `theory.oapl_retains`.

    Args:
        reward: see `mixture_models.rewards`; a function of (y) or of (y, target, reference), the reference
            being the lagged policy.
        beta1: β₁ > 0, temperature of V*.
        beta2: β₂ > 0, weight of the log ratio.
        lag: steps between two syncs.
        group_size: samples that share one V*, at least 2 and a divisor of the batch; None for all.
        learner: the guide, ``"two_mode"``, ``"single_mode"`` or a NumPyro program.

    Source: arXiv:2602.19362 for the method; derivation: docs/theory.md.
    """
    guide, earned = learners.resolve(learner), rewards.resolve(reward)
    beta1, beta2 = positive("beta1", beta1), positive("beta2", beta2)
    if beta1 != beta2:
        warnings.warn(
            f"beta1 = {beta1:g} and beta2 = {beta2:g} differ: what OAPL regresses onto is then no normalised "
            "policy",
            stacklevel=3,
        )
    size = None if group_size is None else integer("group_size", group_size, at_least=2)
    lag = integer("lag", lag)
    return Objective(
        name="oapl",
        model=Partial(moving_companion_law, guide),
        guide=guide,
        loss=AdvantageRegression(earned, beta1, beta2, size),
        description="a lagged policy, tilted by reward",
        companion=Lagged(lag),
    )


def _data_of(task: str, replay: float | Mapping[str, float]) -> tuple[Partial, str]:
    """Return the model of the data of one task with shares of others, and what it is in words."""
    if not isinstance(task, str):
        raise InputError(f"task must be the name of a task; got {task!r}")
    if not isinstance(replay, Mapping) and fraction("replay", replay):
        raise InputError(f"replay must map names of tasks to shares where a task is named; got {replay!r}")
    shares = _replayed(replay) if isinstance(replay, Mapping) else {}
    if task in shares:
        raise InputError(f"replay must name other tasks than the one that is trained on; got {task}")
    own = {task: 1.0 - sum(shares.values())}
    replayed = f" with replay of {', '.join(shares)}" if shares else ""
    return Partial(task_data, own | shares), f"data of {task}{replayed}"


def _replayed(replay: Mapping[str, float]) -> dict[str, float]:
    """Return the replayed shares that are not 0, or refuse shares that sum to 1 or more."""
    shares = {name: fraction(f"the replay of {name}", share) for name, share in replay.items()}
    fraction("the sum of replay", sum(shares.values()))
    return {name: share for name, share in shares.items() if share}


def _seen(tasks: Sequence[str]) -> tuple[str, ...]:
    """Return the names of tasks that count, or refuse what is no list of different names."""
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InputError(f"tasks must be different names of tasks; got {tasks!r}")
    return tuple(names)


def _divergence(divergence: str | float) -> Loss:
    """Return the divergence of SDFT that a name or a number stands for."""
    if not isinstance(divergence, str):
        return JensenShannon(open_interval("divergence", divergence))
    if divergence not in _DIVERGENCES:
        raise InputError(
            f"divergence must be {', '.join(_DIVERGENCES)} or a number in (0, 1); got {divergence!r}"
        )
    return _DIVERGENCES[divergence]()


_DIVERGENCES: dict[str, Callable[[], Loss]] = {"reverse": ReverseKL, "forward": OnPolicyForwardKL}


def _temperature(eta: str | float, kl_budget: float) -> FixedTemperature | AdaptiveTemperature:
    """Return where η comes from."""
    budget = positive("kl_budget", kl_budget)
    if not isinstance(eta, str):
        return FixedTemperature(positive("eta", eta))
    if eta != "adaptive":
        raise InputError(f"eta must be adaptive or a number; got {eta!r}")
    return AdaptiveTemperature(budget)
