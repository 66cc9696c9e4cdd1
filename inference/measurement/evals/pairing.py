"""Pair the answers of every run with the base's, item by item, and count what cannot be paired."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api.typing import DataFrameGroupBy

from inference.measurement.evals.dependence import dependence
from inference.measurement.evals.readers.long_form import (
    answer_codes,
    checkpoint_of,
    ensure,
    name_of,
    run_name,
)
from mixture_models.validation import InputError

#: The cells of an item with one answer of several choices: right or wrong before and after.
CELLS = ("right_right", "right_wrong", "wrong_right", "wrong_same", "wrong_other")

#: How many of the items that are left out are named.
NUM_EXAMPLES = 3

#: The end of a reason for which an item has lost some of its answers, and is not left out.
PARTLY = ", of some samples"

_RUN = ["task", "arm", "seed", "checkpoint"]
_REPEATS = ["right_base", "num_base", "right_run", "num_run", "num_choices"]


class Paired(NamedTuple):
    """What a likelihood needs of the answers: counts, with the number of items that have them.

    Attributes:
        runs: a row a task and run: ``task``, ``arm``, ``seed``, ``checkpoint``, ``num_items``, ``kind``
            (``choices`` where base and run have one answer an item and its choice is known, else ``repeats``)
            and ``is_retest``, whether it is another evaluation of the base; and what `dependence` says of it.
        repeats: a row a cell: ``run`` (row of ``runs``), ``right_base`` of ``num_base`` answers,
            ``right_run`` of ``num_run``, ``num_choices`` (NaN where unknown or free) and ``num_items``; right
            answers may be fractional where scores are.
        choices: a row a run and number of choices: ``run``, ``num_choices`` and the numbers of items in each
            of `CELLS`; what is wrong before and after may be the same answer or another.
        left_out: a row a task, run and ``reason``: ``num_items`` and ``examples`` of their names.
    """

    runs: pd.DataFrame
    repeats: pd.DataFrame
    choices: pd.DataFrame
    left_out: pd.DataFrame


class _Items(NamedTuple):
    """Answers of one task and run, added up by item: arrays sorted by item.

    Attributes:
        item: codes of the items.
        right: sum of the scores.
        num: answers.
        choice: code of the first answer, -1 where unknown.
        num_choices: 0 where unknown.
        cluster: code of it, -1 where there is none.
    """

    item: np.ndarray
    right: np.ndarray
    num: np.ndarray
    choice: np.ndarray
    num_choices: np.ndarray
    cluster: np.ndarray

    def at(self, places: np.ndarray) -> "_Items":
        return _Items(*(column[places] for column in self))


def pair(answers: pd.DataFrame, *, base: str | int = "base") -> Paired:
    """Pair the answers of every run with those of the base.

    Args:
        answers: in the long form.
        base: the base's name, as a checkpoint or an arm. Of several evaluations of an arm of that name, the
            one with this checkpoint and the first seed is the base, and the others are retests.

    Raises:
        InputError: no base, two bases, no run, or a task of which base and run have no item in common.
    """
    answers = ensure(answers)
    groups, table = _groups(answers, base)
    items = _counted(answers, groups, len(table))
    left_out = _LeftOut(answers, groups, table, items)
    runs: list[dict[str, object]] = []
    cells: dict[str, list[pd.DataFrame]] = {"repeats": [], "choices": []}
    for task, members in table.groupby("task", sort=False):
        bases, others = members.index[members["is_base"]], members.index[~members["is_base"]]
        if not len(bases) or not len(others):
            for group in members.index:
                left_out.add(
                    group, items[group].item, "task in no run" if len(bases) else "task not in the base"
                )
            continue
        first = _one_base(list(bases), items, table)
        left_out.add_problems(first)
        for group in _in_order(members.loc[others], table):
            left_out.add_problems(group)
            before, after = _common(first, group, items, left_out)
            if not len(before.item):
                raise InputError(
                    f"base and run must have items in common; of {task} the base has "
                    f"{len(items[first].item)} with a score{_log(answers, table, first)} and "
                    f"{_named(table, group)} has {len(items[group].item)}{_log(answers, table, group)}, "
                    "none of them the same"
                )
            kind = "choices" if _is_by_choice(before, after) else "repeats"
            found = (_choice_columns if kind == "choices" else _repeat_columns)(before, after)
            cells[kind].append(pd.DataFrame({"run": len(runs)} | found))
            row = table.loc[group]
            runs.append(
                {name: row[name] for name in _RUN}
                | {"num_items": len(before.item), "kind": kind, "is_retest": bool(row["is_retest"])}
                | _dependence(before, after)
            )
    if not runs:
        of_base, of_runs = (
            ", ".join(sorted(set(table["task"][mask]))[:6]) + _log(answers, table, table.index[mask][0])
            for mask in (table["is_base"], ~table["is_base"])
        )
        raise InputError(
            f"base and runs must have a task in common; the base has {of_base}, and the runs {of_runs}"
        )
    return Paired(
        pd.DataFrame(runs),
        # All runs at once: a group-by costs as much for a run as for all of them.
        _together(cells["repeats"], ["run", *_REPEATS]).size().reset_index(name="num_items"),
        _together(cells["choices"], ["run", "num_choices"], CELLS).sum().reset_index(),
        left_out.frame(),
    )


def _groups(answers: pd.DataFrame, base: str | int) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the group (task and run) of every answer, and one row a group in order of appearance.

    Raises:
        InputError: no base, or no run.
    """
    called = checkpoint_of(base)
    codes = answer_codes(answers, _RUN)
    _, first, groups = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    table = answers[_RUN].iloc[first[order]].astype(object).reset_index(drop=True)
    by_arm = (table["arm"] == name_of(base)).to_numpy()
    evaluations = sorted(
        {(row.seed, row.checkpoint) for row in table[by_arm].itertuples()},
        key=lambda run: (run[1] != called, order_of(run[1]), order_of(run[0])),
    )
    is_first = np.array(
        [run == evaluations[0] for run in zip(table["seed"], table["checkpoint"], strict=True)]
        if evaluations
        else np.zeros(len(table), dtype=bool)
    )
    by_checkpoint = (table["checkpoint"] == called).to_numpy()
    table["is_base"] = np.where(by_arm, is_first, by_checkpoint)
    table["is_retest"] = by_arm & ~is_first
    if not table["is_base"].any():
        names = [str(name) for column in ("arm", "checkpoint") for name in table[column].unique()][:12]
        raise InputError(
            f"answers must have the base, an arm or a checkpoint {base}; they have {', '.join(names)}"
        )
    if table["is_base"].all():
        raise InputError(f"answers must have a run beside the base; they have {base} alone")
    return rank[groups], table


