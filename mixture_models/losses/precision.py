"""Losses of a batch in single precision: densities and weights in float32, parameters and updates in float64.

A batch of n samples leaves a relative noise of about 1/√n in every gradient; rounding to float32 adds
about 1e-6. A CPU computes with twice as many float32 as float64 numbers at a time, an accelerator with more.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import Distribution

from mixture_models.losses.expectations import MonteCarlo, Quadrature
from mixture_models.losses.loss import Evaluated, Loss
from mixture_models.losses.sampling import SamplingLaw
from mixture_models.types import Arguments, ModelOrGuide, Params
from mixture_models.validation import one_of

#: In what a batch's densities and weights are computed; parameters and their updates are float64 in each.
PRECISIONS = ("float64", "float32")


@partial(jax.tree_util.register_dataclass, data_fields=["inner"], meta_fields=[])
@dataclass
class SinglePrecision(Loss):
    """A loss that is computed in float32, of parameters rounded to float32; its value is float64.

    Means must be small against 1e7 standard deviations, or the rounding of a sample is seen.

    Args:
        inner: the loss.
    """

    inner: Loss

    @property
    def expectation(self) -> MonteCarlo | Quadrature:  # type: ignore[override]
        """Where the loss's expectation comes from."""
        return self.inner.expectation

    @property
    def sampling(self) -> SamplingLaw:
        """Whose samples a batch holds."""
        return self.inner.sampling

    def between(self, key: Array, target: Distribution, learner: Distribution, args: Arguments) -> Array:
        """Return the loss of laws that are rounded, see `Loss.between`."""
        inner, target, learner, args = _rounded((self.inner, target, learner, args))
        return inner.between(key, target, learner, args).astype(float)

    def loss_with_mutable_state(
        self,
        rng_key: Array,
        param_map: Params,
        model: ModelOrGuide,
        guide: ModelOrGuide,
        *args: object,
        **kwargs: object,
    ) -> Evaluated:
        """Evaluate the loss, see `numpyro.infer.elbo.ELBO`."""
        inner, param_map, model, guide, args, kwargs = _rounded(
            (self.inner, param_map, model, guide, args, kwargs)
        )
        result = inner.loss_with_mutable_state(rng_key, param_map, model, guide, *args, **kwargs)
        return {**result, "loss": result["loss"].astype(float)}


def in_precision(loss: Loss, precision: str) -> Loss:
    """Return a loss that is computed in ``precision``, one of `PRECISIONS`.

    Raises:
        InputError: another precision.
    """
    return loss if one_of("precision", precision, PRECISIONS) == "float64" else SinglePrecision(loss)


def _rounded[Tree](tree: Tree) -> Tree:
    """Return a pytree whose float64 arrays are float32."""
    result: Tree = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if getattr(leaf, "dtype", None) == jnp.float64 else leaf, tree
    )
    return result
