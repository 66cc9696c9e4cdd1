"""The posterior of the weights of several tasks from a log-likelihood a sample and task."""

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import special, stats

from inference import results
from inference.intervals import interval_probability
from inference.measurement.posterior.climb import newton
from inference.measurement.posterior.laplace import ATTEMPTS, MOST_K_HAT, resampled, smoothed
from inference.measurement.tasks.draws import copula
from inference.measurement.tasks.law import log_shares
from inference.measurement.tasks.variables import VARIABLES
from inference.measurement.verdict.kinds import UNTRUSTED

results.register(**VARIABLES)

_TOLERANCE, _EM_STEPS = 1e-9, 20

# Proposals at least; rows that are evaluated at once.
_LEAST_PROPOSED, _BLOCK = 4000, 4096


class TaskWeights(NamedTuple):
    """Draws of the weights of one checkpoint.

    Attributes:
        draws: equally weighted, shape (draw, K).
        proposed: the proposals that they were taken from, shape (P, K).
        share: of every proposal, with sum 1, shape (P,).
        k_hat: Pareto shape of these.
    """

    draws: Float[np.ndarray, "draw K"]
    proposed: Float[np.ndarray, "P K"]
    share: Float[np.ndarray, "P"]
    k_hat: float

    @property
    def mean(self) -> Float[np.ndarray, "K"]:
        """E[β]."""
        result: np.ndarray = self.share @ self.proposed
        return result

    @property
    def sd(self) -> Float[np.ndarray, "K"]:
        """Standard deviation of β."""
        result: np.ndarray = np.sqrt(self.share @ (self.proposed - self.mean) ** 2)
        return result

    def quantiles(self, probabilities: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n K"]:
        """Return the values below which the posterior has these probabilities."""
        found = []
        for values in self.proposed.T:
            order = np.argsort(values)
            below = np.cumsum(self.share[order]) - 0.5 * self.share[order]
            found.append(np.interp(probabilities, below, values[order]))
        return np.stack(found, axis=-1)


def task_weights(
    log_likelihood: Float[np.ndarray, "n K"],
    shapes: Float[np.ndarray, "K"],
    num: int,
    rng: np.random.Generator,
) -> TaskWeights:
    """Return draws of p(β | y) ∝ Dirichlet(β; a) Π_i Σ_k β_k p_k(y_i).

    The log posterior is concave in β. It is climbed by Newton steps, proposed around its mode as
    `tasks.draws` does, and every proposal weighted by its exact density.

    Args:
        log_likelihood: of every sample under every task [nat].
        shapes: a, each at least 1.
        num: of draws.
        rng: of all that is random.
    """
    relative = log_likelihood - log_likelihood.max(axis=1, keepdims=True)
    count, tasks = relative.shape
    logits = np.zeros(tasks)
    for _ in range(_EM_STEPS):
        logits = np.log(special.softmax(relative + log_shares(logits), axis=1).sum(axis=0) + shapes)
    base = int(np.argmax(logits))
    free = np.delete(np.arange(tasks), base)
    total = count + shapes.sum()

    def evaluate(flat: np.ndarray) -> list[np.ndarray]:
        at = log_shares(np.insert(flat[0], base, 0.0))
        logs, share = relative + at, np.exp(at)
        held = special.softmax(logs, axis=1)
        height = special.logsumexp(logs, axis=1).sum() + shapes @ at
        slope = held.sum(axis=0) + shapes - total * share
        bends = np.diag(held.sum(axis=0)) - held.T @ held - total * (np.diag(share) - np.outer(share, share))
        nothing = np.zeros((1, tasks - 1)), np.zeros((1, tasks - 1, tasks - 1))
        return [np.array([height]), slope[None, free], bends[np.ix_(free, free)][None], *nothing]

    flat, here, _ = newton(evaluate, (logits - logits[base])[None, free], _TOLERANCE)
    covariance = np.linalg.inv(-here[2][0])
    spread = np.sqrt(np.diag(covariance))
    best: TaskWeights | None = None
    for width, times in ATTEMPTS:
        size = max(times * num, _LEAST_PROPOSED)
        ones = np.ones((size, 1))
        correlation = np.tile(covariance / np.outer(spread, spread), (size, 1, 1))
        drawn, log_q = copula(ones * flat[0], ones * spread, correlation, width, rng)
        at = log_shares(np.insert(drawn, base, 0.0, axis=1))
        log_p = at @ shapes
        for start in range(0, count, _BLOCK):
            log_p += np.log(np.exp(relative[start : start + _BLOCK]) @ np.exp(at).T).sum(axis=0)
        log_weight = np.where(np.isfinite(log_p - log_q), log_p - log_q, -np.inf)
        found, k_hat = smoothed(log_weight[None])
        share = special.softmax(found[0])
        if best is None or k_hat < best.k_hat:
            proposed = np.exp(at)
            best = TaskWeights(proposed[resampled(share, num, rng)], proposed, share, k_hat)
        if best.k_hat <= MOST_K_HAT:
            break
    assert best is not None
    return best


def tree_of_tasks(
    scores: Mapping[Hashable, Float[np.ndarray, "n K"]],
    tasks: list[str],
    shapes: tuple[float, ...],
    new_task: str | None,
    num_draws: int,
    seed: int,
) -> xr.DataTree:
    """Return the result of `measure_scores` for several tasks.

    Args:
        scores: log-likelihoods of every checkpoint [nat].
        tasks: their names.
        shapes: of the Dirichlet prior.
        new_task: the one that is new, or None.
        num_draws: of the posterior.
        seed: of the draws.
    """
    names = list(scores)
    found = [
        task_weights(one, np.array(shapes), num_draws, np.random.default_rng([seed, index]))
        for index, one in enumerate(scores.values())
    ]
    probabilities = quantile_levels()
    sizes = np.array([len(one) for one in scores.values()])
    mean, sd = (np.stack([getattr(one, name) for one in found]) for name in ("mean", "sd"))
    information = mean * (1.0 - mean) / np.maximum(sd**2, 1e-300) / sizes[:, None]
    prior_sd = np.array([stats.beta(a, sum(shapes) - a).std() for a in shapes])
    summary = xr.Dataset(
        {
            "weight_mean": (("checkpoint", "task"), mean),
            "weight_sd": (("checkpoint", "task"), sd),
            "weight_quantile": (
                ("checkpoint", "probability", "task"),
                np.stack([one.quantiles(probabilities) for one in found]),
            ),
            "num_samples": ("checkpoint", sizes),
            "task_information": (("checkpoint", "task"), information),
            "k_hat": ("checkpoint", [one.k_hat for one in found]),
            "words": ("checkpoint", [_words(one, tasks, prior_sd) for one in found]),
        },
        {"checkpoint": names, "task": tasks, "probability": probabilities},
    )
    posterior = xr.Dataset(
        {
            "weight": (
                ("chain", "draw", "checkpoint", "task"),
                np.stack([one.draws for one in found], axis=1)[None],
            )
        },
        {"chain": [0], "draw": np.arange(num_draws), "checkpoint": names, "task": tasks},
    )
    if new_task is not None:
        posterior["old_weight"] = posterior["weight"].drop_sel(task=new_task).sum("task")
    settings = {"weight_prior": list(shapes), "seed": seed, "new_task": new_task or ""}
    groups = {"posterior": posterior, "summary": summary}
    return scores_tree(groups, settings, "measurement of scores of tasks")


def quantile_levels() -> Float[np.ndarray, "5"]:
    """Return the probabilities of the quantiles that are told: the interval's ends, quartiles and median."""
    tail = 0.5 * (1.0 - interval_probability())
    return np.array([tail, 0.25, 0.5, 0.75, 1.0 - tail])


def scores_tree(groups: Mapping[str, xr.Dataset], settings: Mapping[str, object], kind: str) -> xr.DataTree:
    """Return the result of a measurement of scores; its settings tell the probability of its intervals."""
    shown = {**settings, "interval_probability": interval_probability()}
    return results.assembled(groups, results.provenance(shown) | {"kind": kind})


def _words(found: TaskWeights, tasks: list[str], prior_sd: Float[np.ndarray, "K"]) -> str:
    """Say what a reader must know before quoting the weights."""
    if not found.k_hat <= MOST_K_HAT:
        return f"{UNTRUSTED}: the draws miss the posterior (k-hat {found.k_hat:.2g} > {MOST_K_HAT:g})"
    unseen = [
        task for task, sd, of_prior in zip(tasks, found.sd, prior_sd, strict=True) if sd > 0.9 * of_prior
    ]
    if unseen:
        return f"weak: the scores say hardly anything of the weight of {', '.join(unseen)}"
    return "good"
