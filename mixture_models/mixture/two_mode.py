"""The two-mode mixture: an old task and a new one, as the parameters of a law over samples."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Float
from numpy.typing import ArrayLike

from mixture_models.mixture import covariance as cov
from mixture_models.mixture.law import MixtureLaw
from mixture_models.mixture.mixture import Mixture
from mixture_models.mixture.task import TwoTasks
from mixture_models.types import AnyArray, Params, Reals
from mixture_models.validation import InputError, finite_array, number, one_of, open_interval

#: The names of the two modes.
MODES = ("old", "new")

_ARGUMENTS = ("old_weight", "old_logit", "old_mean", "new_mean", "covariance", "new_covariance")


class Parameters(NamedTuple):
    """The coordinates of a two-mode learner, or a gradient in them."""

    old_logit: Float[AnyArray, ""]
    old_mean: Float[AnyArray, "d"]
    new_mean: Float[AnyArray, "d"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class TwoMode(Mixture, TwoTasks):
    """Parameters of the law β N(m_o, Σ) + (1-β) N(m_n, Σ) over samples y ∈ R^d.

    Build one with `TwoMode.create`, which checks its input. The arrays are float64 NumPy arrays until
    an engine casts them; as a JAX pytree the class passes through ``jit``, ``vmap`` and ``grad``.

    Attributes:
        old_logit: φ = log(β/(1-β)), shape ().
        old_mean: m_o, shape (d,).
        new_mean: m_n, shape (d,).
        scale: square root of Σ (of the old mode's, where they differ), of rank 0, 1 or 2.
        new_scale: square root of the new mode's own covariance, or None where it is shared.
    """

    old_logit: Float[AnyArray, ""]
    old_mean: Float[AnyArray, "d"]
    new_mean: Float[AnyArray, "d"]
    scale: cov.Scale
    new_scale: cov.Scale | None = None

    @classmethod
    def create(  # type: ignore[override]
        cls,
        old_weight: float | None = None,
        old_mean: ArrayLike | None = None,
        new_mean: ArrayLike | None = None,
        covariance: ArrayLike | None = None,
        new_covariance: ArrayLike | None = None,
        *,
        old_logit: float | None = None,
    ) -> Self:
        """Check the parameters and build the mixture.

        Args:
            old_weight: β in (0, 1), the mass of the old mode. Give this or ``old_logit``.
            old_mean: m_o, a scalar or shape (d,).
            new_mean: m_n, a scalar or shape (d,).
            covariance: Σ as None (identity), a variance, d variances, or a (d, d) matrix.
            new_covariance: the new mode's own covariance in the same forms; None shares Σ.
            old_logit: φ = log(β/(1-β)), for weights too extreme to write down.

        Raises:
            InputError: a weight outside (0, 1), shapes that do not match, or a covariance that is
                not positive definite.
        """
        if (old_weight is None) == (old_logit is None):
            given = "neither" if old_weight is None else "both"
            raise InputError(f"give exactly one of old_weight and old_logit; got {given}")
        if old_weight is not None:
            logit = scipy.special.logit(open_interval("old_weight", old_weight))
        else:
            logit = number("old_logit", old_logit)
        old, new = (_mean(name, value) for name, value in (("old_mean", old_mean), ("new_mean", new_mean)))
        if old.shape != new.shape:
            raise InputError(f"old_mean and new_mean must have one shape; got {old.shape} and {new.shape}")
        scale = cov.scale_of("covariance", covariance, old.size)
        new_scale = (
            None if new_covariance is None else cov.scale_of("new_covariance", new_covariance, old.size)
        )
        return cls(np.asarray(logit, dtype=np.float64), old, new, scale, new_scale)

    @classmethod
    def on_axis(cls, old_weight: float, separation: float, dimension: int = 1) -> Self:
        """Build the mixture with Σ the identity, the old mode at 0 and the new one on the first coordinate.

        It stands for every mixture of this weight and separation whose modes share a covariance: what is
        reported is affine invariant.

        Args:
            old_weight: β in (0, 1), the mass of the old mode.
            separation: δ of the modes [Mahalanobis].
            dimension: d of a sample.

        Raises:
            InputError: as `create` says.
        """
        axis = np.zeros(dimension)
        axis[0] = 1.0
        return cls.create(old_weight, 0.0 * axis, separation * axis)

    def displaced(self, old_weight: float, *, old_drift: float = 0.0, new_gap: float = 0.0) -> Self:
        """Return a start for this target: another weight, and means that are off toward each other.

        Args:
            old_weight: β in (0, 1) of the start.
            old_drift: distance of the old mean from this one's, toward the new mode [Mahalanobis].
            new_gap: distance of the new mean from this one's, toward the old mode [Mahalanobis].

        Raises:
            InputError: a weight outside (0, 1), a distance that is not finite, or means that coincide and
                are to be moved.
        """
        start = self.replace(old_weight=old_weight)
        if old_drift:
            start = start.replace(old_mean=self.old_mean + old_drift * self.toward_new)
        if new_gap:
            start = start.replace(new_mean=self.new_mean - new_gap * self.toward_new)
        return start

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some arguments of `create` changed; the others stay bit for bit."""
        unknown = set(changes) - set(_ARGUMENTS)
        if unknown:
            raise InputError(f"replace takes {', '.join(_ARGUMENTS)}; got {', '.join(sorted(unknown))}")
        weight = {n: changes[n] for n in ("old_weight", "old_logit") if n in changes}
        others = {n: value for n, value in changes.items() if n not in weight}
        means = {"old_mean": self.old_mean, "new_mean": self.new_mean}
        new = self.create(**(weight or {"old_logit": self.old_logit}), **(means | others))
        kept = {}
        if "covariance" not in changes:
            kept["scale"] = self.scale
        if "new_covariance" not in changes:
            kept["new_scale"] = self.new_scale
        if kept and new.dim != self.dim and any(s is not None and s.ndim for s in kept.values()):
            raise InputError(
                f"covariance must be given too with means of dimension {new.dim}; it has {self.dim}"
            )
        return replace(new, **kept)

    @property
    def old_weight(self) -> Float[AnyArray, ""]:
        """β = sigmoid(φ), accurate relatively however small."""
        return expit(self.old_logit)

    @property
    def dim(self) -> int:
        """Dimension d of a sample."""
        return int(self.old_mean.shape[-1])

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks' names, old and new."""
        return MODES

    @property
    def means(self) -> Float[AnyArray, "2 d"]:
        """m_o and m_n, shape (2, d)."""
        both = [self.old_mean, self.new_mean]
        return np.stack(both) if all(isinstance(mean, np.ndarray) for mean in both) else jnp.stack(both)

    @property
    def log_weights(self) -> Float[AnyArray, "2"]:
        """Logarithms of β and log(1-β), accurate however small."""
        xp = self.old_logit.__array_namespace__()
        logits = xp.stack([self.old_logit, -self.old_logit])
        return -xp.logaddexp(xp.zeros_like(logits), -logits)

    @property
    def shared_scale(self) -> cov.Scale | None:
        """Square root of the covariance, None where the modes have two."""
        return self.scale if self.new_scale is None else None

    @property
    def scales(self) -> tuple[cov.Scale, cov.Scale]:
        """Square roots of the covariances of the old and the new mode."""
        return self.scale, self.scale if self.new_scale is None else self.new_scale

    @property
    def scale_tril(self) -> Float[AnyArray, "d d"]:
        """Cholesky factor of Σ (of the old mode's, where they differ), shape (d, d)."""
        return cov.dense(self.scale, self.dim)

    @property
    def separation(self) -> Float[AnyArray, ""]:
        """δ = ‖μ_o - μ_n‖ in the metric of Σ⁻¹ (of the mean covariance's, where they differ)."""
        return cov.length(cov.mean_scale(*self.scales), self.old_mean - self.new_mean)

    @property
    def toward_new(self) -> Float[Reals, "d"]:
        """Direction from the old mean to the new one, of Mahalanobis length 1."""
        separation = float(self.separation)
        if not separation > 0.0:
            raise InputError("only means that differ can move toward each other; got separation 0")
        direction: Reals = (self.new_mean - self.old_mean) / separation
        return direction

    def log_odds(self, y: Float[AnyArray, "... d"]) -> Float[AnyArray, "..."]:
        """Return log(β N(y; m_o) / ((1-β) N(y; m_n))) for samples of shape (..., d)."""
        old, new = self.scales
        u_old, u_new = cov.whiten(old, y - self.old_mean), cov.whiten(new, y - self.new_mean)
        quadratic = 0.5 * ((u_new * u_new).sum(axis=-1) - (u_old * u_old).sum(axis=-1))
        if self.new_scale is None:
            return self.old_logit + quadratic
        return (
            self.old_logit
            + quadratic
            + cov.log_determinant(new, self.dim)
            - cov.log_determinant(old, self.dim)
        )

    def law(self) -> MixtureLaw:
        """Return the mixture as a NumPyro distribution with event shape (d,)."""
        log_weights = jax.nn.log_sigmoid(jnp.stack([self.old_logit, -self.old_logit]))
        scales = (self.scale,) if self.new_scale is None else self.scales
        return MixtureLaw(log_weights, jnp.stack([self.old_mean, self.new_mean]), scales)

    def params(self) -> Params:
        """Return the old logit and the means."""
        return {"old_logit": self.old_logit, "old_mean": self.old_mean, "new_mean": self.new_mean}

    def scale_params(self) -> Params:
        """Return the square root of the covariance, or of both where there are two."""
        if self.new_scale is None:
            return {"scale": self.scale}
        return {"old_scale": self.scale, "new_scale": self.new_scale}

    def at(self, params: Params) -> Self:
        """Return the mixture at coordinates under training; what they do not name stays."""
        changed = {name: value for name, value in params.items() if name != "old_scale"}
        if "old_scale" in params:
            changed["scale"] = params["old_scale"]
        return replace(self, **changed)

    def recorded(self, values: Mapping[str, AnyArray]) -> Self:
        """Return the mixture that a result recorded, by the names of its variables."""
        return self.at({name: values[name] for name in self.params()})

    def moved(self, means: list[AnyArray], scale: cov.Scale) -> Self:
        """Return the mixture with other means, of any dimension, and another covariance of the old mode."""
        old, new = means
        return replace(self, old_mean=old, new_mean=new, scale=scale)

    def index(self, task: str) -> int:
        """Return the place of a mode, or raise `InputError` that names both."""
        return MODES.index(one_of("mode", task, MODES))

    def arrays(self) -> dict[str, AnyArray]:
        """Return what the mixture is stored as, by the names of a result."""
        stored = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in stored.items() if value is not None}

    def gradient(self, by_param: Mapping[str, AnyArray]) -> Parameters:
        """Return derivatives by the coordinates under training, which are the parameters."""
        return Parameters(**by_param)

    def posterior(self, y: Float[AnyArray, "... d"]) -> tuple[Float[AnyArray, "..."], ...]:
        """Return r_o(y) and r_n(y), each without cancellation."""
        log_odds = self.log_odds(y)
        return expit(log_odds), expit(-log_odds)

    def __str__(self) -> str:
        """Return weight and means to six digits, as an objective's name writes them."""
        means = ("[" + ",".join(f"{x:.6g}" for x in mean) + "]" for mean in (self.old_mean, self.new_mean))
        return f"TwoMode({self.old_weight:.6g},{','.join(means)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TwoMode):
            return NotImplemented
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return all(np.array_equal(a, b) if a is not None and b is not None else a is b for a, b in pairs)


