"""Evaluation logs measured whole: the result's layout, pooling, verdicts and comparisons."""

import arviz as az
import evals_simulation as sim
import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from inference import results
from inference.intervals import interval
from inference.measurement.evals import fast, fit, summaries
from inference.measurement.evals.cells import padded, task_cells
from inference.measurement.evals.compare_evals import ALL, compare_evals
from inference.measurement.evals.fit import _of_few_shapes, _pooled, groups_of
from inference.measurement.evals.measure_evals import measure_paired
from inference.measurement.evals.model import choice_probabilities
from inference.measurement.evals.pairing import CELLS
from inference.measurement.evals.pooling import Groups, pool
from mixture_models.validation import InputError

FAST = {"progress": False, "method": "laplace"}

#: Two arms with two seeds and two checkpoints, on two old tasks and a new one: (m, δ, τ).
ARMS = {"a": [(0.05, 0.0, 0.2), (0.1, -0.1, 0.3)], "b": [(0.2, 0.0, 0.2), (0.4, -0.3, 0.3)]}


def many(rng):
    """Return what is measured of all runs of `ARMS`."""
    frames, rows = [], []
    for task in ("old one", "old two", "new"):
        runs = []
        for arm, checkpoints in ARMS.items():
            for seed in ("0", "1"):
                for step, unknowns in enumerate(checkpoints, start=1):
                    runs.append((0.0, 1.0 * step, 0.3) if task == "new" else unknowns)
                    rows.append((task, arm, seed, 100 * step))
        frame = sim.repeats(rng, sim.Truth(num_items=400, num_base=4, num_run=4), runs)
        frames.append(frame.assign(run=frame["run"] + len(rows) - len(runs)))
    labels = dict(zip(("task", "arm", "seed", "checkpoint"), map(list, zip(*rows, strict=True)), strict=True))
    return sim.paired(pd.concat(frames, ignore_index=True), **labels)


@pytest.fixture(scope="module")
def tree():
    return measure_paired(
        many(np.random.default_rng(0)), new_tasks=["new"], num_log_likelihood_items=50, **FAST
    )


@pytest.fixture
def one_shape(monkeypatch):
    """Give the cells of small logs one shape: one program serves them, and what is padded counts nothing."""
    monkeypatch.setattr(fit, "_of_few_shapes", lambda cells: padded(cells, 9, 9, 33, len(cells.counts)))


def test_every_run_has_its_place(tree):
    posterior = tree["posterior"].to_dataset()
    assert dict(posterior.sizes) == {"chain": 4, "draw": 256, "task": 3, "arm": 2, "seed": 2, "checkpoint": 2}
    for arm, checkpoints in ARMS.items():
        for step, (mass_lost, *_) in enumerate(checkpoints, start=1):
            for task in ("old one", "old two"):
                draws = posterior["old_weight"].sel(task=task, arm=arm, seed="1", checkpoint=100 * step)
                assert abs(float(draws.mean()) - 1.0 + mass_lost) < 5.0 * float(draws.std())
    assert (posterior["drift"].sel(task="new").mean(["chain", "draw"]) > 0.3).all()
    np.testing.assert_array_equal(posterior["retention"], posterior["old_weight"])
    change = posterior["won"] - posterior["lost"]
    np.testing.assert_allclose(change, posterior["accuracy_change"], atol=1e-9)
    mean = posterior["lost"].sel(task=["old one", "old two"]).mean("task")
    np.testing.assert_allclose(tree["over_tasks"]["lost"], mean)
    # The base is one: each draw of its accuracy belongs to all runs of the task.
    base = posterior["accuracy"] - posterior["accuracy_change"]
    np.testing.assert_allclose(base, base.isel(arm=0, seed=0, checkpoint=0).broadcast_like(base), atol=1e-9)
    assert (base.std(["chain", "draw"]) > 0.005).all()
    # What was asked, and how it was answered, is what is drawn; the model describes its own answers.
    said = tree["sample_stats"].to_dataset()
    for name, error in (("accuracy_change", 3.0), ("accuracy_change_of_items", 3.0)):
        draws = posterior[name]
        away = np.abs(draws.mean(["chain", "draw"]) - said["observed_change"])
        assert (away < error * said["observed_change_error"]).all(), name
    assert {words.partition(":")[0] for words in said["words"].to_numpy().ravel()} <= {"good", "weak"}


