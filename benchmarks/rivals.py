"""`inference.measure` beside what else is used: quantifiers of QuaPy for the weight, distances for a change.

    python -m benchmarks.rivals weight --num 8
    python -m benchmarks.rivals change --num 50
    python -m benchmarks.rivals digits runs/digits

``weight`` draws cases of three checkpoints with known old weights, and prints for each kind of case and
method how far off the estimate is, how often the interval of 89 % holds the truth, how wide it is, and the
time. ``change`` draws worlds in which a model loses mass, drifts, does both or neither, and prints how
often each method says that something has changed. ``digits`` does both on the networks of a run of
``massdrift digits``, where a panel of classifiers counts the old weight. ``weight`` and ``digits`` need
QuaPy. Tables, rows and a figure are written to ``--out``, what is finished is kept there, and the same
command goes on from it.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from benchmarks import rivals_changes, rivals_digits, rivals_figure
from benchmarks.calibration_cases import two_modes
from benchmarks.rivals_settings import SETTINGS, Setting, world
from benchmarks.rivals_weights import Estimate, Task, check_quapy, massdrift, quantified
from inference.storage import files, kept
from mixture_models.validation import InputError, integer

#: Quantifiers of QuaPy.
QUANTIFIERS = ("EMQ", "ACC", "PACC", "KDEyML")

# Distances of the references in `change` [Mahalanobis].
_SEPARATIONS = (4.0, 2.5)

#: A method: estimates from a task, a seed and the number of bootstrap resamples.
Method = Callable[[Task, int, int], list[Estimate]]


def methods(method: str, **others: Mapping[str, Any]) -> dict[str, Method]:
    """Return the methods by name, `inference.measure` first.

    Args:
        method: of `inference.measure`.
        others: further settings of it, by what they are called behind its name.
    """
    settings = {"massdrift": {}} | {f"massdrift, {name}": dict(more) for name, more in others.items()}
    own = {name: functools.partial(massdrift, method=method, **more) for name, more in settings.items()}
    return own | {name: functools.partial(quantified, quantifier=name) for name in QUANTIFIERS}


def case_rows(setting: Setting, number: int, method: str, num_resamples: int) -> pd.DataFrame:
    """Return a row a method and checkpoint of one case."""
    rng = np.random.default_rng([SETTINGS.index(setting), number])
    case = two_modes(rng, setting.recipe, on_model=True)
    task = Task(case.samples, case.old, case.new)
    more = {"neither": {"neither": True}} if setting.third else {}
    rows = []
    for name, of in methods(method, **more).items():
        for true, estimate in zip(case.old_weights, of(task, number, num_resamples), strict=True):
            low, high = estimate.interval
            rows.append(
                {
                    "setting": setting.name,
                    "method": name,
                    "old_weight": true,
                    "estimate": estimate.mean,
                    "lower": low,
                    "upper": high,
                    "seconds": estimate.seconds,
                    "word": estimate.word,
                    "k_hat": estimate.k_hat,
                }
            )
    return pd.DataFrame(rows)


def weight_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row a setting and method: bias, error, coverage, width and time.

    ``coverage where good`` counts the checkpoints whose verdict on the weight is good, ``good`` is their
    share; of a method without a verdict both are missing.
    """
    error = rows["estimate"] - rows["old_weight"]
    covered = (rows["lower"] <= rows["old_weight"]) & (rows["old_weight"] <= rows["upper"])
    good = (rows["word"] == "good").where(rows["word"] != "")
    found = rows.assign(
        error=error,
        squared=error**2,
        covered=covered.astype(float),
        width=rows["upper"] - rows["lower"],
        good=good.astype(float),
        covered_good=covered.where(good.eq(True)).astype(float),
    )
    groups = found.groupby(["setting", "method"], sort=False)
    return pd.DataFrame(
        {
            "checkpoints": groups.size(),
            "bias": groups["error"].mean(),
            "bias_error": groups["error"].sem(),
            "rmse": np.sqrt(groups["squared"].mean()),
            "coverage": groups["covered"].mean(),
            "width": groups["width"].mean(),
            "seconds": groups["seconds"].median(),
            "good": groups["good"].mean(),
            "coverage where good": groups["covered_good"].mean(),
        }
    ).reset_index()


def weight(options: argparse.Namespace) -> None:
    """Draw the cases, and print and write the table of the weight."""
    check_quapy()
    chosen = [setting for setting in SETTINGS if options.only in setting.name]
    if not chosen:
        raise InputError(f"--only must be part of the name of a setting; got {options.only}")
    parts = [(setting, number) for setting in chosen for number in range(options.num)]
    frames = [
        _kept(
            options,
            ("weight", setting, number, options.method, options.num_resamples),
            functools.partial(case_rows, setting, number, options.method, options.num_resamples),
        )
        for setting, number in tqdm(parts, desc="cases")
    ]
    rows = pd.concat(frames, ignore_index=True)
    table = weight_table(rows)
    _write(options, "weight", rows, table)
    rivals_figure.weights(table, options.out)
    large = rows[rows["method"] == "massdrift"]["k_hat"] > 0.7
    print(f"k̂ of massdrift is above 0.7 at {large.mean():.2f} of the checkpoints")


