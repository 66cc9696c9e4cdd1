"""The axes of a sweep: what they are called, what they make of a training, and how a grid is cut."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inference.sweeps.axes import attributes
from inference.sweeps.cuts import Geometry, _rectangle, blocks, geometry, positions
from inference.sweeps.grid import Grid
from mixture_models import InputError, TwoMode, objectives
from mixture_models.mixture.two_mode import mahalanobis

TARGET = TwoMode.create(0.4, [0.0, 1.0], [3.0, -1.0], covariance=[[1.0, 0.3], [0.3, 2.0]])
START = TARGET.replace(old_weight=0.8, new_mean=[2.0, 0.0])
NAMES = list(objectives.registry)


def grid_of(axes, chosen=None, start=START, target=TARGET, **changes):
    given = {"num_steps": 10, "batch_size": 8, "learning_rate": 0.1, "num_replicates": 3, "seed": 0}
    given |= {"record_every": None, "learning_rate_factors": None, "common_random_numbers": True}
    given |= {"precision": "float64"}
    return Grid.create(chosen or [objectives.sft(replay=0.1)], axes, start, target, **(given | changes))


def at_end(axes, **changes):
    """Return the training at the last value of every axis."""
    grid = grid_of(axes, **changes)
    return grid.at(0, tuple(n - 1 for n in grid.shape))


def test_axes_of_the_mixtures_change_what_they_name_and_nothing_else():
    training = at_end({"target.old_weight": [0.5, 0.7], "start.old_logit": [-2.0], "start.new_mean.1": [9.0]})
    assert training.target == TARGET.replace(old_weight=0.7)
    assert training.start == START.replace(old_logit=-2.0, new_mean=[2.0, 9.0])
    training = at_end(
        {"target.covariance": [2.0], "start.new_covariance": [0.5], "target.old_mean.0": [-1.0]}
    )
    assert training.target == TARGET.replace(covariance=2.0, old_mean=[-1.0, 1.0])
    assert training.start == START.replace(new_covariance=0.5)


def test_distances_are_mahalanobis_and_on_the_line_through_the_modes():
    training = at_end({"target.separation": [2.5], "start.new_gap": [0.7], "start.old_drift": [0.2]})
    cov = [[1.0, 0.3], [0.3, 2.0]]
    assert training.target.separation == pytest.approx(2.5)
    np.testing.assert_array_equal(training.target.old_mean, TARGET.old_mean)
    assert mahalanobis(training.start.new_mean, training.target.new_mean, cov) == pytest.approx(0.7)
    assert mahalanobis(training.start.old_mean, training.target.old_mean, cov) == pytest.approx(0.2)
    assert training.start.separation == pytest.approx(2.5 - 0.7 - 0.2)
    # Without an axis of its own the start stays where it is, unless it is made of the target.
    assert at_end({"target.separation": [2.5]}).start == START
    follows = at_end({"target.separation": [2.5]}, start=lambda target: target.replace(old_weight=0.9))
    assert follows.start.separation == pytest.approx(2.5)


def test_axes_of_objectives_are_their_constructors_arguments():
    chosen = [objectives.sft(replay=0.1), objectives.reverse_kl()]
    grid = grid_of({"objective.replay": [0.2, 0.3]}, chosen)
    for index in range(2):
        assert grid.at(index, (1,)).objective.recipe.given["replay"] == 0.3
        assert grid.at(index, (1,)).objective.name == chosen[index].name
    grid = grid_of({"sft:replay=0.1.replay": [0.2, 0.3]}, chosen)
    assert grid.at(0, (1,)).objective.model.args == (0.3,)
    assert grid.at(1, (1,)).objective is chosen[1]


def test_axes_of_the_training():
    axes = {"learning_rate": [0.1, 0.2], "batch_size": [2, 4], "seed": [3], "num_steps": [5, 20]}
    training = at_end(
        axes | {"learning_rate_factors.old_mean": [0.5]}, learning_rate_factors={"new_mean": 0.1}
    )
    assert (training.learning_rate, training.batch_size, training.seed) == (0.2, 4, 3)
    assert training.factors == {"new_mean": 0.1, "old_mean": 0.5}
    assert grid_of(axes).steps.tolist() == [0, 5, 20]


def test_every_own_seed_is_another_but_for_the_number_of_steps():
    axes = {"target.old_weight": [0.1, 0.2], "num_steps": [3, 5], "start.old_weight": [0.3, 0.4, 0.5]}
    grid = grid_of(axes, [objectives.sft(), objectives.reverse_kl()], common_random_numbers=False)
    seeds = {(o, i, j): grid.at(o, (i, 0, j)).seed for o in range(2) for i in range(2) for j in range(3)}
    assert len(set(seeds.values())) == 12
    assert all(grid.at(o, (i, 1, j)).seed == seed for (o, i, j), seed in seeds.items())


@pytest.mark.parametrize(
    ("axes", "sentence"),
    [
        ({"temperature": [1.0]}, "an axis must be learning_rate, batch_size, .*; got temperature"),
        ({"record_every": [1]}, "an axis must be .*; got record_every"),
        ({"target.weight": [0.5]}, "the field of target.weight must be one of old_weight, .*; got 'weight'"),
        ({"target.new_gap": [0.5]}, "the field of target.new_gap must be one of"),
        ({"target.old_mean.2": [0.5]}, r"the field of target.old_mean.2 must be one of .*old_mean\.1"),
        ({"objective.anchor": [0.5]}, "the argument of sft:replay=0.1 must be one of replay, learner"),
        ({"sft.replay": [0.5]}, "an axis must be .*; got sft.replay"),
        ({"objective.replay": [0.5, 1.0]}, r"replay must lie in \[0, 1\); got 1"),
        ({"target.old_weight": [0.5, 1.2]}, r"old_weight must lie in \(0, 1\); got 1.2"),
        ({"target.separation": [0.0]}, "target.separation must be greater than 0; got 0"),
        ({"batch_size": [8, 2.5]}, "a value of batch_size must be a whole number; got 2.5"),
        ({"num_steps": [0]}, "num_steps must be at least 1; got 0"),
        ({"learning_rate": [0.1, -0.1]}, "learning_rate must be greater than 0; got -0.1"),
        ({"learning_rate": []}, "the values of learning_rate must be a list of numbers"),
        ({"learning_rate": 0.1}, "the values of learning_rate must be a list of numbers; got 0.1"),
        ({"learning_rate": ["fast"]}, "the values of learning_rate must be a list of numbers"),
        ({"learning_rate": [0.1, 0.1]}, "the values of learning_rate must differ"),
        ({"learning_rate": [math.nan]}, "a value of learning_rate must be finite; got nan"),
        ({"learning_rate_factors.old_mean": [-1.0]}, "learning_rate_factors must not be negative"),
        ({"start.new_gap": [1.0], "start.new_mean.0": [1.0]}, "set one parameter: only one can be an axis"),
        ({"start.old_weight": [0.2], "start.old_logit": [1.0]}, "set one parameter: only one can be an axis"),
        ({"target.new_mean.0": [0.0], "target.new_mean.1": [1.0]}, "target's modes must differ"),
        ([("learning_rate", [0.1])], "grid must map names of settings to lists of values"),
    ],
)
def test_what_cannot_be_an_axis_is_one_sentence(axes, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        grid_of(axes)
    assert "\n" not in str(error.value)


def test_a_start_that_is_none_is_one_sentence():
    for start in (None, lambda target: 3.0):
        with pytest.raises(InputError, match="start must be a TwoMode"):
            grid_of({}, start=start)
    with pytest.raises(InputError, match="target must be a TwoMode or a Mixture; got float"):
        grid_of({}, target=1.0)
    with pytest.raises(InputError, match="start and target must have one dimension"):
        grid_of({}, start=TwoMode.create(0.5, 0.0, 1.0))


def test_an_objective_put_together_by_hand_has_no_axes():
    by_hand = objectives.Objective(
        "mine", objectives.sft().model, objectives.sft().guide, objectives.sft().loss
    )
    with pytest.raises(InputError, match="the argument of mine must be one of"):
        grid_of({"objective.replay": [0.1]}, [by_hand])


def test_labels_name_owner_and_units():
    assert attributes("target.separation")["units"] == "Mahalanobis"
    assert attributes("start.new_mean.1") == {
        "long_name": "start: coordinate 1 of the new mean",
        "units": "feature",
    }
    assert attributes("learning_rate") == {"long_name": "learning rate", "units": "1"}


# Any number at all: the numbers that a user may come upon, and those that break things.
ANY = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, 1e-12, 1e-6, 100.0, 1e300])
AXIS = st.sampled_from(
    [
        *(f"{owner}.{field}" for owner in ("target", "start") for field in ("old_weight", "covariance")),
        *("target.separation", "start.new_gap", "start.old_drift", "target.old_logit", "start.new_mean.0"),
        *("learning_rate", "batch_size", "num_steps", "seed", "learning_rate_factors.old_mean"),
        *(
            "objective.replay",
            "objective.anchor",
            "objective.kl_weight",
            "objective.lag",
            "start",
            "target.",
            "",
        ),
    ]
)


@example(axes={"target.covariance": [4.45e-308]}, name="sft")
@example(axes={"target.separation": [1.35e154]}, name="sft")
@settings(max_examples=80, deadline=None)
@given(
    axes=st.dictionaries(AXIS, st.lists(ANY, min_size=0, max_size=3), max_size=3),
    name=st.sampled_from(NAMES),
)
def test_any_grid_is_either_trainings_or_one_sentence(axes, name):
    try:
        grid = grid_of(axes, [objectives.registry[name]()])
    except InputError as refused:
        sentence = str(refused)
    else:
        sentence = None
    if sentence is not None:
        assert sentence
        assert "\n" not in sentence
        return
    for block in blocks(grid, geometry(grid)):
        for position in positions(grid, geometry(grid), block)[:2]:
            training = grid.at(0, position)
            numbers = [training.learning_rate, *training.factors.values(), training.target.separation]
            numbers += [x for m in (training.start, training.target) for x in (*m.old_mean, *m.new_mean)]
            assert np.all(np.isfinite(numbers))


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), max_size=4),
    replicates=st.integers(1, 40),
    most=st.none() | st.integers(1, 300),
    steps=st.booleans(),
)
def test_blocks_cover_every_training_once_and_fit(lengths, replicates, most, steps):
    names = ["target.old_weight", "start.old_weight", "learning_rate", "start.new_gap"]
    axes = {name: list((1.0 + np.arange(n)) / 20.0) for name, n in zip(names, lengths, strict=False)}
    if steps:
        axes["num_steps"] = [5, 10]
    grid = grid_of(axes, num_replicates=replicates)
    cut = geometry(grid, most)
    assert isinstance(cut, Geometry)
    assert most is None or cut.settings * cut.replicates <= most
    seen = []
    for block in blocks(grid, cut):
        inside = positions(grid, cut, block)
        assert len(inside) <= cut.settings
        first = block.replicates * cut.replicates
        seen += [(p, r) for p in inside for r in range(first, min(first + cut.replicates, replicates))]
    assert len(seen) == len(set(seen)) == math.prod(lengths) * replicates


@pytest.mark.parametrize(
    ("lengths", "most", "least"),
    [((100, 100), 64, 0.85), ((7, 11), 16, 0.75), ((1000,), 128, 0.95), ((3,), 42, 0)],
)
def test_blocks_are_nearly_full(lengths, most, least):
    sides = _rectangle(lengths, most)
    count = math.prod(-(-n // side) for n, side in zip(lengths, sides, strict=True))
    assert math.prod(sides) <= most
    assert math.prod(lengths) / (count * most) >= least


def test_what_changes_the_program_or_the_shared_draws_is_alone_in_its_block():
    axes = {
        "objective.replay": [0.0, 0.1, 0.2],
        "batch_size": [2, 4],
        "seed": [1, 2],
        "learning_rate": [0.1, 0.2],
    }
    cut = geometry(grid_of(axes))
    assert cut.block == (1, 1, 1, 2)
    cut = geometry(grid_of(axes | {"objective.replay": [0.1, 0.2]}, common_random_numbers=False))
    assert cut.block == (2, 1, 2, 2)


def test_the_program_does_not_depend_on_the_grid():
    few, many = ({"learning_rate": list(np.linspace(0.01, 1.0, n))} for n in (3, 30))
    assert geometry(grid_of(few))[1:] == geometry(grid_of(many))[1:]
