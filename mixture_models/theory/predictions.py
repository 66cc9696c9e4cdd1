"""What an objective's course will be, and which of its hyperparameters can be turned to keep old behaviour.

`prediction` asks rules, each of which knows the objectives of one kind by their parts; `predicts` adds one.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

from jax.tree_util import Partial
from numpy.typing import ArrayLike

from mixture_models.learners import two_mode_learner
from mixture_models.losses.advantage_regression import AdvantageRegression
from mixture_models.losses.entropic import EntropicUtility, FixedTemperature
from mixture_models.losses.kl import ForwardKL, ReverseKL
from mixture_models.objectives.companions import Lagged, Reference, Teacher
from mixture_models.objectives.models import new_data, true_target
from mixture_models.objectives.objective import Objective
from mixture_models.theory import weight_paths
from mixture_models.theory.drift_bounds import old_drift_bound
from mixture_models.theory.paths import MOST_STEPS, Path, Setting
from mixture_models.types import Reals


@dataclass(frozen=True)
class Hyperparameter:
    """A numeric argument of an objective that moves its end.

    Attributes:
        name: of the argument.
        largest: its end in a setting, beyond which it means nothing or a step of plain SGD overshoots.
        least: smallest value that means something.
    """

    name: str
    largest: Callable[[Setting], float]
    least: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """The course of a learner whose means are right at the start: exact, and without a training.

    Attributes:
        follow: takes what all objectives share and n values of the hyperparameter, and returns the paths;
            without a hyperparameter, of the one setting ``value``.
        value: of the hyperparameter in this objective.
        hyperparameter: what can be turned, or None where nothing moves the end.
        most_steps: updates beyond which following takes too long for a plan.
    """

    follow: Callable[[Setting, ArrayLike], Path]
    value: float
    hyperparameter: Hyperparameter | None = None
    most_steps: float = math.inf


Rule = Callable[[Objective], Prediction | None]

_RULES: list[Rule] = []


def predicts(rule: Rule) -> Rule:
    """Add a rule: a function of an objective that returns its `Prediction`, or None."""
    _RULES.append(rule)
    return rule


def prediction(objective: Objective) -> Prediction | None:
    """Return the course of an objective by theory alone, which `massdrift plan` reads.

    None where no rule knows the objective: theory is about the learner of two modes, and about rewards that
    are flat on each mode.
    """
    answers = (rule(objective) for rule in reversed(_RULES))
    return next((answer for answer in answers if answer is not None), None)


def drift_bound(objective: Objective) -> Callable[..., Reals] | None:
    """Return the bound of the old drift along a path of the whitened flow, or None where there is none."""
    on_policy = isinstance(objective.loss, ReverseKL) and objective.companion is None
    return old_drift_bound if on_policy else None


# The ends of settings that are tried: almost all is replayed, and OAPL hardly learns.
_MOST_REPLAY, _LEAST_BETA = 0.95, 0.01


@predicts
def _sft(objective: Objective) -> Prediction | None:
    model = objective.model
    if not _is(objective, ForwardKL, None) or not isinstance(model, Partial) or model.func is not new_data:
        return None
    (replay,) = model.args
    turned = Hyperparameter("replay", lambda _: _MOST_REPLAY)
    return Prediction(weight_paths.sft, float(replay or 0.0), turned)


@predicts
def _reverse_kl(objective: Objective) -> Prediction | None:
    model = objective.model
    if not _is(objective, ReverseKL, None) or not isinstance(model, Partial) or model.func is not true_target:
        return None
    replay = cast(ReverseKL, objective.loss).replay
    if isinstance(replay, Mapping):
        return None
    return Prediction(weight_paths.reverse_kl, float(replay or 0.0))


@predicts
def _sdft(objective: Objective) -> Prediction | None:
    if not _is(objective, ReverseKL, Teacher):
        return None
    teacher = cast(Teacher, objective.companion)
    if teacher.demonstrations is not None:
        return None
    follow = partial(weight_paths.sdft, ema=float(teacher.ema))
    return Prediction(follow, float(teacher.anchor), Hyperparameter("anchor", lambda _: 1.0))


@predicts
def _ttt_discover(objective: Objective) -> Prediction | None:
    if not _is(objective, EntropicUtility, Reference):
        return None
    loss = cast(EntropicUtility, objective.loss)
    if loss.reward.gap is None or not isinstance(loss.temperature, FixedTemperature):
        return None
    # At the largest λ a step of the mean, whose curvature is at most λ, is as long as its way.
    turned = Hyperparameter("kl_weight", lambda setting: 1.0 / setting.learning_rate)
    follow = partial(weight_paths.ttt_discover, exponent=float(loss.temperature.eta * loss.reward.gap))
    return Prediction(follow, float(loss.kl_weight), turned)


@predicts
def _oapl(objective: Objective) -> Prediction | None:
    if not _is(objective, AdvantageRegression, Lagged):
        return None
    loss, lag = cast(AdvantageRegression, objective.loss), int(cast(Lagged, objective.companion).lag)
    if loss.reward.gap is None or loss.beta1 != loss.beta2:
        return None
    follow = partial(weight_paths.oapl, lag=lag, reward_gap=float(loss.reward.gap))
    # At the largest β₂ a step of the mean, whose curvature is at most 2 β₂², is as long as its way.
    turned = Hyperparameter(
        "beta1 = beta2", lambda setting: (2.0 * setting.learning_rate) ** -0.5, least=_LEAST_BETA
    )
    most = max(MOST_STEPS, weight_paths.MOST_ROUNDS * lag)
    return Prediction(follow, float(loss.beta1), turned, most)


def _is(objective: Objective, loss: type, companion: type | None) -> bool:
    """Return whether an objective has the learner of two modes, this loss and this companion."""
    beside = None if objective.companion is None else type(objective.companion)
    return objective.guide == two_mode_learner and type(objective.loss) is loss and beside is companion
