"""Do intervals of `inference.measure_evals` cover, and does its verdict say when they cannot?

``python -m benchmarks.calibration_evals --num 200 --only TEXT --out FILE`` draws runs from the model and
from inference.measurement.verdict.kinds import kind_of
from what is not the model, and prints a row a kind: coverage of 89 % intervals, their median width, and the
share of verdicts that say that the run is not to be trusted.
"""

import argparse
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from inference.measurement.evals.dependence import Dependence, dependence
from inference.measurement.evals.measure_evals import measure_paired
from inference.measurement.evals.pairing import CELLS, Paired

#: Probabilities between which an interval of 89 % lies.
TAILS = (0.055, 0.945)

# Cases that are measured in one call.
_TOGETHER = 20

_NONE_LEFT_OUT = pd.DataFrame(
    columns=["task", "arm", "seed", "checkpoint", "reason", "num_items", "examples"]
)

# Items of a cluster.
_PARAPHRASES = 5

# Items by which the truth of a case is found.
_MANY = 400_000


class Case(NamedTuple):
    """One run and its truth.

    Attributes:
        repeats: cells of repeats, empty of one with choices.
        choices: row of choices, empty of one with repeats.
        truth: by the name of the variable of ``/posterior``.
        dependence: of its items.
    """

    repeats: pd.DataFrame
    choices: pd.DataFrame
    truth: dict[str, float]
    dependence: Dependence = Dependence()


class Setting(NamedTuple):
    """A law of items and a run, drawn anew for each case."""

    num_items: int
    num_answers: int
    num_choices: float
    guess: float
    mean: float
    sd: float
    mass_lost: float
    drift: float
    spread: float


def setting(rng: np.random.Generator, num_answers: int) -> Setting:
    """Draw a setting: pass rates are U-shaped, items from 50 to 5,000, guess rates from 0 to 0.5."""
    k = int(rng.choice([0, 2, 3, 4, 5, 10]))
    guess = 0.0 if not k else (1.0 if rng.uniform() < 0.5 else rng.uniform()) / k
    return Setting(
        int(np.exp(rng.uniform(np.log(50), np.log(5000)))),
        num_answers,
        float(k) if k else np.nan,
        guess,
        rng.normal(0.5, 2.0),
        rng.uniform(1.5, 8.0),
        rng.uniform(0.0, 0.5) if rng.uniform() < 0.7 else rng.uniform(0.0, 0.05),
        rng.normal(0.0, 0.8),
        rng.uniform(0.0, 1.5),
    )


#: Success of the base and of the run, of some items.
Success = Callable[[np.random.Generator, Setting, int], tuple[np.ndarray, np.ndarray]]


