"""Several tasks, each with a reference: against quadrature, closed forms and the measurement of two modes."""

import json
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy import special, stats

from inference import measure, measure_scores
from inference.measurement.posterior.law import rows_of
from inference.measurement.posterior.scales import Quadratic, steadied
from inference.measurement.scores.measure_task_scores import task_weights
from inference.measurement.tasks import across, law, words
from inference.measurement.tasks import prior as prior_of
from inference.measurement.tasks.climb import restored
from inference.measurement.tasks.discriminants import discriminants_of, in_order
from inference.measurement.tasks.draws import _propose, copula
from inference.measurement.tasks.law import TaskNeither, TaskUnknowns
from inference.measurement.tasks.measure_tasks import TaskSettings, measure_tasks
from inference.measurement.tasks.prior import TaskPrior
from inference.measurement.tasks.references import TaskModes, anchor_tasks
from inference.measurement.tasks.scales import Beside
from mixture_models import InputError

MEANS = np.array([[0.0, 0.0, 0.0, 0.0], [3.5, 0.0, 0.0, 0.0], [1.5, 3.0, 0.0, 0.0]])
NAMES = ("math", "code", "new")


def samples(rng, weights, num, means=MEANS):
    return means[rng.choice(len(means), size=num, p=weights)] + rng.normal(size=(num, means.shape[1]))


def references(rng, num=300, means=MEANS, names=NAMES):
    return {name: mean + rng.normal(size=(num, len(mean))) for name, mean in zip(names, means, strict=True)}


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


def test_the_evidence_beside_the_discriminants_is_that_of_gaussians():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(3, 3))
    covariance, noise, p = root @ root.T * 0.1 + 0.05 * np.eye(3), np.array([0.02, 0.01, 0.03]), 4
    away = rng.normal(size=(3, p))
    precision = np.linalg.inv(covariance)
    beside = Beside(precision, precision @ away @ away.T @ precision, noise, p)
    scales = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.2], [1.0, 2.0, 0.0]])
    exact = [
        stats.multivariate_normal(np.zeros(3), covariance + np.diag(noise + s**2)).logpdf(away.T).sum()
        for s in scales
    ]
    np.testing.assert_allclose(np.diff(beside.log_evidence(scales)), np.diff(exact), rtol=1e-9)


