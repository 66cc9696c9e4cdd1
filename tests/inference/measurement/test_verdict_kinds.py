"""The kind of a verdict in words: what tables, marks in figures and comparisons ask of it."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from inference.measurement.verdict.kinds import (
    GOOD,
    ORDER,
    UNMEASURED,
    UNTRUSTED,
    WEAK,
    kind_of,
    of_kind,
    parts_of,
    worst,
)
from inference.measurement.verdict.words import together, worded

SAID = ["good", "good: one seed", "weak: few", "not to be trusted: off", "not measured: flat", ""]


def test_kinds_are_the_words_that_files_hold():
    assert (
        ORDER == (GOOD, WEAK, UNTRUSTED, UNMEASURED) == ("good", "weak", "not to be trusted", "not measured")
    )


def test_a_verdict_is_a_kind_and_reasons():
    assert [kind_of(words) for words in SAID] == ["good", *ORDER, ""]
    # What is said of the verdict may hold colons, and names of kinds.
    words = "weak: the checkpoint: not to be trusted; good"
    assert parts_of(words) == (WEAK, "the checkpoint: not to be trusted; good")
    assert parts_of(GOOD) == (GOOD, "")
    assert parts_of(worded(["off"], ["few"])) == (UNTRUSTED, "off; few")
    assert parts_of(worded([], ["few"])) == (WEAK, "few")


@pytest.mark.parametrize("dtype", [None, object])
@pytest.mark.parametrize("kinds", [[UNTRUSTED], [GOOD], [UNTRUSTED, UNMEASURED]])
def test_verdicts_of_a_kind_are_told_one_by_one_whatever_holds_them(dtype, kinds):
    words = np.array(SAID, dtype)
    expected = [any(text == kind or text.startswith(f"{kind}: ") for kind in kinds) for text in SAID]
    assert any(expected)
    assert not all(expected)
    for held in (words, pd.Series(words), xr.DataArray(words, dims="checkpoint")):
        found = of_kind(held, *kinds)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(of_kind(words.reshape(2, 3), *kinds), np.reshape(expected, (2, 3)))
    assert of_kind(words[:0], *kinds).shape == (0,)
    assert [bool(of_kind(text, *kinds)) for text in SAID] == expected


def test_the_worst_is_the_first_of_the_worst_kind():
    assert worst(SAID[:5]) == "not measured: flat"
    assert worst(["weak: a", "good", "weak: b"]) == "weak: a"
    assert worst(np.array(["good: one seed"])) == "good: one seed"


def test_two_verdicts_together_are_the_worse_with_the_reasons_of_both_once():
    assert together("weak: a; b", "not to be trusted: c; b") == "not to be trusted: a; b; c"
    assert together("good", "weak: a") == "weak: a"
    assert together("good", "good") == "good"
