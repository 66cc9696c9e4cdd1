"""Training in the span of the means: its coefficients exactly, its law against that in all coordinates."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
import two_samples
from scipy import stats
from span_bugs import BUGS, planted

from inference import sweep, train
from inference.training import beside_span, span
from inference.training.loop import arithmetic
from mixture_models import InputError, MixtureLaw, TwoMode, TwoModeLearner, objectives
from mixture_models.losses.loss import law_of
from mixture_models.mixture.shifted_law import ShiftedLaw
from mixture_models.mixture.two_mode import expit
from mixture_models.objectives import parse
from mixture_models.objectives.companions import Reference

DEMONSTRATED = TwoMode.create(0.6, [0.3, 0.1, 0, 0, 0, 0], [1.8, -0.4, 0.2, 0, 0, 0], covariance=0.7)
CHOSEN = [
    *map(parse, objectives.by_default()),
    parse("reverse_kl:estimator=pathwise"),
    parse("reverse_kl:estimator=pathwise,replay=0.3"),
    parse("sdft:divergence=forward,ema=0.5"),
    parse("sdft:divergence=0.5,ema=0.5"),
    objectives.sdft(ema=0.5, demonstrations=DEMONSTRATED),
    parse("ttt_discover:eta=adaptive"),
    objectives.ttt_discover(reward="log_ratio_reward"),
    objectives.ttt_discover(reward="linear_reward"),
    parse("oapl:lag=2,group_size=3"),
]
BATCH = 6


def walk(*quick):
    """Return every objective as a parameter of a test, all but some of them in the slow tests."""
    return [pytest.param(o, id=o.name, marks=() if o.name in quick else pytest.mark.slow) for o in CHOSEN]


def mixtures(dim):
    """Return a start and a target whose means span three dimensions, or as many as there are."""
    rng = np.random.default_rng(7)
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    points = np.zeros((4, max(dim, 3)))
    points[:, :3] = [[0.1, 0.0, 0.0], [2.0, 0.0, 0.0], [0.3, 0.4, 0.0], [1.5, -0.2, 0.5]]
    old, new, start_old, start_new = points[:, :dim] @ turn
    target = TwoMode.create(0.5, old, new, covariance=0.7)
    return target.replace(old_weight=0.7, old_mean=start_old, new_mean=start_new), target


# The coefficients


def held_noise(monkeypatch):
    """Let all laws draw their modes as ever, and noise that a test sets."""
    held = {}

    def noise(law, key, shape):
        return key, held["z"] if shape else jnp.zeros(law.event_shape)

    monkeypatch.setattr(MixtureLaw, "_noise", noise)
    return held


@pytest.mark.slow
@pytest.mark.parametrize("objective", walk("sft", "reverse_kl:replay=0.3,estimator=pathwise"))
def test_coefficients_are_what_brute_force_finds(objective, monkeypatch):
    """By linearity: the gradient beside the span for the noise of one sample alone, one by one."""
    held, dim, n = held_noise(monkeypatch), 6, BATCH
    rng = np.random.default_rng(1)

    def inside(*points):
        return [np.pad(point, (0, dim - len(point))) for point in points]

    with jax.enable_x64(True):
        old, new = inside([0.1, 0.0], [2.0, 0.0])
        target = TwoMode.create(0.5, old, new, covariance=0.7)
        start = target.replace(old_weight=0.7)
        companion = dict(
            zip(("old_mean", "new_mean"), inside([0, 0.2, 0.3, 0.1], [1.8, 0, -0.1, 0.4]), strict=True)
        )
        learner = dict(zip(("old_mean", "new_mean"), inside([0.3, 0.4], [1.5, -0.2, 0.5]), strict=True))
        learner = {"old_logit": jnp.asarray(0.4)} | {k: jnp.asarray(v) for k, v in learner.items()}
        extra = {"companion": companion | {"old_logit": jnp.asarray(0.9)}} if objective.companion else {}
        law = law_of(objective.model, {}, start, target, **extra)
        divergence = objective.loss.with_samples(n)
        z = jnp.asarray(rng.normal(size=(n, dim)))

        def loss(params, shifts, beside):
            held["z"] = z.at[:, -1].set(beside)
            q = law_of(objective.guide, params, start, target)
            q = q if shifts is None else ShiftedLaw(q, shifts)
            return divergence.between(jax.random.key(3), law, q, (start, target))

        def gradient(beside):
            found = jax.grad(loss)(learner, None, beside)
            return jnp.stack([found["old_mean"], found["new_mean"]])

        noise = jnp.asarray(rng.normal(size=n))
        # Nothing beside the span, one sample's noise alone, and all noise.
        none, *alone, together = jax.jit(jax.vmap(gradient))(jnp.stack([jnp.zeros(n), *jnp.eye(n), noise]))
        one_by_one = jnp.stack(alone, axis=-1)[:, -1]
        shifts = jnp.zeros((2, n))
        params, c = jax.jit(jax.grad(loss, argnums=(0, 1)))(learner, shifts, noise)
    none, one_by_one, noise, together, c = map(np.asarray, (none, one_by_one, noise, together, c))
    size = np.abs(one_by_one).max()
    assert size > 1e-3
    assert np.abs(none[:, -1]).max() < 1e-13
    # In the span nothing depends on what is beside it; beside it the gradient is linear in it.
    assert np.allclose(together[:, :-1], none[:, :-1], rtol=0, atol=1e-12)
    assert np.allclose(together[:, -1], one_by_one @ noise, rtol=0, atol=1e-12)
    assert np.allclose(c / np.sqrt(0.7), one_by_one, rtol=0, atol=1e-12 * max(1.0, size))
    assert np.allclose(params["old_mean"], together[0], rtol=0, atol=1e-12)
    assert np.allclose(params["new_mean"], together[1], rtol=0, atol=1e-12)


# What lies beside the span


def beside(c, directions, count=20_000):
    """Return count draws of the two vectors, shape (count, 2, 2)."""
    return drawn_of(np.pad(c, ((0, 0), (0, 5 - np.shape(c)[1]))), directions)[:count]


def drawn_of(c, directions):
    """Return 20,000 draws of the vectors beside the span, shape (draw, K, K)."""
    with arithmetic():
        keys = jax.random.split(jax.random.key(5), 20_000)
        return np.asarray(drawn(keys, np.asarray(c, float), float(directions)))


drawn = jax.jit(jax.vmap(beside_span.vectors_beside, (0, None, None)))


def p_values(vectors, gram, directions):
    """Return of every factor of Bartlett's decomposition the probability of a greater KS distance."""
    w = vectors @ vectors.swapaxes(1, 2)
    slope = gram[0, 1] / gram[0, 0]
    rest = gram[1, 1] - slope * gram[0, 1]
    normal = (w[:, 0, 1] - slope * w[:, 0, 0]) / np.sqrt(w[:, 0, 0] * rest)
    first = stats.kstest(w[:, 0, 0] / gram[0, 0], stats.chi2(directions).cdf).pvalue
    across = stats.kstest(normal, stats.norm.cdf).pvalue
    if directions == 1:
        return first, across
    other = (w[:, 1, 1] - w[:, 0, 1] ** 2 / w[:, 0, 0]) / rest
    return first, across, stats.kstest(other, stats.chi2(directions - 1).cdf).pvalue


