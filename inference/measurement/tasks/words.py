"""The verdict in words on the weights and drifts of several tasks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from inference.measurement.tasks.checks import NUM_ALONG, STATISTICS
from inference.measurement.verdict.words import (
    LEAST_INFORMATION,
    LEAST_SAMPLES,
    LEAST_SEPARATION,
    MOST_DEVIATION,
    MOST_MOVED,
    Stats,
    computation_of,
    dependence_of,
    worded,
)

# The shares of the references come out wrong where they are off by this, and by this many standard errors.
_LEAST_OFF, _ERRORS = 0.02, 3.0


class Facts(NamedTuple):
    """What is known of the references, the same for every checkpoint.

    Attributes:
        names: of the tasks.
        separation: distances between the references, shape (K, K) [Mahalanobis].
        foreign: share of each reference (rows) that looks like each other task, shape (K, K).
        own_shares: error of the estimated weights of all references together, and its standard errors.
    """

    names: Sequence[str]
    separation: Float[np.ndarray, "K K"]
    foreign: Float[np.ndarray, "K K"]
    own_shares: tuple[Float[np.ndarray, "K"], Float[np.ndarray, "K"]]


def verdicts(
    stats: Stats, facts: Facts, moved_along: Float[np.ndarray, "K"], num_features: int
) -> tuple[str, str]:
    """Return the verdicts on the weights and on the drifts, as `verdict.words.verdicts` does.

    Args:
        stats: the entries of ``/sample_stats`` of one checkpoint.
        facts: of the references.
        moved_along: how far each mode has moved along the discriminants [Mahalanobis].
        num_features: features that displacement has.
    """
    bad, weak = computation_of(stats)
    bad += dependence_of(stats) + _too_near(facts)
    weak += _other_shape(facts)
    statistics = [*STATISTICS, *(f"spread beside discriminants, {name}" for name in facts.names)]
    off = [
        name
        for name, z in zip(statistics, stats["check_deviation"], strict=True)
        if not abs(float(z)) < MOST_DEVIATION
    ]
    along = [name for name in off if name in STATISTICS[:NUM_ALONG]]
    beside = [name for name in off if name not in along]
    bad += [f"one mode a task does not describe the samples (off: {', '.join(along)})"] if along else []
    drift_bad, drift_weak = list(bad), list(weak)
    bad += [
        f"{100 * facts.foreign[i, j]:.2g} % of the {facts.names[i]} reference look like {facts.names[j]}, "
        f"which then counts as {facts.names[i]} too"
        for i, j in np.argwhere(facts.foreign > 0.0)
    ]
    if beside:
        reason = f"one mode a task does not describe the samples (off: {', '.join(beside)})"
        drift_bad.append(reason)
        weak.append(reason)
    weak += _overlaps(stats, facts.names)
    nearest = np.where(np.eye(len(facts.names), dtype=bool), np.inf, facts.separation).min(axis=1)
    for name, moved, distance in zip(facts.names, moved_along, nearest, strict=True):
        if moved > MOST_MOVED * distance:
            weak.append(
                f"what is taken for {name} lies {moved:.2g} Mahalanobis from its reference, and the nearest "
                f"other one is {distance:.2g} away: it may be another behaviour"
            )
    if stats["deviation_left_out"] > MOST_DEVIATION:
        drift_weak.append("something moved in what the projection leaves out, where drift is not measured")
    few = [
        name
        for name, weight in zip(facts.names, stats["weight_mean"], strict=True)
        if stats["num_samples"] * weight < LEAST_SAMPLES * num_features
    ]
    if few:
        drift_weak.append(f"too few samples of {', '.join(few)} to see how it has moved")
    return worded(bad, weak), worded(drift_bad, drift_weak)


def _too_near(facts: Facts) -> list[str]:
    return [
        f"the references of {facts.names[i]} and {facts.names[j]} are hardly apart "
        f"({facts.separation[i, j]:.2g} Mahalanobis)"
        for i, j in np.argwhere(np.triu(facts.separation < LEAST_SEPARATION, 1))
    ]


def _other_shape(facts: Facts) -> list[str]:
    """Return that the references do not follow the law of the modes, where they do not."""
    off, error = facts.own_shares
    worst = int(np.argmax(np.abs(off)))
    if abs(off[worst]) <= max(_LEAST_OFF, _ERRORS * error[worst]):
        return []
    return [
        "the modes along the discriminants are not what the references show: of all references together the "
        f"share of {facts.names[worst]} comes out {abs(off[worst]):.2g} too "
        f"{'large' if off[worst] > 0 else 'small'}"
    ]


def _overlaps(stats: Stats, names: Sequence[str]) -> list[str]:
    """Return which tasks can hardly be told apart, or one from what belongs to neither."""
    confusion = np.where(np.eye(len(names), dtype=bool), 0.0, stats["confusion"])
    of_neither = 1.0 - np.sum(stats["confusion"], axis=1)
    found: dict[str, None] = {}
    for k in map(int, np.flatnonzero(np.asarray(stats["task_information"]) < LEAST_INFORMATION)):
        other = int(np.argmax(confusion[k]))
        if stats["num_samples"] * stats["weight_mean"][k] < 1.0:
            continue
        if of_neither[k] > confusion[k, other] + 1e-9:
            found[
                f"{names[k]} and what belongs to neither task overlap so much that their weights can hardly "
                "be told apart"
            ] = None
            continue
        first, second = sorted((k, other))
        found[
            f"{names[first]} and {names[second]} overlap so much that their weights can hardly be told apart"
        ] = None
    return list(found)
