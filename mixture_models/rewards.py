"""Rewards: what a sample earns. Those of the registry are pytrees whose leaves are numbers.

A reward is called with samples y of shape (n, d), the target and the law of the reference policy, and
returns shape (n,). One that takes the samples alone works too.

A `Reward` says more of itself than a function can: whether it is made of densities of modes, which an exact
form needs, and whether it is flat on each mode, which predictions need.
"""

import inspect
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields
from functools import partial, reduce
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from mixture_models.mixture import covariance as cov
from mixture_models.mixture.law import MixtureLaw
from mixture_models.mixture.mixture import Mixture
from mixture_models.mixture.task import NamedTasks, Task, TwoTasks
from mixture_models.mixture.two_mode import TwoMode, expit
from mixture_models.types import Arguments, Scalar
from mixture_models.validation import InputError, number, one_of

# Samples at which a user's reward is looked at before a training.
_PROBES = 64


class Reward(ABC):
    """What a sample earns.

    Attributes:
        has_modes: whether it is made of densities of modes with the target's covariance; it then has `modes`
            and `steepness`, is evaluated in the span of the means, and has an exact form.
        gap: what the new mode earns more than the old one, where the reward is flat on each mode but for the
            target's responsibilities; else None.
    """

    has_modes: ClassVar[bool] = False

    @property
    def gap(self) -> Scalar | None:
        """What the new mode earns more than the old one; None of a reward that is not flat on each mode."""
        return None

    @abstractmethod
    def __call__(self, y: Float[Array, "n d"], target: Task, reference: Distribution) -> Float[Array, "n"]:
        """Return the rewards of samples.

        Args:
            y: samples.
            target: the true target.
            reference: law of the reference policy.
        """

    @property
    def given(self) -> object:
        """What the user gave, for messages."""
        return self

    def check(self, target: Task) -> Task:
        """Return a target, or refuse one of other tasks than the reward is made for."""
        return target

    def modes(self, target: Mixture, reference: MixtureLaw) -> Float[Array, "m d"]:
        """Return the means of the modes whose densities make the reward."""
        raise NotImplementedError

    def steepness(self, target: Mixture, reference: MixtureLaw) -> Scalar:
        """Return how steeply the reward may rise far out, in whitened coordinates."""
        raise NotImplementedError


class _NamedReward(Reward):
    """A reward of the registry, made of the target's modes, and written as the call that makes it."""

    has_modes = True
    function: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Field[object]]]

    def modes(self, target: Mixture, reference: MixtureLaw) -> Float[Array, "m d"]:
        """Return the means of the target's modes."""
        return jnp.asarray(target.means)

    def steepness(self, target: Mixture, reference: MixtureLaw) -> Scalar:
        """Return 0: far out the reward is flat."""
        return 0.0

    def __str__(self) -> str:
        values = ",".join(str(getattr(self, field.name)) for field in fields(self))
        return f"{self.function}({values})"


class _TwoTaskReward(_NamedReward):
    """A reward that knows an old and a new task."""

    def check(self, target: Task) -> TwoTasks:
        """Return a target, or refuse one of other tasks than an old and a new one."""
        if not isinstance(target, TwoTasks):
            named = f" {', '.join(target.names)}" if isinstance(target, Mixture) else ""
            raise InputError(
                f"{self.function} must have a target of the tasks old and new; got the tasks{named} (there "
                "task_reward says what each earns)"
            )
        return target


@partial(jax.tree_util.register_dataclass, data_fields=["old", "new"], meta_fields=[])
@dataclass(frozen=True)
class ModeReward(_TwoTaskReward):
    """r(y) = R_o s_o(y) + R_n s_n(y), see `mode_reward`."""

    old: Scalar
    new: Scalar
    function = "mode_reward"

    @property
    def gap(self) -> Scalar:
        """Δ = R_n - R_o."""
        return self.new - self.old

    def __call__(self, y: Float[Array, "n d"], target: Task, reference: Distribution) -> Float[Array, "n"]:
        """Return the rewards of samples."""
        log_odds = self.check(target).log_odds(y)
        result: Array = self.old * expit(log_odds) + self.new * expit(-log_odds)
        return result


