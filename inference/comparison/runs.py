"""Did one real run forget less than another? Differences and probabilities between measured runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats
from jaxtyping import Float

from inference import results
from inference.engine.blas import on_one_thread
from inference.intervals import interval_kind, interval_probability
from inference.measurement.verdict import words as verdict
from mixture_models.validation import InputError, number

#: What is compared: variables of ``/posterior``.
COMPARED = ("old_weight", "old_drift")

# What is compared of runs that were measured from scores, which see no drift.
_OF_SCORES = ("old_weight",)

# Whose verdict goes with a variable.
_VERDICTS = {"old_weight": "weight", "old_drift": "drift"}

# Draws of a run that are paired with draws of another.
_MOST_DRAWS = 4000


@on_one_thread
def compare_runs(
    trees: Mapping[str, xr.DataTree],
    *,
    at: str | float = "final",
    gain: float | None = None,
    rope: float | Mapping[str, float] = 0.0,
) -> xr.DataTree:
    """Return how likely each run kept more old mass, and drifted less, than each other.

    Runs must be measured against the same references, with the same features. Given what these say the runs'
    posteriors are independent: every draw of one is paired with every draw of the other under the same draw
    of the references, so that their error, which the runs share, cancels. At matched gain a run is read where
    its new gap first falls to a common level, a draw at a time, its weight and drift interpolated linearly
    between the checkpoints before and after.

    Scores say nothing of drift and of the new gap: of runs that `inference.measure_scores` measured, the old
    weight alone is compared, at a checkpoint. That their scores are of the same references is not checked.

    Args:
        trees: measured runs by name; each the result of `inference.measure`, or each of
            `inference.measure_scores`.
        at: ``"final"``, the last checkpoint of each run; ``"matched_gain"``; or the name of a checkpoint that
            all runs have.
        gain: the new gap at which runs are matched [Mahalanobis]; None is the smallest that every run
            reaches with 94.5 % probability (with ArviZ's default intervals).
        rope: half width of the region of practical equivalence, one number or one for each of
            ``old_weight`` [1] and ``old_drift`` [Mahalanobis].

    Returns:
        DataTree with ``/comparison`` over (run, other): for each compared variable ``X_probability_larger``,
        ``X_probability_smaller`` and ``X_probability_equivalent`` (beyond and within the rope, they add up to
        1; draws that are equal, as where neither run has moved, count half to either side), ``X_difference``
        (run minus other), ``X_difference_interval``; and over run ``X`` with ``X_interval``, ``X_words``, the
        verdict on what was read, and ``reached``, the share of draws that reach the level.

    Raises:
        InputError: fewer than two runs, runs that were measured against different references or with other
            features, some of samples and some of scores, no such checkpoint, a level that no draw reaches, or
            a negative rope.
    """
    if not isinstance(trees, Mapping):
        raise InputError(f"trees must map names to measured runs; got {type(trees).__name__}")
    if len(trees) < 2:
        raise InputError(f"at least two runs must be compared; got {len(trees)}")
    names = [str(name) for name in trees]
    for name, tree in trees.items():
        if not isinstance(tree, xr.DataTree) or not compared(tree):
            raise InputError(
                f"{name} must be a measured run (the result of inference.measure or "
                "inference.measure_scores); it is not"
            )
    variables_of = {name: compared(tree) for name, tree in zip(names, trees.values(), strict=True)}
    chosen = variables_of[names[0]]
    if other := next((name for name, found in variables_of.items() if found != chosen), None):
        of_scores, of_samples = (names[0], other) if chosen == _OF_SCORES else (other, names[0])
        raise InputError(
            f"runs must all be measured from samples or all from scores; {of_scores} was from scores and "
            f"{of_samples} from samples"
        )
    if chosen == _OF_SCORES and (at == "matched_gain" or gain is not None):
        raise InputError("runs that were measured from scores have no new gap and cannot be compared at one")
    _check_references(trees)
    ropes = _ropes(rope, chosen)
    posteriors = [_draws(tree) for tree in trees.values()]
    level = np.nan
    if at == "matched_gain":
        level = (
            common_level([p["new_gap"].to_numpy() for p in posteriors])
            if gain is None
            else number("gain", gain)
        )
        values = [
            at_level(p["new_gap"].to_numpy(), {v: p[v].to_numpy() for v in COMPARED}, level)
            for p in posteriors
        ]
        read = [_checkpoints_at_level(p, level) for p in posteriors]
    elif gain is not None:
        raise InputError(f"gain belongs to at='matched_gain'; got at={at!r}")
    else:
        places = [_place(name, p, at) for name, p in zip(names, posteriors, strict=True)]
        values = [_at_checkpoint(p, place) for p, place in zip(posteriors, places, strict=True)]
        read = [np.array([place]) for place in places]
    reached = [float(np.isfinite(v["old_weight"]).mean()) for v in values]
    for name, share in zip(names, reached, strict=True):
        if share == 0.0:
            raise InputError(f"every run must reach a new gap of {level:.3g} in some draw; {name} does not")
    variables: dict[str, Any] = {"reached": ("run", reached)}
    same = len({_kind(tree) for tree in trees.values()}) == 1
    shared = same and chosen != _OF_SCORES
    groups = [p["reference_draw"].to_numpy() if shared else None for p in posteriors]
    for variable in chosen:
        variables |= compare_draws(variable, [v[variable] for v in values], groups, ropes[variable])
        words = [
            _words(verdicts(tree)[f"{_VERDICTS[variable]}_words"].to_numpy()[where])
            for tree, where in zip(trees.values(), read, strict=True)
        ]
        variables[f"{variable}_words"] = ("run", words)
    dataset = xr.Dataset(
        variables,
        {"run": names, "other": names, "ci_bound": ["lower", "upper"]},
        {"at": str(at), "level": level} | {f"{name}_rope": width for name, width in ropes.items()},
    )
    settings = {"at": str(at), "gain": level, "rope": ropes, "runs": names}
    root = xr.Dataset(attrs=results.provenance(settings) | {"kind": "comparison of runs"})
    return xr.DataTree.from_dict({"/": root, "/comparison": described(dataset, chosen)})


def compared(tree: xr.DataTree) -> tuple[str, ...]:
    """Return what can be compared of a run: of scores the old weight alone, of another tree nothing."""
    if "posterior" not in tree.children:
        return ()
    found = tree["posterior"].to_dataset()
    if "old_drift" in found:
        return COMPARED
    return _OF_SCORES if tree.attrs.get("kind") == "measurement of scores" else ()


def compared_draws(tree: xr.DataTree) -> xr.Dataset:
    """Return the posterior of what is compared, and of the new gap where there is one."""
    names = compared(tree)
    return tree["posterior"].to_dataset()[[*names, *([] if names == _OF_SCORES else ["new_gap"])]]


def verdicts(tree: xr.DataTree) -> xr.Dataset:
    """Return ``weight_words`` and, of samples, ``drift_words`` over the checkpoints of a measured run."""
    if compared(tree) == _OF_SCORES:
        return tree["summary"].to_dataset()[["words"]].rename(words="weight_words")
    return tree["sample_stats"].to_dataset()[["weight_words", "drift_words"]]


def _check_references(trees: Mapping[str, xr.DataTree]) -> None:
    """Refuse runs that were not measured against the same references."""
    first, *others = trees.items()
    for name, tree in others:
        for what, read in (("references", _references), ("features", _features)):
            if read(tree) != read(first[1]):
                raise InputError(
                    f"runs must be measured against the same {what}; those of {name} are not "
                    f"those of {first[0]}"
                )


def _references(tree: xr.DataTree) -> object:
    return tree.attrs.get("references")


def _features(tree: xr.DataTree) -> list[str]:
    if "constant_data" not in tree.children:
        return []
    return [str(f) for f in tree["constant_data"]["source_feature"].to_numpy()]


def _kind(tree: xr.DataTree) -> tuple[object, ...]:
    """Return what, with the references, decides the draws of what the references say."""
    return tuple(tree.attrs.get(name) for name in ("covariance", "tails", "max_features"))


def _words(words: np.ndarray) -> str:
    """Return the worst of some verdicts; that of scores is of one checkpoint."""
    if len(words) == 1:
        return str(words[0])
    return max(map(str, words), key=lambda w: verdict.ORDER.index(w.partition(": ")[0]))


def _ropes(rope: float | Mapping[str, float], chosen: tuple[str, ...]) -> dict[str, float]:
    given = dict(rope) if isinstance(rope, Mapping) else dict.fromkeys(chosen, rope)
    unknown = set(given) - set(COMPARED)
    if unknown:
        raise InputError(f"rope may name {', '.join(COMPARED)}; got {', '.join(sorted(unknown))}")
    widths = {name: number(f"rope of {name}", given.get(name, 0.0)) for name in COMPARED}
    if min(widths.values()) < 0.0:
        raise InputError(f"rope must be at least 0; got {min(widths.values()):g}")
    if useless := [name for name in COMPARED if name not in chosen and widths[name] > 0.0]:
        raise InputError(f"runs that were measured from scores have no {useless[0]}, and so no rope of it")
    return {name: widths[name] for name in chosen}


def _draws(tree: xr.DataTree) -> xr.Dataset:
    """Return what `compared_draws` does over (sample, checkpoint), at most 4,000 draws."""
    posterior = compared_draws(tree)
    stacked = posterior.stack(sample=("chain", "draw")).transpose("sample", "checkpoint")
    return stacked.isel(sample=slice(_MOST_DRAWS))


def _place(name: str, draws: xr.Dataset, at: str | float) -> int:
    labels = draws["checkpoint"].to_numpy()
    if at == "final":
        return len(labels) - 1
    if np.any(matches := labels.astype(str) == str(at)):
        return int(np.argmax(matches))
    raise InputError(
        f"at must be final, matched_gain or a checkpoint that every run has; got {at!r}, and {name} has "
        + ", ".join(map(str, labels[:8]))
    )


def _at_checkpoint(draws: xr.Dataset, place: int) -> dict[str, np.ndarray]:
    chosen = draws.isel(checkpoint=place)
    return {str(variable): values.to_numpy() for variable, values in chosen.data_vars.items()}


def _checkpoints_at_level(draws: xr.Dataset, level: float) -> np.ndarray:
    """Return the checkpoints that draws are read at or between, those that one draw in 20 needs."""
    below = draws["new_gap"].to_numpy() <= level
    first = below.argmax(axis=1)[below.any(axis=1)]
    needed = np.bincount(np.concatenate([first, np.maximum(first - 1, 0)]), minlength=below.shape[1])
    return np.flatnonzero(needed >= 0.05 * len(first))


def common_level(gaps: Sequence[Float[np.ndarray, "n checkpoint"]]) -> float:
    """Return the smallest gap that every run reaches with the upper probability of an interval."""
    upper = 0.5 + 0.5 * interval_probability()
    return max(float(np.quantile(gap.min(axis=1), upper)) for gap in gaps)


def at_level(
    gap: Float[np.ndarray, "n checkpoint"],
    values: Mapping[str, Float[np.ndarray, "n checkpoint"]],
    level: float,
) -> dict[str, Float[np.ndarray, "n"]]:
    """Read each draw where its gap first is at or below the level, NaN where it never is."""
    below = gap <= level
    first, rows = below.argmax(axis=1), np.arange(len(gap))
    before = np.maximum(first - 1, 0)
    span = gap[rows, before] - gap[rows, first]
    share = np.where(first > 0, (gap[rows, before] - level) / np.where(span > 0.0, span, 1.0), 1.0)
    read = {}
    for variable, array in values.items():
        between = (1.0 - share) * array[rows, before] + share * array[rows, first]
        read[variable] = np.where(below.any(axis=1), between, np.nan)
    return read


def compare_draws(
    variable: str,
    values: list[Float[np.ndarray, "n"]],
    groups: list[np.ndarray | None],
    rope: float,
) -> dict[str, Any]:
    """Return the entries of ``/comparison`` of one variable.

    Args:
        variable: its name.
        values: draws of each run, NaN where there is nothing to compare.
        groups: of the draws of each run: those of two runs are paired within a group; None pairs all.
        rope: half width of the region of practical equivalence.
    """
    size = len(values)
    larger, smaller, equivalent, mean = (np.zeros((size, size)) for _ in range(4))
    bounds = np.zeros((size, size, 2))
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            if i == j:
                # A run against itself: no difference, not two independent measurements.
                larger[i, j] = smaller[i, j] = 0.5 if rope == 0.0 else 0.0
                equivalent[i, j] = 0.0 if rope == 0.0 else 1.0
                continue
            difference = _differences(a, b, groups[i], groups[j])
            ties = 0.5 * np.mean(difference == 0.0) if rope == 0.0 else 0.0
            larger[i, j] = np.mean(difference > rope) + ties
            smaller[i, j] = np.mean(difference < -rope) + ties
            # Counted, for 1 less the others leaves their rounding.
            equivalent[i, j] = 0.0 if rope == 0.0 else np.mean(np.abs(difference) <= rope)
            mean[i, j] = difference.mean()
            bounds[i, j] = _bounds(difference)
    pair = ("run", "other")
    finite = [v[np.isfinite(v)] for v in values]
    return {
        variable: ("run", [v.mean() for v in finite]),
        f"{variable}_interval": (("run", "ci_bound"), np.stack([_bounds(v) for v in finite])),
        f"{variable}_probability_larger": (pair, larger),
        f"{variable}_probability_smaller": (pair, smaller),
        f"{variable}_probability_equivalent": (pair, equivalent),
        f"{variable}_difference": (pair, mean),
        f"{variable}_difference_interval": ((*pair, "ci_bound"), bounds),
    }


def _differences(
    a: np.ndarray, b: np.ndarray, of_a: np.ndarray | None, of_b: np.ndarray | None
) -> np.ndarray:
    """Return the differences of all finite draws under the same draw of the references."""
    if of_a is None or of_b is None:
        of_a, of_b = np.zeros(len(a), int), np.zeros(len(b), int)
    if np.array_equal(of_a, of_b) and len(np.unique(of_a)) == len(of_a):
        # One draw a group: thousands of groups need no loop.
        difference = a - b
        found = difference[np.isfinite(difference)]
        return found if found.size else _differences(a, b, None, None)
    parts = []
    for group in np.unique(of_a):
        one, other = a[of_a == group], b[of_b == group]
        one, other = one[np.isfinite(one)], other[np.isfinite(other)]
        parts.append((one[:, None] - other[None, :]).ravel())
    found = np.concatenate(parts)
    if not found.size:
        return _differences(a, b, None, None)
    return found


def _bounds(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "2"]:
    """Return the interval of many draws, of the kind and width that ArviZ is set to."""
    compute = array_stats.eti if interval_kind() == "eti" else array_stats.hdi
    return compute(values, interval_probability())


def described(dataset: xr.Dataset, variables: Sequence[str]) -> xr.Dataset:
    """Give what `compare_draws` has found of some variables its ``long_name`` and ``units``, in place."""
    words = {
        "": "",
        "interval": ", interval",
        "probability_larger": ": probability to be larger",
        "probability_smaller": ": probability to be smaller",
        "probability_equivalent": ": probability of practical equivalence",
        "difference": ": difference",
        "difference_interval": ": difference, interval",
    }
    results.describe(dataset)
    for variable in variables:
        owner = dataset[variable].attrs
        if f"{variable}_words" in dataset:
            dataset[f"{variable}_words"].attrs = {
                "long_name": f"what a reader must know of {owner['long_name']}",
                "units": "1",
            }
        for suffix, text in words.items():
            name = f"{variable}_{suffix}".rstrip("_")
            units = "1" if suffix.startswith("probability") else owner["units"]
            dataset[name].attrs = {"long_name": owner["long_name"] + text, "units": units}
    dataset["reached"].attrs = {"long_name": "share of draws that reach the matched gap", "units": "1"}
    dataset["run"].attrs = {"long_name": "measured run", "units": "1"}
    dataset["other"].attrs = {"long_name": "run compared with", "units": "1"}
    return dataset
