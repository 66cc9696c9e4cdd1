"""The law of a Gaussian mixture: density, fast gradient, sampling, strata, and NumPyro's interface."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import oracles
import pytest
from numpyro import handlers
from numpyro.infer import Predictive
from numpyro.infer.util import log_density
from scipy.special import expit

from mixture_models import MixtureLaw, TwoMode
from mixture_models.mixture.law import log_add

#: A scale of every structure in 1-D and 2-D: its array, and its dense square root.
TRIANGLE = np.array([[1.3, 0.0], [-0.7, 0.6]])
SCALES = {
    "0": (np.asarray(0.8), 0.8 * np.eye(2)),
    "1": (np.array([1.3, 0.5]), np.diag([1.3, 0.5])),
    "2": (TRIANGLE, TRIANGLE),
}
WEIGHTS = {1: [1.0], 2: [0.3, 0.7], 3: [0.2, 0.5, 0.3]}
MEANS = np.array([[0.0, 0.4], [1.5, -1.0], [-2.0, 0.3]])

#: (number of modes, structures of the scales): shared and own, all ranks, and ranks mixed.
CASES = [(1, ("2",)), (2, ("0",)), (2, ("1",)), (2, ("2",)), (3, ("2",))]
CASES += [(2, ("2", "2")), (2, ("0", "2")), (3, ("1", "2", "0"))]


def case_name(case):
    return f"{case[0]} modes, scales {','.join(case[1])}"


def parts(case):
    """Return log weights, means, scales (distinct where own) and the same law for the oracles."""
    k, names = case
    grown = [1.0 + 0.4 * j for j in range(len(names))]
    scales = tuple(g * SCALES[name][0] for g, name in zip(grown, names, strict=True))
    roots = [g * SCALES[name][1] for g, name in zip(grown, names, strict=True)]
    covariances = np.stack([roots[j % len(roots)] @ roots[j % len(roots)].T for j in range(k)])
    exact = oracles.Mixture(np.array(WEIGHTS[k]), MEANS[:k], covariances)
    return np.log(WEIGHTS[k]), MEANS[:k], scales, exact


def law_of(exact, **kwargs):
    """Return the law of an oracle's mixture, every mode with its own matrix."""
    scales = [np.linalg.cholesky(c) for c in exact.covariances]
    return MixtureLaw(np.log(exact.weights), exact.means, scales, **kwargs)


