"""Is `inference.measure` right, and does it say so, on kinds of data on and off its model?

``python -m benchmarks.calibration_runs --num 20 --only TEXT --processes 1 --method laplace --out FILE``
writes a row a checkpoint, and beside it the table of the kinds. A kind that the file holds already is not run
again. Set ``OPENBLAS_NUM_THREADS=1`` on cores that are busy.
"""

import argparse
import functools
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from benchmarks.calibration_cases import Case
from benchmarks.calibration_kinds import KINDS, Kind
from inference import measure
from inference.storage import files
from mixture_models.validation import InputError

#: Probabilities between which an interval of 89 % lies.
TAILS = (0.055, 0.945)

# Columns of numbers that the table is made of.
_SUMMARISED = ("covered", "error", "width", "old_covered", "new_covered", "difference_covered", "seconds")

#: Applies a function to the places of cases, in one process or more.
Mapper = Callable[[Callable[[int], list[dict[str, Any]]], Iterable[int]], Iterable[list[dict[str, Any]]]]


def run_kind(
    kind: Kind, num: int, seed: int, *, mapper: Mapper = map, **measure_settings: Any
) -> pd.DataFrame:
    """Measure some cases of a kind.

    Args:
        kind: one of `KINDS`.
        num: of cases.
        seed: of the cases; a kind's do not depend on other kinds.
        mapper: applies a function to every case's place, as `map` does.
        measure_settings: of `inference.measure`.

    Returns:
        One row a checkpoint, with the columns of `checkpoint_row`.
    """
    found = mapper(functools.partial(run_case, kind.name, seed, measure_settings), range(num))
    return pd.DataFrame([row for rows in found for row in rows])


def run_case(name: str, seed: int, settings: dict[str, Any], index: int) -> list[dict[str, Any]]:
    """Draw a case of the kind of this name and measure it; return one row a checkpoint."""
    kind = next(kind for kind in KINDS if kind.name == name)
    case = kind.draw(np.random.default_rng([seed, zlib.crc32(name.encode()), index]))
    common = {"kind": name, "on_model": case.on_model, "case": index}
    start = time.perf_counter()
    try:
        tree = measure(case.samples, case.old, case.new, **({"seed": index, "progress": False} | settings))
    except Exception as error:
        # Kept as a row: the other cases are measured all the same, and the table counts it as not good.
        word = "refused" if isinstance(error, InputError) else "failed"
        row = common | {"word": word, "words": f"{type(error).__name__}: {error}"}
        return [row | {"checkpoint": i} for i in range(len(case.samples))]
    seconds = (time.perf_counter() - start) / len(case.samples)
    rows = [
        common | {"checkpoint": i, "seconds": seconds} | checkpoint_row(tree, case, i)
        for i in range(len(case.samples))
    ]
    if len(rows) > 1:
        # The last row holds the difference, so that a case counts once.
        rows[-1]["difference_covered"] = _difference_covered(tree, case)
    return rows


def checkpoint_row(tree: xr.DataTree, case: Case, index: int) -> dict[str, Any]:
    """Return what the measurement of one checkpoint says beside the truth.

    ``covered`` says if the interval of the old weight holds the truth; ``old_covered`` and ``new_covered``
    are the shares of features in which that of the displacement does, ``old_length_covered`` and
    ``new_length_covered`` whether that of its length does; NaN where there is no truth, and of a length where
    it is 0, which no draw is.
    """
    posterior = tree["posterior"].to_dataset().isel(checkpoint=index)
    stats = tree["sample_stats"].to_dataset().isel(checkpoint=index)
    weight, true = _draws(posterior["old_weight"]), case.old_weights[index]
    low, high = np.quantile(weight, TAILS)
    words = str(stats["words"].item())
    row: dict[str, Any] = {
        "old_weight": true,
        "covered": bool(low <= true <= high),
        "error": float(weight.mean() - true),
        "width": float(high - low),
        "word": _word(words),
        "words": words,
    }
    matrix = tree["constant_data"]["projection"].to_numpy()
    lengths = case.lengths[index] or (None, None)
    # Lengths are known in all features, which a projection to fewer does not keep.
    kept = matrix.shape[0] == matrix.shape[1]
    for name, displacement, length, measured in (
        ("old", case.old_displacements[index], lengths[0], "old_drift"),
        ("new", case.new_displacements[index], lengths[1], "new_gap"),
    ):
        moved = None if displacement is None else displacement @ matrix
        row[f"{name}_covered"] = _share_covered(_draws(posterior[f"{name}_displacement"]), moved)
        row[f"{name}_length"] = np.nan if length is None else length
        row[f"{name}_length_covered"] = _share_covered(
            _draws(posterior[measured]), length or None if kept else None
        )
    for name in ("old_unmoved_probability", "k_hat"):
        row[name] = float(stats[name])
    return row | {"method": str(stats["method"].item())}


