"""Replay's optimum, starvation, and the effective sample size, against brute force and simulation."""

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from mixture_models import InputError, theory

thousand = settings(max_examples=1000, deadline=None)


@pytest.mark.parametrize("replay", [0.1, 0.5])
def test_replay_optimum_is_where_forward_kl_is_least(replay):
    target = oracles.two_modes(0.8, 0.0, 2.0)
    best = minimize_scalar(
        lambda w: oracles.forward_kl(oracles.two_modes(w, 0.0, 2.0), target, replay),
        bounds=(1e-3, 1 - 1e-3),
        method="bounded",
        options={"xatol": 1e-7},
    )
    assert best.x == pytest.approx(theory.replay_optimum(replay), abs=1e-5)


@pytest.mark.parametrize(("weight", "size", "replay"), [(0.02, 40, 0.0), (0.02, 40, 0.02), (0.3, 5, 0.1)])
def test_starvation_is_what_batches_show(weight, size, replay):
    """Samples drawn one by one; 40,000 batches give a standard error below 0.0025."""
    rng = np.random.default_rng(1)
    shape = (40_000, size)
    old = (rng.random(shape) < replay) | (rng.random(shape) < weight)
    starved = ~old.any(axis=1)
    exact = theory.starvation_probability(weight, size, replay)
    assert abs(starved.mean() - exact) < 5 * np.sqrt(exact * (1 - exact) / len(starved))


def test_starvation_of_a_rare_mode_is_right_relatively():
    assert theory.starvation_probability(1e-12, 1000) == pytest.approx(1 - 1e-9, rel=1e-15)
    assert theory.starvation_probability(1.0, 3) == 0.0


def brute_fraction(weight, separation, replay):
    q = oracles.two_modes(weight, 0.0, separation)
    sampling = q._replace(weights=np.array([replay + (1 - replay) * weight, (1 - replay) * (1 - weight)]))

    def ratio(y):
        return np.exp(oracles.log_density(q, y) - oracles.log_density(sampling, y))

    assert oracles.expectation(sampling, ratio) == pytest.approx(1.0, rel=1e-12)
    return 1.0 / oracles.expectation(sampling, lambda y: ratio(y) ** 2)


@pytest.mark.parametrize("weight", [1e-6, 0.3, 1 - 1e-6])
@pytest.mark.parametrize("separation", [0.1, 2.0, 6.0, 12.0])
@pytest.mark.parametrize("replay", [0.05, 0.5, 0.95])
def test_effective_sample_fraction(weight, separation, replay):
    exact = brute_fraction(weight, separation, replay)
    assert theory.effective_sample_fraction(weight, separation, replay) == pytest.approx(exact, rel=1e-10)


@thousand
@given(logit=st.floats(-13.8, 13.8), separation=st.floats(0.1, 12.0), replay=st.floats(0.0, 0.99))
def test_bounds_hold(logit, separation, replay):
    fraction = theory.effective_sample_fraction(logit=logit, separation=separation, replay=replay)
    assert fraction * theory.importance_weight_bound(replay) >= 1 - 1e-12
    assert fraction <= 1 + 1e-12
    y = np.linspace(-20.0, 20.0, 201)
    old, new = (np.exp(-0.5 * (y + sign * separation / 2) ** 2) for sign in (1, -1))
    weight = 1 / (1 + np.exp(-logit))
    q = weight * old + (1 - weight) * new
    assert np.all(
        q / ((1 - replay) * q + replay * old) <= theory.importance_weight_bound(replay) * (1 + 1e-12)
    )


def test_bound_is_tight_for_a_learner_that_lost_the_old_mode(record_property):
    ratio = (1 - 0.3) / theory.effective_sample_fraction(1e-4, 8.0, 0.3)
    record_property("best ratio", float(ratio))
    assert ratio > 0.999


def test_separated_modes():
    beta, share = 0.3, 0.2
    second_moment = (1 - beta) / (1 - share) + beta**2 / (beta + share * (1 - beta))
    assert theory.effective_sample_fraction(beta, 12.0, share) == pytest.approx(1 / second_moment, rel=1e-6)
    assert theory.effective_sample_fraction(beta, 3.0) == pytest.approx(1.0, rel=1e-13)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.replay_optimum(1.5), r"replay must lie in \[0, 1\]; got 1.5"),
        (lambda: theory.importance_weight_bound(1.0), r"replay must lie in \[0, 1\); got 1"),
        (lambda: theory.starvation_probability(0.1, 2.5), "batch_size must be a whole number of at least 1"),
        (lambda: theory.starvation_probability(0.1, 0), "batch_size must be a whole number .* got 0"),
        (lambda: theory.effective_sample_fraction(0.0, 1.0, 0.1), r"weight must lie in \(0, 1\); got 0"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()
