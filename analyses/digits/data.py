"""The real images: scikit-learn's handwritten digits, 8 by 8 pixels, in a few levels of grey."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

#: Side of an image, in pixels.
SIDE = 8

#: The digits of the old task; those of the new one are the others.
OLD_DIGITS = (0, 1, 2, 3, 4)

#: The digits of both tasks.
TASKS = {"old": OLD_DIGITS, "new": (5, 6, 7, 8, 9)}

#: Grey levels of the source, 0 to 16.
_FINEST = 16

# Share of the images that the judges learn from: classifiers and embedding. Networks never see them.
_JUDGES = 0.4


class Images(NamedTuple):
    """Images with the digit that each shows.

    Attributes:
        pixels: levels of grey, 0 to the number of levels less one, shape (image, pixel).
        digits: 0 to 9, shape (image,).
    """

    pixels: Int[np.ndarray, "image pixel"]
    digits: Int[np.ndarray, "image"]

    def of(self, digits: Sequence[int]) -> "Images":
        """Return the images of some digits."""
        chosen = np.isin(self.digits, digits)
        return Images(self.pixels[chosen], self.digits[chosen])

    @property
    def is_old(self) -> Bool[np.ndarray, "image"]:
        """Whether an image belongs to the old task."""
        return np.isin(self.digits, OLD_DIGITS)

    @property
    def old(self) -> Int[np.ndarray, "n pixel"]:
        """The pixels of the old task's images."""
        return self.pixels[self.is_old]

    @property
    def new(self) -> Int[np.ndarray, "n pixel"]:
        """The pixels of the new task's images."""
        return self.pixels[~self.is_old]


class Digits(NamedTuple):
    """Two disjoint parts of the data.

    Attributes:
        networks: what networks are trained on, and what judges are tested on.
        judges: what the classifiers and the embedding are trained on.
    """

    networks: Images
    judges: Images


def load(num_levels: int, seed: int) -> Digits:
    """Return the digits, quantised, in two parts that hold every digit in equal shares.

    Args:
        num_levels: levels of grey, 2 to 17.
        seed: of the division.

    Source: scikit-learn's ``load_digits``, the UCI repository's optical digits (Alpaydin, Kaynak 1998).
    """
    pixels, digits = load_digits(return_X_y=True)
    levels = np.round(pixels * (num_levels - 1) / _FINEST).astype(np.int32)
    networks, judges = train_test_split(
        np.arange(len(digits)), test_size=_JUDGES, random_state=seed, stratify=digits
    )
    return Digits(*(Images(levels[part], digits[part]) for part in (networks, judges)))
