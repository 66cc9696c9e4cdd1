"""Did one real run forget less than another? Differences and probabilities between measured runs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from inference import results
from inference.intervals import interval_kind, interval_probability
from mixture_models.validation import InputError, number

#: What is compared: variables of ``/posterior``.
COMPARED = ("old_weight", "old_drift")

# Draws of a run that are paired with all draws of another.
_MOST_DRAWS = 1000


def compare_runs(
    trees: Mapping[str, xr.DataTree],
    *,
    at: Any = "final",
    gain: float | None = None,
    rope: float | Mapping[str, float] = 0.0,
) -> xr.DataTree:
    """Return how likely each run kept more old mass, and drifted less, than each other.

    The runs' posteriors are taken as independent, so every draw of one is paired with every draw of the
    other. At matched gain a run is read where its new gap first falls to a common level, a draw at a time,
    its weight and drift interpolated linearly between the checkpoints before and after.

    Args:
        trees: measured runs by name; each the result of `inference.measure`.
        at: ``"final"``, the last checkpoint of each run; ``"matched_gain"``; or the name of a checkpoint that
            all runs have.
        gain: the new gap at which runs are matched [Mahalanobis]; None is the smallest that every run
            reaches with 94.5 % probability (with ArviZ's default intervals).
        rope: half width of the region of practical equivalence, one number or one for each of
            ``old_weight`` [1] and ``old_drift`` [Mahalanobis].

    Returns:
        DataTree with ``/comparison`` over (run, other): for each compared variable ``X_probability_larger``,
        ``X_probability_smaller`` and ``X_probability_equivalent`` (beyond and within the rope, they add up
        to 1), ``X_difference`` (run minus other), ``X_difference_interval``; and over run ``X`` with
        ``X_interval``, and ``reached``, the share of draws that reach the level.

    Raises:
        InputError: fewer than two runs, no such checkpoint, a level that no draw reaches, or a negative rope.
    """
    if len(trees) < 2:
        raise InputError(f"at least two runs must be compared; got {len(trees)}")
    names = [str(name) for name in trees]
    for name, tree in trees.items():
        if "posterior" not in tree.children or "old_drift" not in tree["posterior"]:
            raise InputError(f"{name} must be a measured run (the result of inference.measure); it is not")
    ropes = _ropes(rope)
    posteriors = [_draws(tree) for tree in trees.values()]
    level = np.nan
    if at == "matched_gain":
        level = _common_level(posteriors) if gain is None else number("gain", gain)
        values = [_at_level(p, level) for p in posteriors]
    elif gain is not None:
        raise InputError(f"gain belongs to at='matched_gain'; got at={at!r}")
    else:
        values = [_at_checkpoint(name, p, at) for name, p in zip(names, posteriors, strict=True)]
    reached = [float(np.isfinite(v["old_weight"]).mean()) for v in values]
    for name, share in zip(names, reached, strict=True):
        if share == 0.0:
            raise InputError(f"every run must reach a new gap of {level:.3g} in some draw; {name} does not")
    variables: dict[str, Any] = {"reached": ("run", reached)}
    for variable in COMPARED:
        finite = [v[variable][np.isfinite(v[variable])] for v in values]
        variables |= _compare(variable, finite, ropes[variable])
    dataset = xr.Dataset(
        variables,
        {"run": names, "other": names, "ci_bound": ["lower", "upper"]},
        {"at": str(at), "level": level},
    )
    settings = {"at": str(at), "gain": level, "rope": ropes, "runs": names}
    root = xr.Dataset(attrs=results.provenance(settings) | {"kind": "comparison of runs"})
    return xr.DataTree.from_dict({"/": root, "/comparison": _described(dataset)})


def _ropes(rope: Any) -> dict[str, float]:
    given = dict(rope) if isinstance(rope, Mapping) else dict.fromkeys(COMPARED, rope)
    unknown = set(given) - set(COMPARED)
    if unknown:
        raise InputError(f"rope may name {', '.join(COMPARED)}; got {', '.join(sorted(unknown))}")
    widths = {name: number(f"rope of {name}", given.get(name, 0.0)) for name in COMPARED}
    if min(widths.values()) < 0.0:
        raise InputError(f"rope must be at least 0; got {min(widths.values()):g}")
    return widths


def _draws(tree: xr.DataTree) -> xr.Dataset:
    """Return weight, drift and gap over (sample, checkpoint), thinned evenly to at most 1,000 draws."""
    posterior = tree["posterior"].to_dataset()[[*COMPARED, "new_gap"]]
    stacked = posterior.stack(sample=("chain", "draw")).transpose("sample", "checkpoint")
    step = max(1, stacked.sizes["sample"] // _MOST_DRAWS)
    return stacked.isel(sample=slice(None, None, step))


def _at_checkpoint(name: str, draws: xr.Dataset, at: Any) -> dict[str, np.ndarray]:
    labels = draws["checkpoint"].to_numpy()
    if at == "final":
        chosen = draws.isel(checkpoint=-1)
    elif np.any(matches := labels.astype(str) == str(at)):
        chosen = draws.isel(checkpoint=int(np.argmax(matches)))
    else:
        raise InputError(
            f"at must be final, matched_gain or a checkpoint that every run has; got {at!r}, and {name} has "
            + ", ".join(map(str, labels[:8]))
        )
    return {variable: chosen[variable].to_numpy() for variable in COMPARED}


def _common_level(posteriors: list[xr.Dataset]) -> float:
    upper = 0.5 + 0.5 * interval_probability()
    return max(float(np.quantile(p["new_gap"].min("checkpoint"), upper)) for p in posteriors)


def _at_level(draws: xr.Dataset, level: float) -> dict[str, np.ndarray]:
    """Read each draw where its new gap first is at or below the level, NaN where it never is."""
    gap = draws["new_gap"].to_numpy()
    below = gap <= level
    first, rows = below.argmax(axis=1), np.arange(len(gap))
    before = np.maximum(first - 1, 0)
    span = gap[rows, before] - gap[rows, first]
    share = np.where(first > 0, (gap[rows, before] - level) / np.where(span > 0.0, span, 1.0), 1.0)
    read = {}
    for variable in COMPARED:
        values = draws[variable].to_numpy()
        between = (1.0 - share) * values[rows, before] + share * values[rows, first]
        read[variable] = np.where(below.any(axis=1), between, np.nan)
    return read


def _compare(variable: str, values: list[Float[np.ndarray, "n"]], rope: float) -> dict[str, Any]:
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
            difference = (a[:, None] - b[None, :]).ravel()
            ties = 0.5 * np.mean(difference == 0.0) if rope == 0.0 else 0.0
            larger[i, j] = np.mean(difference > rope) + ties
            smaller[i, j] = np.mean(difference < -rope) + ties
            # Counted, for 1 less the others leaves their rounding.
            equivalent[i, j] = 0.0 if rope == 0.0 else np.mean(np.abs(difference) <= rope)
            mean[i, j] = difference.mean()
            bounds[i, j] = _bounds(difference)
    pair = ("run", "other")
    return {
        variable: ("run", [v.mean() for v in values]),
        f"{variable}_interval": (("run", "ci_bound"), np.stack([_bounds(v) for v in values])),
        f"{variable}_probability_larger": (pair, larger),
        f"{variable}_probability_smaller": (pair, smaller),
        f"{variable}_probability_equivalent": (pair, equivalent),
        f"{variable}_difference": (pair, mean),
        f"{variable}_difference_interval": ((*pair, "ci_bound"), bounds),
    }


def _bounds(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "2"]:
    """Return the interval of many draws, of the kind and width that ArviZ is set to."""
    probability = interval_probability()
    if interval_kind() == "eti":
        return np.quantile(values, [0.5 - 0.5 * probability, 0.5 + 0.5 * probability])
    ordered = np.sort(values)
    inside = int(np.floor(probability * len(ordered)))
    width = ordered[inside:] - ordered[: len(ordered) - inside]
    start = int(np.argmin(width))
    return np.array([ordered[start], ordered[start + inside]])


def _described(dataset: xr.Dataset) -> xr.Dataset:
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
    for variable in COMPARED:
        owner = dataset[variable].attrs
        for suffix, text in words.items():
            name = f"{variable}_{suffix}".rstrip("_")
            units = "1" if suffix.startswith("probability") else owner["units"]
            dataset[name].attrs = {"long_name": owner["long_name"] + text, "units": units}
    dataset["reached"].attrs = {"long_name": "share of draws that reach the matched gap", "units": "1"}
    dataset["run"].attrs = {"long_name": "measured run", "units": "1"}
    dataset["other"].attrs = {"long_name": "run compared with", "units": "1"}
    return dataset
