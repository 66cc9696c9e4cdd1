"""Plans of evaluations: information and limits by other means, the command, simulation."""

import numpy as np
import pandas as pd
import pytest
from evals_simulation import Truth, paired, repeats
from scipy import special, stats

import inference
from inference.intervals import interval
from inference.measurement.evals import designs, planning
from inference.measurement.evals.base_law import base_law
from inference.measurement.evals.measure_evals import measure_paired
from inference.measurement.evals.prior import LOCATION_SCALE, LOG_SD, LOGISTIC_VARIANCE


def truth_of(*run, mean=1.0, sd=3.0, guess=0.0, k=None):
    return planning.truth_of(mean, sd, guess, k, *run)


def cells_by_sums(x, inverse_choices, num_base, num_run):
    """Return the probability of each pair of counts by a dense sum over the two logits."""
    sd = np.exp(LOG_SD[0] + LOG_SD[1] * x[1])
    mean = LOCATION_SCALE * x[0] * np.sqrt(sd**2 + LOGISTIC_VARIANCE)
    guess = (1.0 - special.ndtr(-x[2]) ** 2) * inverse_choices
    z = np.linspace(-7.0, 7.0, 401)
    weights = stats.norm.pdf(z) / stats.norm.pdf(z).sum()
    a = mean + sd * z
    b = a[:, None] + x[3] + np.sqrt(x[4]) * z
    before = guess + (1.0 - guess) * special.expit(a)
    after = guess + (1.0 - guess) * (1.0 - x[5]) * special.expit(b)
    of_base = stats.binom.pmf(np.arange(num_base + 1)[:, None], num_base, before)
    of_run = stats.binom.pmf(np.arange(num_run + 1)[:, None, None], num_run, after) @ weights
    return (of_base * weights) @ of_run.T


@pytest.mark.parametrize(("run", "k"), [((0.1, -0.3, 0.8), 4), ((0.02, 0.0, 0.4), None)])
def test_information_by_sums(run, k):
    truth = truth_of(*run, guess=0.15 if k else 0.0, k=k)
    num_base, num_run = 3, 2
    x = np.array([*truth.task_scores, run[1], run[2] ** 2, run[0]])
    size = 1e-4
    moves = size * np.eye(6)
    cells = cells_by_sums(x, truth.inverse_choices, num_base, num_run)
    slopes = [
        cells_by_sums(x + move, truth.inverse_choices, num_base, num_run)
        - cells_by_sums(x - move, truth.inverse_choices, num_base, num_run)
        for move in moves
    ]
    slopes = np.array(slopes).reshape(6, -1) / (2.0 * size)
    expected = (slopes / cells.ravel()) @ slopes.T
    found = planning.information(truth, num_base, num_run)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("quantity", ["lost", "accuracy_change"])
def test_surfaces_by_sums(quantity):
    truth = truth_of(0.05, -0.1, 0.0, guess=0.2, k=4)
    of = planning.surface(truth, quantity)
    z = np.linspace(-8.0, 8.0, 2001)
    weights = stats.norm.pdf(z) / stats.norm.pdf(z).sum()
    a = 1.0 + 3.0 * z

    def by_sums(mass_lost, drift, drift_spread):
        after = (1.0 - mass_lost) * special.expit(a[:, None] + drift + drift_spread * z)
        change = 0.8 * (after - special.expit(a)[:, None])
        return weights @ (np.maximum(-change, 0.0) if quantity == "lost" else change) @ weights

    assert of.value == pytest.approx(by_sums(0.05, -0.1, 0.0), abs=1e-4)
    for run in ((0.03, 0.15, 0.3), (0.0, 0.0, 0.9), (0.2, -1.2, 2.5)):
        found = of.at(np.array([run[0] ** 0.5]), np.array([run[2]]), np.array([run[1]]))
        assert found == pytest.approx(by_sums(*run), abs=1e-3)


