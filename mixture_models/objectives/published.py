"""The parts of the simulation that proposed the two-mode account, as it was published.

Its learners are moved by plain gradient steps on (weight, mean, scale), clipped to a box; its reinforcement
learning sees the learner's new mode only; and it adds a floor of 1e-12 to every density that divides and
inside every logarithm. The floors matter: far from the new task they bound the reward from below.

Source: Chen et al. 2025 (arXiv:2510.18874).
"""

import operator
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from jax import lax
from jax.lax import stop_gradient
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from mixture_models.accel.elementary import total_log
from mixture_models.learners import Guide
from mixture_models.losses.expectations import MonteCarlo
from mixture_models.losses.loss import SITE, Loss
from mixture_models.losses.sampling import OfLastMode, OfModel
from mixture_models.metrics import drift
from mixture_models.mixture.law import MixtureLaw
from mixture_models.mixture.overlap import single_mode_overlaps, two_mode_overlaps
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.types import Arguments, Params
from mixture_models.validation import InputError

#: Added to every density that divides, and inside every logarithm of a reward.
FLOOR = 1e-12

#: β of the reward log(p_new / (β q_new)).
REWARD_SCALE = 0.1

#: What is to be learnt; the old mode is 0.5 off at the start, the new one 3.
TARGET = TwoMode.create(old_weight=0.75, old_mean=-3.0, new_mean=3.5, covariance=1.0, new_covariance=0.7**2)

#: Where the learners start; the uni-modal one at the old mode.
START = TARGET.replace(old_mean=-3.5, new_mean=0.5)