def order_of(name: object) -> tuple[bool, float, str]:
    """Return the place of a name among others: numbers first, as numbers."""
    text = str(name)
    is_number = text.isascii() and text.isdigit()
    return not is_number, float(text) if is_number else 0.0, text


def _in_order(members: pd.DataFrame, table: pd.DataFrame) -> list[int]:
    """Return groups by arm and seed as they first appear, and by checkpoint."""
    arms, seeds = (list(table[name].unique()) for name in ("arm", "seed"))
    rows = members.reset_index().itertuples()
    key = {row.index: (arms.index(row.arm), seeds.index(row.seed), order_of(row.checkpoint)) for row in rows}
    return sorted(key, key=key.__getitem__)


def _log(answers: pd.DataFrame, table: pd.DataFrame, group: int) -> str:
    """Return where the answers of a group were read, as a sentence names it."""
    name = answers.attrs.get("logs", {}).get(run_name(*table.loc[group, _RUN]))
    return "" if name is None else f" (in {name})"


def _named(table: pd.DataFrame, group: int) -> str:
    arm, seed, checkpoint = table.loc[group, ["arm", "seed", "checkpoint"]]
    return f"arm {arm}, seed {seed}, checkpoint {checkpoint}"


def _counted(answers: pd.DataFrame, groups: np.ndarray, num: int) -> list[_Items]:
    """Return the answers that can be used, added up by item, of every group."""
    used = _used(answers)
    item = answers["item"].array.codes.astype(np.int64)
    size = len(answers["item"].array.categories)
    kept = pd.DataFrame(
        {
            "right": answers["score"].to_numpy()[used],
            "choice": answers["choice"].array.codes.astype(np.int64)[used],
            "num_choices": answers["num_choices"].to_numpy(dtype=np.float64, na_value=0.0)[used],
            "cluster": answers["cluster"].array.codes.astype(np.int64)[used],
        }
    ).groupby((groups * size + item)[used], sort=True)
    right, count, choice = kept["right"].sum(), kept["right"].size(), kept["choice"].first()
    group, item = np.divmod(right.index.to_numpy(), size)
    columns = (
        item,
        np.round(right.to_numpy(), 9),
        count.to_numpy(),
        choice.to_numpy(),
        kept["num_choices"].max().to_numpy(),
        kept["cluster"].max().to_numpy(),
    )
    ends = np.searchsorted(group, np.arange(num + 1))
    return [_Items(*(column[a:b] for column in columns)) for a, b in pairwise(ends)]


def _used(answers: pd.DataFrame) -> np.ndarray:
    return answers["score"].notna().to_numpy() & answers["problem"].isna().to_numpy()


def _one_base(bases: list[int], items: list[_Items], table: pd.DataFrame) -> int:
    """Return the group of the base, of which every arm may have a copy.

    Raises:
        InputError: copies that differ.
    """
    first = bases[0]
    for other in bases[1:]:
        if not all(np.array_equal(a, b) for a, b in zip(items[first], items[other], strict=True)):
            raise InputError(
                f"the base must have the same answers for every run; of {table.at[first, 'task']} they "
                f"differ between {_named(table, first)} and {_named(table, other)}: give the base as an arm "
                "of its own, and another evaluation of it as another seed of that arm"
            )
    return first


