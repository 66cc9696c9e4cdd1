"""The models of evaluation logs against quadrature, brute force and NUTS."""

from concurrent.futures import ThreadPoolExecutor

import evals_simulation as sim
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from scipy import integrate, special, stats

from inference.measurement.evals import choices, classical, fast, nuts, prior, summaries
from inference.measurement.evals.cells import task_cells
from inference.measurement.evals.derived import derive
from inference.measurement.evals.item_integral import (
    Patterns,
    Run,
    Task,
    log_base,
    log_cells,
    log_multiplicity,
    patterns_of,
)
from inference.measurement.evals.measure_evals import measure_paired
from inference.measurement.evals.model import choice_probabilities, repeats_model
from inference.measurement.evals.pairing import CELLS

pytestmark = pytest.mark.usefixtures("x64")


def settings(rng):
    """Return unknowns of a task and a run, and 1/k."""
    task = Task(rng.normal(0.0, 3.0), np.exp(rng.uniform(np.log(0.7), np.log(8.0))), rng.uniform())
    run = Run(rng.choice([0.0, 0.02, 0.3]), rng.normal(0.0, 1.5), rng.choice([0.0, 0.1, 0.6, 0.99, 1.5, 3.0]))
    return task, run, rng.choice([0.0, 0.25, 0.5])


def exact_cell(task, run, inverse_choices, k_base, n_base, k_run, n_run):
    """Integrate over items by SciPy's adaptive rule, and over their moves by 200 Hermite nodes."""
    g = task.guess_share * inverse_choices
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    weights = weights / weights.sum()

    def at(a):
        before = stats.binom.pmf(k_base, n_base, g + (1.0 - g) * special.expit(a))
        known = special.expit(a + run.drift + run.drift_spread * nodes)
        after = (1.0 - run.mass_lost) * (g + (1.0 - g) * known) + run.mass_lost * g
        return (
            stats.norm.pdf(a, task.mean, task.sd) * before * (weights @ stats.binom.pmf(k_run, n_run, after))
        )

    ends = task.mean - 9.0 * task.sd, task.mean + 9.0 * task.sd
    points = [p for p in np.linspace(-12.0, 12.0, 13) if ends[0] < p < ends[1]]
    return integrate.quad(at, *ends, points=points or None, epsabs=1e-11, epsrel=1e-10, limit=400)[0]


@pytest.mark.parametrize("seed", range(12))
def test_cells_are_what_adaptive_quadrature_says(seed):
    """Also items beyond the grid, and laws that are narrower than its spacing."""
    rng = np.random.default_rng(seed)
    task, run, inverse = settings(rng)
    n_base, n_run = (int(n) for n in rng.integers(1, 17, 2))
    k_base, k_run = int(rng.integers(n_base + 1)), int(rng.integers(n_run + 1))
    base, answers = (
        Patterns(np.array([float(k)]), np.array([float(n)]), np.array([0]), np.array([inverse]))
        for k, n in ((k_base, n_base), (k_run, n_run))
    )
    place = np.array([0])
    log_p = log_cells(task, run, base, answers, place, place) + log_base(task, base)
    found = float(jnp.exp(log_p + log_multiplicity(base) + log_multiplicity(answers))[0])
    assert found == pytest.approx(exact_cell(task, run, inverse, k_base, n_base, k_run, n_run), abs=2e-6)


MIXED = pd.DataFrame(
    {"run": 0, "right_base": 3.0, "num_base": 4, "right_run": 2.0, "num_run": 4}
    | {"num_choices": [np.nan, 4.0, 2.0], "num_items": [5, 7, 11]}
)


@pytest.mark.slow
def test_items_with_different_numbers_of_choices_are_guessed_each_by_its_own():
    task, run = Task(-0.5, 2.0, 0.9), Run(0.2, -0.4, 0.6)
    cells = task_cells(MIXED, np.array([0]))
    log_p = log_cells(task, run, cells.base, cells.answers, cells.of_base, cells.of_run)
    log_p = np.asarray(log_p + log_base(task, cells.base)[cells.of_base])
    choose = special.comb(4, 3) * special.comb(4, 2)
    inverse = cells.base.inverse_choices[cells.base.choices][cells.of_base]
    assert sorted(inverse) == [0.0, 0.25, 0.5]
    for found, one in zip(np.exp(log_p) * choose, inverse, strict=True):
        assert found == pytest.approx(exact_cell(task, run, one, 3, 4, 2, 4), abs=2e-6)


