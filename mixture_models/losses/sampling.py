"""The sampling law of an objective: whose samples a batch holds, and what each counts.

An expectation under a law is estimated on samples of a sampling law b; a sample counts w = law/b.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from mixture_models.mixture.law import MixtureLaw
from mixture_models.mixture.mixture import Mixture
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.rewards import target_of
from mixture_models.types import Arguments, Scalar
from mixture_models.validation import InputError


class SamplingLaw:
    """Whose samples a batch holds.

    Attributes:
        words: what results call it.
    """

    words: str

    def law(self, target: Distribution, learner: Distribution, args: Arguments) -> Distribution:
        """Return the law b that a batch is drawn from.

        Args:
            target: the model's law.
            learner: the guide's law.
            args: the arguments of model and guide; the last is the target mixture.
        """
        raise NotImplementedError

    def importance(
        self, y: Float[Array, "n d"], log_q: Float[Array, "n"], args: Arguments
    ) -> Float[Array, "n"]:
        """Return w = q/b of samples, given their log density under the learner q."""
        return jnp.ones_like(log_q)


class NotStated(SamplingLaw):
    """The sampling law of a loss that does not say what it samples."""

    words = "not stated"

    def law(self, target: Distribution, learner: Distribution, args: Arguments) -> Distribution:
        """Refuse to be drawn from.

        Raises:
            InputError: always.
        """
        raise InputError("a loss that draws a batch must state its sampling law; got none")


@dataclass(frozen=True)
class OfModel(SamplingLaw):
    """The samples are the model's: data, or those of the policy that the model is."""

    words: str = "the model"

    def law(self, target: Distribution, learner: Distribution, args: Arguments) -> Distribution:
        """Return the model's law."""
        return target


@dataclass(frozen=True)
class OfLearner(SamplingLaw):
    """The samples are the learner's own: on-policy."""

    words: str = "the learner"

    def law(self, target: Distribution, learner: Distribution, args: Arguments) -> Distribution:
        """Return the learner's law."""
        return learner


@dataclass(frozen=True)
class OfLastMode(SamplingLaw):
    """The samples are those of the learner's last mode, as if it had no other."""

    words: str = "the learner's last mode"

    def law(self, target: Distribution, learner: Distribution, args: Arguments) -> MixtureLaw:
        """Return the last mode's law.

        Raises:
            InputError: a learner that is no mixture of modes.
        """
        if not isinstance(learner, MixtureLaw):
            kind = type(learner).__name__
            raise InputError(f"a last mode to sample needs a learner whose law is a MixtureLaw; got a {kind}")
        return MixtureLaw(jnp.zeros(1), learner.means[-1:], (learner.scale(learner.num_modes - 1),))


@dataclass(frozen=True)
class OfLearnerWithReplay(SamplingLaw):
    """A share λ of the samples is the target's old mode, the others are the learner's own.

    b = (1-λ) q + λ N(μ_o, Σ), and w = q/b ≤ 1/(1-λ).

    Args:
        replay: λ in (0, 1).
    """

    replay: Scalar
    words: str = "the learner and replay of the target's old mode"

    def law(self, target: Distribution, learner: Distribution, args: Arguments) -> MixtureLaw:
        """Return b as one mixture.

        Raises:
            InputError: a learner that is no mixture of modes, or no two-mode target to replay.
        """
        wanted = args[-1] if args else None
        if isinstance(wanted, Mixture) and not isinstance(wanted, TwoMode):
            raise InputError(
                "replay must map names of tasks to shares where these are not old and new; got one "
                f"share, and the tasks {', '.join(wanted.names)}"
            )
        if not (isinstance(wanted, TwoMode) and isinstance(learner, MixtureLaw)):
            raise InputError(
                "replay needs a learner whose law is a MixtureLaw and a TwoMode target as the model's last "
                f"argument; got a {type(learner).__name__} and {len(args)} arguments"
            )
        old = wanted.mode_law("old")
        return MixtureLaw(
            jnp.append(learner.log_weights + jnp.log1p(-self.replay), jnp.log(self.replay)),
            jnp.concatenate([learner.means, old.means]),
            [learner.scale(mode) for mode in range(learner.num_modes)] + [old.scale(0)],
        )

    def importance(
        self, y: Float[Array, "n d"], log_q: Float[Array, "n"], args: Arguments
    ) -> Float[Array, "n"]:
        """Return w = q/b, bounded by 1/(1-λ)."""
        log_old = target_of(args).mode_law("old").log_prob(y)
        log_b = jnp.logaddexp(jnp.log1p(-self.replay) + log_q, jnp.log(self.replay) + log_old)
        return jnp.exp(log_q - log_b)


@dataclass(frozen=True)
class OfLearnerWithReplayOfTasks(SamplingLaw):
    """Shares λ_k of the samples are of the target's tasks, the others are the learner's own.

    b = (1-λ) q + Σ_k λ_k N(μ_k, Σ_k) with λ = Σ_k λ_k, and w = q/b ≤ 1/(1-λ).

    Args:
        replay: λ_k > 0 by the name of the task, with a sum below 1.
    """

    replay: Mapping[str, Scalar]

    @property
    def words(self) -> str:  # type: ignore[override]
        """What results call it."""
        return f"the learner and replay of {', '.join(self.replay)}"

    def law(self, target: Distribution, learner: Distribution, args: Arguments) -> MixtureLaw:
        """Return b as one mixture.

        Raises:
            InputError: a learner that is no mixture of modes, or no mixture to replay.
        """
        if not isinstance(learner, MixtureLaw):
            kind = type(learner).__name__
            raise InputError(f"replay needs a learner whose law is a MixtureLaw; got a {kind}")
        shown, log_own = self._shown(args)
        return MixtureLaw(
            jnp.concatenate([learner.log_weights + log_own, shown.log_weights]),
            jnp.concatenate([learner.means, shown.means]),
            [law.scale(mode) for law in (learner, shown) for mode in range(law.num_modes)],
        )

    def importance(
        self, y: Float[Array, "n d"], log_q: Float[Array, "n"], args: Arguments
    ) -> Float[Array, "n"]:
        """Return w = q/b, bounded by 1/(1-λ)."""
        shown, log_own = self._shown(args)
        return jnp.exp(log_q - jnp.logaddexp(log_own + log_q, shown.log_prob(y)))

    def _shown(self, args: Arguments) -> tuple[MixtureLaw, Array]:
        """Return Σ_k λ_k N(μ_k, Σ_k), not normalised, and log(1-λ)."""
        wanted = args[-1] if args else None
        if not isinstance(wanted, Mixture):
            raise InputError(
                f"replay needs a Mixture target as the model's last argument; got {len(args)} arguments"
            )
        return wanted.law_of(self.replay), jnp.log1p(-jnp.stack(list(self.replay.values())).sum())
