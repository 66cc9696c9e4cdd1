"""The laws of images as NumPyro distributions, so that the project's own divergences train on them."""

from collections.abc import Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from numpyro.distributions import Distribution, constraints

from analyses.digits.transformer import Transformer

# Images of the reference that compete for one of a tilted law.
_CANDIDATES = 16


class _ImageLaw(Distribution):
    """A law over images, whose event is the pixels."""

    support = constraints.real_vector

    def __init__(self, num_pixels: int) -> None:
        super().__init__(event_shape=(num_pixels,), validate_args=False)


class NetworkLaw(_ImageLaw):
    """What a network generates.

    Args:
        network: the autoregressive network.
    """

    pytree_data_fields = ("network",)

    def __init__(self, network: Transformer) -> None:
        self.network = network
        super().__init__(network.num_pixels)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Int[Array, "*n pixel"]:
        """Return images."""
        draw = jax.vmap(self.network.sample)
        keys = jax.random.split(key, sample_shape)
        return draw(keys.reshape(-1)).reshape(*sample_shape, *self.event_shape)

    def log_prob(self, value: Int[Array, "*n pixel"], intermediates: object = None) -> Float[Array, "*n"]:
        """Return log q(y), in nats."""
        each = jax.vmap(self.network.log_prob)(value.reshape(-1, *self.event_shape))
        return each.reshape(value.shape[:-1])


class ImagesLaw(_ImageLaw):
    """The empirical law of some images, each with its own probability.

    Args:
        images: shape (image, pixel).
        logits: their log probabilities up to a constant, shape (image,).
    """

    pytree_data_fields = ("images", "logits")

    def __init__(self, images: Int[Array, "image pixel"], logits: Float[Array, "image"]) -> None:
        self.images, self.logits = images, logits
        super().__init__(images.shape[-1])

    @classmethod
    def of_tasks(cls, images: Sequence[Int[Array, "n pixel"]], log_shares: Sequence[Any]) -> Self:
        """Return the law of several tasks' images, each with the logarithm of its share."""
        logits = [
            jnp.full(len(each), share - jnp.log(len(each)))
            for each, share in zip(images, log_shares, strict=True)
        ]
        return cls(jnp.concatenate(images), jnp.concatenate(logits))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Int[Array, "*n pixel"]:
        """Return images, drawn with replacement."""
        return self.images[jax.random.categorical(key, self.logits, shape=sample_shape)]

    def log_prob(self, value: Int[Array, "*n pixel"], intermediates: object = None) -> Float[Array, "*n"]:
        """Return the log probability of images, -∞ of others."""
        same = jnp.all(value[..., None, :] == self.images, axis=-1)
        each = jax.nn.log_softmax(self.logits)
        return jax.nn.logsumexp(jnp.where(same, each, -jnp.inf), axis=-1)


class TiltedLaw(_ImageLaw):
    """The law q_0(y) exp(r(y)/τ)/Z, its log density up to the constant log Z.

    Args:
        reference: q_0.
        reward: function of (y, task, reference), see `mixture_models.rewards`.
        task: what the reward is told.
        kl_weight: τ > 0.
    """

    pytree_data_fields = ("reference", "reward", "task", "kl_weight")

    def __init__(self, reference: Distribution, reward: Any, task: Any, kl_weight: Any) -> None:
        self.reference, self.reward, self.task, self.kl_weight = reference, reward, task, kl_weight
        super().__init__(reference.event_shape[0])

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Int[Array, "*n pixel"]:
        """Return images, each chosen by its tilt from 16 of the reference: right up to O(1/16)."""
        of_candidates, of_choice = jax.random.split(key)
        images = self.reference.sample(of_candidates, (_CANDIDATES, *sample_shape))
        tilt = self._tilt(images.reshape(-1, *self.event_shape)).reshape(images.shape[:-1])
        chosen = jax.random.categorical(of_choice, tilt, axis=0)
        return jnp.take_along_axis(images, chosen[None, ..., None], axis=0)[0]

    def log_prob(self, value: Int[Array, "n pixel"], intermediates: Any = None) -> Float[Array, "n"]:
        """Return log q_0(y) + r(y)/τ, in nats."""
        return self.reference.log_prob(value) + self._tilt(value)

    def _tilt(self, images: Int[Array, "n pixel"]) -> Float[Array, "n"]:
        return self.reward(images, self.task, self.reference) / self.kl_weight