def test_the_likelihood_of_an_item_is_of_its_count_of_right_answers():
    """Given the base's, the probabilities of all counts add up to 1; the shapes are those of `tree`."""
    base, run = (side.ravel() for side in np.indices((5, 5)))
    frame = sim.cells_of(base, run, sim.Truth(25, 4, 4))
    cells = task_cells(pd.concat([frame.assign(run=r) for r in range(8)]), np.arange(8))
    tasks, runs = np.random.default_rng(0).normal(size=(2, 1024, 3))
    log_p = summaries.log_likelihood(_of_few_shapes(cells), tasks, runs)[:, :25]
    for pattern in range(5):
        total = np.exp(log_p[:, cells.of_base == pattern]).sum(axis=1)
        # What the base itself hardly ever answers is known to rounding alone.
        assert np.median(np.abs(total - 1.0)) < 1e-6, pattern


def test_every_variable_says_what_it_is(tree):
    for group in ("posterior", "over_tasks", "over_seeds", "sample_stats"):
        for name, variable in tree[group].data_vars.items():
            assert variable.attrs.get("long_name"), (group, name)
            assert variable.attrs.get("units"), (group, name)


# Of one item among many: what ArviZ says of it is not ours to silence for a user.
@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto")
def test_arviz_works_unadapted(tree):
    assert len(az.summary(tree, var_names=["old_weight", "lost"])) == 2 * 24
    az.plot_forest(tree, var_names=["old_weight"])
    assert np.isfinite(az.loo(tree).elpd)


@pytest.mark.slow
@pytest.mark.usefixtures("one_shape")
def test_arviz_compares_two_models_of_the_same_answers():
    """Answers that are guessed: that the log says how many choices there are describes them better."""
    truth = sim.Truth(400, 4, 4, mean=-1.0, guess=0.25, num_choices=4.0)
    frame = sim.repeats(np.random.default_rng(10), truth, [(0.1, 0.0, 0.2)])
    models = {"choices": frame, "free": frame.assign(num_choices=np.nan)}
    trees = {
        name: measure_paired(sim.paired(cells), num_log_likelihood_items=300, **FAST)
        for name, cells in models.items()
    }
    found = az.compare(trees, round_to="none")
    assert list(found.index) == ["choices", "free"]
    alone = {name: az.loo(tree, pointwise=True) for name, tree in trees.items()}
    difference = (alone["free"].elpd_i - alone["choices"].elpd_i).to_numpy()
    assert found.loc["free", "elpd_diff"] == pytest.approx(difference.sum())
    assert found.loc["free", "dse"] == pytest.approx(np.sqrt(300) * difference.std())
    # An entry of both is the same item: what the run's answer to it says hardly depends on the model.
    assert np.corrcoef(*(of.elpd_i.to_numpy() for of in alone.values()))[0, 1] > 0.8


def test_arviz_works_for_one_answer_of_several_choices():
    cells = sim.choices(np.random.default_rng(11), 300, 4, [0.5, 0.1, 0.1, 0.3], 0.5)
    tree = measure_paired(sim.paired_choices(cells), **FAST)
    assert list(az.summary(tree, var_names=["forgotten"])["mean"].between(0.0, 0.25)) == [True]
    az.plot_forest(tree, var_names=["forgotten", "acquired"])
    # The likelihood of the items is that of their cells, at each draw.
    counts = cells[list(CELLS)].to_numpy(float)[0]
    posterior = tree["posterior"].to_dataset().squeeze()
    shares = np.stack([posterior[n] for n in ("known_kept", "forgotten", "acquired")], axis=-1)
    shares = np.concatenate([shares, 1.0 - shares.sum(axis=-1, keepdims=True)], axis=-1)
    log_p = np.log(choice_probabilities(shares, posterior["persistence"].to_numpy(), np.array([4.0])))
    total = tree["log_likelihood"]["y"].sum("item")
    np.testing.assert_allclose(total, log_p[..., 0, :] @ counts)
    assert np.isfinite(az.loo(tree).elpd)


