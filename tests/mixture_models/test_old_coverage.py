"""Old coverage against numerical integration and samples, in 1, 2 and 5 dimensions, and in every engine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import MATRIX, OTHER
from scipy import integrate
from scipy.stats import multivariate_normal, norm

from inference import gradient_flow, population_descent, train
from inference.training.span import in_span
from mixture_models import MixtureLaw, SingleModeLearner, TwoMode, TwoModeLearner, objectives
from mixture_models.metrics import old_coverage, two_mode_metrics
from mixture_models.objectives.companions import params_at

pytestmark = pytest.mark.usefixtures("x64")


@jax.jit
def covered(learner, target):
    return old_coverage(learner.law(), target)


@jax.jit
def reported(guide, params, start, target):
    return guide.metrics(params, start, target)["old_coverage"]


def modes_of(mixture, covariance, other=None):
    """Return the frozen normal laws of both modes."""
    covariances = (covariance, covariance if other is None else other)
    return [
        multivariate_normal(m, c)
        for m, c in zip((mixture.old_mean, mixture.new_mean), covariances, strict=True)
    ]


def projected(own, target_modes, weights, inner):
    """Return c_o of the least squares of Σ w_k q_k on the target's modes, by given integrals of products.

    Every density has length 1, and the weights of the fit are found by solving the normal equations.
    """
    length = {id(p): np.sqrt(inner(p, p)) for p in (*own, *target_modes)}

    def cosine(p, q):
        return inner(p, q) / (length[id(p)] * length[id(q)])

    gram = np.array([[cosine(p, q) for q in target_modes] for p in target_modes])
    right = np.array([sum(w * cosine(q, p) for w, q in zip(weights, own, strict=True)) for p in target_modes])
    return np.linalg.solve(gram, right)[0]


def integral_on_the_line(p, q):
    return integrate.quad(lambda y: p.pdf(y) * q.pdf(y), -14.0, 16.0, limit=400, epsabs=1e-13)[0]


@pytest.mark.parametrize(
    ("weight", "old", "new", "variances"),
    [
        (0.5, 0.0, 3.0, (1.0, 1.0)),
        (0.3, 0.7, 2.0, (1.0, 1.0)),
        (0.6, 3.0, 0.0, (1.0, 1.0)),  # the labels are swapped
        (0.2, -2.5, 5.5, (1.0, 1.0)),
        (0.4, 0.5, 2.5, (0.3, 2.4)),  # widths of its own
    ],
)
def test_in_one_dimension_it_is_the_least_squares_fit_by_quadrature(weight, old, new, variances):
    target = TwoMode.create(0.5, 0.0, 3.0)
    learner = TwoMode.create(weight, old, new, variances[0], variances[1])
    own = [norm(old, variances[0] ** 0.5), norm(new, variances[1] ** 0.5)]
    exact = projected(own, [norm(0.0), norm(3.0)], (weight, 1.0 - weight), integral_on_the_line)
    assert float(covered(learner, target)) == pytest.approx(exact, abs=1e-10)


@pytest.mark.parametrize(("own", "own_new"), [(MATRIX, None), (OTHER, None), (MATRIX, OTHER)])
@pytest.mark.parametrize("target_new", [None, 0.5 * MATRIX + 0.2 * np.eye(2)])
def test_in_a_plane_it_is_the_least_squares_fit_on_a_grid(own, own_new, target_new):
    target = TwoMode.create(0.4, [0.0, 0.0], [3.0, 1.0], MATRIX, target_new)
    learner = TwoMode.create(0.7, [0.3, -0.6], [2.0, 1.2], own, own_new)
    axis = np.linspace(-13.0, 16.0, 291)
    points = np.stack(np.meshgrid(axis, axis), axis=-1)

    def inner(p, q):
        return np.sum(p.pdf(points) * q.pdf(points)) * (axis[1] - axis[0]) ** 2

    own_modes, target_modes = modes_of(learner, own, own_new), modes_of(target, MATRIX, target_new)
    exact = projected(own_modes, target_modes, (0.7, 0.3), inner)
    assert float(covered(learner, target)) == pytest.approx(exact, abs=1e-9)


def test_in_five_dimensions_it_is_the_least_squares_fit_of_samples():
    """Power: the standard error is below 0.01; without the new mode's part 0.07 would be added."""
    rng = np.random.default_rng(0)
    root = np.eye(5) + 0.2 * rng.normal(size=(5, 5))
    covariance = root @ root.T
    apart = root @ np.array([2.2, 0.3, 0.0, 0.0, 0.0])
    target = TwoMode.create(0.5, np.zeros(5), apart, covariance)
    learner = TwoMode.create(
        0.6, root @ np.array([0.4, 0.7, 0.0, 0.3, 0.0]), apart + 0.2 * root[:, 1], covariance
    )
    own, wanted = modes_of(learner, covariance), modes_of(target, covariance)
    found = []
    for _ in range(10):
        draws = {id(p): p.rvs(10_000, random_state=rng) for p in (*own, *wanted)}

        def inner(p, q, draws=draws):
            return np.mean(q.pdf(draws[id(p)]))

        found.append(projected(own, wanted, (0.6, 0.4), inner))
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert error < 0.01
    assert abs(float(covered(learner, target)) - np.mean(found)) < 5.0 * error


