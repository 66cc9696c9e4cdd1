"""Bars are shown where they can be drawn over, and where they are widgets."""

import sys

import pytest
from tqdm.notebook import tqdm_notebook

from inference import progress


@pytest.mark.parametrize(
    ("wanted", "terminal", "notebook", "hidden"),
    [
        (True, True, False, False),
        (True, False, False, True),  # a log
        (True, False, True, False),
        (False, True, True, True),
    ],
)
def test_a_bar_is_shown_in_terminals_and_notebooks(monkeypatch, wanted, terminal, notebook, hidden):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    if notebook:
        monkeypatch.setattr(progress, "tqdm", type("tqdm", (tqdm_notebook,), {}))
    assert progress.hidden(wanted) is hidden