@pytest.mark.slow
def test_the_change_of_mixed_items_is_the_mean_of_the_changes_of_each_kind():
    rng = np.random.default_rng(0)
    tasks, runs = 0.5 * rng.normal(size=(2, 3, 3))

    def change(frame):
        cells = task_cells(frame, np.array([0]))
        return np.array(summaries._of_items(cells, cells.counts[0], tasks, runs))

    mean, variance = change(MIXED)
    shares = MIXED["num_items"].to_numpy() / MIXED["num_items"].sum()
    each = np.array([change(MIXED.iloc[[i]]) for i in range(3)])
    np.testing.assert_allclose(mean, shares @ each[:, 0], rtol=1e-9)
    np.testing.assert_allclose(variance, shares**2 @ each[:, 1], rtol=1e-9)


@pytest.mark.parametrize("drift_spread", [0.0, 0.7, 5.0])
def test_cells_sum_to_one(drift_spread):
    task, run = Task(2.0, 6.0, 0.5), Run(0.1, -1.0, drift_spread)
    base, answers = patterns_of(4, 0.25, 5), patterns_of(16, 0.25, 17)
    of_base, of_run = (a.ravel() for a in np.indices((5, 17)))
    log_p = log_cells(task, run, base, answers, of_base, of_run) + log_base(task, base)[of_base]
    log_p += log_multiplicity(base)[of_base] + log_multiplicity(answers)[of_run]
    assert float(jnp.exp(log_p).sum()) == pytest.approx(1.0, abs=2e-5)


@pytest.mark.slow
def test_derived_quantities_are_those_of_many_items():
    """Of 4,000,000 items; the standard error of each mean is below 3e-4."""
    rng = np.random.default_rng(0)
    for task, run, inverse in [settings(rng) for _ in range(4)]:
        g = task.guess_share * inverse
        a = rng.normal(task.mean, task.sd, 4_000_000)
        b = a + run.drift + run.drift_spread * rng.normal(size=a.size)
        before = g + (1.0 - g) * special.expit(a)
        after = g + (1.0 - g) * (1.0 - run.mass_lost) * special.expit(b)
        found = derive(task, run, jnp.asarray(inverse))
        change = after - before
        expected = (
            after.mean(),
            change.mean(),
            np.maximum(-change, 0.0).mean(),
            np.maximum(change, 0.0).mean(),
        )
        np.testing.assert_allclose([float(v) for v in found], expected, atol=1.5e-3)


@pytest.mark.slow
def test_scores_have_the_prior_that_numpyro_samples():
    """Where a score has probability u, the unknown has it too under NumPyro's law."""
    score = jnp.linspace(-3.0, 3.0, 13)
    run = jax.jit(prior.run_of)(jnp.stack([score] * 3, axis=-1))
    task = jax.jit(prior.task_of)(jnp.stack([score] * 3, axis=-1))
    u = special.ndtr(np.asarray(score))
    # NumPyro has no distribution function of this one: its density is that of the score over the slope.
    mass_lost = jax.grad(lambda s: prior.run_of(jnp.array([0.0, 0.0, 1.0]) * s).mass_lost)
    slope = jax.jit(jax.vmap(mass_lost))(score)
    density = np.exp(dist.Kumaraswamy(0.5, 2.0).log_prob(run.mass_lost))
    np.testing.assert_allclose(density * slope, stats.norm.pdf(score), rtol=1e-6)
    np.testing.assert_allclose(dist.Logistic(0.0, prior.DRIFT_SCALE).cdf(run.drift), u, atol=1e-9)
    np.testing.assert_allclose(dist.Exponential(1.0).cdf(run.drift_spread), u, atol=1e-9)
    np.testing.assert_allclose(stats.beta(1.0, 0.5).cdf(np.asarray(task.guess_share)), u, atol=1e-9)
    np.testing.assert_allclose(jax.jit(prior.run_scores_of)(*run), np.stack([score] * 3, axis=-1), atol=1e-6)
    location = np.asarray(task.mean) / np.sqrt(np.asarray(task.sd) ** 2 + 2.9)
    back = jax.jit(prior.task_scores_of)(location, jnp.log(task.sd), task.guess_share)
    np.testing.assert_allclose(back, np.stack([score] * 3, axis=-1), atol=1e-6)