C = np.random.default_rng(2).normal(size=(2, 5)) + 0.5
GRAM = C @ C.T


@pytest.mark.parametrize("directions", [1, 2, 3, 37, 9_997])
def test_vectors_beside_the_span_are_wishart(directions):
    assert min(p_values(beside(C, directions), GRAM, directions)) > 1e-3


@pytest.mark.parametrize("directions", [3, 37])
def test_that_test_sees_bugs(directions):
    lost = np.linalg.cholesky(np.diag(np.diag(GRAM)))
    assert min(p_values(beside(lost, directions), GRAM, directions)) < 1e-12
    assert min(p_values(beside(C, directions + 1), GRAM, directions)) < 1e-12


@pytest.mark.parametrize("directions", [-2, 0])
def test_nothing_lies_beside_a_span_of_all_dimensions(directions):
    assert not beside(C, directions, 10).any()


def test_one_direction_holds_parallel_vectors():
    vectors = beside(C, 1, 1000)
    products = (vectors**2).sum(2).prod(1)
    assert np.allclose((vectors[:, 0] * vectors[:, 1]).sum(1) ** 2, products, rtol=1e-12)


@pytest.mark.parametrize("c", [[[1.0, 2.0], [2.0, 4.0]], [[0.0, 0.0], [1.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
def test_degenerate_coefficients(c):
    """Parallel or missing rows: no NaN, and second moments within five standard errors."""
    w = (vectors := beside(c, 4)) @ vectors.swapaxes(1, 2)
    gram = np.array(c) @ np.array(c).T
    error = w.std(axis=0) / np.sqrt(len(w))
    assert np.all(np.abs(w.mean(axis=0) - 4 * gram) <= 5 * error + 1e-12)


# Coordinates


@pytest.mark.parametrize("kind", ["random", "equal", "zero", "flat"])
def test_turning_keeps_inner_products(kind):
    points = np.random.default_rng(3).normal(size=(4, 6))
    if kind == "equal":
        points[2:] = points[:2]
    elif kind == "zero":
        points[1] = 0.0
    elif kind == "flat":
        points[:, 2:] = 0.0
    with arithmetic():
        turned = np.asarray(jax.jit(beside_span.lower_triangular)(jnp.asarray(points)))
        again = np.asarray(beside_span.lower_triangular(jnp.asarray(turned)))
    assert np.allclose(turned @ turned.T, points @ points.T, atol=1e-13)
    assert not np.triu(turned, 1).any()
    assert np.allclose(again, turned, atol=1e-13)


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 9])
def test_the_span_holds_all_distances(dim):
    start, target = mixtures(dim)
    inner_start, [(objective, inner_target)] = span.in_span(start, [(objectives.sdft(), target)], 12)
    assert isinstance(objective.guide, span.InSpan)
    means, inner = (
        np.stack([m.old_mean, m.new_mean, n.old_mean, n.new_mean])
        for m, n in ((start, target), (inner_start, inner_target))
    )
    assert inner.shape == (4, 5 + 2)
    assert not inner[:, -2:].any()
    for i, j in itertools.combinations(range(4), 2):
        assert np.isclose(
            np.linalg.norm(means[i] - means[j]), np.linalg.norm(inner[i] - inner[j]), atol=1e-13
        )
    assert np.allclose(inner_target.new_mean[1:], 0.0, atol=1e-13)


# The law of trainings

SETTINGS = {"num_steps": 4, "batch_size": BATCH, "learning_rate": 0.2, "record_every": 4, "progress": False}
NAMES = ("old_logit", "retention", "old_drift", "new_gap", "loss")


def ends(objective, start, target, *, seed, replicates, **changes):
    """Return what is recorded at the end, by name, of trainings that stayed finite."""
    tree = train(objective, start, target, num_replicates=replicates, seed=seed, **(SETTINGS | changes))
    final = tree["final"].to_dataset().isel(objective=0, chain=0)
    found = np.stack([final[name].to_numpy() for name in NAMES], axis=1)
    # An entropic utility has heavy tails: one training in a thousand leaves the sensible range.
    stayed = np.isfinite(found).all(axis=1)
    assert stayed.mean() > 0.995
    return found[stayed]


def compared(objective, dim, replicates, **changes):
    """Return the largest |z| and the smallest p between trainings in all coordinates and in the span."""
    start, target = mixtures(dim)
    both = [
        ends(objective, start, target, seed=seed, replicates=replicates, **(changes | extra))
        for seed, extra in ((1, {}), (2, {"dimension": dim}))
    ]
    return two_samples.compared(*both)


@pytest.mark.slow
@pytest.mark.parametrize("objective", walk("sft"))
def test_the_law_is_that_of_the_training_in_all_coordinates(objective):
    """Means, variances, covariances within five standard errors, and KS tests of variables and of pairs."""
    z, p = compared(objective, 6, 4_000)
    assert z < 5.0
    assert p > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "reverse_kl", "oapl:lag=2,group_size=3"])
