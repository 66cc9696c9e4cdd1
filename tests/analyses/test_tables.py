"""How tables are printed: in 80 columns no name and no number is broken."""

import itertools

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len
from rich.console import Console

from analyses.core import tables

NAMES = ["sft", "reverse_kl:replay=0.2", "ttt_discover:reward=linear,kl_weight=3", "日本語の名前"]


def printed(grid, *, width=80, full=False):
    console = Console(width=width)
    with tables.printed(full=full), console.capture() as capture:
        console.print(grid)
    return capture.get()


def frame(count):
    rng = np.random.default_rng(0)
    values = {f"quantity_{k}": 10.0 ** rng.uniform(-6, 6, size=len(NAMES)) for k in range(count)}
    bounds = {
        f"{name}_{bound}": values[name] * factor
        for name in values
        for bound, factor in (("lower", 0.9), ("upper", 1.1))
    }
    return pd.DataFrame(values | bounds, index=NAMES)


@pytest.mark.parametrize("width", [64, 80, 200])
@pytest.mark.parametrize("count", [1, 3, 17])
def test_names_and_intervals_are_whole_and_lines_fit(width, count):
    data = frame(count)
    columns = [(f"quantity {k} at the end", f"quantity_{k}", tables.with_interval) for k in range(count)]
    text = printed(tables.by_name(data, columns, title="Title", caption="One. Two."), width=width)
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= width
    for name, row in data.iterrows():
        assert any(line.split()[:1] == [name] for line in lines if line.strip())
        for k in range(count):
            for line in tables.with_interval(dict(row), f"quantity_{k}").split("\n"):
                assert line in text
    # Every part has all names.
    starts = [line for line in lines if line.split()[:1] == ["sft"]]
    assert len(starts) == sum("reverse_kl:replay=0.2" in line for line in lines)


def test_what_is_printed_at_first_sight_and_in_full():
    data = frame(3)
    columns = [(f"q {k}", f"quantity_{k}") for k in range(3)]

    def grid():
        caption = "Mean of all. What it means: nothing."
        return tables.by_name(data, columns, title="Title", caption=caption, brief=["quantity_1"])

    brief = printed(grid())
    assert "q 1" in brief
    assert "q 0" not in brief
    assert "Mean of all. With --full: what they mean and 2 more columns." in brief
    with tables.printed(full=True):
        full = grid()
    assert "What it means: nothing." in printed(full, full=True)
    assert all(f"q {k}" in printed(full, full=True) for k in range(3))


def test_a_verdict_is_one_word():
    assert tables.verdict("good") == "good"
    assert tables.verdict("weak: few samples: 3") == "weak"
    assert tables.verdict("not to be trusted: no mode") == "untrusted"


def test_rows_of_a_group_stay_together():
    rows = [["0", "math", "1"], ["", "code", "2"], ["1", "math", "3"], ["", "code", "4"]]
    grid = tables.Table(["", "task", "weight"], rows, "Title", "", keys=2, ends={1, 3})
    lines = [line for line in printed(grid).splitlines() if line.strip()]
    rules = [place for place, line in enumerate(lines) if set(line.strip()) == {"─"}]
    assert [b - a for a, b in itertools.pairwise(rules)] == [2, 3, 3]


@pytest.mark.parametrize(
    ("value", "words"), [(0.5, "= 0.50"), (0.999, "> 0.99"), (0.001, "< 0.01"), (np.nan, "= n/a")]
)
def test_a_probability_is_told_no_surer_than_draws_can(value, words):
    assert tables.probability(value) == words