def test_means_beside_the_discriminants_are_those_of_samples_whose_task_is_known():
    rng = np.random.default_rng(4)
    far = np.zeros((3, 5))
    far[:, :2] = [[0.0, 0.0], [60.0, 0.0], [0.0, 60.0]]
    given = [mean + rng.normal(size=(400, 5)) for mean in far]
    known = anchor_tasks(discriminants_of(given, 64), "unequal", "gaussian")
    shift = np.array([[0, 0, 0.5, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, -1.0, 0.0]])
    parts = [
        mean + one + rng.normal(size=(n, 5)) for mean, one, n in zip(far, shift, (50, 80, 130), strict=True)
    ]
    rows = [known.space.coordinates(part) for part in parts]
    modes = jax.tree.map(lambda a: a[0], known.central)
    centres = np.stack([part[:, :2].mean(axis=0) for part in rows])
    sets = [(modes, TaskUnknowns(np.zeros(3), centres))]
    found, _ = across._estimate(known, sets, [rows_of(np.concatenate(rows))])
    for k, (part, size) in enumerate(zip(rows, (50, 80, 130), strict=True)):
        np.testing.assert_allclose(found.means[0, k], part[:, 2:].mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(found.covariances[0, k, :, k], known.residuals[k] / size, rtol=1e-5)


def test_what_belongs_to_neither_task_does_not_pull_the_means_beside_the_discriminants():
    rng = np.random.default_rng(23)
    far = np.zeros((3, 5))
    far[:, :2] = [[0.0, 0.0], [60.0, 0.0], [0.0, 60.0]]
    known = anchor_tasks(
        discriminants_of([mean + rng.normal(size=(400, 5)) for mean in far], 64), "unequal", "gaussian"
    )
    parts = [mean + rng.normal(size=(n, 5)) for mean, n in zip(far, (50, 80, 130), strict=True)]
    spread = np.array([1.0, 1.0, 3.0, 1.0, 0.5])
    parts.append(np.array([40.0, 40.0, 8.0, 0.0, 0.0]) + spread * rng.normal(size=(400, 5)))
    rows = [known.space.coordinates(part) for part in parts]
    modes = jax.tree.map(lambda a: a[0], known.central)
    centres = np.stack([part[:, :2].mean(axis=0) for part in rows])
    third = TaskNeither(centres[3], np.array(0.0))
    unknowns = TaskUnknowns(np.zeros(4), centres[:3], third)
    found, beyond = across._estimate(known, [(modes, unknowns)], [rows_of(np.concatenate(rows))])
    for k, (part, size) in enumerate(zip(rows[:3], (50, 80, 130), strict=True)):
        np.testing.assert_allclose(found.means[0, k], part[:, 2:].mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(found.covariances[0, k, :, k], known.residuals[k] / size, rtol=1e-5)
    # Priors that are worth 1/9 of a sample, and 5 samples of variance 4.
    np.testing.assert_allclose(beyond.means[0], rows[3][:, 2:].mean(axis=0) * 400 / (400 + 1 / 9), rtol=1e-6)
    away = rows[3][:, 2:] - beyond.means[0]
    np.testing.assert_allclose(beyond.covariances[0], (away.T @ away + 20 * np.eye(3)) / 405, rtol=1e-6)


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


@pytest.mark.slow
def test_that_tasks_are_not_known_is_part_of_the_error_of_means_beside_the_discriminants():
    """Samples whose responsibilities are right: the covariance that is said is that of replicates."""
    rng = np.random.default_rng(19)
    known = anchor_tasks(discriminants_of(list(references(rng).values()), 64), "shared", "gaussian")
    known = known._replace(slopes=np.zeros((3, 2, 2)), residuals=np.tile(0.01 * np.eye(2), (3, 1, 1)))
    modes = jax.tree.map(lambda a: a[0], known.central)
    unknowns = TaskUnknowns(np.array([0.5, 0.0, 0.2]), modes.means)
    u = 0.4 * rng.normal(size=(80, 2)) + modes.means.mean(axis=0)
    held = law.responsibilities(modes, unknowns, u)
    assert np.mean(held.max(axis=1)) < 0.9
    places, found = np.array([[0.0, 1.0], [3.0, 0.0], [-2.0, 5.0]]), []
    for _ in range(3000):
        task = np.array([rng.choice(3, p=row) for row in held])
        beside = places[task] + 0.1 * rng.normal(size=(80, 2))
        found.append(np.linalg.solve(held.T @ held, held.T @ beside))
    middle = np.concatenate([u, held @ places], axis=1)
    said, _ = across._estimate(known, [(modes, unknowns)], [rows_of(middle)])
    np.testing.assert_allclose(said.means[0], places, atol=1e-3)
    exact = np.cov(np.reshape(found, (3000, 6)), rowvar=False)
    spread = np.sqrt(np.diag(exact))
    errors = (said.covariances[0].reshape(6, 6) - exact) / np.outer(spread, spread)
    # The standard error of a correlation of 3,000 replicates is at most 0.018.
    assert np.abs(errors).max() < 0.15


def on_simplex(num):
    """Return weights of three tasks on a grid, their logarithms, and the density of the grid."""
    edges = (np.arange(num) + 0.5) / num
    first, left = (one.ravel() for one in np.meshgrid(edges, edges, indexing="ij"))
    weights = np.stack([first, (1.0 - first) * left, (1.0 - first) * (1.0 - left)], axis=1)
    return weights, 1.0 - first


@pytest.mark.parametrize("truth", [(0.5, 0.2, 0.3), (0.97, 0.0, 0.03)])
def test_weights_with_the_modes_at_their_references_are_those_of_quadrature(truth):
    rng = np.random.default_rng(5)
    means, shapes = MEANS[:, :2], np.array([2.0, 1.0, 3.0])
    given = references(rng, 20_000, means)
    y = samples(rng, truth, 120, means)
    tree = measure(
        {"0": y},
        given,
        covariance="unequal",
        tails="gaussian",
        weight_prior=shapes,
        displacement_scale=1e-4,
        num_draws=4000,
        progress=False,
    )
    density = np.stack(
        [stats.multivariate_normal(r.mean(0), np.cov(r.T)).pdf(y) for r in given.values()], axis=1
    )
    weights, jacobian = on_simplex(300)
    log_posterior = np.log(density @ weights.T).sum(axis=0) + np.log(weights) @ (shapes - 1.0)
    mass = np.exp(log_posterior - log_posterior.max()) * jacobian
    mass /= mass.sum()
    mean = mass @ weights
    sd = np.sqrt(mass @ (weights - mean) ** 2)
    found = tree["posterior"]["weight"].isel(checkpoint=0)
    error = sd / np.sqrt(4000 * float(tree["sample_stats"]["efficiency"][0]))
    # References of 20,000 leave the means within 0.007.
    assert np.all(np.abs(found.mean(["chain", "draw"]) - mean) < 5 * error + 0.04 * sd)
    np.testing.assert_allclose(found.std(["chain", "draw"]), sd, rtol=0.1)
    np.testing.assert_allclose(
        tree["posterior"]["old_weight"].isel(checkpoint=0), found.sel(task=["math", "code"]).sum("task")
    )


@pytest.fixture(scope="module")
def measured():
    rng = np.random.default_rng(6)
    given = references(rng)
    moved = MEANS + np.array([[0.0, 0.0, 1.0, 0.0], [0.0] * 4, [0.0] * 4])
    run = {"0": samples(rng, (0.5, 0.4, 0.1), 400), "9": samples(rng, (0.3, 0.02, 0.68), 400, moved)}
    return run, given, measure(run, given, num_draws=200, progress=False)


def test_what_is_measured_is_what_was_simulated(measured):
    _, _, tree = measured
    found, stats_of = tree["posterior"], tree["sample_stats"]
    np.testing.assert_allclose(
        found["weight"].mean(["chain", "draw"]), [[0.5, 0.4, 0.1], [0.3, 0.02, 0.68]], atol=0.08
    )
    assert found["weight"].dims == ("chain", "draw", "checkpoint", "task")
    assert found["displacement"].dims == ("chain", "draw", "checkpoint", "task", "feature")
    np.testing.assert_allclose(found["weight"].sum("task"), 1.0)
    assert float(found["task_drift"].sel(checkpoint=9, task="math").mean()) == pytest.approx(1.0, abs=0.3)
    assert float(found["task_drift"].sel(checkpoint=9, task="new").mean()) < 0.15
    moved = found["displacement"].sel(checkpoint=9, task="math").mean(["chain", "draw"])
    np.testing.assert_allclose(moved, [0.0, 0.0, 1.0, 0.0], atol=0.35)
    assert list(stats_of["weight_words"].to_numpy()) == ["good", "good"]
    for group in tree.children.values():
        for name, variable in group.variables.items():
            assert {"long_name", "units"} <= set(variable.attrs), name


@pytest.mark.slow
def test_neither_the_order_of_tasks_nor_an_affine_map_changes_anything(measured):
    run, given, tree = measured
    rng = np.random.default_rng(7)
    mapped, shift = rng.normal(size=(4, 4)), 10.0 * rng.normal(size=4)

    def there(y):
        return y @ mapped + shift

    backwards = {name: there(given[name])[::-1] for name in reversed(NAMES)}
    other = measure({k: there(y) for k, y in run.items()}, backwards, num_draws=200, progress=False)
    assert list(other["posterior"]["task"].to_numpy()) == list(reversed(NAMES))
    same = other["posterior"].to_dataset().sel(task=list(NAMES))
    for name in ("weight", "task_drift"):
        np.testing.assert_allclose(same[name], tree["posterior"][name], rtol=1e-6, atol=1e-6)
    displaced = tree["posterior"]["displacement"].to_numpy() @ mapped
    np.testing.assert_allclose(same["displacement"], displaced, rtol=1e-6, atol=1e-6)
    assert list(other["sample_stats"]["words"].to_numpy()) == list(tree["sample_stats"]["words"].to_numpy())


def test_what_is_streamed_is_measured_alike(measured):
    run, given, tree = measured
    streamed = measure(run, given, num_draws=200, memory=6e3, progress=False)
    assert list(streamed["sample_stats"]["streamed"].to_numpy()) == [1, 1]
    for name in ("weight", "task_drift"):
        np.testing.assert_allclose(streamed["posterior"][name], tree["posterior"][name], rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_two_tasks_by_name_are_the_measurement_of_two():
    rng = np.random.default_rng(8)
    given = references(rng, 200, MEANS[:2], ("math", "code"))
    run = samples(rng, (0.6, 0.4), 300, MEANS[:2])
    options = dict(num_draws=100, progress=False, weight_prior=(1.0, 2.0))
    plain = measure(run, given["math"], given["code"], **options)
    named = measure(run, {"new": given["code"], "old": given["math"]}, **options)
    assert named["posterior"].to_dataset().identical(plain["posterior"].to_dataset())
    tasks = measure(run, given, **options)
    # The second is the new one where none is named so, and the old comes first in the prior.
    posterior = tasks["posterior"]
    np.testing.assert_array_equal(posterior["weight"].sel(task="math"), plain["posterior"]["old_weight"])
    np.testing.assert_array_equal(posterior["task_drift"].sel(task="code"), plain["posterior"]["new_gap"])
    assert "old_weight" not in posterior
    turned = measure(run, given, new_task="math", **options | {"weight_prior": (2.0, 1.0)})
    other = measure(run, given["code"], given["math"], **options)
    np.testing.assert_array_equal(turned["posterior"]["old_weight"], other["posterior"]["old_weight"])
    np.testing.assert_array_equal(
        turned["posterior"]["displacement"].sel(task="code"), other["posterior"]["old_displacement"]
    )
    assert list(turned["posterior"]["task"].to_numpy()) == ["math", "code"]


@pytest.mark.slow
def test_two_tasks_have_the_posterior_of_two_modes():
    rng = np.random.default_rng(9)
    given = references(rng, 1000, MEANS[:2], ("old", "new"))
    run = samples(rng, (0.3, 0.7), 600, MEANS[:2] + np.array([[0.0, 0.0, 0.8, 0.0], [0.0] * 4]))
    settings = TaskSettings(0, "laplace", "unequal", "gaussian", (1.0, 1.0), 0.5, 2000, 64, False, 0, "new")
    tasks = measure_tasks(run, given, settings, memory=1e9, keep=None, progress=False)
    plain = measure(run, *given.values(), covariance="axis", tails="gaussian", num_draws=2000, progress=False)
    for ours, theirs in (("weight", ("old_weight", "new_weight")), ("task_drift", ("old_drift", "new_gap"))):
        for task, name in zip(("old", "new"), theirs, strict=True):
            one, other = tasks["posterior"][ours].sel(task=task), plain["posterior"][name]
            spread = float(other.std())
            assert float(one.mean()) == pytest.approx(float(other.mean()), abs=0.25 * spread + 0.01)
            assert float(one.std()) == pytest.approx(spread, rel=0.25, abs=0.02)


def test_tasks_that_cannot_be_told_apart_are_named():
    confusion = np.array([[0.6, 0.4, 0.0], [0.3, 0.6, 0.1], [0.0, 0.1, 0.9]])
    stats_of = {
        "num_samples": 300,
        "weight_mean": np.array([0.3, 0.3, 0.4]),
        "task_information": np.array([0.05, 0.08, 0.7]),
        "confusion": confusion,
    }
    said = words._overlaps(stats_of, NAMES)
    assert said == ["math and code overlap so much that their weights can hardly be told apart"]
    assert words._overlaps(stats_of | {"task_information": np.full(3, 0.5)}, NAMES) == []
    lost = stats_of | {"confusion": np.array([[0.3, 0.2, 0.1], [0.3, 0.6, 0.1], [0.0, 0.1, 0.9]])}
    assert words._overlaps(lost, NAMES) == [
        "math and what belongs to neither task overlap so much that their weights can hardly be told apart",
        "math and code overlap so much that their weights can hardly be told apart",
    ]


def test_references_that_are_hardly_apart_are_named():
    rng = np.random.default_rng(10)
    means = np.array([[0.0, 0.0], [0.6, 0.0], [0.0, 7.0]])
    tree = measure(
        samples(rng, (0.3, 0.3, 0.4), 300, means), references(rng, 300, means), num_draws=100, progress=False
    )
    said = str(tree["sample_stats"]["weight_words"].item())
    assert said.startswith("not to be trusted: the references of ")
    assert all(name in said.partition("are hardly apart")[0] for name in ("math", "code"))
    assert said.count("hardly apart") == 1


@pytest.mark.slow
def test_a_fourth_behaviour_is_not_trusted():
    rng = np.random.default_rng(11)
    means = np.concatenate([MEANS, [[5.0, 6.0, 0.0, 0.0]]])
    tree = measure(
        samples(rng, (0.3, 0.3, 0.2, 0.2), 600, means), references(rng), num_draws=100, progress=False
    )
    said = str(tree["sample_stats"]["words"].item())
    assert said.startswith("not to be trusted")
    assert "one mode a task does not describe the samples" in said


def beyond_of(kind, rng, num):
    """Return samples that belong to no task: spread over all of them, or a cluster that lies apart."""
    if kind == "broad":
        return MEANS.mean(axis=0) + 3.0 * rng.normal(size=(num, 4))
    return np.array([5.0, 6.0, 2.0, 0.0]) + 0.7 * rng.normal(size=(num, 4))


def with_beyond(rng, kinds, num=500):
    """Return checkpoints of which a tenth belongs to no task, or nothing does, and the tasks' weights."""
    run, truth = {}, []
    for place, kind in enumerate(kinds):
        among = rng.dirichlet(np.ones(3))
        count = 0 if kind is None else rng.binomial(num, 0.1)
        here = [samples(rng, among, num - count)]
        here += [] if kind is None else [beyond_of(kind, rng, count)]
        run[place] = rng.permutation(np.concatenate(here))
        truth.append((1.0 if kind is None else 0.9) * among)
    return run, np.array(truth)


def held_by(tree, truth):
    low, high = tree["posterior"]["weight"].quantile([0.055, 0.945], ["chain", "draw"]).to_numpy()
    return (low - 1e-9 <= truth) & (truth <= high + 1e-9)


@pytest.mark.slow
def test_a_component_for_neither_task_takes_what_belongs_to_none():
    rng = np.random.default_rng(25)
    given, kinds = references(rng), ["broad", "broad", "broad", "far", "far", None]
    run, truth = with_beyond(rng, kinds)
    options = dict(method="laplace", num_draws=100, progress=False)
    tree = measure(run, given, neither=True, **options)
    found = tree["posterior"]
    total = found["weight"].sum("task")
    np.testing.assert_allclose(total.mean(["chain", "draw"])[:5], 0.9, atol=0.06)
    np.testing.assert_allclose(found["old_weight"], total - found["weight"].sel(task="new"))
    # Of 15 intervals that hold with 0.89, 10 or fewer do with a probability of 0.015.
    assert held_by(tree, truth)[:5].sum() >= 11
    errors = found["weight"].mean(["chain", "draw"]) - truth
    assert np.sqrt(np.mean(errors**2)) < 0.05
    assert np.all(tree["sample_stats"]["k_hat"] < 0.7)
    assert not any(word.startswith("not") for word in tree["sample_stats"]["weight_words"].to_numpy())
    # Where nothing is there the tasks' weights lose little.
    assert np.all(total.mean(["chain", "draw"])[5:] > 0.85)
    assert json.loads(tree.attrs["settings"])["neither"] is True
    plain = measure({place: run[place] for place in (0, 4)}, given, **options)
    np.testing.assert_allclose(plain["posterior"]["weight"].sum("task"), 1.0)
    assert not any(word == "good" for word in plain["sample_stats"]["weight_words"].to_numpy())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["broad", "far", None])
def test_intervals_hold_with_a_component_for_neither_task(kind):
    covered, errors = [], []
    for world in range(12):
        rng = np.random.default_rng([26, world])
        given = references(rng)
        run, truth = with_beyond(rng, [kind] * 6)
        tree = measure(run, given, neither=True, num_draws=400, seed=world, method="laplace", progress=False)
        covered.append(held_by(tree, truth))
        errors.append(tree["posterior"]["weight"].mean(["chain", "draw"]) - truth)
    # 72 checkpoints: a standard error of 0.037 were the weights of a checkpoint one.
    assert 0.80 < np.mean(covered) < 0.99
    assert abs(np.mean(errors)) < (0.03 if kind is None else 0.01)


def test_many_features_are_projected_and_what_moved_outside_is_noticed():
    rng = np.random.default_rng(12)
    means = np.concatenate([MEANS, np.zeros((3, 36))], axis=1)
    given = references(rng, 400, means)
    moved = means.copy()
    moved[:, -1] = 1.0
    run = {
        "still": samples(rng, (0.4, 0.3, 0.3), 400, means),
        "moved": samples(rng, (0.4, 0.3, 0.3), 400, moved),
    }
    tree = measure(run, given, max_features=6, num_draws=100, progress=False)
    assert list(tree["posterior"]["feature"].to_numpy())[:3] == [
        "discriminant_1",
        "discriminant_2",
        "component_1",
    ]
    np.testing.assert_allclose(
        tree["posterior"]["weight"].mean(["chain", "draw"])[0], [0.4, 0.3, 0.3], atol=0.08
    )
    said = tree["sample_stats"]["drift_words"].to_numpy()
    assert "what the projection leaves out" in said[1]
    assert "what the projection leaves out" not in said[0]


BAD = {
    "one": (lambda r: {"math": r["math"]}, {}, "2 to 20 references; got 1"),
    "many": (lambda r: {f"t{i}": r["math"] + i for i in range(21)}, {}, "2 to 20 references; got 21"),
    "empty name": (lambda r: r | {" ": r["math"]}, {}, "named by texts that are not empty"),
    "no text": (lambda r: r | {3: r["math"]}, {}, "named by texts"),
    "one name twice": (lambda r: r | {"math ": r["math"] + 1}, {}, "different names"),
    "same samples": (lambda r: r | {"chat": r["code"]}, {}, "code and chat are the same samples"),
    "same mean": (
        lambda r: r | {"chat": 2 * r["code"].mean(0) - r["code"]},
        {},
        "code and chat have the same mean",
    ),
    "features": (lambda r: r | {"chat": r["code"][:, :2]}, {}, "the same features"),
    "a new reference too": (lambda r: r, {"new_reference": np.zeros((9, 4))}, "got a new_reference too"),
    "new task": (lambda r: r, {"new_task": "chat"}, "new_task must be one of math, code, new; got 'chat'"),
    "prior": (lambda r: r, {"weight_prior": (1.0, 2.0)}, "3 shapes of at least 1"),
    "neither along the axis": (
        lambda r: {"math": r["math"], "code": r["code"]},
        {"neither": True, "covariance": "axis"},
        "not along the axis alone",
    ),
    "neither that is no flag": (lambda r: r, {"neither": "perhaps"}, "neither must be"),
    "covariance": (lambda r: r, {"covariance": "axis"}, "covariance of three tasks or more"),
    "too few features": (
        lambda r: r,
        {"max_features": 1},
        "at least one less than there are tasks, 2; got 1",
    ),
    "missing values": (lambda r: r | {"chat": r["code"] * np.nan}, {}, "300 of the chat reference"),
    "no references": (lambda r: r["math"], {}, "an old_reference and a new_reference"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_references_are_one_sentence(case):
    change, options, said = BAD[case]
    rng = np.random.default_rng(13)
    given = references(rng)
    with pytest.raises(InputError, match=said) as caught:
        measure(samples(rng, (0.3, 0.3, 0.4), 50), change(given), progress=False, **options)
    assert len(str(caught.value).splitlines()) == 1


def test_cross_fitted_discriminants_put_references_where_other_samples_lie():
    """With 24 features of 60 samples, discriminants look better on the samples that they were learnt on."""
    rng = np.random.default_rng(14)
    means = np.concatenate([MEANS, np.zeros((3, 20))], axis=1)
    apart, z = [], []
    for _ in range(30):
        given = list(references(rng, 60, means).values())
        order = in_order(given)
        space = discriminants_of([given[k] for k in order], 64)
        true = space.coordinates(means[order])[:, :2]
        covariance = space.forward[:2] @ space.forward[:2].T
        found = np.stack([rows[:, :2].mean(axis=0) for rows in space.rows])
        within = np.mean([np.cov(rows[:, :2].T) for rows in space.rows], axis=0)
        z.append(np.linalg.solve(np.linalg.cholesky(covariance / 60), (found - true).T))
        apart.append(np.trace(np.linalg.solve(covariance, within)) / 2.0)
    # 180 standard normal pairs, and 30 ratios of variances: standard errors of 0.075 and 0.02.
    assert np.mean(np.square(z)) == pytest.approx(1.0, abs=0.35)
    assert np.mean(apart) == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
def test_nuts_agrees_with_the_fast_path(measured):
    run, given, _ = measured
    other = measure({"9": run["9"]}, given, method="nuts", num_draws=1000, progress=False)
    assert str(other["sample_stats"]["method"].item()) == "nuts"
    fast = measure({"9": run["9"]}, given, num_draws=1000, progress=False)
    for name in ("weight", "task_drift"):
        one, two = (t["posterior"][name].isel(checkpoint=0) for t in (fast, other))
        spread = two.std(["chain", "draw"])
        assert bool(
            (abs(one.mean(["chain", "draw"]) - two.mean(["chain", "draw"])) < 0.3 * spread + 0.02).all()
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["broad", "far"])
def test_nuts_agrees_with_the_fast_path_with_a_component_for_neither_task(kind):
    rng = np.random.default_rng(27)
    given = references(rng)
    run, _ = with_beyond(rng, [kind])
    fast, slow = (
        measure(run, given, neither=True, method=method, num_draws=1000, progress=False)
        for method in ("laplace", "nuts")
    )
    assert str(slow["sample_stats"]["method"].item()) == "nuts"
    for name in ("weight", "task_drift"):
        one, two = (t["posterior"][name].isel(checkpoint=0) for t in (fast, slow))
        spread = two.std(["chain", "draw"])
        assert bool(
            (abs(one.mean(["chain", "draw"]) - two.mean(["chain", "draw"])) < 0.3 * spread + 0.02).all()
        )


@pytest.mark.slow
@pytest.mark.parametrize(("num", "d"), [(3, 4), (5, 8)])
def test_intervals_hold_the_truth_as_often_as_they_say(num, d):
    covered, drift = [], []
    for world in range(24):
        rng = np.random.default_rng([num, world])
        means = rng.normal(size=(num, d))
        means *= 3.5 / np.sqrt(2.0) / np.linalg.norm(means, axis=1, keepdims=True)
        given = references(rng, 300, means, [f"t{k}" for k in range(num)])
        run, weights, lengths = {}, [], []
        for checkpoint in range(10):
            weights.append(rng.dirichlet(np.ones(num)))
            length = np.where(rng.uniform(size=num) < 0.5, rng.uniform(0.7, 1.2, size=num), 0.0)
            direction = rng.normal(size=(num, d))
            moved = length[:, None] * direction / np.linalg.norm(direction, axis=1, keepdims=True)
            run[checkpoint] = samples(rng, weights[-1], 600, means + moved)
            lengths.append(length)
        tree = measure(run, given, num_draws=400, seed=world, progress=False)
        for name, truth, kept in (("weight", weights, covered), ("task_drift", lengths, drift)):
            low, high = tree["posterior"][name].quantile([0.055, 0.945], ["chain", "draw"]).to_numpy()
            kept.append((low - 1e-9 <= truth) & (np.asarray(truth) <= high + 1e-9))
    # 240 checkpoints: a standard error of 0.31/√(240 (K-1)) were all weights independent, of 0.02 at worst.
    assert 0.84 < np.mean(covered) < 0.94
    assert np.mean(drift) > 0.84


def log_likelihoods(rng, truth, num=150):
    y = samples(rng, truth, num, MEANS[:, :2])
    return {
        name: stats.multivariate_normal(mean[:2]).logpdf(y) for name, mean in zip(NAMES, MEANS, strict=True)
    }


@pytest.mark.parametrize("truth", [(0.5, 0.2, 0.3), (0.97, 0.0, 0.03)])
def test_weights_from_scores_are_those_of_quadrature(truth):
    given = np.stack(list(log_likelihoods(np.random.default_rng(15), truth).values()), axis=1)
    shapes = np.array([1.0, 2.0, 1.5])
    found = task_weights(given, shapes, 20_000, np.random.default_rng(0))
    weights, jacobian = on_simplex(400)
    log_posterior = np.log(np.exp(given) @ weights.T).sum(axis=0) + np.log(weights) @ (shapes - 1.0)
    mass = np.exp(log_posterior - log_posterior.max()) * jacobian
    mass /= mass.sum()
    mean = mass @ weights
    sd = np.sqrt(mass @ (weights - mean) ** 2)
    assert found.k_hat < 0.5
    error = sd * np.sqrt(np.sum(found.share**2))
    assert np.all(np.abs(found.mean - mean) < 5 * error)
    assert np.all(error < 0.01 * sd)
    np.testing.assert_allclose(found.sd, sd, rtol=0.03)
    for k in range(3):
        order = np.argsort(weights[:, k])
        exact = np.interp([0.055, 0.5, 0.945], np.cumsum(mass[order]), weights[order, k])
        np.testing.assert_allclose(
            found.quantiles(np.array([0.055, 0.5, 0.945]))[:, k], exact, atol=0.05 * sd[k]
        )


def test_scores_of_several_tasks_come_by_name_or_along_a_dim():
    rng = np.random.default_rng(16)
    given = log_likelihoods(rng, (0.5, 0.2, 0.3))
    named = measure_scores(given, num_draws=1000)
    labelled = xr.DataArray(
        np.stack(list(given.values()), axis=-1), dims=("sample", "task"), coords={"task": list(NAMES)}
    )
    other = measure_scores(labelled, num_draws=1000)
    assert named["posterior"].to_dataset().identical(other["posterior"].to_dataset())
    np.testing.assert_allclose(
        named["posterior"]["old_weight"], 1.0 - named["posterior"]["weight"].sel(task="new")
    )
    assert str(named["summary"]["words"].item()) == "good"
    two = measure_scores({"new": given["new"], "old": given["math"]})
    plain = measure_scores(given["math"], given["new"])
    assert two["posterior"].to_dataset().identical(plain["posterior"].to_dataset())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: {"math": s["math"]}, "2 to 20"),
        (lambda s: s | {"code": s["code"][1:]}, "150 of math and 149 of code"),
        (lambda s: s | {"code": {"a": s["code"]}}, "the same checkpoints"),
        (lambda s: {name: one * np.nan for name, one in s.items()}, "must be numbers or -inf"),
        (lambda s: {name: one - np.inf for name, one in s.items()}, "possible under a task"),
        (lambda s: s["math"], "a mapping from tasks"),
    ],
)
def test_bad_scores_are_one_sentence(change, said):
    given = log_likelihoods(np.random.default_rng(17), (0.5, 0.2, 0.3))
    with pytest.raises(InputError, match=said) as caught:
        measure_scores(change(given))
    assert len(str(caught.value).splitlines()) == 1


def test_a_reference_that_holds_another_task_is_named():
    rng = np.random.default_rng(18)
    given = references(rng)
    given["math"][:15] = references(rng)["new"][:15]
    tree = measure(samples(rng, (0.4, 0.3, 0.3), 200), given, num_draws=100, progress=False)
    found = tree["constant_data"]["foreign_share"]
    assert float(found.sel(task="math", other_task="new")) == pytest.approx(0.05, abs=0.03)
    assert int((found > 0.0).sum()) == 1
    assert "math reference look like new" in str(tree["sample_stats"]["weight_words"].item())


def test_tasks_in_a_plane_have_no_discriminant_that_is_noise():
    """Along one, references are where ten other discriminants put them, and no checkpoint looks like them."""
    rng = np.random.default_rng(0)
    means = np.array([[0.0, 0.0, 0.0, 0.0], [4.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0], [3.0, 3.0, 0.0, 0.0]])
    given = references(rng, 300, means, ("math", "code", "chat", "new"))
    weights = (0.3, 0.2, 0.2, 0.3)
    tree = measure(samples(rng, weights, 500, means), given, num_draws=400, progress=False)
    assert tree.attrs["num_discriminants"] == 2
    assert tree.attrs["tails"] == "gaussian"
    assert str(tree["sample_stats"]["weight_words"].item()).startswith("good")
    found = tree["posterior"]["weight"].isel(checkpoint=0)
    error = np.abs(found.mean(["chain", "draw"]) - np.array(weights)) / found.std(["chain", "draw"])
    assert float(error.max()) < 4.0


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


@pytest.mark.slow
@pytest.mark.parametrize("seed", [14, 26])
def test_a_behaviour_among_the_tasks_is_measured_whatever_the_prior_bends(seed):
    """Samples of neither task between the modes: no wide scale of displacement had a posterior."""
    rng = np.random.default_rng(seed)
    means = np.array([[0.0, 0.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0], [1.5, 2.5, 0.0, 0.0]])
    references = {name: rng.normal(size=(150, 4)) + mean for name, mean in zip("abc", means, strict=True)}
    weights = rng.dirichlet([1.0, 1.0, 1.0, 1.5])
    mode = rng.choice(4, size=200, p=weights)
    spread = np.where(mode == 3, rng.choice([0.3, 2.0]), 1.0)[:, None]
    y = np.array([*means, [1.5, 1.0, 0.0, 0.0]])[mode] + rng.normal(size=(200, 4)) * spread
    tree = measure(y, references, neither=True, new_task="c", method="laplace", progress=False)
    found = tree["posterior"]["weight"].mean(["chain", "draw"]).to_numpy()[0]
    np.testing.assert_allclose(found, np.bincount(mode, minlength=4)[:3] / 200, atol=0.05)
    assert tree["sample_stats"]["words"].item().startswith("not to be trusted")
