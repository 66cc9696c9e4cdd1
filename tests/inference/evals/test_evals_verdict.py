"""The verdict on a run: every reason is said where it holds, and nowhere else."""

import numpy as np
import pandas as pd
import pytest
from evals_simulation import paired_choices

from inference.measurement.evals import verdict
from inference.measurement.evals.measure_evals import measure_paired
from inference.measurement.evals.pairing import PARTLY

#: What is known of a run of which nothing must be said.
GOOD = {
    "kind": "repeats",
    "method": "laplace",
    "k_hat": 0.3,
    "r_hat": np.nan,
    "ess": np.nan,
    "divergences": np.nan,
    "deviation_base": 0.5,
    "deviation_together": -1.0,
    "deviation_always_right": 4.4,
    "deviation_never_right": np.nan,
    "deviation_from_base": np.nan,
    "is_retest": 0,
    "retest_differs": 0,
    "num_answers": 8.0,
    "mass_lost_width": 0.05,
    "answers_wanted": np.nan,
    "fractional": 0,
    "mean_choices": np.nan,
    "num_items": 960.0,
    "num_left_out": 40.0,
    "num_seeds": 2,
    "num_clusters": np.nan,
    "clustered_error": np.nan,
    "design_effect": np.nan,
    "cluster_p": np.nan,
    "neighbour_correlation": 0.04,
    "neighbour_errors": 6.0,
    "neighbour_design_effect": 2.0,
}
BY_NUTS = {"method": "nuts", "k_hat": 3.0, "r_hat": 1.01, "ess": 400.0, "divergences": 0.0}
BY_CHOICE = {"kind": "choices", "num_answers": 1.0, "mass_lost_width": np.nan, "mean_choices": 4.0}
CLUSTERED = {"num_clusters": 40.0, "cluster_p": 1e-6, "design_effect": 1.69, "clustered_error": 0.03}
TOGETHER = "items of one cluster change together: intervals are"
NEIGHBOURS = (
    "weak: items next to each other in the log change alike, as items of one text or subject do (correlation "
    "0.3): if they share a text, intervals are 1.4 times too narrow; a column of clusters would tell"
)
ONE_ANSWER = "weak: one answer an item cannot tell mass lost from drift, only how the accuracy has changed; "
BAD, OFF = "not to be trusted: ", "not to be trusted: the model does not describe the answers (off: "
RETEST = BAD + "a second evaluation of the base differs from the first by more than chance"


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({}, "good"),
        (BY_NUTS, "good"),
        (BY_CHOICE, "good"),
        ({"k_hat": 0.9}, BAD + "the fast path cannot be trusted here (k-hat 0.9 > 0.7)"),
        ({"k_hat": np.nan}, BAD + "the fast path cannot be trusted here (k-hat nan > 0.7)"),
        (BY_NUTS | {"r_hat": 1.05, "ess": 20.0}, BAD + "the chains disagree (R-hat 1.050)"),
        (BY_NUTS | {"ess": 150.0}, "weak: few independent draws (ESS 150)"),
        (BY_NUTS | {"divergences": 3.0}, "weak: 3 divergent transitions"),
        ({"deviation_base": 5.0}, OFF + verdict._OFF["base"] + ")"),
        ({"deviation_together": 5.0}, OFF + verdict._OFF["together"] + ")"),
        ({"deviation_always_right": 5.0}, OFF + verdict._OFF["always_right"] + ")"),
        ({"deviation_never_right": 5.0}, OFF + verdict._OFF["never_right"] + ")"),
        ({"is_retest": 1, "deviation_from_base": 4.0}, "good"),
        ({"is_retest": 1, "retest_differs": 1, "deviation_from_base": 5.0}, RETEST),
        ({"deviation_from_base": 5.0}, "good"),
        (
            {"retest_differs": 1},
            BAD + "the base, evaluated twice, differs by more than chance, and so may any run",
        ),
        ({"num_answers": 1.0}, ONE_ANSWER[:-2] + "; more items are needed, not only more answers"),
        (
            {"num_answers": 1.0, "answers_wanted": 4.0},
            ONE_ANSWER + "4 answers an item of base and run would give it to 0.15",
        ),
        (
            {"mass_lost_width": 0.2, "answers_wanted": 16.0},
            "weak: the mass lost is known to 0.2 only (width of its interval); 16 answers an item of base "
            "and run would give it to 0.15",
        ),
        (
            {"fractional": 1},
            "weak: scores between 0 and 1 count as parts of right answers: intervals are too wide rather "
            "than too narrow",
        ),
        (
            BY_CHOICE | {"mean_choices": 2.0},
            "weak: with two choices, guesses that persist cannot be told from what is known",
        ),
        (
            CLUSTERED,
            f"weak: {TOGETHER} 1.3 times too narrow (the standard error of the change of accuracy is 0.03)",
        ),
        (
            CLUSTERED | {"design_effect": 4.0},
            f"{BAD}{TOGETHER} 2 times too narrow (the standard error of the change of accuracy is 0.03)",
        ),
        (CLUSTERED | {"cluster_p": 2e-3}, "good"),
        (CLUSTERED | {"design_effect": 1.1}, "good"),
        ({"neighbour_correlation": 0.3}, NEIGHBOURS),
        ({"neighbour_correlation": 0.3, "neighbour_errors": 3.9}, "good"),
        # Clusters that are named and independent say more than the order of the log.
        (
            {"neighbour_correlation": 0.3, "num_clusters": 40.0, "cluster_p": 0.5, "design_effect": 1.0},
            "good",
        ),
        ({"num_left_out": 240.0}, "weak: 240 items (20 %) have no partner and are left out"),
        ({"num_seeds": 1}, "good: one training seed: the interval is of this run, not of the method"),
        ({"num_seeds": 1, "is_retest": 1}, "good"),
    ],
)
def test_every_reason_is_said_where_it_holds_alone(what, words):
    assert verdict.words_of(GOOD | what) == words


