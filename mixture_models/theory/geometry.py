"""Reverse KL's geometry: how steep it is in the weight, and how fast it converges at the target."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from mixture_models.integrals.line import Line, along_line, log_expit, logit_of, separation_of
from mixture_models.mixture import covariance as cov
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.theory.drift import check_one_covariance
from mixture_models.types import Reals
from mixture_models.validation import finite_array


class Bounds(NamedTuple):
    """A lower and an upper bound of an absolute value."""

    lower: Float[Reals, "..."]
    upper: Float[Reals, "..."]


def weight_gradient(logit: ArrayLike, target_logit: ArrayLike, separation: ArrayLike) -> Float[Reals, "..."]:
    """Return ∂KL(q ‖ p_α)/∂φ with the means right, exact.

    It is β(1-β) ∫ (p_o - p_n) (ℓ - ℓ(midpoint)) dy with ℓ = log q - log p_α, whose integrand has the sign of
    φ - φ_α throughout: right relatively to 1e-10. It equals β(1-β) ∫_{φ_α}^{φ} κ(s) ds with
    κ = 1 - ∫ p_o p_n/q_s dy in (0, 1), so the flow reaches the target's weight monotonically.

    Args:
        logit: φ of the learner.
        target_logit: φ_α of the target.
        separation: δ in [0, 100] of the means.

    Raises:
        InputError: an argument out of range.

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    phi, phi_target = finite_array("logit", logit), finite_array("target_logit", target_logit)
    return _variance(phi) * weight_pull(phi, phi_target, separation_of(separation))


def weight_pull(logit: Reals, target_logit: Reals, separation: Reals) -> Reals:
    """Return ∫_{φ_α}^{φ} κ(s) ds, see `weight_gradient`; bounded in φ."""
    return np.sign(logit - target_logit) * along_line(_tilt, separation, logit, target_logit)


def _tilt(line: Line, separation: Reals, logit: Reals, target_logit: Reals) -> Reals:
    """Return ∫ |p_o - p_n| |ℓ - ℓ(0)| dy.

    q is cosh((φ - δy)/2) up to factors that cancel, and
    cosh((φ - δy)/2) cosh(φ_α/2) = cosh(φ/2) cosh((φ_α - δy)/2) - sinh((φ - φ_α)/2) sinh(δy/2),
    so |ℓ - ℓ(0)| is log1p of the last product over one of the others, whichever makes it positive.
    """
    t = separation * line.y
    change = logit - target_logit
    rising = change * t < 0.0
    numerator = _log_sinh(0.5 * np.abs(change)) + _log_sinh(0.5 * np.abs(t))
    denominator = np.where(
        rising,
        _log_cosh(0.5 * logit) + _log_cosh(0.5 * (target_logit - t)),
        _log_cosh(0.5 * target_logit) + _log_cosh(0.5 * (logit - t)),
    )
    return line.integral(np.exp(line.log_gap) * np.logaddexp(0.0, numerator - denominator))


def weight_gradient_bounds(logit: ArrayLike, target_logit: ArrayLike, separation: ArrayLike) -> Bounds:
    """Return the bounds of |`weight_gradient`| that its curvature's give: β(1-β) ∫ κ over the interval.

    max(0, 1 - BC cosh(s/2)) ≤ κ(s) ≤ 1, where BC = exp(-δ²/8) and cosh(s/2) = 1/(2√(w(1-w))) at w =
    sigmoid(s). Both are integrated from φ_α to φ in closed form; the upper bound is β(1-β) |φ - φ_α|.

    Arguments and errors are those of `weight_gradient`.

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    phi, phi_target, delta = np.broadcast_arrays(
        finite_array("logit", logit), finite_array("target_logit", target_logit), separation_of(separation)
    )
    # Beyond ±2 arccosh(1/BC) the lower bound of κ is 0; arccosh by logarithms, since 1/BC overflows.
    edge = 2.0 * (delta**2 / 8.0 + np.log1p(np.sqrt(-np.expm1(-(delta**2) / 4.0))))
    low, high = (
        np.clip(end, -edge, edge) for end in (np.minimum(phi, phi_target), np.maximum(phi, phi_target))
    )
    centre, half = 0.25 * (low + high), 0.25 * (high - low)
    # sinh(b/2) - sinh(a/2) = 2 cosh((a+b)/4) sinh((b-a)/4)
    lost = 4.0 * np.exp(-(delta**2) / 8.0 + _log_cosh(centre) + _log_sinh(half))
    integral = np.maximum(0.0, high - low - lost)
    return Bounds(_variance(phi) * integral, _variance(phi) * np.abs(phi - phi_target))


class FisherInformation(NamedTuple):
    """The Fisher information of a two-mode mixture in (φ, whitened m_o, whitened m_n), by its blocks.

    Attributes:
        along: in φ and the components of m_o and m_n along ``direction``, shape (3, 3).
        across: in the components of m_o and m_n along any direction orthogonal to it, shape (2, 2).
        direction: unit vector from the old mode to the new one, whitened, shape (d,).
    """

    along: Float[Reals, "3 3"]
    across: Float[Reals, "2 2"]
    direction: Float[Reals, "d"]

    def dense(self) -> Float[Reals, "p p"]:
        """Return the matrix of order 1 + 2d."""
        dim = self.direction.size
        outer = np.outer(self.direction, self.direction)
        matrix = np.zeros((1 + 2 * dim, 1 + 2 * dim))
        matrix[0, 0] = self.along[0, 0]
        blocks = [slice(1, 1 + dim), slice(1 + dim, None)]
        for i, rows in enumerate(blocks):
            matrix[0, rows] = matrix[rows, 0] = self.along[0, 1 + i] * self.direction
            for j, columns in enumerate(blocks):
                matrix[rows, columns] = (self.along[1 + i, 1 + j] - self.across[i, j]) * outer
                matrix[rows, columns] += self.across[i, j] * np.eye(dim)
        return matrix


def fisher_information(target: TwoMode) -> FisherInformation:
    """Return E[∇ log p ∇ log pᵀ] in (φ, whitened m_o, m_n): both KL's Hessian at the target.

    With ρ = E[s_o s_n], any direction orthogonal to the line of the means has the block
    [[α-ρ, ρ], [ρ, 1-α-ρ]]. Along it I_φφ = α(1-α) - ρ, I_φo = -δ E[s_o² s_n], I_φn = -δ E[s_o s_n²], and
    I_ij = E[s_i s_j (y-μ_i) (y-μ_j)]. All are 1-D integrals in every dimension, and none cancels.

    Args:
        target: the mixture, of one covariance and a separation of at most 100.

    Raises:
        InputError: a covariance a mode, or a separation out of range.

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    check_one_covariance(target)
    difference = cov.whiten(target.scale, target.new_mean - target.old_mean)
    separation = float(separation_of(target.separation))
    direction = difference / separation if separation > 0.0 else np.eye(1, target.dim)[0]
    along, across = np.split(along_line(_entries, separation_of(separation), target.old_logit), [6])
    return FisherInformation(_symmetric(along, 3), _symmetric(across, 2), direction)


