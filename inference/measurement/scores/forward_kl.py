"""The forward KL of the base from a run, from two log-likelihoods an answer to prompts of the new task.

    KL(base ‖ run) = E_x E_{y ~ base(·|x)} [log base(y|x) - log run(y|x)],   x a prompt of the new task

Answers of the base give it as the plain mean of a = log base - log run. The estimator a + r - 1, r =
run/base, is never negative, and unbiased where E_base[r] = 1. It is not used: of normal log ratios and a KL
of K nats its variance is e^(2K) - 1 - 2K, that of the plain mean 2K. It is the better one below 0.63 nat, a
hundred times as variable at 3.3, and an interval from a sample then does not know: the largest r is not in
it. The plain mean is right for any K, and wide where K is small.

Answers of the run give the reverse KL as the plain mean of -a, and the forward one by importance weights
w = base/run alone,

    KL(base ‖ run) = E_run[w a] / E_run[w],

with w smoothed by a Pareto law (PSIS), whose shape k̂ says whether there is such a mean. k̂ alone does not
tell
enough: it is small too where no answer of the run looks like what the base does. So two more things must
hold: E_run[w] is 1, up to its error, and the effective number of weights is large.
`benchmarks.calibration_forward_kl` measures what the verdict is worth.

Answers to one prompt are not independent; prompts are. So all means are over the means of every prompt: the
estimate is for the mean over new prompts, and a prompt that was answered more often counts as any other. The
standard error of a ratio of means is that of its linearisation, the interval Student's t with a degree of
freedom less than there are prompts (of clusters: robust to any dependence within).
"""

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy import stats

from inference import results
from inference.intervals import interval_probability
from inference.measurement.posterior.laplace import MOST_K_HAT, smoothed
from inference.measurement.scores.answers import Answers
from inference.measurement.verdict.kinds import UNTRUSTED

results.register(
    forward_kl_per_token=("forward KL a token, KL(base ‖ trained)", "nat"),
    reverse_kl=("reverse KL, KL(trained ‖ base)", "nat"),
    forward_kl_mean=("forward KL, estimate", "nat"),
    forward_kl_error=("forward KL, standard error", "nat"),
    num_kl_answers=("answers to prompts of the new task", "1"),
    num_kl_prompts=("prompts of the new task that these answer", "1"),
    kl_shown=("mean of base/run over the run's answers, 1 where they show all of the base", "1"),
    kl_effective=("answers of the base that the run's are worth", "1"),
    kl_k_hat=("Pareto shape of base/run over the run's answers, k-hat", "1"),
    kl_words=("what a reader must know of the forward KL", "1"),
)

# Fewer weights have no tail to fit.
_LEAST_WEIGHTS = 26

# With fewer prompts, or answers where there are none, the verdict is weak; so it is where one of them has as
# large a part of the variance.
_FEW, _LARGEST_PART = 10, 0.5

# Of the run's answers: the least effective number, and part of their number, for an interval; how many
# standard errors, and how much more, the mean weight may miss 1 by.
_LEAST_WORTH, _LEAST_PART = 50.0, 0.3
_ERRORS, _MISS = 4.0, 0.01


