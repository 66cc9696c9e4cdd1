"""What an analysis is, and what is known of its command before it is imported."""

import inspect
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import analyses

if TYPE_CHECKING:  # what only prints imports none of them
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from analyses.core.settings import BaseSettings


class Shown(Protocol):
    """What shows a result."""

    def summary(self, tree: "xr.DataTree", /) -> "pd.DataFrame":
        """Return the rows of the table."""

    def table(self, tree: "xr.DataTree", /) -> "RenderableType":
        """Return the summary as a table for the terminal."""

    def plot(self, tree: "xr.DataTree", /) -> "dict[str, Figure]":
        """Return the figures by name."""


def shown_by(dims: Container[Hashable], two_modes: Shown, by_task: Shown) -> Shown:
    """Return what shows a result: of two modes, or of tasks, by the dims that it has."""
    return by_task if "task" in dims else two_modes


class Analysis(Shown, Protocol):
    """What the module of an analysis has.

    It may have more, which the functions below ask for: ``remarks(tree)``, what is to be known beside the
    answer, see `remarks_of`; ``extras(tree)``, files beside the usual ones, see `extras_of`.

    Attributes:
        Settings: its settings, from which its command line is made.
        MEANINGS: what each of its figures shows, by name.
        run: computes the result of settings. It takes ``progress`` where it shows a bar (a spinner shows that
            others run), and ``out`` where it needs the place of the output, see `taken_of`.
    """

    Settings: type["BaseSettings"]
    MEANINGS: Mapping[str, str]
    run: Callable[..., "xr.DataTree"]

    def answer(self, tree: "xr.DataTree", /) -> Sequence[str]:
        """Return the answer in sentences."""


def taken_of(analysis: Analysis, offered: Mapping[str, object]) -> dict[str, object]:
    """Return of some arguments those that the ``run`` of an analysis takes."""
    taken = inspect.signature(analysis.run).parameters
    return {name: value for name, value in offered.items() if name in taken}


def remarks_of(analysis: Analysis, tree: "xr.DataTree") -> list[str]:
    """Return what an analysis has to say beside its answer."""
    told: Callable[[xr.DataTree], list[str]] = getattr(analysis, "remarks", lambda tree: [])
    return told(tree)


def extras_of(analysis: Analysis, tree: "xr.DataTree") -> dict[str, str]:
    """Return what an analysis writes beside the usual files: texts by the names of their files."""
    told: Callable[[xr.DataTree], dict[str, str]] = getattr(analysis, "extras", lambda tree: {})
    return told(tree)


def frame_of(analysis: Analysis, tree: "xr.DataTree") -> "pd.DataFrame":
    """Return the summary of an analysis with its index as a column, if it has a name."""
    frame = analysis.summary(tree)
    return frame if frame.index.name is None else frame.reset_index()


class Command(NamedTuple):
    """What is known of a command before its analysis is imported.

    Attributes:
        name: its words, the last of which names the module.
        text: one line of help.
        told: whether it must be told where it writes.
        optional: whether it only prints unless told.
        resumes: what ``out`` is, where it is written part by part and goes on where it was.
        draws: whether it writes ``settings.toml`` and figures, beside what it computes.
    """

    name: str
    text: str
    told: bool = False
    optional: bool = False
    resumes: str | None = None
    draws: bool = True

    @property
    def word(self) -> str:
        """Return what it is called within its group."""
        return self.name.split()[-1]

    @property
    def module(self) -> str:
        """Return the name of the analysis within `analyses`."""
        return self.word.replace("-", "_")

    @property
    def analysis(self) -> Analysis:
        """Return the analysis, which is imported."""
        return cast(Analysis, getattr(analyses, self.module))
