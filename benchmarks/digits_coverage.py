"""Do intervals of `inference.measure_evals` hold what networks have lost, over many evaluations of them?

``python -m benchmarks.digits_coverage FOLDER --num 20`` takes a run of ``massdrift digits --truth``, which
knows by brute force what its networks' chances are at each item. Evaluations are drawn anew from these: items
of a task with replacement, so that the run's items are the whole task, and answers to each. A row a quantity
and task is printed: how often the interval holds the truth, its median width, and how far off means are.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from analyses.core import outputs
from analyses.digits.evals_layout import KNOWN
from analyses.digits.evaluation import NEW_TASKS, TASKS
from inference import results
from inference.intervals import interval
from inference.measurement.evals.measure_evals import measure_paired
from inference.measurement.evals.pairing import CELLS, Paired

_CELL = ["run", "right_base", "num_base", "right_run", "num_run"]


def evaluated(
    base: Sequence[np.ndarray], runs: Sequence[np.ndarray], num_answers: int, rng: np.random.Generator
) -> Paired:
    """Return one evaluation of a base and its runs.

    Args:
        base: of each task its items' chances.
        runs: of each task those of the runs, shape (run, item).
        num_answers: to each item.
        rng: of items and answers.
    """
    rows: list[tuple[Any, ...]] = []
    cells = []
    for task, before, after in zip(TASKS, base, runs, strict=True):
        drawn = rng.integers(len(before), size=len(before))
        right_base = rng.binomial(num_answers, before[drawn])
        for number, chances in enumerate(after):
            right_run = rng.binomial(num_answers, chances[drawn])
            columns = (len(rows), right_base, num_answers, right_run, num_answers)
            cells.append(pd.DataFrame(dict(zip(_CELL, columns, strict=True))))
            rows.append((task, f"run {number}", "0", 1, len(drawn), "repeats", False))
    names = ["task", "arm", "seed", "checkpoint", "num_items", "kind", "is_retest"]
    counted = pd.concat(cells).groupby(_CELL).size().reset_index(name="num_items")
    return Paired(
        pd.DataFrame(rows, columns=names),
        counted.assign(num_choices=np.nan),
        pd.DataFrame(columns=["run", "num_choices", *CELLS]),
        pd.DataFrame(columns=["task", "arm", "seed", "checkpoint", "reason", "num_items", "examples"]),
    )


def truths(base: Sequence[np.ndarray], runs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return what was lost and won, and the change of accuracy, of each task and run."""
    changes = [after - before for before, after in zip(base, runs, strict=True)]
    return {
        "lost": np.array([np.maximum(-change, 0.0).mean(axis=-1) for change in changes]),
        "won": np.array([np.maximum(change, 0.0).mean(axis=-1) for change in changes]),
        "accuracy_change": np.array([change.mean(axis=-1) for change in changes]),
    }


def coverage(
    chances: np.ndarray, task_of_item: np.ndarray, *, num: int, num_answers: int, seed: int
) -> pd.DataFrame:
    """Return one row a quantity, evaluation, network, task and run: truth, mean and interval.

    Args:
        chances: of (network, run, item), the first run being the base.
        task_of_item: name of each item's task.
        num: evaluations of each network.
        num_answers: to each item.
        seed: of all evaluations.
    """
    found = []
    for network, every in enumerate(chances):
        parts = [every[:, task_of_item == task] for task in TASKS]
        base, runs = [part[0] for part in parts], [part[1:] for part in parts]
        true = truths(base, runs)
        for number in range(num):
            paired = evaluated(base, runs, num_answers, np.random.default_rng([seed, network, number]))
            tree = measure_paired(
                paired,
                new_tasks=NEW_TASKS,
                seed=number,
                method="laplace",
                num_log_likelihood_items=0,
                progress=False,
            )
            draws = tree["posterior"].to_dataset().sel(seed="0", checkpoint=1)
            for name in KNOWN:
                limits = interval(draws[name])
                columns = {
                    "truth": true[name].ravel(),
                    "mean": draws[name].mean(["chain", "draw"]).to_numpy().ravel(),
                    "lower": limits.sel(ci_bound="lower").to_numpy().ravel(),
                    "upper": limits.sel(ci_bound="upper").to_numpy().ravel(),
                    "task": np.repeat(list(TASKS), len(runs[0])),
                }
                found.append(pd.DataFrame(columns | {"name": name, "network": network, "evaluation": number}))
    return pd.concat(found, ignore_index=True)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return coverage, median width and root mean square error by quantity and task."""
    rows = frame.assign(
        covered=(frame["lower"] <= frame["truth"]) & (frame["truth"] <= frame["upper"]),
        width=frame["upper"] - frame["lower"],
        squared=(frame["mean"] - frame["truth"]) ** 2,
        bias=frame["mean"] - frame["truth"],
    )
    grouped = rows.groupby(["name", "task"], sort=False)
    return pd.DataFrame(
        {
            "coverage": grouped["covered"].mean(),
            "intervals": grouped["covered"].size(),
            "width": grouped["width"].median(),
            "error": np.sqrt(grouped["squared"].mean()),
            "bias": grouped["bias"].mean(),
        }
    )


def chances_of(items: xr.Dataset) -> np.ndarray:
    """Return the chances of (network, run, item), the base first, from the group ``/evals_items``."""
    every = items["accuracy"].transpose("seed", "checkpoint", "objective", "item").to_numpy()
    return np.concatenate([every[:, 0, :1], every[:, -1]], axis=1)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of a run of massdrift digits --truth")
    parser.add_argument("--num", type=int, default=20, help="evaluations of each network")
    parser.add_argument("--num-answers", type=int, default=8, help="to each item")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    tree = results.open(options.folder / outputs.MARKER)
    if "evals_items" not in tree.children:
        raise SystemExit(f"{options.folder} must be a run of massdrift digits --truth; it has no brute force")
    items = tree["evals_items"].to_dataset()
    frame = coverage(
        chances_of(items),
        items["item_task"].to_numpy().astype(str),
        num=options.num,
        num_answers=options.num_answers,
        seed=options.seed,
    )
    print(table(frame).to_string(float_format="%.3f"))


if __name__ == "__main__":
    main()
