"""Speed, as ratios measured side by side in one run: ``pytest -m benchmark -s``. Nothing timed is asserted.

One trajectory is a published bi-modal run: 200 steps of 1000 samples, five parameters trained, both overlaps
after every step. The library trains 256 of them at once, on all cores, so its time is divided by 256; all
else runs on one core.
"""

import platform
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
from jax import lax
from jax.tree_util import Partial
from numpyro.infer import SVI
from scipy.stats import norm

from analyses import chen2025
from inference import measure, train
from inference.engine import chunks
from mixture_models.accel.compiler import compiler_options
from mixture_models.losses.precision import PRECISIONS
from mixture_models.mixture.overlap import overlap_area
from mixture_models.objectives import Objective, new_data, published

REPLICATES, STEPS, BATCH, ROUNDS = 256, 200, 1000, 5
EPS, FACTOR = published.FLOOR, chen2025.FACTOR
RATES = {"forward KL": 0.15, "published RL": 0.01}
DIVERGENCES = {"forward KL": published.FlooredForwardKL(), "published RL": published.PublishedRL()}
LEARNER = published.PublishedTwoModeLearner()


def by_library(method, precision, seed):
    train(
        Objective(method, Partial(new_data, None), LEARNER, DIVERGENCES[method]),
        published.START,
        published.TARGET,
        num_steps=STEPS,
        batch_size=BATCH,
        learning_rate=RATES[method],
        num_replicates=REPLICATES,
        seed=seed,
        optimizer=chen2025.published_steps(RATES[method], FACTOR),
        precision=precision,
        progress=False,
    )


def by_scipy(method, seed):
    """The straightforward loop: a density call of SciPy wherever the publication has one."""
    rng, pdf = np.random.default_rng(seed), norm.pdf
    grid = np.linspace(-8, 8, 500)
    p_old, p_new = 0.75 * pdf(grid, -3.0, 1.0), 0.25 * pdf(grid, 3.5, 0.7)
    area_old, area_new = np.trapezoid(p_old, grid), np.trapezoid(p_new, grid)
    w, m_o, m_n, s_o, s_n = 0.75, -3.5, 0.5, 1.0, 0.7
    rate, rows = RATES[method], []
    for _ in range(STEPS):
        if method == "forward KL":
            x = rng.normal(3.5, 0.7, BATCH)
            n_o, n_n = pdf(x, m_o, s_o), pdf(x, m_n, s_n)
            q = w * n_o + (1 - w) * n_n + EPS
            pull, difference = 1.0, (n_o - n_n) / q
            r_o, r_n = w * n_o / q, (1 - w) * n_n / q
        else:
            x = rng.normal(m_n, s_n, BATCH)
            q_o, q_n = w * pdf(x, m_o, s_o), (1 - w) * pdf(x, m_n, s_n)
            q = q_o + q_n + EPS
            pull = np.log(pdf(x, 3.5, 0.7) / q_n / 0.1 + EPS) * q / (q_n + EPS)
            difference = (pdf(x, m_o, s_o) - pdf(x, m_n, s_n)) / q
            r_o, r_n = q_o / q, 1 - q_o / q
        g_w = np.mean(pull * difference)
        g_mo = np.mean(pull * r_o * (x - m_o) / s_o**2)
        g_mn = np.mean(pull * r_n * (x - m_n) / s_n**2)
        g_so = np.mean(pull * r_o * (-1 / s_o + (x - m_o) ** 2 / s_o**3))
        g_sn = np.mean(pull * r_n * (-1 / s_n + (x - m_n) ** 2 / s_n**3))
        w = np.clip(w + rate * FACTOR * g_w, 1e-3, 1 - 1e-3)
        m_o, m_n = m_o + rate * FACTOR * g_mo, m_n + rate * g_mn
        s_o, s_n = max(s_o + rate * FACTOR * g_so, 1e-3), max(s_n + rate * g_sn, 1e-3)
        old = np.trapezoid(np.minimum(p_old, w * pdf(grid, m_o, s_o)), grid) / area_old
        new = np.trapezoid(np.minimum(p_new, (1 - w) * pdf(grid, m_n, s_n)), grid) / area_new
        rows.append((w, m_o, m_n, s_o, s_n, old, new))
    return np.array(rows)