@pytest.mark.parametrize("separation", [0.3, 1.0, 4.0, 12.0])
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_it_is_the_weight_at_right_means_and_0_where_old_behaviour_is_gone(separation, dim):
    axis = np.eye(dim)[0]
    target = TwoMode.create(0.5, 0.0 * axis, separation * axis)
    for weight in (1e-9, 0.3, 0.5, 1.0 - 1e-9):
        assert float(covered(target.replace(old_weight=weight), target)) == pytest.approx(weight, rel=1e-9)
    walked = target.replace(old_weight=0.9, old_mean=target.new_mean)
    assert float(covered(walked, target)) == pytest.approx(0.0, abs=1e-12)
    for direction in np.concatenate([np.eye(dim), -np.eye(dim)]):
        away = target.replace(old_mean=1e3 * direction)
        assert float(covered(away, target)) == 0.0
        # From far away nothing comes back as NaN, nor from the other mode.
        assert float(covered(away.replace(new_mean=-1e200 * direction), target)) == 0.0


@pytest.mark.slow
def test_what_retention_does_not_see_beside_the_axis():
    target = TwoMode.create(0.5, [0.0, 0.0], [4.0, 0.0])
    beside = jax.jit(two_mode_metrics)(target.replace(old_mean=[0.0, 1000.0]), target)
    assert float(beside["retention"]) == pytest.approx(0.5, abs=1e-9)
    assert float(beside["old_coverage"]) == 0.0


def test_it_falls_with_every_step_away_and_is_affine_invariant():
    target = TwoMode.create(0.5, [0.0, 0.0], [4.0, 0.0])
    falls = [float(covered(target.replace(old_mean=[0.0, x]), target)) for x in np.linspace(0.0, 6.0, 13)]
    assert np.all(np.diff(falls) < 0.0)
    root = np.linalg.cholesky(MATRIX)
    moved = TwoMode.create(0.5, [1.0, 2.0], root @ [4.0, 0.0] + [1.0, 2.0], MATRIX)
    learner = moved.replace(old_mean=root @ [0.0, 3.0] + [1.0, 2.0])
    assert float(covered(learner, moved)) == pytest.approx(falls[6], rel=1e-12)


def test_its_gradient_is_that_of_finite_differences():
    target = TwoMode.create(0.5, [0.0, 0.0], [3.0, 0.0])

    def value(flat):
        return covered(TwoMode(flat[0], flat[1:3], flat[3:5], target.scale), target)

    at = jnp.array([0.3, 0.4, -0.5, 2.6, 0.8])
    slopes = [(value(at + 1e-6 * e) - value(at - 1e-6 * e)) / 2e-6 for e in jnp.eye(5)]
    np.testing.assert_allclose(jax.grad(value)(at), jnp.stack(slopes), atol=1e-9)


def test_a_mode_of_another_width_covers_less():
    target = TwoMode.create(0.5, [0.0] * 3, [5.0, 0.0, 0.0])
    widths = [0.01, 0.5, 1.0, 2.0, 100.0]
    law = [MixtureLaw(jnp.zeros(1), jnp.zeros((1, 3)), (jnp.asarray(w),)) for w in widths]
    found = [float(old_coverage(one, target)) for one in law]
    assert found[2] == pytest.approx(1.0, abs=1e-12)
    assert found[0] < found[1] < found[2] > found[3] > found[4] >= 0.0


