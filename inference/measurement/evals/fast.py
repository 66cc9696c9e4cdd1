"""The fast path: draws of a task's unknowns and of its runs' by adaptive importance sampling.

The task's unknowns are drawn first, once for all its runs, on lanes; under each lane every run's (δ, τ) are
proposed a few times, and m is integrated on nodes that follow its conditional law. What is proposed is a
normal law on the scale of scores: first that of the mode and of the information there, which is climbed to
from the best place of a table that all runs share, then one whose moments are learnt from weighted draws.
The Pareto shape k̂ of the last round's weights says whether its draws can be trusted.

All runs of a task are answers to the same items, so their likelihoods given the base are not independent
evidence on the items' law: of R runs each counts 1/R there, as one run's evidence would.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special
from scipy.interpolate import CubicSpline

from inference.measurement.evals import likelihood
from inference.measurement.evals.cells import TaskCells
from inference.measurement.evals.importance import (
    k_hat,
    log_standard,
    moments,
    normal_draws,
    systematic,
    tempered,
    uniform,
)
from inference.measurement.posterior.laplace import MOST_K_HAT

# (δ, τ) a lane and call, nodes of m, rounds in which proposals are learnt, and calls in the last one.
_PAIRS, _NODES, _ROUNDS, _LAST = 1, 8, 1, 2

# How often a run is drawn, where k̂ is too large.
_ATTEMPTS = 3

#: Draws of a task, and lanes they lie on: more where there are few runs to wait for.
NUM_DRAWS = 1024


def num_lanes(num_runs: int) -> int:
    """Return how many draws of the tasks' unknowns there are for so many runs in all."""
    return 256 if num_runs <= 64 else 64


# How far nodes of m reach, in standard deviations of its law given (δ, τ).
_REACH = 3.9

# Points of the table that all runs share, and the least effective number of draws from which a law is learnt.
_TABLE, _LEAST = 256, 40.0

# Order of scores in a joint law: the task's, then δ, τ, m.
_TASK, _RUN = slice(0, 3), slice(3, 6)

# Products of two of a task's scores.
_ROWS, _COLUMNS = np.triu_indices(3)


class Prior(NamedTuple):
    """Normal law of the scores of pooled runs on each lane; without one it is standard."""

    mean: Float[np.ndarray, "R S 3"]
    sd: Float[np.ndarray, "R S 3"]


class Points(NamedTuple):
    """A round: weighted scores of the runs on lanes.

    Attributes:
        tasks: scores of the task.
        log_lane: log prior, base likelihood and less the proposal of each lane.
        pairs: scores of (δ, τ).
        masses: scores of m at nodes.
        log_weights: log-likelihood and prior of the run, less the proposal, times the nodes' spacing.
    """

    tasks: Float[np.ndarray, "S 3"]
    log_lane: Float[np.ndarray, "S"]
    pairs: Float[np.ndarray, "R S L 2"]
    masses: Float[np.ndarray, "R S L M"]
    log_weights: Float[np.ndarray, "R S L M"]


class Law(NamedTuple):
    """A normal law of scores: of the task, and of each run jointly with the task's."""

    task_mean: Float[np.ndarray, "3"]
    task_covariance: Float[np.ndarray, "3 3"]
    mean: Float[np.ndarray, "R 6"]
    covariance: Float[np.ndarray, "R 6 6"]


class Draws(NamedTuple):
    """Equally weighted draws of one task's scores and of its runs'; draw i of all belongs together.

    Attributes:
        tasks: scores of the task.
        runs: scores (δ, τ, m) of the runs.
        k_hat: Pareto shape of each run's weights.
        efficiency: effective share of each run's proposals.
    """

    tasks: Float[np.ndarray, "D 3"]
    runs: Float[np.ndarray, "R D 3"]
    k_hat: Float[np.ndarray, "R"]
    efficiency: Float[np.ndarray, "R"]


