"""Speed of the exact side, side by side in one run: `pytest -m benchmark -s`. Nothing is asserted of time."""

import time
from dataclasses import replace
from functools import partial

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from inference import gradient_flow, population
from inference.engine.frames import in_frame
from inference.exact.population import Place, loss_and_grad
from inference.exact.stepping import stepped
from mixture_models import TwoMode, objectives

ROUNDS = 7


def fastest(actions):
    """Return the least time of every action over rounds that take them in turn, in seconds."""
    best = dict.fromkeys(actions, np.inf)
    for _ in range(ROUNDS):
        for name, action in actions.items():
            began = time.perf_counter()
            jax.block_until_ready(action())
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def setting(dim, separation=4.0):
    """Return a learner and a target in ``dim`` dimensions, whitened."""
    target = TwoMode.on_axis(0.4, separation, dim)
    return target.displaced(0.8, old_drift=0.3, new_gap=1.0), target


def batch(mixture, count):
    """Return ``count`` mixtures as one pytree, their logits apart."""
    stacked = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *np.shape(x))), mixture)
    return replace(stacked, old_logit=stacked.old_logit + jnp.linspace(0.0, 0.1, count))


def exact(learner, target):
    """Return value and gradient of reverse KL by logistic-normal integrals."""
    chosen = objectives.reverse_kl()
    params = {name: getattr(learner, name) for name in ("old_logit", "old_mean", "new_mean")}
    pair = (learner, target)
    return loss_and_grad(Place(chosen.loss, 2, params, chosen.model, chosen.guide, pair, None))


def by_gauss_hermite(learner, target, order=32):
    """Return the same by a tensor rule of ``order``² nodes around every mode of the learner."""
    x, w = np.polynomial.hermite_e.hermegauss(order)
    z = np.stack(np.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2)
    weights = np.multiply.outer(w, w).ravel() / (2.0 * np.pi)

    def loss(params):
        q = TwoMode(*params, learner.scale)
        share = jax.nn.sigmoid(params[0])
        total = 0.0
        for mean, mass in ((params[1], share), (params[2], 1.0 - share)):
            y = mean + z
            total += mass * jnp.sum(weights * (q.law().log_prob(y) - target.law().log_prob(y)))
        return total

    return jax.value_and_grad(loss)((learner.old_logit, learner.old_mean, learner.new_mean))


@pytest.mark.benchmark
def test_speed_of_a_value_and_gradient(capsys):
    count = 256  # fewer, and the time is that of the call: 0.3 ms, on whatever is in it
    with jax.enable_x64(True):
        actions = {}
        for name, dim, function in (
            ("d = 1", 1, exact),
            ("any d from 3 on, in the span of the means", 3, exact),
            ("32² Gauss-Hermite nodes, d = 2", 2, by_gauss_hermite),
        ):
            learner, target = setting(dim)
            learners = batch(learner, count)
            program = jax.jit(jax.vmap(partial(function, target=target)))
            jax.block_until_ready(program(learners))
            actions[name] = partial(program, learners)
        wide, narrow = setting(2, 6.0)
        truth, rule = float(exact(wide, narrow)[0]), float(by_gauss_hermite(wide, narrow)[0])
        seconds = fastest(actions)
    calls = {}
    for dim in (1, 4096):
        pair = setting(dim)
        population(objectives.reverse_kl(), *pair)
        calls[f"population(...), d = {dim}"] = partial(population, objectives.reverse_kl(), *pair)
        calls[f"whitening and projecting, d = {dim}"] = partial(in_frame, pair, "whitened")
    called = fastest(calls)
    with capsys.disabled():
        print(f"\nvalue and gradient of reverse KL, {count} at once")
        for name, value in seconds.items():
            ratio = value / seconds["d = 1"]
            print(f"  {name:42}{1e6 * value / count:10.1f} µs each {ratio:8.2f} times d = 1")
        print(f"  error of the Gauss-Hermite rule at separation 6: {abs(rule - truth):.1e} nats")
        for name, value in called.items():
            print(f"  {name:42}{1e6 * value:10.1f} µs a call, two resolutions")


