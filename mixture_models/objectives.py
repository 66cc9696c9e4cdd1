"""Post-training objectives: a model, a guide, a sampling law and a divergence, and their registry.

An objective is only its parts, so NumPyro alone can train it::

    sft = objectives.sft()
    SVI(sft.model, sft.guide, optax.sgd(0.05), sft.divergence).run(key, 500, start, target)

Adding one is one constructor under ``@register``.
"""

import inspect
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.tree_util import Partial

from mixture_models import arguments, learners, rewards
from mixture_models.advantage_regression import AdvantageRegression
from mixture_models.companions import Lagged, Reference, Teacher, companion_law
from mixture_models.divergences import BEHAVIOUR, ForwardKL, ReverseKL
from mixture_models.entropic import AdaptiveTemperature, EntropicUtility, FixedTemperature
from mixture_models.jensen_shannon import JensenShannon, OnPolicyForwardKL
from mixture_models.rewards import mode_reward
from mixture_models.two_mode import TwoMode
from mixture_models.validation import (
    InputError,
    closed_interval,
    fraction,
    integer,
    not_negative,
    one_of,
    open_interval,
    positive,
)


@dataclass(frozen=True)
class Objective:
    """A post-training objective.

    Attributes:
        name: what tables and results call it, such as ``"sft:replay=0.2"``.
        model: NumPyro program ``(start, target)``, the law that the learner is pulled toward; with a
            companion it takes the companion's params as the keyword argument ``companion``, None for
            those at the start.
        guide: NumPyro program ``(start, target)``, the learner; its params are what training moves.
        divergence: NumPyro ELBO between the two; it holds the sampling law.
        description: the model in words.
        companion: the policy that travels beside the learner, see `mixture_models.companions`, or None.
        made_by: the constructor and its arguments, for `changed`; None where none is registered.

    All but the texts are JAX pytrees whose leaves are the numeric settings: objectives that differ in
    numbers only share one compiled program.
    """

    name: str
    model: Callable[..., None]
    guide: Callable[..., None]
    divergence: Any
    description: str = ""
    companion: Any = None
    made_by: tuple[Callable[..., Any], dict[str, Any]] | None = field(default=None, repr=False, compare=False)

    @property
    def arguments(self) -> list[str]:
        """The names of the constructor's arguments; none where no constructor is registered."""
        return [] if self.made_by is None else list(inspect.signature(self.made_by[0]).parameters)

    def changed(self, **changes: Any) -> Self:
        """Return what the constructor makes with some arguments changed; the name stays.

        Raises:
            InputError: an argument that the constructor does not take, a refused value, or an objective that
                is not what a registered constructor made.
        """
        if not changes:
            return self
        if self.made_by is None or not self._is_as_made():
            wanted = "must be what a registered constructor makes, for its arguments to be changed"
            raise InputError(f"{self.name} {wanted}; got one put together by hand")
        for name in changes:
            one_of(f"the argument of {self.name}", name, self.arguments)
        constructor, given = self.made_by
        return replace(constructor(**(given | changes)), name=self.name)

    def _is_as_made(self) -> bool:
        """Return whether no part was replaced since the constructor made it."""
        constructor, given = self.made_by or (None, {})
        mine, made = (
            jax.tree.flatten((o.model, o.guide, o.divergence, o.companion))
            for o in (self, constructor(**given) if constructor else self)
        )
        same_structure: Any = mine[1]
        return bool(same_structure == made[1]) and all(
            a is b or np.array_equal(a, b) for a, b in zip(mine[0], made[0], strict=True)
        )


# The default reward: what is new earns 1, what is old nothing.
_NEW_EARNS = mode_reward(0.0, 1.0)

#: Constructor of every known objective, by name.
registry: dict[str, Callable[..., Objective]] = {}


def register(constructor: Callable[..., Objective]) -> Callable[..., Objective]:
    """Add an objective's constructor to `registry`; its objectives are named after their arguments.

    The name is the constructor's and lists the arguments that differ from their defaults.
    """
    name = constructor.__name__
    parameters = inspect.signature(constructor).parameters

    @wraps(constructor)
    def named(*args: Any, **kwargs: Any) -> Objective:
        given = inspect.signature(constructor).bind(*args, **kwargs).arguments
        changed = [
            f"{key}={arguments.text_of(value)}"
            for key, value in given.items()
            if value != parameters[key].default
        ]
        return replace(
            constructor(*args, **kwargs),
            name=":".join([name, ",".join(changed)] if changed else [name]),
            made_by=(named, dict(given)),
        )

    registry[name] = named
    return named


