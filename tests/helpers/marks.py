"""Which cases of a parametrised test run by default, and which only with the long tests."""

import pytest


def mostly_slow(values, *quick):
    """Return the values as parameters, a tuple as several; all but the ``quick`` ones are marked slow."""
    missing = set(quick) - set(values)
    assert not missing, missing
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=marks)
        for value in values
        for marks in [() if value in quick else pytest.mark.slow]
    ]
