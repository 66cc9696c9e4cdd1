"""The posterior of several tasks: its law, priors, copula and proposals, against SciPy and differences."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from inference.measurement.posterior.law import rows_of
from inference.measurement.posterior.scales import Quadratic, steadied
from inference.measurement.tasks import law
from inference.measurement.tasks import prior as prior_of
from inference.measurement.tasks.climb import restored
from inference.measurement.tasks.draws import _propose, copula
from inference.measurement.tasks.law import TaskNeither, TaskUnknowns
from inference.measurement.tasks.prior import TaskPrior
from inference.measurement.tasks.references import TaskModes


def modes_of(rng, num=3, q=2, tail_dof=None):
    roots = np.tril(0.3 * rng.normal(size=(num, q, q)))
    roots[:, np.arange(q), np.arange(q)] = rng.uniform(0.7, 1.4, size=(num, q))
    covariances = np.array([np.eye(q) * s for s in rng.uniform(0.01, 0.03, size=num)])
    return TaskModes(2.0 * rng.normal(size=(num, q)), covariances, roots, tail_dof)


def batch(tree):
    return jax.tree.map(lambda a: np.asarray(a)[None], tree)


def flat_of(unknowns):
    third = () if unknowns.neither is None else (unknowns.neither.mean, unknowns.neither.log_scale[None])
    return np.concatenate([unknowns.logits, *third, unknowns.means.ravel()])


def of_flat(flat, neither):
    """Return unknowns of three tasks along two discriminants from all their numbers, logits too."""
    logits, shape = flat[..., : 3 + neither], (*flat.shape[:-1], 3, 2)
    third = TaskNeither(flat[..., 4:6], flat[..., 6]) if neither else None
    return TaskUnknowns(logits, flat[..., -6:].reshape(shape), third)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tail_dof", "neither"),
    [(None, False), (4.0, False), (4.0, True)],
)
def test_the_law_is_scipys_and_its_derivatives_are_those_of_autodiff(tail_dof, neither):
    rng = np.random.default_rng(0)
    modes = modes_of(rng, tail_dof=tail_dof)
    unknowns = TaskUnknowns(np.array([0.3, 0.0, -1.2]), modes.means + 0.3 * rng.normal(size=(3, 2)))
    if neither:
        third = TaskNeither(rng.normal(size=2), np.array(0.6))
        unknowns = TaskUnknowns(np.append(unknowns.logits, -0.4), unknowns.means, third)
    y = 2.0 * rng.normal(size=(37, 2))
    weights = special.softmax(unknowns.logits)
    density = np.zeros(37)
    for k in range(3):
        covariance = np.linalg.inv(modes.roots[k] @ modes.roots[k].T)
        one = stats.multivariate_normal if tail_dof is None else stats.multivariate_t
        known = (unknowns.means[k], covariance) + (() if tail_dof is None else (tail_dof,))
        density += weights[k] * one(*known).pdf(y)
    if neither:
        density += weights[3] * stats.multivariate_normal(third.mean, np.exp(1.2) * np.eye(2)).pdf(y)

    def height(flat):
        at = of_flat(flat, neither)
        return jnp.sum(jax.nn.logsumexp(law.log_densities(modes, at, jnp.asarray(y))[0], axis=-1))

    with jax.enable_x64(True):
        found = law.derivatives(batch(modes), batch(unknowns), rows_of(y))
        flat = jnp.asarray(flat_of(unknowns))
        exact = height(flat), jax.grad(height)(flat), jax.hessian(height)(flat)
        of_draws = law.log_likelihoods(batch(modes), batch(batch(unknowns)), rows_of(y))
    assert float(found[0][0]) == pytest.approx(np.log(density).sum(), rel=1e-12)
    assert float(of_draws[0, 0]) == pytest.approx(np.log(density).sum(), rel=1e-12)
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_allclose(one[0], other, rtol=1e-9, atol=1e-9)


def test_a_component_that_holds_nothing_changes_nothing():
    rng = np.random.default_rng(21)
    modes, y = modes_of(rng), 2.0 * rng.normal(size=(50, 2))
    plain = TaskUnknowns(np.array([0.3, 0.0, -1.2]), modes.means + 0.3 * rng.normal(size=(3, 2)))
    third = TaskNeither(np.zeros(2), np.array(1.0))
    empty = TaskUnknowns(np.append(plain.logits, -60.0), plain.means, third)
    shared = np.r_[:3, 7:13]
    with jax.enable_x64(True):
        one, other = (law.derivatives(batch(modes), batch(at), rows_of(y)) for at in (plain, empty))
    assert float(one[0][0]) == pytest.approx(float(other[0][0]), rel=1e-14)
    np.testing.assert_allclose(one[1][0], np.asarray(other[1][0])[shared], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(one[2][0], np.asarray(other[2][0])[np.ix_(shared, shared)], atol=1e-12)


@pytest.mark.slow
def test_the_prior_of_shares_is_a_beta_and_a_dirichlet_law_in_other_coordinates():
    rng = np.random.default_rng(22)
    modes, prior = modes_of(rng), TaskPrior(np.array([1.0, 2.0, 1.5]), 0.5)
    factors = prior_of.mean_factors(modes, np.ones(3))

    def shares_of(free):
        beyond = jax.nn.softmax(jnp.append(free, jnp.array([0.0]))[jnp.array([0, 1, 3, 2])])
        return jnp.append(beyond[:2] / (1.0 - beyond[3]), beyond[3])

    found, exact = [], []
    for _ in range(20):
        free, mean, scale = rng.normal(size=3) * 2.0, 3.0 * rng.normal(size=2), rng.normal()
        # The logit of the last task is 0; the third is that of neither.
        at = TaskUnknowns(np.array([free[0], free[1], 0.0, free[2]]), modes.means, TaskNeither(mean, scale))
        found.append(prior_of.log_prior(modes, prior, at, factors))
        with jax.enable_x64(True):
            first, second, beyond = np.asarray(shares_of(jnp.asarray(free)))
            volume = np.linalg.slogdet(np.asarray(jax.jacobian(shares_of)(jnp.asarray(free))))[1]
        exact.append(
            stats.dirichlet(prior.shapes).logpdf([first, second, 1.0 - first - second])
            + stats.beta(1.0, 9.0).logpdf(beyond)
            + volume
            + stats.norm(modes.means.mean(axis=0), 3.0).logpdf(mean).sum()
            + stats.norm(np.log(2.0), 0.5).logpdf(scale)
        )
    np.testing.assert_allclose(np.diff(found), np.diff(exact), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("neither", [False, True])
def test_the_derivatives_of_the_prior_are_those_of_differences(neither):
    rng = np.random.default_rng(1)
    modes, prior = modes_of(rng), TaskPrior(np.array([1.0, 2.0, 1.5]), 0.5)
    factors = prior_of.mean_factors(modes, np.full(3, 1e6))  # so wide that it has no slope

    def height(flat):
        return prior_of.log_prior(modes, prior, of_flat(flat, neither), factors)

    # Near the middles, where the steps bend.
    middles = (0.6 * modes.means + 0.4 * modes.means[[1, 2, 0]]).ravel()
    flat = np.concatenate([rng.normal(size=7 if neither else 3), middles])
    gradient, hessian = prior_of.derivatives(modes, prior, of_flat(flat[None], neither))
    step = 1e-4 * np.eye(len(flat))
    slopes = (height(flat + step) - height(flat - step)) / 2e-4
    np.testing.assert_allclose(gradient[0], slopes, rtol=1e-5, atol=1e-5)
    for i, j in product(range(len(flat)), repeat=2):
        bend = (height(flat + step[i] + step[j]) - height(flat + step[i] - step[j])) / 4e-8
        bend -= (height(flat - step[i] + step[j]) - height(flat - step[i] - step[j])) / 4e-8
        assert hessian[0, i, j] == pytest.approx(bend, rel=1e-3, abs=1e-3)


def test_the_copula_has_the_density_that_it_says():
    rng = np.random.default_rng(2)
    covariance = np.array([[0.02, 0.1], [0.1, 4.0]])
    spread, num = np.sqrt(np.diag(covariance)), 40_000
    correlation = np.tile(covariance / np.outer(spread, spread), (num, 1, 1))
    ones = np.ones((num, 1))
    drawn, log_q = copula(ones * [0.5, -2.0], ones * spread, correlation, 1.2, rng)
    # A law that is known: a normal one, of the weight with few samples narrow enough for tails to hold it.
    target = stats.multivariate_normal([0.5, -2.0], covariance * [[0.5, 0.3], [0.3, 0.1]])
    ratio = np.exp(target.logpdf(drawn) - log_q)
    assert ratio.mean() == pytest.approx(1.0, abs=5 * ratio.std() / np.sqrt(num))
    assert ratio.std() / np.sqrt(num) < 0.02
    moment = ratio * drawn[:, 1]
    assert moment.mean() == pytest.approx(-2.0, abs=5 * moment.std() / np.sqrt(num))


@pytest.mark.parametrize(("mode", "spread"), [(-8.0, 3.0), (0.0, 0.02), (6.0, 2.0), (-3.0, 12.0)])
def test_the_copulas_marginals_are_logits_of_beta_laws(mode, spread):
    """Of a task that is lost, whose Beta law lies all at one end, too."""
    rng, num = np.random.default_rng(20), 20_000
    ones = np.ones((num, 1))
    drawn, log_q = copula(ones * mode, ones * spread, ones[:, :, None], 1.0, rng)
    share = special.expit(mode)
    count = 1.0 / (spread**2 * share * (1.0 - share))
    exact = stats.beta(count * share, count * (1.0 - share))
    assert np.mean(special.expit(drawn)) == pytest.approx(exact.mean(), abs=5 * exact.std() / np.sqrt(num))
    # Near 1 a Beta density is rounded in x.
    inside = (drawn[:, 0] > -600.0) & (drawn[:, 0] < 12.0)
    x = special.expit(drawn[inside, 0])
    np.testing.assert_allclose(
        log_q[inside], exact.logpdf(x) + np.log(x) + np.log1p(-x), rtol=1e-6, atol=1e-6
    )


@pytest.mark.slow
def test_what_is_proposed_has_the_density_that_it_says_with_a_component_for_neither_task():
    """Normal laws near the mode and where nothing belongs to neither have the same mass."""
    rng = np.random.default_rng(24)
    modes, num = modes_of(rng), 60_000
    root = 0.3 * rng.normal(size=(12, 12))
    likelihood = root @ root.T + np.diag([40.0, 40.0, 1.5, 3.0, 3.0, 5.0, *[60.0] * 6])
    flat = np.concatenate([[0.4, -0.3, -2.0], [1.0, -1.0, 0.5], modes.means.ravel()])
    precision = likelihood + np.diag([0.0] * 3 + [1 / 9, 1 / 9, 4.0] + [0.0] * 6)
    quadratic = Quadratic(flat, np.zeros(12), precision, likelihood)
    factors = np.tile(prior_of.mean_factors(modes, np.full(3, 0.3)), (num, 1, 1, 1))
    drawn, log_q = _propose(modes, quadratic, factors, 1, rng, 1.1)
    assert restored(drawn, 1, (3, 2)).neither.log_scale.shape == (num,)
    covariance = 0.6 * np.linalg.inv(precision)
    masses, errors = [], []
    for shift in (0.0, -1.0):
        centre = flat + shift * np.eye(12)[2]
        ratio = np.exp(stats.multivariate_normal(centre, covariance).logpdf(drawn) - log_q)
        masses.append(ratio.mean())
        errors.append(ratio.std() / np.sqrt(num) / ratio.mean())
    assert max(errors) < 0.03
    assert masses[1] / masses[0] == pytest.approx(1.0, abs=5 * np.hypot(*errors))


def test_a_precision_that_bends_upward_is_steadied_and_no_other_is_changed():
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(2, 7, 7))
    precision = roots @ np.swapaxes(roots, 1, 2)
    precision[1, -4:, -4:] -= 3.0 * np.eye(4)
    found = steadied(precision, 4)
    np.testing.assert_array_equal(found[0], precision[0])
    covariances = [np.linalg.inv(one[:3, :3]) for one in (precision[1], found[1])]
    before, after = (
        np.linalg.eigvalsh(one[3:, 3:] - one[3:, :3] @ covariance @ one[:3, 3:])
        for one, covariance in zip((precision[1], found[1]), covariances, strict=True)
    )
    assert before[0] < -1.0
    np.testing.assert_allclose(after, np.maximum(before, 0.0), atol=1e-9)
