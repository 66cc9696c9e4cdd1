"""Near-on-policy conditions against brute force: grids and SciPy on the losses themselves.

Oracle: on a dense grid (`oracles`, error below 1e-10) the root in φ of the gradient that batches estimate;
SciPy's integrator. A wrong sign of Δ, η for 1/η, a weight for a logit or swapped modes are off by order 1.
"""

import mpmath
import near_population_oracles
import numpy as np
import oracles
import pytest
from marks import mostly_slow
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import expit, logit

from inference import gradient_flow, population_value_and_grad
from mixture_models import InputError, TwoMode, objectives, theory

SEPARATIONS = (2.0, 10.0)


def mixture(phi, separation):
    return oracles.two_modes(expit(phi), [0.0], [separation])


def ttt_slope(phi, start, separation, target, gap, kl_weight, eta):
    reward = oracles.mode_reward(mixture(logit(target), separation), 0.3, 0.3 + gap)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "gap"), mostly_slow([(0.3, 1.0), (0.7, 1.0), (0.3, 3.0), (0.7, 3.0)], (0.7, 1.0))
)
def test_ttt_discover_keeps_old_mass_above_the_critical_kl_weight(start, gap):
    """On a grid the reward is outweighed where the old mode is rare just above it, and nowhere just below.

    From 6 on the grid's tails underflow before the old mode is rare enough.
    """
    separations = np.array([1.0, 2.0, 3.0, 4.0])
    settings = {"target_weight": 0.4, "reward_gap": gap}
    critical = theory.ttt_discover_critical_kl_weight(start, separations, **settings)
    for share, keeps in ((0.98, False), (1.02, True)):
        kept = theory.ttt_discover_retains(
            start, kl_weight=share * critical, separation=separations, **settings
        )
        assert np.all(kept.retains == keeps)
        for separation, kl_weight in zip(separations, share * critical, strict=True):
            places = np.linspace(-2.0 * separation**2 - 12.0, logit(start), 40)
            slopes = [ttt_slope(phi, start, separation, 0.4, gap, kl_weight, 1.0) for phi in places]
            assert (min(slopes) < 0.0) == keeps
    assert theory.ttt_discover_critical_kl_weight(start, 3.0, target_weight=0.4, reward_gap=-gap) == 0.0


def test_critical_kl_weights_of_the_docs_and_of_modes_far_apart():
    found = theory.ttt_discover_critical_kl_weight(
        0.7, [1.0, 2.0, 3.0, 4.0, 6.0], target_weight=0.5, reward_gap=1.0
    )
    np.testing.assert_allclose(found, [0.276, 0.171, 0.106, 0.069, 0.033], atol=6e-4)
    far = theory.ttt_discover_critical_kl_weight(0.7, 50.0, target_weight=0.5, reward_gap=1.0)
    assert far == pytest.approx(2.0 * -np.expm1(-1.0) / 2500.0, rel=1e-3)


def oapl_after(count, start, separation, target, gap, beta1, beta2, time):
    """Return the logit after rounds, by SciPy on the gradient of the loss."""
    reward = oracles.mode_reward(mixture(logit(target), separation), -0.2, gap - 0.2)
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


@pytest.mark.slow
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


def old_mass_is_lost(start, separation, gap, beta):
    """Return whether a round of OAPL from a logit has no rest: the slope keeps its sign as φ → -∞."""
    reward = oracles.mode_reward(mixture(logit(0.5), separation), 0.0, gap)
    places = np.linspace(start - 2.0 * separation**2 - 12.0, start, 40)
    laws = (mixture(start, separation), reward, beta, beta)
    return all(near_population_oracles.oapl(mixture(x, separation), *laws).gradient[0] > 0.0 for x in places)


@pytest.mark.slow
@pytest.mark.parametrize("separation", [1.0, 2.0, 3.0, 4.0])
@pytest.mark.parametrize(("gap", "beta"), [(1.0, 1.0), (2.0, 1.0), (2.0, 0.5)])
def test_oapl_with_overlap_keeps_old_mass_as_long_as_rounds_rest(separation, gap, beta):
    """Against the loss on a grid; with overlap left out all would be kept."""
    counts = np.arange(6)
    kept = theory.oapl_retains(
        0.7, counts, reward_gap=gap, beta=beta, separation=separation, target_weight=0.5
    )
    exact = [
        theory.oapl_logit_after_exact(
            int(k), 0.7, separation, target_weight=0.5, reward_gap=gap, beta1=beta, beta2=beta
        )
        for k in counts
    ]
    np.testing.assert_allclose(kept.old_weight, expit(exact), rtol=1e-12)
    last = int(np.flatnonzero(kept.retains)[-1])
    np.testing.assert_array_equal(kept.retains, counts <= last)
    assert kept.retains[0]
    for count in range(last + 1):
        if count < 5:
            assert old_mass_is_lost(exact[count], separation, gap, beta) == (count == last)
    separated = theory.oapl_retains(0.7, counts, reward_gap=gap, beta=beta)
    assert separated.retains.all()


