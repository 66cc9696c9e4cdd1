"""The judges of images: a verifier that rewards, an embedding that is measured, and a classifier that counts.

All learn from real digits that no network sees. Verifier and embedding are perceptrons that share nothing but
these digits; the count is that of a panel of other classifiers.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.kernel_approximation import Nystroem
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from analyses.digits.data import OLD_DIGITS, TASKS, Images

_NUM_DIGITS = 10

# Of a perceptron: hidden units, updates on all images at once, learning rate, and the standard deviation of
# the noise that every update adds to the pixels, which are between 0 and 1.
_HIDDEN, _UPDATES, _RATE, _NOISE = 64, 300, 1e-2, 0.25

# Classifiers of a kind that count.
_BOOTSTRAPS = 4

# Of the embedding: the kernel's γ for pixels between 0 and 1, and the images at which it is evaluated.
_GAMMA, _NUM_CENTRES = 0.05, 300


class Perceptron(eqx.Module):
    """A classifier of the ten digits with one hidden layer; called with images it gives log P(old)/P(new).

    Args:
        num_pixels: of an image.
        num_levels: values that a pixel can take.
        key: of the initial weights.
    """

    hidden: eqx.nn.Linear
    out: eqx.nn.Linear
    num_levels: int = eqx.field(static=True)

    def __init__(self, num_pixels: int, num_levels: int, key: PRNGKeyArray) -> None:
        of_hidden, of_out = jax.random.split(key)
        self.hidden = eqx.nn.Linear(num_pixels, _HIDDEN, key=of_hidden)
        self.out = eqx.nn.Linear(_HIDDEN, _NUM_DIGITS, key=of_out)
        self.num_levels = num_levels

    def __call__(self, images: Int[Array, "n pixel"]) -> Float[Array, "n"]:
        """Return the log odds of the old task."""
        each = self.log_probabilities(images / (self.num_levels - 1))
        is_old = np.isin(np.arange(_NUM_DIGITS), OLD_DIGITS)
        old, new = each[:, is_old], each[:, ~is_old]
        return jax.nn.logsumexp(old, axis=-1) - jax.nn.logsumexp(new, axis=-1)

    def log_probabilities(self, grey: Float[Array, "n pixel"]) -> Float[Array, "n digit"]:
        """Return the log probability of every digit for images whose pixels lie between 0 and 1."""
        return jax.nn.log_softmax(jax.vmap(lambda x: self.out(jax.nn.relu(self.hidden(x))))(grey))


# A perceptron and the state of its optimizer.
type _Learning = tuple[Perceptron, optax.OptState]


@jax.jit
def _trained(perceptron: Perceptron, pixels: Array, digits: Array, key: PRNGKeyArray) -> Perceptron:
    grey, optimizer = pixels / (perceptron.num_levels - 1), optax.adam(_RATE)

    def loss(perceptron: Perceptron, seen: Array) -> Array:
        return -jnp.mean(jnp.take_along_axis(perceptron.log_probabilities(seen), digits[:, None], axis=-1))

    def update(carry: _Learning, key: Array) -> tuple[_Learning, None]:
        perceptron, state = carry
        seen = grey + _NOISE * jax.random.normal(key, grey.shape)
        change, state = optimizer.update(jax.grad(loss)(perceptron, seen), state)
        return (eqx.apply_updates(perceptron, change), state), None

    start = perceptron, optimizer.init(perceptron)
    return jax.lax.scan(update, start, jax.random.split(key, _UPDATES))[0][0]


def perceptron(images: Images, num_levels: int, key: PRNGKeyArray) -> Perceptron:
    """Return a perceptron that has learnt the digits, from noisy images."""
    of_start, of_noise = jax.random.split(key)
    start = Perceptron(images.pixels.shape[-1], num_levels, of_start)
    return _trained(start, jnp.asarray(images.pixels), jnp.asarray(images.digits), of_noise)


class Embedding:
    """The fixed features in which images are measured: what tells the ten digits apart, linearly in a kernel.

    Random features of the radial basis function exp(-γ |x - x'|²) (Nyström's, at some of the images), and of
    these the linear discriminants of the ten digits: nine features, in which each digit is roughly a Gaussian
    of unit covariance.

    Args:
        images: real digits to learn from.
        num_levels: values that a pixel can take.
        seed: of the images at which the kernel is evaluated.
    """

    def __init__(self, images: Images, num_levels: int, seed: int) -> None:
        self._num_levels = num_levels
        kernel = Nystroem(gamma=_GAMMA, n_components=_NUM_CENTRES, random_state=seed)
        self._map = make_pipeline(kernel, LinearDiscriminantAnalysis()).fit(
            images.pixels / (num_levels - 1), images.digits
        )

    def __call__(self, images: Int[np.ndarray, "n pixel"]) -> Float[np.ndarray, "n feature"]:
        """Return the features of images."""
        return self._map.transform(images / (self._num_levels - 1))


class Count(NamedTuple):
    """Images that a classifier gives to each task, and what it does with images of which that is known.

    Attributes:
        called: of the counted images, those that are given to each task.
        confusion: of each task's held-out digits (rows) those that are given to each.
    """

    called: Int[np.ndarray, "K"]
    confusion: Int[np.ndarray, "K K"]

    def draws(self, num_draws: int, rng: np.random.Generator) -> Float[np.ndarray, "draw K"]:
        """Return draws of the shares of the tasks, of which the classifier's errors are a part.

        Shares π are called Cᵀ π, with row k of C the rates at which images of task k are given to each task.
        All rates are drawn from their posteriors under uniform priors, and π is kept in the simplex: what is
        below 0 is set to 0, and the sum to 1.

        Source: Rogan and Gladen 1978, doi:10.1093/oxfordjournals.aje.a112510, for the inversion of two.
        """
        called = _shares(self.called, num_draws, rng)
        rates = np.stack([_shares(row, num_draws, rng) for row in self.confusion], axis=-1)
        found = np.maximum(np.linalg.solve(rates, called[..., None])[..., 0], 0.0)
        result: np.ndarray = found / found.sum(axis=-1, keepdims=True)
        return result


def _shares(
    counts: Int[np.ndarray, "K"], num_draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "draw K"]:
    """Return draws of the shares behind counts under a uniform prior, of what is left a Beta each."""
    left, shares = np.ones(num_draws), []
    for place, count in enumerate(counts[:-1], 1):
        others = counts[place:]
        part = rng.beta(1 + count, len(others) + others.sum(), num_draws)
        shares.append(left * part)
        left = left * (1.0 - part)
    return np.stack([*shares, left], axis=-1)


class Panel:
    """Classifiers that label images, and what each makes of held-out digits.

    Support vector machines, nearest neighbours and random forests, each kind on several bootstraps of the
    real digits: of images that are no clear digit classifiers make different things, so which one counts is a
    source of uncertainty of its own.

    Args:
        images: real digits to learn from.
        held_out: real digits to be tested on.
        num_levels: values that a pixel can take.
        seed: of the bootstraps.
        tasks: the digits of every task by its name; all that are shown belong to one.
    """

    #: The kinds of classifiers, each with the same share of the panel.
    kinds = ("support vectors", "nearest neighbours", "random forest")

    def __init__(
        self,
        images: Images,
        held_out: Images,
        num_levels: int,
        seed: int,
        tasks: Mapping[str, Sequence[int]] = TASKS,
    ) -> None:
        self._scale, rng = num_levels - 1, np.random.default_rng(seed)
        self._tasks = list(tasks.values())
        made = (
            lambda: SVC(C=10.0),
            lambda: KNeighborsClassifier(3),
            lambda: RandomForestClassifier(100, random_state=seed),
        )
        self._members: list[list[tuple[Any, Int[np.ndarray, "K K"]]]] = []
        for make in made:
            of_kind = []
            for _ in range(_BOOTSTRAPS):
                rows = rng.integers(len(images.digits), size=len(images.digits))
                member = make().fit(images.pixels[rows] / self._scale, images.digits[rows])
                confusion = [self._called(member, held_out.of(digits).pixels) for digits in self._tasks]
                of_kind.append((member, np.stack(confusion)))
            self._members.append(of_kind)

    def count(self, images: Int[np.ndarray, "n pixel"]) -> list[list[Count]]:
        """Return the counts of images by task: of every kind those of its classifiers."""
        return [
            [Count(self._called(member, images), confusion) for member, confusion in of_kind]
            for of_kind in self._members
        ]

    def _called(self, member: Any, images: Int[np.ndarray, "n pixel"]) -> Int[np.ndarray, "K"]:
        found = member.predict(images / self._scale)
        return np.array([np.isin(found, digits).sum() for digits in self._tasks])


def panel_draws(
    counts: list[list[Count]], num_draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "kind draw K"]:
    """Return draws of the tasks' shares by every kind, each of its classifiers with the same share."""
    each = -(-num_draws // len(counts[0]))
    drawn = [np.concatenate([count.draws(each, rng) for count in of_kind]) for of_kind in counts]
    return np.stack([rng.permutation(of_kind)[:num_draws] for of_kind in drawn])
