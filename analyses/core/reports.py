"""The report of an output folder: what is on its page, and where it is written."""

import json
from collections.abc import Mapping
from pathlib import Path

import xarray as xr

from analyses.core import outputs, settings
from analyses.core.analysis import Command, frame_of, remarks_of
from analyses.page.cells import table_of
from analyses.page.page import Run, View, page_of
from inference.storage import files

#: The attribute of a result that names the command that made it.
COMMAND = "command"


def run_in(folder: Path, tree: xr.DataTree, command: Command, views: Mapping[str, View], *, name: str) -> Run:
    """Return what a page shows of the result in a folder.

    Args:
        folder: of the output; its settings are read.
        tree: the result.
        command: that made it.
        views: of its figures, by name.
        name: of the run.
    """
    file, analysis = folder / settings.FILE, command.analysis
    answer = list(analysis.answer(tree))
    return Run(
        name=name,
        question=command.text,
        answer=answer,
        remarks=[words for words in remarks_of(analysis, tree) if words not in answer],
        views=views,
        meanings=analysis.MEANINGS,
        table=table_of(frame_of(analysis, tree)),
        command=f"massdrift {command.name} --config {settings.FILE} --out again",
        settings=file.read_text() if file.exists() else "",
        versions=_versions(tree),
    )


def _versions(tree: xr.DataTree) -> str:
    """Return the versions of the packages that made a result, as it holds them: a package a line."""
    stored = json.loads(str(tree.attrs.get("versions", "{}")))
    return "\n".join(f"{package}: {of}" for package, of in stored.items()) or "not stored with the results"


def write(run: Run, folder: Path) -> None:
    """Write the report of one run into its folder."""
    files.write(folder / outputs.REPORT, page_of([run], f"massdrift: {run.name}").encode())
