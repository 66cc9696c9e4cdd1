"""Integrals along the line through two modes, none of which cancels.

Whitened and measured from the midpoint, in the direction from the old mode to the new one, the modes are
N(-δ/2, 1) and N(δ/2, 1), whatever the dimension. Their log odds φ - δ y are linear in y, so 1/q has its poles
at distance π/δ from the real axis and the trapezoid rule converges geometrically: a step of ½ / max(1, δ)
leaves a relative error below 1e-14. Everything is formed from logarithms, so that tails keep their relative
accuracy. `grid` takes the same rule where many mixtures share the nodes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float
from numpy.typing import ArrayLike

from mixture_models.types import Reals
from mixture_models.validation import InputError, bounded_array, finite_array

#: Standard deviations that nodes reach beyond the outermost peak of an integrand, e^(-9²/2) = 3e-18.
REACH = 9.0

# Nodes that are held in memory at once.
_CHUNK = 2**20

#: Largest separation that the integrals take: beyond it the overlap is below the smallest float.
MAX_SEPARATION = 100.0


class Line(NamedTuple):
    """Equidistant nodes on the line, with the modes' log densities there; the last axis runs over nodes."""

    y: Float[Reals, "n k"]
    step: Float[Reals, "n"]
    log_old: Float[Reals, "n k"]
    log_new: Float[Reals, "n k"]
    log_gap: Float[Reals, "n k"]
    """log |p_n - p_o|."""

    def log_mixture(self, logit: Reals) -> Reals:
        """Return log(β p_o + (1-β) p_n) at logits of shape (n, 1)."""
        return np.logaddexp(self.log_old + log_expit(logit), self.log_new + log_expit(-logit))

    def integral(self, values: Reals) -> Reals:
        """Return the trapezoid sums of values at the nodes."""
        return self.step * values.sum(axis=-1)


def along_line(integrals: Callable[..., Reals], separation: Reals, *logits: Reals) -> Reals:
    """Return ``integrals(line, δ, *logits)`` at broadcast separations and logits, in chunks of memory.

    Args:
        integrals: takes a `Line`, then δ and the logits of shape (n, 1), and returns shape (n, ...).
        separation: δ in [0, 100].
        *logits: of the mixtures that the integrals divide by; they say how far the nodes must reach.
    """
    arrays = np.broadcast_arrays(separation, *logits)
    shape = arrays[0].shape
    columns = np.stack([a.ravel() for a in arrays], axis=-1).astype(np.float64)
    # Settings of a chunk have as many nodes as the widest of them, so like goes with like.
    order = np.argsort(columns[:, 0], kind="stable")
    sorted_separations = columns[order, 0]
    reach = 2.0 * REACH + 3.0 * sorted_separations
    sizes = np.ceil(reach / spacing(sorted_separations)).astype(int) + 1
    pieces, stop = [], len(order)
    while stop:
        start = max(0, stop - max(1, _CHUNK // sizes[stop - 1]))
        settings = columns[order[start:stop]]
        line = _line(settings, sizes[stop - 1])
        pieces.append(integrals(line, *(column[:, None] for column in settings.T)))
        stop = start
    values = np.concatenate(pieces[::-1]) if pieces else np.zeros(0)
    return values[np.argsort(order)].reshape(shape + values.shape[1:])


def spacing(separation: ArrayLike) -> Reals:
    """Return the step between nodes, ½ / max(1, δ)."""
    return 0.5 / np.maximum(1.0, separation)


def _line(settings: Reals, num_nodes: int) -> Line:
    separation, logits = settings[:, :1], settings[:, 1:]
    # p_o²/q is largest where q changes hands, at φ/δ, or where q is one mode, at -δ/2 or -3δ/2; p_n²/q
    # likewise.
    with np.errstate(over="ignore"):
        crossing = logits / np.maximum(separation, 1e-300)
    near, far = 0.5 * separation, 1.5 * separation
    low = np.clip(crossing, -far, -near).min(axis=1) - REACH
    high = np.clip(crossing, near, far).max(axis=1) + REACH
    y = np.linspace(low, high, num_nodes, axis=-1)
    log_old, log_new = (-0.5 * (y + s * near) ** 2 - 0.5 * np.log(2.0 * np.pi) for s in (1.0, -1.0))
    with np.errstate(divide="ignore"):  # y = 0 and δ = 0, where the modes are equal
        log_gap = np.maximum(log_old, log_new) + np.log(-np.expm1(-separation * np.abs(y)))
    return Line(y, (high - low) / (num_nodes - 1), log_old, log_new, log_gap)


def log_expit(logit: Reals) -> Reals:
    """Return log sigmoid(φ)."""
    return -np.logaddexp(0.0, -logit)


def logit_of(weight: ArrayLike | None, logit: ArrayLike | None, name: str = "weight") -> Reals:
    """Return the logit of a weight in (0, 1), or the one that was given in its place.

    Raises:
        InputError: neither or both, or out of range.
    """
    if (weight is None) == (logit is None):
        given = "neither" if weight is None else "both"
        raise InputError(f"give exactly one of {name} and logit; got {given}")
    if weight is None:
        return finite_array("logit", logit)
    return np.asarray(scipy.special.logit(bounded_array(name, weight, "(0, 1)")))


def separation_of(separation: ArrayLike | None) -> Reals:
    """Return separations in [0, 100] as a float64 array, or raise `InputError`."""
    if separation is None:
        raise InputError("separation must be given")
    return bounded_array("separation", separation, f"[0, {MAX_SEPARATION:g}]")
