"""The report of earlier outputs: one page, runs side by side."""

from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from analyses.core import figures, outputs, reports
from analyses.core.analysis import Command
from analyses.page.page import Run, close, page_of, view_of
from analyses.registry import COMMANDS
from inference import results
from inference.storage import files
from mixture_models.validation import InputError


def report(folders: Sequence[str], out: Path | None = None, *, overwrite: bool = False) -> Path:
    """Write the report of some outputs, and return its place.

    Args:
        folders: of outputs, as FOLDER or NAME=FOLDER.
        out: the file to write; None for ``report.html`` in the folder of a single output, which is written
            anew, and ``runs/report.html`` for several.
        overwrite: whether an existing file ``out`` may be replaced.

    Raises:
        InputError: a folder that holds no output of a command that draws, names that repeat, or a place that
            cannot be written.
    """
    if not folders:
        raise InputError("a report needs at least one output folder; got none")
    named = [outputs.named(given) for given in folders]
    names = [name for name, _ in named]
    if len(set(names)) < len(names):
        raise InputError(
            f"outputs must have different names, as NAME=FOLDER gives them; got {', '.join(names)}"
        )
    within = len(named) == 1 and out is None
    place = out or (named[0][1] / outputs.REPORT if within else Path("runs", outputs.REPORT))
    if place.suffix != ".html":
        raise InputError(f"a report is an .html file; got {place}")
    if place.exists() and not (within or overwrite):
        raise InputError(f"{place} exists already; give another place, or --overwrite to replace it")
    for _, folder in named:
        if not (folder / outputs.MARKER).exists():
            raise InputError(f"{folder} must be an output of massdrift; there is no {outputs.MARKER} in it")
    with files.parents_of(files.place(place)):
        runs = [_run(name, folder) for name, folder in named]
        files.write(place, page_of(runs, "massdrift: " + " beside ".join(names)).encode())
    return place


def _run(name: str, folder: Path) -> Run:
    """Return what the page shows of an output, its figures drawn anew."""
    tree = results.open(folder / outputs.MARKER)
    command = _command_of(folder, tree)
    drawn = command.analysis.plot(tree)
    with figures.saving():
        views = {key: view_of(figure) for key, figure in drawn.items()}
    close(drawn)
    return reports.run_in(folder, tree, command, views, name=name)


def _command_of(folder: Path, tree: xr.DataTree) -> Command:
    """Return the command that made a result, or refuse one that no command made that draws."""
    known = {command.name: command for command in COMMANDS if command.draws}
    command = known.get(str(tree.attrs.get(reports.COMMAND)))
    if command is None:
        raise InputError(
            f"{folder} must be an output of this version's commands; its results do not name one that draws"
        )
    return command