def learn(chunks: Sequence[TaskCells], lanes: int, rng: np.random.Generator, pool: ThreadPoolExecutor) -> Law:
    """Return the law from which a task and its runs are proposed.

    Args:
        chunks: the runs of the task in parts of one shape; the base is the same in all.
        lanes: how many draws of the task's unknowns a round has.
        rng: of all that is random.
        pool: threads that evaluate chunks side by side.
    """
    law = _first(chunks, rng, pool)
    for _ in range(_ROUNDS):
        points = propose(chunks, law, None, lanes, _PAIRS, rng, pool)
        law = _learnt(points, _real(chunks))
    return law


def _first(chunks: Sequence[TaskCells], rng: np.random.Generator, pool: ThreadPoolExecutor) -> Law:
    """Learn the task's scores from the base alone, the runs' at their mean from a table of all."""
    base = chunks[0]
    mean, covariance = np.zeros(3), np.eye(3)
    for num in (1024, 512, 512):
        scores, log_q = normal_draws(uniform(num, 4, rng), mean, covariance)
        log_p = likelihood.of_base(base, scores) + log_standard(scores)
        weights, _ = tempered((log_p - log_q)[None], _LEAST)
        mean, covariance = moments(weights, scores[None], 1e-4)
        mean, covariance = mean[0], covariance[0]
    pairs, nodes = special.ndtri(uniform(_TABLE, 2, rng)), np.linspace(-3.3, 3.3, 12)

    def of_runs(cells: TaskCells) -> tuple[np.ndarray, np.ndarray]:
        log_p = likelihood.table(cells, mean, pairs, nodes) + log_standard(nodes[:, None])
        best, node = np.divmod(log_p.reshape(len(log_p), -1).argmax(axis=1), len(nodes))
        tasks = np.broadcast_to(mean, (len(log_p), 3))
        return likelihood.modes(cells, np.column_stack([tasks, pairs[best], nodes[node]]))

    centres, covariances = (np.concatenate(part) for part in zip(*pool.map(of_runs, chunks), strict=True))
    return _with_task(Law(mean, covariance, centres, covariances), _real(chunks))


def _with_task(law: Law, real: Bool[np.ndarray, "R"]) -> Law:
    """Give the task the mean of what its runs say of it, one by one."""
    means, covariances = law.mean[real, _TASK], law.covariance[real, _TASK, _TASK]
    return law._replace(
        task_mean=means.mean(axis=0), task_covariance=covariances.mean(axis=0) + np.cov(means.T, bias=True)
    )


def propose(
    chunks: Sequence[TaskCells],
    law: Law,
    prior: Prior | None,
    lanes: int,
    num_pairs: int,
    rng: np.random.Generator,
    pool: ThreadPoolExecutor,
    at: Points | None = None,
) -> Points:
    """Draw lanes, or take those of other points, and what runs are on them, and weight both."""
    count = len(law.mean)
    if at is None:
        tasks, log_q = normal_draws(uniform(lanes, 4, rng), law.task_mean, law.task_covariance)
        log_lane = likelihood.of_base(chunks[0], tasks) + log_standard(tasks) - log_q
    else:
        tasks, log_lane = at.tasks, at.log_lane
    mean, covariance = _given_task(law, tasks, prior)
    u = (uniform(lanes * num_pairs, 3, rng) + rng.uniform(size=(count, 1, 3))) % 1.0
    u = rng.permuted(u.reshape(count, lanes, num_pairs, 3), axis=1)
    pairs, log_q = normal_draws(u, mean[:, :, None, :2], covariance[:, :, None, :2, :2])
    pairs = np.clip(pairs, -6.5, 6.5)
    # m given (δ, τ).
    slope = np.linalg.solve(covariance[..., :2, :2], covariance[..., :2, 2:])[..., 0]
    sd = np.sqrt(covariance[..., 2, 2] - np.sum(slope * covariance[..., :2, 2], axis=-1))[:, :, None, None]
    centre = mean[..., None, 2] + np.einsum("rsa,rsla->rsl", slope, pairs - mean[:, :, None, :2])
    shift = rng.uniform(-0.5, 0.5, size=(*pairs.shape[:3], 1))
    spacing = 2.0 * _REACH / (_NODES - 1)
    masses = centre[..., None] + sd * spacing * (np.arange(_NODES) - 0.5 * (_NODES - 1) + shift)
    scores = np.concatenate(
        [np.broadcast_to(pairs[..., None, :], (*masses.shape, 2)), masses[..., None]], axis=-1
    )
    log_p = _log_likelihood(chunks, tasks, pairs, masses, pool) + _log_prior(scores, prior)
    log_p += np.log(spacing * sd) - log_q[..., None]
    return Points(tasks, log_lane, pairs, masses, log_p)


