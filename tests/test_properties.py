"""Public functions over all that they may be given: a right result or one sentence, and nothing else."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inference import dynamics, gradient_flow, population_descent, population_value_and_grad, train, training
from inference.sweeps.grid import Grid
from mixture_models import InputError, TwoMode, objectives
from mixture_models.objectives import parse

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
        yield patch


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


# What is computed

EXTREMES = {"separation": 3.0, "weight": 0.4, "rate": 0.1, "dimension": 2, "steps": 3}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["all coordinates", "span"])
@pytest.mark.parametrize("name", ["sft", "reverse_kl", "oapl"])
@pytest.mark.parametrize("replicates", [1, 3])
def test_a_training_is_right_where_it_is_finite_and_says_where_it_is_not(
    engine, name, replicates, monkeypatch
):
    from inference.chunks import run_together

    monkeypatch.setattr(training, "run_together", run_together)
    exact = {}

    @given(
        separation=st.floats(1e-6, 100.0),
        weight=st.floats(1e-12, 1.0 - 1e-12),
        rate=st.floats(1e-6, 1e3),
        dimension=st.integers(1, 10_000),
        steps=st.integers(1, 4),
    )
    @settings(deadline=None, max_examples=25)
    @example(**EXTREMES | {"separation": 1e-6})
    @example(**EXTREMES | {"separation": 100.0})
    @example(**EXTREMES | {"weight": 1e-12})
    @example(**EXTREMES | {"weight": 1.0 - 1e-12})
    @example(**EXTREMES | {"rate": 1e3})
    @example(**EXTREMES | {"dimension": 1})
    @example(**EXTREMES | {"dimension": 10_000})
    @example(**EXTREMES | {"steps": 1})
    def right(separation, weight, rate, dimension, steps):
        target = TwoMode.create(0.5, 0.0, separation)
        start = target.replace(old_weight=weight, new_mean=0.7 * separation)
        where = {"dimension": dimension} if engine == "span" else {}
        tree = train(
            parse(name), start, target, num_steps=steps, batch_size=8, learning_rate=rate,
            num_replicates=replicates, seed=1, progress=False, **where,
        )  # fmt: skip
        runs = tree["trajectory"].to_dataset().isel(objective=0, chain=0)
        diverged = tree["trajectory_stats"]["diverged_step"].to_numpy()[0, 0]
        lost = (diverged[:, None] >= 0) & (np.arange(steps + 1) >= diverged[:, None])
        for variable in runs.data_vars:
            finite = np.isfinite(runs[variable].to_numpy()).reshape(replicates, steps + 1, -1).all(-1)
            assert np.array_equal(finite, ~lost), variable
        exact["finite"] = exact.get("finite", 0) + np.sum(~lost)
        weights = runs["old_weight"].to_numpy()[~lost]
        assert np.all((weights >= 0.0) & (weights <= 1.0))
        first = runs.isel(step=0)
        if diverged.max() != 0:
            kept = diverged != 0
            assert np.allclose(first["old_weight"][kept], weight, rtol=1e-9)
            assert np.allclose(first["new_gap"][kept], 0.3 * separation, rtol=1e-9)
            assert np.allclose(first["old_drift"][kept], 0.0)

    right()
    assert exact["finite"] > 50


@pytest.mark.slow
@given(separation=st.floats(1e-6, 100.0), logit=st.floats(-27.0, 27.0), log_dim=st.integers(0, 4))
@settings(deadline=None, max_examples=25)
@example(separation=1e-6, logit=0.0, log_dim=0)
@example(separation=100.0, logit=-27.0, log_dim=4)
def test_exact_values_are_finite_and_the_divergence_is_not_negative(separation, logit, log_dim):
    dim = 10**log_dim
    target = TwoMode.create(0.5, np.zeros(dim), np.eye(1, dim)[0] * separation)
    start = target.replace(old_logit=logit, new_mean=0.7 * target.new_mean)
    for name in ("sft", "reverse_kl"):
        value, gradient = population_value_and_grad(parse(name), start, target)
        assert np.isfinite(value)
        assert value >= -1e-12
        assert all(bool(jnp.all(jnp.isfinite(g))) for g in gradient.values())