def parse(text: str) -> Objective:
    """Return the objective that a text such as ``"reverse_kl:replay=0.2,estimator=pathwise"`` names.

    Raises:
        InputError: an unknown objective or argument, with the known ones listed, or a refused value.
    """
    name, _, settings = text.partition(":")
    constructor = registry[one_of("objective", name.strip(), registry)]
    known = inspect.signature(constructor).parameters
    given: dict[str, Any] = {}
    for setting in arguments.split(settings):
        key, equals, value = setting.partition("=")
        one_of(f"the argument of {name}", key.strip(), known)
        if not equals:
            raise InputError(f"an argument of {name} must be written {key}=VALUE; got {setting!r}")
        if key.strip() in given:
            raise InputError(f"an argument of {name} may be given once; got {key.strip()} twice")
        given[key.strip()] = arguments.value_of(value.strip())
    return constructor(**given)


@register
def sft(replay: float = 0.0, learner: Any = "two_mode") -> Objective:
    """Supervised fine-tuning: forward KL from the new data, KL((1-λ) N(μ_n, Σ) + λ N(μ_o, Σ) ‖ q).

    Without replay its only optimum with right means is β = 0, mass forgetting; with replay it is β = λ.

    Args:
        replay: λ in [0, 1), the share of the old task in the training data.
        learner: the guide, ``"two_mode"``, ``"single_mode"`` or a NumPyro program.

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    replay_share = _share(replay)
    return Objective(
        name="sft",
        model=Partial(new_data, replay_share),
        guide=learners.resolve(learner),
        divergence=ForwardKL(),
        description="new data" if replay_share is None else "new data with replay of the old mode",
    )


@register
def reverse_kl(replay: float = 0.0, estimator: str = "score", learner: Any = "two_mode") -> Objective:
    """On-policy reinforcement learning: reverse KL to the true target, KL(q ‖ p_α).

    Its optimum is the target, so no mass is forgotten; a right old mode moves only through overlap.
    Replay leaves the population objective as it is and keeps old behaviour in every batch.

    Args:
        replay: λ in [0, 1), the replayed share of a batch, weighted by q/b ≤ 1/(1-λ).
        estimator: ``"score"`` (leave-one-out baseline) or ``"pathwise"``, see `ReverseKL`.
        learner: the guide, ``"two_mode"``, ``"single_mode"`` or a NumPyro program.

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    return Objective(
        name="reverse_kl",
        model=Partial(true_target),
        guide=learners.resolve(learner),
        divergence=ReverseKL(estimator=estimator, replay=fraction("replay", replay)),
        description="the true target",
    )


