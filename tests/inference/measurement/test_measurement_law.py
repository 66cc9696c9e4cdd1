"""The law of a checkpoint's samples and its anchors, against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import log_density
from scipy import special, stats

from inference import measure
from inference.measurement.posterior import across, climb, curvature, law, nuts
from inference.measurement.posterior import prior as priors
from inference.measurement.posterior.choice import choose_kind
from inference.measurement.posterior.law import Neither, Unknowns
from inference.measurement.references import anchors as anchoring
from inference.measurement.references.anchors import Kind
from inference.measurement.references.axis_shape import fit_axis_shape
from inference.measurement.references.contamination import contamination_of
from inference.measurement.references.moments import fit_tail_dof
from inference.measurement.verdict import checks

KINDS = [
    ("shared", False, False),
    ("unequal", False, False),
    ("shared", True, False),
    ("unequal", True, True),
    ("proportional", False, False),
    ("axis", False, True),
]


def references(d=3, size=400, seed=0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d)) + 2.0 * np.eye(d)
    # The old reference has two clusters, so that its shape along the axis has two components.
    apart = np.where(rng.uniform(size=(size, 1)) < 0.4, 1.5, -1.0) * np.ones(d)
    return (rng.normal(size=(size, d)) + apart) @ mix.T, rng.normal(size=(size + 50, d)) @ mix.T + 8.0


def anchored(covariance, heavy, d=3):
    """Return one draw of the anchors."""
    found = anchoring.anchor(*references(d), Kind(covariance, heavy))
    return jax.tree.map(lambda a: a[4], found.draws)


def samples_for(anchors, num):
    return np.random.default_rng(2).normal(size=(num, anchors.means.shape[1])) * 2.0


def unknowns_at(anchors, *, neither, seed=1):
    rng = np.random.default_rng(seed)
    count, d = len(anchors.tilt_dof), anchors.means.shape[1]
    third = Neither(np.array(-1.0), rng.normal(size=d), np.array(0.4)) if neither else None
    moved = anchors.means + 0.3 * rng.normal(size=(2, d))
    return Unknowns(np.array(0.7), *moved, 0.1 * rng.normal(size=(count, d - 1)), third)


def batched(one, *axes):
    return jax.tree.map(lambda a: np.reshape(a, (*axes, *np.shape(a))), one)


def scipy_components(anchors, unknowns):
    """Return weight and SciPy law of every component, from the precision A Aᵀ alone.

    A mode with a shape along the axis is several Gaussians, each with its own place and width along A's first
    column.
    """
    share, d = special.expit(unknowns.old_logit), anchors.means.shape[1]
    left = 1.0 if unknowns.neither is None else special.expit(-unknowns.neither.logit)
    parts = []
    for k, (mean, weight) in enumerate([(unknowns.old_mean, share), (unknowns.new_mean, 1.0 - share)]):
        j, t = min(k, len(anchors.axis_precision) - 1), min(k, len(anchors.tilt_dof) - 1)
        a = np.zeros((d, d))
        a[0, 0] = anchors.axis_precision[j]
        a[1:, 0] = anchors.tilt[j] + anchors.across[j] @ unknowns.tilt[t]
        a[1:, 1:] = anchors.across[j]
        if anchors.shape is None:
            covariance = np.linalg.inv(a @ a.T)
            if anchors.tail_dof is None:
                parts.append((left * weight, stats.multivariate_normal(mean, covariance)))
            else:
                parts.append((left * weight, stats.multivariate_t(mean, covariance, float(anchors.tail_dof))))
            continue
        for c, log_weight in enumerate(anchors.shape.log_weight[k]):
            if np.isfinite(log_weight):
                scaled = a.copy()
                scaled[:, 0] /= anchors.shape.scale[k, c]
                centre = mean + np.eye(d)[0] * anchors.shape.location[k, c] / anchors.axis_precision[j]
                component = stats.multivariate_normal(centre, np.linalg.inv(scaled @ scaled.T))
                parts.append((left * weight * np.exp(log_weight), component))
    if unknowns.neither is not None:
        third = unknowns.neither
        parts.append(
            (1.0 - left, stats.multivariate_normal(third.mean, np.exp(2 * third.log_scale) * np.eye(d)))
        )
    return parts


@pytest.mark.parametrize(("covariance", "heavy", "neither"), KINDS)
def test_log_density_is_scipys_and_rows_add_up(covariance, heavy, neither):
    anchors = anchored(covariance, heavy)
    unknowns = unknowns_at(anchors, neither=neither)
    y = samples_for(anchors, 37)
    expected = special.logsumexp(
        [np.log(w) + q.logpdf(y).reshape(-1) for w, q in scipy_components(anchors, unknowns)], axis=0
    )
    squares = law.Squares.of_rows(anchors, y)
    with jax.enable_x64(True):
        np.testing.assert_allclose(law.row_log_likelihood(anchors, unknowns, squares), expected, rtol=1e-10)
        found = law.CheckpointLaw(anchors, unknowns).log_prob(jnp.asarray(y))
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        twice = jax.tree.map(lambda a: np.stack([a, a])[None], unknowns)
        totals = law.log_likelihoods(batched(anchors, 1), twice, law.rows_of(y))
        np.testing.assert_allclose(totals, np.full((1, 2), expected.sum()), rtol=1e-10)


@pytest.mark.parametrize(
    ("covariance", "heavy", "neither"),
    [*(pytest.param(*kind, marks=pytest.mark.slow) for kind in (*KINDS[:3], KINDS[5])), KINDS[3]],
)
def test_derivatives_are_those_of_the_density_differentiated_row_by_row(covariance, heavy, neither):
    anchors = anchored(covariance, heavy)
    start = unknowns_at(anchors, neither=neither)
    y = samples_for(anchors, 45)
    with jax.enable_x64(True):
        flat, restore = ravel_pytree(jax.tree.map(jnp.asarray, start))
        on_device = jax.tree.map(jnp.asarray, anchors)

        def value(flat):
            return law.CheckpointLaw(on_device, restore(flat)).log_prob(jnp.asarray(y)).sum()

        found = curvature.derivatives(batched(anchors, 1), batched(start, 1), law.rows_of(y))
        for ours, expected in zip(
            found,
            jax.jit(lambda flat: (value(flat), jax.grad(value)(flat), jax.hessian(value)(flat)))(flat),
            strict=True,
        ):
            np.testing.assert_allclose(ours[0], expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("neither", [False, True])
def test_the_priors_derivatives_are_its_differences(neither):
    anchors = anchored("unequal", False)
    prior, rng = priors.Prior((2.0, 3.0), 0.4), np.random.default_rng(3)
    start = unknowns_at(anchors, neither=neither)
    flat = climb.raveled(start)
    scales = np.array([[0.3, 0.2], [0.5, 0.1]])
    factors = climb.mean_factors(batched(anchors, 1), scales)

    def value(flat):
        return priors.log_prior(anchors, prior, climb.restored(start, flat), factors)

    gradient, hessian = priors.prior_derivatives(anchors, prior, climb.restored(start, flat[None]), factors)
    for _ in range(3):
        direction = 1e-4 * rng.normal(size=flat.size)
        both = value(flat + direction), value(flat - direction)
        assert both[0] - both[1] == pytest.approx(2.0 * gradient[0] @ direction, rel=1e-5)
        second = both[0] + both[1] - 2.0 * value(flat)
        assert second == pytest.approx(direction @ hessian[0] @ direction, rel=1e-3)


def test_what_is_predicted_is_the_references_moved_and_mixed():
    """Moments of 40,000 predicted samples are those of the references at the fitted places and weight."""
    found = anchoring.anchor(*references(), Kind("axis", False))
    rng = np.random.default_rng(1)
    one = Unknowns(np.array(0.7), *(found.means + 0.3 * rng.normal(size=(2, 3))), np.zeros((1, 0)))
    draws = checks.Draws(batched(one, 1, 1), np.zeros((1, 1, 2, 2)), 0.0, 1.0)
    y = np.concatenate(
        [checks.simulate(found, draws, (0, 0), 400, np.random.default_rng(s)) for s in range(100)]
    )
    share = special.expit(0.7)
    widen = (848 / (848 - 4)) ** 0.5
    expected = share * one.old_mean + (1.0 - share) * one.new_mean
    np.testing.assert_allclose(y.mean(axis=0), expected, atol=0.05)
    far = [
        widen**2 * reference.var(axis=0) + (mean - expected) ** 2
        for reference, mean in ((found.old, one.old_mean), (found.new, one.new_mean))
    ]
    np.testing.assert_allclose(y.var(axis=0), share * far[0] + (1.0 - share) * far[1], rtol=0.03)


def test_frame_whitens_and_puts_the_references_on_its_axis():
    old, new = references()
    found = anchoring.anchor(old, new, Kind("shared", False))
    a, b, frame = found.old, found.new, found.frame
    within = ((a - a.mean(0)).T @ (a - a.mean(0)) + (b - b.mean(0)).T @ (b - b.mean(0))) / (
        len(a) + len(b) - 2
    )
    np.testing.assert_allclose(within, np.eye(3), atol=1e-2)
    np.testing.assert_allclose(b.mean(0), 0.0, atol=1e-10)
    np.testing.assert_allclose(a.mean(0)[1:], 0.0, atol=1e-10)
    assert a.mean(0)[0] > 0.0
    np.testing.assert_allclose(found.means, [a.mean(0), b.mean(0)], atol=1e-10)
    z = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(frame.coordinates(frame.origin + z @ frame.backward.T), z, atol=1e-10)
    np.testing.assert_allclose(np.sort(frame.coordinates(old)[:, 0]), a[:, 0], atol=1e-10)


@pytest.mark.parametrize("covariance", ["shared", "axis", "proportional", "unequal"])
def test_no_affine_map_of_the_features_and_no_order_of_rows_changes_what_references_say(covariance):
    old, new = references()
    rng = np.random.default_rng(9)
    mix, origin = rng.normal(size=(3, 3)), rng.normal(size=3)
    kind = Kind(covariance, False)
    found = [
        anchoring.anchor(old, new, kind),
        anchoring.anchor(rng.permutation(old) @ mix.T + origin, rng.permutation(new) @ mix.T + origin, kind),
    ]
    for a, b in zip(jax.tree.leaves(found[0].draws), jax.tree.leaves(found[1].draws), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-7)


def test_the_draws_have_the_moments_of_the_covariances_posterior():
    """Precisions of 4,000 draws: unbiased, with the Wishart's variance, along the axis and across it."""
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(80, 3)), 1.5 * rng.normal(size=(90, 3)) + 3.0
    found = anchoring.anchor(old, new, Kind("unequal", False), num_draws=4000)
    for mode, size in enumerate((80, 90)):
        dof = size - 1.0
        central = found.central
        ratio = (found.draws.axis_precision[:, mode] / central.axis_precision[0, mode]) ** 2
        # κ² dof is chi-squared with dof - d + 1 degrees of freedom; its centre stands at the mean.
        assert ratio.mean() == pytest.approx(1.0, abs=5.0 * np.sqrt(2.0 / (dof - 2.0) / 4000))
        assert ratio.var() == pytest.approx(2.0 / (dof - 2.0), rel=0.15)
        b = found.draws.across[:, mode]
        mean = np.mean(b @ np.swapaxes(b, 1, 2), axis=0)
        expected = central.across[0, mode] @ central.across[0, mode].T
        np.testing.assert_allclose(mean, expected, atol=0.02 * np.abs(expected).max())
        spread = np.var((b @ np.swapaxes(b, 1, 2))[:, 0, 0]) / expected[0, 0] ** 2
        assert spread == pytest.approx(2.0 / (dof - 3.0), rel=0.15)


