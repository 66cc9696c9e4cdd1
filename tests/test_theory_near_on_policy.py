"""Near-on-policy conditions against brute force: grids and SciPy on the losses themselves.

Oracle: on a dense grid (`oracles`, error below 1e-10) the root in φ of the gradient that batches estimate;
SciPy's integrator. A wrong sign of Δ, η for 1/η, a weight for a logit or swapped modes are off by order 1.
"""

import mpmath
import near_population_oracles
import numpy as np
import oracles
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import expit, logit

from mixture_models import InputError, theory

SEPARATIONS = (2.0, 10.0)


def mixture(phi, separation):
    return oracles.two_modes(expit(phi), [0.0], [separation])


def ttt_slope(phi, start, separation, target, gap, kl_weight, eta):
    reward = near_population_oracles.mode_reward(mixture(logit(target), separation), 0.3, 0.3 + gap)
    laws = (mixture(phi, separation), mixture(logit(start), separation))
    return near_population_oracles.ttt_discover(*laws, reward, kl_weight, eta).gradient[0]


@pytest.mark.parametrize("separation", SEPARATIONS)
@pytest.mark.parametrize(
    ("start", "gap", "kl_weight", "eta"), [(0.7, 1.0, 0.5, 1.0), (0.3, 2.0, 1.0, 1.5), (0.6, -1.5, 0.8, 0.7)]
)
def test_ttt_discover_rests_where_the_gradient_vanishes(separation, start, gap, kl_weight, eta):
    settings = {"reward_gap": gap, "kl_weight": kl_weight, "eta": eta}
    brute = brentq(
        lambda phi: ttt_slope(phi, start, separation, 0.4, gap, kl_weight, eta), -9.0, 9.0, xtol=1e-12
    )
    exact = theory.ttt_discover_stationary_logit_exact(start, separation, target_weight=0.4, **settings)
    assert exact == pytest.approx(brute, abs=1e-8)
    separated = theory.ttt_discover_stationary_logit(start, **settings)
    assert (abs(separated - brute) < 1e-5) == (separation == 10.0)


def test_ttt_discover_solves_its_equation_to_rounding():
    start, gap = np.array([[0.001], [0.5], [0.999]]), np.array([-400.0, -3.0, 0.0, 1e-3, 3.0, 400.0])
    phi = theory.ttt_discover_stationary_logit(start, reward_gap=gap, kl_weight=0.1)
    tilt = -np.expm1(-gap)
    right = -tilt / (expit(-phi) + expit(phi) * np.exp(-gap)) / 0.1
    np.testing.assert_allclose(phi - logit(start), right, rtol=1e-12, atol=1e-12)


def test_ttt_discover_without_an_anchor_collapses():
    phi = theory.ttt_discover_stationary_logit(0.5, reward_gap=[1.0, 0.0, -1.0], kl_weight=0.0)
    np.testing.assert_array_equal(phi, [-np.inf, 0.0, np.inf])
    kept = theory.ttt_discover_retains(0.5, reward_gap=[1.0, 0.0, -1.0], kl_weight=[[0.0], [0.5]])
    np.testing.assert_array_equal(kept.retains, [[False, True, True], [True, True, True]])
    np.testing.assert_array_equal(kept.old_weight[0], [0.0, 0.5, 1.0])


def test_an_anchor_too_weak_for_the_overlap_holds_nothing():
    """Separated modes are kept by any anchor, overlapping ones only above a threshold: see the gradient."""
    settings = {"reward_gap": 1.0, "separation": 2.0, "target_weight": 0.4}
    kept = theory.ttt_discover_retains(0.5, kl_weight=[0.1, 0.3], **settings)
    np.testing.assert_array_equal(kept.retains, [False, True])
    assert theory.ttt_discover_retains(0.5, reward_gap=1.0, kl_weight=0.1).retains
    for kl_weight, signs in ((0.1, {1.0}), (0.3, {1.0, -1.0})):
        slopes = [ttt_slope(phi, 0.5, 2.0, 0.4, 1.0, kl_weight, 1.0) for phi in (-20.0, -9.0, -4.0, 0.0)]
        assert set(np.sign(slopes)) == signs


