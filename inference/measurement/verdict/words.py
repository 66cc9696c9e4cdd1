"""The verdict in words: what a reader must know before quoting a weight or a drift."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from inference.measurement.posterior.laplace import MOST_K_HAT
from inference.measurement.verdict.checks import ACROSS, STATISTICS
from inference.measurement.verdict.kinds import GOOD, UNTRUSTED, WEAK, parts_of, worst

#: What is known of a checkpoint's measurement, by name: numbers, and the method as text.
type Stats = Mapping[str, Any]

#: Beyond this many standard deviations of the replicates a statistic is off.
MOST_DEVIATION = 3.5

# Of R-hat and effective sample size: Vehtari et al. (arXiv:1903.08008).
_MOST_R_HAT, _LEAST_ESS = 1.01, 400.0

#: Below this information on the weight, relative to samples whose mode is known, weight and drift blur.
LEAST_INFORMATION = 0.1

#: With fewer samples of a mode than this a feature, its displacement is mostly the prior's.
LEAST_SAMPLES = 2.0

#: A mode that has moved along the axis by more than this share of the references' distance may be another.
MOST_MOVED = 0.75

#: References that are this far apart can be told apart [Mahalanobis].
LEAST_SEPARATION = 1.0

# Share of rows that may stand in the samples more than once, and standard errors by which nearest samples may
# be nearer than the references', and neighbours in the file alike.
_MOST_REPEATED, _MOST_ERRORS, _LEAST_RATIO, _LEAST_CORRELATION = 0.01, 5.0, 0.1, 0.05


#: With fewer prompts than this their spread is hardly known.
LEAST_PROMPTS = 10


def verdicts(stats: Stats, num_features: int, separation: float) -> tuple[str, str]:
    """Return the verdicts on the weight and on the drift: ``good``, ``weak: …`` or ``not to be trusted: …``.

    Args:
        stats: the entries of ``/sample_stats`` of one checkpoint.
        num_features: features that displacement has.
        separation: of the references [Mahalanobis].
    """
    bad, weak = computation_of(stats)
    dependent = dependence_of(stats)
    if dependent and "num_prompts" not in stats:
        dependent = [f"{dependent[0]}: where several are of one prompt, label them by prompts"]
    bad += dependent
    if separation < LEAST_SEPARATION:
        bad.append(f"the references are hardly apart ({separation:.2g} Mahalanobis)")
    bad += _off(stats, [name for name in STATISTICS if name not in ACROSS])
    if stats.get("num_prompts", LEAST_PROMPTS) < LEAST_PROMPTS:
        weak.append(
            f"the samples come from {stats['num_prompts']} prompts, whose spread is then hardly known: "
            f"intervals are of new prompts with {LEAST_PROMPTS} or more"
        )
    drift_bad, drift_weak = list(bad), list(weak)
    for mode, other in (("old", "new"), ("new", "old")):
        share = float(stats[f"contaminated_{mode}"])
        if share > 0.0:
            bad.append(
                f"{100 * share:.2g} % of the {mode} reference look like the {other} task, which then counts "
                f"as {mode} too"
            )
    # The weight is told by the axis; what is off across it alone makes it doubtful, and the drift wrong.
    across = _off(stats, list(ACROSS))
    drift_bad += across
    weak += across
    if stats["weight_information"] < LEAST_INFORMATION:
        share = 100 * float(stats["weight_information"])
        weak.append(
            "the modes overlap so much that weight and drift can hardly be told apart (a sample holds "
            f"{share:.2g} % of the information on the weight that it would hold were its mode known)"
        )
    for mode in ("old", "new"):
        moved = abs(float(stats[f"{mode}_along_axis"]))
        if moved > MOST_MOVED * separation:
            weak.append(
                f"what is taken for the {mode} mode lies {moved:.2g} Mahalanobis from its reference along "
                f"the axis, on which the references are {separation:.2g} apart: it may be another behaviour"
            )
    if stats["deviation_left_out"] > MOST_DEVIATION:
        drift_weak.append("something moved in what the projection leaves out, where drift is not measured")
    for mode, weight in (("old", stats["old_weight_mean"]), ("new", 1.0 - stats["old_weight_mean"])):
        if stats["num_samples"] * weight < LEAST_SAMPLES * num_features:
            drift_weak.append(f"too few samples of the {mode} mode to see how it has moved")
    return worded(bad, weak), worded(drift_bad, drift_weak)


def together(weight: str, drift: str) -> str:
    """Return one verdict of both: the worse, what is said of both once."""
    each = [parts_of(words) for words in (weight, drift)]
    kind = worst(kind for kind, _ in each)
    reasons = dict.fromkeys(reason for _, told in each for reason in told.split("; ") if reason)
    return f"{kind}: " + "; ".join(reasons) if reasons else kind


def worded(bad: list[str], weak: list[str]) -> str:
    """Return a verdict from what makes a measurement wrong and what makes it doubtful."""
    if bad:
        return f"{UNTRUSTED}: " + "; ".join(bad + weak)
    return f"{WEAK}: " + "; ".join(weak) if weak else GOOD


def computation_of(stats: Stats) -> tuple[list[str], list[str]]:
    """Return what makes the computation wrong, and what makes it doubtful."""
    bad, weak = [], []
    if stats["method"] == "laplace" and not stats["k_hat"] <= MOST_K_HAT:
        text = f"the fast path cannot be trusted here (k-hat {stats['k_hat']:.2g} > {MOST_K_HAT:g})"
        if stats.get("streamed"):
            text += ", and the samples take more memory than NUTS may have"
        bad.append(text)
    if stats["method"] == "nuts":
        if not stats["r_hat"] <= _MOST_R_HAT + 0.01:
            bad.append(f"the chains disagree (R-hat {stats['r_hat']:.3f})")
        elif not stats["ess"] >= 0.5 * _LEAST_ESS:
            weak.append(f"few independent draws (ESS {stats['ess']:.0f})")
        if stats["divergences"] > 0:
            weak.append(f"{stats['divergences']:.0f} divergent transitions")
    return bad, weak


def _off(stats: Stats, names: list[str]) -> list[str]:
    """Return what of some statistics two modes do not describe."""
    off = [n.replace("_", " ") for n in names if not abs(float(stats[f"deviation_{n}"])) < MOST_DEVIATION]
    return [f"two modes do not describe the samples (off: {', '.join(off)})"] if off else []


def dependence_of(stats: Stats) -> list[str]:
    """Return how the samples depend on one another, if they do."""
    repeated = float(stats["num_repeated"]) / float(stats["num_samples"])
    ratio, correlation = np.exp(-float(stats["near_rows"])), float(stats["lag_correlation"])
    if repeated > _MOST_REPEATED:
        reason = f"{100 * repeated:.2g} % of them stand there more than once"
    elif _beyond(-stats["near_rows"], stats["near_rows_error"], _LEAST_RATIO):
        reason = f"the nearest are {ratio:.2g} times nearer than the references'"
    elif _beyond(correlation, stats["lag_correlation_error"], _LEAST_CORRELATION):
        reason = f"neighbours in the file are correlated by {correlation:.2g}"
    else:
        return []
    return [f"samples are not independent ({reason})"]


def _beyond(value: float, error: float, least: float) -> bool:
    return float(value) > max(least, _MOST_ERRORS * float(error))