@pytest.mark.slow
def test_draws_have_the_moments_of_a_grid_over_the_posterior():
    """A run of 60 items, its scores on a grid of 6 dimensions by brute force: importance from the prior."""
    rng = np.random.default_rng(1)
    cells = task_cells(sim.repeats(rng, sim.Truth(60, 3, 3), [(0.25, -0.3, 0.8)]), np.arange(1))
    with ThreadPoolExecutor(1) as pool:
        law = fast.learn([cells], 256, rng, pool)
        drawn = fast.draw([cells], law, None, 256, rng, pool)

    def log_likelihood(scores):
        task, run = prior.task_of(scores[:3]), prior.run_of(scores[3:])
        of_run = log_cells(task, run, cells.base, cells.answers, cells.of_base, cells.of_run)
        return of_run @ cells.counts[0] + log_base(task, cells.base) @ cells.base_counts

    scores = special.ndtri(stats.qmc.Sobol(6, rng=rng).random(2**16))
    log_w = np.asarray(jax.jit(lambda s: jax.lax.map(log_likelihood, s, batch_size=64))(scores))
    weights = special.softmax(log_w)
    mean = weights @ scores
    sd = np.sqrt(weights @ np.square(scores - mean))
    effective = 1.0 / np.square(weights).sum()
    assert effective > 300
    found = np.concatenate([drawn.tasks, drawn.runs[0]], axis=-1)
    assert drawn.k_hat[0] < 0.7
    # Standard errors of the grid's mean and of some 150 independent draws.
    limit = 5.0 * np.sqrt(1.0 / effective + 1.0 / 150.0)
    assert np.all(np.abs(found.mean(axis=0) - mean) < limit * sd)
    assert np.all(np.abs(np.log(found.std(axis=0) / sd)) < limit)


@pytest.mark.slow
def test_fast_path_and_nuts_agree():
    rng = np.random.default_rng(2)
    frame = sim.repeats(rng, sim.Truth(300, 4, 4, guess=0.2, num_choices=4.0), [(0.1, -0.5, 0.8)])
    trees = [
        measure_paired(sim.paired(frame), method=m, progress=False)["posterior"] for m in ("laplace", "nuts")
    ]
    for name in ("old_weight", "drift", "drift_spread", "accuracy_change", "lost", "won"):
        one, other = (tree[name].to_numpy().ravel() for tree in trees)
        assert abs(one.mean() - other.mean()) < 0.35 * other.std(), name
        assert abs(np.log(one.std() / other.std())) < 0.25, name


@pytest.mark.parametrize("k", [2, 3, 10])
def test_choices_are_what_a_brute_force_over_guesses_says(k):
    shares, persistence = np.array([0.4, 0.2, 0.1, 0.3]), 0.3
    expected = dict.fromkeys(CELLS, 0.0)
    for state, share in enumerate(shares):
        for first in range(k):
            for second in range(k):
                fresh = persistence if state == 3 else 0.0
                p = share / k * (fresh * (first == second) + (1.0 - fresh) / k)
                before = 0 if state in (0, 1) else first
                after = 0 if state in (0, 2) else second
                if before == 0 or after == 0:
                    name = ("right" if before == 0 else "wrong") + ("_right" if after == 0 else "_wrong")
                else:
                    name = "wrong_same" if before == after else "wrong_other"
                expected[name] += p
    found = choice_probabilities(shares, np.asarray(persistence), np.array([float(k)]))[0]
    np.testing.assert_allclose(found, list(expected.values()), atol=1e-12)


