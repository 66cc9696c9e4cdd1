"""A training that left the sensible range is diverged, in every engine; one that works never is."""

import numpy as np
import pandas as pd
import pytest

from inference import population_descent, sweep, train
from mixture_models import InputError, TwoMode, TwoModeLearner, objectives
from mixture_models.mixture.sensible_range import FARTHEST, LARGEST_LOGIT, has_left, reach

TARGET = TwoMode.create(0.5, [0.0, 0.0], [4.0, 0.0])
START = TARGET.replace(old_weight=0.9, new_mean=[2.5, 0.0])
CHOSEN = [objectives.reverse_kl(), objectives.sft()]
# One batch size, one number of replicates and 64 records or fewer: all tests train by the same programs.
SETTINGS = {"num_steps": 50, "batch_size": 8, "num_replicates": 4, "seed": 0, "progress": False}


def left(start=START, target=TARGET, dimension=None, **params):
    return bool(has_left(start, target, {n: np.asarray(v) for n, v in params.items()}, dimension))


def test_the_range_is_what_it_says():
    assert float(reach(START, TARGET)) == pytest.approx(2**0.5 + 4.0)
    assert float(reach(START.replace(old_mean=[0.0, 30.0]), TARGET, 100)) == pytest.approx(10.0 + 30.0)
    farthest = FARTHEST * (2**0.5 + 4.0)
    for name in ("old_mean", "new_mean", "mean"):
        assert not left(**{name: [0.0, 0.999 * farthest]})
        assert left(**{name: [0.0, 1.001 * farthest]})
        assert left(**{name: [np.inf, 0.0]})
    for name, end in (("old_logit", -LARGEST_LOGIT), ("scale", farthest)):
        assert left(**{name: 1.01 * end})
        assert not left(**{name: 0.99 * end})
    # What is measured is no divergence: nothing of the old task is left, or the modes lie on one another.
    assert not left(old_logit=-800.0, old_mean=[4.0, 0.0], new_mean=[-300.0, 200.0])


def test_the_range_is_in_units_of_the_problem():
    """The same in coordinates that are a million times as large, or with a covariance of its own."""
    matrix = np.array([[2.0, 0.6], [0.6, 0.5]])
    root = np.linalg.cholesky(matrix)
    for turn in (1e6 * np.eye(2), root):
        covariance = turn @ turn.T
        target = TwoMode.create(0.5, [0.0, 0.0], turn @ TARGET.new_mean, covariance)
        start = target.replace(new_mean=turn @ START.new_mean)
        for factor in (0.999, 1.001):
            mean = turn @ np.array([0.0, factor * FARTHEST * (2**0.5 + 4.0)])
            assert left(start, target, old_mean=mean) == (factor > 1.0)


@pytest.mark.parametrize(
    ("chosen", "dimension"),
    [
        (CHOSEN, None),
        pytest.param(CHOSEN[1:], 1000, marks=pytest.mark.slow),
        pytest.param(CHOSEN, 1000, marks=pytest.mark.slow),
    ],
    ids=["coordinates", "span of sft", "span"],
)
@pytest.mark.parametrize("rate", [50.0, 1e8])
def test_a_destroyed_training_is_diverged(rate, chosen, dimension):
    """Not so where only what is not finite counted: retention 0.5 at an old drift of 10¹⁷."""
    tree = train(
        chosen,
        START,
        TARGET,
        learning_rate=rate,
        dimension=dimension,
        **SETTINGS,
    )
    diverged = tree["trajectory_stats"]["diverged_step"].values
    assert np.all(diverged >= 1)
    assert np.all(np.isnan(tree["final"]["retention"]))
    drift = tree["trajectory"]["old_drift"].values
    farthest = FARTHEST * (4.0 + np.sqrt(dimension or 2))
    assert np.nanmax(drift) <= farthest
    steps = np.arange(51)
    np.testing.assert_array_equal(np.isnan(drift), steps >= diverged[..., None])


def test_between_two_records_it_is_noticed_at_its_step():
    settings = SETTINGS | {"learning_rate": 50.0}
    every, last = (
        train(objectives.sft(), START, TARGET, record_every=n, **settings)["trajectory_stats"]
        for n in (1, 50)
    )
    assert np.all(every["diverged_step"] > 0)
    np.testing.assert_array_equal(every["diverged_step"], last["diverged_step"])


def test_scales_that_grow_without_end_are_diverged():
    learner = TwoModeLearner(train_scales=True)
    settings = SETTINGS | {"learning_rate": 5.0}
    tree = train(objectives.sft(replay=0.5, learner=learner), START, TARGET, **settings)
    assert np.all(tree["trajectory_stats"]["diverged_step"] >= 1)
    assert np.nanmax(tree["trajectory"]["scale"]) <= FARTHEST * 6.0  # else 10²², on the way to not finite


@pytest.mark.slow
def test_a_sweep_counts_what_train_counts(tmp_path):
    tree = sweep(
        objectives.sft(),
        {"learning_rate": [0.05, 50.0]},
        start=START,
        target=TARGET,
        store=tmp_path / "sweep.zarr",
        learning_rate=0.05,
        **SETTINGS,
    )
    diverged = tree["trajectory_stats"]["diverged_step"].load()
    assert np.all(diverged.sel(learning_rate=0.05) == -1)
    assert np.all(diverged.sel(learning_rate=50.0) > 0)
    single = train(objectives.sft(), START, TARGET, learning_rate=50.0, **SETTINGS)
    np.testing.assert_array_equal(
        diverged.sel(learning_rate=50.0), single["trajectory_stats"]["diverged_step"]
    )


def test_an_exact_descent_that_left_is_refused():
    with pytest.raises(InputError, match="sft must stay finite, and within 1000 times the reach"):
        population_descent(objectives.sft(), START, TARGET, num_steps=50, learning_rate=50.0)


@pytest.mark.parametrize("chosen", [CHOSEN, pytest.param(None, marks=pytest.mark.slow)], ids=["two", "all"])
def test_no_training_that_works_is_diverged(chosen):
    chosen = chosen or [objectives.parse(text) for text in objectives.by_default()]
    for rate in (0.05, 0.5):
        settings = SETTINGS | {"num_steps": 200, "record_every": 4, "learning_rate": rate}
        tree = train(chosen, START, TARGET, **settings)
        assert np.all(tree["trajectory_stats"]["diverged_step"] == -1)


@pytest.mark.parametrize(
    ("chosen", "drawn"),
    [(["sft"], False), pytest.param(["reverse_kl", "sft"], True, marks=pytest.mark.slow)],
    ids=["table", "figures"],
)
def test_compare_says_how_many_diverged(massdrift, tmp_path, monkeypatch, chosen, drawn):
    if not drawn:
        monkeypatch.setattr("analyses.compare.plot", lambda tree: {})
    settings = ["--num-steps=50", "--num-replicates=4", "--batch-size=8", "--learning-rate=50"]
    settings += ["--record-every=1", "--quiet"]
    out = tmp_path / "out"
    code, printed, _ = massdrift("compare", *chosen, *settings, "--out", out)
    assert code == 0
    frame = pd.read_csv(out / "summary.csv")
    assert frame["num_diverged"].tolist() == [4] * len(chosen)
    assert frame[["retention", "old_coverage", "old_weight", "peak_old_drift"]].isna().all(axis=None)
    assert any(out.glob("*.png")) == drawn
    assert "within 1000 times the reach" in " ".join(printed.split())
