"""One HTML file from results: the answer in words, figures, table and settings, all that it needs inside."""

import base64
import gzip
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import NamedTuple

import jinja2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from analyses.page.cells import Table
from analyses.page.interactive import of_figure, series_of
from analyses.page.panel import Plotly
from inference.intervals import interval_name

# Axes along which figures can be read off at one place, and places at most.
_READ_ALONG, _MOST_PLACES = ("step", "checkpoint"), 400

# Of the page: beyond this the interactive form of figures is left out, and the drawings stay [bytes].
_MOST_BYTES = 12_000_000


class View(NamedTuple):
    """A figure of one run.

    Attributes:
        svg: the drawing, for print and for readers without scripts, in base64.
        interactive: data and layout for plotly, or None.
    """

    svg: str
    interactive: Plotly | None


class Run(NamedTuple):
    """What the page shows of one result.

    Attributes:
        name: of the run.
        question: that its command answers.
        answer: the answer in sentences.
        remarks: what to know before quoting the numbers.
        views: figures by name.
        meanings: what each figure shows, by name.
        table: the summary.
        command: that makes the same numbers again.
        settings: contents of the file of settings.
        versions: of the packages that made the numbers.
    """

    name: str
    question: str
    answer: Sequence[str]
    remarks: Sequence[str]
    views: Mapping[str, View]
    meanings: Mapping[str, str]
    table: Table
    command: str
    settings: str
    versions: str


def view_of(figure: Figure, drawing: bytes | None = None) -> View:
    """Return what a page shows of a figure, which is not closed.

    Args:
        figure: drawn by an analysis.
        drawing: the SVG that it was saved as, or None where it was not.
    """
    if drawing is None:
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
        drawing = stream.getvalue()
    return View(base64.b64encode(drawing).decode(), of_figure(figure))


def page_of(runs: Sequence[Run], title: str) -> str:
    """Return the page of one or more runs, whose figures of the same name stand side by side."""
    told = [name for run in runs for name in run.meanings] + [name for run in runs for name in run.views]
    names = [name for name in dict.fromkeys(told) if any(name in run.views for run in runs)]
    figures, known, series = [], {}, []
    for name in names:
        views = []
        for place, run in enumerate(runs):
            if name not in run.views:
                continue
            view, key = run.views[name], f"{place}-{name}"
            views.append({"key": key, "run": run.name, "svg": view.svg})
            if view.interactive is not None:
                known[key] = view.interactive | {"stepped": _stepped(view.interactive)}
                series += series_of(view.interactive)
        meaning = next(run.meanings.get(name, "") for run in runs if name in run.views)
        figures.append({"heading": _words(name), "meaning": meaning, "views": views})
    steps = _steps(known)
    # A name that stands in one figure alone is no subject of the whole page.
    common = [name for name in dict.fromkeys(series) if series.count(name) > 1]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string(_part("page.html.j2")).render(
        title=title,
        question=runs[0].question if len({run.question for run in runs}) == 1 else "Several results.",
        runs=runs,
        figures=figures,
        series=common,
        steps=steps,
        intervals=f"Brackets are {interval_name()}s.",
        version=version("massdrift"),
        css=jinja2.utils.markupsafe.Markup(_part("page.css")),
        js=jinja2.utils.markupsafe.Markup(_part("page.js")),
        views=_script(known) if known and len(json.dumps(known)) < _MOST_BYTES else "",
        step_values=_script(steps["values"] if steps else None),
        plotly=_plotly() if known else "",
    )
    return text


def _words(name: str) -> str:
    """Return the heading of a figure from its name."""
    words = " ".join("KL" if word == "kl" else word for word in name.split("_"))
    return words[:1].upper() + words[1:]


@cache
def _part(name: str) -> str:
    return files("analyses.page").joinpath(name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """Return plotly's library, packed so that a page stays small."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _script(value: object) -> jinja2.utils.markupsafe.Markup:
    """Return JSON that may stand in a script of a page, whatever names hold."""
    text = (
        json.dumps(value, allow_nan=False, separators=(",", ":"))
        .replace("</", "<\\/")
        .replace("<!", "<\\u0021")
    )
    return jinja2.utils.markupsafe.Markup(text)


def _stepped(interactive: Plotly) -> list[str]:
    """Return the suffixes of the panels that can be read off at a step or checkpoint."""
    layout = interactive["layout"]
    axes = {key.removeprefix("xaxis"): layout[key] for key in layout if key.startswith("xaxis")}
    along = {
        s for s, axis in axes.items() if set(re.findall(r"\w+", axis["title"]["text"])) & set(_READ_ALONG)
    }
    # Panels above one that is labelled have its range, and no label.
    ranges = [axes[suffix]["range"] for suffix in along]
    unlabelled = {s for s, axis in axes.items() if not axis["title"]["text"] and axis["range"] in ranges}
    return sorted(s for s in along | unlabelled if "ticktext" not in axes[s])


def _steps(views: Mapping[str, Plotly]) -> Plotly | None:
    """Return the places at which figures can be read off, and what they are called, or None."""
    places: set[float] = set()
    label = ""
    for view in views.values():
        for trace in view["data"]:
            suffix = trace.get("xaxis", "x")[1:]
            if "name" in trace and suffix in view["stepped"] and trace["type"] == "scatter":
                places.update(x for x in trace["x"] if x is not None)
                label = label or view["layout"][f"xaxis{suffix}"]["title"]["text"]
    if len(places) < 2:
        return None
    found = np.array(sorted(places))
    kept = np.unique(np.linspace(0, len(found) - 1, min(_MOST_PLACES, len(found))).round().astype(int))
    return {"label": html.unescape(label) or _READ_ALONG[0], "values": found[kept].tolist()}


def close(figures: Mapping[str, Figure]) -> None:
    """Close figures that were drawn for a page alone."""
    for figure in figures.values():
        plt.close(figure)
