"""Did one method forget less than another? Differences between the arms of measured evaluation logs."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from inference import results
from inference.comparison.draws import compare_draws, described
from inference.comparison.runs import at_level, common_level
from inference.measurement.evals.variables import VARIABLES
from inference.measurement.verdict.kinds import GOOD, WEAK, parts_of, worst
from mixture_models.validation import InputError, not_negative, positive

# A result that was opened from a file is compared in a process that has measured nothing.
results.register(**VARIABLES)

#: What is compared, where the logs tell it: `lost` is known of every kind of answers.
COMPARED = ("lost", "old_weight", "accuracy_change")

#: The name of the mean over the old tasks, beside tasks.
ALL = "all old tasks"

#: Share of draws that may be read before the first checkpoint, where the path from the base is not known.
MOST_BEFORE_FIRST = 0.1


def compare_evals(
    tree: xr.DataTree,
    *,
    at: str | int = "final",
    gain: float | None = None,
    rope: float | Mapping[str, float] = 0.0,
) -> xr.DataTree:
    """Return how likely each arm forgot less than each other, per task and over the old tasks.

    All arms were asked the items that the base was asked, and their draws belong together: differences are
    taken draw by draw. An arm is the mean over its training seeds; where some arm has several, the error of
    that mean, from the variance between seeds that is pooled over arms, is part of every interval: it is then
    of the method, else of the runs. At matched gain a run is read where its mean change of accuracy on the
    new tasks first reaches a common level, a draw at a time, between the checkpoints before and after. The
    base is the first of these: where a run has gained more by its first checkpoint, or has no other, what it
    lost is taken to have grown in proportion to the gain, and the verdict says so.

    Args:
        tree: the result of `inference.measure_evals`.
        at: ``"final"``, the last checkpoint of each run; ``"matched_gain"``; or a checkpoint that all have.
        gain: change of accuracy on the new tasks at which arms are matched; None is the largest that every
            run reaches with the upper probability of an interval.
        rope: half width of the region of practical equivalence, one number or one a variable of `COMPARED`.

    Returns:
        DataTree with ``/comparison`` over (task, run, other), a task being an old one or the mean of all, a
        run an arm: the variables of `inference.compare_runs`, and over (task, run) ``words``, the worst
        verdict on what was read (at matched gain on any checkpoint), ``reached``, the share of draws that
        reach the level, and ``before_first``, the share that is read before the first checkpoint. A task that
        some run was not asked is in no mean, and NaN by itself.

    Raises:
        InputError: fewer than two arms, no old task that all were asked, a checkpoint that some run has not,
            no new task to match the gain, or no gain above 0 that all runs reach.
    """
    if "posterior" not in tree.children or "lost" not in tree["posterior"]:
        raise InputError("the result of measure_evals must be given; this is another one")
    posterior, stats = tree["posterior"].to_dataset(), tree["sample_stats"].to_dataset()
    variables = [name for name in COMPARED if name in posterior]
    new = [task for task in posterior["task"].to_numpy() if task in _new_tasks(tree)]
    old = [task for task in posterior["task"].to_numpy() if task not in new]
    is_run = (stats["is_retest"] == 0).any(["task", "seed", "checkpoint"])
    arms = [str(arm) for arm in posterior["arm"].to_numpy() if bool(is_run.sel(arm=arm))]
    if len(arms) < 2:
        raise InputError(f"at least two arms must be compared; got {', '.join(arms) or 'none'}")
    if not old:
        raise InputError("an old task is needed to compare what was forgotten; all tasks are new")
    ropes = _ropes(rope)
    draws = posterior[variables].sel(arm=arms).stack(sample=("chain", "draw")).transpose("sample", ...)
    draws = draws.where(_asked_of_all(draws))
    if not draws["lost"].sel(task=old).notnull().any():
        raise InputError("an old task that all arms were asked is needed to compare them; there is none")
    read = _Reader(draws, new, at, gain, arms)
    groups = [np.arange(draws.sizes["sample"])] * len(arms)
    parts = []
    for task in (*old, ALL):
        found = {
            arm: [read(arm, seed, [task] if task != ALL else old) for seed in read.seeds[arm]] for arm in arms
        }
        entries: dict[str, object] = {}
        for variable in variables:
            values = _over_seeds({arm: [of[variable] for of in found[arm]] for arm in arms}, task, variable)
            usable = all(np.isfinite(v).any() for v in values)
            if usable:
                entries |= compare_draws(variable, values, list(groups), ropes[variable])
                entries["reached"] = ("run", [float(np.isfinite(v).mean()) for v in values])
        entries["before_first"] = ("run", [read.before_first(arm) for arm in arms])
        entries["words"] = ("run", [_words(stats, read, arm, old if task == ALL else [task]) for arm in arms])
        parts.append(xr.Dataset(entries, {"run": arms, "other": arms, "ci_bound": ["lower", "upper"]}))
    dataset = xr.concat(parts, xr.DataArray([*old, ALL], dims="task", name="task"), join="outer")
    dataset.attrs = {"at": str(at), "level": read.level}
    settings = {"at": str(at), "gain": read.level, "rope": ropes, "runs": arms}
    root = xr.Dataset(attrs=results.provenance(settings) | {"kind": "comparison of evaluation logs"})
    described(dataset, [v for v in variables if v in dataset])
    dataset["before_first"].attrs = {
        "long_name": "share of draws read before the first checkpoint",
        "units": "1",
    }
    return xr.DataTree.from_dict({"/": root, "/comparison": dataset})


class _Reader:
    """Reads the runs of an arm at its last checkpoint, at one of a name, or at matched gain."""

    def __init__(
        self, draws: xr.Dataset, new: list[str], at: str | int, gain: float | None, arms: list[str]
    ) -> None:
        self.draws, self.at, self.level = draws, at, np.nan
        there = draws["lost"].notnull().any(["sample", "task"])
        self.places = {
            (arm, seed): np.flatnonzero(there.sel(arm=arm, seed=seed).to_numpy())
            for arm in arms
            for seed in draws["seed"].to_numpy()
        }
        self.seeds = {arm: [s for s in draws["seed"].to_numpy() if len(self.places[arm, s])] for arm in arms}
        if at == "matched_gain":
            if not new:
                raise InputError("new_tasks must be named to match the gain; there are none")
            gains = draws["accuracy_change"].sel(task=new).mean("task")
            # As a gap that falls, from 0 at the base.
            self.gaps = {
                (arm, seed): -gains.sel(arm=arm, seed=seed).to_numpy()[:, self.places[arm, seed]]
                for arm in arms
                for seed in self.seeds[arm]
            }
            self.level = self._common() if gain is None else positive("gain", gain)
            for (arm, seed), gaps in self.gaps.items():
                if not (gaps <= -self.level).any():
                    raise InputError(
                        f"every run must gain {self.level:.3g} on the new tasks in some draw; arm {arm}, "
                        f"seed {seed} does not"
                    )
        elif gain is not None:
            raise InputError(f"gain belongs to at='matched_gain'; got at={at!r}")
        elif at != "final":
            labels = [str(c) for c in draws["checkpoint"].to_numpy()]
            if str(at) not in labels:
                raise InputError(
                    f"at must be final, matched_gain or a checkpoint; got {at!r}, and there are "
                    + ", ".join(labels[:8])
                )
            self.place = labels.index(str(at))
            for (arm, seed), places in self.places.items():
                if len(places) and self.place not in places:
                    raise InputError(
                        f"at must be a checkpoint that all have; arm {arm}, seed {seed} has no {at}"
                    )

    def _common(self) -> float:
        """Return the largest gain that every run reaches with the upper probability of an interval."""
        of_runs = {run: -common_level([gaps]) for run, gaps in self.gaps.items()}
        (arm, seed), least = min(of_runs.items(), key=lambda run: run[1])
        if not least > 0.0:
            raise InputError(
                "every run must have learnt the new tasks to be compared at matched gain; arm "
                f"{arm}, seed {seed} may have gained nothing (lower end of its gain: {least:.3g})"
            )
        return least

    def before_first(self, arm: str) -> float:
        """Return the share of an arm's draws that are read between the base and the first checkpoint."""
        if self.at != "matched_gain":
            return 0.0
        return float(np.mean([-self.gaps[arm, seed][:, 0] > self.level for seed in self.seeds[arm]]))

    def read_at(self, arm: str, seed: str) -> Int[np.ndarray, "c"]:
        """Return the places of the checkpoints that a run is read at or between."""
        places = self.places[arm, seed]
        if self.at == "matched_gain":
            return places
        return places[-1:] if self.at == "final" else np.array([self.place])

    def __call__(self, arm: str, seed: str, tasks: list[str]) -> dict[str, Float[np.ndarray, "n"]]:
        chosen = self.draws.sel(arm=arm, seed=seed, task=tasks).mean("task", skipna=len(tasks) > 1)
        places = self.read_at(arm, seed)
        if self.at != "matched_gain":
            return {str(name): array.to_numpy()[:, places[0]] for name, array in chosen.items()}
        # The base, at which nothing is gained and nothing lost, comes before the first checkpoint.
        gap = self.gaps[arm, seed]
        start = {"lost": 0.0, "old_weight": 1.0, "accuracy_change": 0.0}
        values = {
            str(name): np.insert(array.to_numpy()[:, places], 0, start[str(name)], axis=1)
            for name, array in chosen.items()
        }
        return at_level(np.insert(gap, 0, 0.0, axis=1), values, -self.level)


