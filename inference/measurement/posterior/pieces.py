"""A checkpoint's samples as pieces that are summed over: held in memory, or read anew by every pass."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Float

from inference.measurement.posterior import law
from inference.measurement.posterior.law import Rows

# Numbers of a piece, and its blocks at least: what the first climb takes must be of the first piece.
_NUMBERS, _LEAST_BLOCKS = 1 << 20, 8

# What is held of a checkpoint in memory is as many times its samples in the frame, with copies.
_COPIES = 3


@dataclass(frozen=True)
class Pieces:
    """The samples of a checkpoint in the frame, as `Rows` of one shape, so that one program sums them.

    Iterating reads them: `list` holds them in memory.

    Attributes:
        arrays: yields the samples in the frame, in order, shape (n, d) each.
        shape: blocks of a piece and rows of a block.
        features: d.
        seen: how many of the coordinates are given, None for all.
    """

    arrays: Callable[[], Iterable[np.ndarray]]
    shape: tuple[int, int]
    features: int
    seen: int | None = None

    def __iter__(self) -> Iterator[Rows]:
        size, d = self.shape[0] * self.shape[1], self.features
        y, filled = np.zeros((size, d)), 0
        for array in self.arrays():
            while len(array):
                taken, array = np.split(array, [size - filled])
                y[filled : filled + len(taken)] = taken
                filled += len(taken)
                if filled == size:
                    yield self._blocks(y, filled)
                    y, filled = np.zeros((size, d)), 0
        if filled:
            yield self._blocks(y, filled)

    def _blocks(self, y: np.ndarray, filled: int) -> Rows:
        piece = law.blocks_of(y, filled, self.shape)
        return Rows(piece.y[..., : self.seen], piece.weights)


#: The samples of a checkpoint: in memory, or read anew by every pass.
type Samples = list[Rows] | Pieces


def pieces_of(
    arrays: Callable[[], Iterable[np.ndarray]], num: int, features: int, *, streamed: bool
) -> Samples:
    """Return the samples of a checkpoint: one piece in memory, or pieces that every pass reads anew.

    Args:
        arrays: yields the samples in the frame, in order, shape (n, d) each.
        num: of the samples.
        features: d.
        streamed: whether they are read anew.
    """
    blocks, size = law.block_shape(num)
    if not streamed:
        return list(Pieces(arrays, (blocks, size), features))
    most = max(_NUMBERS // (size * features), _LEAST_BLOCKS)
    return Pieces(arrays, (min(most, blocks), size), features)


def narrowed(pieces: Samples, features: int) -> Samples:
    """Return pieces with the first coordinates of the samples alone, read anew by every pass if they were."""
    if isinstance(pieces, Pieces):
        return replace(pieces, seen=features)
    return [Rows(piece.y[..., :features], piece.weights) for piece in pieces]


def bytes_of(num: int, d: int) -> int:
    """Return what a checkpoint of so many samples takes when it is held in memory."""
    return _COPIES * 8 * num * (d + 2)


def total[Piece, Sum](function: Callable[[Piece], Sum], pieces: Iterable[Piece]) -> Sum:
    """Return the sum of a function over pieces; while one is computed the next is read, and no more."""
    summed: Sum | None = None
    for piece in pieces:
        jax.block_until_ready(summed)
        part = function(piece)
        summed = part if summed is None else jax.tree.map(jax.numpy.add, summed, part)
    assert summed is not None
    return summed


def sample_arrays(pieces: Iterable[Rows]) -> Iterator[Float[np.ndarray, "n d"]]:
    """Yield the samples of pieces, with what fills the last."""
    for piece in pieces:
        yield piece.y.reshape(-1, piece.y.shape[-1])