@pytest.mark.parametrize(
    ("draw", "log_density_of", "most"),
    [
        (lambda r, n: r.normal(size=n), stats.norm.logpdf, 0.003),
        (lambda r, n: r.standard_t(4, n), stats.t(4).logpdf, 0.015),
        (
            lambda r, n: np.exp(0.4 * r.normal(size=n)) - np.exp(0.08),
            lambda s: stats.lognorm(0.4).logpdf(s + np.exp(0.08)),
            0.015,
        ),
        (
            lambda r, n: np.where(r.uniform(size=n) < 0.3, -2.0, 6.0 / 7.0) + 0.6 * r.normal(size=n),
            lambda s: np.log(0.3 * stats.norm(-2.0, 0.6).pdf(s) + 0.7 * stats.norm(6 / 7, 0.6).pdf(s)),
            0.01,
        ),
    ],
)
def test_a_shape_along_the_axis_is_that_of_its_samples(draw, log_density_of, most):
    """The Kullback-Leibler divergence of the truth from a fit to 2,000 samples [nat]; the mean is 0."""
    rng = np.random.default_rng(0)
    x = draw(rng, 2000)
    shape = fit_axis_shape([x - x.mean()] * 2, [np.ones((1, 2000))] * 2)
    one = type(shape)(*(part[0] for part in shape))
    fresh = draw(rng, 200_000)
    assert np.mean(log_density_of(fresh) - law.log_density(one, 0, fresh)) < most
    assert np.sum(np.exp(one.log_weight[0]) * one.location[0]) == pytest.approx(0.0, abs=1e-10)


