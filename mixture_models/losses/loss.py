"""What a loss is: the declared interface of everything that training minimises.

Model and guide are NumPyro programs with one latent site, the sample ``"y"``, and the same arguments; the
guide's ``numpyro.param`` sites are what training moves.
"""

import copy
import inspect
from dataclasses import Field, dataclass, replace
from functools import partial
from typing import ClassVar, Self, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import Distribution
from numpyro.infer.elbo import ELBO
from numpyro.primitives import Message

from mixture_models.integrals.logistic_normal import FINEST
from mixture_models.losses.expectations import MonteCarlo, Quadrature
from mixture_models.losses.sampling import NotStated, SamplingLaw
from mixture_models.mixture.law import MixtureLaw
from mixture_models.rewards import Reward, resolve
from mixture_models.types import Arguments, Index, ModelOrGuide, Params
from mixture_models.validation import InputError

#: The site of a sample in every model and guide.
SITE = "y"


class Evaluated(TypedDict):
    """What an ELBO returns: a loss, and a state that none of ours has."""

    loss: Array
    mutable_state: object


class Loss(ELBO):
    """A loss between the law of a model and the law of a guide, on samples ``"y"``.

    A subclass is a dataclass with a field ``expectation``, registered as a JAX pytree; it defines `on_batch`,
    with an exact form also `in_population`, and overrides the defaults that are not true of it.

    Attributes:
        expectation: where its expectation comes from, a `MonteCarlo` batch or `Quadrature`.
        direction: what results call it.
        sampling: whose samples a batch holds; `batch` draws them.
        of_ratios: whether a batch enters only by ratios of densities and by rewards.
        has_exact: whether `exact` gives its value and gradient in the population.
        reward: what samples earn, or None.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]
    expectation: MonteCarlo | Quadrature
    direction: str = "not stated"
    of_ratios: bool = False
    has_exact: ClassVar[bool] = False
    reward: Reward | None = None

    def __post_init__(self) -> None:
        super().__init__()
        # JAX passes leaves of its own through, which cannot be called.
        if callable(self.reward):
            self.reward = resolve(self.reward)

    @property
    def sampling(self) -> SamplingLaw:
        """Whose samples a batch holds."""
        return NotStated()

    @property
    def name(self) -> str:
        """What results call its kind."""
        return type(self).__name__

    def with_samples(self, num_samples: int) -> Self:
        """Return a copy that sees a batch of ``num_samples`` samples."""
        return replace(self, expectation=MonteCarlo(num_samples))

    def exact(self, resolution: Index = FINEST) -> Self:
        """Return a copy whose value and gradient are those of the population.

        Args:
            resolution: of the integrals, see `Quadrature`.

        Raises:
            InputError: the loss or its reward has no exact form.
        """
        if not self.has_exact:
            raise InputError(f"a loss with an exact form is needed; {self.name} has none")
        if self.reward is not None and not self.reward.has_modes:
            raise InputError(
                "an exact form needs a reward with the methods modes and steepness, such as those of "
                f"mixture_models.rewards; got {self.reward.given!r}"
            )
        return replace(self, expectation=Quadrature(resolution))

    def loss_with_mutable_state(
        self,
        rng_key: Array,
        param_map: Params,
        model: ModelOrGuide,
        guide: ModelOrGuide,
        *args: object,
        **kwargs: object,
    ) -> Evaluated:
        """Evaluate the loss; its derivative is the gradient's estimate (see `ELBO`)."""
        target = law_of(model, param_map, *args, **kwargs)
        learner = law_of(guide, param_map, *args, **kwargs)
        arguments = inspect.signature(model).bind(*args, **kwargs).args
        return {"loss": self.between(rng_key, target, learner, arguments), "mutable_state": None}

    def between(self, key: Array, target: Distribution, learner: Distribution, args: Arguments) -> Array:
        """Return the loss, on a batch or in the population as `expectation` says.

        Its derivative in the learner's params is the gradient, or its estimate.

        Args:
            key: for the batch.
            target: the model's law.
            learner: the guide's law.
            args: the arguments of model and guide, in the model's order.
        """
        if isinstance(self.expectation, Quadrature):
            return self.in_population(self.expectation.resolution, target, learner, args)
        return self.estimate(key, self.expectation.num_samples, target, learner, args)

    def estimate(
        self, key: Array, n: int, target: Distribution, learner: Distribution, args: Arguments
    ) -> Array:
        """Return the loss on ``n`` fresh samples; the other arguments are those of `between`."""
        return self.on_batch(self.batch(key, n, target, learner, args), target, learner, args)

    def on_batch(self, y: Array, target: Distribution, learner: Distribution, args: Arguments) -> Array:
        """Return the loss on samples ``y`` of `batch`; the other arguments are those of `between`."""
        raise NotImplementedError

    def in_population(
        self, resolution: Index, target: MixtureLaw, learner: MixtureLaw, args: Arguments
    ) -> Array:
        """Return the loss of the population by integrals of a resolution, see `Quadrature`.

        The other arguments are those of `between`.
        """
        raise NotImplementedError

    def batch(
        self, key: Array, n: int, target: Distribution, learner: Distribution, args: Arguments
    ) -> Array:
        """Draw ``n`` samples of the sampling law, through which no gradient flows.

        The other arguments are those of `between`.
        """
        law = self.sampling.law(target, stop_gradient(learner), args)
        y: Array = stop_gradient(law.sample(key, (n,)))
        return y

    def unmet(
        self, resolution: Index, target: MixtureLaw, learner: MixtureLaw, args: Arguments
    ) -> dict[str, Array]:
        """Return what the loss cannot fulfil in the population: whether so, by a sentence of what it must.

        The arguments are those of `in_population`.
        """
        return {}


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["elbo", "num_samples"])
@dataclass
class NumPyroLoss(Loss):
    """One of NumPyro's own ELBOs as a loss, its particles being the samples.

    Args:
        elbo: such as `numpyro.infer.TraceGraph_ELBO`.
        num_samples: particles; None leaves them as they are.
    """

    elbo: ELBO
    num_samples: int | None = None

    @property
    def name(self) -> str:
        """What results call its kind."""
        return type(self.elbo).__name__

    def with_samples(self, num_samples: int) -> Self:
        """Return a copy that takes ``num_samples`` particles."""
        return replace(self, num_samples=num_samples)

    def loss_with_mutable_state(self, *args: object, **kwargs: object) -> Evaluated:
        """Evaluate the loss, see `numpyro.infer.elbo.ELBO`."""
        elbo = copy.copy(self.elbo)
        elbo.num_particles = elbo.num_particles if self.num_samples is None else self.num_samples
        if type(elbo).loss_with_mutable_state is ELBO.loss_with_mutable_state:  # the one that raises
            return {"loss": elbo.loss(*args, **kwargs), "mutable_state": None}
        result: Evaluated = elbo.loss_with_mutable_state(*args, **kwargs)
        return result


