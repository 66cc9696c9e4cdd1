"""Kinds of data for the calibration of the measurement: what they draw, and how their runs are summed up."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import calibration_runs
from benchmarks.calibration_kinds import KINDS


@pytest.fixture(scope="module")
def cases():
    """Two cases of every kind, each with its own random numbers."""
    return [
        (kind, kind.draw(np.random.default_rng([seed, i]))) for i, kind in enumerate(KINDS) for seed in (1, 2)
    ]


def _kind(name):
    return next(kind for kind in KINDS if kind.name == name)


def test_names_are_unique_and_kinds_are_many():
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 45
    assert sum(kind.on_model for kind in KINDS) >= 20


def test_every_kind_draws_finite_arrays_of_one_width(cases):
    for kind, case in cases:
        d = case.old.shape[1]
        assert kind.on_model == case.on_model
        for y in (case.old, case.new, *case.samples):
            assert y.ndim == 2, kind.name
            assert y.shape[1] == d, kind.name
            assert np.isfinite(y).all(), kind.name
        columns = case[3:-1]
        assert {len(column) for column in columns} == {len(case.samples)}, kind.name
        for displacement in (*case.old_displacements, *case.new_displacements):
            assert displacement is None or displacement.shape == (d,), kind.name


def test_old_share_is_the_true_one_within_5_standard_errors(cases):
    """Also over all kinds together, where a bias of 2 % of every kind's share would be 7 standard errors."""
    errors = []
    for kind, case in cases:
        truths = zip(case.samples, case.old_weights, case.num_old, case.num_independent, strict=True)
        for y, weight, num_old, independent in truths:
            assert independent <= len(y), kind.name
            errors.append((num_old / len(y) - weight) / np.sqrt(weight * (1 - weight) / independent))
            assert abs(errors[-1]) < 5, kind.name
    assert abs(np.sum(errors)) < 5 * np.sqrt(len(errors))
    assert np.std(errors) == pytest.approx(1.0, abs=5 / np.sqrt(2 * len(errors)))


def test_cases_differ_by_their_generator_alone():
    kind = _kind("rotated covariances")
    one, same, other = (kind.draw(np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.samples[0], same.samples[0])
    assert not np.isclose(one.old_weights, other.old_weights)


@pytest.mark.parametrize("name", ["both spread 2 of the references", "Student-t 5, moved", "gamma 2"])
def test_displacement_is_that_of_the_means(name):
    """Of references and samples split by the far side of a wide separation, within 5 standard errors."""
    recipe = (
        _kind(name)
        .draw.keywords["recipe"]
        ._replace(separation=(40.0, 40.0), num_samples=20_000, num_references=(20_000, 20_000), dimension=3)
    )
    draw = _kind(name).draw.func
    case = draw(np.random.default_rng(3), recipe=recipe, on_model=False)
    y, axis = case.samples[0], np.linalg.solve(np.cov(case.old.T), case.new.mean(0) - case.old.mean(0))
    is_old = (y - 0.5 * (case.old.mean(0) + case.new.mean(0))) @ axis < 0
    assert is_old.sum() == case.num_old[0]
    for rows, reference, truth in (
        (y[is_old], case.old, case.old_displacements[0]),
        (y[~is_old], case.new, case.new_displacements[0]),
    ):
        error = np.sqrt(rows.var(0) / len(rows) + reference.var(0) / len(reference))
        assert np.all(np.abs(rows.mean(0) - reference.mean(0) - truth) < 5 * error)


def test_duplicated_rows_occur_two_or_three_times():
    y = _kind("duplicated rows, shuffled").draw(np.random.default_rng(0)).samples[0]
    counts = np.unique(y, axis=0, return_counts=True)[1]
    # The last row may have been cut.
    assert np.sum(counts == 1) <= 1
    assert set(counts) <= {1, 2, 3}


def test_table_counts_what_was_called_good_and_what_was_refused():
    row = {"on_model": True, "error": -0.1, "width": 0.2, "old_covered": 1.0, "new_covered": 0.5}
    row |= {"seconds": 1.0, "method": "laplace"}
    frames = [
        pd.DataFrame(
            [
                row | {"kind": "a", "covered": True, "word": "good", "difference_covered": np.nan},
                row | {"kind": "a", "covered": False, "word": "not", "difference_covered": True},
            ]
        ),
        pd.DataFrame([{"kind": "b", "on_model": False, "word": "refused"}]),
    ]
    found = calibration_runs.table(frames).set_index("kind")
    assert list(found.index) == ["a", "b", "all on the model", "all off the model"]
    assert found.loc["a", ["num", "num_good"]].tolist() == [2, 1]
    assert found.loc["a", ["coverage", "coverage_good", "share_good", "error"]].tolist() == [
        0.5,
        1.0,
        0.5,
        0.1,
    ]
    assert found.loc["a", "difference"] == 1.0
    assert found.loc["b", "share_good"] == 0.0
    assert np.isnan(found.loc["b", "coverage"])


@pytest.mark.slow
def test_a_kind_of_two_checkpoints_runs_and_is_resumed(tmp_path, capsys):
    out = tmp_path / "kinds.csv"
    arguments = ["--num", "1", "--only", "weights apart", "--method", "laplace", "--out", str(out)]
    calibration_runs.main(arguments)
    rows = out.read_text()
    assert len(pd.read_csv(out)) == 2
    calibration_runs.main(arguments)
    assert out.read_text() == rows
    with pytest.raises(SystemExit, match="give another --out"):
        calibration_runs.main([*arguments, "--seed", "1"])