def _over_seeds(
    values: Mapping[str, list[Float[np.ndarray, "n"]]], task: str, variable: str
) -> list[Float[np.ndarray, "n"]]:
    """Return each arm's mean over its seeds, with the error of that mean as a mean of the method.

    The variance between seeds is pooled over arms, so the error is Student-t with all their freedom.
    """
    stacked = [np.stack(seeds) for seeds in values.values()]
    freedom = sum(len(s) - 1 for s in stacked)
    means = [s.mean(axis=0) for s in stacked]
    if not freedom:
        return means
    within = sum(np.square(s - m).sum(axis=0) for s, m in zip(stacked, means, strict=True)) / freedom
    rng = np.random.default_rng([*map(ord, task + variable)])
    return [
        m + np.sqrt(within / len(s)) * rng.standard_t(freedom, len(m))
        for s, m in zip(stacked, means, strict=True)
    ]


def _ropes(rope: float | Mapping[str, float]) -> dict[str, float]:
    given = dict(rope) if isinstance(rope, Mapping) else dict.fromkeys(COMPARED, rope)
    unknown = set(given) - set(COMPARED)
    if unknown:
        raise InputError(f"rope may name {', '.join(COMPARED)}; got {', '.join(sorted(unknown))}")
    return {name: not_negative(f"rope of {name}", given.get(name, 0.0)) for name in COMPARED}


