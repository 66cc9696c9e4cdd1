"""The directions of training, as NumPyro ELBOs: forward and reverse Kullback-Leibler divergence.

NumPyro's own ``Trace_ELBO`` is silently wrong for a mixture guide: a mixture is not reparameterised,
so no gradient reaches its weights, and a weight that never moves looks like retention. The
divergences here have unbiased gradients in every parameter, the weights included.

Model and guide are NumPyro programs with one latent site, the behaviour ``"y"``, and the same
arguments; the guide's ``numpyro.param`` sites are what training moves.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.lax import stop_gradient
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import Distribution
from numpyro.infer.elbo import ELBO

from mixture_models.integrals.divergences import kl_divergence
from mixture_models.integrals.logistic_normal import FINEST
from mixture_models.losses.expectations import MonteCarlo, Quadrature
from mixture_models.mixture.law import MixtureLaw
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.theory.drift_bounds import old_drift_bound
from mixture_models.validation import InputError, fraction, one_of

#: The site of a behaviour in every model and guide.
BEHAVIOUR = "y"

ESTIMATORS = ("score", "pathwise")


class Divergence(ELBO):
    """A loss between the law of a model and the law of a guide, on behaviours ``"y"``.

    A subclass is a dataclass with a field ``expectation``, registered as a JAX pytree; it defines `between`,
    and says in ``direction`` and ``sampling`` what results call it, and in ``of_ratios`` whether a batch
    enters only by ratios of densities and by rewards.
    """

    expectation: Any
    direction: str
    sampling: Any
    of_ratios: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def with_samples(self, num_samples: int) -> Self:
        """Return a copy that sees a batch of ``num_samples`` behaviours."""
        return replace(cast(Any, self), expectation=MonteCarlo(num_samples))

    def loss_with_mutable_state(
        self,
        rng_key: Array,
        param_map: dict[str, Array],
        model: Callable[..., None],
        guide: Callable[..., None],
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Evaluate the loss; its derivative is the gradient's estimate (see `ELBO`)."""
        target = behaviour_law(model, param_map, *args, **kwargs)
        learner = behaviour_law(guide, param_map, *args, **kwargs)
        arguments = inspect.signature(model).bind(*args, **kwargs).args
        return {"loss": self.between(rng_key, target, learner, arguments), "mutable_state": None}

    def between(
        self, key: Array, target: Distribution, learner: Distribution, args: tuple[Any, ...]
    ) -> Array:
        """Return the loss, whose derivative in the learner's params is the gradient's estimate.

        Args:
            key: for the batch.
            target: the model's law.
            learner: the guide's law.
            args: the arguments of model and guide, in the model's order.
        """
        raise NotImplementedError

    def unmet(self, target: Distribution, learner: Distribution, args: tuple[Any, ...]) -> dict[str, Array]:
        """Return what an exact loss at a place cannot fulfil: whether so, by a sentence of what it must.

        Args:
            target: the model's law.
            learner: the guide's law.
            args: the positional arguments of model and guide.
        """
        return {}


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["expectation"])
@dataclass
class ForwardKL(Divergence):
    """KL(p ‖ q) = E_p[log p(y) - log q(y)] of the model's law p from the learner's law q, in nats.

    Its gradient is -E_p[∇ log q(y)]: what supervised fine-tuning on samples of p follows.

    Args:
        expectation: where E_p comes from.
    """

    expectation: MonteCarlo | Quadrature = field(default_factory=MonteCarlo)
    direction = "forward"
    of_ratios = True
    sampling = "the model"

    def exact(self, resolution: Any = FINEST) -> Self:
        """Return a copy whose value and gradient are those of the population."""
        return replace(self, expectation=Quadrature(resolution))

    def between(
        self, key: Array, target: Distribution, learner: Distribution, args: tuple[Any, ...]
    ) -> Array:
        """Return the divergence, see `Divergence.between`."""
        if isinstance(self.expectation, Quadrature):
            return kl_divergence(target, learner, self.expectation.resolution)
        n = self.expectation.num_samples
        y = stop_gradient(target.sample(key, (n,)))
        cross_entropy = -weighted_log_prob(learner, y, jnp.full(n, 1.0 / n, _floating(y)))
        return jnp.mean(stop_gradient(target.log_prob(y))) + cross_entropy


