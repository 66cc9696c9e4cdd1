"""The loop of an ODE's solver: what diffrax' own loop gives, and what cannot be reached."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference.exact.stepping import stepped

CONTROLLER = diffrax.PIDController(rtol=1e-8, atol=1e-12)
IMPLICIT = diffrax.Kvaerno5(root_finder=diffrax.VeryChord(rtol=1e-8, atol=1e-12, norm=CONTROLLER.norm))
START = {"place": np.array([1.0, -0.5]), "rate": np.array(0.3)}


def oscillator(t, y, args):
    """Van der Pol's, which is hard and easy in turns, driven by a state of another shape."""
    place, velocity = y["place"]
    force = 8.0 * (1.0 - place**2) * velocity - place + y["rate"]
    return {"place": jnp.stack([velocity, force]), "rate": -0.1 * y["rate"] * jnp.cos(t)}


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def ours(times, *, solver=None, field=oscillator, state=START, begin=0.0, first_step=1e-3, max_steps=10_000):
    @jax.jit
    def solve(state, times):
        return stepped(
            diffrax.ODETerm(field),
            diffrax.Tsit5() if solver is None else solver,
            CONTROLLER,
            state,
            begin,
            times,
            first_step,
            max_steps,
        )

    return solve(state, jnp.asarray(times, float))


def theirs(times, solver, begin=0.0):
    return diffrax.diffeqsolve(
        diffrax.ODETerm(oscillator),
        diffrax.Tsit5() if solver is None else solver,
        begin,
        times[-1],
        1e-3,
        START,
        saveat=diffrax.SaveAt(ts=jnp.asarray(times)),
        stepsize_controller=CONTROLLER,
        max_steps=10_000,
    ).ys


@pytest.mark.parametrize(
    ("solver", "begin", "times"),
    [
        (None, 0.0, np.linspace(0.0, 20.0, 41)),  # from the start on
        (None, 0.0, [1e-5, 2e-5, 3e-5, 17.0]),  # several within a step, then none in many
        (None, 3.0, [9.0]),  # the end alone, from elsewhere
        (IMPLICIT, 0.0, [0.0, 1e-5, 2e-5, 8.0]),
    ],
)
def test_the_states_are_those_of_diffrax(solver, begin, times):
    found, reached = ours(times, solver=solver, begin=begin)
    assert reached
    for name, expected in theirs(times, solver, begin).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-12, atol=1e-14)


def test_many_at_once_each_take_their_own_steps():
    starts = jnp.array([[1.0, -0.5], [2.5, 0.0], [0.01, 0.0]])
    times = jnp.linspace(0.0, 10.0, 5)
    many, reached = jax.vmap(lambda place: ours(times, state=START | {"place": place}))(starts)
    assert np.all(reached)
    for place, path in zip(starts, many["place"], strict=True):
        alone, _ = ours(times, state=START | {"place": place})
        np.testing.assert_allclose(path, alone["place"], rtol=1e-12, atol=1e-14)


def test_it_says_when_the_end_is_not_reached():
    _, reached = ours([20.0], max_steps=50)
    assert not reached


def test_a_first_step_out_of_where_the_field_has_a_value_is_shortened():
    # y' = -√y from 1 is (1 - t/2)²; the first step of 30 would lead far below 0.
    found, reached = ours(
        [1.0, 1.9], field=lambda t, y, args: -jnp.sqrt(y), state=jnp.ones(1), first_step=1.9, max_steps=2000
    )
    assert reached
    np.testing.assert_allclose(found[:, 0], (1.0 - np.array([1.0, 1.9]) / 2.0) ** 2, rtol=1e-6)


def test_where_the_field_has_no_value_at_all_the_end_is_not_reached():
    _, reached = ours([1.0], field=lambda t, y, args: y * jnp.nan, state=jnp.ones(1), max_steps=500)
    assert not reached
