"""Exact divergences and their gradients against 25-digit integrals: 1e-10 relatively or 1e-13 absolutely."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from theory_oracles import rule

from mixture_models import MixtureLaw
from mixture_models.integrals.divergences import kl_divergence

pytestmark = pytest.mark.usefixtures("x64")


def law(logit, means):
    log_weights = jax.nn.log_sigmoid(jnp.stack([logit, -logit]))
    return MixtureLaw(log_weights, means[:, None], (jnp.ones(()),))


def modes(logit, means, y):
    """Return the weighted densities of both modes at y, and the old weight."""
    weight = 1 / (1 + mp.exp(-mp.mpf(logit)))
    norm = 1 / mp.sqrt(2 * mp.pi)
    old, new = (norm * mp.exp(-((y - mp.mpf(m)) ** 2) / 2) for m in means)
    return weight * old, (1 - weight) * new, weight


def exact(learner, target):
    """KL(q ‖ p), its gradient E_q[ℓ ∂ log q], and KL(p ‖ q), its gradient -E_p[∂ log q]."""
    centres = [*learner[1], *target[1]]
    low, high = min(centres) - 11.0, max(centres) + 11.0
    sums = [mp.mpf(0)] * 8
    for step, y in rule(low, high, 2.0 / max(1.0, 0.15 * (high - low - 22.0))):
        old, new, weight = modes(*learner, y)
        q, p = old + new, sum(modes(*target, y)[:2])
        score = old / q - weight, old / q * (y - learner[1][0]), new / q * (y - learner[1][1])
        gap = mp.log(q / p)
        terms = [q * gap, *(q * gap * g for g in score), -p * gap, *(-p * g for g in score)]
        sums = [total + step * term for total, term in zip(sums, terms, strict=True)]
    return sums[:4], sums[4:]


@pytest.mark.parametrize(
    ("learner", "target"),
    [
        ((-13.8, (0.0, 0.1)), (0.4, (0.0, 0.1))),
        ((13.8, (0.1, 1.2)), (-1.0, (0.0, 1.0))),
        ((0.3, (0.2, 2.3)), (-13.8, (0.0, 2.2))),
        ((1e-4, (0.0, 5.0)), (0.0, (0.0, 5.0))),
        ((-2.0, (0.0, 11.0)), (13.8, (0.0, 12.0))),
    ],
)
def test_divergences_and_gradients(learner, target):
    phi, means = learner
    p = law(jnp.asarray(target[0]), jnp.asarray(target[1]))

    def reverse(logit, centres):
        return kl_divergence(law(logit, centres), p)

    def forward(logit, centres):
        return kl_divergence(p, law(logit, centres))

    for function, wanted in zip((reverse, forward), exact(learner, target), strict=True):
        value, (by_logit, by_means) = jax.value_and_grad(function, (0, 1))(
            jnp.asarray(phi), jnp.asarray(means)
        )
        got = [float(value), float(by_logit), *np.asarray(by_means, float)]
        for one, other in zip(got, wanted, strict=True):
            assert float(abs(mp.mpf(float(one)) - other)) <= max(1e-10 * float(abs(other)), 1e-13)