def as_loss(loss: ELBO) -> Loss:
    """Return a loss as it is, and one of NumPyro's own ELBOs as a `NumPyroLoss`.

    Raises:
        InputError: anything else.
    """
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, ELBO):
        raise InputError(f"a loss must be a NumPyro ELBO; got {type(loss).__name__}")
    return NumPyroLoss(loss)


def law_of(program: ModelOrGuide, params: Params, *args: object, **kwargs: object) -> Distribution:
    """Return the law at a NumPyro program's sample site, its parameters substituted.

    Raises:
        InputError: the program has another latent site, or none named ``"y"``.
    """
    trace = handlers.trace(undrawn(handlers.substitute(program, data=params))).get_trace(*args, **kwargs)
    latent = {name: site["fn"] for name, site in trace.items() if site["type"] == "sample"}
    if set(latent) != {SITE}:
        raise InputError(f"a model or guide must have the one sample site {SITE!r}; got {sorted(latent)}")
    return latent[SITE]


def undrawn(program: ModelOrGuide) -> ModelOrGuide:
    """Return a program to be traced for its sites alone: samples are zeros.

    To draw them would be traced too, or outside ``jit`` compiled operation by operation.
    """
    result: ModelOrGuide = handlers.seed(
        handlers.substitute(program, substitute_fn=_zeros), jax.random.key(0)
    )
    return result


def _zeros(site: Message) -> np.ndarray | None:
    if site["type"] != "sample":
        return None
    return np.zeros(site["fn"].shape(site["kwargs"].get("sample_shape", ())))


def at_least_two(what: str, expectation: MonteCarlo | Quadrature) -> None:
    """Refuse a batch of one sample, which leaves no others."""
    if expectation == MonteCarlo(1):
        raise InputError(f"{what} needs a batch of at least 2; got 1")


def weighted_log_prob(law: Distribution, y: Array, weights: Array) -> Float[Array, ""]:
    """Return Σ_i weights_i log q(y_i), with the fast gradient of a mixture."""
    if isinstance(law, MixtureLaw):
        return law.weighted_log_prob(y, weights)
    return jnp.sum(weights * law.log_prob(y))


def with_gradient_of(value: Float[Array, ""], surrogate: Float[Array, ""]) -> Float[Array, ""]:
    """Return a value, with the gradient of a surrogate beside its own."""
    result: Array = value + surrogate - stop_gradient(surrogate)
    return result


def leave_one_out(values: Float[Array, "n"], weights: Float[Array, "n"]) -> Float[Array, "n"]:
    """Return for every i the weighted mean Σ_{j≠i} w_j x_j / Σ_{j≠i} w_j of the others."""
    total, mass = jnp.sum(weights * values), jnp.sum(weights)
    tiny = jnp.finfo(values.dtype).eps * mass
    return (total - weights * values) / jnp.maximum(mass - weights, tiny)