# In every engine

SETTINGS = {
    "num_steps": 50,
    "batch_size": 8,
    "learning_rate": 0.1,
    "num_replicates": 4,
    "seed": 0,
    "progress": False,
}


@pytest.mark.slow
def test_every_engine_reports_it_of_its_own_params():
    target = TwoMode.create(0.5, [0.0, 0.0], [3.0, 0.0], covariance=1.5)
    start = target.replace(old_weight=0.8, new_mean=[2.0, 0.5])
    trees = {
        "train": train(objectives.sft(), start, target, **SETTINGS)["final"],
        "flow": gradient_flow(objectives.sft(), start, target, times=[1.0, 3.0])["population"],
        "descent": population_descent(objectives.sft(), start, target, num_steps=50, learning_rate=0.1)[
            "population"
        ],
    }
    for tree in trees.values():
        data = tree.to_dataset()
        assert data["old_coverage"].attrs["units"] == "1"
        last = {
            n: data[n].values.reshape(-1, *data[n].shape[data[n].ndim - k :])[-1]
            for n, k in (("old_logit", 0), ("old_mean", 1), ("new_mean", 1), ("old_coverage", 0))
        }
        learner = TwoMode(last["old_logit"], last["old_mean"], last["new_mean"], target.scale)
        assert last["old_coverage"] == pytest.approx(float(covered(learner, target)), rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [4, 10**6])
def test_in_the_span_it_is_that_of_the_whole_space(dimension):
    target = TwoMode.create(0.5, [0.1, 0.0, -0.3, 0.2], [2.0, 1.5, 0.0, -0.5], covariance=1.5)
    start = target.replace(old_weight=0.8, old_mean=[0.4, -0.7, 0.5, 0.9], new_mean=[1.5, 1.0, 1.0, -0.2])
    begin, [(objective, end)] = in_span(start, [(objectives.sft(), target)], dimension)
    found = float(reported(objective.guide, params_at(objective.guide, begin, end), begin, end))
    assert found == pytest.approx(float(covered(start, target)), rel=1e-12)


@pytest.mark.slow
def test_in_the_span_it_has_the_law_of_the_whole_space():
    """Power: means of 200 trainings differ by less than 5 errors, about 0.01 of 0.6."""
    target = TwoMode.create(0.5, [0.0, 0.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0])
    start = target.replace(old_weight=0.8)
    settings = SETTINGS | {"num_replicates": 200, "batch_size": 4, "num_steps": 30, "learning_rate": 0.3}
    whole, spanned = (
        train(objectives.sft(replay=0.5), start, target, **settings | {"seed": seed}, dimension=dimension)[
            "final"
        ]["old_coverage"].values.ravel()
        for seed, dimension in ((1, None), (2, 4))
    )
    error = np.sqrt(whole.var() / 200 + spanned.var() / 200)
    assert error < 0.02
    assert abs(whole.mean() - spanned.mean()) < 5.0 * error


@pytest.mark.parametrize("learner", [SingleModeLearner(), TwoModeLearner(train_scales=True)])
def test_learners_with_scales_of_their_own_report_it_by_quadrature(learner):
    target, start = TwoMode.create(0.5, 0.0, 3.0), TwoMode.create(0.3, 0.4, 2.5, 1.7)
    own, weights = [norm(0.4, 0.8), norm(2.5, 0.8)], (0.3, 0.7)
    if isinstance(learner, SingleModeLearner):
        own, weights = own[:1], (1.0,)
    params = params_at(learner, start, target) | {"scale": jnp.asarray(0.8)}
    exact = projected(own, [norm(0.0), norm(3.0)], weights, integral_on_the_line)
    assert float(reported(learner, params, start, target)) == pytest.approx(exact, abs=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("learner", [SingleModeLearner(), TwoModeLearner(train_scales=True)])
def test_learners_with_scales_of_their_own_report_it_when_trained(learner):
    target = TwoMode.create(0.5, 0.0, 3.0)
    tree = train(objectives.sft(replay=0.5, learner=learner), target, target, **SETTINGS)
    assert np.all(np.isfinite(tree["final"]["old_coverage"]))