def test_many_items_far_from_bounds_are_normal():
    truth = truth_of(0.3, -0.2, 1.0)
    item, num_items = planning.per_item(truth, 8, 8), 200_000.0
    sd = np.sqrt(
        np.diag(np.linalg.inv(num_items * item.information[np.ix_([0, 1, 3, 4, 5], [0, 1, 3, 4, 5])]))
    )
    for quantity, exact in (("old_weight", sd[4]), ("drift", sd[2])):
        found = planning.expected(item, planning.surface(truth, quantity), num_items)
        assert found.width == pytest.approx(2.0 * stats.norm.ppf(0.945) * exact, rel=0.04)
        assert found.sd == pytest.approx(exact, rel=0.05)


def test_nothing_lost_is_half_a_normal_law():
    # The posterior of m is its prior, m^(-1/2) near 0, times a normal law that is cut at 0.
    truth = truth_of(0.0, 0.0, 1.0)
    item, num_items = planning.per_item(truth, 8, 8), 1e7
    free = [0, 1, 3, 4, 5]
    sd = np.sqrt(np.linalg.inv(num_items * item.information[np.ix_(free, free)])[4, 4])
    assert sd < 1e-3
    root = np.linspace(0.0, 2.7, 4001)
    widths = []
    for z in special.ndtri((0.5 + np.arange(400)) / 400):
        below = np.cumsum(np.exp(-0.5 * (root**2 - z) ** 2))
        low, high = np.interp([0.055, 0.945], below / below[-1], root**2)
        widths.append(high - low)
    found = planning.expected(item, planning.surface(truth, "old_weight"), num_items, rope=5.0 * sd)
    assert found.width / sd == pytest.approx(np.mean(widths), rel=0.06)
    assert found.power == 0.0


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_an_arm_of_several_seeds(seeds):
    rng, sd, effect = np.random.default_rng(seeds), 0.3, 0.5
    runs = effect + sd * rng.standard_normal((200_000, seeds))
    half = stats.t.ppf(0.945, seeds - 1) * runs.std(axis=1, ddof=1) / np.sqrt(seeds)
    error = (2.0 * half).std() / np.sqrt(len(half))
    assert designs.arm_width(sd, seeds) == pytest.approx((2.0 * half).mean(), abs=5.0 * error)
    seen = runs.mean(axis=1) - half > 0.0
    assert designs.arm_power(effect, sd, seeds) == pytest.approx(
        seen.mean(), abs=5.0 * 0.5 / np.sqrt(len(seen))
    )


def question(truth, goal="width", wanted=0.05, quantity="old_weight", **settings):
    return designs.Question(truth, quantity, goal, wanted, 0.01, **settings)


def test_a_plan_reaches_what_is_wanted_and_no_fewer_items_do():
    asked = question(truth_of(0.1))
    found = designs.plan(asked, [2, 8])
    for design in found.by_answers:
        assert 0.94 * asked.wanted < design.width <= asked.wanted
        assert design.cost == design.items * 2 * design.answers
        item = planning.per_item(asked.truth, design.answers, design.answers)
        fewer = planning.expected(item, planning.surface(asked.truth, "old_weight"), 0.8 * design.items)
        assert fewer.width > asked.wanted
    assert designs.cheapest(found.by_answers).answers == 8
    assert not found.by_seeds


@pytest.mark.slow
def test_seeds_cost_answers_of_their_own_and_items_do_not_replace_them():
    asked = question(truth_of(0.1), seed_sd=0.01, base_answers=4)
    found = designs.plan(asked, [2, 8])
    for design in (*found.by_answers, *found.by_seeds):
        if np.isfinite(design.items):
            assert design.cost == design.items * (4 + design.seeds * design.answers)
    assert designs.arm_width(0.01, found.seeds) < asked.wanted
    costs = [design.cost for design in found.by_seeds if np.isfinite(design.cost)]
    assert costs == sorted(costs, reverse=True)
    # Two seeds alone have a wider interval than is wanted.
    too_few = designs.plan(question(truth_of(0.1), wanted=0.04, seed_sd=0.01), [8], seeds=2)
    assert np.isnan(too_few.by_answers[0].items)


