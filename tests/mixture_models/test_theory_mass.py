"""Misassignment and the SFT velocity against 25-digit integrals, their bounds and their asymptotes."""

import jax
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import ndtr
from theory_oracles import over_line, relative_error

from mixture_models import InputError, theory
from mixture_models.theory import mass

SETTINGS = [
    (1e-6, 0.1),
    (0.3, 0.1),
    (1 - 1e-6, 1.0),
    (0.5, 2.19),
    (1e-3, 2.21),
    (0.9, 5.0),
    (1e-6, 12.0),
    (0.5, 12.0),
]

weights = st.floats(-13.8, 13.8)  # logits of 1e-6 to 1 - 1e-6
separations = st.floats(0.1, 12.0)
thousand = settings(max_examples=1000, deadline=None)


@pytest.mark.parametrize(("weight", "separation"), SETTINGS)
def test_misassignment_and_velocity_are_right_relatively(weight, separation):
    beta = mp.mpf(weight)
    claimed = over_line(lambda at: at.old * (1 - beta) * at.new / at.mixture, weight, separation)
    assert relative_error(theory.misassignment(weight, separation), claimed) < 1e-10
    kept = over_line(lambda at: at.new * (beta - beta * at.old / at.mixture), weight, separation)
    assert relative_error(theory.sft_logit_velocity(weight, separation), -kept) < 1e-10


def test_extremes():
    """As ratios: `pytest.approx` forgives 1e-12."""
    tiny, beta = 1e-6, 0.3
    assert theory.misassignment(beta, tiny) == pytest.approx(1.0 - beta, rel=1e-10)
    small = -(beta**2) * (1 - beta) * tiny**2
    assert theory.sft_logit_velocity(beta, tiny) / small == pytest.approx(1.0, rel=1e-10)
    assert theory.sft_logit_velocity(beta, 100.0) == pytest.approx(-beta, rel=1e-11)
    assert theory.sft_logit_velocity(beta, 0.0) == 0.0
    # In the far tail β ∫ (p_n - p_o)²/p_n = β (e^{δ²} - 1).
    tail = -np.exp(-600.0) * np.expm1(9.0)
    assert theory.sft_logit_velocity(logit=-300.0, separation=3.0) / tail == pytest.approx(1.0, rel=1e-10)
    claimed = theory.misassignment(logit=300.0, separation=2.0)
    assert claimed / np.exp(-300.0) == pytest.approx(1.0, rel=1e-10)
    assert np.all(np.isfinite(theory.sft_logit_velocity([[1e-6], [0.5]], [1e-6, 1.0, 100.0])))


def test_velocity_is_the_difference_where_that_does_not_cancel():
    weight, separation = np.meshgrid([0.1, 0.5, 0.9], [1.0, 3.0, 8.0])
    difference = weight - theory.misassignment(1.0 - weight, separation)
    np.testing.assert_allclose(theory.sft_logit_velocity(weight, separation), -difference, rtol=1e-12)


def test_chunks_change_nothing():
    separation = np.linspace(0.1, 40.0, 397)[:, None]
    weight = np.array([0.2, 0.7])
    together = theory.sft_logit_velocity(weight, separation)
    for i in (0, 200, 396):
        np.testing.assert_allclose(theory.sft_logit_velocity(weight, separation[i]), together[i], rtol=1e-12)


def test_the_caller_need_not_enable_float64():
    assert not jax.config.jax_enable_x64
    assert theory.misassignment(0.5, 3.0).dtype == np.float64


@thousand
@given(logit=weights, separation=separations)
def test_bounds_hold(logit, separation):
    bound = theory.misassignment_bound(logit=logit, separation=separation)
    assert theory.misassignment(logit=logit, separation=separation) <= bound * (1 + 1e-12)
    velocity = theory.sft_logit_velocity(logit=logit, separation=separation)
    separated = theory.sft_logit_velocity_separated(logit=logit)
    rare = theory.sft_logit_velocity_rare(logit=logit, separation=separation)
    assert max(separated, rare) * (1 + 1e-12) <= velocity < 0.0
    both = theory.sft_logit_velocity_bound(logit=logit, separation=separation)
    assert both * (1 + 1e-12) <= velocity
    # The strongest of all: it is the minimum of |−β| and the convexity bound, as the formulas say.
    beta, rest = 1.0 / (1.0 + np.exp(-logit)), 1.0 / (1.0 + np.exp(logit))
    assert both == pytest.approx(-min(beta, beta**2 * rest * np.expm1(separation**2)), rel=1e-9)
    # J between a half and the whole of what the larger of the two terms of q gives.
    claimed = ndtr(logit / separation - 0.5 * separation) / beta
    claimed += ndtr(-logit / separation - 0.5 * separation) / rest
    assert 0.5 * claimed - 1e-9 <= 1.0 + velocity / beta <= claimed + 1e-9


