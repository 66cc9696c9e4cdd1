"""Weight gradients, Fisher information and local rates against brute force, and their bounds."""

import mpmath as mp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theory_oracles import over_line, relative_error

from mixture_models import InputError, TwoMode, theory

thousand = settings(max_examples=1000, deadline=None)
COVARIANCE = np.array([[1.5, 0.4], [0.4, 0.8]])


@pytest.mark.parametrize("separation", [0.1, 1.0, 3.0, 9.0])
@pytest.mark.parametrize(("logit", "target_logit"), [(1.0, -0.5), (-3.0, 2.0), (0.2, 0.9)])
def test_weight_gradient_is_the_integral(logit, target_logit, separation):
    learner, target = (
        oracles.two_modes(1 / (1 + np.exp(-phi)), 0.0, separation) for phi in (logit, target_logit)
    )
    exact = oracles.reverse_kl_gradient(learner, target)["old_logit"]
    assert theory.weight_gradient(logit, target_logit, separation) == pytest.approx(
        exact, rel=1e-9, abs=1e-13
    )


@pytest.mark.parametrize(
    ("weight", "target_weight", "separation"),
    [(1e-6, 2e-6, 0.1), (0.3, 0.3 + 1e-9, 2.0), (1 - 1e-6, 1e-6, 12.0)],
)
def test_weight_gradient_is_right_relatively(weight, target_weight, separation):
    w, alpha = mp.mpf(weight), mp.mpf(target_weight)

    def values(at):
        target = alpha * at.old + (1 - alpha) * at.new
        return (at.old - at.new) * mp.log(at.mixture / target)

    exact = w * (1 - w) * over_line(values, weight, separation)
    logits = (float(mp.log(x) - mp.log(1 - x)) for x in (w, alpha))
    tolerance = 1e-10 if abs(weight - target_weight) > 1e-8 else 1e-6  # of a difference of logits of 5e-9
    assert relative_error(theory.weight_gradient(*logits, separation), exact) < tolerance


logits = st.floats(-13.8, 13.8)


@thousand
@given(logits, logits, st.floats(0.1, 12.0))
def test_weight_gradient_lies_between_its_bounds(logit, target_logit, separation):
    gradient = theory.weight_gradient(logit, target_logit, separation)
    bounds = theory.weight_gradient_bounds(logit, target_logit, separation)
    assert gradient * np.sign(logit - target_logit) >= 0.0
    assert bounds.lower * (1 - 1e-12) <= abs(gradient) <= bounds.upper * (1 + 1e-12)


def test_lower_bound_is_the_integrated_curvature():
    grid = np.linspace(-2.0, 6.0, 400_001)
    for separation in (1.0, 3.0, 5.0):
        kappa = np.maximum(0.0, 1.0 - np.exp(-(separation**2) / 8.0) * np.cosh(grid / 2.0))
        beta = 1 / (1 + np.exp(2.0))
        integral = beta * (1 - beta) * np.mean(kappa) * 8.0
        bounds = theory.weight_gradient_bounds(-2.0, 6.0, separation)
        assert bounds.lower == pytest.approx(integral, rel=1e-4, abs=1e-12)
        assert bounds.upper == pytest.approx(beta * (1 - beta) * 8.0, rel=1e-12)


def test_both_bounds_are_tight_somewhere(record_property):
    separation = np.linspace(2.0, 12.0, 11)
    gradient = abs(theory.weight_gradient(0.5, -0.5, separation))
    bounds = theory.weight_gradient_bounds(0.5, -0.5, separation)
    ratios = (bounds.lower / gradient).max(), (gradient / bounds.upper).max()
    record_property("best ratios", [float(r) for r in ratios])
    assert min(ratios) > 0.99
    # Where modes overlap the lower bound still says something.
    assert bounds.lower[1] / gradient[1] > 0.3


def brute_fisher(weight, difference, covariance=None):
    """The Fisher matrix by a 2-D grid, in (φ, whitened m_o, m_n)."""
    p = oracles.two_modes(weight, np.zeros(2), np.asarray(difference), covariance)

    def products(y):
        g = oracles.score(p, y)
        return g[:, None, :] * g[None, :, :]

    matrix = oracles.expectation(p, products)
    root = np.linalg.cholesky(p.covariances[0])
    place = np.zeros((5, 5))
    place[0, 0], place[1:3, 1:3], place[3:, 3:] = 1.0, root, root
    return place.T @ matrix @ place


