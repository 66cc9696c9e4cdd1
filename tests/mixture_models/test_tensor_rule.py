"""The tensor rule against dense grids (`oracles`), in the plane and in many dimensions.

A missing direction, a wrong weight or a covariance taken for its root is off by order 0.1.
"""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from mixture_models import InputError, TwoMode
from mixture_models.integrals.tensor_rule import expectation, span_of

pytestmark = pytest.mark.usefixtures("x64")

COVARIANCE = np.array([[1.0, 0.5], [0.5, 0.8]])


def harmonic(p, q):
    return lambda y: 2.0 * jax.nn.sigmoid(p.log_prob(y) - q.log_prob(y)) * (p.log_prob(y) - q.log_prob(y))


def brute(p, q):
    def values(y):
        ratio = oracles.log_density(p, y) - oracles.log_density(q, y)
        return 2.0 / (1.0 + np.exp(-ratio)) * ratio

    return oracles.expectation(q, values)


@pytest.mark.slow
@pytest.mark.parametrize("separation", [2.0, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.5, 6.0))])
def test_an_expectation_and_its_gradient_are_those_of_a_grid(separation):
    settings = [
        oracles.Setting(0.3, np.array([0.0, 0.2]), np.array([separation, 0.0]), COVARIANCE),
        oracles.Setting(0.6, np.array([0.5, -0.4]), np.array([separation, 0.7]), COVARIANCE),
    ]
    p, q = (TwoMode.create(*s).law() for s in settings)

    def value(means, resolution=2):
        law = q.__class__(q.log_weights, means, q.scales)
        return expectation(law, harmonic(p, law), jnp.concatenate([p.means, means]), resolution)

    found, gradient = jax.value_and_grad(value)(q.means)
    mixtures = [s.mixture() for s in settings]
    assert float(found) == pytest.approx(brute(*mixtures), rel=1e-9)
    assert abs(float(value(q.means, 0) - found)) < 1e-8
    difference = oracles.finite_difference(lambda law: brute(mixtures[0], law), mixtures[1])
    np.testing.assert_allclose(gradient, [difference["old_mean"], difference["new_mean"]], atol=1e-6)


@pytest.mark.slow
def test_many_dimensions_are_the_span():
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(200, 2)))[0].T
    deviations = rng.uniform(0.5, 2.0, 200)
    flat = [(0.3, [0.0, 0.2], [2.0, 0.0]), (0.6, [0.5, -0.4], [2.0, 0.7])]
    values = []
    for place, covariance in ((np.eye(2), None), (plane * deviations, deviations**2)):
        p, q = (TwoMode.create(w, a @ place, b @ place, covariance).law() for w, a, b in map(_arrays, flat))
        means = jnp.concatenate([p.means, q.means])
        span = span_of(q.scale(0), means)
        for one, other in ((p, q), (span.law(p), span.law(q))):
            values.append(expectation(other, harmonic(one, other), jnp.concatenate([one.means, other.means])))
    np.testing.assert_allclose(values, values[0], atol=1e-12)


def _arrays(setting):
    return (setting[0], *(np.array(mean) for mean in setting[1:]))


def test_too_many_nodes_are_no_value():
    law = TwoMode.create(0.5, np.zeros(3), np.ones(3)).law()
    means = jnp.asarray(np.vstack([np.zeros(3), 1e3 * np.eye(3)]))
    assert np.isnan(expectation(law, lambda y: y[:, 0], means))


def test_two_covariances_are_refused():
    law = TwoMode.create(0.5, 0.0, 1.0, new_covariance=2.0).law()
    with pytest.raises(InputError, match="one covariance; got 2"):
        expectation(law, lambda y: y[:, 0], law.means)
