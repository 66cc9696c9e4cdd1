"""A small autoregressive transformer over the pixels of an image: likelihood, and samples with a cache."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

# Standard deviation of the embeddings at the start.
_EMBEDDING_SCALE = 0.1


class Cache(NamedTuple):
    """Keys and values of the pixels so far, one entry a block: shape (pixel, head, width of a head)."""

    keys: tuple[Float[Array, "pixel head k"], ...]
    values: tuple[Float[Array, "pixel head k"], ...]


class Start(NamedTuple):
    """The first pixels of an image, read by a network.

    Attributes:
        given: the pixels.
        last: what stands before the next one.
        cache: of all before ``last``.
    """

    given: Int[Array, "given"]
    last: Int[Array, ""]
    cache: Cache


class Block(eqx.Module):
    """Causal self-attention and a two-layer perceptron, each on a normalised input and added to it.

    Args:
        width: of the residual stream; the heads divide it.
        num_heads: of the attention.
        key: of the initial weights.
    """

    attention_norm: eqx.nn.LayerNorm
    project: eqx.nn.Linear
    join: eqx.nn.Linear
    perceptron_norm: eqx.nn.LayerNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    num_heads: int = eqx.field(static=True)

    def __init__(self, width: int, num_heads: int, key: Array) -> None:
        of_project, of_join, of_up, of_down = jax.random.split(key, 4)
        self.attention_norm = eqx.nn.LayerNorm(width)
        self.project = eqx.nn.Linear(width, 3 * width, key=of_project)
        self.join = eqx.nn.Linear(width, width, key=of_join)
        self.perceptron_norm = eqx.nn.LayerNorm(width)
        self.up = eqx.nn.Linear(width, 4 * width, key=of_up)
        self.down = eqx.nn.Linear(4 * width, width, key=of_down)
        self.num_heads = num_heads

    def heads(self, x: Float[Array, "width"]) -> list[Float[Array, "head k"]]:
        """Return the query, the key and the value of one pixel, a row a head."""
        joined = self.project(self.attention_norm(x))
        return [part.reshape(self.num_heads, -1) for part in jnp.split(joined, 3)]

    def attend(
        self,
        x: Float[Array, "width"],
        query: Float[Array, "head k"],
        keys: Float[Array, "pixel head k"],
        values: Float[Array, "pixel head k"],
        visible: Bool[Array, "pixel"],
    ) -> Float[Array, "width"]:
        """Return the block's output for one pixel that sees the ``visible`` ones."""
        scores = jnp.einsum("hk,phk->hp", query, keys) / np.sqrt(query.shape[-1])
        shares = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
        x = x + self.join(jnp.einsum("hp,phk->hk", shares, values).reshape(-1))
        return x + self.down(jax.nn.gelu(self.up(self.perceptron_norm(x))))