def by_numpy(method, seed):
    """The same arithmetic with nothing computed twice: the exponentials and a dozen passes over the batch."""
    rng, c = np.random.default_rng(seed), 1 / np.sqrt(2 * np.pi)
    grid = np.linspace(-8, 8, 500)
    width = grid[1] - grid[0]

    def bell(x, weight, mean, scale):
        u = (x - mean) / scale
        return u, (weight * c / scale) * np.exp(-0.5 * u * u)

    def area(f):
        return width * (f.sum() - 0.5 * (f[0] + f[-1]))

    p_old, p_new = bell(grid, 0.75, -3.0, 1.0)[1], bell(grid, 0.25, 3.5, 0.7)[1]
    area_old, area_new = area(p_old), area(p_new)
    w, m_o, m_n, s_o, s_n = 0.75, -3.5, 0.5, 1.0, 0.7
    rate, rows = RATES[method], []
    for _ in range(STEPS):
        z = rng.standard_normal(BATCH)
        x = 3.5 + 0.7 * z if method == "forward KL" else m_n + s_n * z
        (u_o, q_o), (u_n, q_n) = bell(x, w, m_o, s_o), bell(x, 1 - w, m_n, s_n)
        if method == "forward KL":
            inverse = 1 / (q_o + q_n + EPS)
            r_o, r_n = q_o * inverse, q_n * inverse
        else:
            reward = np.log(bell(x, 10.0, 3.5, 0.7)[1] / q_n + EPS)
            r_o, r_n = reward * q_o / (q_n + EPS), reward
        sum_o, sum_n = r_o.sum() / BATCH, r_n.sum() / BATCH
        g_w = sum_o / w - sum_n / (1 - w)
        g_mo, g_mn = r_o @ u_o / (BATCH * s_o), r_n @ u_n / (BATCH * s_n)
        g_so = (r_o @ (u_o * u_o) / BATCH - sum_o) / s_o
        g_sn = (r_n @ (u_n * u_n) / BATCH - sum_n) / s_n
        w = min(max(w + rate * FACTOR * g_w, 1e-3), 1 - 1e-3)
        m_o, m_n = m_o + rate * FACTOR * g_mo, m_n + rate * g_mn
        s_o, s_n = max(s_o + rate * FACTOR * g_so, 1e-3), max(s_n + rate * g_sn, 1e-3)
        old = area(np.minimum(p_old, bell(grid, w, m_o, s_o)[1])) / area_old
        new = area(np.minimum(p_new, bell(grid, 1 - w, m_n, s_n)[1])) / area_new
        rows.append((w, m_o, m_n, s_o, s_n, old, new))
    return np.array(rows)


def compiled(function):
    """Compile for many replicates with the options that `train` compiles with."""
    return jax.jit(jax.vmap(function), compiler_options=compiler_options())


def kernel(method):
    """The step by hand in JAX: same batch, same update, same loss, overlaps in closed form, no NumPyro."""
    rate, c = RATES[method], 1 / np.sqrt(2 * np.pi)

    def bell(x, weight, mean, scale):
        u = (x - mean) / scale
        return u, (weight * c / scale) * jnp.exp(-0.5 * u * u)

    def step(carry, _):
        key, (w, m_o, m_n, s_o, s_n) = carry
        key, noise = jax.random.split(key)
        z = lax.optimization_barrier(jax.random.normal(noise, (BATCH,), jnp.float32)).astype(float)
        x = 3.5 + 0.7 * z if method == "forward KL" else m_n + s_n * z
        (u_o, q_o), (u_n, q_n) = bell(x, w, m_o, s_o), bell(x, 1 - w, m_n, s_n)
        if method == "forward KL":
            q = q_o + q_n + EPS
            r_o, r_n = q_o / q, q_n / q
            loss = jnp.mean(-0.5 * z * z + np.log(c / 0.7) - jnp.log(lax.optimization_barrier(q)))
        else:
            ratio = bell(x, 10.0, 3.5, 0.7)[1] / (q_n + EPS) + EPS
            reward = jnp.log(lax.optimization_barrier(ratio))
            r_o, r_n = reward * q_o / (q_n + EPS), reward
            loss = -jnp.mean(r_o + r_n)
        sum_o, sum_n = jnp.mean(r_o), jnp.mean(r_n)
        w_next = jnp.clip(w + rate * FACTOR * (sum_o / w - sum_n / (1 - w)), 1e-3, 1 - 1e-3)
        mo_next = m_o + rate * FACTOR * jnp.mean(r_o * u_o) / s_o
        mn_next = m_n + rate * jnp.mean(r_n * u_n) / s_n
        so_next = jnp.maximum(s_o + rate * FACTOR * (jnp.mean(r_o * (u_o * u_o)) - sum_o) / s_o, 1e-3)
        sn_next = jnp.maximum(s_n + rate * (jnp.mean(r_n * (u_n * u_n)) - sum_n) / s_n, 1e-3)
        return (key, (w_next, mo_next, mn_next, so_next, sn_next)), ((w, m_o, m_n, s_o, s_n), loss)

    def run(key):
        start = tuple(jnp.asarray(value) for value in (0.75, -3.5, 0.5, 1.0, 0.7))
        _, ((w, m_o, m_n, s_o, s_n), loss) = lax.scan(step, (key, start), None, length=STEPS + 1)
        old = overlap_area(0.75, -3.0, 1.0, w, m_o, s_o) / 0.75
        new = overlap_area(0.25, 3.5, 0.7, 1 - w, m_n, s_n) / 0.25
        return {"old_weight": w, "new_mean": m_n, "old_overlap": old, "new_overlap": new, "loss": loss}

    return compiled(run)


