"""The verdict in words: what a reader must know before quoting what a run has forgotten."""

import numpy as np

from inference.measurement.evals.checks import STATISTICS
from inference.measurement.verdict.kinds import GOOD
from inference.measurement.verdict.words import Stats, computation_of, worded

#: Beyond this many standard deviations of the replicates a statistic is off.
MOST_DEVIATION = 4.5

#: An interval of the mass lost that is wider than this tells little of it.
WIDE = 0.15

#: Of clusters: the largest p and the least design effect that are an alarm, and that beyond which intervals
#: are not to be trusted.
MOST_P, LEAST_DESIGN_EFFECT, MOST_DESIGN_EFFECT = 1e-3, 1.2, 2.0

#: Of neighbours: the least correlation, and in standard errors, that are an alarm.
MOST_ERRORS, LEAST_CORRELATION = 4.0, 0.05

# Share of items that may be left out, or not compared, without a word.
_MOST_LEFT_OUT = 0.05

_OFF = {
    "base": "the base's pass rates (the guess rate or the spread of items is another)",
    "together": "how base and run go together",
    "always_right": "the run's answers to items that the base always solves (mass lost on some alone?)",
    "never_right": "the run's answers to items that the base never solves (another guess rate?)",
}


def words_of(stats: Stats) -> str:
    """Return the verdict on one run: ``good``, ``weak: …`` or ``not to be trusted: …``.

    ``good: …`` says what an interval that can be trusted is an interval of.

    Args:
        stats: the entries of ``/sample_stats`` of the run.
    """
    (bad, weak), remarks = computation_of(stats), []
    off = [
        _OFF[name]
        for name in STATISTICS
        if np.isfinite(stats[f"deviation_{name}"]) and stats[f"deviation_{name}"] > MOST_DEVIATION
    ]
    if off:
        bad.append(f"the model does not describe the answers (off: {', '.join(off)})")
    if is_unlike_base(stats):
        bad.append("a second evaluation of the base differs from the first by more than chance")
    elif stats["retest_differs"]:
        bad.append("the base, evaluated twice, differs by more than chance, and so may any run")
    of_clusters = _clusters(stats)
    if of_clusters and stats["design_effect"] > MOST_DESIGN_EFFECT:
        bad.append(of_clusters)
    else:
        weak += filter(None, [of_clusters or _neighbours(stats)])
    if stats["kind"] == "repeats":
        weak += _mass(stats)
        if stats["fractional"]:
            weak.append(
                "scores between 0 and 1 count as parts of right answers: intervals are too wide rather than "
                "too narrow"
            )
    elif not stats["mean_choices"] > 2.0:
        weak.append("with two choices, guesses that persist cannot be told from what is known")
    share = stats["num_left_out"] / max(stats["num_left_out"] + stats["num_items"], 1.0)
    if share > _MOST_LEFT_OUT:
        weak.append(
            f"{stats['num_left_out']:.0f} items ({100 * share:.2g} %) have no partner and are left out"
        )
    if stats["num_seeds"] == 1 and not stats["is_retest"]:
        remarks.append("one training seed: the interval is of this run, not of the method")
    if bad or weak:
        return worded(bad, weak + remarks)
    return f"{GOOD}: {'; '.join(remarks)}" if remarks else GOOD


def is_unlike_base(stats: Stats) -> bool:
    """Return whether a run that is the base, evaluated again, differs from it by more than chance."""
    return bool(stats["is_retest"] and stats["deviation_from_base"] > MOST_DEVIATION)


def _clusters(stats: Stats) -> str:
    """Return how items of one cluster change together, if they do beyond chance."""
    effect = stats["design_effect"]
    if not (stats["cluster_p"] < MOST_P and effect > LEAST_DESIGN_EFFECT):
        return ""
    return (
        f"items of one cluster change together: intervals are {np.sqrt(effect):.2g} times too narrow (the "
        f"standard error of the change of accuracy is {stats['clustered_error']:.2g})"
    )


def _neighbours(stats: Stats) -> str:
    """Return how items next to each other change alike, where no clusters are named."""
    if np.isfinite(stats["num_clusters"]) or not (
        stats["neighbour_errors"] > MOST_ERRORS and stats["neighbour_correlation"] > LEAST_CORRELATION
    ):
        return ""
    return (
        "items next to each other in the log change alike, as items of one text or subject do (correlation "
        f"{stats['neighbour_correlation']:.2g}): if they share a text, intervals are "
        f"{np.sqrt(stats['neighbour_design_effect']):.2g} times too narrow; a column of clusters would tell"
    )


def _mass(stats: Stats) -> list[str]:
    """Return what is known of the mass lost, if it is little."""
    if stats["num_answers"] <= 1.0:
        text = "one answer an item cannot tell mass lost from drift, only how the accuracy has changed"
    elif stats["mass_lost_width"] > WIDE:
        text = f"the mass lost is known to {stats['mass_lost_width']:.2g} only (width of its interval)"
    else:
        return []
    answers = stats["answers_wanted"]
    if np.isfinite(answers):
        return [f"{text}; {answers:.0f} answers an item of base and run would give it to {WIDE:g}"]
    return [f"{text}; more items are needed, not only more answers"]