# Density


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_log_prob_is_scipys(case, x64):
    *arguments, exact = parts(case)
    y = 3.0 * np.random.default_rng(0).normal(size=(3, 20, 2))
    ours = MixtureLaw(*arguments).log_prob(y)
    assert ours.dtype == jnp.float64
    assert ours.shape == (3, 20)
    np.testing.assert_allclose(ours, oracles.log_density(exact, y), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", [CASES[3], CASES[-1]], ids=case_name)
def test_log_prob_and_gradient_in_far_tails(case, x64):
    # Every density underflows there: e^-5000.
    *arguments, exact = parts(case)
    y = 100.0 * np.array([[1.0, 0.3], [-1.0, 1.0], [0.2, -1.0]])
    np.testing.assert_allclose(MixtureLaw(*arguments).log_prob(y), oracles.log_density(exact, y), rtol=1e-12)
    gradients = jax.grad(lambda p: MixtureLaw(*p).weighted_log_prob(y, jnp.ones(3)))(tuple(arguments))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


def test_one_dimension(x64):
    exact = oracles.two_modes(0.2, -1.0, 2.0, 0.5, 3.0)
    y = np.linspace(-40.0, 40.0, 101)[:, None]
    ours = MixtureLaw(np.log([0.2, 0.8]), [[-1.0], [2.0]], [np.sqrt(0.5), np.sqrt([3.0])]).log_prob(y)
    np.testing.assert_allclose(ours, oracles.log_density(exact, y), rtol=1e-12)


@pytest.mark.parametrize("weights", [[1.0, 0.0], [0.0, 1.0], [0.4, 0.0, 0.6], [0.0, 0.0, 1.0]])
def test_a_mode_of_weight_zero_is_left_out(weights, x64):
    k = len(weights)
    with np.errstate(divide="ignore"):
        logs = np.log(weights)
    y = np.random.default_rng(0).normal(size=(10, 2))
    kept = np.flatnonzero(weights)
    exact = oracles.Mixture(np.array(weights)[kept], MEANS[kept], np.stack([np.eye(2)] * len(kept)))
    law = MixtureLaw(logs, MEANS[:k], [np.ones(())])
    np.testing.assert_allclose(law.log_prob(y), oracles.log_density(exact, y), rtol=1e-12)
    by_mean = jax.grad(lambda m: MixtureLaw(logs, m, [np.ones(())]).weighted_log_prob(y, jnp.ones(10)))
    gradient = np.asarray(by_mean(jnp.asarray(MEANS[:k])))
    assert np.all(np.isfinite(gradient))
    assert np.all(gradient[[j for j in range(k) if j not in kept]] == 0.0)
    sharp = far_apart(weights, [np.eye(2)] * k)
    drawn = MixtureLaw(logs, sharp.means, [np.ones(())]).sample(jax.random.key(0), (2000,))
    assert set(modes_of(drawn, sharp)) == set(kept)


def test_log_add_and_its_gradient(x64):
    # The smaller term is kept relatively: log(e⁰ + e^-x) = log1p(e^-x), down to the smallest numbers.
    x = np.concatenate([np.linspace(0.0, 3.0, 301), np.linspace(3.0, 700.0, 201)])
    both = jax.jit(jax.vmap(jax.value_and_grad(log_add, argnums=(0, 1))))
    for swap in (False, True):
        value, gradient = both(*((-x, 0.0 * x) if swap else (0.0 * x, -x)))
        np.testing.assert_allclose(value, np.log1p(np.exp(-x)), rtol=4e-15)
        small, large = (gradient[0], gradient[1]) if swap else (gradient[1], gradient[0])
        np.testing.assert_allclose(small, expit(-x), rtol=4e-15)
        np.testing.assert_allclose(large, expit(x), rtol=4e-15)


def test_log_add_of_nothing(x64):
    inf = jnp.inf
    for a, b, expected in ((-inf, -inf, -inf), (-inf, 1.5, 1.5), (1.5, -inf, 1.5)):
        value, gradient = jax.value_and_grad(log_add, argnums=(0, 1))(a, b)
        assert float(value) == expected
        assert np.all(np.isfinite(gradient))


# The fast gradient


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_weighted_log_prob_has_the_gradient_of_the_weighted_sum(case, x64):
    # Oracle: automatic differentiation of log_prob, itself checked against SciPy above.
    log_weights, means, scales, _ = parts(case)
    arguments = jax.tree.map(jnp.asarray, (log_weights, means, scales))
    rng = np.random.default_rng(1)
    # Weights of both signs, like advantages, and samples outside the modes too.
    y, c = 2.0 * rng.normal(size=(40, 2)), rng.normal(size=40)

    def plain(p):
        return jnp.sum(c * MixtureLaw(*p).log_prob(y))

    def fast(p):
        return 3.0 * MixtureLaw(*p).weighted_log_prob(y, c)

    value, gradient = jax.jit(jax.value_and_grad(plain))(arguments)
    fast_value, fast_gradient = jax.jit(jax.value_and_grad(fast))(arguments)
    assert float(fast_value) == pytest.approx(3.0 * float(value), rel=1e-12)
    for ours, exact in zip(jax.tree.leaves(fast_gradient), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(ours, 3.0 * exact, rtol=1e-10, atol=1e-10)
        assert np.any(np.asarray(ours) != 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_attributed_is_nothing_with_the_gradient_of_its_parts(case, x64):
    # Oracle: automatic differentiation of the weighted densities of the modes; shares that are no law's own.
    log_weights, means, scales, _ = parts(case)
    arguments = jax.tree.map(jnp.asarray, (log_weights, means, scales))
    rng = np.random.default_rng(1)
    y, c = 2.0 * rng.normal(size=(43, 2)), rng.normal(size=(len(log_weights), 43))

    def plain(p):
        joint = MixtureLaw(*p).joint_log_probs(y)
        return sum(jnp.sum(c_k * joint_k) for c_k, joint_k in zip(c, joint, strict=True))

    attributed = jax.value_and_grad(lambda p: 3.0 * MixtureLaw(*p).attributed(y, list(c)))
    value, gradient = jax.jit(attributed)(arguments)
    assert float(value) == 0.0
    expected = jax.jit(jax.grad(plain))(arguments)
    for ours, exact in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, 3.0 * exact, rtol=1e-10, atol=1e-10)
        assert np.any(np.asarray(ours) != 0.0)
    joint = np.stack(MixtureLaw(*arguments).joint_log_probs(y))
    np.testing.assert_allclose(np.logaddexp.reduce(joint), MixtureLaw(*arguments).log_prob(y), rtol=1e-12)


def test_the_gradient_in_the_mixtures_own_parameters(x64):
    # Oracle: the analytic score summed over samples, in (φ, m_o, m_n).
    setting = oracles.Setting(0.3, np.array([0.0, 0.5]), np.array([2.0, -1.0]), TRIANGLE @ TRIANGLE.T)
    y = np.random.default_rng(2).normal(size=(30, 2))
    built = jax.tree.map(jnp.asarray, TwoMode.create(*setting))
    gradient = jax.grad(lambda m: m.law().weighted_log_prob(y, jnp.ones(30)))(built)
    exact = oracles.named(oracles.score(setting.mixture(), y).sum(axis=1))
    for name, expected in exact.items():
        np.testing.assert_allclose(getattr(gradient, name), expected, rtol=1e-10)


def test_samples_and_weights_get_no_gradient_from_weighted_log_prob(x64):
    law = law_of(oracles.two_modes(0.3, [0.0, 0.0], [2.0, 0.0]))
    y, c = jnp.ones((4, 2)), jnp.ones(4)
    by_y, by_c = jax.grad(lambda y, c: law.weighted_log_prob(y, c), argnums=(0, 1))(y, c)
    assert not np.any(by_y)
    assert not np.any(by_c)


# Sampling. 2e5 samples: a mode frequency's se is 0.001, a mean's 0.002-0.004, so that one part in a
# hundred of a weight, a mean or a scale shows at 5 se or more where a test needs it.

SAMPLES = 200_000


def far_apart(weights, covariances):
    k = len(weights)
    means = np.array([[0.0, 0.0], [60.0, 10.0], [-50.0, 40.0]])[:k]
    return oracles.Mixture(np.array(weights), means, np.asarray(covariances))


def modes_of(y, exact):
    return np.argmin(np.linalg.norm(np.asarray(y)[:, None] - exact.means, axis=-1), axis=1)


@pytest.mark.parametrize("weights", [[0.3, 0.7], [0.2, 0.5, 0.3]], ids=str)
def test_sampled_frequencies_and_moments(weights):
    roots = [TRIANGLE, np.diag([0.4, 2.0]), 0.7 * np.eye(2)][: len(weights)]
    exact = far_apart(weights, [root @ root.T for root in roots])
    law = MixtureLaw(np.log(weights), exact.means, roots)
    y = np.asarray(law.sample(jax.random.key(4), (SAMPLES,)), np.float64)
    labels = modes_of(y, exact)
    for k, weight in enumerate(weights):
        se = np.sqrt(weight * (1.0 - weight) / SAMPLES)
        assert abs(np.mean(labels == k) - weight) < 5.0 * se
        u = y[labels == k] - exact.means[k]
        mean, se = oracles.spread(u)
        assert np.all(np.abs(mean) < 5.0 * se + 1e-5)
        products = u[:, :, None] * u[:, None, :]
        second, se = oracles.spread(products)
        assert np.all(np.abs(second - exact.covariances[k]) < 5.0 * se + 1e-4)
        assert np.all(se < 0.02 * np.sqrt(np.outer(*[np.diag(exact.covariances[k])] * 2)))  # power


def test_the_mode_is_independent_of_the_noise_and_of_its_neighbour():
    # A mode drawn once a batch, or from the same bits as the noise, would show at hundreds of se.
    exact = far_apart([0.5, 0.5], [np.eye(2)] * 2)
    y = np.asarray(law_of(exact).sample(jax.random.key(5), (SAMPLES,)), np.float64)
    labels = modes_of(y, exact)
    u = y - exact.means[labels]
    sign = 2.0 * labels - 1.0
    for other in (u[:, 0], u[:, 1], u[:, 0] * u[:, 1], np.roll(sign, 1), np.roll(u[:, 0], 1)):
        assert abs(np.mean(sign * other)) < 5.0 / np.sqrt(SAMPLES)
    assert abs(np.mean(u[:, 0] * np.roll(u[:, 1], 1))) < 5.0 / np.sqrt(SAMPLES)


@pytest.mark.parametrize(("logit", "old_share"), [(-700.0, 0.0), (-60.0, 0.0), (60.0, 1.0), (700.0, 1.0)])
def test_extreme_weights_draw_one_mode_only(logit, old_share):
    law = TwoMode.create(None, 0.0, 100.0, old_logit=logit).law()
    y = law.sample(jax.random.key(0), (SAMPLES,))
    assert np.mean(np.asarray(y) < 50.0) == old_share
    assert np.all(np.isfinite(law.log_prob(y)))


@pytest.mark.slow
@pytest.mark.parametrize("x64_enabled", [False, True])
@pytest.mark.parametrize("flip", [1.0, -1.0], ids=["rare old", "rare new"])
def test_a_rare_mode_keeps_its_frequency(flip, x64_enabled):
    # Weight 5e-6, 4e6 draws: 20 expected, Poisson; a 16-bit index would give 0 or 61.
    weight, draws = 5e-6, 4_000_000
    with jax.enable_x64(x64_enabled):
        law = TwoMode.create(None, 0.0, 100.0, old_logit=flip * np.log(weight / (1.0 - weight))).law()
        y = jax.jit(lambda key: law.sample(key, (draws,))[:, 0] < 50.0)(jax.random.key(1))
        count = int(jnp.sum(y if flip > 0 else ~y))
    assert abs(count - weight * draws) < 5.0 * np.sqrt(weight * draws) - 3.0  # 1 to 39


def test_a_sample_shape_of_any_rank_draws_one_mode_a_sample():
    law = law_of(far_apart([0.5, 0.5], [np.eye(2)] * 2))
    assert law.sample(jax.random.key(0)).shape == (2,)
    y = np.asarray(law.sample(jax.random.key(0), (50, 40)))
    assert y.shape == (50, 40, 2)
    old = y[..., 0] < 30.0
    assert 0.4 < old.mean() < 0.6
    assert old.mean(axis=0).std() > 0.0
    assert np.all((old.mean(axis=1) > 0.0) & (old.mean(axis=1) < 1.0))


def test_equal_keys_give_equal_noise_whatever_the_law(x64):
    key, shape = jax.random.key(7), (500,)
    z = MixtureLaw([0.0], [[0.0, 0.0]], [np.ones(())]).sample(key, shape)

    # e^-200: a mode that is never drawn.
    for log_weights, kept in (([0.0], 0), ([0.0, -200.0], 0), ([-200.0, 0.0], 1), ([-200.0, 0.0, -200.0], 1)):
        law = MixtureLaw(log_weights, MEANS[: len(log_weights)], [TRIANGLE])
        noise = np.linalg.solve(TRIANGLE, (np.asarray(law.sample(key, shape)) - MEANS[kept]).T).T
        np.testing.assert_allclose(noise, z, atol=1e-12)


def test_equal_keys_give_nested_modes_as_a_weight_grows():
    # Common random numbers: raising the old weight turns samples old, and none new.
    key = jax.random.key(8)
    old = []
    for weight in (0.2, 0.5, 0.8):
        y = TwoMode.create(weight, 0.0, 100.0).law().sample(key, (2000,))
        old.append(np.asarray(y)[:, 0] < 50.0)
    assert np.all(old[1] >= old[0])
    assert np.all(old[2] >= old[1])
    assert 0.15 < old[0].mean() < 0.25 < 0.75 < old[2].mean() < 0.85


def test_different_keys_give_different_samples():
    law = law_of(oracles.two_modes(0.5, [0.0, 0.0], [3.0, 0.0]))
    one, two = (np.asarray(law.sample(jax.random.key(seed), (100,))) for seed in (0, 1))
    assert not np.any(one == two)


@pytest.mark.slow
def test_precision_follows_the_parameters():
    exact = oracles.two_modes(0.5, [0.0, 0.0], [3.0, 0.0])
    assert law_of(exact).sample(jax.random.key(0), (3,)).dtype == jnp.float32
    with jax.enable_x64(True):
        law = law_of(exact)
        assert law.sample(jax.random.key(0), (3,)).dtype == jnp.float64
        assert law.strata(jax.random.key(0), 4)[0].dtype == jnp.float64


# Strata

FUNCTION_CASES = {
    "two modes, 7 samples": (oracles.two_modes(0.3, [0.0, 0.4], [1.5, -1.0], TRIANGLE @ TRIANGLE.T), 7),
    "two scales, 4 samples": (oracles.two_modes(0.7, [0.0, 0.4], [1.5, 2.5], 0.5, [2.0, 0.3]), 4),
}


def curved(y, xp):
    """A function that is neither even nor odd about any mode."""
    return xp.sin(y[..., 0]) + 0.3 * y[..., 0] * y[..., 1] + 0.2 * y[..., 1] ** 2


@pytest.mark.slow
@pytest.mark.parametrize("case", FUNCTION_CASES)
def test_strata_are_unbiased_in_value_and_pathwise_gradient(case, x64):
    # Oracle: dense grid and its finite differences. 5e4 batches: se under 2 % of the gradient's norm.
    exact, n = FUNCTION_CASES[case]
    own = not np.array_equal(*exact.covariances)
    start = TwoMode.create(
        exact.weights[0], *exact.means, exact.covariances[0], exact.covariances[1] if own else None
    )

    def estimate(mixture, key):
        y, share = mixture.law().strata(key, n)
        return jnp.sum(share * curved(y, jnp))

    keys = jax.random.split(jax.random.key(0), 50_000)
    both = jax.jit(jax.vmap(jax.value_and_grad(estimate), in_axes=(None, 0)))
    values, gradients = both(jax.tree.map(jnp.asarray, start), keys)

    def integral(mixture):
        return float(oracles.expectation(mixture, partial(curved, xp=np)))

    mean, se = oracles.spread(np.asarray(values))
    assert abs(mean - integral(exact)) < 5.0 * se
    for name, expected in oracles.finite_difference(integral, exact).items():
        mean, se = oracles.spread(np.asarray(getattr(gradients, name)))
        assert np.all(np.abs(mean - expected) < 5.0 * se), name
        assert np.linalg.norm(se) < 0.02 * np.linalg.norm(expected), name


@pytest.mark.parametrize(("k", "n"), [(1, 5), (2, 2), (2, 7), (3, 4), (3, 9)])
def test_strata_shares_sum_to_one_and_cover_every_mode(k, n, x64):
    exact = far_apart(WEIGHTS[k], [np.eye(2)] * k)
    y, share = law_of(exact).strata(jax.random.key(0), n)
    assert y.shape == (n, 2)
    assert share.shape == (n,)
    labels = modes_of(y, exact)
    by_mode = [np.asarray(share)[labels == j].sum() for j in range(k)]
    np.testing.assert_allclose(by_mode, WEIGHTS[k], rtol=1e-12)
    counts = np.bincount(labels, minlength=k)
    assert counts.max() - counts.min() <= 1


# NumPyro


def program():
    return numpyro.sample("y", law_of(oracles.two_modes(0.5, [0.0, 0.0], [50.0, 0.0])))


def test_handlers_see_a_plain_sample_site():
    site = handlers.trace(handlers.seed(program, 0)).get_trace()["y"]
    assert site["value"].shape == (2,)
    assert isinstance(site["fn"], MixtureLaw)
    held = handlers.trace(handlers.condition(program, {"y": jnp.array([1.0, 2.0])})).get_trace()["y"]
    np.testing.assert_array_equal(held["value"], [1.0, 2.0])
    assert site["fn"].event_shape == (2,)
    assert site["fn"].batch_shape == ()
    assert site["fn"].shape((3,)) == (3, 2)


def test_predictive_draws_a_mode_a_sample():
    y = Predictive(program, num_samples=400)(jax.random.key(0))["y"]
    assert y.shape == (400, 2)
    assert 0.3 < np.mean(np.asarray(y)[:, 0] < 25.0) < 0.7


def test_a_plate_draws_a_mode_a_sample():
    def batch():
        with numpyro.plate("n", 400):
            numpyro.sample("y", law_of(oracles.two_modes(0.5, [0.0, 0.0], [50.0, 0.0])))

    y = handlers.trace(handlers.seed(batch, 0)).get_trace()["y"]["value"]
    assert y.shape == (400, 2)
    assert 0.3 < np.mean(np.asarray(y)[:, 0] < 25.0) < 0.7


def test_log_prob_in_a_plain_numpyro_model(x64):
    exact = oracles.two_modes(0.3, [0.0, 0.0], [2.0, 1.0])
    y = np.random.default_rng(0).normal(size=(6, 2))

    def model(samples):
        shift = numpyro.sample("shift", numpyro.distributions.Normal(0.0, 2.0))
        with numpyro.plate("n", 6):
            numpyro.sample("y", law_of(exact._replace(means=exact.means)), obs=samples - shift)

    value, _ = log_density(model, (y,), {}, {"shift": 0.7})
    prior = -0.5 * (0.7 / 2.0) ** 2 - np.log(2.0) - 0.5 * np.log(2.0 * np.pi)
    assert float(value) == pytest.approx(prior + oracles.log_density(exact, y - 0.7).sum(), rel=1e-12)


@pytest.mark.slow
def test_laws_are_pytrees_and_batch_by_vmap(x64):
    y = np.array([0.3, -0.2])
    weights = np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]])
    laws = jax.vmap(lambda w: MixtureLaw(jnp.log(w), MEANS[:2], [TRIANGLE]))(weights)
    ours = jax.jit(jax.vmap(lambda law: law.log_prob(y)))(laws)
    cov = TRIANGLE @ TRIANGLE.T
    expected = [oracles.log_density(oracles.two_modes(w[0], *MEANS[:2], cov), y[None])[0] for w in weights]
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.vmap(lambda law, key: law.sample(key, (5,)))(laws, keys)
    assert together.shape == (3, 5, 2)


def test_argument_validation_can_be_switched_on():
    law = law_of(oracles.two_modes(0.3, [0.0, 0.0], [2.0, 1.0]), validate_args=True)
    assert np.isfinite(law.log_prob(jnp.zeros(2)))
    with pytest.raises(ValueError, match="means"):
        MixtureLaw(
            np.log([0.3, 0.7]), np.array([[0.0, np.nan], [1.0, 1.0]]), [np.ones(())], validate_args=True
        )