@pytest.mark.parametrize("separation", [0.3, 1.0, 3.0, 10.0, 12.0])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_velocity_bound_is_the_limit_at_both_ends(separation, sign):
    far = {"logit": sign * (2.0 * separation**2 + 8.0), "separation": separation}
    ratio = theory.sft_logit_velocity(**far) / theory.sft_logit_velocity_bound(**far)
    assert ratio == pytest.approx(1.0, rel=1e-2)
    assert theory.sft_logit_velocity_bound(0.5, 0.0) == 0.0


def test_bounds_are_tight_somewhere(record_property):
    weight, separation = np.meshgrid([0.1, 0.5, 0.9], np.linspace(0.1, 12.0, 30))
    ratio = theory.misassignment(weight, separation) / theory.misassignment_bound(weight, separation)
    record_property("best ratio", float(ratio.max()))
    assert 0.99 < ratio.max() <= 1.0
    # Balanced modes far apart: √(2π)/δ of the bound, so its rate exp(-δ²/8) is the right one.
    far = theory.misassignment(0.5, 60.0) / theory.misassignment_bound(0.5, 60.0)
    assert far * 60.0 == pytest.approx(np.sqrt(2.0 * np.pi), rel=1e-2)
    assert ratio[separation > 8.0].max() > 0.2


@pytest.mark.parametrize(("weight", "separation"), [(0.5, 8.0), (1e-3, 8.0), (1e-6, 12.0), (0.5, 7.0)])
def test_separated_asymptote(weight, separation):
    ratio = theory.sft_logit_velocity(weight, separation) / theory.sft_logit_velocity_separated(weight)
    assert ratio == pytest.approx(1.0, rel=1e-2)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_separated_asymptote_has_a_range(sign):
    separation = np.linspace(6.0, 30.0, 60)
    edge = sign * (0.5 * separation**2 - 2.5 * separation)
    ratio = theory.sft_logit_velocity(logit=edge, separation=separation)
    ratio /= theory.sft_logit_velocity_separated(logit=edge)
    assert np.all((ratio > 0.99) & (ratio < 0.995))
    # β ≫ exp(-δ²/2) alone is not enough: the learner must also claim the new data as new.
    slow = theory.sft_logit_velocity(1.0 - 1e-5, 4.0) / theory.sft_logit_velocity_separated(1.0 - 1e-5)
    assert slow == pytest.approx(0.21, abs=0.005)


@pytest.mark.parametrize("separation", [0.5, 1.0, 2.0, 5.0, 12.0])
def test_rare_asymptote(separation):
    rare = {"logit": np.log(1e-3) - 2.0 * separation**2, "separation": separation}
    ratio = theory.sft_logit_velocity(**rare) / theory.sft_logit_velocity_rare(**rare)
    assert ratio == pytest.approx(1.0, rel=1e-2)


def test_asymptotes_fail_outside_their_regimes():
    """So the tests above could fail."""
    assert theory.sft_logit_velocity(0.5, 2.0) / theory.sft_logit_velocity_separated(0.5) < 0.9
    assert theory.sft_logit_velocity(0.1, 2.0) / theory.sft_logit_velocity_rare(0.1, 2.0) < 0.9


@pytest.mark.parametrize("separation", [1.0, 2.0, 3.0])
def test_crossover_is_where_the_asymptotes_meet(separation):
    weight = theory.sft_crossover_weight(separation)
    logit = np.log(weight) - np.log1p(-weight)
    assert theory.sft_logit_velocity_separated(logit=logit) == pytest.approx(
        theory.sft_logit_velocity_rare(logit=logit, separation=separation), rel=1e-12
    )
    assert theory.sft_logit_velocity(logit=logit, separation=separation) > -weight


