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
from mixture_models.metrics import drift, old_coverage, retention, two_mode_metrics
from mixture_models.mixture import covariance as cov
from mixture_models.mixture.law import MixtureLaw
from mixture_models.mixture.overlap import single_mode_overlaps
from mixture_models.mixture.task import Task
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.types import Program, Scalar
from mixture_models.validation import flag, one_of


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
class TwoModeLearner(Guide[TwoMode]):
    """The two-mode learner q = β N(m_o, Σ) + (1-β) N(m_n, Σ), started at ``start``.

    Param sites ``old_logit`` (φ), ``old_mean`` and ``new_mean``: plain SGD moves these. With
    ``train_scales`` also ``scale`` (shared), or ``old_scale`` and ``new_scale`` where ``start`` has two
    covariances, each with a NumPyro constraint (SGD then moves the unconstrained value).

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

    def __call__(self, start: TwoMode, target: TwoMode) -> None:
        """Run the guide."""
        law = TwoMode(
            numpyro.param("old_logit", start.old_logit),
            numpyro.param("old_mean", start.old_mean),
            numpyro.param("new_mean", start.new_mean),
            **self._scales(start),
        ).law()
        numpyro.sample(SITE, law)

    def _scales(self, start: TwoMode) -> dict[str, cov.Scale | None]:
        given = {"scale": start.scale, "new_scale": start.new_scale}
        if not self.train_scales:
            return given
        site = {"scale": "scale" if start.new_scale is None else "old_scale", "new_scale": "new_scale"}
        return {
            name: value
            if value is None
            else numpyro.param(site[name], value, constraint=_CONSTRAINTS[value.ndim])
            for name, value in given.items()
        }

    def metrics(self, params: dict[str, Array], start: TwoMode, target: TwoMode) -> dict[str, Array]:
        """Return what is recorded of one state of the parameters, by variable name."""
        learner = TwoMode(
            params["old_logit"],
            params["old_mean"],
            params["new_mean"],
            params.get("scale", params.get("old_scale", start.scale)),
            params.get("new_scale", start.new_scale),
        )
        return two_mode_metrics(learner, target) | {n: v for n, v in params.items() if n.endswith("scale")}


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


#: The learner with a free logit and free means: the guide of every objective unless told otherwise.
two_mode_learner = TwoModeLearner()

#: The learner that is one Gaussian.
single_mode_learner = SingleModeLearner()


_BY_NAME: dict[str, Program] = {"two_mode": two_mode_learner, "single_mode": single_mode_learner}


def resolve(learner: str | Program) -> Program:
    """Return the guide that a name stands for, or a NumPyro program as it is."""
    return learner if callable(learner) else _BY_NAME[one_of("learner", learner, _BY_NAME)]