#: The box that every update is clipped to, by param.
BOUNDS = {
    "old_weight": (1e-3, 1.0 - 1e-3),
    "old_scale": (1e-3, np.inf),
    "new_scale": (1e-3, np.inf),
    "scale": (1e-3, np.inf),
}


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class PublishedTwoModeLearner(Guide[TwoMode]):
    """The two-mode learner q = β N(m_o, s_o²) + (1-β) N(m_n, s_n²) in one dimension, started at ``start``.

    Param sites ``old_weight`` (β), ``old_mean``, ``new_mean`` of shape (1,), ``old_scale`` and ``new_scale``,
    all moved as they are: `clip_to_bounds` must keep them legal.

    Source: Chen et al. 2025 (arXiv:2510.18874), the bi-modal policy.
    """

    def __call__(self, start: TwoMode, target: TwoMode) -> None:
        """Run the guide."""
        scales = dict(zip(("old_scale", "new_scale"), _scales(start), strict=True))
        weight = numpyro.param("old_weight", start.old_weight)
        means = [numpyro.param(name, getattr(start, name)) for name in ("old_mean", "new_mean")]
        trained = [numpyro.param(name, scale) for name, scale in scales.items()]
        log_weights = jnp.stack([jnp.log(weight), jnp.log1p(-weight)])
        numpyro.sample(SITE, MixtureLaw(log_weights, jnp.stack(means), trained))

    def metrics(self, params: dict[str, Array], start: TwoMode, target: TwoMode) -> dict[str, Array]:
        """Return what is recorded of one state of the parameters, by variable name."""
        weight = params["old_weight"]
        logit = jnp.log(weight) - jnp.log1p(-weight)
        learner = TwoMode(
            logit, params["old_mean"], params["new_mean"], params["old_scale"], params["new_scale"]
        )
        return {
            **params,
            "old_logit": logit,
            "old_drift": drift(learner.old_mean, target, "old"),
            "new_gap": drift(learner.new_mean, target, "new"),
        } | two_mode_overlaps(learner, target)


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class PublishedSingleModeLearner(Guide[TwoMode]):
    """The learner that is one Gaussian N(m, s²) in one dimension, started at the old mode of ``start``.

    Param sites ``mean`` of shape (1,) and ``scale``, moved as they are: `clip_to_bounds` must keep s > 0.

    Source: Chen et al. 2025 (arXiv:2510.18874), the uni-modal policy.
    """

    def __call__(self, start: TwoMode, target: TwoMode) -> None:
        """Run the guide."""
        mean, scale = numpyro.param("mean", start.old_mean), numpyro.param("scale", _scales(start)[0])
        numpyro.sample(SITE, MixtureLaw(jnp.zeros(1), mean[None], (scale,)))

    def metrics(self, params: dict[str, Array], start: TwoMode, target: TwoMode) -> dict[str, Array]:
        """Return what is recorded of one state of the parameters, by variable name."""
        return {
            **params,
            "old_drift": drift(params["mean"], target, "old"),
            "new_gap": drift(params["mean"], target, "new"),
        } | single_mode_overlaps(params["mean"], params["scale"], target)


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["expectation"])
@dataclass
class FlooredForwardKL(Loss):
    """E_p[log p(y) - log(q(y) + ε)], ε = 1e-12: forward KL with the published floor, in nats.

    Its gradient is -E_p[q/(q+ε) ∇ log q(y)]: samples that the learner hardly knows do not pull.

    Args:
        expectation: how many samples are drawn.

    Source: Chen et al. 2025 (arXiv:2510.18874), the bi-modal forward KL.
    """

    expectation: MonteCarlo = field(default_factory=MonteCarlo)
    direction = "forward"
    sampling = OfModel()

    def on_batch(self, y: Array, target: Distribution, learner: Distribution, args: Arguments) -> Array:
        """Return the loss on a batch, see `Loss.on_batch`."""
        n = len(y)
        modes = _densities(self, learner, y)
        density = reduce(operator.add, modes) + FLOOR
        share = 1.0 / (n * density)
        value = jnp.sum(stop_gradient(target.log_prob(y))) - total_log(density)
        return value / n - cast(MixtureLaw, learner).attributed(y, [mode * share for mode in modes])


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["expectation"])
@dataclass
class PublishedRL(Loss):
    """The published reinforcement learning: reward for new behaviour, seen from the new mode only.

    Samples y are drawn from the learner's last mode N_n, whose weighted density is q_n. With
    R(y) = log(p(y) / (β (q_n(y) + ε)) + ε), β = 0.1 and ε = 1e-12, the loss is -mean(w R) and its gradient
    -mean(w R ∇ log q) with importance weight w = q/(q_n + ε) and no baseline. A learner of one mode has
    q_n = q, hence w = 1.

    Its expectation is an integral over the whole of q, but where the old mode lies N_n shows practically no
    samples: the weights are heavy-tailed, without a finite variance once the old scale exceeds √2 times
    the new one, as at the published start.

    Args:
        expectation: how many samples are drawn.

    Source: Chen et al. 2025 (arXiv:2510.18874).
    """

    expectation: MonteCarlo = field(default_factory=MonteCarlo)
    direction = "reverse"
    sampling = OfLastMode("the learner's new mode")

    def on_batch(self, y: Array, target: Distribution, learner: Distribution, args: Arguments) -> Array:
        """Return the loss on a batch, see `Loss.on_batch`."""
        n = len(y)
        modes = _densities(self, learner, y)
        inverse = 1.0 / (modes[-1] + FLOOR)
        ratio: Array = lax.optimization_barrier(jnp.exp(target.log_prob(y)) * inverse / REWARD_SCALE + FLOOR)
        share: Array = lax.optimization_barrier(jnp.log(ratio) * inverse / n)
        attributed = [share * mode for mode in modes]
        value = -jnp.sum(reduce(operator.add, attributed))
        result: Array = learner.attributed(y, [-part for part in attributed]) + value
        return result


def clip_to_bounds() -> optax.GradientTransformation:
    """Return an optax transformation, the last of a chain, that keeps the params that `BOUNDS` names legal.

    θ + u becomes min(max(θ + u, low), high): the weight in [0.001, 0.999], scales at least 0.001.

    Source: Chen et al. 2025 (arXiv:2510.18874).
    """

    def clip(updates: Params, params: Params) -> Params:
        moved = optax.apply_updates(params, updates)
        return {
            name: optax.projections.projection_box(moved[name], *BOUNDS[name]) - params[name]
            if name in BOUNDS
            else update
            for name, update in updates.items()
        }

    return optax.stateless(clip)


def _densities(loss: Loss, learner: Distribution, y: Array) -> list[Array]:
    """Return w_k N(y; m_k, s_k²) for every mode of the learner, held fixed."""
    if not isinstance(learner, MixtureLaw):
        name, kind = type(loss).__name__, type(learner).__name__
        raise InputError(f"{name} needs a learner whose law is a MixtureLaw; got a {kind}")
    joint = stop_gradient(learner.joint_log_probs(y))
    densities: list[Array] = lax.optimization_barrier([jnp.exp(log_density) for log_density in joint])
    return densities


def _scales(start: TwoMode) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the standard deviations of both modes, each of shape ()."""
    if start.dim != 1:
        raise InputError(
            f"the published learners live in one dimension; got a start of dimension {start.dim}"
        )
    old, new = (jnp.asarray(scale).reshape(()) for scale in start.scales)
    return old, new