def flow(weight, separation, times):
    """The exact flow φ' = velocity, by SciPy."""
    start = np.log(weight) - np.log1p(-weight)
    solution = solve_ivp(
        lambda t, logit: theory.sft_logit_velocity(logit=logit, separation=separation),
        (0.0, times[-1]),
        [start],
        method="LSODA",
        t_eval=times,
        rtol=1e-9,
        atol=1e-10,
    )
    return 1.0 / (1.0 + np.exp(-solution.y[0]))


def test_weight_curve_of_separated_modes():
    times = np.array([0.0, 1.0, 30.0, 2000.0])
    exact, predicted = flow(0.9, 8.0, times), theory.sft_old_weight_separated(times, 0.9)
    np.testing.assert_allclose(exact, predicted, rtol=1e-2)
    assert np.all(predicted <= exact * (1.0 + 1e-7))
    assert exact[-1] * times[-1] == pytest.approx(1.0, abs=0.01)


def test_weight_curve_of_a_rare_mode():
    times = np.array([0.0, 1e3, 1e5, 1e6])
    exact, predicted = flow(5e-3, 0.7, times), theory.sft_old_weight_rare(times, 5e-3, 0.7)
    np.testing.assert_allclose(exact, predicted, rtol=2e-2)
    assert np.all(predicted <= exact * (1.0 + 1e-7))
    late = theory.sft_old_weight_rare([1e8, 1e9], 5e-3, 0.7)
    slope = np.log(late[1] / late[0]) / np.log(10.0)
    assert slope == pytest.approx(-0.5, abs=0.01)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 64), (130,)])
def test_any_shape_is_computed_and_few_programs_are_compiled(shape):
    weight = np.linspace(0.1, 0.9, int(np.prod(shape))).reshape(shape) if shape else np.float64(0.3)
    found = theory.misassignment(weight, 2.0)
    assert found.shape == shape
    one_by_one = [float(theory.misassignment(w, 2.0)) for w in np.ravel(weight)]
    np.testing.assert_allclose(np.ravel(found), one_by_one, rtol=1e-14)
    programs = mass._sigmoid_means._cache_size()
    theory.misassignment(np.full(77, 0.3), 2.0)
    assert mass._sigmoid_means._cache_size() == programs


def test_curves_solve_their_own_equations():
    t, h, start, separation = 3.0, 1e-4, 0.2, 1.5
    up, down, beta = (theory.sft_old_weight_separated(x, start) for x in (t + h, t - h, t))
    assert (up - down) / (2 * h) == pytest.approx(-(beta**2) * (1 - beta), rel=1e-6)
    up, down, beta = (theory.sft_old_weight_rare(x, start, separation) for x in (t + h, t - h, t))
    assert (up - down) / (2 * h) == pytest.approx(-(beta**3) * np.expm1(separation**2), rel=1e-6)
    assert theory.sft_old_weight_separated(0.0, start) == pytest.approx(start, rel=1e-12)
    assert theory.sft_old_weight_separated(1e6, start) == pytest.approx(1e-6, rel=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.misassignment(1.2, 3.0), r"weight must lie in \(0, 1\); got 1.2"),
        (lambda: theory.misassignment(0.5, -1.0), r"separation must lie in \[0, 100\]; got -1"),
        (lambda: theory.misassignment(0.5), "separation must be given"),
        (lambda: theory.misassignment(separation=1.0), "exactly one of weight and logit; got neither"),
        (lambda: theory.sft_logit_velocity(0.5, 1.0, logit=0.0), "got both"),
        (lambda: theory.sft_logit_velocity(0.5, [1.0, np.nan]), "separation must be finite"),
        (lambda: theory.sft_logit_velocity_rare(0.5, 30.0), r"separation must lie in \[0, 26\]; got 30"),
        (lambda: theory.sft_old_weight_separated(-1.0, 0.5), "time must be at least 0; got -1"),
        (lambda: theory.sft_old_weight_rare(1.0, 1.0, 2.0), r"start_weight must lie in \(0, 1\); got 1"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()