def scan_of_svi(method):
    """The NumPyro path: `SVI.update` in a scan."""
    optimizer = chen2025.published_steps(RATES[method], FACTOR)
    svi = SVI(Partial(new_data, None), LEARNER, optimizer, DIVERGENCES[method].with_samples(BATCH))
    start, target = jax.tree.map(jnp.asarray, (published.START, published.TARGET))

    def step(state, _):
        following, loss = svi.update(state, start, target)
        return following, (svi.get_params(state), loss)

    def run(key):
        _, (params, loss) = lax.scan(step, svi.init(key, start, target), None, length=STEPS + 1)
        return jax.vmap(lambda p: LEARNER.metrics(p, start, target))(params) | {"loss": loss}

    return compiled(run)


def fastest(actions):
    """Return the least time of every action over rounds that take them in turn, and that of all its cores.

    Both in seconds; on a machine that does something else the second says more.
    """
    wall, cpu = dict.fromkeys(actions, np.inf), dict.fromkeys(actions, np.inf)
    for seed in range(ROUNDS):
        for name, action in actions.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            action(seed)
            wall[name] = min(wall[name], time.perf_counter() - began)
            cpu[name] = min(cpu[name], time.process_time() - began_cpu)
    return wall, cpu


def machine():
    model = next(
        (line.partition(":")[2] for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    cores = chunks.num_threads()
    name = model.strip() or platform.processor() or "processor unknown"
    return f"{name}, {cores} cores and as many threads, jaxlib {jaxlib.__version__}, NumPy {np.__version__}"


def _lines(path):
    return Path(path).read_text().splitlines() if Path(path).exists() else []


@pytest.mark.benchmark
@pytest.mark.parametrize("method", RATES)
def test_speed_of_the_published_bimodal_runs(method, capsys):
    assert np.allclose(by_scipy(method, 0), by_numpy(method, 0), rtol=1e-6)
    with jax.enable_x64(True), jax.threefry_partitionable(False):
        programs = {"hand-written JAX kernel": kernel(method), "SVI.update in a scan": scan_of_svi(method)}
        keys = jax.random.split(jax.random.key(1), REPLICATES)
        ends = {name: jax.block_until_ready(program(keys)) for name, program in programs.items()}
        by_hand, by_svi = ends.values()
        for name, tolerance in (("new_mean", 0.01), ("new_overlap", 0.01), ("old_overlap", 0.02)):
            medians = [float(jnp.median(end[name][:, -1])) for end in (by_hand, by_svi)]
            assert np.isclose(*medians, atol=tolerance), name
        for precision in PRECISIONS:
            by_library(method, precision, 0)  # compiles
        seconds, cpu = fastest(
            {name: partial(lambda f, _: jax.block_until_ready(f(keys)), f) for name, f in programs.items()}
            | {f"train(...), {precision}": partial(by_library, method, precision) for precision in PRECISIONS}
            | {"SciPy loop": partial(by_scipy, method), "tight NumPy loop": partial(by_numpy, method)}
        )
    each = {name: 1e3 * best / (1 if name.endswith("loop") else REPLICATES) for name, best in seconds.items()}
    ours = [each[f"train(...), {precision}"] for precision in PRECISIONS]
    with capsys.disabled():
        print(f"\n{method}, {STEPS} steps of {BATCH} samples, {REPLICATES} replicates at once")
        print(f"  {machine()}")
        print(f"  {'':26}{'ms a trajectory':>16}{'of a core':>11}{'cores used':>11}  train is faster by")
        print(f"  {'':64}{PRECISIONS[0]:>10}{PRECISIONS[1]:>10}")
        for name, value in sorted(each.items(), key=lambda item: -item[1]):
            used = cpu[name] / seconds[name]
            ratios = "".join(f"{value / time:10.2f}" for time in ours)
            print(f"  {name:26}{value:16.3f}{value * used:11.3f}{used:11.2f}{ratios}")
        ratio = each["SVI.update in a scan"] / each["hand-written JAX kernel"]
        print(f"  SVI.update in a scan takes {ratio:.2f} times the hand-written kernel's time")


@pytest.mark.benchmark
def test_fast_measurement_against_nuts():
    """20 checkpoints of 2,000 samples in 8 dimensions: the fast path on all, NUTS on two, per checkpoint."""
    rng = np.random.default_rng(0)
    separation = 4.0 * np.eye(8)[0]
    old, new = rng.normal(size=(2000, 8)), rng.normal(size=(2000, 8)) + separation
    runs = [
        rng.normal(size=(2000, 8)) + np.where(rng.uniform(size=(2000, 1)) < weight, 0.2, separation)
        for weight in np.linspace(0.9, 0.2, 20)
    ]
    settings = {"progress": False, "covariance": "shared", "tails": "gaussian"}
    seconds = {}
    for method, count in (("laplace", 20), ("nuts", 2)):
        measure(runs[:1], old, new, method=method, **settings)  # compiles
        start = time.perf_counter()
        measure(runs[:count], old, new, method=method, **settings)
        seconds[method] = (time.perf_counter() - start) / count
    ratio = seconds["nuts"] / seconds["laplace"]
    print(f"\nfast path {seconds['laplace']:.2f} s, NUTS {seconds['nuts']:.2f} s: {ratio:.0f} times")