def test_oapl_with_a_separation_at_the_ends():
    """Ten rounds at δ = 4 and Δ/τ = 2 keep nothing; modes apart are the limit."""
    settings = {"separation": 4.0, "target_weight": 0.5}
    lost = theory.oapl_retains(0.7, 10, reward_gap=2.0, **settings)
    assert not lost.retains
    assert lost.old_weight == 0.0
    kept = theory.oapl_retains(0.7, [0, 10, np.inf], reward_gap=[[2.0], [0.0], [-2.0]], **settings)
    np.testing.assert_array_equal(kept.retains, [[True, False, False], [True] * 3, [True] * 3])
    np.testing.assert_allclose(kept.old_weight[:, 0], 0.7)
    np.testing.assert_allclose(kept.old_weight[1], 0.7)
    assert kept.old_weight[2, 1] > 0.999
    apart = theory.oapl_retains(0.7, 3, reward_gap=1.0, separation=12.0, target_weight=0.5)
    assert apart.old_weight == pytest.approx(theory.oapl_retains(0.7, 3, reward_gap=1.0).old_weight, rel=1e-6)


@pytest.mark.slow
def test_sdft_ends_at_the_demonstrations_from_right_means_with_and_without_overlap():
    """Student and teacher of the exact flow with free means; where they have swapped labels they do not."""
    objective = objectives.sdft(anchor=0.5, ema=0.5)
    for separation in (1.5, 2.5, 4.0, 7.0):
        target = TwoMode.create(0.3, 0.0, separation)
        starts = [target.replace(old_weight=weight) for weight in (0.1, 0.9)]
        end = 40.0 / theory.sdft_local_rate(0.3, separation, anchor=0.5, teacher_rate=10.0)
        flow = gradient_flow(objective, starts, target, times=[float(end)], learning_rate=0.05)
        found = flow["population"]["old_weight"].to_numpy().ravel()
        kept = theory.sdft_retains(0.5, [0.1, 0.9], 0.3, separation=separation)
        assert kept.retains.all()
        np.testing.assert_allclose(found, kept.old_weight, atol=1e-4)


@pytest.mark.parametrize(("anchor", "shown"), [(0.1, 0.5), (0.4, 0.2), (1.0, 0.7)])
def test_swapped_student_and_teacher_rest(anchor, shown):
    target = TwoMode.create(shown, 0.0, 6.0)
    rest = theory.sdft_swapped_rest(anchor, shown, 6.0)
    teacher = TwoMode.create(*(float(value) for value in rest))
    student = TwoMode.create(old_logit=-teacher.old_logit, old_mean=rest.new_mean, new_mean=rest.old_mean)
    _, gradient = population_value_and_grad(objectives.sdft(anchor=anchor), student, target, teacher=teacher)
    for name, slope in gradient._asdict().items():
        at = [np.ravel(getattr(law, name)) for law in (student, teacher, target)]
        np.testing.assert_allclose(slope, 0.0, atol=1e-12)
        np.testing.assert_allclose((1 - anchor) * at[0] + anchor * at[2], at[1], atol=1e-12)


@pytest.mark.slow
def test_starts_that_cross_can_end_at_the_swapped_rest():
    """Labels swapped at the start, and in order but both modes at the new one with little old weight."""
    target = TwoMode.create(0.5, 0.0, 5.0)
    starts = [TwoMode.create(*given) for given in ((0.5, 3.1, 2.9), (0.1, 5.0, 5.6))]
    objective = objectives.sdft(anchor=0.3, ema=0.5)
    flow = gradient_flow(objective, starts, target, times=[2e4], learning_rate=0.05)
    end = flow["population"].to_dataset().isel(objective=0, time=-1)
    rest = theory.sdft_swapped_rest(0.3, 0.5, 5.0)
    np.testing.assert_allclose(end["old_mean"].to_numpy().ravel(), rest.new_mean, atol=1e-3)
    np.testing.assert_allclose(end["new_mean"].to_numpy().ravel(), rest.old_mean, atol=1e-3)


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
        (
            lambda: theory.oapl_retains(0.5, 1.5, reward_gap=1.0, separation=3.0, target_weight=0.5),
            "num_syncs with a separation must be whole and at most 1000, or infinite; got 1.5",
        ),
        (
            lambda: theory.oapl_retains(0.5, 1, reward_gap=1.0, separation=0.0, target_weight=0.5),
            "separation must be greater than 0",
        ),
        (lambda: theory.sdft_retains(0.5, 0.5, 0.5, separation=0.0), "separation must be greater than 0"),
        (lambda: theory.sdft_swapped_rest(0.0, 0.5, 2.0), r"anchor must lie in \(0, 1\]; got 0"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()