@partial(jax.tree_util.register_dataclass, data_fields=["earned"], meta_fields=[])
@dataclass(frozen=True)
class TaskReward(_NamedReward):
    """r(y) = Σ_k R_k s_k(y), see `task_reward`."""

    earned: dict[str, Scalar]
    function = "task_reward"

    def check(self, target: Task) -> NamedTasks:
        """Return a target, or refuse one that lacks a task that earns."""
        if not isinstance(target, NamedTasks):
            raise InputError(f"task_reward must have named tasks as target; got a {type(target).__name__}")
        for name in self.earned:
            target.index(name)
        return target

    def __call__(self, y: Float[Array, "n d"], target: Task, reference: Distribution) -> Float[Array, "n"]:
        """Return the rewards of samples."""
        named = self.check(target)
        shares = dict(zip(named.names, named.posterior(y), strict=True))
        result: Array = reduce(operator.add, [value * shares[name] for name, value in self.earned.items()])
        return result


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class LogRatioReward(_NamedReward):
    """r(y) = log p_α(y) - log q_0(y), see `log_ratio_reward`."""

    function = "log_ratio_reward"

    def __call__(self, y: Float[Array, "n d"], target: Task, reference: Distribution) -> Float[Array, "n"]:
        """Return the rewards of samples."""
        result: Array = target.law().log_prob(y) - reference.log_prob(y)
        return result

    def modes(self, target: Mixture, reference: MixtureLaw) -> Float[Array, "m d"]:
        """Return the means of the modes of both laws."""
        return jnp.concatenate([target.means, reference.means])

    def steepness(self, target: Mixture, reference: MixtureLaw) -> Float[Array, ""]:
        """Return the largest Mahalanobis distance of a mode of the target from one of the reference."""
        apart = target.means[:, None] - reference.means
        return jnp.sqrt(jnp.max(jnp.sum(cov.whiten(target.scales[0], apart) ** 2, axis=-1)))


@partial(jax.tree_util.register_dataclass, data_fields=["slope"], meta_fields=[])
@dataclass(frozen=True)
class LinearReward(_TwoTaskReward):
    """r(y) = c (y - μ_o)ᵀ Σ⁻¹ (μ_n - μ_o)/δ, see `linear_reward`."""

    slope: Scalar
    function = "linear_reward"

    def __call__(self, y: Float[Array, "n d"], target: Task, reference: Distribution) -> Float[Array, "n"]:
        """Return the rewards of samples."""
        modes = self.check(target)
        axis = cov.whiten(modes.scale, modes.new_mean - modes.old_mean)
        along = cov.whiten_transposed(modes.scale, axis / jnp.sqrt(jnp.sum(axis * axis)))
        result: Array = self.slope * ((y - modes.old_mean) @ along)
        return result

    def check(self, target: Task) -> TwoMode:
        """Return a target, or refuse one that does not tell where its modes are."""
        tasks = super().check(target)
        if not isinstance(tasks, TwoMode):
            raise InputError(f"linear_reward must have a TwoMode as target; got a {type(target).__name__}")
        return tasks

    def steepness(self, target: Mixture, reference: MixtureLaw) -> Scalar:
        """Return |c|."""
        return jnp.abs(self.slope)


def mode_reward(old: float = 0.0, new: float = 1.0) -> ModeReward:
    """Return the reward that is flat on each mode, r(y) = R_o s_o(y) + R_n s_n(y).

    s_o and s_n are the target's responsibilities: a verifier that tells the tasks apart and nothing else.
    Flat modes are what makes drift overlap-gated.

    Args:
        old: R_o.
        new: R_n.
    """
    return ModeReward(number("old", old), number("new", new))


def task_reward(earned: Mapping[str, float]) -> TaskReward:
    """Return the reward that is flat on each mode, r(y) = Σ_k R_k s_k(y), s_k the target's responsibilities.

    For the tasks old and new it is `mode_reward`.

    Args:
        earned: R_k by the name of the task; the other tasks earn nothing.

    Raises:
        InputError: no task, or a reward that is no number.
    """
    if not isinstance(earned, Mapping) or not earned:
        raise InputError(f"earned must map names of tasks to numbers; got {earned!r}")
    return TaskReward({name: number(f"the reward of {name}", value) for name, value in earned.items()})


def log_ratio_reward() -> LogRatioReward:
    """Return the reward r(y) = log p_α(y) - log q_0(y), q_0 the reference policy.

    Reinforcement learning with this reward and KL weight 1 is reverse KL to the target p_α. For `oapl` the
    reference policy is the current lagged one: its optimum is the target in every round.
    """
    return LogRatioReward()


def linear_reward(slope: float = 1.0) -> LinearReward:
    """Return the reward that rises by ``slope`` a unit of Mahalanobis distance from the old to the new mode.

    r(y) = c (y - μ_o)ᵀ Σ⁻¹ (μ_n - μ_o)/δ. It has a slope on the old mode, so its drift is not overlap-gated.

    Args:
        slope: c.
    """
    return LinearReward(number("slope", slope))