class Estimate(NamedTuple):
    """A mean, or a ratio of means, over independent prompts.

    Attributes:
        value: of it.
        error: its standard error.
        freedom: degrees of freedom of its Student law.
        largest: largest part of the variance that one prompt has.
    """

    value: float
    error: float
    freedom: int
    largest: float

    def quantiles(self, probabilities: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Return those of the Student law around it."""
        result: np.ndarray = self.value + self.error * stats.t.ppf(probabilities, self.freedom)
        return result


def estimate(
    numerator: Float[np.ndarray, "n"], denominator: Float[np.ndarray, "n"], prompts: Int[np.ndarray, "n"]
) -> Estimate:
    """Return Σ_p N_p / Σ_p D_p, with N_p and D_p the means over the answers to prompt p.

    With z_p = (N_p - K D_p) / mean(D) the standard error is √(var(z) / P). Where all of the denominator is
    1 the value is the mean of the prompts' means, and the error is theirs, exactly.

    Args:
        numerator: of every answer.
        denominator: of every answer, 1 for a mean.
        prompts: number of each answer's prompt.
    """
    counts = np.bincount(prompts)
    top, bottom = (np.bincount(prompts, values) / counts for values in (numerator, denominator))
    value = top.mean() / bottom.mean()
    away = (top - value * bottom) / bottom.mean()
    squares = np.square(away)
    total = squares.sum()
    error = np.sqrt(total / (len(away) - 1) / len(away))
    return Estimate(
        float(value), float(error), len(away) - 1, float(squares.max() / total) if total > 0.0 else 0.0
    )


class Weights(NamedTuple):
    """Importance weights of the run's answers.

    Attributes:
        smoothed: with mean 1, the largest by a Pareto law.
        k_hat: its shape; infinite where there are too few weights to tell, 0 where the largest are equal.
        effective: number, (Σ w)² / Σ w².
        shown: mean of the weights as they are, over prompts.
    """

    smoothed: Float[np.ndarray, "n"]
    k_hat: float
    effective: float
    shown: Estimate


def importance(log_weights: Float[np.ndarray, "n"], prompts: Int[np.ndarray, "n"]) -> Weights:
    """Return weights for answers of the run.

    Args:
        log_weights: log base - log run.
        prompts: number of each answer's prompt.
    """
    found, k_hat, size = log_weights, np.inf, log_weights.size
    if size >= _LEAST_WEIGHTS:
        largest = np.sort(np.round(log_weights, 8))[-int(min(0.2 * size, 3.0 * np.sqrt(size))) :]
        if largest[0] == largest[-1]:
            k_hat = 0.0
        else:
            rows, k_hat = smoothed(log_weights[None])
            found = rows[0]
    shares = np.exp(found - found.max())
    # What overflows is seen by its effective number.
    raw = np.exp(np.minimum(log_weights, 300.0))
    worth = shares.sum() ** 2 / np.square(shares).sum()
    return Weights(shares / shares.mean(), k_hat, float(worth), estimate(raw, np.ones(size), prompts))


def add_forward_kl(
    tree: xr.DataTree,
    answers: Mapping[Hashable, Answers] | None,
    source: str | None,
    num_draws: int,
    seed: int,
) -> xr.DataTree:
    """Add the forward KL to a measurement of scores, in place; nothing where there are no answers.

    Args:
        tree: the measurement, over the same checkpoints.
        answers: of every checkpoint.
        source: whose they are.
        num_draws: as many as the measurement has.
        seed: of the draws.
    """
    if answers is None or source is None:
        return tree
    strata = np.random.default_rng([seed, 2]).permuted(
        np.tile(np.arange(num_draws), (len(answers), 1)), axis=1
    )
    uniforms = (strata + 0.5) / num_draws
    rows = [divergences(one, source) for one in answers.values()]
    posterior, summary = tree["posterior"].to_dataset(), tree["summary"].to_dataset()
    for name in rows[0].estimates:
        drawn = [row.estimates[name].quantiles(u) for row, u in zip(rows, uniforms, strict=True)]
        posterior[name] = (("chain", "draw", "checkpoint"), np.stack(drawn, axis=-1)[None])
    whole = [row.estimates["forward_kl"] for row in rows]
    summary["forward_kl_mean"] = ("checkpoint", [one.value for one in whole])
    summary["forward_kl_error"] = ("checkpoint", [one.error for one in whole])
    summary["num_kl_answers"] = ("checkpoint", [one.log_run.size for one in answers.values()])
    if all(one.labelled for one in answers.values()):
        summary["num_kl_prompts"] = ("checkpoint", [one.freedom + 1 for one in whole])
    if weights := [row.weights for row in rows if row.weights is not None]:
        summary["kl_k_hat"] = ("checkpoint", [one.k_hat for one in weights])
        summary["kl_effective"] = ("checkpoint", [one.effective for one in weights])
        summary["kl_shown"] = ("checkpoint", [one.shown.value for one in weights])
    summary["kl_words"] = (
        "checkpoint",
        [verdict(row, one) for row, one in zip(rows, answers.values(), strict=True)],
    )
    tree["posterior"], tree["summary"] = (xr.DataTree(results.describe(one)) for one in (posterior, summary))
    tree.attrs["sampled_from"] = source
    return tree


class Divergences(NamedTuple):
    """What is estimated of a checkpoint.

    Attributes:
        estimates: by the name of the variable.
        direct: the one that is a plain mean: no divergence is below 0.
        weights: of the run's answers, None of the base's.
    """

    estimates: dict[str, Estimate]
    direct: Estimate
    weights: Weights | None


def divergences(answers: Answers, source: str) -> Divergences:
    """Return what the answers of one checkpoint tell.

    Args:
        answers: of the checkpoint.
        source: whose they are, ``base`` or ``run``.
    """
    ratio, prompts = answers.log_base - answers.log_run, answers.prompts
    ones = np.ones(ratio.size)
    weights = importance(ratio, prompts) if source == "run" else None
    by = ones if weights is None else weights.smoothed
    found = {"forward_kl": estimate(by * ratio, by, prompts)}
    if answers.tokens is not None:
        found["forward_kl_per_token"] = estimate(by * ratio, by * answers.tokens, prompts)
    if weights is not None:
        found["reverse_kl"] = estimate(-ratio, ones, prompts)
    return Divergences(found, found.get("reverse_kl", found["forward_kl"]), weights)


def verdict(measured: Divergences, answers: Answers) -> str:
    """Say what a reader must know before quoting the forward KL."""
    upper = measured.direct.quantiles(np.array([0.5 + 0.5 * interval_probability()]))[0]
    if upper < 0.0:
        return (
            f"{UNTRUSTED}: the mean log ratio has the sign that no KL has; the columns are swapped, or "
            "the answers are those of the other model"
        )
    whole, what = measured.estimates["forward_kl"], "prompts" if answers.labelled else "answers"
    if whole.freedom + 1 < _FEW:
        return f"weak: {whole.freedom + 1} {what} are too few for an interval"
    if measured.weights is not None:
        unseen = _unseen(measured.weights)
        if unseen is not None:
            return unseen
    if whole.largest > _LARGEST_PART:
        return f"weak: one of {whole.freedom + 1} {what} has {100 * whole.largest:.0f} % of the variance"
    return "good"


def _unseen(weights: Weights) -> str | None:
    """Say how the answers of the run do not show what the base does, or nothing."""
    take, shown = "; take answers of the base", weights.shown
    if abs(shown.value - 1.0) > _ERRORS * shown.error + _MISS:
        return (
            f"{UNTRUSTED}: the mean of base/run is {shown.value:.2g}, not 1 as where the run's answers "
            f"show all of the base{take}"
        )
    if not weights.k_hat <= MOST_K_HAT:
        return (
            f"{UNTRUSTED}: answers of the run hardly show those of the base (k-hat "
            f"{weights.k_hat:.2g} > {MOST_K_HAT:g}){take}"
        )
    count = weights.smoothed.size
    if weights.effective < max(_LEAST_WORTH, _LEAST_PART * count):
        return f"weak: {count} answers of the run are worth {weights.effective:.0f} of the base{take}"
    return None
