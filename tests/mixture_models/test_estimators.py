"""The estimators: one step of `train`, averaged over replicates, is the exact gradient in every parameter.

The batch is 4, so that a baseline which includes its own sample would be wrong by a factor 3/4, and the
standard error of every gradient is asserted to be under 5 % of it: a wrong sign, a factor 2, a lost weight
gradient, the other direction or the weight in the place of its logit shows at 10 standard errors or more.
"""

from functools import partial

import numpy as np
import oracles
import pytest
from jax.tree_util import Partial
from marks import mostly_slow
from numpyro.infer import Trace_ELBO, TraceGraph_ELBO
from one_step import gradients_of_one_step

from mixture_models import Objective, TwoMode, objectives, two_mode_learner
from mixture_models.objectives import true_target

BATCH, REPLICATES = 4, 20_000

MATRIX = np.array([[1.0, 0.5], [0.5, 0.8]])

OBJECTIVES = (
    "sft",
    "sft:replay=0.3",
    "reverse_kl",
    "reverse_kl:replay=0.3",
    "reverse_kl:estimator=pathwise",
    "reverse_kl:replay=0.3,estimator=pathwise",
)


def random_setting(dim, seed):
    """Return a random (learner, target): overlapping modes, both of the learner's modes displaced."""
    rng = np.random.default_rng(seed)
    covariance = 0.6 if dim == 1 else MATRIX
    root = np.sqrt(covariance) * np.eye(1) if dim == 1 else np.linalg.cholesky(MATRIX)

    def near(mean, size):
        direction = rng.normal(size=dim)
        return mean + root @ (size * direction / np.linalg.norm(direction))

    old = rng.normal(size=dim)
    new = near(old, rng.uniform(1.8, 2.6))
    target = oracles.Setting(rng.uniform(0.3, 0.5), old, new, covariance)
    learner = oracles.Setting(rng.uniform(0.6, 0.8), near(old, 0.7), near(new, 0.7), covariance)
    return learner, target


def exact_gradient(objective, learner, target):
    p, q = target.mixture(), learner.mixture()
    if objective.startswith("sft"):
        return oracles.forward_kl_gradient(q, p, replay=0.3 if "replay" in objective else 0.0)
    return oracles.reverse_kl_gradient(q, p)


def exact_divergence(objective, learner, target):
    p, q = target.mixture(), learner.mixture()
    if objective.startswith("sft"):
        return oracles.forward_kl(q, p, replay=0.3 if "replay" in objective else 0.0)
    return oracles.reverse_kl(q, p)


def one_step(objective, learner, target, *, batch=BATCH, replicates=REPLICATES):
    """Return ĝ = (θ_0 - θ_1)/η of every replicate, by parameter, and the losses at the start."""
    mixtures = TwoMode.create(*learner), TwoMode.create(*target)
    return gradients_of_one_step(objective, *mixtures, batch_size=batch, num_replicates=replicates)


def check_unbiased(gradients, exact, power=0.05):
    """Assert that every mean gradient is the exact one within 5 se, and the se a small share of its norm."""
    for name, expected in exact.items():
        mean, se = oracles.spread(gradients[name])
        z = np.max(np.abs(mean - expected) / se)
        assert z < 5.0, f"{name}: mean {mean}, exact {expected}, {z:.1f} standard errors"
        share = np.linalg.norm(se) / np.linalg.norm(expected)
        assert share < power, f"power of {name}: the standard error is {share:.1%} of the gradient"


def test_the_exact_gradients_are_the_derivatives_of_the_exact_values():
    # Oracle of the oracles: central differences, error about 1e-8.
    for dim, own in ((1, 1.5), (2, 2.0 * np.eye(2))):
        learner, target = random_setting(dim, 0)
        p = target.mixture()
        for q in (learner.mixture(), learner._replace(new_covariance=own).mixture()):
            replayed = {"target": p, "replay": 0.3}
            for exact, value in (
                (oracles.forward_kl_gradient(q, p), partial(oracles.forward_kl, target=p)),
                (oracles.forward_kl_gradient(q, **replayed), partial(oracles.forward_kl, **replayed)),
                (oracles.reverse_kl_gradient(q, p), partial(oracles.reverse_kl, target=p)),
            ):
                for name, slope in oracles.finite_difference(value, q).items():
                    np.testing.assert_allclose(exact[name], slope, atol=1e-7)


