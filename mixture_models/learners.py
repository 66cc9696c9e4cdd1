"""The guides: what is trained. A learner's ``numpyro.param`` sites are its coordinates under training."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array
from numpyro.distributions import constraints

from mixture_models.losses.loss import SITE
from mixture_models.metrics import drift, mixture_metrics, old_coverage, retention
from mixture_models.mixture import covariance as cov
from mixture_models.mixture.law import MixtureLaw
from mixture_models.mixture.mixture import Mixture
from mixture_models.mixture.overlap import single_mode_overlaps
from mixture_models.mixture.task import Task
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.types import ModelOrGuide, Scalar
from mixture_models.validation import InputError, flag, one_of


class Guide[T: Task](ABC):
    """A learner: a NumPyro program whose params training moves, and what is reported of them."""

    @property
    def sample_dimension(self) -> Scalar | None:
        """The dimension of samples, where it is not that of the params' coordinates; else None."""
        return None

    @property
    def fixed_covariance(self) -> bool:
        """Whether training leaves the covariances as they are, as exact forms need."""
        return False

    @abstractmethod
    def __call__(self, start: T, target: T) -> None:
        """Run the guide: its ``numpyro.param`` sites begin as ``start`` says, its sample site is ``"y"``."""

    @abstractmethod
    def metrics(self, params: dict[str, Array], start: T, target: T) -> dict[str, Array]:
        """Return what is recorded of one state of the params, by variable name."""


_CONSTRAINTS = (
    constraints.positive,
    constraints.independent(constraints.positive, 1),
    constraints.lower_cholesky,
)


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["train_scales"])
@dataclass(frozen=True)
class MixtureLearner(Guide[Mixture]):
    """The mixture learner q = Σ_k β_k N(m_k, Σ), a mode a task, started at ``start``.

    Param sites are ``start``'s coordinates under training: plain SGD moves these. Two modes have
    ``old_logit`` (φ), ``old_mean`` and ``new_mean``; named tasks have ``scaled_logits`` (√2 φ_k) and
    ``task_mean``. With ``train_scales`` also ``scale`` (shared), or ``old_scale`` and ``new_scale`` where a
    two-mode ``start`` has two covariances, each with a NumPyro constraint (SGD then moves the unconstrained
    value).

    Args:
        train_scales: whether the covariances are trained too.
    """

    train_scales: bool = False

    def __post_init__(self) -> None:
        flag("train_scales", self.train_scales)

    @property
    def fixed_covariance(self) -> bool:
        """Whether training leaves the covariances as they are, as exact forms need."""
        return not self.train_scales

    def __call__(self, start: Mixture, target: Mixture) -> None:
        """Run the guide."""
        sites = {name: numpyro.param(name, value) for name, value in start.params().items()}
        if self.train_scales:
            sites |= {
                name: numpyro.param(name, value, constraint=_CONSTRAINTS[value.ndim])
                for name, value in start.scale_params().items()
            }
        numpyro.sample(SITE, start.at(sites).law())

    def metrics(self, params: dict[str, Array], start: Mixture, target: Mixture) -> dict[str, Array]:
        """Return what is recorded of one state of the parameters, by variable name."""
        scales = {name: value for name, value in params.items() if name.endswith("scale")}
        return mixture_metrics(start.at(params), target) | scales


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["train_scale"])
@dataclass(frozen=True)
class SingleModeLearner(Guide[TwoMode]):
    """The single-mode learner q = N(m, Σ), started at the old mode of ``start``: one sample at a time.

    Param sites ``mean`` and, with ``train_scale``, ``scale`` with a NumPyro constraint.

    Args:
        train_scale: whether the covariance is trained too.

    Source: Chen et al. 2025 (arXiv:2510.18874), the uni-modal policy.
    """

    train_scale: bool = True

    def __post_init__(self) -> None:
        flag("train_scale", self.train_scale)

    @property
    def fixed_covariance(self) -> bool:
        """Whether training leaves the covariance as it is, as exact forms need."""
        return not self.train_scale

    def __call__(self, start: TwoMode, target: TwoMode) -> None:
        """Run the guide."""
        if not isinstance(start, TwoMode):
            names = ", ".join(start.names) if isinstance(start, Mixture) else type(start).__name__
            raise InputError(
                f"the single_mode learner must have an old and a new task, see TwoMode; got {names}"
            )
        mean = numpyro.param("mean", start.old_mean)
        scale = start.scale
        if self.train_scale:
            scale = numpyro.param("scale", scale, constraint=_CONSTRAINTS[scale.ndim])
        numpyro.sample(SITE, MixtureLaw(jnp.zeros(1), mean[None], (scale,)))

    def metrics(self, params: dict[str, Array], start: TwoMode, target: TwoMode) -> dict[str, Array]:
        """Return what is recorded of one state of the parameters, by variable name."""
        mean = params["mean"]
        scale: cov.Scale = params.get("scale", start.scale)
        law = MixtureLaw(jnp.zeros(1), mean[None], (scale,))
        return {
            "retention": retention(law, target),
            "old_coverage": old_coverage(law, target),
            "old_drift": drift(mean, target, "old"),
            "new_gap": drift(mean, target, "new"),
            "mean": mean,
            "scale": scale,
        } | single_mode_overlaps(mean, scale, target)


#: The learner with free weights and free means: the guide of every objective unless told otherwise.
mixture_learner = MixtureLearner()

#: The same under the name of the case of two tasks.
TwoModeLearner = MixtureLearner
two_mode_learner = mixture_learner

#: The learner that is one Gaussian.
single_mode_learner = SingleModeLearner()


_BY_NAME: dict[str, ModelOrGuide] = {
    "two_mode": two_mode_learner,
    "single_mode": single_mode_learner,
    "mixture": mixture_learner,
}


def resolve(learner: str | ModelOrGuide) -> ModelOrGuide:
    """Return the guide that a name stands for, or a NumPyro program as it is."""
    return learner if callable(learner) else _BY_NAME[one_of("learner", learner, _BY_NAME)]
