"""`inference.measure` beside what else is used: quantifiers of QuaPy for the weight, distances for a change.

    python -m benchmarks.rivals weight --num 7
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

from benchmarks import rivals_changes, rivals_digits, rivals_figure, rivals_tables
from benchmarks.calibration_cases import two_modes
from benchmarks.rivals_digits import Network
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


def weight(options: argparse.Namespace) -> None:
    """Draw the cases, and print and write the tables of the weight."""
    check_quapy()
    chosen = [setting for setting in SETTINGS if options.only in setting.name]
    if not chosen:
        raise InputError(f"--only must be part of the name of a setting; got {options.only}")
    # Case by case, so that what is finished when it is stopped is a smaller table.
    parts = [(setting, number) for number in range(options.num) for setting in chosen]
    frames = [
        _kept(
            options,
            ("weight", setting, number, options.method, options.num_resamples),
            functools.partial(case_rows, setting, number, options.method, options.num_resamples),
        )
        for setting, number in tqdm(parts, desc="cases")
    ]
    place = {setting.name: k for k, setting in enumerate(chosen)}
    rows = pd.concat(frames).sort_values("setting", key=lambda names: names.map(place), kind="stable")
    table = rivals_tables.of_weights(rows)
    _write(options, "weight", rows, table)
    print(rivals_tables.text(rivals_tables.side_by_side(table)), "\n")
    print(rivals_tables.text(rivals_tables.by_method(rows)), "\n")
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
        table = rivals_changes.alarms(rows)
        _write(options, f"change-{separation:g}", rows, table)
        print(f"δ = {separation:g}\n{rivals_tables.text(table)}\n")


def _world_rows(separation: float, number: int, method: str) -> pd.DataFrame:
    here = world(separation, np.random.default_rng([int(10 * separation), number]))
    return rivals_changes.statistics(here, number, method)


def digits(options: argparse.Namespace) -> None:
    """Measure the networks of a run; print and write how methods agree with the count, and the distances."""
    check_quapy()
    agreed, changed = [], []
    for seed, network in enumerate(tqdm(rivals_digits.networks(options.folder), desc="networks")):
        facts = (seed, network, options.method, options.num_resamples)
        for name, of in methods(options.method, unequal={"covariance": "unequal"}).items():

            def compute(
                name: str = name, of: Method = of, network: Network = network, seed: int = seed
            ) -> pd.DataFrame:
                estimates = of(network.task, seed, options.num_resamples)
                return rivals_digits.agreement(network, name, estimates, np.random.default_rng(seed))

            agreed.append(_kept(options, ("digits", name, *facts), compute))
        changes = functools.partial(rivals_digits.changes, network, seed)
        changed.append(_kept(options, ("digits-changes", *facts), changes))
    rows, both = pd.concat(agreed, ignore_index=True), pd.concat(changed, ignore_index=True)
    for name, frame, table in (
        ("digits", rows, rivals_tables.of_agreement(rows)),
        ("digits-changes", both, rivals_tables.of_changes(both)),
    ):
        _write(options, name, frame, table)
        print(rivals_tables.text(table), "\n")


# Columns of rows that hold texts.
_TEXTS = ("setting", "method", "word", "change", "checkpoint")


def _kept(options: argparse.Namespace, facts: Any, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of a part: those that are kept, or computed now and kept."""

    def arrays() -> dict[str, np.ndarray]:
        return {
            str(name): column.to_numpy().astype(str) if name in _TEXTS else column.to_numpy()
            for name, column in compute().items()
        }

    return pd.DataFrame(kept.arrays(facts, arrays, folder=options.out / "parts", name=str(facts[0])))


def _write(options: argparse.Namespace, name: str, rows: pd.DataFrame, table: pd.DataFrame) -> None:
    files.write(options.out / f"{name}.csv", rows.to_csv(index=False).encode())
    files.write(options.out / f"{name}_table.csv", table.to_csv(index=False).encode())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run, num in ((weight, 7), (change, 50), (digits, None)):
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