def test_the_law_in_many_dimensions(name):
    z, p = compared(next(o for o in CHOSEN if o.name == name), 40, 20_000)
    assert z < 5.0
    assert p > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ["sft", "sdft"])
def test_the_law_where_the_span_is_everything_or_nearly(name, dim):
    """The span of ``sft`` has three dimensions, that of ``sdft`` five."""
    z, p = compared(parse(name), dim, 4_000)
    assert z < 5.0
    assert p > 1e-4


@pytest.mark.slow
def test_the_law_in_ten_thousand_dimensions():
    z, p = compared(parse("sft"), 10_000, 300, num_steps=2, batch_size=4, learning_rate=0.05)
    assert z < 5.0
    assert p > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("dim", [6, 40])
def test_the_comparison_sees_bugs(bug, dim, monkeypatch):
    """Its power: a covariance of the two gradients that is lost, or one direction too many.

    Steps are as large as the whole way: what lies beside the span is then most of what a step does.
    """
    with planted(bug, 1.0, monkeypatch):
        z, p = compared(parse("sft"), dim, 20_000, learning_rate=1.0, num_steps=2)
    if bug == "none":
        assert z < 5.0
        assert p > 1e-4
    else:
        assert z > 6.0
        assert p < 1e-8


# The interface


def run(objective="sft", **changes):
    start, target = mixtures(2)
    chosen = parse(objective) if isinstance(objective, str) else objective
    arguments = SETTINGS | {"num_replicates": 32, "seed": 4, "dimension": 7}
    return train(chosen, start, target, **(arguments | changes))