def test_means_across_the_axis_are_the_regressions_and_their_posterior_its_closed_form():
    """Against SciPy's normal law: estimate and covariance of known responsibilities, and 20,000 draws."""
    rng = np.random.default_rng(3)
    found = anchoring.anchor(*references(d=3, size=300), Kind("axis", False))
    anchors = jax.tree.map(lambda a: a[0], found.draws)
    unknowns = Unknowns(np.array(0.2), found.means[0, :1] + 0.2, found.means[1, :1] - 0.1, np.zeros((1, 0)))
    y = np.concatenate(
        [found.old[::2] + np.array([0.2, 0.5, 0.0]), found.new[::2] - np.array([0.1, 0.0, 0.3])]
    )
    got = across.estimate(found, [(anchors, unknowns)] * 2, [law.rows_of(y)])
    logs = law.log_densities(
        anchors,
        law.Settled.of(unknowns),
        law.coordinates(anchors, unknowns, law.Squares.of_rows(anchors, y[:, :1])),
    )
    r = special.softmax(np.stack(logs), axis=0).T
    pulled = y[:, 1:] - sum(
        r[:, [k]] * (y[:, [0]] - mean) * found.slopes[k]
        for k, mean in enumerate((unknowns.old_mean, unknowns.new_mean))
    )
    fitted, *_ = np.linalg.lstsq(r, pulled, rcond=None)
    np.testing.assert_allclose(got.means[0], fitted, rtol=1e-5)
    # The covariance of a linear estimate of independent rows, row by row.
    linear = np.linalg.pinv(r)
    apart = fitted[0] - fitted[1]
    expected = np.zeros((2, 2, 2, 2))
    for i, (old, new) in enumerate(r):
        noise = old * found.residuals[0] + new * found.residuals[1] + old * new * np.outer(apart, apart)
        expected += np.einsum("a,b,pq->apbq", linear[:, i], linear[:, i], noise)
    np.testing.assert_allclose(got.covariances[0], expected, rtol=1e-4, atol=1e-8)
    scales = np.array([0.3, 0.0])
    drawn = across.draw_means(
        found.means[:, 1:],
        found.mean_covariances[:, 1:, 1:],
        got,
        np.zeros(20_000, int),
        np.tile(scales, (20_000, 1)),
        rng,
    )
    prior = np.zeros((4, 4))
    for k in (0, 1):
        place = slice(2 * k, 2 * k + 2)
        prior[place, place] = found.mean_covariances[k, 1:, 1:] + scales[k] ** 2 * np.eye(2)
    gain = prior @ np.linalg.inv(prior + expected.reshape(4, 4))
    mean = found.means[:, 1:].ravel()
    mean = mean + gain @ (fitted.ravel() - mean)
    covariance = prior - gain @ prior
    flat = drawn.reshape(-1, 4)
    # 5 standard errors of a mean, and of a variance.
    assert np.all(np.abs(flat.mean(axis=0) - mean) < 5.0 * np.sqrt(np.diag(covariance) / 20_000))
    np.testing.assert_allclose(flat.var(axis=0), np.diag(covariance), rtol=0.05)


