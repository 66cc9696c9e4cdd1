"""The law of a checkpoint's samples and its anchors, against SciPy."""

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import log_density
from scipy import special, stats

from inference.measurement import anchors as anchoring
from inference.measurement import checks, curvature, law, nuts
from inference.measurement import prior as priors
from inference.measurement.law import Neither, Unknowns

KINDS = [(True, False, False), (False, False, False), (True, True, False), (False, True, True)]


def references(d=3, size=400, seed=0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d)) + 2.0 * np.eye(d)
    return rng.normal(size=(size, d)) @ mix.T, rng.normal(size=(size + 50, d)) @ mix.T + 2.0


def unknowns_at(anchors, *, neither, seed=1):
    rng = np.random.default_rng(seed)
    count, d = len(anchors.dof), anchors.means.shape[1]
    third = Neither(np.array(-1.0), rng.normal(size=d), np.array(0.4)) if neither else None
    moved = anchors.means + 0.3 * rng.normal(size=(2, d))
    return Unknowns(
        np.array(0.7), *moved, 0.1 * rng.normal(size=count), 0.1 * rng.normal(size=(count, d - 1)), third
    )


def scipy_components(anchors, unknowns):
    """Return weight and SciPy law of every component, from the precision A Aᵀ alone."""
    share, d = special.expit(unknowns.old_logit), anchors.means.shape[1]
    left = 1.0 if unknowns.neither is None else special.expit(-unknowns.neither.logit)
    parts = []
    for k, (mean, weight) in enumerate([(unknowns.old_mean, share), (unknowns.new_mean, 1.0 - share)]):
        j = min(k, len(anchors.dof) - 1)
        factor = np.exp(unknowns.log_axis[j])
        a = np.zeros((d, d))
        a[0, 0] = anchors.axis_precision[j] * factor
        a[1:, 0] = anchors.tilt[j] * factor + anchors.across[j] @ unknowns.tilt[j]
        a[1:, 1:] = anchors.across[j]
        covariance = np.linalg.inv(a @ a.T)
        if anchors.tail_dof is None:
            parts.append((left * weight, stats.multivariate_normal(mean, covariance)))
        else:
            parts.append((left * weight, stats.multivariate_t(mean, covariance, float(anchors.tail_dof))))
    if unknowns.neither is not None:
        third = unknowns.neither
        parts.append(
            (1.0 - left, stats.multivariate_normal(third.mean, np.exp(2 * third.log_scale) * np.eye(d)))
        )
    return parts


@pytest.mark.parametrize(("shared", "heavy", "neither"), KINDS)
def test_log_density_is_scipys_and_rows_add_up(shared, heavy, neither):
    _, anchors = anchoring.anchor(*references(), shared=shared, heavy_tails=heavy)
    unknowns = unknowns_at(anchors, neither=neither)
    y = np.random.default_rng(2).normal(size=(37, 3)) * 2.0
    expected = special.logsumexp(
        [np.log(w) + q.logpdf(y) for w, q in scipy_components(anchors, unknowns)], axis=0
    )
    with jax.enable_x64(True):
        np.testing.assert_allclose(law.CheckpointLaw(anchors, unknowns).log_prob(y), expected, rtol=1e-10)
        batch = jax.tree.map(lambda a: np.stack([a, a]), unknowns)
        totals = law.log_likelihoods(anchors, batch, law.rows_of(anchors, y))
        np.testing.assert_allclose(totals, np.repeat(expected.sum(), 2), rtol=1e-10)


@pytest.mark.parametrize(
    ("shared", "heavy", "neither"),
    [*(pytest.param(*kind, marks=pytest.mark.slow) for kind in KINDS[:3]), KINDS[3]],
)
def test_derivatives_are_those_of_the_density_differentiated_row_by_row(shared, heavy, neither):
    _, anchors = anchoring.anchor(*references(), shared=shared, heavy_tails=heavy)
    start = unknowns_at(anchors, neither=neither)
    y = np.random.default_rng(2).normal(size=(45, 3)) * 2.0
    with jax.enable_x64(True):
        flat, restore = ravel_pytree(start)

        def value(flat):
            return law.CheckpointLaw(anchors, restore(flat)).log_prob(y).sum()

        found = curvature.derivatives(anchors, start, law.rows_of(anchors, y))
        for ours, expected in zip(
            found, (value(flat), *(f(value)(flat) for f in (jax.grad, jax.hessian))), strict=True
        ):
            np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize(("shared", "heavy", "neither"), [KINDS[1], KINDS[3]])
