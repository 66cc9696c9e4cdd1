"""The population's value and gradient against brute-force integration, and in many dimensions.

Oracles: dense grids in 1-D and 2-D (`oracles`), whose own error is below 1e-10; in many dimensions the same
modes in their plane. A wrong sign, factor, direction or share is off by order 1 against a tolerance of 1e-8.
"""

import jax
import numpy as np
import oracles
import pytest

from inference import Parameters, population_value_and_grad
from mixture_models import InputError, TwoMode, objectives

OBJECTIVES = ("sft", "sft:replay=0.3", "reverse_kl", "reverse_kl:replay=0.3", "reverse_kl:estimator=pathwise")


def random_setting(dim, seed, separation=None):
    """Return a random (learner, target), all parameters of the learner displaced."""
    rng = np.random.default_rng(seed)
    root = np.tril(rng.normal(size=(dim, dim))) + 1.5 * np.eye(dim)
    covariance = root @ root.T
    root = np.linalg.cholesky(covariance)

    def step(size):
        direction = rng.normal(size=dim)
        return root @ (size * direction / np.linalg.norm(direction))

    old = rng.normal(size=dim)
    new = old + step(separation or rng.uniform(0.5, 6.0))
    target = oracles.Setting(rng.uniform(0.1, 0.9), old, new, covariance)
    learner = oracles.Setting(rng.uniform(0.1, 0.9), old + step(0.7), new + step(0.7), covariance)
    return learner, target


def exact(objective, learner, target):
    q, p = learner.mixture(), target.mixture()
    replay = 0.3 if "0.3" in objective else 0.0
    if objective.startswith("sft"):
        return oracles.forward_kl(q, p, replay), oracles.forward_kl_gradient(q, p, replay)
    return oracles.reverse_kl(q, p), oracles.reverse_kl_gradient(q, p)


def flat(gradient):
    return np.concatenate([np.ravel(gradient[name]) for name in Parameters._fields])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("dim", "seed"), [(1, 0), (1, 1), (1, 2), (2, 3), (2, 4)])
def test_value_and_gradient_are_the_integrals(objective, dim, seed):
    learner, target = random_setting(dim, seed)
    chosen = objectives.parse(objective)
    value, gradient = population_value_and_grad(chosen, TwoMode.create(*learner), TwoMode.create(*target))
    exact_value, exact_gradient = exact(objective, learner, target)
    assert value == pytest.approx(exact_value, rel=1e-8)
    wanted = flat(exact_gradient)
    assert np.linalg.norm(flat(gradient._asdict()) - wanted) <= 1e-8 * np.linalg.norm(wanted)


@pytest.mark.parametrize("separation", [0.1, 1.0, 1.99, 2.01, 4.0, 8.0, 12.0])
@pytest.mark.parametrize("weight", [1e-6, 0.3, 1.0 - 1e-6])
@pytest.mark.parametrize("objective", ["sft", "reverse_kl"])
def test_all_separations_and_weights(objective, separation, weight):
    target = oracles.Setting(0.4, np.zeros(1), np.array([separation]))
    learner = oracles.Setting(weight, np.array([0.2]), np.array([separation + 0.3]))
    chosen = objectives.parse(objective)
    value, gradient = population_value_and_grad(chosen, TwoMode.create(*learner), TwoMode.create(*target))
    exact_value, exact_gradient = exact(objective, learner, target)
    assert value == pytest.approx(exact_value, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(flat(gradient._asdict()), flat(exact_gradient), rtol=1e-8, atol=1e-12)


def test_the_caller_need_not_enable_float64():
    assert not jax.config.jax_enable_x64
    learner, target = (TwoMode.create(*setting) for setting in random_setting(1, 5))
    _, gradient = population_value_and_grad(objectives.sft(), learner, target)
    assert all(entry.dtype == np.float64 for entry in gradient)


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES[:3])
def test_many_dimensions_are_the_plane_of_the_means(objective):
    """A random rotation and covariance in d = 300 give the numbers of the reduced problem."""
    dim = 300
    (w, old, new), (alpha, target_old, target_new) = (setting[:3] for setting in random_setting(2, 6))
    old, new, target_old, target_new = (
        [*mean, *np.zeros(dim - 2)] for mean in (old, new, target_old, target_new)
    )
    rng = np.random.default_rng(7)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    root = np.tril(rng.normal(size=(dim, dim))) / np.sqrt(dim) + np.diag(rng.uniform(1.0, 2.0, dim))
    place = root @ rotation
    chosen = objectives.parse(objective)
    small = [TwoMode.create(w, old[:2], new[:2]), TwoMode.create(alpha, target_old[:2], target_new[:2])]
    covariance = root @ root.T
    large = [
        TwoMode.create(w, place @ old, place @ new, covariance),
        TwoMode.create(alpha, place @ target_old, place @ target_new, covariance),
    ]
    value, gradient = population_value_and_grad(chosen, *small)
    large_value, large_gradient = population_value_and_grad(chosen, *large)
    assert large_value == pytest.approx(value, rel=1e-8)
    assert large_gradient.old_logit == pytest.approx(gradient.old_logit, rel=1e-8)
    for name in ("old_mean", "new_mean"):  # a gradient transforms with the transpose
        reduced = (place.T @ getattr(large_gradient, name))[:2]
        np.testing.assert_allclose(reduced, getattr(gradient, name), rtol=1e-7, atol=1e-10)


def test_what_has_no_exact_form_is_refused():
    target = TwoMode.create(0.4, 0.0, 3.0)
    with pytest.raises(InputError, match="same covariance"):
        population_value_and_grad(objectives.sft(), target.replace(covariance=2.0), target)
    with pytest.raises(InputError, match="one covariance for both modes"):
        population_value_and_grad(objectives.sft(), target, target.replace(new_covariance=2.0))