def base_table(rng, num_items, num, mean=2.0, sd=5.0, guess=0.2):
    known = special.expit(rng.normal(mean, sd, num_items))
    right = rng.uniform(size=(num, num_items)) < guess + (1.0 - guess) * known
    items, samples = np.meshgrid(np.arange(num_items), np.arange(num))
    table = {"item": items.ravel(), "sample": samples.ravel(), "score": right.ravel().astype(float)}
    return pd.DataFrame(table | {"arm": "base", "checkpoint": "base", "num_choices": 4})


def test_the_law_of_items_from_a_log(tmp_path):
    base_table(np.random.default_rng(0), 4000, 6).to_csv(tmp_path / "base.csv", index=False)
    law = base_law([str(tmp_path / "base.csv")])
    assert (law.num_items, law.num_answers, law.num_choices) == (4000, 6.0, 4)
    assert law.item_mean == pytest.approx(2.0, abs=0.4)
    assert law.item_sd == pytest.approx(5.0, abs=0.6)
    assert law.guess_rate == pytest.approx(0.2, abs=0.02)


def test_the_command_plans_from_a_log(massdrift, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    base_table(np.random.default_rng(0), 300, 4).to_csv(tmp_path / "base.csv", index=False)
    given = ["--base", tmp_path / "base.csv", "--power=0.8", "--mass-lost=0.1", "--answers=1", "--answers=8"]
    code, printed, _ = massdrift("plan-evals", *given, "--quiet", "--out", tmp_path / "out")
    assert code == 0
    assert "see a mass lost of 0.1 with probability 0.8" in printed
    assert "300 items with 4 answers each" in printed
    lines = printed.split("The base's log")[0].splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in printed
    table = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("answers")
    assert table["cheapest"].to_dict() == {1: False, 8: True}
    assert np.isnan(table.loc[1, "items"])
    assert table.loc[8, "power"] >= 0.8
    assert table.loc[8, "false_alarm"] < 0.05
    names = {"plan.png", "plan.svg", "results.zarr", "settings.toml", "report.html", "summary.csv"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    tree = inference.open(tmp_path / "out" / "results.zarr")
    for group in ("plan", "curve"):
        variables = tree[group].to_dataset().variables
        assert all({"long_name", "units"} <= set(v.attrs) for v in variables.values())
    code, again, _ = massdrift("plan-evals", "--config", tmp_path / "out" / "settings.toml", "--quiet")
    assert code == 0
    assert again.splitlines()[:8] == printed.splitlines()[:8]


def test_the_command_plans_seeds(massdrift, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    given = ["--of=accuracy_change", "--width=0.03", "--seed-sd=0.01", "--num-choices=4", "--answers=4"]
    code, printed, _ = massdrift("plan-evals", *given, "--quiet")
    assert code == 0
    assert "The cheapest with other numbers of training seeds" in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert "nan" not in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--of=magic"], "of must be one of old_weight, drift, lost, accuracy_change; got 'magic'"),
        (["--width=0.1", "--power=0.9"], "width or power must be wanted, not both; got 0.1 and 0.9"),
        (["--width=0"], "width must be greater than 0; got 0"),
        (["--power=1"], "power must lie in (0, 1); got 1"),
        (["--mass-lost=0.01"], "loss in old_weight must be greater than rope, 0.01, to be seen; got 0.01"),
        (["--of=drift"], "loss in drift must be greater than rope, 0.01, to be seen; got 0"),
        (
            ["--mass-lost=0.01", "--of=lost"],
            "loss in lost must be greater than rope, 0.01, to be seen",
        ),
        (["--answers=0"], "answers must be at least 1; got 0"),
        (["--answers=33"], "answers must be at most 32; got 33"),
        (["--answers=4", "--answers=4"], "answers must be different numbers; got 4, 4"),
        (["--max-items=10"], "max_items must be at least 50; got 10"),
        (["--seeds=3"], "seeds must come with seed_sd, their spread; got seeds 3 alone"),
        (["--seed-sd=-1"], "seed_sd must be at least 0; got -1"),
        (["--guess-rate=0.2"], "guess_rate must come with num_choices; got 0.2"),
        (["--guess-rate=0.5", "--num-choices=4"], "guess_rate must lie in [0, 1/4]; got 0.5"),
        (["--accuracy=0.2", "--num-choices=4"], "accuracy must lie in (0.25, 1); got 0.2"),
        (["--item-sd=100"], "item_sd must lie in [0.1, 20]; got 100"),
        (["--task=gpqa"], "task and metric belong to a log of the base; there is none"),
        (
            ["--base=nowhere", "--accuracy=0.5"],
            "accuracy must be given or read from",
        ),
        (["--base=nowhere"], "a path of logs must exist; nowhere does not"),
    ],
)
def test_bad_input_is_one_sentence(massdrift, tmp_path, arguments, sentence):
    code, printed, error = massdrift("plan-evals", *arguments, "--quiet", "--out", tmp_path / "out")
    assert code == 2
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert printed == ""
    assert list(tmp_path.iterdir()) == []


def test_a_log_of_several_tasks_needs_a_name(massdrift, tmp_path):
    table = base_table(np.random.default_rng(0), 20, 2)
    pd.concat([table.assign(task=name) for name in "ab"]).to_csv(tmp_path / "base.csv", index=False)
    for more, sentence in (([], "got none"), (["--task=c"], "got c")):
        code, _, error = massdrift("plan-evals", "--base", tmp_path / "base.csv", *more, "--quiet")
        assert code == 2
        assert f"task must name one of a, b; {sentence}" in error


#: A plan, what of it is simulated, and the base: mean and sd of the logits, guess rate, choices.
SIMULATED = {
    "mass": (question(truth_of(0.05, mean=1.5, sd=6.0), "power", 0.9), (1.5, 6.0, 0.0, np.nan)),
    "lost": (
        question(truth_of(0.1, -0.3, 0.5, mean=2.0, sd=5.0, guess=0.2, k=4), "width", 0.05, "lost"),
        (2.0, 5.0, 0.2, 4.0),
    ),
    "accuracy": (
        question(truth_of(0.08, mean=1.0, sd=4.0), "power", 0.7, "accuracy_change"),
        (1.0, 4.0, 0.0, np.nan),
    ),
    "nothing": (question(truth_of(0.0, mean=1.5, sd=6.0), "width", 0.02), (1.5, 6.0, 0.0, np.nan)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIMULATED)
def test_what_is_planned_is_what_is_measured(name):
    """Simulate the items of a design, measure them, and look at its intervals."""
    asked, base = SIMULATED[name]
    (design,) = designs.plan(asked, [4]).by_answers
    num, rng = 60, np.random.default_rng(1)
    simulated = Truth(int(design.items), 4, 4, *base)
    run = (asked.truth.mass_lost, asked.truth.drift, asked.truth.drift_spread)
    frames = [repeats(rng, simulated, [run]).assign(run=number) for number in range(num)]
    # New tasks of different arms are not pooled.
    tasks, arms = ([f"{kind}{number}" for number in range(num)] for kind in ("task", "arm"))
    tree = measure_paired(
        paired(pd.concat(frames, ignore_index=True), task=tasks, arm=arms), new_tasks=tasks, progress=False
    )
    limits = interval(tree["posterior"][asked.quantity]).transpose("ci_bound", ...).to_numpy().reshape(2, -1)
    low, high = limits[:, np.isfinite(limits[0])]
    assert len(low) == num
    widths = high - low
    error = widths.std(ddof=1) / np.sqrt(num)
    of = planning.surface(asked.truth, asked.quantity)
    seen = of.sign * ((low if of.sign > 0.0 else high) - of.nothing) > asked.rope
    print(f"{name}: {design} measured width {widths.mean():.4f} ± {error:.4f}, seen {seen.mean():.3f}")
    assert widths.mean() == pytest.approx(design.width, rel=0.15, abs=2.0 * error)
    # Three binomial standard errors, and 0.05 by which the plan itself may be off.
    assert abs(seen.mean() - design.power) < 3.0 * np.sqrt(design.power * (1.0 - design.power) / num) + 0.05