def _log_prior(scores: Float[np.ndarray, "R S L M 3"], prior: Prior | None) -> Float[np.ndarray, "R S L M"]:
    if prior is None:
        return log_standard(scores)
    mean, sd = prior.mean[:, :, None, None], prior.sd[:, :, None, None]
    return log_standard((scores - mean) / sd) - np.log(sd).sum(-1)


def _given_task(
    law: Law, tasks: Float[np.ndarray, "S 3"], prior: Prior | None
) -> tuple[Float[np.ndarray, "R S 3"], Float[np.ndarray, "R #S 3 3"]]:
    """Return the law of each run's scores given the task's on each lane, under the pooled prior if any."""
    cross = law.covariance[:, _RUN, _TASK]
    slope = np.linalg.solve(law.covariance[:, _TASK, _TASK], np.swapaxes(cross, 1, 2)).swapaxes(1, 2)
    covariance = law.covariance[:, _RUN, _RUN] - slope @ np.swapaxes(cross, 1, 2)
    away = tasks[None] - law.mean[:, None, _TASK]
    mean = law.mean[:, None, _RUN] + np.einsum("rab,rsb->rsa", slope, away)
    if prior is None:
        return mean, covariance[:, None]
    # What the answers say is the law less the standard prior.
    precision = np.linalg.inv(covariance)
    values, vectors = np.linalg.eigh(precision - np.eye(3))
    answers = (vectors * np.maximum(values, 0.0)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    pooled = 1.0 / np.square(prior.sd)
    total = answers[:, None] + pooled[..., None] * np.eye(3)
    pulled = np.einsum("rab,rsb->rsa", precision, mean) + pooled * prior.mean
    return np.linalg.solve(total, pulled[..., None])[..., 0], np.linalg.inv(total)


def _log_likelihood(
    chunks: Sequence[TaskCells],
    tasks: np.ndarray,
    pairs: np.ndarray,
    masses: np.ndarray,
    pool: ThreadPoolExecutor,
) -> Float[np.ndarray, "R S L M"]:
    size, most = len(chunks[0].counts), pairs.shape[2]
    jobs = [(chunk, i, start) for i, chunk in enumerate(chunks) for start in range(0, most, _PAIRS)]

    def evaluate(job: tuple[TaskCells, int, int]) -> np.ndarray:
        chunk, i, start = job
        place = (slice(i * size, (i + 1) * size), slice(None), slice(start, start + _PAIRS))
        return likelihood.of_runs(chunk, tasks, pairs[place], masses[place])

    found = np.empty(masses.shape)
    for (_, i, start), part in zip(jobs, pool.map(evaluate, jobs), strict=True):
        found[i * size : (i + 1) * size, :, start : start + _PAIRS] = part
    return found


def _run_evidence(points: Points) -> Float[np.ndarray, "R S"]:
    """Return log of each run's likelihood given the base, on each lane."""
    return special.logsumexp(points.log_weights, axis=(2, 3)) - np.log(points.pairs.shape[2])


def _lane_log_weights(points: Points, real: Bool[np.ndarray, "R"]) -> Float[np.ndarray, "S"]:
    """Return log weights of lanes: the base's evidence and that of one run, the mean of all."""
    return points.log_lane + _run_evidence(points)[real].mean(axis=0)


def _real(chunks: Sequence[TaskCells]) -> Bool[np.ndarray, "R"]:
    """Return which runs have items; the others pad a chunk."""
    return np.concatenate([chunk.counts.sum(axis=1) for chunk in chunks]) > 0.0


def _learnt(points: Points, real: Bool[np.ndarray, "R"]) -> Law:
    """Learn the law from a round, tempered where few points would carry it."""
    shape = points.log_weights.shape
    count, lanes, _, nodes = shape
    scores = np.concatenate(
        [
            np.broadcast_to(points.tasks[None, :, None, None], (*shape, 3)),
            np.broadcast_to(points.pairs[..., None, :], (*shape, 2)),
            points.masses[..., None],
        ],
        axis=-1,
    ).reshape(count, -1, 6)
    log_weights = points.log_weights + points.log_lane[None, :, None, None]
    pair_weights = special.logsumexp(log_weights, axis=-1)
    of_pairs, power = tempered(pair_weights.reshape(count, -1), _LEAST)
    inner = special.softmax(log_weights * power[:, None, None, None], axis=-1).reshape(count, -1, nodes)
    weights = (of_pairs[..., None] * inner).reshape(count, -1)
    mean, covariance = moments(weights, scores, 1e-6)
    lane, _ = tempered(_lane_log_weights(points, real)[None], 0.4 * lanes)
    task_mean, task_covariance = moments(lane, points.tasks[None], 1e-6)
    return Law(task_mean[0], task_covariance[0], mean, covariance)


def draw(
    chunks: Sequence[TaskCells],
    law: Law,
    prior: Prior | None,
    lanes: int,
    rng: np.random.Generator,
    pool: ThreadPoolExecutor,
) -> Draws:
    """Return draws of a task's unknowns and its runs'.

    Args:
        chunks: the runs of the task.
        law: from which they are proposed.
        prior: of pooled runs on each lane, or None.
        lanes: how many draws of the task's unknowns there are.
        rng: of all that is random.
        pool: threads that evaluate chunks.
    """
    points = propose(chunks, law, prior, lanes, _PAIRS * _LAST, rng, pool)
    real = _real(chunks)
    for _ in range(_ATTEMPTS - 1):
        shapes, _ = _quality(points, real)
        bad = np.flatnonzero(real)[shapes > MOST_K_HAT]
        if not len(bad):
            break
        points, law = _improved(chunks, points, law, prior, bad, rng, pool)
    log_weights = _lane_log_weights(points, real)
    shapes, efficiency = _quality(points, real)
    chosen = systematic(special.softmax(log_weights)[None], lanes, rng)[0]
    each = NUM_DRAWS // lanes
    tasks = np.repeat(points.tasks[chosen], each, axis=0)
    runs = np.stack([_draw_run(points, int(r), chosen, each, rng) for r in np.flatnonzero(real)])
    order = rng.permutation(len(tasks))
    return Draws(tasks[order], runs[:, order], shapes, efficiency)


def _improved(
    chunks: Sequence[TaskCells],
    points: Points,
    law: Law,
    prior: Prior | None,
    bad: Int[np.ndarray, "b"],
    rng: np.random.Generator,
    pool: ThreadPoolExecutor,
) -> tuple[Points, Law]:
    """Learn the law of some runs anew, from a round of their own, and draw them anew on the same lanes."""
    size, lanes = len(chunks[0].counts), len(points.tasks)
    counts = np.concatenate([chunk.counts for chunk in chunks])[bad]
    missing = -len(bad) % size
    counts = np.concatenate([counts, np.zeros((missing, counts.shape[1]))])
    few = [chunks[0]._replace(counts=counts[i : i + size]) for i in range(0, len(counts), size)]
    places = np.concatenate([bad, np.repeat(bad[:1], missing)])
    of_few = law._replace(mean=law.mean[places], covariance=law.covariance[places])
    learnt = _learnt(propose(few, of_few, None, lanes, _PAIRS * _LAST, rng, pool), _real(few))
    of_prior = None if prior is None else Prior(prior.mean[places], prior.sd[places])
    found = propose(few, learnt, of_prior, lanes, _PAIRS * _LAST, rng, pool, at=points)
    mean, covariance = law.mean.copy(), law.covariance.copy()
    mean[bad], covariance[bad] = learnt.mean[: len(bad)], learnt.covariance[: len(bad)]
    parts = [points.pairs.copy(), points.masses.copy(), points.log_weights.copy()]
    for part, new in zip(parts, found[2:], strict=True):
        part[bad] = new[: len(bad)]
    return Points(points.tasks, points.log_lane, *parts), law._replace(mean=mean, covariance=covariance)


def _quality(points: Points, real: Bool[np.ndarray, "R"]) -> tuple[np.ndarray, np.ndarray]:
    """Return k̂ and the efficiency of each run's weights.

    Lanes are weighted by what all runs say of the task, so what one run says beyond that, as a quadratic in
    the task's scores, does not count.
    """
    scores = points.tasks - points.tasks.mean(axis=0)
    products = scores[:, _ROWS] * scores[:, _COLUMNS]
    columns = np.column_stack([np.ones(len(scores)), scores, products])
    evidence = _run_evidence(points)[real]
    trend = (columns @ np.linalg.lstsq(columns, evidence.T, rcond=None)[0]).T
    log_weights = special.logsumexp(points.log_weights, axis=-1)[real] + points.log_lane[None, :, None]
    flat = (log_weights - (trend - trend.mean(axis=0))[:, :, None]).reshape(len(log_weights), -1)
    weights = special.softmax(flat, axis=1)
    efficiency = 1.0 / np.square(weights).sum(axis=1) / weights.shape[1]
    return np.array([k_hat(row) for row in flat]), efficiency


def _draw_run(
    points: Points, r: int, lanes: np.ndarray, each: int, rng: np.random.Generator
) -> Float[np.ndarray, "D 3"]:
    """Draw a run's scores on each lane: (δ, τ) by their weights, then m between its nodes."""
    log_weights, masses = points.log_weights[r][lanes], points.masses[r][lanes]
    of_pair = special.softmax(special.logsumexp(log_weights, axis=-1), axis=-1)
    which = systematic(of_pair, each, rng)
    rows = np.arange(len(lanes))[:, None]
    m = _between(log_weights[rows, which], masses[rows, which], rng)
    return np.concatenate([points.pairs[r][lanes][rows, which], m[..., None]], axis=-1).reshape(-1, 3)


# Points between two neighbouring nodes of m at which its density is interpolated.
_FINE = 8


def _between(
    log_density: Float[np.ndarray, "*n M"], nodes: Float[np.ndarray, "*n M"], rng: np.random.Generator
) -> Float[np.ndarray, "*n"]:
    """Draw from a density given by its log at evenly spaced nodes, the log interpolated by a cubic spline."""
    size = log_density.shape[-1]
    log_density = np.maximum(log_density - log_density.max(axis=-1, keepdims=True), -300.0)
    fine = np.linspace(0.0, size - 1.0, _FINE * (size - 1) + 1)
    density = np.exp(CubicSpline(np.arange(size), log_density, axis=-1)(fine))
    area = np.concatenate(
        [np.zeros((*density.shape[:-1], 1)), np.cumsum(0.5 * (density[..., 1:] + density[..., :-1]), -1)], -1
    )
    wanted = rng.uniform(size=area.shape[:-1])[..., None] * area[..., -1:]
    place = np.minimum(np.sum(area < wanted, axis=-1, keepdims=True), area.shape[-1] - 1)
    below, above = (np.take_along_axis(area, np.maximum(place - i, 0), axis=-1) for i in (1, 0))
    share = (wanted - below) / np.where(above > below, above - below, 1.0)
    step = (nodes[..., 1:2] - nodes[..., :1]) / _FINE
    return (nodes[..., :1] + step * (place - 1 + share))[..., 0]