@pytest.mark.slow
def test_what_has_moved_across_the_axis_alone_has_moved():
    """Half a Mahalanobis across, 0 along, 8 of its standard errors: seen whatever the kind of modes."""
    rng, apart = np.random.default_rng(4), np.array([4.0, 0.0, 0.0])
    old, new = rng.normal(size=(800, 3)), apart + rng.normal(size=(800, 3))
    moved = np.array([0.0, 0.5, 0.0]) + rng.normal(size=(500, 3))
    y = np.concatenate([moved, apart + rng.normal(size=(500, 3))])
    for covariance in ("axis", "shared"):
        tree = measure(y, old, new, covariance=covariance, tails="gaussian", progress=False, num_draws=400)
        found = tree["sample_stats"].isel(checkpoint=0)
        assert float(found["old_unmoved_probability"]) < 0.01
        assert float(found["new_unmoved_probability"]) > 0.5
        assert float(tree["posterior"]["old_drift"].mean()) == pytest.approx(0.5, abs=0.15)


@pytest.mark.slow
def test_nuts_along_the_axis_keeps_what_is_across_it():
    """A drift of 0.8 across the axis alone, 200 samples: mean and deviation of drift as the fast path's."""
    rng, apart = np.random.default_rng(0), np.array([4.0, 0.0, 0.0])
    moved = np.array([0.0, 0.8, 0.0]) + rng.normal(size=(100, 3))
    y = np.concatenate([moved, apart + rng.normal(size=(100, 3))])
    old, new = rng.normal(size=(300, 3)), apart + rng.normal(size=(300, 3))
    kind = {"covariance": "axis", "tails": "gaussian", "num_draws": 400, "progress": False}
    drifts = [measure(y, old, new, method=m, **kind)["posterior"]["old_drift"] for m in ("laplace", "nuts")]
    means, sds = ([float(value) for value in (f(drifts[0]), f(drifts[1]))] for f in (np.mean, np.std))
    assert means[1] == pytest.approx(means[0], abs=5.0 * sds[0] / 10.0)
    assert sds[1] == pytest.approx(sds[0], rel=0.3)