def oapl_after(count, start, separation, target, gap, beta1, beta2, time):
    """Return the logit after rounds, by SciPy on the gradient of the loss."""
    reward = near_population_oracles.mode_reward(mixture(logit(target), separation), -0.2, gap - 0.2)
    phi = logit(start)
    for _ in range(count):
        lagged = mixture(phi, separation)

        def slope(t, x, lagged=lagged):
            return [
                -near_population_oracles.oapl(
                    mixture(x[0], separation), lagged, reward, beta1, beta2
                ).gradient[0]
            ]

        if np.isinf(time):
            phi = brentq(lambda x, slope=slope: slope(0.0, [x])[0], phi - 6.0, phi + 6.0, xtol=1e-12)
        else:
            solved = solve_ivp(slope, (0.0, time), [phi], method="LSODA", rtol=1e-10, atol=1e-11)
            phi = solved.y[0, -1]
    return phi


@pytest.mark.slow
@pytest.mark.parametrize("separation", SEPARATIONS)
@pytest.mark.parametrize(
    ("gap", "beta1", "beta2", "time"),
    [
        (1.0, 1.0, 1.0, np.inf),
        (1.0, 2.0, 1.5, np.inf),
        (0.7, 0.5, 1.2, 1.0),
        pytest.param(-0.8, 1.0, 1.0, 2.0, marks=pytest.mark.slow),
    ],
)
def test_oapl_after_rounds_is_brute_force(separation, gap, beta1, beta2, time):
    settings = {"reward_gap": gap, "beta1": beta1, "beta2": beta2, "time_per_round": time}
    brute = oapl_after(2, 0.6, separation, 0.4, gap, beta1, beta2, time)
    exact = theory.oapl_logit_after_exact(2, 0.6, separation, target_weight=0.4, **settings)
    assert exact == pytest.approx(brute, abs=1e-8)
    separated = theory.oapl_logit_after(2, 0.6, **settings)
    assert (abs(separated - brute) < 1e-5) == (separation == 10.0)


def scaled_slope(phi, start, separation, target, gap, beta1, beta2):
    """Return e^|φ| times the slope of a round's loss, in 80 digits by the trapezoid rule."""
    with mpmath.workdps(80):
        phi, lagged, aim = (mpmath.mpf(float(x)) for x in (phi, logit(start), logit(target)))
        h = mpmath.mpf("0.125") / max(1, int(separation))
        reach = int((0.5 * separation + 9.0) / float(h))

        def sigmoid(x):
            return 1 / (1 + mpmath.exp(-x))

        odds = [-separation * h * i for i in range(-reach, reach + 1)]
        old, new = (
            [h * mpmath.npdf(h * i, side * mpmath.mpf(separation) / 2) for i in range(-reach, reach + 1)]
            for side in (-1, 1)
        )
        law = [sigmoid(lagged) * o + sigmoid(-lagged) * n for o, n in zip(old, new, strict=True)]
        reward = [gap * sigmoid(-x - aim) for x in odds]
        value = beta1 * mpmath.log(
            mpmath.fsum(p * mpmath.exp(r / beta1) for p, r in zip(law, reward, strict=True))
        )
        terms = []
        for p, r, x in zip(law, reward, odds, strict=True):
            ratio = sigmoid(phi) / sigmoid(lagged) * sigmoid(lagged + x) / sigmoid(phi + x)
            terms.append(p * (beta2 * mpmath.log(ratio) - r + value) * (sigmoid(phi + x) - sigmoid(phi)))
        return float(2 * beta2 * mpmath.fsum(terms) * mpmath.exp(abs(phi)))


def test_oapl_rests_where_the_slope_in_eighty_digits_says_or_nowhere():
    """Far out the slope falls as exp(-|φ|), below the rounding of what it is the difference of."""
    rng = np.random.default_rng(14)
    settings = [(0.9289522275165243, 1.2096194428570795, 0.6991843309376197, -1.9857129055612686, 2.0, 2.0)]
    for _ in range(15):
        start, target = expit(rng.normal(0.0, 1.5, size=2))
        gap, beta1, beta2 = rng.choice([-1, 1]) * rng.uniform(1.0, 6.0), *rng.choice([0.3, 1.0], 2)
        settings.append((start, rng.uniform(0.4, 2.0), target, gap, beta1, beta2))
    endless = 0
    for start, separation, target, gap, beta1, beta2 in settings:
        rest = float(
            theory.oapl_logit_after_exact(
                1, start, separation, target_weight=target, reward_gap=gap, beta1=beta1, beta2=beta2
            )
        )
        given, sign = (start, separation, target, gap, beta1, beta2), np.sign(gap)
        if np.isinf(rest):
            endless += 1
            assert np.sign(rest) == -sign
            for away in (0.0, 1.0, 3.0, 10.0, 38.0, 100.0):
                assert sign * scaled_slope(logit(start) - sign * away, *given) > 0.0
        else:
            within = 1e-9 * (1.0 + abs(rest))
            assert sign * scaled_slope(rest + sign * within, *given) > 0.0
            assert sign * scaled_slope(rest - sign * within, *given) < 0.0
    assert 4 <= endless <= 12


