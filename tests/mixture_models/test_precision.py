"""Batches in float32: the same training to within rounding, and nothing of a batch's length in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from analyses import chen2025
from inference import train
from mixture_models import InputError, Objective, TwoMode, objectives
from mixture_models.accel.elementary import total_log
from mixture_models.losses.precision import SinglePrecision, in_precision
from mixture_models.objectives import new_data, parse, published

TARGET = TwoMode.create(old_weight=0.5, old_mean=[0.0, 0.0], new_mean=[3.0, 0.0])
START = TARGET.replace(old_weight=0.9, new_mean=[2.0, 0.5])
BATCH = 96

VARIANTS = [
    "sft",
    "sft:replay=0.3",
    "reverse_kl:replay=0.3",
    "reverse_kl:estimator=pathwise",
    "sdft",
    "sdft:divergence=forward",
    "sdft:divergence=0.5",
    "ttt_discover",
    "ttt_discover:eta=adaptive",
    "oapl",
]
QUICK = {"sft"}
RATE = 0.05


def updates(precision, chosen, **changes):
    """Return the first two updates of eight replicates by param."""
    arguments = {"num_steps": 2, "batch_size": BATCH, "learning_rate": RATE, "num_replicates": 8, "seed": 3}
    tree = train(chosen, START, TARGET, precision=precision, progress=False, **(arguments | changes))
    data = tree["trajectory"].to_dataset()
    return {name: np.diff(data[name], axis=3) for name in ("old_logit", "old_mean", "new_mean")}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS]
)
def test_updates_are_those_of_float64_to_within_rounding(name):
    exact, rounded = (updates(precision, parse(name)) for precision in ("float64", "float32"))
    for variable, update in exact.items():
        largest = np.abs(update).max()
        error = np.abs(rounded[variable] - update).max()
        assert 1e-10 * largest < error < 3e-6 * max(largest, RATE), variable


def long_float64(jaxpr, length):
    """Return the primitives whose results are float64 arrays of at least ``length`` entries."""
    found = []
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            if variable.aval.dtype == jnp.float64 and variable.aval.size >= length:
                found.append(equation.primitive.name)
        for parameter in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                found += long_float64(inner, length)
    return found


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("single", [True, False])
def test_nothing_as_long_as_a_batch_is_float64(name, single):
    objective = parse(name)
    model, guide, beside = objective.model, objective.guide, objective.companion
    divergence = objective.loss.with_samples(BATCH)
    divergence = SinglePrecision(divergence) if single else divergence
    with jax.enable_x64(True):
        pair = jax.tree.map(jnp.asarray, (START, TARGET))
        params = {name: getattr(pair[0], name) for name in ("old_logit", "old_mean", "new_mean")}
        if beside is not None:
            model = Partial(model, companion=beside.initial(guide, *pair))
        gradient = jax.grad(lambda p: divergence.loss(jax.random.key(0), p, model, guide, *pair))
        found = long_float64(jax.make_jaxpr(gradient)(params).jaxpr, BATCH)
    assert bool(found) is not single, found


def test_the_product_of_densities_does_not_underflow():
    values = np.full(64, 1e-12)
    for wide in (True, False):
        with jax.enable_x64(wide):
            found = total_log(jnp.asarray(values, jnp.float32))
        np.testing.assert_allclose(found, np.log(values).sum(), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("divergence", [published.FlooredForwardKL(), published.PublishedRL()])
def test_the_published_runs_keep_their_course(divergence):
    chosen = Objective("published", Partial(new_data, None), published.PublishedTwoModeLearner(), divergence)
    exact, rounded = (
        train(
            chosen,
            published.START,
            published.TARGET,
            num_steps=20,
            batch_size=1000,
            learning_rate=0.01,
            num_replicates=2,
            seed=0,
            optimizer=chen2025.published_steps(0.01, 1.0),
            precision=precision,
            progress=False,
        )["final"]["new_mean"].to_numpy()
        for precision in ("float64", "float32")
    )
    np.testing.assert_allclose(rounded, exact, rtol=1e-5)


def test_another_precision_is_refused():
    with pytest.raises(InputError, match="precision must be one of float64, float32; got 'float16'"):
        in_precision(objectives.sft().loss, "float16")