def table(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return one row a kind, and one of all kinds on the model and of all that are off it.

    ``coverage_good`` is the coverage of those that were called good, ``num_good`` of them; checkpoints that
    were refused, or failed, count in ``num``, ``share_good`` and ``nuts`` alone.
    """
    data = pd.concat(list(frames), ignore_index=True)
    rows = [{"kind": name} | summary(frame) for name, frame in data.groupby("kind", sort=False)]
    for words, on_model in (("all on the model", True), ("all off the model", False)):
        chosen = data[data["on_model"].astype(bool) == on_model]
        if len(chosen):
            rows.append({"kind": words} | summary(chosen))
    return pd.DataFrame(rows)


def summary(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the entries of a row of `table` from the checkpoints that it counts."""
    # Of one checkpoint there is no difference, and of a refused one no more than the refusal.
    frame = frame.reindex(columns=[*_SUMMARISED, "word", "method"])
    good, covered = frame["word"] == "good", frame["covered"].astype(float)
    return {
        "num": len(frame),
        "coverage": covered.mean(),
        "coverage_good": covered[good].mean(),
        "num_good": int(good.sum()),
        "share_good": good.mean(),
        "error": frame["error"].abs().mean(),
        "width": frame["width"].median(),
        "old_covered": frame["old_covered"].mean(),
        "new_covered": frame["new_covered"].mean(),
        "difference": frame["difference_covered"].astype(float).mean(),
        "seconds": frame["seconds"].median(),
        "nuts": (frame["method"] == "nuts").mean(),
    }


def _draws(values: xr.DataArray) -> np.ndarray:
    """Return draws of all chains first, shape (draw, ...)."""
    return values.stack(sample=("chain", "draw")).transpose("sample", ...).to_numpy()


def _word(words: str) -> str:
    """Return the verdict's first word."""
    return words.split(":")[0].split()[0]


def _share_covered(values: np.ndarray, true: Any) -> float:
    """Return the share of entries whose interval holds the truth; NaN where there is none."""
    if true is None:
        return float("nan")
    low, high = np.quantile(values, TAILS, axis=0)
    return float(np.mean((low <= true) & (true <= high)))


def _difference_covered(tree: xr.DataTree, case: Case) -> bool:
    """Return whether the interval of last less first old weight, draw by draw, holds the truth."""
    weight = tree["posterior"].to_dataset()["old_weight"]
    draws = _draws(weight.isel(checkpoint=-1) - weight.isel(checkpoint=0))
    return bool(_share_covered(draws, case.old_weights[-1] - case.old_weights[0]))


def _read(path: Path, settings: str) -> pd.DataFrame:
    """Return the rows of a file that were made with these settings; nothing if there is no file."""
    if not path.exists():
        return pd.DataFrame()
    data = pd.read_csv(path)
    if "settings" not in data:
        raise SystemExit(f"{path} must be an earlier output of this; it is another file")
    if set(data["settings"]) - {settings}:
        raise SystemExit(
            f"{path} was made with the settings {data['settings'].iloc[0]}; these are {settings}: "
            "give another --out"
        )
    return data


def _mapper(processes: int) -> tuple[Mapper, Callable[[], None]]:
    """Return what applies a function in as many processes, and what ends them."""
    if processes == 1:
        return map, lambda: None
    # Processes beside each other leave one core to each; read when they import NumPy.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    return pool.map, pool.shutdown


def main(arguments: list[str] | None = None) -> None:
    """Measure the chosen kinds; print and write rows and table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=20, help="cases a kind")
    parser.add_argument("--only", default="", help="kinds whose name holds this text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--method", default="auto", choices=("auto", "laplace", "nuts"))
    parser.add_argument("--out", type=Path, default=Path("runs/kinds.csv"))
    options = parser.parse_args(arguments)
    settings = json.dumps({"num": options.num, "seed": options.seed, "method": options.method})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    files.check_writable(options.out)
    data = _read(options.out, settings)
    done = set(data["kind"]) if len(data) else set()
    chosen = [kind for kind in KINDS if options.only in kind.name]
    mapper, end = _mapper(options.processes)
    try:
        for kind in tqdm([kind for kind in chosen if kind.name not in done], desc="kinds"):
            frame = run_kind(kind, options.num, options.seed, mapper=mapper, method=options.method)
            data = pd.concat([data, frame.assign(settings=settings)], ignore_index=True)
            files.write(options.out, data.to_csv(index=False).encode())
            tqdm.write(f"{kind.name}: {json.dumps(_rounded(summary(frame)))}")
    finally:
        end()
    if len(data):
        shown = table([data])
        table_file = options.out.with_name(f"{options.out.stem}_table.csv")
        files.write(table_file, shown.to_csv(index=False).encode())
        print(shown.to_string(index=False, float_format="%.3f"))


def _rounded(row: dict[str, Any]) -> dict[str, float]:
    return {name: round(float(value), 3) for name, value in row.items()}


if __name__ == "__main__":
    main()