class Transformer(eqx.Module):
    """The law q(y) = Π_t q(y_t | y_1, ..., y_{t-1}) of images, pixel by pixel.

    Args:
        num_pixels: of an image, in reading order.
        num_levels: values that a pixel can take, 0 to num_levels - 1.
        width: of the residual stream.
        num_blocks: one after the other.
        num_heads: of each block's attention.
        key: of the initial weights.
    """

    pixels: Float[Array, "level width"]
    positions: Float[Array, "pixel width"]
    blocks: tuple[Block, ...]
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(
        self, num_pixels: int, num_levels: int, width: int, num_blocks: int, num_heads: int, key: Array
    ) -> None:
        of_pixels, of_positions, of_head, *of_blocks = jax.random.split(key, 3 + num_blocks)
        # One row more than there are levels: what stands before the first pixel.
        self.pixels = _EMBEDDING_SCALE * jax.random.normal(of_pixels, (num_levels + 1, width))
        self.positions = _EMBEDDING_SCALE * jax.random.normal(of_positions, (num_pixels, width))
        self.blocks = tuple(Block(width, num_heads, of_block) for of_block in of_blocks)
        self.norm = eqx.nn.LayerNorm(width)
        self.head = eqx.nn.Linear(width, num_levels, key=of_head)

    @property
    def num_pixels(self) -> int:
        """Pixels of an image."""
        return self.positions.shape[-2]

    @property
    def num_levels(self) -> int:
        """Values that a pixel can take."""
        return self.pixels.shape[-2] - 1

    def logits(self, image: Int[Array, "pixel"]) -> Float[Array, "pixel level"]:
        """Return the logits of every pixel given those before it, all at once."""
        before = jnp.concatenate([jnp.full(1, self.num_levels, image.dtype), image[:-1]])
        x = self.pixels[before] + self.positions
        visible = jnp.tril(jnp.ones((self.num_pixels, self.num_pixels), bool))
        for block in self.blocks:
            queries, keys, values = jax.vmap(block.heads)(x)
            x = jax.vmap(block.attend, (0, 0, None, None, 0))(x, queries, keys, values, visible)
        return jax.vmap(self._read)(x)

    def log_prob(self, image: Int[Array, "pixel"]) -> Float[Array, ""]:
        """Return log q(y) of one image, in nats."""
        each = jax.nn.log_softmax(self.logits(image))
        return jnp.sum(jnp.take_along_axis(each, image[:, None], axis=-1))

    def sample(self, key: Array) -> Int[Array, "pixel"]:
        """Return one image, pixel by pixel; what the blocks need of earlier pixels is kept in a cache."""
        return self.complete(self.read(jnp.zeros(0, jnp.int32)), key)

    def read(self, given: Int[Array, "given"]) -> Start:
        """Return what the first pixels of an image, in reading order, leave behind for those that follow."""
        shape = (self.num_pixels, self.blocks[0].num_heads, -1)
        empty = tuple(jnp.zeros_like(self.positions).reshape(shape) for _ in self.blocks)
        first = jnp.concatenate([jnp.full(1, self.num_levels, jnp.int32), given.astype(jnp.int32)])

        def following(cache: Cache, step: tuple[Array, Array]) -> tuple[Cache, None]:
            return self._next(*step, cache)[1], None

        steps = first[:-1], jnp.arange(len(given))
        return Start(given, first[-1], lax.scan(following, Cache(empty, empty), steps)[0])

    def complete(self, start: Start, key: Array) -> Int[Array, "rest"]:
        """Return one draw of the pixels that follow the given ones, from their law given these."""

        def following(
            carry: tuple[Array, Cache], step: tuple[Array, Array]
        ) -> tuple[tuple[Array, Cache], Array]:
            before, cache = carry
            position, key = step
            logits, cache = self._next(before, position, cache)
            pixel = jax.random.categorical(key, logits).astype(jnp.int32)
            return (pixel, cache), pixel

        positions = jnp.arange(len(start.given), self.num_pixels)
        steps = positions, jax.random.split(key, len(positions))
        return lax.scan(following, (start.last, start.cache), steps)[1]

    def _next(
        self, before: Int[Array, ""], position: Int[Array, ""], cache: Cache
    ) -> tuple[Float[Array, "level"], Cache]:
        """Return the logits of the pixel at a position, given the one before it and the cache."""
        x = self.pixels[before] + self.positions[position]
        visible = jnp.arange(self.num_pixels) <= position
        all_keys, all_values = [], []
        for block, keys, values in zip(self.blocks, *cache, strict=True):
            query, key, value = block.heads(x)
            keys = lax.dynamic_update_index_in_dim(keys, key, position, 0)
            values = lax.dynamic_update_index_in_dim(values, value, position, 0)
            x = block.attend(x, query, keys, values, visible)
            all_keys.append(keys)
            all_values.append(values)
        return self._read(x), Cache(tuple(all_keys), tuple(all_values))

    def _read(self, x: Float[Array, "width"]) -> Float[Array, "level"]:
        return self.head(self.norm(x))
