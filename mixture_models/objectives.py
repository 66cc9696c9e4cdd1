"""Post-training objectives: a model, a guide, a sampling law and a divergence, and their registry.

An objective is only its parts, so NumPyro alone can train it::

    sft = objectives.sft()
    SVI(sft.model, sft.guide, optax.sgd(0.05), sft.divergence).run(key, 500, start, target)

Adding one is one constructor under ``@register``.
"""

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import jax.numpy as jnp
import numpyro
from jax.tree_util import Partial

from mixture_models import learners
from mixture_models.divergences import BEHAVIOUR, ForwardKL, ReverseKL
from mixture_models.two_mode import TwoMode
from mixture_models.validation import InputError, fraction, one_of


@dataclass(frozen=True)
class Objective:
    """A post-training objective.

    Attributes:
        name: what tables and results call it, such as ``"sft:replay=0.2"``.
        model: NumPyro program ``(start, target)``, the law that the learner is pulled toward.
        guide: NumPyro program ``(start, target)``, the learner; its params are what training moves.
        divergence: NumPyro ELBO between the two; it holds the sampling law.
        description: the model in words.

    Model, guide and divergence are JAX pytrees whose leaves are the numeric settings: objectives that
    differ in numbers only share one compiled program.
    """

    name: str
    model: Callable[..., None]
    guide: Callable[..., None]
    divergence: Any
    description: str = ""


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
        changed = [f"{key}={value}" for key, value in given.items() if value != parameters[key].default]
        return replace(
            constructor(*args, **kwargs), name=":".join([name, ",".join(changed)] if changed else [name])
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
    arguments: dict[str, Any] = {}
    for setting in filter(None, (part.strip() for part in settings.split(","))):
        key, equals, value = setting.partition("=")
        one_of(f"the argument of {name}", key.strip(), known)
        if not equals:
            raise InputError(f"an argument of {name} must be written {key}=VALUE; got {setting!r}")
        if key.strip() in arguments:
            raise InputError(f"an argument of {name} may be given once; got {key.strip()} twice")
        arguments[key.strip()] = _literal(value.strip())
    return constructor(**arguments)


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


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