@register
def sdft(
    anchor: float = 0.1,
    ema: float = 0.05,
    divergence: str | float = "reverse",
    demonstrations: TwoMode | None = None,
    learner: Any = "two_mode",
) -> Objective:
    """Self-distillation fine-tuning: toward an average of the learner's past, pulled by demonstrations.

    With a teacher ω ← (1-a) ω + a [(1-λ) θ + λ ω_demo] the only rest for λ > 0 is the demonstrations: old
    mass is retained iff they hold it. For λ = 0 every student that is its own teacher rests, and nothing
    restores what is lost.

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
    if not (demonstrations is None or isinstance(demonstrations, TwoMode)):
        kind = type(demonstrations).__name__
        raise InputError(f"demonstrations must be a TwoMode or None; got {kind}")
    guide = learners.resolve(learner)
    return Objective(
        name="sdft",
        model=Partial(companion_law, guide),
        guide=guide,
        divergence=_divergence(divergence),
        description="a moving average of the learner, anchored to demonstrations",
        companion=Teacher(closed_interval("anchor", anchor), closed_interval("ema", ema), demonstrations),
    )


@register
def ttt_discover(
    reward: Any = _NEW_EARNS,
    kl_weight: float = 0.1,
    eta: str | float = 1.0,
    kl_budget: float = math.log(2.0),
    learner: Any = "two_mode",
) -> Objective:
    """TTT-Discover: maximise log E_q[exp(η r)] - λ KL(q ‖ q_0), q_0 the learner at the start.

    Where the new mode earns more than the old one, old mass is retained iff λ > 0.

    Args:
        reward: see `mixture_models.rewards`; a function of (y) or of (y, target, reference).
        kl_weight: λ ≥ 0.
        eta: η > 0, or ``"adaptive"`` for the η that spends ``kl_budget`` on each batch.
        kl_budget: KL(softmax(η r) ‖ uniform) of an adaptive η, in nats.
        learner: the guide, ``"two_mode"``, ``"single_mode"`` or a NumPyro program.

    Source: arXiv:2601.16175 for the method; derivation: docs/theory.md.
    """
    guide = learners.resolve(learner)
    return Objective(
        name="ttt_discover",
        model=Partial(companion_law, guide),
        guide=guide,
        divergence=EntropicUtility(
            rewards.resolve(reward), not_negative("kl_weight", kl_weight), _temperature(eta, kl_budget)
        ),
        description="reward, anchored to the learner at the start",
        companion=Reference(),
    )


@register
def oapl(
    reward: Any = _NEW_EARNS,
    beta1: float = 1.0,
    beta2: float = 1.0,
    lag: int = 50,
    group_size: int | None = None,
    learner: Any = "two_mode",
) -> Objective:
    """OAPL: regress log ratios to a lagged policy onto advantages, on the lagged policy's samples.

    With β₁ = β₂ = τ a round that is trained to convergence multiplies the lagged policy by exp(r/τ): the old
    logit falls by (R_n - R_o)/τ at every sync, and less in shorter rounds.

    Args:
        reward: see `mixture_models.rewards`; a function of (y) or of (y, target, reference), the reference
            being the lagged policy.
        beta1: β₁ > 0, temperature of V*.
        beta2: β₂ > 0, weight of the log ratio.
        lag: steps between two syncs.
        group_size: behaviours that share one V*, at least 2 and a divisor of the batch; None for all.
        learner: the guide, ``"two_mode"``, ``"single_mode"`` or a NumPyro program.

    Source: arXiv:2602.19362 for the method; derivation: docs/theory.md.
    """
    guide = learners.resolve(learner)
    beta1, beta2 = positive("beta1", beta1), positive("beta2", beta2)
    if beta1 != beta2:
        warnings.warn(
            f"beta1 = {beta1:g} and beta2 = {beta2:g} differ: what OAPL regresses onto is then no normalised "
            "policy",
            stacklevel=3,
        )
    size = None if group_size is None else integer("group_size", group_size, at_least=2)
    return Objective(
        name="oapl",
        model=Partial(companion_law, guide),
        guide=guide,
        divergence=AdvantageRegression(rewards.resolve(reward), beta1, beta2, size),
        description="a lagged policy, tilted by reward",
        companion=Lagged(integer("lag", lag)),
    )


def new_data(replay: Any, start: TwoMode, target: TwoMode) -> None:
    """Run the model of the training data: the target's new mode, with a share of its old one."""
    if replay is None:
        law = target.mode_law("new")
    else:
        law = replace(target, old_logit=jnp.log(replay) - jnp.log1p(-replay)).law()
    numpyro.sample(BEHAVIOUR, law)


def true_target(start: TwoMode, target: TwoMode) -> None:
    """Run the model of the true target p_α."""
    numpyro.sample(BEHAVIOUR, target.law())


def _share(replay: float) -> float | None:
    """Return a replayed share, None for none: without replay there is no mode to choose."""
    return fraction("replay", replay) or None


def _divergence(divergence: str | float) -> Any:
    """Return the divergence of SDFT that a name or a number stands for."""
    if not isinstance(divergence, str):
        return JensenShannon(open_interval("divergence", divergence))
    if divergence not in _DIVERGENCES:
        raise InputError(
            f"divergence must be {', '.join(_DIVERGENCES)} or a number in (0, 1); got {divergence!r}"
        )
    return _DIVERGENCES[divergence]()


_DIVERGENCES: dict[str, Callable[[], Any]] = {"reverse": ReverseKL, "forward": OnPolicyForwardKL}


def _temperature(eta: str | float, kl_budget: float) -> Any:
    """Return where η comes from."""
    budget = positive("kl_budget", kl_budget)
    if not isinstance(eta, str):
        return FixedTemperature(positive("eta", eta))
    if eta != "adaptive":
        raise InputError(f"eta must be adaptive or a number; got {eta!r}")
    return AdaptiveTemperature(budget)