@pytest.mark.slow
def test_a_reference_that_holds_some_of_the_other_task_is_noticed():
    """5 % of 500 samples, 3 apart, ten times; and not once where there are none, however skewed."""
    shares = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        old, new = rng.normal(size=(500, 4)), rng.normal(size=(500, 4)) + 1.5
        clean = contamination_of(anchoring.anchor(old, new, Kind("axis", False), num_draws=0))
        old[:25] += 1.5
        mixed = contamination_of(anchoring.anchor(old, new, Kind("axis", False), num_draws=0))
        skewed = np.exp(0.4 * rng.normal(size=(500, 4)))
        other = contamination_of(anchoring.anchor(skewed, new + 2.0, Kind("axis", False), num_draws=0))
        assert clean == (0.0, 0.0)
        assert mixed.new == 0.0
        shares.append((mixed.old, other.old))
    found = np.array(shares)
    assert np.mean(found[:, 0] > 0.0) >= 0.8
    assert found[:, 0].mean() == pytest.approx(0.05, abs=0.02)
    assert np.mean(found[:, 1] > 0.0) <= 0.3


@pytest.mark.parametrize("dof", [3.0, 8.0])
def test_tails_are_fitted_to_the_references(dof):
    rng = np.random.default_rng(0)
    heavy = rng.standard_t(dof, size=(1500, 1))
    fitted = stats.t.fit(heavy[:, 0])
    assert fit_tail_dof([heavy, heavy + 1.0], shared=True) == pytest.approx(fitted[0], rel=0.08)


def test_the_kind_of_modes_is_chosen_by_held_out_references():
    rng = np.random.default_rng(0)
    gauss = [rng.normal(size=(1500, 4)) for _ in "ab"]
    skewed = [np.exp(0.6 * rng.normal(size=(1500, 4))) for _ in "ab"]
    # Close together, but each wide where the other is narrow.
    turned = rng.normal(size=(1500, 4)) * [0.3, 4.0, 4.0, 0.3]
    assert choose_kind(gauss[0], gauss[1] + 1.5, "auto", "auto") == ("axis", False)
    assert choose_kind(gauss[0], 2.5 * gauss[1] + 1.5, "auto", "auto") == ("proportional", False)
    assert choose_kind(gauss[0], turned + 0.5, "auto", "auto").covariance == "unequal"
    assert choose_kind(skewed[0], skewed[1] + 1.5, "auto", "auto").covariance == "axis"
    assert choose_kind(gauss[0], gauss[1] + 1.5, "shared", "student") == ("shared", True)


@pytest.mark.slow
def test_numpyro_model_has_the_same_posterior_density():
    """Up to the Jacobian of its own coordinates, the model's density is what the fast path corrects to."""
    anchors = anchored("unequal", False, d=2)
    prior = priors.Prior((2.0, 3.0), 0.4)
    y = np.random.default_rng(2).normal(size=(30, 2))
    scales = np.array([[0.3, 0.2], [0.5, 0.1]])
    with jax.enable_x64(True):
        rows = law.rows_of(y)
        factors = climb.mean_factors(batched(anchors, 1), scales)

        def ours(unknowns):
            likelihood = law.row_log_likelihood(anchors, unknowns, law.Squares.of_rows(anchors, y)).sum()
            return priors.log_prior(anchors, prior, unknowns, factors) + likelihood

        def theirs(unknowns):
            share = special.expit(unknowns.old_logit)
            sites = {
                "old_share": share,
                "axis_variance": scales[:, 0] ** 2,
                "across_scale": scales[:, 1],
                "old_mean": unknowns.old_mean,
                "new_mean": unknowns.new_mean,
                "tilt": unknowns.tilt,
            }
            given = (jax.tree.map(jnp.asarray, anchors), prior, rows, np.ones(2))
            # d share / d logit.
            return log_density(nuts.model, given, {}, sites)[0] + np.log(share * (1.0 - share))

        points = [
            unknowns_at(anchors, neither=False, seed=s)._replace(old_logit=np.array(s - 2.0))
            for s in range(4)
        ]
        differences = [float(ours(p) - theirs(p)) for p in points]
    np.testing.assert_allclose(differences, differences[0], rtol=1e-9)
