"""The mixture of named tasks: what is common to two modes and to more, and the mixture of any number."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, fields, replace
from functools import partial
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from mixture_models.mixture import covariance as cov
from mixture_models.mixture.law import MixtureLaw
from mixture_models.mixture.task import NamedTasks
from mixture_models.types import AnyArray, Params, Reals, Scalar
from mixture_models.validation import InputError, finite_array, open_interval

#: Most tasks of a mixture; the time of a step grows with them.
MOST_TASKS = 20

# By how much weights may miss a sum of 1.
_SUM_ERROR = 1e-9

# Of u = √2 φ, so that a step by -η ∂L/∂u moves φ by -(η/2) ∂L/∂φ.
_ROOT_2 = 2.0**0.5


class Mixture(NamedTasks):
    """A mixture of Gaussian modes, one a task, each with a name.

    `Mixture.create` builds one of any number of tasks; `TwoMode` is the one of an old and a new task.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]

    @staticmethod
    def create(
        means: Mapping[str, ArrayLike] | Iterable[tuple[str, ArrayLike]],
        weights: Mapping[str, float] | None = None,
        covariance: ArrayLike | None = None,
    ) -> "Mixture":
        """Check the parameters and build the mixture Σ_k β_k N(m_k, Σ) of named tasks.

        Args:
            means: m_k by the name of the task, each a scalar or shape (d,); 2 to 20 tasks.
            weights: β_k in (0, 1) by name, with sum 1; None for equal ones.
            covariance: Σ of all modes as None (identity), a variance, d variances, or a (d, d) matrix.

        Raises:
            InputError: too few or too many tasks, names that repeat or are none, weights that do not sum to
                1, shapes that do not match, or a covariance that is not positive definite.
        """
        named = _named_means(means)
        names = tuple(named)
        stacked = np.stack(list(named.values()))
        scale = cov.scale_of("covariance", covariance, stacked.shape[1])
        return TaskMixture(names, _logits(names, weights), stacked, scale)

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The tasks' names, in the order of the modes."""

    @property
    @abstractmethod
    def means(self) -> Float[AnyArray, "K d"]:
        """m_k, shape (K, d)."""

    @property
    @abstractmethod
    def log_weights(self) -> Float[AnyArray, "K"]:
        """Logarithms of β_k, accurate however small."""

    @property
    @abstractmethod
    def scales(self) -> tuple[cov.Scale, ...]:
        """Square roots of the modes' covariances, one a task."""

    @property
    @abstractmethod
    def shared_scale(self) -> cov.Scale | None:
        """Square root of the one covariance of all modes, None where they have several."""

    @abstractmethod
    def params(self) -> Params:
        """Return the coordinates under training, by the names of a guide's sites."""

    @abstractmethod
    def scale_params(self) -> Params:
        """Return the square roots of the covariances, by the names of a guide's sites."""

    @abstractmethod
    def at(self, params: Params) -> Self:
        """Return the mixture at coordinates under training; what they do not name stays."""

    @abstractmethod
    def recorded(self, values: Mapping[str, AnyArray]) -> Self:
        """Return the mixture that a result recorded, by the names of its variables."""

    @abstractmethod
    def moved(self, means: list[AnyArray], scale: cov.Scale) -> Self:
        """Return the mixture with other means, of any dimension, and another covariance of all modes."""

    @abstractmethod
    def arrays(self) -> dict[str, AnyArray]:
        """Return what the mixture is stored as, by the names of a result."""

    @abstractmethod
    def gradient(self, by_param: Mapping[str, AnyArray]) -> NamedTuple:
        """Return derivatives by the coordinates under training as those by the mixture's parameters."""

    @property
    def dim(self) -> int:
        """Dimension d of a sample."""
        return int(self.means.shape[-1])

    @property
    def num_tasks(self) -> int:
        """Number K of tasks."""
        return len(self.names)

    @property
    def weights(self) -> Float[AnyArray, "K"]:
        """β_k, shape (K,)."""
        log_weights = self.log_weights
        return log_weights.__array_namespace__().exp(log_weights)

    @property
    def separations(self) -> Float[AnyArray, "K K"]:
        """δ(m_k, m_l) of all pairs, in the metric of the mean covariance of the two modes."""
        xp = self.means.__array_namespace__()
        modes = list(zip(self.means, self.scales, strict=True))
        rows = [[cov.length(cov.mean_scale(a, b), m - n) for n, b in modes] for m, a in modes]
        return xp.stack([xp.stack(row) for row in rows])

    def law(self) -> MixtureLaw:
        """Return the mixture as a NumPyro distribution with event shape (d,)."""
        shared = self.shared_scale
        scales = self.scales if shared is None else (shared,)
        return MixtureLaw(self.log_weights, self.means, scales)

    def mode_law(self, mode: str) -> MixtureLaw:
        """Return the law N(m_k, Σ_k) of one task's samples, with event shape (d,)."""
        index = self.index(mode)
        return MixtureLaw(np.zeros(1), self.means[index][None], (self.scales[index],))

    def law_of(self, shares: Mapping[str, Scalar]) -> MixtureLaw:
        """Return the law Σ_k λ_k N(m_k, Σ_k) of the tasks that ``shares`` names.

        Args:
            shares: λ_k > 0 by the name of the task, with sum 1.

        Raises:
            InputError: a task that the mixture lacks.
        """
        by_place = {self.index(name): share for name, share in shares.items()}
        places = sorted(by_place)  # in the tasks' order, so that equal random numbers choose equal tasks
        log_shares = jnp.log(jnp.stack([jnp.asarray(by_place[place], float) for place in places]))
        shared = self.shared_scale
        scales = tuple(self.scales[place] for place in places) if shared is None else (shared,)
        means = self.means
        return MixtureLaw(log_shares, jnp.stack([jnp.asarray(means[place]) for place in places]), scales)

    def posterior(self, y: Float[AnyArray, "... d"]) -> tuple[Float[AnyArray, "..."], ...]:
        """Return the responsibility r_k(y) = β_k N(y; m_k, Σ_k)/q(y) of every task, in their order."""
        xp = y.__array_namespace__()
        joint = []
        for mean, scale, log_weight in zip(self.means, self.scales, self.log_weights, strict=True):
            u = cov.whiten(scale, y - mean)
            joint.append(log_weight - 0.5 * (u * u).sum(axis=-1) - cov.log_determinant(scale, self.dim))
        top = xp.max(xp.stack(joint), axis=0)
        parts = [xp.exp(log_joint - top) for log_joint in joint]
        total = sum(parts[1:], parts[0])
        return tuple(part / total for part in parts)


