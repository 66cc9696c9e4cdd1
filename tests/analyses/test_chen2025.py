"""The published simulation against an independent NumPy version of it (`published_loop`)."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from jax.tree_util import Partial
from numpyro.infer import SVI
from published_loop import (
    EPS,
    NAMES,
    NEW_TASK,
    START,
    expectation,
    forward_terms,
    grid_overlaps,
    rl_terms,
    single_forward_terms,
    single_rl_terms,
    step,
    trajectory,
)
from rich.console import Console

from analyses import chen2025
from analyses.chen2025 import figures as chen2025_figures
from inference import results, train
from mixture_models import ForwardKL, InputError, MixtureLaw, TwoMode
from mixture_models.objectives import Objective, new_data, published

NEW_DATA = Partial(new_data, None)
TWO, ONE = published.PublishedTwoModeLearner(), published.PublishedSingleModeLearner()
FORWARD, RL = published.FlooredForwardKL(), published.PublishedRL()
SINGLE_NAMES = ("mean", "scale")

# Modes close enough, and an old one narrow enough, that the importance weights have every moment.
CLOSE = (0.6, 1.5, 2.0, 0.6, 1.1)


def two_mode(weight, old, new, s_old, s_new):
    return TwoMode.create(weight, old, new, s_old**2, s_new**2)


def trained(learner, divergence, start=published.START, *, rate, factor=1.0, **settings):
    """Train one objective, by default in a shared program; return its variables (replicate, step)."""
    defaults = {"num_steps": 12, "batch_size": 1000, "num_replicates": 1000, "seed": 0, "progress": False}
    tree = train(
        Objective("published", NEW_DATA, learner, divergence),
        start,
        published.TARGET,
        learning_rate=rate,
        optimizer=chen2025.published_steps(rate, factor),
        **defaults | settings,
    )
    found = tree["trajectory"].to_dataset().squeeze(["objective", "chain"])
    return {name: array.to_numpy().reshape(array.shape[:2]) for name, array in found.items()}


def estimate(divergence, learner, parameters, law, n, key):
    """Return the gradient that SVI follows at ``parameters``, and the samples that it saw."""
    names = NAMES if len(parameters) == 5 else SINGLE_NAMES
    with jax.enable_x64(True):
        values = {
            name: jnp.full((1,) if "mean" in name else (), value)
            for name, value in zip(names, parameters, strict=True)
        }
        start, target = jax.tree.map(jnp.asarray, (published.START, published.TARGET))
        part = divergence.with_samples(n)
        gradient = jax.grad(lambda p: part.loss(key, p, NEW_DATA, learner, start, target))(values)
        y = MixtureLaw(np.zeros(1), np.full((1, 1), law[0]), (np.asarray(law[1]),)).sample(key, (n,))
    return np.array([np.ravel(gradient[name])[0] for name in names]), np.asarray(y, np.float64)[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "parameters",
    [START, CLOSE, (0.3, -3.0, 3.2, 1.1, 0.6), (0.999, 0.0, 3.4, 0.8, 0.05), (0.001, 2.0, 2.0, 3.0, 0.5)],
)
@pytest.mark.parametrize("method", ["forward", "rl"])
def test_the_gradient_of_a_batch_is_the_published_one(method, parameters):
    law = NEW_TASK if method == "forward" else (parameters[2], parameters[4])
    divergence, terms = (FORWARD, forward_terms) if method == "forward" else (RL, rl_terms)
    found, x = estimate(divergence, TWO, parameters, law, 4000, jax.random.key(3))
    each = terms(x, parameters)
    scale = np.abs(each).mean(axis=1)
    assert np.all(np.abs(-found - each.mean(axis=1)) <= 1e-9 * scale)


@pytest.mark.parametrize("parameters", [(-3.5, 1.0), (0.5, 2.0), (3.4, 0.3)])
@pytest.mark.parametrize("method", ["forward", "rl"])
def test_the_gradient_of_a_batch_is_the_published_one_of_a_single_mode(method, parameters):
    law = NEW_TASK if method == "forward" else parameters
    divergence, terms = (ForwardKL(), single_forward_terms) if method == "forward" else (RL, single_rl_terms)
    found, x = estimate(divergence, ONE, parameters, law, 4000, jax.random.key(4))
    each = terms(x, parameters)
    # The single mode's own density over itself plus 1e-12 is not quite 1 in the far tails.
    assert np.all(np.abs(-found - each.mean(axis=1)) <= 1e-7 * np.abs(each).mean(axis=1))


def _expected_step(terms, law, parameters, rate, factor):
    ascent = expectation(lambda x: terms(x, parameters), law)
    if len(parameters) == 2:
        return rate * ascent
    return rate * np.where([True, True, False, True, False], factor, 1.0) * ascent


def _check_step(values, names, parameters, expected, *, ignored=()):
    """Check the mean update of every param against ``expected``, within 5 standard errors; return those."""
    errors = {}
    for name, before, change in zip(names, parameters, expected, strict=True):
        moved = values[name][:, 1] - values[name][:, 0]
        assert np.allclose(values[name][:, 0], before, rtol=1e-14)
        errors[name] = moved.std(ddof=1) / np.sqrt(len(moved))
        if name not in ignored:
            assert abs(moved.mean() - change) < 5 * errors[name], name
    return errors


@pytest.mark.slow
def test_mean_update_of_forward_kl_is_its_expectation_floor_included():
    values = trained(TWO, FORWARD, rate=0.15, factor=0.005)
    expected = _expected_step(forward_terms, NEW_TASK, START, 0.15, 0.005)
    errors = _check_step(values, NAMES, START, expected)
    # The test has the power to see the floor and the factor.
    bare = _expected_step(lambda x, p: forward_terms(x, p, 1e-30), NEW_TASK, START, 0.15, 0.005)
    assert abs(bare[2] - expected[2]) > 6 * errors["new_mean"]
    assert abs(expected[1]) > 20 * errors["old_mean"]


def test_mean_update_of_the_published_rl_is_its_expectation():
    start = two_mode(*CLOSE)
    values = trained(TWO, RL, start, rate=0.01, factor=0.005)
    expected = _expected_step(rl_terms, (CLOSE[2], CLOSE[4]), CLOSE, 0.01, 0.005)
    errors = _check_step(values, NAMES, CLOSE, expected)
    assert all(abs(change) > 10 * errors[name] for name, change in zip(NAMES, expected, strict=True))


def test_at_the_published_start_a_batch_moves_the_weight_against_the_expectation():
    # The new mode is updated with weight 1, and by its expectation. The old mode and the weight rest on
    # samples 4 to 8 standard deviations off, which hardly any batch holds.
    values = trained(TWO, RL, rate=0.01)
    expected = _expected_step(rl_terms, (START[2], START[4]), START, 0.01, 1.0)
    _check_step(values, NAMES, START, expected, ignored=("old_weight", "old_mean", "old_scale"))
    typical = np.median(values["old_weight"][:, 1] - START[0])
    assert expected[0] < -0.5 < 0.15 < typical


@pytest.mark.slow
def test_mean_updates_of_the_single_mode_are_their_expectations_and_the_floor_rules_its_rl():
    start = (-3.5, 1.0)
    forward = trained(ONE, ForwardKL(), rate=0.05)
    _check_step(
        forward, SINGLE_NAMES, start, _expected_step(single_forward_terms, NEW_TASK, start, 0.05, 1.0)
    )
    values = trained(ONE, RL, rate=0.005)
    expected = _expected_step(single_rl_terms, start, start, 0.005, 1.0)
    errors = _check_step(values, SINGLE_NAMES, start, expected)
    # Without the floor, the reward of far samples would pull ten times as hard.
    bare = _expected_step(lambda x, p: single_rl_terms(x, p, 1e-300), start, start, 0.005, 1.0)
    assert abs(bare[0] - expected[0]) > 100 * errors["mean"]


@pytest.mark.parametrize(("method", "rate", "factor"), [("forward", 0.15, 0.005), ("rl", 0.01, 0.005)])
def test_the_first_steps_are_those_of_the_published_loop(method, rate, factor):
    rng = np.random.default_rng(5)
    loops = np.stack([trajectory(method, rate, factor, rng, num_steps=12) for _ in range(40)])
    divergence = FORWARD if method == "forward" else RL
    values = trained(TWO, divergence, rate=rate, factor=factor)
    # Not the old mode under RL: its updates have no variance to take an error from.
    names = (
        [*NAMES, "old_overlap", "new_overlap"]
        if method == "forward"
        else ["new_mean", "new_scale", "new_overlap"]
    )
    columns = dict(zip([*NAMES, "old_overlap", "new_overlap"], loops.transpose(2, 0, 1), strict=True))
    for name in names:
        ours, theirs = values[name][:, 1:], columns[name][:, 1:]
        error = np.sqrt(ours.var(axis=0, ddof=1) / len(ours) + theirs.var(axis=0, ddof=1) / len(theirs))
        grid = 1e-4 if "overlap" in name else 0.0
        assert np.all(np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 5 * error + grid), name


def test_overlaps_are_those_of_the_published_grid():
    rng = np.random.default_rng(6)
    with jax.enable_x64(True):
        target = jax.tree.map(jnp.asarray, published.TARGET)
        for _ in range(50):
            parameters = (rng.uniform(0.01, 0.99), *rng.uniform(-4, 4, 2), *rng.uniform(0.3, 2, 2))
            values = {
                name: jnp.full((1,) if "mean" in name else (), value)
                for name, value in zip(NAMES, parameters, strict=True)
            }
            found = TWO.metrics(values, target, target)
            pair = [found["old_overlap"], found["new_overlap"]]
            assert np.allclose(pair, grid_overlaps(parameters, low=-12, high=12, points=750), atol=1e-3)
            single = {"mean": values["old_mean"], "scale": values["old_scale"]}
            found = ONE.metrics(single, target, target)
            pair = [found["old_overlap"], found["new_overlap"]]
            expected = grid_overlaps((parameters[1], parameters[3]), low=-12, high=12, points=750)
            assert np.allclose(pair, expected, atol=1e-3)


def test_steps_are_slowed_before_they_are_clipped():
    for size, rate, factor in ((30.0, 0.1, 0.005), (3000.0, 0.1, 0.005), (30.0, 0.1, 1.0), (-30.0, 0.1, 1.0)):
        with jax.enable_x64(True):
            params = {name: jnp.asarray(value) for name, value in zip(NAMES, START, strict=True)}
            gradients = {name: jnp.asarray(size) for name in NAMES}
            optimizer = chen2025.published_steps(rate, factor)
            updates, _ = optimizer.update(gradients, optimizer.init(params), params)
            found = [float(params[name] + updates[name]) for name in NAMES]
        assert np.allclose(found, step(np.array(START), np.full(5, -size), rate, factor), rtol=1e-12)


def test_params_stay_inside_their_box_whatever_the_rate():
    for learner, divergence in ((TWO, FORWARD), (TWO, RL), (ONE, RL)):
        values = trained(learner, divergence, rate=30.0)
        for name, (low, high) in published.BOUNDS.items():
            if name in values:
                found = values[name][np.isfinite(values[name])]
                # A step back to the box from far off is rounded to the last bit of where it started.
                rounding = np.finfo(float).eps * max(1.0, np.abs(found).max())
                assert found.min() >= low - rounding
                assert found.max() <= high + rounding
        if learner is TWO:
            assert np.isin(values["old_weight"].round(12), published.BOUNDS["old_weight"]).any()


def test_the_floor_changes_the_pull_but_not_the_loss_where_the_learner_knows_the_task():
    key = jax.random.key(0)
    with jax.enable_x64(True):
        start, target = jax.tree.map(jnp.asarray, (published.START, published.TARGET))
        params = {
            name: jnp.full((1,) if "mean" in name else (), v) for name, v in zip(NAMES, START, strict=True)
        }
        near = params | {"new_mean": jnp.full(1, 3.0)}
        losses = [
            [float(d.loss(key, p, NEW_DATA, TWO, start, target)) for d in (FORWARD, ForwardKL())]
            for p in (near, params)
        ]
    assert np.isclose(*losses[0], rtol=1e-6)
    assert losses[1][0] < losses[1][1]


def test_the_parts_work_in_plain_numpyro():
    svi = SVI(NEW_DATA, TWO, optax.chain(optax.sgd(0.01), published.clip_to_bounds()), RL)
    found = svi.run(jax.random.key(0), 20, published.START, published.TARGET, progress_bar=False).params
    assert set(found) == set(NAMES)
    assert found["new_mean"][0] > 0.6


def test_what_the_published_parts_cannot_take_is_refused():
    plane = TwoMode.create(0.5, [0.0, 0.0], [3.0, 0.0])
    for learner in (TWO, ONE):
        with pytest.raises(InputError, match="one dimension; got a start of dimension 2"):
            train(
                Objective("plane", NEW_DATA, learner, RL),
                plane,
                plane,
                num_steps=1,
                batch_size=2,
                learning_rate=0.1,
                num_replicates=1,
                seed=0,
                progress=False,
            )


@pytest.fixture(scope="module")
def tree():
    return chen2025.run(chen2025.Settings(num_replicates=3, seed=1), progress=False)


def test_a_result_holds_both_settings_in_the_usual_layout(tree, tmp_path):
    assert set(tree.children) == {"bimodal", "unimodal"}
    for part, num_runs, num_steps in ((tree["bimodal"], 9, 200), (tree["unimodal"], 3, 1000)):
        sizes = part["trajectory"].sizes
        assert (sizes["objective"], sizes["step"], sizes["draw"]) == (num_runs, num_steps + 1, 3)
        assert np.all(results.converged(part))
        for group in ("trajectory", "final", "learnt"):
            for variable in part[group].to_dataset().variables.values():
                assert {"long_name", "units"} <= set(variable.attrs)
        table = az.summary(part, group="final", var_names=["drop", "gain"], kind="stats")
        assert len(table) == 2 * num_runs
    assert results.two_mode(tree["bimodal"], "target") == published.TARGET
    results.save(tree, tmp_path / "result.zarr")
    xr.testing.assert_identical(results.open(tmp_path / "result.zarr"), tree)


def test_drop_and_gain_are_changes_since_the_start_read_where_the_gain_first_reaches_its_mark(tree):
    for part in (tree["bimodal"], tree["unimodal"]):
        data, learnt = part["trajectory"].to_dataset(), part["learnt"].to_dataset()
        old, new = data["old_overlap"].to_numpy(), data["new_overlap"].to_numpy()
        for index in np.ndindex(old.shape[:-1]):
            gain = new[index] - new[index][0]
            assert np.allclose(data["gain"].to_numpy()[index], gain)
            first = next((step for step, value in enumerate(gain) if value >= 0.9), None)
            found = learnt["learnt_step"].to_numpy()[index]
            if first is None:
                assert np.isnan(found)
                assert np.isnan(learnt["learnt_drop"].to_numpy()[index])
            else:
                assert found == first
                assert np.isclose(learnt["learnt_drop"].to_numpy()[index], old[index][0] - old[index][first])


def test_the_start_has_the_overlaps_of_the_grid(tree):
    for name, parameters in (("bimodal", START), ("unimodal", (-3.5, 1.0))):
        first = tree[name]["trajectory"].to_dataset().isel(objective=0, draw=0, chain=0, step=0)
        found = [float(first["old_overlap"]), float(first["new_overlap"])]
        assert np.allclose(found, grid_overlaps(parameters, low=-10, high=10), atol=1e-3)


def test_nothing_undefined_is_printed_and_who_never_learnt_is_counted(tree, capsys):
    Console(width=200).print(chen2025.table(tree))
    printed = capsys.readouterr().out
    assert "nan" not in printed.lower()
    assert "not reached" in printed
    assert "0 of 3" in printed
    assert "nan" not in chen2025.conclusion(tree)
    frame = chen2025.summary(tree)
    assert frame.loc["forward KL, rate 0.01, factor 0.005", "num_learnt"] == 0
    assert frame.loc["forward KL, rate 0.15, factor 0.005", "num_learnt"] == 3


def test_the_conclusion_is_computed(tree):
    other = tree.copy(deep=True)
    final = other["bimodal"]["final"].to_dataset()
    final["drop"] = final["drop"] * 0.5
    other["bimodal/final"] = xr.DataTree(final)
    before, after = chen2025.summary(tree)["drop"], chen2025.summary(other)["drop"]
    name = "published RL, rate 0.01"
    assert np.isclose(after[name], 0.5 * before[name])
    assert f"{before[name]:.3f}" in chen2025.conclusion(tree)
    assert f"{after[name]:.3f}" in chen2025.conclusion(other)


def test_figures_show_every_run(tree):
    made = chen2025_figures.plot(tree)
    assert set(made) == {"densities", "drop_and_gain"}
    titles = " ".join(axes.get_title() for axes in made["densities"].axes)
    names = [n for part in tree.children.values() for n in part["final"]["objective"].to_numpy()]
    assert all(name in titles for name in names)


@pytest.mark.slow
def test_the_factor_and_not_the_objective_keeps_the_old_mode():
    settings = chen2025.Settings(num_replicates=32, seed=2)
    frame = chen2025.summary(chen2025.run(settings, progress=False))["drop"]
    slowed = frame["published RL, rate 0.01, factor 0.005"], frame["forward KL, rate 0.15, factor 0.005"]
    free = frame["published RL, rate 0.01"], frame["forward KL, rate 0.15"]
    assert slowed[0] < 0.1 < 0.25 < slowed[1] < 0.35
    assert min(free) > 0.75
    assert abs(free[0] - free[1]) < 0.02
    assert frame["reverse KL, rate 0.01"] < 0.0


@pytest.mark.slow
@pytest.mark.parametrize(("method", "rate"), [("forward", 0.15), ("rl", 0.01)])
def test_a_whole_run_is_that_of_the_published_loop(method, rate):
    rng = np.random.default_rng(7)
    loops = np.stack([trajectory(method, rate, 0.005, rng) for _ in range(24)])
    divergence = FORWARD if method == "forward" else RL
    values = trained(TWO, divergence, rate=rate, factor=0.005, num_steps=200, num_replicates=64)
    for name, column in (("old_overlap", 5), ("new_overlap", 6)):
        ours, theirs = values[name], loops[:, :, column]
        # Medians, for the weights are heavy-tailed; 1.5 spreads of theirs over √24 are 5 errors of a median.
        spread = np.subtract(*np.percentile(theirs, [75, 25], axis=0)) + np.subtract(
            *np.percentile(ours, [75, 25], axis=0)
        )
        gap = np.abs(np.median(ours, axis=0) - np.median(theirs, axis=0))
        assert np.all(gap < 1.5 * spread + 1e-3), name


def test_epsilon_is_the_published_one():
    assert published.FLOOR == EPS