@partial(jax.tree_util.register_dataclass, data_fields=["replay"], meta_fields=["expectation", "estimator"])
@dataclass
class ReverseKL(Divergence):
    """KL(q ‖ p) = E_q[ℓ(y)], ℓ = log q - log p, of the learner's law q from the model's law p, in nats.

    With replay λ the batch is drawn from b = (1-λ) q + λ N(μ_o, Σ), the old mode of the target (the
    last argument of model and guide), and every behaviour is weighted by
    w = q/b ≤ 1/(1-λ): the value and the gradient keep their expectation.

    ``estimator="score"`` is what reinforcement learning uses, the score function with a leave-one-out
    baseline: Σ_i w_i (ℓ_i - c_i) ∇ log q(y_i) / n, where c_i = Σ_{j≠i} w_j ℓ_j / Σ_{j≠i} w_j does not
    depend on y_i, so that the estimate is unbiased and unchanged by a constant added to ℓ.
    ``estimator="pathwise"`` differentiates through the behaviours, drawn in equal numbers from every
    mode and weighted by the mode's share, so that no gradient is lost through the choice of a mode.

    Args:
        estimator: ``"score"`` or ``"pathwise"``.
        replay: λ in [0, 1), the replayed share of a batch; None for none.
        expectation: where the expectation comes from.

    Raises:
        InputError: an unknown estimator, a share outside [0, 1), or a score estimator with fewer than two
            behaviours.
    """

    estimator: str = "score"
    replay: Any = None
    expectation: MonteCarlo | Quadrature = field(default_factory=MonteCarlo)
    direction = "reverse"
    of_ratios = True

    def __post_init__(self) -> None:
        super().__init__()
        one_of("estimator", self.estimator, ESTIMATORS)
        if isinstance(self.replay, int | float):  # not while JAX passes its own leaves through
            self.replay = fraction("replay", self.replay) or None
        if self.estimator == "score":
            at_least_two("the score estimator's leave-one-out baseline", self.expectation)

    def old_drift_bound(self, learner: TwoMode, target: TwoMode, times: Any) -> Any:
        """Return `theory.old_drift_bound`, which holds along a path of the whitened flow."""
        return old_drift_bound(learner, target, times)

    @property
    def sampling(self) -> str:
        """Whose behaviours are seen, in words."""
        return "the learner" if self.replay is None else "the learner and replay of the target's old mode"

    def exact(self, resolution: Any = FINEST) -> Self:
        """Return a copy whose value and gradient are those of the population, whatever the replay."""
        return replace(self, expectation=Quadrature(resolution), replay=None)

    def between(
        self, key: Array, target: Distribution, learner: Distribution, args: tuple[Any, ...]
    ) -> Array:
        """Return the divergence, see `Divergence.between`."""
        if isinstance(self.expectation, Quadrature):
            return kl_divergence(learner, target, self.expectation.resolution)
        old = None if self.replay is None else _replayed_law(learner, args)
        estimate = self._score if self.estimator == "score" else self._pathwise
        return estimate(key, self.expectation.num_samples, target, learner, old)

    def _score(
        self, key: Array, n: int, target: Distribution, learner: Distribution, old: Distribution | None
    ) -> Array:
        sampler = stop_gradient(learner if old is None else self._replayed(learner, old))
        y = sampler.sample(key, (n,))
        log_q = stop_gradient(learner.log_prob(y))
        weight = jnp.ones_like(log_q) if old is None else self._importance(log_q, old.log_prob(y))
        # Without the barrier XLA evaluates both densities again inside every reduction that follows.
        log_ratio, weight = lax.optimization_barrier((log_q - target.log_prob(y), weight))
        advantage = weight * (log_ratio - leave_one_out(log_ratio, weight))
        surrogate = weighted_log_prob(learner, y, advantage / n)
        return jnp.mean(weight * log_ratio) + surrogate - stop_gradient(surrogate)

    def _pathwise(
        self, key: Array, n: int, target: Distribution, learner: Distribution, old: Distribution | None
    ) -> Array:
        if not hasattr(learner, "strata"):
            kind = type(learner).__name__
            raise InputError(f"the pathwise estimator needs a learner whose law is a MixtureLaw; got {kind}")
        sampler = learner if old is None else self._replayed(learner, old)
        if n < sampler.num_modes:
            raise InputError(
                f"the pathwise estimator needs a behaviour for each of {sampler.num_modes} modes; "
                f"got a batch of {n}"
            )
        y, share = sampler.strata(key, n)
        log_q = learner.log_prob(y)
        weight = share if old is None else share * self._importance(log_q, old.log_prob(y))
        return jnp.sum(weight * (log_q - target.log_prob(y)))

    def _replayed(self, learner: MixtureLaw, old: MixtureLaw) -> MixtureLaw:
        """Return the sampling law b = (1-λ) q + λ N(μ_o, Σ) as one mixture."""
        return MixtureLaw(
            jnp.append(learner.log_weights + jnp.log1p(-self.replay), jnp.log(self.replay)),
            jnp.concatenate([learner.means, old.means]),
            [learner.scale(mode) for mode in range(learner.num_modes)] + [old.scale(0)],
        )

    def _importance(self, log_q: Array, log_old: Array) -> Array:
        """Return w = q/b, bounded by 1/(1-λ)."""
        log_b = jnp.logaddexp(jnp.log1p(-self.replay) + log_q, jnp.log(self.replay) + log_old)
        return jnp.exp(log_q - log_b)