#: A start and a target.
Pair = tuple[TwoMode, TwoMode]


def mahalanobis(a: ArrayLike, b: ArrayLike, covariance: ArrayLike | None = None) -> Float[Reals, "..."]:
    """Return δ(a, b) = √((a-b)ᵀ Σ⁻¹ (a-b)), the separation of two means.

    Args:
        a: scalar, or shape (..., d).
        b: scalar, or shape (..., d).
        covariance: Σ as None (identity), a variance, d variances, or a (d, d) matrix.

    Returns:
        float64, shape (...).
    """
    difference = _difference(a, b)
    result: Reals = cov.length(cov.scale_of("covariance", covariance, difference.shape[-1]), difference)
    return result


def bhattacharyya(
    a: ArrayLike,
    b: ArrayLike,
    covariance: ArrayLike | None = None,
    other_covariance: ArrayLike | None = None,
) -> Float[Reals, "..."]:
    """Return the Bhattacharyya coefficient ∫ √(N(y; a, Σ) N(y; b, Σ')) dy, the overlap of two modes.

    With Σ' = Σ it is exp(-δ(a, b)²/8); otherwise, with Σ̄ = (Σ + Σ')/2, it is
    exp(-(a-b)ᵀ Σ̄⁻¹ (a-b)/8) · (|Σ|·|Σ'|)^(1/4) / |Σ̄|^(1/2).

    Args:
        a: scalar, or shape (..., d).
        b: scalar, or shape (..., d).
        covariance: Σ as None (identity), a variance, d variances, or a (d, d) matrix.
        other_covariance: Σ' in the same forms; None shares Σ.

    Returns:
        float64 in (0, 1], shape (...).

    Source: Kailath 1967, "The divergence and Bhattacharyya distance measures in signal selection".
    """
    difference = _difference(a, b)
    dim = difference.shape[-1]
    one = cov.scale_of("covariance", covariance, dim)
    if other_covariance is None:
        one_covariance: Reals = np.exp(-(cov.length(one, difference) ** 2) / 8.0)
        return one_covariance
    two = cov.scale_of("other_covariance", other_covariance, dim)
    between = cov.mean_scale(one, two)
    log_volume = 0.5 * (cov.log_determinant(one, dim) + cov.log_determinant(two, dim))
    result: Reals = np.exp(
        -(cov.length(between, difference) ** 2) / 8.0 + log_volume - cov.log_determinant(between, dim)
    )
    return result