#: Constructor of every known reward, by name.
registry: dict[str, Callable[..., Reward]] = {
    function.__name__: function for function in (mode_reward, log_ratio_reward, linear_reward)
}


@partial(jax.tree_util.register_dataclass, data_fields=["function"], meta_fields=["of_samples_alone"])
@dataclass(frozen=True)
class FunctionReward(Reward):
    """A user's own function as a reward.

    Args:
        function: of (y, target, reference), or of y alone.
        of_samples_alone: which of the two.
    """

    function: Callable[..., Array]
    of_samples_alone: bool

    @property
    def given(self) -> object:
        """The function."""
        return self.function

    def __call__(self, y: Float[Array, "n d"], target: Task, reference: Distribution) -> Float[Array, "n"]:
        """Return the rewards of samples."""
        return self.function(y) if self.of_samples_alone else self.function(y, target, reference)


#: What a user may give: see `resolve`.
RewardLike = str | Reward | Callable[..., Array]


def resolve(reward: RewardLike) -> Reward:
    """Return what a user gives as a reward.

    Args:
        reward: a `Reward`, a function of (y, target, reference), or of y alone, or a name in `registry`.

    Raises:
        InputError: anything else.
    """
    if isinstance(reward, str):
        return registry[one_of("reward", reward, registry)]()
    if isinstance(reward, Reward):
        return reward
    wanted = "reward must be a function of (y) or of (y, target, reference)"
    if not callable(reward):
        raise InputError(f"{wanted}; got {reward!r}")
    try:
        signature = inspect.signature(reward)
    except ValueError:  # of what is built in
        raise InputError(f"{wanted}; got {reward!r}") from None
    for arguments in (("y", "target", "reference"), ("y",)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return FunctionReward(reward, of_samples_alone=len(arguments) == 1)
    raise InputError(f"{wanted}; got one of {signature}")


def rewards_of(
    reward: Reward, y: Float[Array, "n d"], args: Arguments, reference: Distribution
) -> Float[Array, "n"]:
    """Return the rewards of a batch, through which no gradient flows.

    Args:
        reward: what samples earn.
        y: samples.
        args: the positional arguments of model and guide; the last is the target.
        reference: law of the reference policy.

    Raises:
        InputError: not one number a sample, or no target.
    """
    target = target_of(args)
    try:
        returned = reward(y, target, reference)
    except jax.errors.JAXTypeError as error:
        raise InputError(
            "a reward must be made of functions that JAX can trace, as those of jax.numpy; this one asks "
            f"for the values of a traced array ({type(error).__name__})"
        ) from error
    try:
        values = jnp.asarray(returned)
    except (TypeError, ValueError):
        raise InputError(f"a reward must return numbers; got {returned!r}") from None
    if jnp.issubdtype(values.dtype, jnp.complexfloating):
        raise InputError("a reward must return real numbers; got complex ones")
    if values.shape != y.shape[:1]:
        raise InputError(
            f"a reward must return one number a sample, shape {y.shape[:1]}; got shape {values.shape}"
        )
    return jax.lax.stop_gradient(values.astype(jnp.result_type(y.dtype, jnp.float32)))


def check_finite(name: str, reward: Reward, start: Mixture, target: Mixture) -> None:
    """Refuse a user's reward that is NaN or infinite where the learner starts: all its gradients would be.

    Args:
        name: of the objective.
        reward: what samples earn.
        start: the learner at step 0.
        target: the true target.

    Raises:
        InputError: a reward that is not finite at a mean or at one of some samples.
    """
    reward.check(target)
    if reward.has_modes:  # densities are finite
        return
    law = start.law()
    y = jnp.concatenate([law.sample(jax.random.key(0), (_PROBES,)), *(m.means for m in (start, target))])
    values = np.asarray(rewards_of(reward, y, (start, target), law))
    if not np.isfinite(values).all():
        place = int(np.argmin(np.isfinite(values)))
        where = np.array2string(np.asarray(y[place]), precision=3, threshold=6)
        raise InputError(
            f"a reward must be finite where the learner starts; that of {name} is {values[place]:g} at "
            f"{where}"
        )


def target_of(args: Arguments) -> Task:
    """Return the target, the last positional argument of model and guide.

    Raises:
        InputError: there is none.
    """
    target = args[-1] if args else None
    if not isinstance(target, Task):
        raise InputError(
            "a reward needs a TwoMode or a Mixture as target, the last positional argument; "
            f"got {len(args)} arguments"
        )
    return target