def overlaps(mixture: Mixture) -> Float[AnyArray, "K K"]:
    """Return the Bhattacharyya coefficients ∫ √(N(y; m_k, Σ_k) N(y; m_l, Σ_l)) dy of all pairs of tasks.

    With one covariance they are exp(-δ_kl²/8).
    """
    separations, scales = mixture.separations, mixture.scales
    xp = separations.__array_namespace__()
    if mixture.shared_scale is not None:
        return xp.exp(-(separations**2) / 8.0)
    half = xp.stack([0.5 * cov.log_determinant(scale, mixture.dim) for scale in scales])
    between = [[cov.log_determinant(cov.mean_scale(a, b), mixture.dim) for b in scales] for a in scales]
    log_volumes = half[:, None] + half[None] - xp.stack([xp.stack(row) for row in between])
    return xp.exp(-(separations**2) / 8.0 + log_volumes)


class TaskParameters(NamedTuple):
    """The parameters of a mixture of named tasks, or derivatives by them."""

    logits: Float[AnyArray, "K"]
    means: Float[AnyArray, "K d"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["logits", "task_means", "scale"],
    meta_fields=["task_names"],
)
@dataclass(frozen=True, eq=False)
class TaskMixture(Mixture):
    """Parameters of the law Σ_k β_k N(m_k, Σ), β = softmax(φ), over samples y ∈ R^d.

    Build one with `Mixture.create`, which checks its input. The arrays are float64 NumPy arrays until an
    engine casts them; as a JAX pytree the class passes through ``jit``, ``vmap`` and ``grad``.

    What is trained are the means and u = √2 φ, so that plain gradient descent moves every φ_k by half of its
    derivative. For K = 2 the logit φ_1 - φ_2 then moves as `TwoMode.old_logit` does, and no task is a
    reference.

    Attributes:
        task_names: of the tasks.
        logits: φ_k, shape (K,); a constant added to all changes nothing.
        task_means: m_k, shape (K, d).
        scale: square root of Σ, of rank 0, 1 or 2.
    """

    task_names: tuple[str, ...]
    logits: Float[AnyArray, "K"]
    task_means: Float[AnyArray, "K d"]
    scale: cov.Scale

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks' names, in the order of the modes."""
        return self.task_names

    @property
    def means(self) -> Float[AnyArray, "K d"]:
        """m_k, shape (K, d)."""
        return self.task_means

    @property
    def log_weights(self) -> Float[AnyArray, "K"]:
        """Logarithms of β_k, φ_k - log Σ_l exp(φ_l)."""
        xp = self.logits.__array_namespace__()
        below = self.logits - xp.max(self.logits)
        return below - xp.log(xp.sum(xp.exp(below)))

    @property
    def scales(self) -> tuple[cov.Scale, ...]:
        """Square roots of the modes' covariances, which are one."""
        return (self.scale,) * self.num_tasks

    @property
    def shared_scale(self) -> cov.Scale:
        """Square root of the covariance."""
        return self.scale

    def params(self) -> Params:
        """Return u = √2 φ and the means."""
        return {"scaled_logits": _ROOT_2 * self.logits, "task_mean": self.task_means}

    def scale_params(self) -> Params:
        """Return the square root of the covariance."""
        return {"scale": self.scale}

    def at(self, params: Params) -> Self:
        """Return the mixture at coordinates under training; what they do not name stays."""
        logits = params["scaled_logits"] / _ROOT_2 if "scaled_logits" in params else self.logits
        means, scale = params.get("task_mean", self.task_means), params.get("scale", self.scale)
        return replace(self, logits=logits, task_means=means, scale=scale)

    def recorded(self, values: Mapping[str, AnyArray]) -> Self:
        """Return the mixture that a result recorded, by the names of its variables."""
        return replace(self, logits=values["task_logit"], task_means=values["task_mean"])

    def moved(self, means: list[AnyArray], scale: cov.Scale) -> Self:
        """Return the mixture with other means, of any dimension, and another covariance."""
        return replace(self, task_means=means[0].__array_namespace__().stack(means), scale=scale)

    def arrays(self) -> dict[str, AnyArray]:
        """Return what the mixture is stored as, by the names of a result."""
        return {"task_logit": self.logits, "task_mean": self.task_means, "scale": self.scale}

    def gradient(self, by_param: Mapping[str, AnyArray]) -> TaskParameters:
        """Return derivatives by u and the means as those by φ and the means."""
        return TaskParameters(_ROOT_2 * by_param["scaled_logits"], by_param["task_mean"])

    def replace(
        self,
        *,
        weights: Mapping[str, float] | None = None,
        means: Mapping[str, ArrayLike] | None = None,
        covariance: ArrayLike | None = None,
    ) -> Self:
        """Return a copy with some arguments of `Mixture.create` changed; the others stay bit for bit.

        Args:
            weights: of all tasks, with sum 1.
            means: of some tasks.
            covariance: of all modes.

        Raises:
            InputError: as `Mixture.create`, or a task that the mixture lacks.
        """
        changed: dict[str, AnyArray] = {}
        if weights is not None:
            changed["logits"] = _logits(self.names, weights)
        if means is not None:
            for name in means:
                self.index(name)
            kept = dict(zip(self.names, self.task_means, strict=True))
            changed["task_means"] = np.stack(list(_named_means(kept | dict(means)).values()))
        if covariance is not None:
            changed["scale"] = cov.scale_of("covariance", covariance, self.dim)
        return replace(self, **changed)

    def __str__(self) -> str:
        """Return means and weights to six digits, as an objective's name writes them."""
        means = (
            f"{name!r}:[{','.join(f'{x:.6g}' for x in mean)}]"
            for name, mean in zip(self.names, self.means, strict=True)
        )
        weights = self.weights
        # The last takes what rounding leaves, so that what is read sums to 1.
        shown = [float(f"{weight:.6g}") for weight in weights[:-1]]
        shown.append(1.0 - sum(shown))
        texts = (f"{name!r}:{weight:.9g}" for name, weight in zip(self.names, shown, strict=True))
        return f"Mixture({{{','.join(means)}}},{{{','.join(texts)}}})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskMixture):
            return NotImplemented
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return all(a == b if isinstance(a, tuple) else np.array_equal(a, b) for a, b in pairs)