def test_oapl_loses_a_factor_at_every_sync_and_keeps_the_rest():
    phi = theory.oapl_logit_after(3, [0.2, 0.9], reward_gap=0.5, beta1=2.0, beta2=2.0)
    np.testing.assert_allclose(phi, logit([0.2, 0.9]) - 0.75, rtol=1e-14)
    kept = theory.oapl_retains(0.6, [0, 4, np.inf], reward_gap=[[1.0], [0.0], [-1.0]], beta=2.0)
    np.testing.assert_array_equal(kept.retains, [[True, True, False], [True] * 3, [True] * 3])
    np.testing.assert_allclose(kept.old_weight[0], [0.6, expit(logit(0.6) - 2.0), 0.0])
    np.testing.assert_allclose(kept.old_weight[1], 0.6)
    # A round that is longer gets closer to the rest.
    times = [theory.oapl_logit_after(1, 0.6, reward_gap=1.0, time_per_round=t) for t in (0.1, 1.0, 30.0)]
    assert times[0] > times[1] > times[2]
    assert times[2] == pytest.approx(logit(0.6) - 1.0, abs=1e-6)


def test_sdft_rests_at_the_demonstrations_or_where_it_started():
    found = theory.sdft_fixed_point([0.0, 1e-3, 1.0], 0.7, [[0.2], [0.0]])
    np.testing.assert_array_equal(found, [[0.7, 0.2, 0.2], [0.7, 0.0, 0.0]])
    kept = theory.sdft_retains([0.0, 0.1, 0.1], 0.7, [0.2, 0.2, 0.0])
    np.testing.assert_array_equal(kept.retains, [False, True, False])


@pytest.mark.parametrize(("anchor", "rate", "alpha"), [(0.1, 0.7, None), (1.0, 0.05, None), (0.3, 2.0, 0.3)])
def test_sdft_rate_is_the_slowest_eigenvalue_of_brute_force(anchor, rate, alpha):
    """The Jacobian of student and teacher by differences of gradients on a grid."""
    rest = np.array([logit(0.3), 0.0, 2.5])

    def at(theta):
        return oracles.two_modes(expit(theta[0]), theta[1:2], theta[2:])

    def field(state):
        student, teacher = state[:3], state[3:]
        if alpha is None:
            parts = oracles.reverse_kl_gradient(at(student), at(teacher))
            gradient = np.concatenate([np.ravel(g) for g in parts.values()])
        else:
            gradient = near_population_oracles.jensen_shannon(at(student), at(teacher), alpha).gradient
        return np.concatenate([-gradient, rate * ((1 - anchor) * student + anchor * rest - teacher)])

    both = np.concatenate([rest, rest])
    steps = 1e-4 * np.eye(6)
    jacobian = np.stack([(field(both + s) - field(both - s)) / 2e-4 for s in steps], axis=1)
    slowest = -np.linalg.eigvals(jacobian).real.max()
    found = theory.sdft_local_rate(0.3, 2.5, anchor=anchor, teacher_rate=rate, alpha=alpha)
    assert found == pytest.approx(slowest, rel=1e-6)
    assert found <= rate * anchor * (1.0 + 1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.sdft_fixed_point(1.2, 0.5, 0.5), r"anchor must lie in \[0, 1\]; got 1.2"),
        (lambda: theory.sdft_local_rate(0.5, 2.0, anchor=0.1, teacher_rate=0.0), r"teacher_rate must lie"),
        (lambda: theory.ttt_discover_stationary_logit(0.5, reward_gap=1.0, kl_weight=-1.0), "kl_weight must"),
        (lambda: theory.ttt_discover_stationary_logit(reward_gap=1.0, kl_weight=1.0), "exactly one of start"),
        (
            lambda: theory.ttt_discover_stationary_logit_exact(
                0.5, 0.0, target_weight=0.5, reward_gap=1.0, kl_weight=1.0
            ),
            "separation must be greater than 0",
        ),
        (lambda: theory.oapl_logit_after(-1, 0.5, reward_gap=1.0), "num_syncs must be at least 0"),
        (lambda: theory.oapl_logit_after(1, 0.5, reward_gap=1.0, time_per_round=0.0), "time_per_round must"),
        (lambda: theory.oapl_logit_after(1, 0.5, reward_gap=1.0, beta1=1e-3), "reward_gap over beta1 must"),
        (lambda: theory.oapl_retains(0.5, -1, reward_gap=1.0), "num_syncs must be at least 0; got -1"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()