@pytest.mark.parametrize("weight", [0.05, 0.5, 0.7])
@pytest.mark.parametrize("difference", [[0.4, 0.1], [1.5, -1.0], [4.0, 1.0]])
def test_fisher_information_and_rate_are_brute_force(weight, difference):
    brute = brute_fisher(weight, difference, COVARIANCE)
    target = TwoMode.create(weight, [0.0, 0.0], difference, COVARIANCE)
    np.testing.assert_allclose(theory.fisher_information(target).dense(), brute, rtol=1e-8, atol=1e-10)
    assert theory.local_rate(target) == pytest.approx(np.linalg.eigvalsh(brute)[0], rel=1e-6)


@pytest.mark.parametrize(("weight", "separation"), [(0.5, 0.1), (1e-6, 0.5), (0.3, 3.0), (1 - 1e-6, 12.0)])
def test_fisher_entries_and_rate_are_right_relatively(weight, separation):
    alpha, half = mp.mpf(weight), mp.mpf(separation) / 2

    def scores(at):
        old, new = alpha * at.old / at.mixture, (1 - alpha) * at.new / at.mixture
        return old - alpha, old * (at.y + half), new * (at.y - half), old, new

    def entry(i, j):
        def values(at):
            g = scores(at)
            return at.mixture * g[i] * g[j]

        return over_line(values, weight, separation)

    information = theory.fisher_information(TwoMode.create(weight, 0.0, separation))
    exact = mp.matrix(3)
    for i in range(3):
        for j in range(i, 3):
            exact[i, j] = exact[j, i] = entry(i, j)
            assert relative_error(information.along[i, j], exact[i, j]) < 1e-10
    for i in range(2):
        for j in range(i, 2):
            assert relative_error(information.across[i, j], entry(3 + i, 3 + j)) < 1e-10
    rate = min(mp.eigsy(exact, eigvals_only=True))
    assert relative_error(theory.local_rates(weight, separation), rate) < 1e-8


def test_many_dimensions_are_the_line():
    """Any rotation in d = 4096 gives the blocks, and the rate, of d = 1."""
    rng = np.random.default_rng(2)
    direction = rng.normal(size=4096)
    new = 2.5 * direction / np.linalg.norm(direction)
    large = theory.fisher_information(TwoMode.create(0.3, np.zeros(4096), new))
    small = theory.fisher_information(TwoMode.create(0.3, 0.0, 2.5))
    np.testing.assert_allclose(large.along, small.along, rtol=1e-12)
    np.testing.assert_allclose(large.across, small.across, rtol=1e-12)
    np.testing.assert_allclose(large.direction, new / 2.5, rtol=1e-12)
    assert theory.local_rate(TwoMode.create(0.3, np.zeros(4096), new)) == pytest.approx(
        float(theory.local_rates(0.3, 2.5)), rel=1e-12
    )


@pytest.mark.slow
@thousand
@given(logits, st.floats(0.1, 12.0))
def test_orthogonal_directions_are_never_slowest(logit, separation):
    """Hence the rate does not depend on the dimension; and ρ is bounded by the overlap."""
    information = theory.fisher_information(TwoMode.create(None, 0.0, separation, old_logit=logit))
    rho = information.across[0, 1]
    variance = 1.0 / (2.0 + np.exp(logit) + np.exp(-logit))
    assert rho <= 0.5 * np.sqrt(variance) * np.exp(-(separation**2) / 8.0) * (1 + 1e-12)
    rate = theory.local_rates(logit=logit, separation=separation)
    assert rate <= information.along[0, 0] * (1 + 1e-9)
    # The determinant of the block across is I_φφ and its trace 1 - 2ρ < 1.
    assert np.linalg.det(information.across) == pytest.approx(information.along[0, 0], rel=1e-6)
    assert rate <= np.linalg.eigvalsh(information.across)[0] * (1 + 1e-6)


@pytest.mark.parametrize("weight", [1e-3, 0.2, 0.5])
def test_rate_of_separated_modes(weight):
    assert theory.local_rates(weight, 12.0) == pytest.approx(weight * (1 - weight), rel=1e-2)
    assert theory.local_rates(weight, 2.0) < 0.5 * weight * (1 - weight)


def test_modes_that_coincide_have_no_rate():
    information = theory.fisher_information(TwoMode.create(0.3, 0.0, 0.0))
    assert information.along[0, 0] == 0.0
    np.testing.assert_allclose(information.across, [[0.09, 0.21], [0.21, 0.49]], rtol=1e-12)
    assert theory.local_rates(0.3, 0.0) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.weight_gradient(np.inf, 0.0, 1.0), "logit must be finite"),
        (lambda: theory.weight_gradient_bounds(0.0, 0.0, -1.0), "separation must lie in"),
        (
            lambda: theory.local_rate(TwoMode.create(0.5, 0.0, 200.0)),
            r"separation must lie in \[0, 100\]; got 200",
        ),
        (lambda: theory.fisher_information(TwoMode.create(0.5, 0.0, 1.0, 1.0, 2.0)), "one covariance"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()