@pytest.mark.slow
@pytest.mark.usefixtures("one_shape")
def test_the_shares_of_the_base_are_those_of_the_log_and_of_the_law(tree):
    """Predicted by quadrature over the items' logits, at each draw's mean and standard deviation."""
    rng = np.random.default_rng(12)
    truth = sim.Truth(2000, 4, 4, mean=0.5, sd=3.0)
    frame = sim.repeats(rng, truth, [(0.1, 0.0, 0.2)])
    rows = measure_paired(sim.paired(frame), **FAST)["base_counts"].to_dataset()
    observed = frame.groupby("right_base")["num_items"].sum() / 2000
    np.testing.assert_allclose(rows["observed"], observed)
    logits = np.linspace(-20.0, 20.0, 20_001)
    law = stats.norm.pdf(logits, 0.5, 3.0) * (logits[1] - logits[0])
    exact = [law @ stats.binom.pmf(k, 4, special.expit(logits)) for k in range(5)]
    # Of 2,000 items shares are known to 0.01.
    np.testing.assert_allclose(rows["predicted"], exact, atol=0.03)
    np.testing.assert_allclose(rows["predicted"].sum(), 1.0)
    error = np.sqrt(np.array(exact) * (1.0 - np.array(exact)) / 2000)
    half = 0.5 * (rows["predicted_upper"] - rows["predicted_lower"]).to_numpy()
    # A replicate differs by its items' chance, and as much again by what is not known of the law.
    assert (half > stats.norm.ppf(0.945) * error * 0.9).all()
    assert (half < stats.norm.ppf(0.945) * error * 2.2).all()
    # Of every task once, however many runs it has.
    of_many = tree["base_counts"].to_dataset()
    assert of_many["task"].to_numpy().tolist() == ["old one"] * 5 + ["old two"] * 5 + ["new"] * 5


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_a_result_is_written_and_read(tree, tmp_path, suffix):
    again = results.open(results.save(tree, tmp_path / f"result.{suffix}"))
    np.testing.assert_array_equal(again["posterior"]["lost"], tree["posterior"]["lost"])
    assert (
        again["sample_stats"]["words"].to_numpy().tolist()
        == tree["sample_stats"]["words"].to_numpy().tolist()
    )


