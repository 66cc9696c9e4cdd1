"""How often intervals hold the known old weight of texts, by the built-in embedder, on texts of this machine.

    python -m benchmarks.calibration_texts --num 12

Tasks are styles: functions of the standard library without their docstrings, its docstrings, docstrings of
packages, and paragraphs of licences. No two texts are equal, none is in two samples, and nothing has moved.
"""

import argparse
import ast
import itertools
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from inference import measure
from inference.intervals import interval
from inference.measurement.generations.ngrams import NGramEmbedder
from inference.measurement.verdict.kinds import GOOD, kind_of

WEIGHTS = (0.1, 0.5, 0.9)

# Characters of a text.
_SHORTEST, _LONGEST = 80, 1200

_PACKAGES = ("numpy", "scipy", "pandas", "sklearn")


def styles() -> dict[str, list[str]]:
    """Return texts of every style, each once."""
    library, packages = (Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib"))
    own = [p for p in library.rglob("*.py") if not {"test", "tests", "site-packages"} & set(p.parts)]
    theirs = [p for name in _PACKAGES for p in (packages / name).rglob("*.py") if "tests" not in p.parts]
    licences = [p for p in packages.glob("*.dist-info/**/*") if p.is_file() and "LICEN" in p.name.upper()]
    found = {
        "functions": (text for path in own for text in _functions(path)),
        "docstrings": (text for path in own for text in _docstrings(path)),
        "packages' docstrings": (text for path in theirs for text in _docstrings(path)),
        "licences": (
            t.strip() for p in licences for t in re.split(r"\n\s*\n", p.read_text(errors="replace"))
        ),
    }
    return {
        name: sorted({text for text in some if _SHORTEST < len(text) < _LONGEST})
        for name, some in found.items()
    }


def _nodes(path: Path) -> Iterator[ast.AST]:
    try:
        yield from ast.walk(ast.parse(path.read_text(errors="replace")))
    except (SyntaxError, ValueError):  # a template, not a module
        return


def _functions(path: Path) -> Iterator[str]:
    for node in _nodes(path):
        if isinstance(node, ast.FunctionDef):
            if ast.get_docstring(node):
                node.body = node.body[1:] or [ast.Pass()]
            yield ast.unparse(node)


def _docstrings(path: Path) -> Iterator[str]:
    for node in _nodes(path):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            yield ast.get_docstring(node) or ""


def rows(
    texts: dict[str, list[str]], old: str, new: str, references: int, num: int, tails: str
) -> Iterator[dict]:
    """Yield what is found of each checkpoint of some runs of 400 samples."""
    for seed in range(num):
        rng = np.random.default_rng([seed, references])
        old_texts, new_texts = (
            iter([texts[s][i] for i in rng.permutation(len(texts[s]))]) for s in (old, new)
        )
        both = [list(itertools.islice(task, references)) for task in (old_texts, new_texts)]
        embedder = NGramEmbedder(*both)
        samples = {
            weight: embedder.embed(
                [next(old_texts if is_old else new_texts) for is_old in rng.uniform(size=400) < weight]
            )
            for weight in WEIGHTS
        }
        tree = measure(
            samples, *map(embedder.embed, both), tails=tails, num_draws=400, progress=False, seed=seed
        )
        draws, words = tree["posterior"].to_dataset(), tree["sample_stats"]["weight_words"].to_numpy()
        limits = interval(draws["old_weight"]).transpose("checkpoint", "ci_bound").to_numpy()
        for place, weight in enumerate(WEIGHTS):
            yield {
                "covered": limits[place, 0] <= weight <= limits[place, 1],
                "error": float(draws["old_weight"][:, :, place].mean()) - weight,
                "good": kind_of(words[place]) == GOOD,
                "unmoved": float((draws["old_drift"][:, :, place] == 0.0).mean()),
            }


def main() -> None:
    """Print a table, a pair of styles and a number of references a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--num", type=int, default=12, help="runs of three checkpoints a row")
    parser.add_argument("--tails", default="auto", help="of the modes: auto, gaussian or student")
    arguments = parser.parse_args()
    texts = styles()
    print({name: len(some) for name, some in texts.items()})
    print(
        "| old | new | references | coverage | where good | bias | error | good | P(unmoved) |\n|"
        + "---|" * 9
    )
    pairs = (("functions", "docstrings"), ("docstrings", "packages' docstrings"), ("licences", "docstrings"))
    for references, (old, new) in itertools.product((300, 100), pairs):
        found = pd.DataFrame(rows(texts, old, new, references, arguments.num, arguments.tails))
        mean, good = found.mean(), found[found["good"]]["covered"].mean()
        print(
            f"| {old} | {new} | {references} | {mean['covered']:.2f} | {good:.2f} | {mean['error']:+.4f} "
            f"| {np.sqrt((found['error'] ** 2).mean()):.3f} | {mean['good']:.2f} | {mean['unmoved']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
