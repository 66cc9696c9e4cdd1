"""What evaluations say of the networks, as groups of the result, and what brute force says of the same."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from analyses.core import tables
from analyses.digits.evaluation import NEW_TASKS, NUM_TRUTH, TASKS, Evaluation
from inference import results
from inference.intervals import interval

results.register(
    kept_share=("final retention over that at the start", "1"),
    digit=("digit of the item", "1"),
    item=("item", "1"),
    item_task=("task of the item", "1"),
    lost_uncertainty=("half the range in which brute force puts what is lost", "1"),
    won_uncertainty=("half the range in which brute force puts what is won", "1"),
)

#: Variables of ``/evals`` that brute force knows.
KNOWN = ("lost", "won", "accuracy_change")

_MEASURED = ("old_weight", "drift", "drift_spread", "accuracy", "accuracy_change_of_items", *KNOWN)
_CHECKED = ("k_hat", "observed_change", "observed_change_error", "words")


def evals_groups(
    trees: Sequence[xr.DataTree], right: xr.DataArray | None, asked: Evaluation
) -> dict[str, xr.Dataset]:
    """Return the groups ``evals``, ``evals_stats`` and, by brute force, ``evals_truth`` and ``evals_items``.

    Args:
        trees: what `measure_evals` says of each network's answers.
        right: right ones of very many completions, over (objective, seed, checkpoint, batch, item); the first
            checkpoint is the start.
        asked: the evaluation.
    """
    groups = {
        "evals": _together(trees, "posterior", _MEASURED),
        "evals_stats": _together(trees, "sample_stats", _CHECKED),
    }
    if right is not None:
        groups |= {"evals_truth": _truth(right, asked), "evals_items": _items(right, asked)}
    return groups


def _together(trees: Sequence[xr.DataTree], group: str, kept: Sequence[str]) -> xr.Dataset:
    # A network's start is its own base, so each is measured by itself, as the only seed.
    each = [
        tree[group].to_dataset()[list(kept)].isel(seed=0, drop=True).rename(arm="objective") for tree in trees
    ]
    return xr.concat(each, xr.Variable("seed", np.arange(len(each))))


def _truth(right: xr.DataArray, asked: Evaluation) -> xr.Dataset:
    """Return what was lost and won of the items, by task.

    The mean of max(p - q, 0) is too large where both shares p and q are counted with noise. With the sign
    from one half of the completions and the size from the other it is too small: the truth lies between, and
    is taken to be in the middle.
    """
    share = right / (NUM_TRUTH / right.sizes["batch"])
    change = share.isel(checkpoint=slice(1, None)) - share.isel(checkpoint=0, drop=True)
    halves = [change.isel(batch=half).mean("batch") for half in _halves(right.sizes["batch"])]
    whole = change.mean("batch")

    def bounds(sign: float) -> tuple[xr.DataArray, xr.DataArray]:
        first, second = halves
        lower = 0.5 * sign * (second.where(sign * first > 0.0, 0.0) + first.where(sign * second > 0.0, 0.0))
        return lower, (sign * whole).clip(min=0.0)

    each = {"accuracy_change": whole}
    for name, sign in (("lost", -1.0), ("won", 1.0)):
        lower, upper = bounds(sign)
        each |= {name: 0.5 * (lower + upper), f"{name}_uncertainty": 0.5 * (upper - lower)}
    each["accuracy"] = share.isel(checkpoint=slice(1, None)).mean("batch")
    of_items = xr.Dataset(each)
    tasks = [of_items.isel(item=np.flatnonzero(asked.of_task(task))).mean("item") for task in TASKS]
    return xr.concat(tasks, xr.Variable("task", list(TASKS)))


def _items(right: xr.DataArray, asked: Evaluation) -> xr.Dataset:
    """Return the share of right completions of each item."""
    share = right.mean("batch") / (NUM_TRUTH / right.sizes["batch"])
    task = np.array([name for digit in asked.items.digits for name in TASKS if digit in TASKS[name]])
    return xr.Dataset({"accuracy": share}).assign_coords(
        item=np.arange(len(task)), item_task=("item", task), digit=("item", asked.items.digits)
    )


def _halves(num: int) -> tuple[slice, slice]:
    return slice(0, num // 2), slice(num // 2, num)


def old_tasks(data: xr.Dataset) -> xr.Dataset:
    """Return the mean over the old tasks."""
    return data.sel(task=[task for task in TASKS if task not in NEW_TASKS]).mean("task")


def columns(tree: xr.DataTree, dims: Sequence[str]) -> dict[str, xr.DataArray]:
    """Return what is measured of the answers to the old tasks, their mean, and of the new one.

    Args:
        tree: the result.
        dims: over which draws are put together.
    """
    every = tree["evals"].to_dataset()
    old, new = old_tasks(every), every.sel(task=list(NEW_TASKS)).mean("task")
    kept = tree["posterior"].to_dataset()["old_weight"]
    found: dict[str, xr.DataArray] = {}
    for name in ("accuracy_change", "lost", "won", "old_weight"):
        found |= tables.interval_columns(f"answers_{name}", old[name], dims)
    found |= tables.interval_columns("answers_gain", new["accuracy_change"], dims)
    found |= tables.interval_columns("kept_share", kept / kept.isel(checkpoint=0), dims)
    return found


def coverage(tree: xr.DataTree) -> xr.Dataset:
    """Return whether each interval holds what brute force says, over (objective, seed, checkpoint, task).

    Beside, how wide the intervals are and how far off their means.
    """
    truth = tree["evals_truth"].to_dataset()
    draws = tree["evals"].to_dataset().sel({name: truth[name] for name in ("seed", "checkpoint")})
    found = {}
    for name in KNOWN:
        limits = interval(draws[name])
        low, high = (limits.sel(ci_bound=bound, drop=True) for bound in ("lower", "upper"))
        found[name] = (low <= truth[name]) & (truth[name] <= high)
        found[f"{name}_width"] = high - low
        found[f"{name}_off"] = draws[name].mean(["chain", "draw"]) - truth[name]
    return xr.Dataset(found)
