"""What is computed at the ends of all settings: right where it is finite, and said where it is not."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inference import population_value_and_grad, train
from mixture_models import TwoMode
from mixture_models.objectives import parse

EXTREMES = {"separation": 3.0, "weight": 0.4, "rate": 0.1, "dimension": 2, "steps": 3}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["all coordinates", "span"])
@pytest.mark.parametrize("name", ["sft", "reverse_kl", "oapl"])
@pytest.mark.parametrize("replicates", [1, 3])
def test_a_training_is_right_where_it_is_finite_and_says_where_it_is_not(engine, name, replicates):
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
        assert all(bool(jnp.all(jnp.isfinite(g))) for g in gradient)