def _entries(line: Line, separation: Reals, logit: Reals) -> Reals:
    """Return the upper triangles of both blocks, row by row, shape (n, 9)."""
    log_p = line.log_mixture(logit)
    old, new = line.log_old + log_expit(logit) - log_p, line.log_new + log_expit(-logit) - log_p
    by_old, by_new, both = (np.exp(log_p + pair) for pair in (2.0 * old, 2.0 * new, old + new))
    from_old, from_new = line.y + 0.5 * separation, line.y - 0.5 * separation
    values = [
        np.exp(log_p + 2.0 * _log_centred(line, logit, log_p)),
        -separation * both * np.exp(old),
        -separation * both * np.exp(new),
        by_old * from_old**2,
        both * from_old * from_new,
        by_new * from_new**2,
        by_old,
        both,
        by_new,
    ]
    return np.stack([line.integral(value) for value in values], axis=-1)


def _log_centred(line: Line, logit: Reals, log_p: Reals) -> Reals:
    """Return log |s_o - α| by s_o - α = α(1-α) (p_o - p_n)/p."""
    return log_expit(logit) + log_expit(-logit) + line.log_gap - log_p


def _symmetric(upper: Reals, order: int) -> Reals:
    """Return the symmetric matrix with an upper triangle given row by row."""
    matrix = np.zeros((order, order))
    matrix[np.triu_indices(order)] = upper
    return matrix + np.triu(matrix, 1).T


def local_rate(target: TwoMode) -> float:
    """Return the smallest eigenvalue of `fisher_information`: reverse KL's local exponential rate.

    The whitened flow of a learner near the target approaches it like exp(-rate t). The rate does not depend
    on the dimension, since the directions orthogonal to the line of the means are faster.

    Arguments and errors are those of `fisher_information`.

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    check_one_covariance(target)
    return float(local_rates(separation=target.separation, logit=target.old_logit))


def local_rates(
    weight: ArrayLike | None = None, separation: ArrayLike | None = None, *, logit: ArrayLike | None = None
) -> Float[Reals, "..."]:
    """Return `local_rate` at arrays of weights and separations; about α(1-α) for modes apart.

    By the singular values of the scores on the line, which keep it right relatively to about 1e-15/√rate.

    Args:
        weight: α in (0, 1), the mass of the old mode. Give this or ``logit``.
        separation: δ in [0, 100].
        logit: φ_α, for weights too extreme to write down.

    Raises:
        InputError: an argument missing or out of range.

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    return along_line(_smallest_eigenvalue, separation_of(separation), logit_of(weight, logit))


def _smallest_eigenvalue(line: Line, separation: Reals, logit: Reals) -> Reals:
    log_p = line.log_mixture(logit)
    scores = [
        -np.sign(line.y) * np.exp(_log_centred(line, logit, log_p)),
        np.exp(line.log_old + log_expit(logit) - log_p) * (line.y + 0.5 * separation),
        np.exp(line.log_new + log_expit(-logit) - log_p) * (line.y - 0.5 * separation),
    ]
    root = np.sqrt(line.step)[:, None, None] * np.stack(scores, axis=-1) * np.exp(0.5 * log_p)[..., None]
    return np.linalg.svd(root, compute_uv=False)[:, -1] ** 2


def _variance(logit: Reals) -> Reals:
    """Return β(1-β)."""
    return np.exp(log_expit(logit) + log_expit(-logit))


def _log_cosh(x: Reals) -> Reals:
    result: Reals = np.logaddexp(x, -x) - np.log(2.0)
    return result


def _log_sinh(x: Reals) -> Reals:
    """Return log sinh(x) for x ≥ 0."""
    with np.errstate(divide="ignore"):
        return x + np.log(-0.5 * np.expm1(-2.0 * x))
