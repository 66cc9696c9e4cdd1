"""The references of several tasks: which are refused, and what is said of those that are hardly apart."""

import numpy as np
import pytest
from task_samples import MEANS, NAMES, references, samples

from inference import measure
from inference.measurement.tasks import words
from inference.measurement.tasks.discriminants import discriminants_of, in_order
from mixture_models import InputError


def test_tasks_that_cannot_be_told_apart_are_named():
    confusion = np.array([[0.6, 0.4, 0.0], [0.3, 0.6, 0.1], [0.0, 0.1, 0.9]])
    stats_of = {
        "num_samples": 300,
        "weight_mean": np.array([0.3, 0.3, 0.4]),
        "task_information": np.array([0.05, 0.08, 0.7]),
        "confusion": confusion,
    }
    said = words._overlaps(stats_of, NAMES)
    assert said == ["math and code overlap so much that their weights can hardly be told apart"]
    assert words._overlaps(stats_of | {"task_information": np.full(3, 0.5)}, NAMES) == []
    lost = stats_of | {"confusion": np.array([[0.3, 0.2, 0.1], [0.3, 0.6, 0.1], [0.0, 0.1, 0.9]])}
    assert words._overlaps(lost, NAMES) == [
        "math and what belongs to neither task overlap so much that their weights can hardly be told apart",
        "math and code overlap so much that their weights can hardly be told apart",
    ]


def test_references_that_are_hardly_apart_are_named():
    rng = np.random.default_rng(10)
    means = np.array([[0.0, 0.0], [0.6, 0.0], [0.0, 7.0]])
    tree = measure(
        samples(rng, (0.3, 0.3, 0.4), 300, means), references(rng, 300, means), num_draws=100, progress=False
    )
    said = str(tree["sample_stats"]["weight_words"].item())
    assert said.startswith("not to be trusted: the references of ")
    assert all(name in said.partition("are hardly apart")[0] for name in ("math", "code"))
    assert said.count("hardly apart") == 1


BAD = {
    "one": (lambda r: {"math": r["math"]}, {}, "2 to 20 references; got 1"),
    "many": (lambda r: {f"t{i}": r["math"] + i for i in range(21)}, {}, "2 to 20 references; got 21"),
    "empty name": (lambda r: r | {" ": r["math"]}, {}, "named by texts that are not empty"),
    "no text": (lambda r: r | {3: r["math"]}, {}, "named by texts"),
    "one name twice": (lambda r: r | {"math ": r["math"] + 1}, {}, "different names"),
    "same samples": (lambda r: r | {"chat": r["code"]}, {}, "code and chat are the same samples"),
    "same mean": (
        lambda r: r | {"chat": 2 * r["code"].mean(0) - r["code"]},
        {},
        "code and chat have the same mean",
    ),
    "features": (lambda r: r | {"chat": r["code"][:, :2]}, {}, "the same features"),
    "a new reference too": (lambda r: r, {"new_reference": np.zeros((9, 4))}, "got a new_reference too"),
    "new task": (lambda r: r, {"new_task": "chat"}, "new_task must be one of math, code, new; got 'chat'"),
    "prior": (lambda r: r, {"weight_prior": (1.0, 2.0)}, "3 shapes of at least 1"),
    "neither along the axis": (
        lambda r: {"math": r["math"], "code": r["code"]},
        {"neither": True, "covariance": "axis"},
        "not along the axis alone",
    ),
    "neither that is no flag": (lambda r: r, {"neither": "perhaps"}, "neither must be"),
    "covariance": (lambda r: r, {"covariance": "axis"}, "covariance of three tasks or more"),
    "too few features": (
        lambda r: r,
        {"max_features": 1},
        "at least one less than there are tasks, 2; got 1",
    ),
    "missing values": (lambda r: r | {"chat": r["code"] * np.nan}, {}, "300 of the chat reference"),
    "no references": (lambda r: r["math"], {}, "an old_reference and a new_reference"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_references_are_one_sentence(case):
    change, options, said = BAD[case]
    rng = np.random.default_rng(13)
    given = references(rng)
    with pytest.raises(InputError, match=said) as caught:
        measure(samples(rng, (0.3, 0.3, 0.4), 50), change(given), progress=False, **options)
    assert len(str(caught.value).splitlines()) == 1


def test_cross_fitted_discriminants_put_references_where_other_samples_lie():
    """With 24 features of 60 samples, discriminants look better on the samples that they were learnt on."""
    rng = np.random.default_rng(14)
    means = np.concatenate([MEANS, np.zeros((3, 20))], axis=1)
    apart, z = [], []
    for _ in range(30):
        given = list(references(rng, 60, means).values())
        order = in_order(given)
        space = discriminants_of([given[k] for k in order], 64)
        true = space.coordinates(means[order])[:, :2]
        covariance = space.forward[:2] @ space.forward[:2].T
        found = np.stack([rows[:, :2].mean(axis=0) for rows in space.rows])
        within = np.mean([np.cov(rows[:, :2].T) for rows in space.rows], axis=0)
        z.append(np.linalg.solve(np.linalg.cholesky(covariance / 60), (found - true).T))
        apart.append(np.trace(np.linalg.solve(covariance, within)) / 2.0)
    # 180 standard normal pairs, and 30 ratios of variances: standard errors of 0.075 and 0.02.
    assert np.mean(np.square(z)) == pytest.approx(1.0, abs=0.35)
    assert np.mean(apart) == pytest.approx(1.0, abs=0.1)


def test_a_reference_that_holds_another_task_is_named():
    rng = np.random.default_rng(18)
    given = references(rng)
    given["math"][:15] = references(rng)["new"][:15]
    tree = measure(samples(rng, (0.4, 0.3, 0.3), 200), given, num_draws=100, progress=False)
    found = tree["constant_data"]["foreign_share"]
    assert float(found.sel(task="math", other_task="new")) == pytest.approx(0.05, abs=0.03)
    assert int((found > 0.0).sum()) == 1
    assert "math reference look like new" in str(tree["sample_stats"]["weight_words"].item())


def test_tasks_in_a_plane_have_no_discriminant_that_is_noise():
    """Along one, references are where ten other discriminants put them, and no checkpoint looks like them."""
    rng = np.random.default_rng(0)
    means = np.array([[0.0, 0.0, 0.0, 0.0], [4.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0], [3.0, 3.0, 0.0, 0.0]])
    given = references(rng, 300, means, ("math", "code", "chat", "new"))
    weights = (0.3, 0.2, 0.2, 0.3)
    tree = measure(samples(rng, weights, 500, means), given, num_draws=400, progress=False)
    assert tree.attrs["num_discriminants"] == 2
    assert tree.attrs["tails"] == "gaussian"
    assert str(tree["sample_stats"]["weight_words"].item()).startswith("good")
    found = tree["posterior"]["weight"].isel(checkpoint=0)
    error = np.abs(found.mean(["chain", "draw"]) - np.array(weights)) / found.std(["chain", "draw"])
    assert float(error.max()) < 4.0