def _common(first: int, group: int, items: list[_Items], left_out: "_LeftOut") -> tuple[_Items, _Items]:
    """Return the items that base and run have; note those that only one of them has."""
    before, after = items[first], items[group]
    shared, left, right = np.intersect1d(before.item, after.item, assume_unique=True, return_indices=True)
    absent = np.setdiff1d(before.item, shared, assume_unique=True)
    left_out.add(group, np.setdiff1d(absent, left_out.bad_items(group)), "only in the base")
    absent = np.setdiff1d(after.item, shared, assume_unique=True)
    bad = np.isin(absent, left_out.bad_items(first))
    left_out.add(group, absent[~bad], "only in the run")
    left_out.add(group, absent[bad], "no usable answer in the base")
    before, after = before.at(left), after.at(right)
    known = (before.num_choices > 0) & (after.num_choices > 0)
    differ = known & (before.num_choices != after.num_choices)
    left_out.add(group, shared[differ], "different numbers of choices")
    before, after = before.at(~differ), after.at(~differ)
    num_choices = np.maximum(before.num_choices, after.num_choices)
    return before._replace(num_choices=num_choices), after._replace(num_choices=num_choices)


def _dependence(before: _Items, after: _Items) -> dict[str, float]:
    """Return how items' changes depend on each other; a base without clusters has those of the run."""
    cluster = np.where(before.cluster >= 0, before.cluster, after.cluster)
    return dependence(before.right / before.num, after.right / after.num, cluster)._asdict()


def _is_by_choice(before: _Items, after: _Items) -> bool:
    """Return whether every item has one answer before and after, with a known choice."""
    return all(
        (side.num == 1).all()
        and (side.choice >= 0).all()
        and (side.num_choices >= 2).all()
        and np.isin(side.right, (0.0, 1.0)).all()
        for side in (before, after)
    )


def _repeat_columns(before: _Items, after: _Items) -> dict[str, np.ndarray]:
    num_choices = np.where(before.num_choices > 0, before.num_choices, np.nan)
    columns = (before.right, before.num, after.right, after.num, num_choices)
    return dict(zip(_REPEATS, columns, strict=True))


def _choice_columns(before: _Items, after: _Items) -> dict[str, np.ndarray]:
    was, now, same = before.right == 1.0, after.right == 1.0, before.choice == after.choice
    cells = (was & now, was & ~now, ~was & now, ~was & ~now & same, ~was & ~now & ~same)
    return {"num_choices": before.num_choices.astype(np.int64)} | dict(zip(CELLS, cells, strict=True))


def _together(frames: list[pd.DataFrame], by: list[str], summed: Sequence[str] = ()) -> DataFrameGroupBy:
    """Return the items of all runs, grouped by their cells."""
    columns = [*by, *summed]
    items = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns, dtype=float)
    return items[columns].groupby(by, dropna=False, sort=True)


class _LeftOut:
    """What is left out, by task and run, with reasons."""

    def __init__(
        self, answers: pd.DataFrame, groups: np.ndarray, table: pd.DataFrame, items: list[_Items]
    ) -> None:
        bad = ~_used(answers)
        self._names = answers["item"].array.categories
        self._table, self._items = table, items
        self._rows: list[dict[str, object]] = []
        self._problems: dict[int, pd.DataFrame] = {
            group: part
            for group, part in pd.DataFrame(
                {
                    "group": groups[bad],
                    "item": answers["item"].array.codes[bad],
                    "reason": answers["problem"].astype(object)[bad].fillna("no score").to_numpy(),
                }
            )
            .drop_duplicates()
            .groupby("group", sort=False)
        }

    def add(self, group: int, items: np.ndarray, reason: str) -> None:
        """Add items that are left out of a run."""
        if len(items):
            names = ", ".join(str(self._names[item]) for item in items[:NUM_EXAMPLES])
            self._rows.append(
                {name: self._table.at[group, name] for name in ("task", "arm", "seed", "checkpoint")}
                | {"reason": reason, "num_items": len(items), "examples": names}
            )

    def bad_items(self, group: int) -> np.ndarray:
        """Return the items with an answer that cannot be used."""
        return (
            self._problems[group]["item"].to_numpy() if group in self._problems else np.array([], dtype=int)
        )

    def add_problems(self, group: int) -> None:
        """Add the items with answers that cannot be used: of some samples, or of all."""
        if group not in self._problems:
            return
        for reason, part in self._problems[group].groupby("reason", sort=True):
            partly = np.isin(part["item"], self._items[group].item)
            items = part["item"].to_numpy()
            self.add(group, items[~partly], str(reason))
            self.add(group, items[partly], f"{reason}{PARTLY}")

    def frame(self) -> pd.DataFrame:
        """Return a row a task, run and reason."""
        return pd.DataFrame(self._rows, columns=[*_RUN, "reason", "num_items", "examples"])