@pytest.mark.slow
@pytest.mark.usefixtures("one_shape")
def test_a_result_depends_on_the_seed_alone():
    cells = sim.paired(sim.repeats(np.random.default_rng(1), sim.Truth(50, 2, 2), [(0.1, 0.0, 0.3)]))
    one, two, other = (measure_paired(cells, seed=s, **FAST)["posterior"]["drift"] for s in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
    with az.rc_context({"stats.ci_prob": 0.5, "stats.ci_kind": "hdi"}):
        found = measure_paired(cells, **FAST)
        width = interval(found["posterior"]["old_weight"]).diff("ci_bound").item()
        assert found["sample_stats"]["mass_lost_width"].item() == pytest.approx(width)


@pytest.mark.slow
def test_runs_of_a_task_share_what_is_not_known_of_it():
    """Two runs that are alike: the draws of their drift go together, as the items' law is common."""
    rng = np.random.default_rng(2)
    frame = sim.repeats(rng, sim.Truth(300, 1, 1, sd=3.0), [(0.0, -1.5, 0.2)])
    twice = pd.concat([frame, frame.assign(run=1)], ignore_index=True)
    posterior = measure_paired(sim.paired(twice, arm=["a", "b"]), **FAST)["posterior"]["accuracy"]
    draws = posterior.stack(sample=("chain", "draw")).squeeze().to_numpy()
    assert np.corrcoef(draws)[0, 1] > 0.3


def exact_pooling(seen, arm, rng):
    """Return means of A + B and of ρ: in closed form given ρ, which is drawn from its prior and weighted."""
    same, ones = (arm[:, None] == arm).astype(float), np.eye(len(arm))
    rho = rng.dirichlet([1.0, 1.0, 2.0], 4000)
    log_weights, means = [], []
    for common, of_task, of_seed in rho:
        covariance = common * same + (of_task + of_seed + 1.0) * ones
        pulled = np.linalg.solve(covariance, seen)
        log_weights.append(-0.5 * np.linalg.slogdet(covariance)[1] - 0.5 * seen @ pulled)
        means.append((common * same + of_task * ones) @ pulled)
    weights = special.softmax(log_weights)
    return weights @ np.array(means), weights @ rho


def test_pooling_is_what_closed_forms_say():
    """Runs of two arms, each seen with variance 1, of one task and seed each."""
    rng = np.random.default_rng(3)
    arm = np.repeat([0, 1], 10)
    seen = np.where(arm == 0, -1.0, 1.0)[:, None] + rng.normal(size=(20, 3))
    # Under the prior N(0, 1) an observation of variance 1 is halved, and so is the variance.
    found = pool(0.5 * seen, np.tile(0.5 * np.eye(3), (20, 1, 1)), Groups(arm, np.arange(20)), 500, rng)
    for place in range(3):
        centre, shares = exact_pooling(seen[:, place], arm, rng)
        # Draws have a standard deviation of 0.5, and some 100 of them are independent.
        np.testing.assert_allclose(found.mean[..., place].mean(axis=0), centre, atol=0.2)
        np.testing.assert_allclose(found.shares[:, place].mean(axis=0), shares, atol=0.12)


@pytest.mark.slow
def test_a_pooled_run_has_the_prior_of_one_that_is_not():
    """Without answers the scores of a run are standard normal whatever it is grouped with."""
    rng = np.random.default_rng(4)
    covariance = np.tile(0.9999 * np.eye(3), (6, 1, 1))
    found = pool(np.zeros((6, 3)), covariance, Groups(np.repeat([0, 1], 3), np.arange(6) // 2), 2000, rng)
    drawn = found.mean + found.sd[:, None] * rng.normal(size=found.mean.shape)
    assert abs(drawn.std() - 1.0) < 0.06
    assert abs(drawn.mean()) < 0.1


def test_new_tasks_and_retests_are_not_pooled_with_the_others():
    runs = pd.DataFrame(
        {"task": ["x", "y", "new"], "arm": ["a"] * 3, "seed": ["0"] * 3, "checkpoint": [1] * 3}
    )
    groups = groups_of(runs, ["new"])
    assert groups.arm[0] == groups.arm[1] != groups.arm[2]
    assert len(set(groups.task)) == 3
    # Two seeds of a task are one group of it, another arm or checkpoint is not.
    runs = pd.DataFrame(
        {"task": ["x"] * 4, "arm": list("aaab"), "seed": list("0100"), "checkpoint": [1, 1, 2, 1]}
    )
    groups = groups_of(runs, [])
    for of in groups:
        assert of[0] == of[1]
        assert len(set(of[1:])) == 3


def test_a_pooled_law_belongs_to_its_run():
    """Runs that say 3 and -3 by task, of which retests are left out; rows are not in the order of tasks."""
    runs = pd.DataFrame({"task": list("xyxyxy"), "arm": ["base"] * 2 + ["a"] * 4, "seed": list("000011")})
    runs = runs.assign(checkpoint=1, is_retest=runs["arm"] == "base").set_index(np.arange(10, 16))
    by_task = [(task, frame.index.to_numpy()) for task, frame in runs.groupby("task")]
    # A chunk is padded by a run of no items.
    laws = [
        fast.Law(np.zeros(3), np.eye(3), np.full((4, 6), at), np.tile(0.01 * np.eye(6), (4, 1, 1)))
        for at in (3.0, -3.0)
    ]
    found = _pooled(runs, laws, by_task, [], 400, np.random.default_rng(5))
    assert (found.mean[:, :2] == 0.0).all()
    assert (found.sd[:, :2] == 1.0).all()
    of_runs = found.mean[:, 2:].mean(axis=0)
    assert (of_runs * np.array([1.0, -1.0, 1.0, -1.0])[:, None] > 2.0).all()
    assert (found.sd[:, 2:] < 1.0).all()
    # What differs by task and not by seed is put down to the task.
    assert (found.shares[..., 1].mean(axis=0) > found.shares[..., 2].mean(axis=0)).all()


def words_of(cells, **settings):
    tree = measure_paired(cells, **(FAST | settings))
    return tree["sample_stats"]["words"].to_numpy().ravel().tolist()


@pytest.mark.usefixtures("one_shape")
def test_one_answer_an_item_is_said_to_tell_little():
    cells = sim.paired(sim.repeats(np.random.default_rng(5), sim.Truth(500, 1, 1), [(0.2, 0.0, 0.3)]))
    (words,) = words_of(cells)
    assert words.startswith("weak: one answer an item cannot tell mass lost from drift")
    assert "answers an item of base and run would give it to 0.15" in words
    assert "one training seed" in words


@pytest.mark.slow
def test_a_base_that_differs_from_itself_is_not_trusted():
    rng = np.random.default_rng(6)
    frame = sim.repeats(rng, sim.Truth(500, 4, 4), [(0.0, 0.0, 0.0), (0.1, 0.0, 0.0)])
    labels = {"arm": ["base", "a"], "is_retest": [True, False]}
    alike, run = words_of(sim.paired(frame, **labels))
    assert alike == "good"
    assert run.startswith("good: one training seed")
    frame = sim.repeats(rng, sim.Truth(500, 4, 4), [(0.1, -1.0, 1.0), (0.1, 0.0, 0.0)])
    differs, run = words_of(sim.paired(frame, **labels))
    assert "a second evaluation of the base differs" in differs
    assert run.startswith("not to be trusted: the base, evaluated twice, differs")


@pytest.mark.slow
def test_mass_lost_on_half_of_the_items_is_seen():
    rng = np.random.default_rng(7)
    truth = sim.Truth(2000, 8, 8, mean=1.0, sd=4.0)
    p = special.expit(rng.normal(truth.mean, truth.sd, truth.num_items))
    kept = np.where(np.arange(truth.num_items) % 2, 0.6, 1.0)
    frame = sim.cells_of(rng.binomial(8, p), rng.binomial(8, kept * p), truth)
    assert words_of(sim.paired(frame))[0].startswith("not to be trusted: the model does not describe")
    frame = sim.cells_of(rng.binomial(8, p), rng.binomial(8, 0.8 * p), truth)
    assert words_of(sim.paired(frame))[0].startswith("good")


@pytest.mark.slow
@pytest.mark.parametrize("right", [0, 1])
def test_all_right_or_all_wrong_has_a_posterior_all_the_same(right):
    frame = sim.cells_of(np.full(40, 2 * right), np.full(40, 2 * right), sim.Truth(40, 2, 2))
    posterior = measure_paired(sim.paired(frame), **FAST)["posterior"].to_dataset()
    assert np.isfinite(posterior.to_array()).all()
    assert abs(float(posterior["accuracy"].mean()) - right) < 0.1


@pytest.mark.usefixtures("one_shape")
def test_one_item_has_a_posterior_all_the_same():
    frame = sim.cells_of([1], [0], sim.Truth(1, 1, 1))
    posterior = measure_paired(sim.paired(frame), **FAST)["posterior"].to_dataset()
    assert np.isfinite(posterior.to_array()).all()


@pytest.mark.usefixtures("one_shape")
def test_fractional_scores_are_said_to_widen():
    rng = np.random.default_rng(8)
    frame = sim.cells_of(rng.uniform(size=30), rng.uniform(size=30), sim.Truth(30, 1, 1))
    assert "scores between 0 and 1" in words_of(sim.paired(frame))[0]


def test_comparison_finds_the_arm_that_forgot_less(tree):
    found = compare_evals(tree, rope={"lost": 0.02})["comparison"].to_dataset()
    assert found["task"].to_numpy().tolist() == ["old one", "old two", ALL]
    pair = found.sel(run="a", other="b")
    assert (pair["lost_probability_smaller"] > 0.99).all()
    truth = pair["lost_difference_interval"].sel(task=ALL)
    assert truth.sel(ci_bound="upper") < -0.1
    total = sum(pair[f"lost_probability_{w}"] for w in ("smaller", "larger", "equivalent"))
    np.testing.assert_allclose(total, 1.0)
    same = found.sel(run="a", other="a")
    np.testing.assert_allclose(same["lost_probability_equivalent"], 1.0)


def test_comparison_at_matched_gain_reads_between_checkpoints(tree):
    found = compare_evals(tree, at="matched_gain")["comparison"]
    posterior = tree["posterior"].to_dataset()
    last = posterior["accuracy_change"].sel(task="new", checkpoint=200)
    assert 0.0 < found.attrs["level"] < float(last.max())
    lost = found["lost"].sel(task="old one", run="b")
    assert float(lost) < float(posterior["lost"].sel(task="old one", arm="b", checkpoint=200).mean())


@pytest.mark.usefixtures("one_shape")
def test_comparison_refuses_what_it_cannot_compare(tree):
    with pytest.raises(InputError, match="checkpoint"):
        compare_evals(tree, at="999")
    with pytest.raises(InputError, match="rope"):
        compare_evals(tree, rope={"other": 0.1})
    with pytest.raises(InputError, match="matched_gain"):
        compare_evals(tree, gain=0.1)
    one = sim.paired(sim.repeats(np.random.default_rng(9), sim.Truth(30, 2, 2), [(0.1, 0.0, 0.3)]))
    with pytest.raises(InputError, match="two arms"):
        compare_evals(measure_paired(one, **FAST))
    with pytest.raises(InputError, match="new_tasks"):
        measure_paired(one, new_tasks=["absent"], **FAST)
