"""The commands, each an analysis: a module of `analyses` whose name is the command's."""

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

    It may have more: ``remarks(tree)``, what is to be known beside the answer, see `remarks_of`, and
    ``extras(tree)``, files beside the usual ones, see `extras_of`.

    Attributes:
        Settings: its settings, from which its command line is made.
        MEANINGS: what each of its figures shows, by name.
        run: computes the result of settings. It takes ``progress`` where it shows a bar (a spinner shows that
            others run), and ``out`` where it needs the place of the output.
    """

    Settings: type["BaseSettings"]
    MEANINGS: Mapping[str, str]
    run: Callable[..., "xr.DataTree"]

    def answer(self, tree: "xr.DataTree", /) -> Sequence[str]:
        """Return the answer in sentences."""


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


COMMANDS = (
    Command("compare", "Compare post-training objectives: what is left of the old task, and what has moved."),
    Command(
        "sequence",
        "Train a sequence of tasks: what does each objective forget of every earlier one, and learn?",
    ),
    Command(
        "mass-forgetting",
        "How fast does SFT empty the old mode, and does the weight tell the truth? Exact, with asymptotes.",
    ),
    Command(
        "drift",
        "How does the drift of on-policy learning fall with separation? A posterior of its decay rate.",
    ),
    Command(
        "geometry",
        "How fast does on-policy learning return to its target? Measured against the Fisher information.",
    ),
    Command("replay", "What does replay change: the optimum of forward KL, and the batches of reverse KL?"),
    Command(
        "near-on-policy",
        "At which settings do SDFT, TTT-Discover and OAPL forget? Maps: exact, by theory, and trained.",
    ),
    Command(
        "plan",
        "Plan a training: what each objective will forget, and which setting keeps enough. No simulation.",
        optional=True,
    ),
    Command(
        "sweep",
        "Train over a grid of settings, in chunks that an interruption cannot lose; run again to go on.",
        resumes="Store to write, ends in .zarr; one begun before is resumed.",
        draws=False,
        told=True,
    ),
    Command(
        "phase", "Where does which objective forget? A map over separation, batch size, and replay or anchor."
    ),
    Command(
        "reproduce chen2025",
        "Reproduce Chen et al. 2025 (arXiv:2510.18874): what retains, the objective or a factor of 0.005?",
    ),
    Command(
        "measure",
        "Measure a real run: old weight and drift of its checkpoints, from samples, with error bars.",
        told=True,
    ),
    Command(
        "evals",
        "Measure forgetting from evaluation logs: graded answers of a base and of what was trained from it.",
        told=True,
    ),
    Command(
        "measure-scores",
        "Measure a real run by scores: its old weight, exactly, from two log-likelihoods a sample. No drift.",
        told=True,
    ),
    Command(
        "plan-evals",
        "Plan an evaluation: how many items, answers and training seeds show a loss, or measure it so well.",
        optional=True,
    ),
    Command(
        "plan-sequence",
        "Plan a sequence of tasks: which settings keep enough of every earlier task. No simulation.",
        optional=True,
    ),
    Command("compare-runs", "Compare measured runs: which kept more old mass, and which drifted less?"),
    Command(
        "digits",
        "Post-train small transformers on real digits by each objective, measure them, and test the theory.",
        resumes="Folder of the run; an interrupted one goes on.",
    ),
    Command(
        "digits-sequence",
        "Teach small transformers one group of digits after the other: is each lost as a mixture says?",
        resumes="Folder of the run; an interrupted one goes on.",
    ),
)
