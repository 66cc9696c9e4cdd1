"""Public functions over all that they may be given: a right result or one sentence, and nothing else."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inference import gradient_flow, population_descent, train
from inference.exact import dynamics
from inference.sweeps.grid import Grid
from inference.training import train as training
from mixture_models import InputError, TwoMode, objectives

TARGET = TwoMode.create(0.4, 0.0, 3.0)
START = TARGET.replace(old_weight=0.8, new_mean=2.0)

NUMBERS = st.one_of(
    # Not so many that what is recorded fills the memory.
    st.floats().filter(lambda x: not 1e6 < x < 2**31),
    st.integers(-3, 12),
    st.sampled_from([1e-300, 1e300, 1e-12, 1 - 1e-12, 2**63, -(2**70), 10**400, 1j, np.nan, np.float32(2)]),
)
ANYTHING = st.one_of(
    NUMBERS,
    st.none(),
    st.booleans(),
    st.text(max_size=4),
    st.lists(NUMBERS, max_size=3),
    st.dictionaries(st.sampled_from(["old_mean", "other"]), NUMBERS, max_size=2),
    st.sampled_from([object(), np.zeros((2, 2)), np.eye(2), TARGET, b"x"]),
)


class ComputedError(Exception):
    """All checks were passed: from here on it would be computed."""


@pytest.fixture(scope="module", autouse=True)
def stopped():
    """Nothing in this module trains or solves unless a test says so."""

    def stop(*arguments):
        raise ComputedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "arithmetic", stop)
        patch.setattr(dynamics, "_arithmetic", stop)
        yield


@given(weight=ANYTHING, old=ANYTHING, new=ANYTHING, covariance=ANYTHING, other=ANYTHING)
@settings(deadline=None)
@example(weight=1e-12, old=0.0, new=1e-6, covariance=None, other=None)
@example(weight=0.5, old=np.zeros(10_000), new=np.ones(10_000), covariance=1.0, other=None)
def test_a_mixture_is_built_or_refused(weight, old, new, covariance, other):
    try:
        built = TwoMode.create(weight, old, new, covariance, other)
    except InputError:
        return
    assert np.isfinite(built.old_logit)
    assert built.old_mean.shape == built.new_mean.shape
    assert np.all(np.isfinite([built.old_mean, built.new_mean]))
    for scale in built.scales:
        assert np.all(np.isfinite(scale))
        assert np.all((np.diag(scale) if scale.ndim == 2 else scale) > 0.0)


TRAINING = {
    "num_steps": 3, "batch_size": 4, "learning_rate": 0.1, "num_replicates": 2, "seed": 0,
}  # fmt: skip
TRAINING_ARGUMENTS = [*TRAINING, "record_every", "learning_rate_factors", "precision", "dimension"]


@pytest.mark.parametrize("argument", [*TRAINING_ARGUMENTS, "start", "target", "objectives"])
@given(value=ANYTHING)
@settings(deadline=None, max_examples=60)
def test_a_training_is_begun_or_refused(argument, value):
    arguments = {"objectives": objectives.sft(), "start": START, "target": TARGET, "progress": False}
    refused_or_computed(train, arguments | TRAINING | {argument: value})


@pytest.mark.parametrize("argument", ["times", "start", "target", "metric", "learning_rate", "objectives"])
@given(value=ANYTHING)
@settings(deadline=None, max_examples=40)
def test_a_flow_is_begun_or_refused(argument, value):
    arguments = {"objectives": objectives.sft(), "start": START, "target": TARGET, "times": [0.0, 1.0]}
    refused_or_computed(gradient_flow, arguments | {argument: value})


@pytest.mark.parametrize("argument", ["num_steps", "learning_rate", "record_every", "learning_rate_factors"])
@given(value=ANYTHING)
@settings(deadline=None, max_examples=40)
def test_a_descent_is_begun_or_refused(argument, value):
    arguments = {"objectives": objectives.sft(), "start": START, "target": TARGET}
    arguments |= {"num_steps": 3, "learning_rate": 0.1}
    refused_or_computed(population_descent, arguments | {argument: value})


def refused_or_computed(function, arguments):
    with pytest.raises((InputError, ComputedError)) as stop:
        function(**arguments)
    assert stop.type is ComputedError or str(stop.value)


AXES = ["target.separation", "start.old_weight", "learning_rate", "dimension", "num_steps", "sft.replay"]


@given(axes=st.dictionaries(st.sampled_from([*AXES, "other", "target.new_mean.7"]), ANYTHING, max_size=2))
@settings(deadline=None, max_examples=150)
def test_a_grid_is_built_or_refused(axes):
    others = {"record_every": None, "learning_rate_factors": None, "common_random_numbers": True}
    try:
        grid = Grid.create(objectives.sft(), axes, START, TARGET, precision="float64", **TRAINING, **others)
    except InputError:
        return
    for position in np.ndindex(grid.shape):
        assert 0.0 < grid.at(0, position).learning_rate < np.inf