@pytest.mark.parametrize("which", ["numpy", "numpyro"])
def test_samples_follow_the_density(shared, heavy, neither, which):
    # Shares of the plane's quadrants around the old mean, of SciPy's samples and ours: 5 standard errors of
    # 40,000 samples are 0.018.
    _, anchors = anchoring.anchor(*references(d=2), shared=shared, heavy_tails=heavy)
    unknowns = unknowns_at(anchors, neither=neither)
    num, rng = 40_000, np.random.default_rng(5)
    if which == "numpy":
        ours = checks.simulate(anchors, unknowns, num, rng)
    else:
        with jax.enable_x64(True):
            ours = np.asarray(law.CheckpointLaw(anchors, unknowns).sample(jax.random.key(0), (num,)))
    parts = scipy_components(anchors, unknowns)
    counts = rng.multinomial(num, [w for w, _ in parts])
    theirs = np.concatenate(
        [q.rvs(size=c, random_state=rng) for (_, q), c in zip(parts, counts, strict=True)]
    )
    for centre in (unknowns.old_mean, unknowns.new_mean):
        for direction in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]):
            for radius in (0.0, 1.0):
                shares = [np.mean((y - centre) @ direction > radius) for y in (ours, theirs)]
                assert abs(shares[0] - shares[1]) < 5.0 * np.sqrt(0.5 / num)


def test_frame_whitens_and_puts_the_references_on_its_axis():
    old, new = references()
    frame, anchors = anchoring.anchor(old, new, shared=True, heavy_tails=False)
    a, b = frame.coordinates(old), frame.coordinates(new)
    within = ((a - a.mean(0)).T @ (a - a.mean(0)) + (b - b.mean(0)).T @ (b - b.mean(0))) / (
        len(a) + len(b) - 2
    )
    np.testing.assert_allclose(within, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(b.mean(0), 0.0, atol=1e-10)
    np.testing.assert_allclose(a.mean(0)[1:], 0.0, atol=1e-10)
    assert a.mean(0)[0] > 0.0
    np.testing.assert_allclose(anchors.means, [a.mean(0), b.mean(0)], atol=1e-10)
    z = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(frame.coordinates(frame.origin + z @ frame.backward.T), z, atol=1e-10)


@pytest.mark.parametrize("dof", [3.0, 8.0])
def test_tails_and_covariances_are_chosen_from_the_references(dof):
    rng = np.random.default_rng(0)
    gauss = [rng.normal(size=(1500, 2)) for _ in "ab"]
    heavy = [rng.standard_t(dof, size=(1500, 1)) * np.ones(1) for _ in "ab"]
    assert anchoring.choose_modes(gauss[0], gauss[1] + 3.0) == (True, False)
    assert anchoring.choose_modes(gauss[0], 1.5 * gauss[1] + 3.0) == (False, False)
    assert anchoring.choose_modes(heavy[0], heavy[1] + 3.0) == (True, True)
    fitted = stats.t.fit(heavy[0][:, 0])
    ours = anchoring.fit_tail_dof(heavy[0], heavy[0] + 1.0, shared=True)
    assert ours == pytest.approx(fitted[0], rel=0.08)


@pytest.mark.slow
def test_numpyro_model_has_the_same_posterior_density():
    """Up to the Jacobian of its own coordinates, the model's density is what the fast path corrects to."""
    _, anchors = anchoring.anchor(*references(d=2), shared=True, heavy_tails=False)
    prior = priors.Prior((2.0, 3.0), 0.4)
    y = np.random.default_rng(2).normal(size=(30, 2))
    scales = np.array([[0.3, 0.2], [0.5, 0.1]])
    with jax.enable_x64(True):
        rows = law.rows_of(anchors, y)
        factors = np.stack(
            [np.linalg.cholesky(priors.mean_covariance(anchors, k, scales[k])) for k in (0, 1)]
        )

        def ours(unknowns):
            return (
                priors.log_prior(anchors, prior, unknowns, factors)
                + curvature.derivatives(anchors, unknowns, rows)[0]
            )

        def theirs(unknowns):
            share = jax.nn.sigmoid(unknowns.old_logit)
            sites = {
                "old_share": share,
                "axis_variance": scales[:, 0] ** 2,
                "across_scale": scales[:, 1],
                "old_mean": unknowns.old_mean,
                "new_mean": unknowns.new_mean,
                "axis_factor": np.exp(2.0 * unknowns.log_axis),
                "tilt": unknowns.tilt,
            }
            value = log_density(nuts.model, (anchors, prior, rows), {}, sites)[0]
            # d share / d logit, and d h² / d log h up to a constant.
            return value + np.log(share * (1.0 - share)) + 2.0 * unknowns.log_axis.sum()

        points = [
            unknowns_at(anchors, neither=False, seed=s)._replace(old_logit=np.array(s - 2.0))
            for s in range(4)
        ]
        differences = [float(ours(p) - theirs(p)) for p in points]
    np.testing.assert_allclose(differences, differences[0], rtol=1e-9)
