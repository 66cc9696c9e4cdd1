"""Samples of prompts: the integral against quadrature, and what is measured against what was simulated."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import special, stats

from inference import measure
from inference.intervals import interval
from inference.measurement.posterior import climb, curvature, law
from inference.measurement.posterior.prior import Prior, prior_derivatives
from inference.measurement.prompts import effects, integral
from inference.measurement.prompts.effects import Effects
from inference.measurement.references import clusters
from inference.measurement.references.anchors import Kind, anchor
from inference.measurement.references.axis_shape import AxisShape
from mixture_models.validation import InputError

SHAPE = AxisShape(
    np.array([[0.0, -np.inf], np.log([0.7, 0.3])]),
    np.array([[0.0, 0.0], [-0.3, 0.7]]),
    np.array([[1.1, 1.0], [0.6, 0.9]]),
)
MEANS = np.array([2.5, 0.1])


def scores(spread, shift):
    """Return the scores of a spread σ and a shift ρ."""
    return Effects(np.array(stats.norm.isf(np.exp(-spread))), np.array(stats.norm.ppf(shift)))


def of_prompt(rng, num, spread, shift, typical=-0.5):
    """Draw samples of one prompt along the axis."""
    old = rng.uniform(size=num) < special.expit(typical + spread * rng.normal())
    component = np.where(old, 0, rng.choice(2, size=num, p=[0.7, 0.3]))
    mode = 1 - old.astype(int)
    scale = SHAPE.scale[mode, component]
    z = np.sqrt(shift) * rng.normal() + np.sqrt(1.0 - shift) * rng.normal(size=num)
    return MEANS[mode] + SHAPE.location[mode, component] + scale * z


def by_quadrature(y, logit, spread, shift, num=260):
    """Return the log-likelihood of the samples of a prompt by a dense trapezoid rule, in SciPy alone."""
    u = np.linspace(-6.5, 6.5, num)
    phis = np.linspace(-20.0, 20.0, 4001)
    means = special.expit(phis[:, None] + spread * u) @ stats.norm.pdf(u) * (u[1] - u[0])
    phi = np.interp(special.expit(logit), means, phis)
    eta = phi + spread * u
    total = stats.norm.logpdf(u)[None] + stats.norm.logpdf(u)[:, None]
    for one in y:
        modes = []
        for k in (0, 1):
            centre = MEANS[k] + SHAPE.location[k] + np.sqrt(shift) * SHAPE.scale[k] * u[:, None]
            parts = stats.norm.pdf(one, centre, np.sqrt(1.0 - shift) * SHAPE.scale[k])
            modes.append(np.log(parts @ np.exp(SHAPE.log_weight[k]) + 1e-300))
        total = total + np.logaddexp(
            modes[0][:, None] + special.log_expit(eta), modes[1][:, None] + special.log_expit(-eta)
        )
    return special.logsumexp(total) + 2.0 * np.log(u[1] - u[0])


compiled = jax.jit(integral.log_likelihood)


def value(y, prompts, logit, effects_):
    """Return the log-likelihood of samples along the axis by the rule."""
    with jax.enable_x64(True):
        point = integral.Point(SHAPE, jnp.asarray(MEANS), jnp.asarray(logit), effects_)
        return sum(float(compiled(point, piece)) for piece in integral.arrange(y, prompts).pieces)


@pytest.mark.slow
@pytest.mark.parametrize("num", [2, 5, 40])
def test_the_likelihood_of_a_prompt_is_that_of_dense_quadrature(num):
    rng = np.random.default_rng(num)
    for spread, shift in ((0.3, 0.05), (1.0, 0.3), (2.5, 0.3)):
        y = of_prompt(rng, num, spread, shift)
        got = value(y, np.zeros(num, int), -0.7, scores(spread, shift))
        assert got == pytest.approx(by_quadrature(y, -0.7, spread, shift), abs=4e-3)


def test_prompts_of_one_sample_have_the_law_without_prompts():
    y = np.random.default_rng(0).normal(size=30) * 2.0
    got = value(y, np.arange(30), 0.4, scores(1.7, 0.6))
    modes = [
        stats.norm.logpdf(y[:, None], MEANS[k] + SHAPE.location[k], SHAPE.scale[k]) + SHAPE.log_weight[k]
        for k in (0, 1)
    ]
    old, new = (special.logsumexp(mode, axis=1) for mode in modes)
    want = np.logaddexp(old + special.log_expit(0.4), new + special.log_expit(-0.4)).sum()
    assert got == pytest.approx(want, abs=1e-9)


@pytest.mark.slow
def test_a_likelihood_does_not_depend_on_how_prompts_are_arranged():
    rng = np.random.default_rng(3)
    prompts = np.repeat(np.arange(40), rng.choice([1, 2, 5, 7, 8], size=40))
    y = np.concatenate([of_prompt(rng, n, 1.0, 0.2) for n in np.bincount(prompts)])
    together = value(y, prompts, 0.0, scores(1.0, 0.2))
    alone = sum(
        value(y[prompts == p], np.zeros(np.sum(prompts == p), int), 0.0, scores(1.0, 0.2)) for p in range(40)
    )
    assert together == pytest.approx(alone, abs=1e-8)
    order = rng.permutation(len(y))
    assert value(y[order], prompts[order], 0.0, scores(1.0, 0.2)) == pytest.approx(together, abs=1e-8)


@pytest.mark.parametrize(("logit", "spread"), [(-3.0, 1.0), (0.3, 2.5), (4.0, 0.01), (-40.0, 2.0)])
def test_the_old_weight_is_the_mean_over_prompts(logit, spread):
    with jax.enable_x64(True):
        phi = float(effects.typical_logit(jnp.asarray(logit), jnp.asarray(spread)))
    u = np.linspace(-10.0, 10.0, 20_001)
    weights = stats.norm.logpdf(u) + np.log(u[1] - u[0])
    old, new = (special.logsumexp(special.log_expit(s * (phi + spread * u)) + weights) for s in (1.0, -1.0))
    assert old - new == pytest.approx(logit, abs=1e-5)


def test_scores_are_of_an_exponential_spread_and_a_uniform_shift():
    x = np.array([-1.5, 0.0, 2.0])
    np.testing.assert_allclose(effects.spread_of(x), stats.expon.ppf(stats.norm.cdf(x)), rtol=1e-9)
    np.testing.assert_allclose(effects.shift_of(x), stats.norm.cdf(x), rtol=1e-12)


def labelled(rng, old, num_prompts, num, d=3, spread=1.0, likeness=0.3, drift=0.0):
    """Draw samples of prompts and their labels; ``old`` is the typical logit."""
    codes = np.repeat(np.arange(num_prompts), num)
    share = special.expit(old + spread * rng.normal(size=num_prompts))
    is_old = rng.uniform(size=len(codes)) < share[codes]
    y = np.sqrt(1.0 - likeness) * rng.normal(size=(len(codes), d))
    y += np.sqrt(likeness) * rng.normal(size=(num_prompts, d))[codes]
    y[:, 0] += 3.5 * is_old
    y[:, 1] += drift * is_old
    return y, codes


def references_of(rng, num_prompts=40, num=8, **options):
    return [labelled(rng, sign * np.inf, num_prompts, num, spread=0.0, **options) for sign in (1.0, -1.0)]


@pytest.mark.slow
def test_derivatives_are_those_of_the_likelihood_and_the_prior():
    rng = np.random.default_rng(5)
    (old, a), (new, b) = references_of(rng)
    y, prompts = labelled(rng, 0.0, 12, 6)
    with jax.enable_x64(True):
        found = anchor(old, new, Kind("axis", False), prompts=[a, b], num_draws=2)
        one = climb.unbatched(found.central)
        start = law.start_of(one, 0.2, False)
        flat = climb.raveled(start)
        (piece,) = integral.arrange(found.frame.coordinates(y)[:, 0], prompts).pieces

        def height(flat):
            at = jax.tree.map(lambda a: a[None], climb.restored(start, flat))
            return float(curvature.derivatives(found.central, at, piece)[0][0])

        at = jax.tree.map(lambda a: a[None], start)
        _, gradient, hessian = (np.asarray(p)[0] for p in curvature.derivatives(found.central, at, piece))
        step = 1e-4
        moves = step * np.eye(len(flat))
        numeric = [(height(flat + move) - height(flat - move)) / (2 * step) for move in moves]
        # The nodes move with the unknowns here, and are held there.
        np.testing.assert_allclose(gradient, numeric, rtol=2e-2, atol=5e-2)
        assert np.all(np.linalg.eigvalsh(hessian)[:3] < 0.0)
        # What the references say of ρ peaks where it is.
        grid = np.linspace(0.01, 0.9, 200)
        likelihood = [float(one.likeness.log_likelihood(np.array(shift))) for shift in grid]
        assert grid[np.argmax(likelihood)] == pytest.approx(0.3, abs=0.12)
        batch = jax.tree.map(lambda a: np.asarray(a)[None], start)
        factors = climb.mean_factors(found.central, np.full((2, 2), 0.5))
        slope, bend = (np.asarray(p)[0] for p in prior_derivatives(one, Prior(), batch, factors))
        assert slope[-2] == pytest.approx(-float(start.prompts.spread_score))
        assert bend[-2, -2] == pytest.approx(-1.0)
        x = float(start.prompts.shift_score)
        at_x = [
            float(one.likeness.log_likelihood(np.array(stats.norm.cdf(v)))) - v * v / 2
            for v in (x - 1e-5, x + 1e-5)
        ]
        at_three = [
            float(one.likeness.log_likelihood(np.array(stats.norm.cdf(x + h)))) for h in (-1e-3, 0.0, 1e-3)
        ]
        want = (at_three[0] - 2 * at_three[1] + at_three[2]) / 1e-6 - 1.0
        assert bend[-1, -1] == pytest.approx(want, rel=1e-3)
        assert slope[-1] == pytest.approx((at_x[1] - at_x[0]) / 2e-5, rel=1e-4, abs=1e-4)


def test_the_analysis_of_variance_finds_how_alike_samples_of_a_cluster_are():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(400), 10)
    x = np.sqrt(0.3) * rng.normal(size=400)[codes] + np.sqrt(0.7) * rng.normal(size=4000)
    assert clusters.likeness_of(x[:, None], codes)[0] == pytest.approx(0.3, abs=0.04)
    # One column independent, one alike: the covariance of the sum is that of clusters.
    parts = np.column_stack([x, rng.normal(size=4000)])
    got = np.diag(clusters.sum_covariance(parts - parts.mean(0), codes, 4000 * np.eye(2))) / 4000
    np.testing.assert_allclose(got, [1.0 + 9 * 0.3, 1.0], rtol=0.25)
    weights = clusters.cluster_weights(codes, 4000, 5, rng)
    np.testing.assert_allclose(weights.mean(axis=1), 1.0)
    assert len(np.unique(weights[0])) == 400


@pytest.fixture(scope="module")
def run():
    """A run of two checkpoints, nothing moved, prompts of old weights 0.38 and 0.62 on average."""
    rng = np.random.default_rng(7)
    references = references_of(rng)
    return [labelled(rng, typical, 30, 8, spread=1.5) for typical in (-0.7, 0.7)], references


@pytest.fixture(scope="module")
def measured(run):
    samples, ((old, old_prompts), (new, new_prompts)) = run
    tables = [
        pd.DataFrame(y).assign(prompt=[f"q{p}" for p in prompts], checkpoint=step)
        for step, (y, prompts) in enumerate(samples)
    ]
    groups = {f"q{p}": "first" if p < 10 else "rest" for p in range(30)}
    return measure(
        pd.concat(tables),
        old,
        new,
        old_prompts=old_prompts,
        new_prompts=new_prompts,
        prompt_groups=groups,
        progress=False,
    )


def test_prompts_are_measured(run, measured):
    posterior, found = measured["posterior"].to_dataset(), measured["sample_stats"].to_dataset()
    assert found["num_prompts"].values.tolist() == [30, 30]
    assert found["words"].values.tolist() == ["good", "good"]
    np.testing.assert_allclose(posterior["prompt_shift"].mean(["chain", "draw"]), 0.3, atol=0.12)
    np.testing.assert_allclose(posterior["prompt_spread"].mean(["chain", "draw"]), 1.5, atol=0.8)
    weights = interval(posterior["old_weight"]).transpose("checkpoint", "ci_bound").to_numpy()
    # Thirty prompts of spread 1.5: the error of their mean alone is 0.05.
    assert np.all(np.diff(weights)[:, 0] > 2 * 1.6 * 0.04)
    u = np.linspace(-8.0, 8.0, 2001)
    draws = posterior["old_weight"]
    for step, typical in enumerate((-0.7, 0.7)):
        truth = special.expit(typical + 1.5 * u) @ stats.norm.pdf(u) / stats.norm.pdf(u).sum()
        assert abs(float(draws.sel(checkpoint=step).mean()) - truth) < 3 * float(
            draws.sel(checkpoint=step).std()
        )
    assert found["old_unmoved_probability"].values.min() > 0.5
    # The weight of a group is that of its own prompts, which the samples nearly tell.
    y, prompts = run[0][0]
    shares = posterior["group_weight"].sel(checkpoint=0)
    for name, inside in (("first", prompts < 10), ("rest", prompts >= 10)):
        assert float(shares.sel(prompt_group=name).mean()) == pytest.approx(
            float(np.mean(y[inside, 0] > 1.75)), abs=0.06
        )
        assert 0.01 < float(shares.sel(prompt_group=name).std()) < 0.06


@pytest.mark.slow
def test_ignoring_prompts_makes_intervals_too_short_and_says_so(run, measured):
    samples, ((old, _), (new, _)) = run
    ignored = measure([y for y, _ in samples], old, new, covariance="axis", progress=False)
    widths = [
        np.diff(interval(tree["posterior"]["old_weight"]).transpose("checkpoint", "ci_bound"))[:, 0]
        for tree in (ignored, measured)
    ]
    assert np.all(widths[1] > 1.3 * widths[0])
    words = ignored["sample_stats"]["words"].values[0]
    assert "not independent" in words
    assert "label them by prompts" in words


@pytest.mark.slow
def test_labels_come_in_every_form(run):
    samples, ((old, a), (new, b)) = run
    y = np.stack([y for y, _ in samples])
    prompts = np.stack([p for _, p in samples])
    labels = {"old_prompts": a, "new_prompts": b, "progress": False, "num_draws": 100, "covariance": "axis"}
    array = xr.DataArray(
        y, dims=("checkpoint", "sample", "feature"), coords={"prompt": (("checkpoint", "sample"), prompts)}
    )
    forms = [
        ((y,), {"prompts": prompts}),
        (({"0": y[0], "1": y[1]},), {"prompts": {"0": prompts[0], "1": prompts[1]}}),
        ((array,), {}),
        (({"samples": y, "prompt": prompts},), {}),
    ]
    trees = [measure(*given, old, new, **options, **labels) for given, options in forms]
    for tree in trees:
        np.testing.assert_array_equal(tree["posterior"]["old_weight"], trees[0]["posterior"]["old_weight"])
        assert "prompt_spread" in tree["posterior"]
    assert "prompt_spread" not in measure(array, old, new, prompts=False, progress=False)["posterior"]


@pytest.mark.slow
def test_prompts_that_do_not_repeat_change_no_number(run):
    samples, ((old, _), (new, _)) = run
    y = samples[0][0]
    plain = measure(y, old, new, progress=False, num_draws=100)
    distinct = measure(y, old, new, prompts=np.arange(len(y)), progress=False, num_draws=100)
    for name, variable in plain["posterior"].data_vars.items():
        np.testing.assert_array_equal(variable, distinct["posterior"][name])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompts": np.arange(7) % 2}, "checkpoint 0 must have one prompt a sample; got 7 for 240 samples"),
        ({"prompts": np.zeros(240)}, "checkpoint 0 must have at least two prompts; got one alone"),
        ({"prompts": ["a", None] * 120}, "120 have none"),
        ({"prompts": "prompt"}, "the prompts of samples must be labels, or false to ignore them"),
        ({"prompts": {"x": np.zeros(240)}}, "must be of its checkpoints 0; got those of x"),
        ({"covariance": "unequal"}, "with prompts the covariance is axis"),
        ({"neither": True}, "prompts go with the two modes alone"),
        ({"memory": 1000.0}, "with prompts every checkpoint must fit into memory"),
        ({"prompt_groups": {"nowhere": "a"}}, "prompt_groups must be of prompts of the samples"),
        ({"old_prompts": np.arange(3)}, "old_reference must have one prompt a sample; got 3 for 320 samples"),
    ],
)
def test_bad_labels_get_one_sentence(run, options, words):
    samples, ((old, _), (new, _)) = run
    y, prompts = samples[0]
    with pytest.raises(InputError, match=words):
        measure(y, old, new, **({"prompts": prompts, "progress": False} | options))


def test_tasks_by_name_take_no_prompts(run):
    samples, ((old, _), (new, _)) = run
    references = {"a": old, "b": new, "c": new + 4.0}
    with pytest.raises(InputError, match="prompts go with two references, an old and a new one; got 3"):
        measure(samples[0][0], references, prompts=samples[0][1], progress=False)


@pytest.mark.slow
def test_few_prompts_are_weak_and_copies_between_prompts_are_said(run):
    _, ((old, a), (new, b)) = run
    y, prompts = labelled(np.random.default_rng(2), 0.0, 6, 40)
    y[40:52] = y[:12]  # of another prompt
    tree = measure(y, old, new, prompts=prompts, old_prompts=a, new_prompts=b, progress=False, num_draws=100)
    words = str(tree["sample_stats"]["words"].values[0])
    assert "the samples come from 6 prompts" in words
    assert "5 % of them stand there more than once" in words


@pytest.mark.slow
def test_nuts_and_the_fast_path_agree(run):
    samples, ((old, a), (new, b)) = run
    y, prompts = samples[0]
    fast, nuts = (
        measure(y, old, new, prompts=prompts, old_prompts=a, new_prompts=b, method=method, progress=False)[
            "posterior"
        ]
        for method in ("laplace", "nuts")
    )
    for name, tolerance in (("old_weight", 0.02), ("prompt_spread", 0.2), ("prompt_shift", 0.03)):
        assert float(fast[name].mean()) == pytest.approx(float(nuts[name].mean()), abs=tolerance)
        assert float(fast[name].std()) == pytest.approx(float(nuts[name].std()), rel=0.25)


@pytest.mark.slow
def test_intervals_of_new_prompts_hold_the_truth():
    from benchmarks.calibration_prompts import Setting, measured

    frame = pd.concat([measured(Setting(1.0, 0.3, 30, 8), number) for number in range(12)])
    held = frame.groupby("modelled")["weight_held"].mean()
    # The standard error of 48 is 0.045; ignored prompts give 0.6.
    assert held[True] > 0.89 - 3 * 0.045
    assert held[False] < 0.8