def test_choices_have_the_moments_of_a_grid_over_the_posterior():
    rng = np.random.default_rng(3)
    frame = sim.choices(rng, 150, 4, [0.4, 0.15, 0.1, 0.35], 0.5)
    posterior = measure_paired(sim.paired_choices(frame), progress=False)["posterior"].to_dataset()
    scores = special.ndtri(stats.qmc.Sobol(4, rng=rng).random(2**18))
    shares, persistence = choices.unknowns_of(scores)
    counts = frame[list(CELLS)].to_numpy(float)[None]
    weights = special.softmax(
        choices.log_likelihood(counts, shares[None], persistence[None], np.array([4.0]))[0]
    )
    assert 1.0 / np.square(weights).sum() > 300
    exact = [*np.moveaxis(shares, -1, 0)[:3], persistence]
    for name, values in zip(("known_kept", "forgotten", "acquired", "persistence"), exact, strict=True):
        draws = posterior[name].to_numpy().ravel()
        mean = weights @ values
        sd = np.sqrt(weights @ np.square(values - mean))
        assert abs(draws.mean() - mean) < 0.35 * sd
        assert abs(np.log(draws.std() / sd)) < 0.2


def test_a_dirichlet_prior_lies_under_the_scores_of_shares():
    shares, persistence = choices.unknowns_of(special.ndtri(stats.qmc.Sobol(4, rng=0).random(2**14)))
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    np.testing.assert_allclose(shares.mean(axis=0), 0.25, atol=2e-3)
    # Of Dirichlet(1, 1, 1, 1): a share's variance is 3/80, the covariance of two -1/80.
    np.testing.assert_allclose(np.cov(shares.T), (np.eye(4) * 4.0 - 1.0) / 80.0, atol=2e-3)
    np.testing.assert_allclose(persistence.mean(), 0.5, atol=2e-3)


def test_older_measures():
    row = dict(zip(CELLS, (145, 37, 29, 161, 28), strict=True))
    found = classical.of_choices(pd.DataFrame([row | {"num_choices": 4.0}]))
    assert found.observed_change == pytest.approx(-8 / 400)
    assert found.mcnemar_p == pytest.approx(2.0 * stats.binom.cdf(29, 66, 0.5))
    # F = 37/400 is less than (1 - 0.455) (1 - 0.435) / 3 by guessing.
    assert found.forgotten_share == pytest.approx(0.0925)
    assert found.forgotten_beyond_guessing == 0.0
    change = np.repeat([0.0, -1.0, 1.0], [145 + 161 + 28, 37, 29])
    assert found.observed_change_error == pytest.approx(change.std(ddof=1) / 20.0)


def test_older_measures_tell_lost_from_won_and_weigh_items():
    """What is beyond guessing, of two numbers of choices; the error of the mean, from items one by one."""
    groups = [(160, 70, 20, 100, 10, 4.0), (60, 30, 16, 30, 4, 3.0)]
    rows = pd.DataFrame([dict(zip((*CELLS, "num_choices"), row, strict=True)) for row in groups])
    found = classical.of_choices(rows)
    right_before, right_after = 320 / 500, 256 / 500
    by_guess = (1.0 - right_before) * (1.0 - right_after) * (360 / 3 + 140 / 2) / 500
    assert (found.observed_base_accuracy, found.observed_accuracy) == (right_before, right_after)
    assert found.forgotten_share == 0.2
    assert found.forgotten_beyond_guessing == pytest.approx(0.2 - by_guess)
    assert found.acquired_beyond_guessing == pytest.approx(36 / 500 - by_guess)
    assert 0.0 < found.acquired_beyond_guessing < found.forgotten_beyond_guessing
    # The same answers as repeats of one.
    cells = [
        (b, 1, r, 1, k, n)
        for *ns, k in groups
        for (b, r), n in zip(((1, 1), (1, 0), (0, 1)), ns[:3], strict=True)
    ]
    cells += [(0, 1, 0, 1, k, ns[3] + ns[4]) for *ns, k in groups]
    names = ["right_base", "num_base", "right_run", "num_run", "num_choices", "num_items"]
    np.testing.assert_allclose(classical.of_repeats(pd.DataFrame(cells, columns=names)), found)
    several = pd.DataFrame(
        [(1, 4, 3, 4, np.nan, 5), (4, 4, 1, 2, np.nan, 3), (0, 2, 4, 4, np.nan, 2)], columns=names
    )
    found = classical.of_repeats(several)
    change = np.repeat([0.5, -0.5, 1.0], [5, 3, 2])
    assert found.observed_change == pytest.approx(change.mean())
    assert found.observed_change_error == pytest.approx(stats.sem(change))
    assert np.isnan([found.mcnemar_p, found.forgotten_share, found.acquired_beyond_guessing]).all()


