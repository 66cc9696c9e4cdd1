"""An interactive figure from a matplotlib one: the same lines, bands, maps and labels, for plotly.

Each analysis draws its figures once. What a reader can hover over and switch off is made of the artists of
these figures, so that both always show the same numbers. Text and axes carry no colours of their own: the
page gives them those of its light or dark scheme.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedFormatter, FuncFormatter
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike

from analyses.page.looks import rgba
from analyses.page.panel import SCALES, Panel, Plotly, panels_of, text_of
from analyses.page.shapes import shapes
from analyses.page.traces import traces

# Of a figure on the page [px]: for an inch of the printed one, and at least.
_PIXELS_AN_INCH, _LEAST_HEIGHT = 88, 320

# Of text on the page, for a point of the printed one, at most; and how wide a figure is there [px].
_PIXELS_A_POINT, _WIDTH = 1.2, 1100

# Whether an axis has the labels of its ticks, by its letter.
_LABELS = {"x": "labelbottom", "y": "labelleft"}


def of_figure(figure: Figure) -> Plotly | None:
    """Return data and layout of a plotly figure, or None of pictures and of other projections.

    Args:
        figure: drawn by an analysis, and rendered since: its ticks and texts are where they will stay.
    """
    drawn = panels_of(figure)
    if not drawn or any(axes.name != "rectilinear" for axes in drawn):
        return None
    data: list[Plotly] = []
    layout: Plotly = {"shapes": [], "annotations": [], "showlegend": True, "hovermode": "closest"}
    named: set[str] = set()
    for number, axes in enumerate(drawn):
        panel = Panel(axes, "" if number == 0 else str(number + 1))
        layout |= _axes_of(panel, drawn)
        layout["annotations"] += [*_titles(panel), *_texts(panel)]
        for trace in traces(panel):
            group = str(trace.get("legendgroup"))
            # A name stands in the legend once, whatever panels it is drawn in.
            trace["showlegend"] = "name" in trace and group not in named
            named.update([group] if trace["showlegend"] else [])
            data.append(trace)
        layout["shapes"] += list(shapes(panel))
    layout["annotations"] += _label_of_all(figure)
    width, height = figure.get_size_inches()
    title = figure.get_suptitle()
    lines = [len(title.splitlines()), max(_title_lines(axes) for axes in drawn)]
    layout |= {
        "height": max(_LEAST_HEIGHT, round(height * _PIXELS_AN_INCH)),
        "title": {
            "text": text_of(title),
            "font": {"size": 14},
            "x": 0.5,
            "y": 1.0,
            "yanchor": "top",
            "pad": {"t": 24},
        },
        "margin": {
            "l": 75 if figure.get_supylabel() else 10,
            "r": 10,
            "t": 30 + 19 * lines[0] + 16 * lines[1],
            "b": 70,
        },
        "meta": {"width": round(width * _PIXELS_AN_INCH)},
    }
    return {"data": data, "layout": layout}


def series_of(interactive: Plotly) -> list[str]:
    """Return the names that the legend of an interactive figure shows, in their order."""
    return list(dict.fromkeys(t["legendgroup"] for t in interactive["data"] if t["showlegend"]))


def _axes_of(panel: Panel, drawn: Sequence[Axes]) -> Plotly:
    """Return the two axes of a panel: where they stand, their scale, range, label and named ticks."""
    axes, box = panel.axes, panel.axes.get_position()
    # What matplotlib leaves for labels, plotly finds by itself: panels share the whole width and height.
    edges = [one.get_position() for one in drawn]
    left, bottom = min(e.x0 for e in edges), min(e.y0 for e in edges)
    width, height = max(e.x1 for e in edges) - left, max(e.y1 for e in edges) - bottom
    found: Plotly = {}
    for letter, axis, low, high in (
        ("x", axes.xaxis, (box.x0 - left) / width, (box.x1 - left) / width),
        ("y", axes.yaxis, (box.y0 - bottom) / height, (box.y1 - bottom) / height),
    ):
        limits = panel.x(axes.get_xlim()) if letter == "x" else panel.y(axes.get_ylim())
        is_log = axis.get_scale() == "log"
        label = axis.get_label_text() or (_shared_label(axes, edges) if letter == "x" else "")
        one: Plotly = {
            # Rounded: the last digits of a layout differ from process to process.
            "domain": [round(float(np.clip(edge, 0.0, 1.0)), 6) for edge in (low, high)],
            "anchor": f"{'y' if letter == 'x' else 'x'}{panel.suffix}",
            "type": "log" if is_log else "linear",
            "range": [float(v) for v in (np.log10(limits) if is_log else limits)],
            "title": {
                "text": text_of(label),
                "standoff": 6,
            },
            "automargin": True,
            "zeroline": False,
            "showticklabels": bool(axis.get_tick_params()[_LABELS[letter]]),
        }
        if is_log:
            one |= {"dtick": 1, "exponentformat": "power"} if np.ptp(np.log10(limits)) > 2.0 else {}
        one |= _named_ticks(axis, panel.x if letter == "x" else panel.y)
        found[f"{letter}axis{panel.suffix}"] = one
    return found


def _shared_label(axes: Axes, edges: Sequence[Bbox]) -> str:
    """Return the label below all panels for those that are lowest, nothing for others."""
    figure, box = axes.figure.get_figure(root=True), axes.get_position()
    lowest = all(one.y0 >= box.y0 - 0.02 or abs(one.x0 - box.x0) > 0.02 for one in edges)
    return figure.get_supxlabel() if lowest else ""


def _label_of_all(figure: Figure) -> list[Plotly]:
    """Return the label beside all panels, if there is one."""
    if not figure.get_supylabel():
        return []
    place = {"xref": "paper", "yref": "paper", "x": 0.0, "y": 0.5, "xshift": -62, "textangle": -90}
    return [place | {"text": text_of(figure.get_supylabel()), "showarrow": False, "font": {"size": 13}}]


def _named_ticks(axis: Axis, bent: Callable[[ArrayLike], np.ndarray]) -> Plotly:
    """Return the ticks of an axis that have names instead of numbers, or a scale that plotly lacks."""
    formatter = axis.get_major_formatter()
    if axis.get_scale() in SCALES and not isinstance(formatter, FixedFormatter | FuncFormatter):
        return {}
    places = bent(axis.get_majorticklocs()).tolist()
    words = [str(label.get_text()) for label in axis.get_majorticklabels()]
    return {"tickvals": places, "ticktext": [text_of(word) for word in words[: len(places)]]}


def _title_lines(axes: Axes) -> int:
    """Return how many lines the titles of a panel have."""
    return max(len(axes.get_title(loc=place).splitlines()) for place in ("left", "center", "right"))


def _titles(panel: Panel) -> Iterator[Plotly]:
    """Yield the title of a panel, wherever it stands above it."""
    for place, anchor in (("left", 0.0), ("center", 0.5), ("right", 1.0)):
        text = panel.axes.get_title(loc=place)  # type: ignore[arg-type]
        if text:
            yield {
                "text": text_of(text),
                "xref": f"x{panel.suffix} domain",
                "yref": f"y{panel.suffix} domain",
                "x": anchor,
                "y": 1.0,
                "xanchor": place,
                "yanchor": "bottom",
                "align": place,
                "showarrow": False,
                "font": {"size": 12},
            }


def _texts(panel: Panel) -> Iterator[Plotly]:
    """Yield what is written in a panel."""
    width = panel.axes.figure.get_figure(root=True).get_figwidth()
    size = min(_PIXELS_A_POINT, _WIDTH / (72.0 * width))
    on_map = any(isinstance(one, QuadMesh | AxesImage) for one in panel.axes.get_children())
    for text in panel.axes.texts:
        if not text.get_visible() or not text.get_text().strip():
            continue
        x, y = (float(value) for value in text.get_position())
        if text.get_transform() == panel.axes.transAxes:
            at: Plotly = {"xref": f"x{panel.suffix} domain", "yref": f"y{panel.suffix} domain"}
        else:
            at = {"xref": f"x{panel.suffix}", "yref": f"y{panel.suffix}"}
            x, y = float(panel.x(x)), float(panel.y(y))
            x = float(np.log10(x)) if panel.axes.get_xscale() == "log" else x
            y = float(np.log10(y)) if panel.axes.get_yscale() == "log" else y
        # On a map a text has the colour that can be read there; elsewhere that of the page.
        own = {"color": rgba(text.get_color(), text)} if on_map else {}
        across, upright = text.get_horizontalalignment(), text.get_verticalalignment()
        yield at | {
            "x": x,
            "y": y,
            "text": text_of(text.get_text()),
            "xanchor": across if across in ("left", "right") else "center",
            "yanchor": upright if upright in ("top", "bottom") else "middle",
            "showarrow": False,
            "font": {"size": round(size * float(text.get_fontsize()), 1)} | own,
        }
