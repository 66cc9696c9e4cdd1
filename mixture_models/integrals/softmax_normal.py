"""Softmax-normal integrals: how much of a Gaussian mode the modes of a mixture claim, for many modes at once.

Around a centre c the responsibilities of modes with one covariance are softmax(t_j(c) + v_j·u), with linear
forms of the standard normal u that all centres share. So exp(v_j·u) is computed once a node, and a centre
costs two products with it and a division.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mixture_models.integrals.tensor_rule import REPORTED, over_turns, rule_of_many, turn_nodes
from mixture_models.types import Index

# The least exponent that is not lost in the smallest float, times a weight of a rule.
_LEAST = -600.0


def softmax_mean(
    offsets: Float[Array, "n K"], slopes: Float[Array, "K d"], resolution: Index = REPORTED
) -> Float[Array, "n K"]:
    """Return E[softmax(a_i + V u)], u ~ N(0, I), for every row of offsets.

    Args:
        offsets: a_i, the log odds at the centre of every mode.
        slopes: V, whitened means of the mixture.
        resolution: see `mixture_models.integrals.tensor_rule.expectation`.
    """
    rule = rule_of_many(slopes - slopes[:1], resolution)
    weights = jnp.exp(offsets - jnp.max(offsets, axis=-1, keepdims=True))

    def terms(turn: Array) -> Array:
        u, share = turn_nodes(rule, turn)
        forms = u @ slopes.T
        claims = jnp.exp(jnp.maximum(forms - jnp.max(forms, axis=-1, keepdims=True), _LEAST))
        result: Array = weights * ((share / (weights @ claims.T)) @ claims)
        return result

    result: Array = over_turns(terms, rule)
    return result


def claimed(
    centres: Float[Array, "n d"], log_weights: Float[Array, "K"], means: Float[Array, "K d"]
) -> Float[Array, "n K"]:
    """Return E_{N(c_i)}[s_j], how much of modes at centres the modes of a mixture claim, all whitened."""
    forms = centres @ means.T + log_weights - 0.5 * jnp.sum(means**2, axis=-1)
    return softmax_mean(jax.lax.stop_gradient(forms), jax.lax.stop_gradient(means))