def change(options: argparse.Namespace) -> None:
    """Draw the worlds, and print and write the tables of what has changed."""
    for separation in _SEPARATIONS:
        frames = [
            _kept(
                options,
                ("change", separation, number, options.method),
                functools.partial(_world_rows, separation, number, options.method),
            )
            for number in tqdm(range(options.num), desc=f"worlds at δ = {separation:g}")
        ]
        rows = pd.concat(frames, ignore_index=True)
        print(f"\nδ = {separation:g}")
        _write(options, f"change-{separation:g}", rows, rivals_changes.alarms(rows))


def _world_rows(separation: float, number: int, method: str) -> pd.DataFrame:
    here = world(separation, np.random.default_rng([int(10 * separation), number]))
    return rivals_changes.statistics(here, number, method)


def digits(options: argparse.Namespace) -> None:
    """Measure the networks of a run; print and write how methods agree with the count, and the distances."""
    check_quapy()
    every, changed = [], []
    for seed, network in enumerate(tqdm(rivals_digits.networks(options.folder), desc="networks")):
        rng = np.random.default_rng(seed)
        for name, of in methods(options.method, unequal={"covariance": "unequal"}).items():
            estimates = of(network.task, seed, options.num_resamples)
            every.append(rivals_digits.agreement(network, name, estimates, rng))
        changed.append(rivals_digits.changes(network, seed).assign(network=seed))
    rows = pd.concat(every, ignore_index=True)
    groups = rows.assign(squared=rows["error"] ** 2).groupby("method", sort=False)
    table = pd.DataFrame(
        {
            "checkpoints": groups.size(),
            "bias": groups["error"].mean(),
            "rmse": np.sqrt(groups["squared"].mean()),
            "agrees": groups["agrees"].mean(),
            "held": groups["held"].mean(),
            "width": groups["width"].mean(),
            "seconds": groups["seconds"].median(),
        }
    )
    _write(options, "digits", rows, table.reset_index())
    both = pd.concat(changed, ignore_index=True)
    shown = ["counted", "old_weight", "old_drift", "squared_mmd", "mmd_p", "frechet", "coverage", "density"]
    _write(
        options, "digits-changes", both, both.groupby("checkpoint", sort=False)[shown].mean().reset_index()
    )


def _kept(options: argparse.Namespace, facts: Any, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of a part: those that are kept, or computed now and kept."""

    def arrays() -> dict[str, np.ndarray]:
        frame = compute()
        return {
            str(name): column.to_numpy().astype(str) if name in _TEXTS else column.to_numpy()
            for name, column in frame.items()
        }

    return pd.DataFrame(kept.arrays(facts, arrays, folder=options.out / "parts", name=str(facts[0])))


# Columns of rows that hold texts.
_TEXTS = ("setting", "method", "word", "change")


def _write(options: argparse.Namespace, name: str, rows: pd.DataFrame, table: pd.DataFrame) -> None:
    """Write rows and table, and print the table as the docs show it."""
    files.write(options.out / f"{name}.csv", rows.to_csv(index=False).encode())
    files.write(options.out / f"{name}_table.csv", table.to_csv(index=False).encode())
    print(f"| {' | '.join(table.columns)} |\n|{'---|' * len(table.columns)}")
    for row in table.itertuples(index=False):
        print(f"| {' | '.join(map(_shown, row))} |", flush=True)


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "" if np.isnan(value) else f"{value:.3f}"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run, num in ((weight, 8), (change, 50), (digits, None)):
        command = commands.add_parser(run.__name__, help=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument(
            "--out", type=Path, default=Path("runs/rivals"), help="folder of what is written"
        )
        command.add_argument(
            "--method",
            default="laplace",
            choices=("auto", "laplace", "nuts"),
            help="of massdrift; auto takes a minute or two for some checkpoints",
        )
        if num is not None:
            command.add_argument("--num", type=int, default=num, help="cases a setting, or worlds")
        if run is not change:
            command.add_argument("--num-resamples", type=int, default=100, help="of the bootstrap")
        if run is weight:
            command.add_argument("--only", default="", help="settings whose name holds this text")
        if run is digits:
            command.add_argument("folder", type=Path, help="of a run of massdrift digits")
    options = parser.parse_args(arguments)
    try:
        for name in ("num", "num_resamples"):
            if hasattr(options, name):
                integer(name, getattr(options, name), at_least=2)
        options.out.mkdir(parents=True, exist_ok=True)
        options.run(options)
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"stopped; what was finished is kept in {options.out}", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