#: A start and a target.
MixturePair = tuple[Mixture, Mixture]


def mixture_of(name: str, value: object) -> Mixture:
    """Return a mixture, or refuse anything else."""
    if not isinstance(value, Mixture):
        raise InputError(f"{name} must be a TwoMode or a Mixture; got {type(value).__name__}")
    return value


def like_tasks(name: str, mixture: Mixture, target: Mixture) -> None:
    """Refuse a mixture of other tasks than the target's, or of another parametrisation."""
    if mixture.names != target.names or type(mixture) is not type(target):
        own, wanted = (f"{', '.join(m.names)} ({type(m).__name__})" for m in (mixture, target))
        raise InputError(f"{name} must have the target's tasks {wanted}; got {own}")


def _named_means(means: Mapping[str, ArrayLike] | Iterable[tuple[str, ArrayLike]]) -> dict[str, Reals]:
    """Return the checked means by name."""
    try:
        pairs = list(means.items() if isinstance(means, Mapping) else [(name, mean) for name, mean in means])
    except (TypeError, ValueError):
        raise InputError(
            f"means must map names of tasks to their means; got {type(means).__name__}"
        ) from None
    names = [name for name, _ in pairs]
    wrong = [name for name in names if not isinstance(name, str) or not name.strip()]
    if wrong:
        raise InputError(f"the name of a task must be a text that is not empty; got {wrong[0]!r}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"tasks must have different names; got {', '.join(twice)} more than once")
    if not 2 <= len(names) <= MOST_TASKS:
        raise InputError(f"a mixture must have 2 to {MOST_TASKS} tasks; got {len(names)}")
    checked = {name: np.atleast_1d(finite_array(f"the mean of {name}", mean)) for name, mean in pairs}
    shapes = {mean.shape for mean in checked.values()}
    if len(shapes) > 1 or any(mean.ndim != 1 or mean.size == 0 for mean in checked.values()):
        listed = ", ".join(f"{mean.shape} of {name}" for name, mean in checked.items())
        raise InputError(f"means must be scalars or all of one shape (d,); got {listed}")
    return checked


def _logits(names: tuple[str, ...], weights: Mapping[str, float] | None) -> Reals:
    """Return the logits of weights, with mean 0."""
    if weights is None:
        return np.zeros(len(names))
    if not isinstance(weights, Mapping):
        raise InputError(f"weights must map names of tasks to numbers; got {type(weights).__name__}")
    if set(weights) != set(names):
        raise InputError(
            f"weights must name the tasks {', '.join(names)}; got {', '.join(map(str, weights)) or 'none'}"
        )
    values = np.array([open_interval(f"the weight of {name}", weights[name]) for name in names])
    total = float(values.sum())
    if abs(total - 1.0) > _SUM_ERROR:
        raise InputError(f"weights must sum to 1; they sum to {total:.12g}")
    return np.log(values) - np.log(values).mean()