def on_model(rng: np.random.Generator, s: Setting, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw items of the model."""
    a = rng.normal(s.mean, s.sd, size)
    b = a + s.drift + s.spread * rng.normal(size=size)
    known, after = special.expit(a), special.expit(b)
    return s.guess + (1 - s.guess) * known, s.guess + (1 - s.guess) * (1 - s.mass_lost) * after


def lost_on_half(rng: np.random.Generator, s: Setting, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw items of which half lose 0.4 of the mass, the others none, and that do not drift."""
    before, _ = on_model(rng, s._replace(drift=0.0, spread=0.0, mass_lost=0.0), size)
    lost = np.where(rng.uniform(size=size) < 0.5, 0.4, 0.0)
    return before, s.guess + (1.0 - lost) * (before - s.guess)


def drifts_in_clusters(rng: np.random.Generator, s: Setting, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw items in clusters, of which one in five falls by 4 logits and the others stay."""
    a = rng.normal(s.mean, s.sd, size)
    b = a - 4.0 * (rng.uniform(size=size) < 0.2)
    return (s.guess + (1 - s.guess) * special.expit(x) for x in (a, b))  # type: ignore[return-value]


def base_in_clusters(rng: np.random.Generator, s: Setting, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw items of two difficulties, both in the middle."""
    a = np.where(rng.uniform(size=size) < 0.5, -1.5, 1.5)
    b = a + s.drift
    return (s.guess + (1 - s.guess) * special.expit(x) for x in (a, b))  # type: ignore[return-value]


def guesses_not_told(rng: np.random.Generator, s: Setting, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw items that are guessed in 40 % of the cases, of which the log says that answers are free."""
    return on_model(rng, s._replace(guess=0.4), size)


def changes_in_clusters(rng: np.random.Generator, s: Setting, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw items next to each other that are paraphrases: their logits are alike, and move together."""
    groups = -(-size // _PARAPHRASES)
    of_group = np.repeat(rng.normal(size=(2, groups)), _PARAPHRASES, axis=1)[:, :size]
    a = s.mean + s.sd * (0.9 * of_group[0] + np.sqrt(0.19) * rng.normal(size=size))
    b = a + s.drift + s.spread * of_group[1]
    return (s.guess + (1 - s.guess) * special.expit(x) for x in (a, b))  # type: ignore[return-value]


def repeats_case(
    rng: np.random.Generator, num_answers: int, law: Success = on_model, named: bool = False, **fixed: Any
) -> Case:
    """Draw a run with repeats; of items in clusters the log may name these."""
    s = setting(rng, num_answers)._replace(**fixed)
    before, after = law(rng, s, s.num_items)
    counts = rng.binomial(s.num_answers, before), rng.binomial(s.num_answers, after)
    columns = ["right_base", "num_base", "right_run", "num_run"]
    items = pd.DataFrame(
        dict(zip(columns, (counts[0], s.num_answers, counts[1], s.num_answers), strict=True))
    )
    cells = items.value_counts().rename("num_items").reset_index().assign(num_choices=s.num_choices)
    p_base, p_run = law(np.random.default_rng(0), s, _MANY)
    truth = {
        "accuracy_change": float(np.mean(p_run - p_base)),
        "accuracy_change_of_items": float(np.mean(after - before)),
        "lost": float(np.mean(np.maximum(p_base - p_run, 0.0))),
        "won": float(np.mean(np.maximum(p_run - p_base, 0.0))),
    }
    cluster = np.arange(s.num_items) // _PARAPHRASES if named else np.full(s.num_items, -1)
    found = dependence(counts[0] / s.num_answers, counts[1] / s.num_answers, cluster)
    if law in (on_model, guesses_not_told):
        truth |= {"old_weight": 1.0 - s.mass_lost, "drift": s.drift, "drift_spread": s.spread}
    return Case(cells, pd.DataFrame(), truth, found)


def choices_case(rng: np.random.Generator, k: int) -> Case:
    """Draw a run with one answer of k choices an item."""
    num = int(np.exp(rng.uniform(np.log(50), np.log(5000))))
    shares, persistence = rng.dirichlet([3.0, 0.7, 0.7, 2.0]), rng.uniform()
    state = rng.choice(4, num, p=shares)
    guess_before, guess_after = rng.integers(k, size=(2, num))
    stays = (state == 3) & (rng.uniform(size=num) < persistence)
    before = np.where(state <= 1, 0, guess_before)
    after = np.where((state == 0) | (state == 2), 0, np.where(stays, guess_before, guess_after))
    both_wrong = (before != 0) & (after != 0)
    counts = [
        (before == 0) & (after == 0),
        (before == 0) & (after != 0),
        (before != 0) & (after == 0),
        both_wrong & (before == after),
        both_wrong & (before != after),
    ]
    row = {"num_choices": [float(k)]} | {name: [int(c.sum())] for name, c in zip(CELLS, counts, strict=True)}
    names = ("known_kept", "forgotten", "acquired")
    truth = dict(zip(names, map(float, shares[:3]), strict=True)) | {"persistence": persistence}
    return Case(pd.DataFrame(), pd.DataFrame(row), truth)


#: Kinds of runs: their name, whether they are on the model, and a case of them.
KINDS: dict[str, tuple[bool, Callable[[np.random.Generator], Case]]] = {
    **{f"{n} answers": (True, lambda rng, n=n: repeats_case(rng, n)) for n in (1, 2, 4, 8, 16)},  # type: ignore[misc]
    **{f"one of {k}": (True, lambda rng, k=k: choices_case(rng, k)) for k in (3, 4, 10)},  # type: ignore[misc]
    "lost on half": (
        False,
        lambda rng: repeats_case(rng, 8, lost_on_half, num_items=2000, mean=1.0, sd=4.0),
    ),
    "drift in clusters": (
        False,
        lambda rng: repeats_case(rng, 8, drifts_in_clusters, num_items=2000, mean=1.0, sd=4.0),
    ),
    "base in clusters": (
        False,
        lambda rng: repeats_case(rng, 8, base_in_clusters, num_items=1000, num_choices=np.nan, guess=0.0),
    ),
    "guesses not told": (
        False,
        lambda rng: repeats_case(rng, 8, guesses_not_told, num_items=1000, num_choices=np.nan, sd=4.0),
    ),
    **{
        f"paraphrases{' named' if named else ''}, {n} answers": (
            False,
            lambda rng, n=n, named=named: repeats_case(  # type: ignore[misc]
                rng, n, changes_in_clusters, named, num_items=1000, mean=1.0, sd=4.0, spread=2.0
            ),
        )
        for n in (1, 8)
        for named in (False, True)
    },
}


def run_kind(name: str, num: int, seed: int, **settings: Any) -> pd.DataFrame:
    """Measure some cases of a kind; return a row a case and variable."""
    rows = []
    for start in range(0, num, _TOGETHER):
        cases = [
            KINDS[name][1](np.random.default_rng([seed, zlib.crc32(name.encode()), i]))
            for i in range(start, min(start + _TOGETHER, num))
        ]
        # Each is an arm of its own, so that nothing is pooled.
        labels = [str(i) for i in range(len(cases))]
        items = [
            float((c.repeats["num_items"] if len(c.repeats) else c.choices[list(CELLS)]).to_numpy().sum())
            for c in cases
        ]
        kinds = ["repeats" if len(c.repeats) else "choices" for c in cases]
        runs = pd.DataFrame({"task": labels, "arm": labels, "num_items": items, "kind": kinds})
        runs = runs.assign(seed="0", checkpoint=1, is_retest=False)
        runs = runs.join(pd.DataFrame([case.dependence for case in cases]))
        repeats, choices = (
            pd.concat([getattr(c, part).assign(run=i) for i, c in enumerate(cases)], ignore_index=True)
            for part in ("repeats", "choices")
        )
        paired = Paired(runs, repeats, choices, _NONE_LEFT_OUT)
        tree = measure_paired(
            paired,
            seed=start,
            progress=False,
            num_log_likelihood_items=0,
            **settings,
        )
        for label, case in zip(labels, cases, strict=True):
            where = {"task": label, "arm": label, "seed": "0", "checkpoint": 1}
            posterior, stats = (tree[g].to_dataset().sel(where) for g in ("posterior", "sample_stats"))
            words = str(stats["words"].item())
            for variable, true in case.truth.items():
                draws = posterior[variable].to_numpy().ravel()
                low, high = np.quantile(draws, TAILS)
                rows.append(
                    {
                        "kind": name,
                        "case": start + int(label),
                        "variable": variable,
                        "true": true,
                        "covered": bool(low <= true <= high),
                        "width": high - low,
                        "k_hat": float(stats["k_hat"]),
                        "word": kind_of(words),
                        "words": words,
                    }
                )
    return pd.DataFrame(rows)


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return coverage and median width of each kind and variable, and shares of verdicts.

    ``dependence`` is the share that speaks of items that change together, or alike.
    """
    grouped = rows.groupby(["kind", "variable"], sort=False)
    found = grouped.agg(num=("covered", "size"), coverage=("covered", "mean"), width=("width", "median"))
    found["not_trusted"] = grouped["word"].apply(lambda words: float((words == "not to be trusted").mean()))
    found["dependence"] = grouped["words"].apply(
        lambda words: float(words.str.contains("items .* change ").mean())
    )
    found["large_k_hat"] = grouped["k_hat"].apply(lambda k: float((k > 0.7).mean()))
    return found.reset_index()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=200, help="cases a kind")
    parser.add_argument("--only", default="", help="kinds whose name holds this text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", default="laplace", choices=("auto", "laplace", "nuts"))
    parser.add_argument("--out", type=Path, default=Path("runs/calibration_evals.csv"))
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    frames = []
    for name in KINDS:
        if options.only in name:
            frames.append(run_kind(name, options.num, options.seed, method=options.method))
            print(table(frames[-1]).to_string(index=False, float_format="%.3f"), flush=True)
            pd.concat(frames).to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