def _new_tasks(tree: xr.DataTree) -> list[str]:
    return [str(task) for task in np.atleast_1d(tree["constant_data"]["new_task"].to_numpy())]


def _asked_of_all(draws: xr.Dataset) -> xr.Dataset:
    """Return of which tasks every run has draws, a variable at a time: means are over the same tasks."""
    there = draws.notnull().any(["sample", "checkpoint"])
    is_run = there["lost"].any("task")
    return (there | ~is_run).all(["arm", "seed"])


def _words(stats: xr.Dataset, read: _Reader, arm: str, tasks: list[str]) -> str:
    """Return the worst verdict on what is read of an arm's runs on some tasks; none of tasks it has not."""
    of_arm = stats["words"].sel(arm=arm, task=tasks)
    words = [
        str(word)
        for seed in read.seeds[arm]
        for word in of_arm.sel(seed=seed).isel(checkpoint=read.read_at(arm, seed)).to_numpy().ravel()
        if word
    ]
    said = worst(words) if words else ""
    share = read.before_first(arm)
    if not said or share <= MOST_BEFORE_FIRST:
        return said
    kind, reasons = parts_of(said)
    reason = (
        f"{100 * share:.0f} % of the draws lie between the base and the first checkpoint, where what was "
        "lost is taken to grow in proportion to the gain"
    )
    if kind == GOOD:
        return "; ".join(filter(None, (f"{WEAK}: {reason}", reasons)))
    return f"{kind}: {reasons}; {reason}"
