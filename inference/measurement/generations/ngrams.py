"""The embedder that needs no model: word and character n-grams, TF-IDF and a truncated SVD of the references.

A map that was fitted on texts spreads them wider than others: were the references embedded by a map that
has seen them, every checkpoint would look narrower than they do, and the verdict would refuse it. So there
are ten maps, each fitted on nine tenths of the references and turned toward the map of all of them. The hash
of a text says which is its own: a reference has one that has not seen it, as has every text of a checkpoint.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import sparse

from inference.engine.blas import on_one_thread
from inference.measurement.generations.embedder import Embedder
from inference.storage.versions import version_of
from mixture_models.validation import InputError

_FOLDS = 10

# Features, at least, and for every task but one; and how many texts of every reference each of them takes.
_FEATURES, _FEATURES_A_TASK, _TEXTS_A_FEATURE = 8, 2, 10

# Places into which n-grams are hashed, of words and of characters each.
_PLACES = 2**18

# Spreads beyond which a projection is drawn in, and the least spread: texts have length 1.
_FAR_OUT, _LEAST_SPREAD = 3.0, 1e-6

# Singular values below this share of the largest are none.
_LEAST_VALUE = 1e-4


class _Map(NamedTuple):
    """From counts of n-grams to features.

    Attributes:
        columns: n-grams that count.
        rarity: inverse document frequency of each.
        directions: right singular vectors, shape (feature, column).
        values: their singular values.
    """

    columns: np.ndarray
    rarity: np.ndarray
    directions: np.ndarray
    values: np.ndarray

    def apply(self, counts: sparse.csr_matrix) -> Float[np.ndarray, "text feature"]:
        """Return the features of texts by their counts."""
        result: np.ndarray = _weighed(counts, self.columns, self.rarity) @ self.directions.T
        return result


class NGramEmbedder(Embedder):
    """Word and character n-grams, fitted on all references alike; see the module."""

    name = "ngrams"

    def __init__(self, *tasks: Sequence[str]) -> None:
        """Keep the texts of each task's reference; the maps are fitted when they are first needed."""
        self._tasks = [list(dict.fromkeys(texts)) for texts in tasks]

    @property
    def identity(self) -> str:
        """Return what its maps follow from: the versions of what fits them, and the references' texts."""
        versions = [version_of(package) for package in ("scikit-learn", "scipy", "numpy")]
        digest = hashlib.sha256()
        for task in self._tasks:
            digest.update(b"".join(sorted(_digest(text) for text in task)) + b"task")
        return f"ngrams 1 {versions} {digest.hexdigest()}"

    def fitted(self, *tasks: Sequence[str]) -> "NGramEmbedder":
        """Return the embedder that is fitted on these references."""
        return NGramEmbedder(*tasks)

    @on_one_thread
    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "text feature"]:
        """Return the features of texts, each by the map that has not seen it, drawn in where it is far out.

            y = z / √(1 + z²/9),   z the projection, less the references' median, over their spread

        A few texts that are nearly equal, such as boilerplate, lie so far out that they alone would decide
        where a mode has its mean, and every checkpoint that has one more or less of them would have moved.
        """
        middle, spread = self._middle_and_spread
        z = (self._projected(texts) - middle) / spread
        result: np.ndarray = z / np.sqrt(1.0 + (z / _FAR_OUT) ** 2)
        return result

    def _projected(self, texts: Sequence[str]) -> Float[np.ndarray, "text feature"]:
        counts, fold = _counts(texts), _fold_of(texts)
        features = np.zeros((len(texts), len(self._maps[0].directions)))
        for number in np.unique(fold):
            features[fold == number] = self._maps[number].apply(counts[fold == number])
        return features

    @cached_property
    def _middle_and_spread(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the median of each projection and half of its range from 16 to 84 %, all tasks alike."""
        weights = np.concatenate([np.full(len(task), 1.0 / len(task)) for task in self._tasks])
        projected = self._projected([text for task in self._tasks for text in task])
        low, middle, high = np.quantile(
            projected, [0.16, 0.5, 0.84], axis=0, weights=weights, method="inverted_cdf"
        )
        return middle, np.maximum(0.5 * (high - low), _LEAST_SPREAD)

    @cached_property
    def _maps(self) -> list[_Map]:
        # In one order, so that it does not matter which task is called old.
        rows = sorted((text, place) for place, task in enumerate(self._tasks) for text in task)
        texts, owner = [text for text, _ in rows], np.array([place for _, place in rows])
        counts, fold = _counts(texts), _fold_of(texts)
        most = min(map(len, self._tasks)) // _TEXTS_A_FEATURE
        wanted = max(_FEATURES, _FEATURES_A_TASK * (len(self._tasks) - 1))
        whole = _fit(counts, owner, len(self._tasks), max(1, min(wanted, most)))
        size = int(np.sum(whole.values > _LEAST_VALUE * whole.values[0]))
        whole = whole._replace(directions=whole.directions[:size])
        maps = [_fit(counts[fold != f], owner[fold != f], len(self._tasks), size) for f in range(_FOLDS)]
        return [_turned(one, whole) for one in maps]


def _fit(counts: sparse.csr_matrix, owner: np.ndarray, tasks: int, size: int) -> _Map:
    """Return the map of some references, in which all tasks count alike, however many texts they have.

    Raises:
        InputError: texts that have no n-gram in common.
    """
    from sklearn.decomposition import TruncatedSVD

    present = counts.astype(bool).astype(np.float64)
    columns = np.flatnonzero(np.asarray(present.sum(axis=0)).ravel() >= 2.0)
    texts = np.bincount(owner, minlength=tasks)
    if len(columns) < 2 or not texts.all():
        raise InputError(
            "the texts of the references must have words in common to be embedded by their n-grams; they "
            "have none: give more texts"
        )
    num = len(owner)
    weights = (1.0 / tasks / texts)[owner]
    frequency = np.asarray(weights @ present[:, columns]).ravel()
    rarity = np.log((1.0 + num) / (1.0 + num * frequency)) + 1.0
    rows = sparse.diags(np.sqrt(num * weights)) @ _weighed(counts, columns, rarity)
    size = min(size, len(columns), num)
    svd = TruncatedSVD(size, random_state=0).fit(rows)
    return _Map(columns, rarity, svd.components_, svd.singular_values_)


def _weighed(counts: sparse.csr_matrix, columns: np.ndarray, rarity: np.ndarray) -> sparse.csr_matrix:
    """Return TF-IDF: logarithms of counts times rarities, each text of length 1."""
    from sklearn.preprocessing import normalize

    chosen = counts[:, columns]
    chosen.data = 1.0 + np.log(chosen.data)
    return normalize(chosen.multiply(rarity).tocsr())


def _turned(one: _Map, toward: _Map) -> _Map:
    """Return a map whose features are turned as near to those of another as they can be (Procrustes)."""
    _, here, there = np.intersect1d(one.columns, toward.columns, assume_unique=True, return_indices=True)
    left, _, right = np.linalg.svd(
        toward.directions[:, there] @ one.directions[:, here].T, full_matrices=False
    )
    return one._replace(directions=left @ right @ one.directions)


def _counts(texts: Sequence[str]) -> sparse.csr_matrix:
    """Return how often every n-gram is in every text."""
    return _hashing().transform(texts).tocsr()


def _hashing() -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.pipeline import FeatureUnion

    common = {"n_features": _PLACES, "norm": None, "alternate_sign": False, "lowercase": False}
    words = HashingVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", **common)
    characters = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), **common)
    return FeatureUnion([("words", words), ("characters", characters)])


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _fold_of(texts: Sequence[str]) -> np.ndarray:
    return np.array([int.from_bytes(_digest(text)[:4]) % _FOLDS for text in texts])
