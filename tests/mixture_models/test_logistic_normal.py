"""The integrals S_k(a, v) against adaptive quadrature, their derivatives, and their extremes."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy import integrate
from scipy.special import expit
from scipy.stats import norm
from theory_oracles import gaussian_mean

from mixture_models.integrals.logistic_normal import sigmoid_mean, sigmoid_means, softplus_mean

pytestmark = pytest.mark.usefixtures("x64")


def adaptive(function, a, v):
    """E[function(a + √v Z)] by SciPy's adaptive quadrature, cut where the integrand bends."""
    s = np.sqrt(v)
    inner = np.clip([-a / s - 3.0 / s, -a / s, -a / s + 3.0 / s, 0.0, s], -13.0, 13.0 + s)
    edges = np.unique([-13.0, *inner, 13.0 + s])
    pieces = [
        integrate.quad(
            lambda z: function(a + s * z) * norm.pdf(z), low, high, epsabs=1e-15, epsrel=1e-13, limit=200
        )
        for low, high in pairwise(edges)
    ]
    return sum(piece[0] for piece in pieces)


SPREADS = (1e-3, 0.5, 3.99, 4.01, 9.0, 64.0, 144.0)


@pytest.mark.parametrize("v", SPREADS)
def test_softplus_mean(v):
    for a in (-30.0, -0.5 * v, -1.0, 0.0, 2.0, 0.5 * v, 30.0):
        exact = adaptive(lambda x: np.logaddexp(0.0, x), a, v)
        assert float(softplus_mean(a, v)) == pytest.approx(exact, rel=1e-10, abs=2e-13)


@pytest.mark.parametrize("v", SPREADS)
def test_sigmoid_mean_is_right_relatively(v):
    for a in (-0.9 * v - 5.0, -0.75 * v, -0.5 * v, -0.25 * v, 0.0, 3.0):
        assert float(sigmoid_mean(a, v)) == pytest.approx(adaptive(expit, a, v), rel=1e-10)


@pytest.mark.parametrize("v", SPREADS)
def test_sigmoid_and_its_slope_of_one_pass(v):
    for a in (-0.9 * v - 5.0, -0.75 * v, -0.5 * v, -0.25 * v, 0.0, 3.0):
        mean, slope = (float(value) for value in sigmoid_means(a, v))
        assert mean == pytest.approx(float(sigmoid_mean(a, v)), rel=1e-13)
        exact = adaptive(lambda x: expit(x) * expit(-x), a, v)
        assert slope == pytest.approx(exact, rel=1e-10, abs=1e-13)


@pytest.mark.parametrize("v", [0.5, 50.0, *(pytest.param(v, marks=pytest.mark.slow) for v in (3.9, 4.1))])
def test_derivatives_are_the_next_integrals(v):
    """∂S/∂a = S_1, ∂S/∂v = ½ S_2, and so on, against central differences of one order less."""
    a, h = 0.7, 1e-4
    for function in (softplus_mean, sigmoid_mean, jax.grad(sigmoid_mean)):
        for k in (0, 1):
            step = [h * (k == 0), h * (k == 1)]
            up, down = (float(function(a + sign * step[0], v + sign * step[1])) for sign in (1.0, -1.0))
            assert float(jax.grad(function, k)(a, v)) == pytest.approx(
                (up - down) / (2.0 * h), rel=1e-5, abs=1e-9
            )
    assert float(jax.grad(softplus_mean)(a, v)) == pytest.approx(float(sigmoid_mean(a, v)), rel=1e-12)


def test_two_resolutions_agree():
    a = jnp.linspace(-20.0, 20.0, 41)
    for v in SPREADS:
        fine, coarse = (softplus_mean(a, jnp.full(41, v), resolution) for resolution in (2, 1))
        np.testing.assert_allclose(fine, coarse, rtol=1e-10, atol=5e-11)


@pytest.mark.slow
def test_nothing_overflows():
    a, v = (x.ravel() for x in np.meshgrid([-1e4, -1.0, 0.0, 1e4], [0.0, 1e-12, 1.0, 1e4]))
    for function in (softplus_mean, sigmoid_mean):
        found = jax.jit(jax.vmap(jax.value_and_grad(function, (0, 1))))(jnp.asarray(a), jnp.asarray(v))
        assert all(np.all(np.isfinite(values)) for values in jax.tree.leaves(found))
    assert float(softplus_mean(1e4, 1e4)) == pytest.approx(1e4, rel=1e-12)
    assert float(sigmoid_mean(-1e4, 1.0)) == 0.0
    np.testing.assert_allclose(
        sigmoid_mean(jnp.asarray([-2.0, 3.0]), jnp.zeros(2)), expit([-2.0, 3.0]), rtol=1e-14
    )


def softplus_derivative(k, x):
    """In 25 digits."""
    sigmoid = 1 / (1 + mp.exp(-x))
    return (
        lambda: mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x)),
        lambda: sigmoid,
        lambda: sigmoid * (1 - sigmoid),
    )[k]()


# Both sides of the switch between the rules, and the ends of the range of separations.
@pytest.mark.parametrize("v", [0.01, 1.0, 4.83, 4.85, 9.9, 144.0])
def test_all_that_gradients_need_to_25_digits(v):
    """S and S_2 to 1e-10 relatively or 1e-13 absolutely, S_1 relatively; weights from 1e-6 to 1 - 1e-6."""
    chain = (softplus_mean, sigmoid_mean, jax.grad(sigmoid_mean))
    for a in (-0.5 * v - 13.8, -0.5 * v, -1.0, 0.5 * v + 13.8):
        for k, function in enumerate(chain):
            exact = gaussian_mean(lambda x, k=k: softplus_derivative(k, x), a, v)
            error = float(abs(mp.mpf(float(function(a, v))) - exact))
            assert error <= max(1e-10 * float(exact), 1e-13 if k != 1 else 0.0), (a, k)


def test_extremes_are_right():
    """Where the log odds or their variance are 1e4: value, ∂/∂a and ∂/∂v = ½ S_2."""
    value, gradient = softplus_mean, jax.grad(softplus_mean, (0, 1))
    # Far to the right softplus is x, far to the left 0.
    assert float(value(1e4, 1.0)) == pytest.approx(1e4, rel=1e-15)
    np.testing.assert_allclose(gradient(1e4, 1.0), [1.0, 0.0], atol=1e-15)
    assert float(value(-1e4, 1.0)) == 0.0
    np.testing.assert_allclose(gradient(-1e4, 1.0), [0.0, 0.0], atol=1e-300)
    for a in (0.0, 100.0, 1e4, -300.0):
        exact = [
            adaptive(f, a, 1e4)
            for f in (lambda x: np.logaddexp(0.0, x), expit, lambda x: expit(x) * expit(-x))
        ]
        assert float(value(a, 1e4)) == pytest.approx(exact[0], rel=1e-10)
        by_a, by_v = gradient(a, 1e4)
        assert float(by_a) == pytest.approx(exact[1], rel=1e-10)
        assert float(by_v) == pytest.approx(0.5 * exact[2], rel=1e-10, abs=1e-13)