# Of the random settings these have no gradient so near zero that its sign could not be told.
@pytest.mark.parametrize(
    ("dim", "seed"),
    [(2, 1), *(pytest.param(*more, marks=pytest.mark.slow) for more in ((1, 3), (1, 11), (2, 20)))],
)
@pytest.mark.parametrize(
    "objective", mostly_slow(OBJECTIVES, "sft", "reverse_kl", "reverse_kl:replay=0.3,estimator=pathwise")
)
def test_the_mean_update_is_the_exact_gradient(objective, dim, seed):
    learner, target = random_setting(dim, seed)
    gradients, losses = one_step(objectives.parse(objective), learner, target)
    check_unbiased(gradients, exact_gradient(objective, learner, target))
    # The loss is the divergence in nats, its se under 2 % of it; a cross-entropy is larger by 1 nat or more.
    mean, se = oracles.spread(losses)
    exact = exact_divergence(objective, learner, target)
    assert abs(mean - exact) < 5.0 * se < 0.1 * exact


@pytest.mark.parametrize(("dim", "seed"), mostly_slow([(1, 3), (2, 1)], (2, 1)))
def test_the_batch_has_the_stated_size(dim, seed):
    # The loss of SFT is a mean over the batch: its deviation is that of log p/q over √4, to 2 % here.
    learner, target = random_setting(dim, seed)
    _, losses = one_step(objectives.sft(), learner, target)
    data, q = oracles.mode(target.mixture(), 1), learner.mixture()
    square = oracles.expectation(
        data, lambda y: (oracles.log_density(data, y) - oracles.log_density(q, y)) ** 2
    )
    variance = square - oracles.kl(data, q) ** 2
    assert np.var(losses) == pytest.approx(variance / BATCH, rel=0.1)


# The weight trap


def with_divergence(divergence):
    return Objective("reverse KL by NumPyro", Partial(true_target), two_mode_learner, divergence)


@pytest.mark.slow
def test_the_check_rejects_numpyros_trace_elbo_for_its_lost_weight_gradient():
    learner, target = random_setting(2, 1)
    gradients, _ = one_step(with_divergence(Trace_ELBO()), learner, target)
    exact = oracles.reverse_kl_gradient(learner.mixture(), target.mixture())
    with pytest.raises(AssertionError, match="old_logit"):
        check_unbiased(gradients, exact)
    # It is the weight alone that is lost: zero plus noise. The means would pass.
    mean, se = oracles.spread(gradients["old_logit"])
    assert abs(mean) < 5.0 * se < 0.5 * abs(exact["old_logit"])
    check_unbiased(gradients, {name: value for name, value in exact.items() if name != "old_logit"})


@pytest.mark.slow
def test_the_check_accepts_numpyros_trace_graph_elbo():
    learner, target = random_setting(2, 1)
    gradients, _ = one_step(with_divergence(TraceGraph_ELBO()), learner, target)
    check_unbiased(gradients, oracles.reverse_kl_gradient(learner.mixture(), target.mixture()))


def test_an_elbo_without_mutable_state_trains_too():
    gradients, losses = one_step(
        with_divergence(TraceGraph_ELBO()), *random_setting(2, 1), batch=8, replicates=2
    )
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert np.isfinite(losses).all()


def test_the_check_rejects_the_other_direction():
    learner, target = random_setting(2, 1)
    gradients, _ = one_step(objectives.reverse_kl(), learner, target)
    with pytest.raises(AssertionError, match="standard errors"):
        check_unbiased(gradients, oracles.forward_kl_gradient(learner.mixture(), target.mixture(), 0.4))


# More settings, slower

HARD = {
    "own matrices": (
        oracles.Setting(0.7, [0.3, -0.2], [1.4, 0.9], MATRIX, [[0.5, -0.2], [-0.2, 0.9]]),
        oracles.Setting(0.4, [0.0, 0.0], [2.0, 0.5], MATRIX, [[0.7, 0.1], [0.1, 0.4]]),
    ),
    "diagonals": (
        oracles.Setting(0.7, [0.3, -0.2], [1.4, 0.9], [0.8, 0.5]),
        oracles.Setting(0.4, [0.0, 0.0], [2.0, 0.5], [0.8, 0.5]),
    ),
    "variances of two modes": (
        oracles.Setting(0.7, [0.3], [1.4], 0.8, 0.5),
        oracles.Setting(0.4, [0.0], [2.0], 1.0, 0.49),
    ),
    "a rare old mode": (
        oracles.Setting(0.05, [0.5], [2.0], 0.7),
        oracles.Setting(0.4, [0.0], [2.5], 0.7),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_mean_update_in_more_settings(objective, case):
    learner, target = HARD[case]
    gradients, _ = one_step(objectives.parse(objective), learner, target, replicates=40_000)
    check_unbiased(gradients, exact_gradient(objective, learner, target), power=0.08)


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "replicates"), [(3, 30_000), (5, 20_000), (256, 1_000)])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_mean_update_at_other_batch_sizes(objective, batch, replicates):
    learner, target = random_setting(2, 1)
    gradients, _ = one_step(objectives.parse(objective), learner, target, batch=batch, replicates=replicates)
    check_unbiased(gradients, exact_gradient(objective, learner, target))
