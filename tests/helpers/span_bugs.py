"""Bugs of trainings in the span of the means, to see that a comparison finds them."""

import contextlib

import jax
import jax.numpy as jnp

from inference.training import beside_span, span

BUGS = ("none", "lost", "more")


@contextlib.contextmanager
def planted(bug, more, monkeypatch):
    """Plant covariances of the gradients that are lost, or so many directions too many, or nothing."""
    right = beside_span.vectors_beside

    def wrong(key, c, directions):
        if bug == "more":
            return right(key, c, directions + more)
        return right(key, jnp.diag(jnp.sqrt(jnp.sum(c * c, axis=1))), directions)

    if bug != "none":
        monkeypatch.setattr(span, "vectors_beside", wrong)
    jax.clear_caches()
    try:
        yield
    finally:
        jax.clear_caches()