def responsibilities(mixture: Mixture, y: ArrayLike) -> tuple[Float[AnyArray, "..."], ...]:
    """Return r_k(y) = β_k N(y; m_k)/q(y), the posterior probability of every task, without cancellation.

    Args:
        mixture: the mixture q; of a two-mode one the old task comes first.
        y: samples, shape (..., d).

    Returns:
        An array of shape (...) a task, in their order.

    Raises:
        InputError: samples of another dimension, or not finite.
    """
    y = y if isinstance(y, jax.Array) else finite_array("y", y)
    if y.ndim == 0 or y.shape[-1] != mixture.dim:
        raise InputError(f"y must be of shape (..., {mixture.dim}); got shape {y.shape}")
    return mixture.posterior(y)


def expit(x: AnyArray) -> AnyArray:
    """Return sigmoid(x), accurate relatively for x → -∞, NumPy in, NumPy out."""
    xp = x.__array_namespace__()
    return xp.exp(-xp.logaddexp(-x, xp.zeros_like(x)))


def _mean(name: str, value: ArrayLike | None) -> Reals:
    if value is None:
        raise InputError(f"{name} must be given")
    mean = np.atleast_1d(finite_array(name, value))
    if mean.ndim != 1 or mean.size == 0:
        raise InputError(f"{name} must be a scalar or of shape (d,); got shape {mean.shape}")
    return mean


def _difference(a: ArrayLike, b: ArrayLike) -> Reals:
    a, b = (np.atleast_1d(finite_array(name, value)) for name, value in (("a", a), ("b", b)))
    if a.shape[-1] != b.shape[-1]:
        raise InputError(f"a and b must have one dimension; got shapes {a.shape} and {b.shape}")
    return a - b