def test_the_worst_reason_comes_first_and_no_other_is_lost():
    words = verdict.words_of(GOOD | {"num_seeds": 1, "fractional": 1, "k_hat": 0.9})
    first, second, third = words.split("; ")
    assert first.startswith("not to be trusted: the fast path")
    assert second.startswith("scores between 0 and 1")
    assert third.startswith("one training seed")
    assert verdict.words_of(GOOD | {"num_seeds": 1, "fractional": 1}).endswith("; " + third)


def by_choice(arms, seeds, checkpoints):
    """Return runs of 400 items of one task, of 4 choices."""
    cells = dict(right_right=200, right_wrong=30, wrong_right=40, wrong_same=100, wrong_other=30)
    frame = pd.DataFrame([{"run": run, "num_choices": 4.0} | cells for run in range(len(arms))])
    return paired_choices(frame, arm=arms, seed=seeds, checkpoint=checkpoints)


def test_seeds_and_what_is_left_out_are_those_of_the_run():
    cells = by_choice(["a", "a", "b"], ["0", "1", "0"], [1, 1, 1])
    run = {"task": "task", "arm": "b", "seed": "0", "checkpoint": 1, "examples": ""}
    reasons = [("only in the base", 60), ("no score", 40), ("no score" + PARTLY, 1000)]
    left_out = pd.DataFrame([run | {"reason": reason, "num_items": num} for reason, num in reasons])
    found = measure_paired(cells._replace(left_out=left_out), progress=False)["sample_stats"].to_dataset()
    found = found.squeeze(["task", "checkpoint"])
    assert found["num_seeds"].sel(seed="0").to_numpy().tolist() == [2.0, 1.0]
    assert found["num_left_out"].sel(seed="0").to_numpy().tolist() == [0.0, 100.0]
    assert found["words"].sel(arm="a").to_numpy().tolist() == ["good", "good"]
    assert str(found["words"].sel(arm="b", seed="0").item()) == (
        "weak: 100 items (20 %) have no partner and are left out; one training seed: the interval is of this "
        "run, not of the method"
    )


def test_checkpoints_are_in_order_where_arms_have_different_ones():
    """The last checkpoint of arm b is 300, though 200 appears after it."""
    cells = by_choice(["a", "a", "b", "b", "b", "b"], ["0"] * 6, [100, 300, 100, 200, 300, 1000])
    posterior = measure_paired(cells, progress=False)["posterior"].to_dataset()
    assert posterior["checkpoint"].to_numpy().tolist() == [100, 200, 300, 1000]
    there = posterior["lost"].isel(chain=0, draw=0).squeeze().notnull()
    assert there.sel(arm="a").to_numpy().tolist() == [True, False, True, False]
    assert there.sel(arm="b").all()
    names = by_choice(["a", "a", "b", "b"], ["0"] * 4, [20, "last", 100, "last"])
    posterior = measure_paired(names, progress=False)["posterior"]
    assert posterior["checkpoint"].to_numpy().tolist() == ["20", "100", "last"]