def test_what_is_asked_of_choices_follows_from_shares():
    """Of items with 2 and with 4 choices, unlike in two runs; an unknown item is right by a guess."""
    cells = dict.fromkeys(CELLS, 0)
    frame = pd.DataFrame(
        [
            cells | {"run": r, "num_choices": k, "right_right": n}
            for r, k, n in ((3, 2, 30), (3, 4, 10), (5, 4, 8))
        ]
    )
    shares = np.array([[[0.5, 0.2, 0.1, 0.2]], [[0.1, 0.05, 0.6, 0.25]]])
    nan = np.full(2, np.nan)
    drawn = choices.ChoiceDraws(shares, np.full((2, 1), 0.3), nan, nan, np.full((2, 3), np.nan))
    found = summaries.of_choices(drawn, frame, np.array([3, 5]))
    for r, counts in enumerate(({2: 30, 4: 10}, {4: 8})):
        items = [(k, n / sum(counts.values())) for k, n in counts.items()]
        expected = dict.fromkeys(("accuracy", "lost", "won"), 0.0)
        for k, share in items:
            guess = 1.0 / k
            change = shares[r, 0] * (np.array([1.0, guess, 1.0, guess]) - np.array([1.0, 1.0, guess, guess]))
            expected["accuracy"] += share * shares[r, 0] @ np.array([1.0, guess, 1.0, guess])
            expected["lost"] -= share * change[change < 0.0].sum()
            expected["won"] += share * change[change > 0.0].sum()
        expected["accuracy_change"] = expected["won"] - expected["lost"]
        for name, value in expected.items():
            assert found[name][r, 0] == pytest.approx(value), name


def test_a_run_that_is_given_thrice_says_of_the_task_what_it_says_once():
    """And runs that pad a chunk say nothing."""
    rng = np.random.default_rng(5)
    lanes, pairs, nodes = 32, 2, 8
    of_runs = [rng.normal(size=(n, lanes, pairs, *of)) for n, of in ((2, (2,)), (2, (nodes,)), (2, (nodes,)))]

    def weights(places, real):
        parts = [part[places] for part in of_runs]
        points = fast.Points(tasks, log_lane, *parts)
        return fast._lane_log_weights(points, np.array(real)), fast._learnt(points, np.array(real))

    tasks, log_lane = rng.normal(size=(lanes, 3)), rng.normal(size=lanes)
    once, law = weights([0], [True])
    thrice, law_of_thrice = weights([0, 0, 0, 1], [True, True, True, False])
    np.testing.assert_allclose(thrice, once)
    np.testing.assert_allclose(law_of_thrice.task_covariance, law.task_covariance)
    likelihood = np.exp(of_runs[2][0]).sum(axis=-1).mean(axis=-1)
    np.testing.assert_allclose(once, log_lane + np.log(likelihood))


@pytest.mark.slow
def test_nuts_runs_the_program_of_repeats():
    """The unknowns' names and shapes are those that the fast path gives."""
    cells = task_cells(
        sim.repeats(np.random.default_rng(4), sim.Truth(20, 1, 1), [(0.0, 0.0, 0.0)]), np.arange(1)
    )
    tasks, runs = nuts.scores_of(nuts.sample(repeats_model, 40, 0, cells, cells.counts[0]))
    assert tasks.shape == runs.shape == (40, 3)
    assert np.isfinite(tasks).all()
    assert np.isfinite(runs).all()
