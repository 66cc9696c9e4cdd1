"""The kinds of verdicts, and the kind of one in words, which are a kind alone or ``KIND: reason; reason``."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool

GOOD, WEAK, UNTRUSTED, UNMEASURED = "good", "weak", "not to be trusted", "not measured"

#: From the best on.
ORDER = (GOOD, WEAK, UNTRUSTED, UNMEASURED)


def parts_of(words: object) -> tuple[str, str]:
    """Return the kind of a verdict, and its reasons, if there are any."""
    kind, _, reasons = str(words).partition(": ")
    return kind, reasons


def kind_of(words: object) -> str:
    """Return the kind of a verdict."""
    return parts_of(words)[0]


def of_kind(words: object, *kinds: str) -> Bool[np.ndarray, "..."]:
    """Return whether verdicts, one or an array, are of a kind, or of one of some kinds."""
    texts = np.asarray(words).astype(str)
    return np.array([kind_of(text) in kinds for text in texts.flat], bool).reshape(texts.shape)


def worst(words: Iterable[object]) -> str:
    """Return the worst of some verdicts, the first of those."""
    return max(map(str, words), key=lambda text: ORDER.index(kind_of(text)))
