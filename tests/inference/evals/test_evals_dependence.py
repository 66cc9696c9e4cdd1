"""Items that depend on each other: clustered errors against closed forms, and how often there is an alarm."""

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from inference.measurement.evals import verdict
from inference.measurement.evals.dependence import dependence
from inference.measurement.evals.measure_evals import measure_paired
from inference.measurement.evals.pairing import pair
from inference.measurement.evals.readers import read

NONE = -1


def alarms(found):
    """Return whether the verdict speaks of clusters, and of neighbours."""
    stats = found._asdict()
    return bool(verdict._clusters(stats)), bool(verdict._neighbours(stats | {"num_clusters": np.nan}))


def answered(rng, num_items, num_answers, *, spread, shared, size=5, drift=-0.3, sd=4.0):
    """Return mean scores of base and run and clusters; a share of each item's drift is its cluster's."""
    cluster = np.arange(num_items) // size
    a = rng.normal(1.0, sd, num_items)
    own, common = rng.normal(size=(2, num_items))
    b = a + drift + spread * (np.sqrt(1.0 - shared) * own + np.sqrt(shared) * common[cluster])
    base, run = (rng.binomial(num_answers, special.expit(x)) / num_answers for x in (a, b))
    return base, run, cluster


def test_the_clustered_error_is_that_of_the_clusters_means():
    """Of clusters of one size: the standard error of the mean of their means."""
    rng = np.random.default_rng(0)
    base, run, cluster = answered(rng, 600, 4, spread=2.0, shared=0.8, size=6)
    mixed = rng.permutation(600)
    found = dependence(base[mixed], run[mixed], cluster[mixed])
    change = run - base
    error = stats.sem(change.reshape(100, 6).mean(axis=1))
    assert found.num_clusters == 100
    assert found.clustered_error == pytest.approx(error)
    assert found.design_effect == pytest.approx((error / stats.sem(change)) ** 2)
    # One item a cluster is no cluster, and items without one are clusters of their own.
    alone = dependence(base, run, np.arange(600))
    assert np.isnan(alone.design_effect)
    half = dependence(base, run, np.where(cluster < 50, cluster, NONE))
    assert half.num_clusters == 350
    assert np.isnan(dependence(base, run, np.full(600, NONE)).num_clusters)


def test_a_change_that_is_copied_within_its_cluster_has_the_design_effect_of_its_size():
    rng = np.random.default_rng(1)
    change = np.repeat(rng.choice([-0.5, 0.0, 0.5], 100), 4)
    found = dependence(np.full(400, 0.5), 0.5 + change, np.arange(400) // 4)
    assert found.design_effect == pytest.approx(4.0 * 399.0 / 400.0 * 100.0 / 99.0)
    # Neighbours: 3 of 4 pairs are of one cluster.
    assert found.neighbour_correlation == pytest.approx(0.75, abs=0.1)
    assert alarms(found) == (True, True)


def test_p_is_that_of_items_that_are_dealt_into_clusters_at_random():
    rng = np.random.default_rng(2)
    base, run, cluster = answered(rng, 400, 4, spread=1.5, shared=0.0)
    observed = dependence(base, run, cluster)
    away = (run - base) - (run - base).mean()
    dealt = np.array([np.bincount(cluster, weights=rng.permutation(away)) for _ in range(4000)])
    squares = np.square(dealt).sum(axis=1)
    share = np.mean(squares >= np.square(np.bincount(cluster, weights=away)).sum())
    assert observed.cluster_p == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(
    ("num_items", "num_answers", "spread", "sd"),
    [(60, 1, 0.0, 8.0), (300, 1, 0.1, 8.0), (300, 8, 1.0, 4.0), (2000, 1, 0.0, 8.0)],
)
def test_independent_items_raise_no_alarm(num_items, num_answers, spread, sd):
    """Of 1,000 logs one is expected to by its clusters, and fewer by neighbours."""
    rng = np.random.default_rng(3)
    found = np.array(
        [
            alarms(dependence(*answered(rng, num_items, num_answers, spread=spread, shared=0.0, sd=sd)))
            for _ in range(1000)
        ]
    )
    assert (found.sum(axis=0) <= [6, 1]).all()


@pytest.mark.parametrize(
    ("num_items", "num_answers", "least"), [(1000, 1, 0.95), (200, 8, 0.9), (1000, 8, 0.99)]
)
def test_clusters_that_move_together_are_seen_by_name_and_by_place(num_items, num_answers, least):
    rng = np.random.default_rng(4)
    found = [
        alarms(dependence(*answered(rng, num_items, num_answers, spread=3.0, shared=1.0))) for _ in range(100)
    ]
    assert (np.mean(found, axis=0) >= least).all()


def test_items_in_order_of_difficulty_are_independent():
    """Hard items can only be won and easy ones only be lost, so neighbours change alike."""
    rng = np.random.default_rng(5)
    base, run, cluster = answered(rng, 2000, 8, spread=2.0, shared=0.0)
    order = np.argsort(base, kind="stable")
    found = dependence(base[order], run[order], cluster)
    assert abs(found.neighbour_errors) < 4.0
    change = (run - base)[order]
    assert np.corrcoef(change[1:], change[:-1])[0, 1] > 0.08


def test_few_changes_say_nothing():
    base = np.ones(1000)
    run = base.copy()
    run[[10, 11]] = 0.0
    found = dependence(base, run, np.arange(1000) // 10)
    assert np.isnan(found.cluster_p)
    assert np.isnan(found.neighbour_errors)
    assert all(np.isnan(dependence(base, base, np.arange(1000) // 10)[2:]))


def table(rng, named):
    base, run, cluster = answered(rng, 300, 4, spread=3.0, shared=1.0)
    rows = []
    for arm, scores in (("base", base), ("a", run)):
        for item, score in enumerate(scores):
            rows += [(arm, f"q{item}", sample, float(sample < round(4 * score))) for sample in range(4)]
    frame = pd.DataFrame(rows, columns=["arm", "item", "sample", "score"])
    if named:
        frame["template"] = frame["item"].str[1:].astype(int) // 5
    return frame, (base, run, cluster)


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False])
def test_from_a_table_to_the_verdict(named):
    frame, truth = table(np.random.default_rng(6), named)
    answers = read(frame, columns={"cluster": "template"} if named else {}, progress=False)
    paired = pair(answers)
    expected = dependence(*truth)._asdict()
    for name, value in expected.items():
        if named or name.startswith("neighbour"):
            assert paired.runs[name][0] == pytest.approx(value), name
    tree = measure_paired(paired, progress=False, method="laplace", num_log_likelihood_items=0)
    words = tree["sample_stats"]["words"].item()
    if named:
        assert words.startswith("not to be trusted: items of one cluster change together")
        assert tree["sample_stats"]["clustered_error"].item() == pytest.approx(expected["clustered_error"])
    else:
        assert "items next to each other in the log change alike" in words
        assert np.isnan(tree["sample_stats"]["num_clusters"].item())