@pytest.mark.benchmark
def test_speed_of_flows(capsys):
    count, end = 256, 1e4
    targets = [
        TwoMode.create(w, 0.0, d) for w in np.linspace(0.2, 0.8, 16) for d in np.linspace(2.0, 6.0, 16)
    ]
    starts = [t.replace(old_weight=0.7, new_mean=t.new_mean - 0.5) for t in targets]
    times = np.geomspace(1.0, end, 50)
    follow = partial(gradient_flow, objectives.reverse_kl(), times=times)
    jax.clear_caches()
    began = time.process_time()
    follow(starts, targets)
    first = time.process_time() - began
    began = time.perf_counter()
    tree = follow(starts, targets)
    together = time.perf_counter() - began

    with jax.enable_x64(True):
        gradient = jax.jit(lambda learner, target: exact(learner, target)[1])

        def alone(start, target):
            def field(_, theta):
                learner = TwoMode(theta[0], theta[1:2], theta[2:], target.scale)
                slope = gradient(learner, target)
                return -np.concatenate([np.ravel(slope[n]) for n in ("old_logit", "old_mean", "new_mean")])

            begin = np.array([start.old_logit, *start.old_mean, *start.new_mean])
            options = {"t_eval": times, "method": "LSODA", "rtol": 1e-8, "atol": 1e-12}
            return solve_ivp(field, (0.0, end), begin, **options).y

        alone(starts[0], targets[0])
        began = time.perf_counter()
        some = range(0, count, 16)
        ends = [alone(starts[i], targets[i]) for i in some]
        each = (time.perf_counter() - began) / len(some)
    found = tree["population"]["old_logit"][0, ::16].to_numpy()
    np.testing.assert_allclose(found, [y[0] for y in ends], atol=1e-6)
    with capsys.disabled():
        print(f"\ngradient flow of reverse KL to t = {end:g} at rtol 1e-8, {count} settings")
        print(f"  gradient_flow        {together:8.2f} s; the first call, compiling, {first:.1f} s of a core")
        print(f"  LSODA in a loop      {each * count:8.2f} s, extrapolated from {len(some)} settings")
        print(f"  ratio                {each * count / together:8.1f}")


@pytest.mark.benchmark
def test_compiling_the_loop_of_a_flow(capsys):
    controller = diffrax.PIDController(rtol=1e-8, atol=1e-12)
    terms = diffrax.ODETerm(lambda t, y, args: jax.tree.map(jnp.negative, y))

    def ours(state, times):
        return stepped(terms, diffrax.Tsit5(), controller, state, 0.0, times, 1e-2, 200_000)[0]

    def theirs(state, times):
        return diffrax.diffeqsolve(
            terms,
            diffrax.Tsit5(),
            0.0,
            times[-1],
            1e-2,
            state,
            saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=controller,
            adjoint=diffrax.ForwardMode(),
            max_steps=200_000,
            throw=False,
        ).ys

    seconds = {}
    with jax.enable_x64(True):
        state = {"logit": jnp.ones(64), "old_mean": jnp.ones((64, 2)), "new_mean": jnp.ones((64, 2))}
        for name, solve in {"inference.exact.stepping": ours, "diffrax.diffeqsolve": theirs}.items():
            jax.clear_caches()
            began = time.process_time()
            jax.jit(jax.vmap(solve, (0, None))).lower(state, jnp.arange(41.0)).compile()
            seconds[name] = time.process_time() - began
    with capsys.disabled():
        print("\nto compile the loop around an empty field, seconds of a core")
        for name, value in seconds.items():
            print(f"  {name:30}{value:8.2f}")
        own, other = seconds.values()
        print(f"  {'ratio':30}{other / own:8.1f}")