@pytest.mark.slow
def test_a_result_holds_what_does_not_depend_on_coordinates():
    tree = run()
    assert set(tree["trajectory"].data_vars) == {
        "old_weight", "old_logit", "retention", "old_coverage", "old_drift", "new_gap", "loss",
    }  # fmt: skip
    first = tree["trajectory"].to_dataset().isel(step=0, objective=0, chain=0, draw=0)
    start, target = mixtures(2)
    assert np.isclose(first["old_drift"], np.linalg.norm(start.old_mean - target.old_mean) / np.sqrt(0.7))
    assert np.isclose(first["old_weight"], 0.7)
    assert np.isclose(first["old_weight"], expit(first["old_logit"].to_numpy()))
    assert tree.attrs["dimension"] == 7
    assert np.array_equal(tree["constant_data"]["target_new_mean"], target.new_mean)


@pytest.mark.slow
def test_a_dimension_compiles_nothing(compilations):
    run()
    assert not compilations(lambda: run(dimension=1_000_000, learning_rate=0.01, seed=5))


@pytest.mark.slow
def test_float32_is_float64_to_within_rounding():
    exact, rounded = (run(num_steps=2, precision=p)["final"].to_dataset() for p in ("float64", "float32"))
    for name in exact.data_vars:
        error = np.abs(exact[name] - rounded[name]).max()
        assert 1e-12 < error < 1e-5, name


@pytest.mark.slow
def test_factors_hold_all_coordinates_of_a_mean():
    tree = run(learning_rate_factors={"old_mean": 0.0})
    drift = tree["trajectory"].to_dataset()["old_drift"].isel(objective=0, chain=0)
    assert np.allclose(drift, drift.isel(step=0, draw=0), rtol=1e-14)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dimension": 1}, "dimension must be at least 2; got 1"),
        ({"dimension": 2.5}, "dimension must be a whole number"),
        ({"objective": objectives.sft(learner="single_mode")}, "the learner of two modes"),
        (
            {"objective": objectives.sft(learner=TwoModeLearner(train_scales=True))},
            "the learner of two modes",
        ),
        ({"objective": objectives.oapl(reward=lambda y: y[:, 0])}, "a reward with the methods"),
        ({"optimizer": optax.adam(0.1)}, "plain SGD"),
    ],
)
def test_what_has_no_such_form_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        run(**changes)


def still(start, target, companion=None):
    """A model that knows its place by coordinates."""
    numpyro.sample("y", MixtureLaw(jnp.zeros(1), jnp.array([[2.0, 0.0]]), (jnp.ones(()),)))


class Homesick(Reference):
    """A companion that is pulled to the origin of the coordinates."""

    def after_step(self, companion, learner, step):
        """Return half of where it was."""
        return companion | {"old_mean": 0.5 * companion["old_mean"]}


@pytest.mark.parametrize(
    ("part", "changes"),
    [("the model", {"model": still}), ("the companion", {"companion": Homesick()})],
)
def test_what_knows_coordinates_is_refused(part, changes):
    objective = replace(parse("ttt_discover"), **changes)
    with pytest.raises(InputError, match=f"{part} does not: it holds coordinates of its own"):
        run(objective=objective)


@pytest.mark.parametrize(
    "changes",
    [{"covariance": [1.0, 2.0]}, {"covariance": [[1.0, 0.1], [0.1, 1.0]]}, {"new_covariance": 2.0}],
)
def test_other_covariances_are_refused(changes):
    start, target = (mixture.replace(**changes) for mixture in mixtures(2))
    with pytest.raises(InputError, match="one covariance"):
        train(parse("sft"), start, target, num_replicates=2, seed=0, dimension=9, **SETTINGS)


def test_a_matrix_that_is_a_multiple_of_the_identity_is_one():
    start, target = (m.replace(covariance=0.7 * np.eye(2)) for m in mixtures(2))
    tree = train(parse("sft"), start, target, num_replicates=32, seed=4, dimension=7, **SETTINGS)
    assert np.allclose(tree["final"]["old_drift"], run()["final"]["old_drift"], rtol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "sdft", "oapl:lag=2"])
def test_a_point_of_a_sweep_is_the_training(name, tmp_path):
    """Along an axis of dimensions, below and above the span's, and bit for bit."""
    start, target = mixtures(2)
    arguments = {k: v for k, v in SETTINGS.items() if k != "progress"} | {"num_replicates": 3, "seed": 9}
    grid = {"dimension": [2, 3, 6, 10_000], "learning_rate": [0.1, 0.2]}
    axes = {"start": start, "target": target, "store": tmp_path / "a.zarr", "progress": False}
    swept = sweep(parse(name), grid, **axes, **arguments)["final"].to_dataset().isel(objective=0)
    for dimension in grid["dimension"]:
        alone = train(parse(name), start, target, dimension=dimension, progress=False, **arguments)
        point = swept.sel({"dimension": dimension, "learning_rate": 0.2})
        for variable, values in alone["final"].to_dataset().isel(objective=0).items():
            assert np.allclose(point[variable], values, rtol=0, atol=1e-10), (variable, dimension)