def behaviour_law(
    program: Callable[..., None], params: dict[str, Array], *args: Any, **kwargs: Any
) -> Distribution:
    """Return the law at a NumPyro program's behaviour site, its parameters substituted.

    Raises:
        InputError: the program has another latent site, or none named ``"y"``.
    """
    seeded = handlers.seed(handlers.substitute(program, data=params), jax.random.key(0))
    trace = handlers.trace(seeded).get_trace(*args, **kwargs)
    latent = {name: site["fn"] for name, site in trace.items() if site["type"] == "sample"}
    if set(latent) != {BEHAVIOUR}:
        raise InputError(
            f"a model or guide must have the one sample site {BEHAVIOUR!r}; got {sorted(latent)}"
        )
    return latent[BEHAVIOUR]


def _replayed_law(learner: Distribution, args: tuple[Any, ...]) -> MixtureLaw:
    """Return the target's old mode, once learner and target are known to be mixtures of modes."""
    if not (args and isinstance(args[-1], TwoMode) and isinstance(learner, MixtureLaw)):
        raise InputError(
            "replay needs a learner whose law is a MixtureLaw and a TwoMode target as the model's last "
            f"argument; got a {type(learner).__name__} and {len(args)} arguments"
        )
    return args[-1].mode_law("old")


def at_least_two(what: str, expectation: Any) -> None:
    """Refuse a batch of one behaviour, which leaves no others."""
    if expectation == MonteCarlo(1):
        raise InputError(f"{what} needs a batch of at least 2; got 1")


def _floating(y: Array) -> Any:
    """Return the type of densities of behaviours: their own, float32 or wider for discrete ones."""
    return jnp.result_type(y.dtype, jnp.float32)


def weighted_log_prob(law: Distribution, y: Array, weights: Array) -> Float[Array, ""]:
    """Return Σ_i weights_i log q(y_i), with the law's own fast gradient where it has one."""
    own = getattr(law, "weighted_log_prob", None)
    return jnp.sum(weights * law.log_prob(y)) if own is None else own(y, weights)


def leave_one_out(values: Float[Array, "n"], weights: Float[Array, "n"]) -> Float[Array, "n"]:
    """Return for every i the weighted mean Σ_{j≠i} w_j x_j / Σ_{j≠i} w_j of the others."""
    total, mass = jnp.sum(weights * values), jnp.sum(weights)
    tiny = jnp.finfo(values.dtype).eps * mass
    return (total - weights * values) / jnp.maximum(mass - weights, tiny)
