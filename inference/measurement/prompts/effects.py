"""What prompts have of their own: an old share around the checkpoint's, and a place along the axis.

A prompt's logit of the old share is φ + σ u, and its samples are shifted along the axis by √ρ v standard
deviations of their component, u and v ~ N(0, 1). The old weight is the mean over new prompts,

    E_u[sigmoid(φ + σ u)],

which is what `Unknowns.old_logit` is the logit of: φ follows from it and from σ. Both unknowns are scores,
N(0, 1) a priori. σ is exponential with mean 1, the penalised-complexity prior of a random effect: it shrinks
to no spread, and P(σ > 3) = 0.05. ρ, the intraclass correlation, is uniform.

Source: Simpson et al. 2017, "Penalising Model Component Complexity".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import special

from mixture_models.types import AnyArray

# The trapezoid rule of expectations over u, exact to rounding for a logit that spreads up to 4.
_U = np.linspace(-8.0, 8.0, 49)
_LOG_WEIGHTS = -0.5 * _U**2 - special.logsumexp(-0.5 * _U**2)

# Newton steps to φ: those before the last two, through which derivatives up to the second pass.
_STEPS = 6


class Effects(NamedTuple):
    """Scores of what prompts have of their own, N(0, 1) a priori.

    Attributes:
        spread_score: x with σ = -log(1 - Φ(x)).
        shift_score: x with ρ = Φ(x).
    """

    spread_score: Float[AnyArray, "..."]
    shift_score: Float[AnyArray, "..."]


def start_of_effects() -> Effects:
    """Return the effects at which a climb starts: σ = 0.7 and ρ = 0.16."""
    return Effects(np.array(0.0), np.array(-1.0))


def spread_of(score: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
    """Return σ, the standard deviation of the prompts' logits."""
    ndtr = special.log_ndtr if isinstance(score, np.ndarray | float) else jax.scipy.special.log_ndtr
    return -ndtr(-score)


def shift_of(score: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
    """Return ρ, the share of a component's variance along the axis that lies between prompts."""
    ndtr = special.ndtr if isinstance(score, np.ndarray | float) else jax.scipy.special.ndtr
    return ndtr(score)


def typical_logit(old_logit: Float[Array, ""], spread: Float[Array, ""]) -> Float[Array, ""]:
    """Return φ with E_u[sigmoid(φ + σ u)] = sigmoid(old_logit)."""
    size = jnp.abs(old_logit)
    # The probit approximation, and where nearly all prompts are alike the limit.
    start = jnp.minimum(size * jnp.sqrt(1.0 + 0.346 * spread**2), size + 0.5 * spread**2)

    def step(phi: Array) -> Array:
        eta = phi + spread * jnp.asarray(_U)
        logs = jax.nn.log_sigmoid(jnp.stack([eta, -eta]))
        old, new = jax.nn.logsumexp(logs + _LOG_WEIGHTS, axis=1)
        both = jax.nn.logsumexp(logs.sum(axis=0) + _LOG_WEIGHTS)
        slope = jnp.exp(both - old - new)  # of log(b / (1-b)), for b (1-b) is the product of both means
        return phi - (old - new - old_logit) / slope

    found = jax.lax.fori_loop(0, _STEPS, lambda _, phi: step(phi), jnp.sign(old_logit) * start)
    found = jax.lax.stop_gradient(found)
    return step(step(found))


def share_variance(old_logit: Float[np.ndarray, "N"], spread: Float[np.ndarray, "N"]) -> np.ndarray:
    """Return the variance of the old share between prompts."""
    phi = np.asarray(jax.vmap(typical_logit)(jnp.asarray(old_logit), jnp.asarray(spread)))
    shares = special.expit(phi[:, None] + spread[:, None] * _U)
    weights = np.exp(_LOG_WEIGHTS)
    result: np.ndarray = (shares**2) @ weights - (shares @ weights) ** 2
    return result
