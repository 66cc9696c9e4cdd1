"""Did one real run forget less than another? Differences and probabilities between measured runs."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from inference import results
from inference.comparison.draws import compare_by_task, compare_draws, described
from inference.engine.blas import on_one_thread
from inference.intervals import interval_probability
from inference.measurement.tasks.variables import VARIABLES
from inference.measurement.verdict.kinds import worst
from mixture_models.validation import InputError, number

#: What is compared of two modes, and of tasks by name: variables of ``/posterior``.
COMPARED, OF_TASKS = ("old_weight", "old_drift"), ("weight", "task_drift")

#: What is compared beside them, where all runs were measured with answers to the new task's prompts.
DISTANCE = "forward_kl"

#: All of these.
KNOWN = (*COMPARED, *OF_TASKS, DISTANCE)

results.register(**{name: VARIABLES[name] for name in OF_TASKS})

#: Whether a compared variable is a weight, of which more is better, a drift, or a KL: so is its verdict.
KINDS = {
    "old_weight": "weight",
    "old_drift": "drift",
    "weight": "weight",
    "task_drift": "drift",
    DISTANCE: "kl",
}

# What was measured, by the kind of a result.
_MEASURED = {
    "measurement": "samples of an old and a new task",
    "measurement of tasks": "samples of tasks by name",
    "measurement of scores": "scores of an old and a new task",
    "measurement of scores of tasks": "scores of tasks by name",
}
_OF_SCORES = ("measurement of scores", "measurement of scores of tasks")

# Draws of a run at each checkpoint, by variable and task; the task is None where a variable has none.
type _Draws = dict[tuple[str, str | None], Float[np.ndarray, "n checkpoint"]]

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

    Of tasks by name weight and drift of every task are compared, and where one of them is new the old weight,
    the sum over the others; its drift is then the new gap.

    Scores say nothing of drift and of the new gap: of runs that `inference.measure_scores` measured, weights
    alone are compared, at a checkpoint. That their scores are of the same references is not checked.

    Where all runs have a forward KL (those of samples by `inference.with_forward_kl`) it is compared too, as
    from independent answers: those of runs that were measured from the same answers of the base vary
    together, and the interval of their difference is then too wide.

    Args:
        trees: measured runs by name; each the result of `inference.measure`, or each of
            `inference.measure_scores`.
        at: ``"final"``, the last checkpoint of each run; ``"matched_gain"``; or the name of a checkpoint that
            all runs have.
        gain: the new gap at which runs are matched [Mahalanobis]; None is the smallest that every run
            reaches with 94.5 % probability (with ArviZ's default intervals).
        rope: half width of the region of practical equivalence, one number or one for each of the compared
            variables: weights [1], drifts [Mahalanobis] and the forward KL [nat].

    Returns:
        DataTree with ``/comparison`` over (run, other): for each compared variable ``X_probability_larger``,
        ``X_probability_smaller`` and ``X_probability_equivalent`` (beyond and within the rope, they add up to
        1; draws that are equal, as where neither run has moved, count half to either side), ``X_difference``
        (run minus other), ``X_difference_interval``; and over run ``X`` with ``X_interval``, ``X_words``, the
        verdict on what was read, and ``reached``, the share of draws that reach the level. ``weight`` and
        ``task_drift`` of tasks by name have a dim ``task`` more.

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
    first = next(iter(trees.values()))
    kind = str(first.attrs.get("kind"))
    for name, tree in zip(names, trees.values(), strict=True):
        if tree.attrs.get("kind") != kind:
            raise InputError(
                f"runs must all be measured alike; {names[0]} was from {_MEASURED[kind]} and {name} from "
                f"{_MEASURED[str(tree.attrs.get('kind'))]}"
            )
    every = [set(compared(tree)) for tree in trees.values()]
    chosen = tuple(name for name in compared(first) if all(name in one for one in every))
    if kind in _OF_SCORES and (at == "matched_gain" or gain is not None):
        raise InputError("runs that were measured from scores have no new gap and cannot be compared at one")
    _check_references(trees)
    ropes = _ropes(rope, chosen)
    posteriors = [_draws_of(tree) for tree in trees.values()]
    level = np.nan
    if at == "matched_gain":
        gaps = [_gaps(name, tree) for name, tree in zip(names, trees.values(), strict=True)]
        level = common_level(gaps) if gain is None else number("gain", gain)
        values = [at_level(gap, draws, level) for gap, draws in zip(gaps, posteriors, strict=True)]
        read = [_checkpoints_at_level(gap, level) for gap in gaps]
    elif gain is not None:
        raise InputError(f"gain belongs to at='matched_gain'; got at={at!r}")
    else:
        places = [_place(name, tree, at) for name, tree in zip(names, trees.values(), strict=True)]
        values = [
            {key: array[:, place] for key, array in draws.items()}
            for draws, place in zip(posteriors, places, strict=True)
        ]
        read = [np.array([place]) for place in places]
    reached = [float(np.isfinite(next(iter(v.values()))).mean()) for v in values]
    for name, share in zip(names, reached, strict=True):
        if share == 0.0:
            raise InputError(f"every run must reach a new gap of {level:.3g} in some draw; {name} does not")
    variables: dict[str, object] = {"reached": ("run", reached)}
    shared = len({_shape(tree) for tree in trees.values()}) == 1 and kind not in _OF_SCORES
    groups = [_reference_draws(tree) if shared else None for tree in trees.values()]
    coords: dict[str, object] = {"run": names, "other": names, "ci_bound": ["lower", "upper"]}
    for variable in chosen:
        tasks = [task for known, task in values[0] if known == variable]
        of_tasks = {str(task): [v[variable, task] for v in values] for task in tasks}
        if tasks == [None]:
            variables |= compare_draws(variable, of_tasks["None"], groups, ropes[variable])
        else:
            variables |= compare_by_task(variable, of_tasks, groups, ropes[variable])
            coords["task"] = list(of_tasks)
        words = [
            worst(verdicts(tree)[f"{KINDS[variable]}_words"].to_numpy()[where])
            for tree, where in zip(trees.values(), read, strict=True)
        ]
        variables[f"{variable}_words"] = ("run", words)
    attrs = {"at": str(at), "level": level} | {f"{name}_rope": width for name, width in ropes.items()}
    dataset = xr.Dataset(variables, coords, attrs)
    settings = {"at": str(at), "gain": level, "rope": ropes, "runs": names}
    root = xr.Dataset(attrs=results.provenance(settings) | {"kind": "comparison of runs"})
    return xr.DataTree.from_dict({"/": root, "/comparison": described(dataset, chosen)})


def compared(tree: xr.DataTree) -> tuple[str, ...]:
    """Return what can be compared of a run: of scores no drift, of another tree nothing."""
    if tree.attrs.get("kind") not in _MEASURED or "posterior" not in tree.children:
        return ()
    found = tree["posterior"].to_dataset()
    return tuple(name for name in KNOWN if name in found)


def compared_draws(tree: xr.DataTree) -> xr.Dataset:
    """Return the posterior of what is compared, and of the new gap where there is one."""
    found = tree["posterior"].to_dataset()
    return found[[*compared(tree), *({"new_gap"} & set(found))]]


def verdicts(tree: xr.DataTree) -> xr.Dataset:
    """Return ``weight_words``, of samples ``drift_words``, and ``kl_words``, over checkpoints of a run."""
    if tree.attrs["kind"] in _OF_SCORES:
        found = tree["summary"].to_dataset()
        return found[["words", *({"kl_words"} & set(found))]].rename(words="weight_words")
    found = tree["sample_stats"].to_dataset()
    return found[["weight_words", "drift_words", *({"kl_words"} & set(found))]]


def _check_references(trees: Mapping[str, xr.DataTree]) -> None:
    """Refuse runs that were not measured against the same references."""
    (first, tree), *others = trees.items()
    known = _facts(tree)
    for name, other in others:
        if differing := [what for what, fact in _facts(other).items() if fact != known[what]]:
            raise InputError(
                f"runs must be measured against the same {differing[0]}; those of {name} are not "
                f"those of {first}"
            )


def _facts(tree: xr.DataTree) -> dict[str, object]:
    """Return what runs that are compared must have in common."""
    posterior = tree["posterior"].to_dataset()
    features = tree["constant_data"]["source_feature"].to_numpy() if "constant_data" in tree.children else []
    return {
        "references": tree.attrs.get("references"),
        "features": list(map(str, features)),
        "tasks": set(map(str, posterior["task"].to_numpy())) if "task" in posterior.dims else set(),
        "new task": _new_task(tree),
    }


def _new_task(tree: xr.DataTree) -> str:
    return str(tree.attrs.get("new_task", ""))


def _shape(tree: xr.DataTree) -> tuple[object, ...]:
    """Return what, with the references, decides the draws of what the references say."""
    return tuple(tree.attrs.get(name) for name in ("covariance", "tails", "max_features"))


def _ropes(rope: float | Mapping[str, float], chosen: tuple[str, ...]) -> dict[str, float]:
    given = dict(rope) if isinstance(rope, Mapping) else dict.fromkeys(chosen, rope)
    unknown = set(given) - set(KNOWN)
    if unknown:
        raise InputError(f"rope may name {', '.join(KNOWN)}; got {', '.join(sorted(unknown))}")
    widths = {name: number(f"rope of {name}", given.get(name, 0.0)) for name in KNOWN}
    if min(widths.values()) < 0.0:
        raise InputError(f"rope must be at least 0; got {min(widths.values()):g}")
    if useless := [name for name in KNOWN if name not in chosen and widths[name] > 0.0]:
        raise InputError(
            f"the runs have no {useless[0]}, and so no rope of it; they have {', '.join(chosen)}"
        )
    return {name: widths[name] for name in chosen}


def _draws_of(tree: xr.DataTree) -> _Draws:
    """Return the draws of what is compared, at most 4,000."""
    found: _Draws = {}
    for name, values in compared_draws(tree).data_vars.items():
        if name not in KINDS:
            continue
        if "task" not in values.dims:
            found[str(name), None] = _stacked(values)
            continue
        for task in map(str, values["task"].to_numpy()):
            found[str(name), task] = _stacked(values.sel(task=task))
    return found


def _stacked(values: xr.DataArray) -> Float[np.ndarray, "n checkpoint"]:
    stacked = values.stack(sample=("chain", "draw")).transpose("sample", "checkpoint")
    result: np.ndarray = stacked.isel(sample=slice(_MOST_DRAWS)).to_numpy()
    return result


def _reference_draws(tree: xr.DataTree) -> np.ndarray:
    """Return the draw of the references that belongs to each draw."""
    posterior = tree["posterior"].to_dataset()
    stacked = posterior[compared(tree)[0]].stack(sample=("chain", "draw"))
    result: np.ndarray = stacked["reference_draw"].to_numpy()[:_MOST_DRAWS]
    return result


def _gaps(name: str, tree: xr.DataTree) -> Float[np.ndarray, "n checkpoint"]:
    """Return draws of the new gap, of tasks by name the drift of the new task."""
    posterior = tree["posterior"].to_dataset()
    if "new_gap" in posterior:
        return _stacked(posterior["new_gap"])
    if not _new_task(tree):
        raise InputError(f"runs are matched at the gap of the new task; none of the tasks of {name} is new")
    return _stacked(posterior["task_drift"].sel(task=_new_task(tree)))


def _place(name: str, tree: xr.DataTree, at: str | float) -> int:
    labels = tree["posterior"]["checkpoint"].to_numpy()
    if at == "final":
        return len(labels) - 1
    if np.any(matches := labels.astype(str) == str(at)):
        return int(np.argmax(matches))
    raise InputError(
        f"at must be final, matched_gain or a checkpoint that every run has; got {at!r}, and {name} has "
        + ", ".join(map(str, labels[:8]))
    )


def _checkpoints_at_level(gap: Float[np.ndarray, "n checkpoint"], level: float) -> np.ndarray:
    """Return the checkpoints that draws are read at or between, those that one draw in 20 needs."""
    below = gap <= level
    first = below.argmax(axis=1)[below.any(axis=1)]
    needed = np.bincount(np.concatenate([first, np.maximum(first - 1, 0)]), minlength=below.shape[1])
    return np.flatnonzero(needed >= 0.05 * len(first))


def common_level(gaps: Sequence[Float[np.ndarray, "n checkpoint"]]) -> float:
    """Return the smallest gap that every run reaches with the upper probability of an interval."""
    upper = 0.5 + 0.5 * interval_probability()
    return max(float(np.quantile(gap.min(axis=1), upper)) for gap in gaps)


def at_level[Key](
    gap: Float[np.ndarray, "n checkpoint"],
    values: Mapping[Key, Float[np.ndarray, "n checkpoint"]],
    level: float,
) -> dict[Key, Float[np.ndarray, "n"]]:
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
