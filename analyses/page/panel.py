"""A panel of a figure, and its words, as plotly knows them."""

import html
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

#: A part of a plotly figure, as its JSON says it.
type Plotly = dict[str, Any]

#: Scales that plotly has too.
SCALES = ("linear", "log")


class Panel(NamedTuple):
    """An axes of the figure as plotly knows it.

    Attributes:
        axes: of matplotlib.
        suffix: of its axes' names in plotly: "" for the first, then "2", "3", …
    """

    axes: Axes
    suffix: str

    def x(self, values: ArrayLike) -> np.ndarray:
        """Return places along the x axis as plotly takes them: bent where it lacks the scale."""
        return _bent(self.axes.xaxis, values)

    def y(self, values: ArrayLike) -> np.ndarray:
        """Return places along the y axis."""
        return _bent(self.axes.yaxis, values)

    def places(self) -> Plotly:
        """Return what a trace says of the axes that it is drawn in."""
        return {"xaxis": f"x{self.suffix}", "yaxis": f"y{self.suffix}"}


def _bent(axis: Axis, values: ArrayLike) -> np.ndarray:
    found = np.asarray(values, float)
    return found if axis.get_scale() in SCALES else np.asarray(axis.get_transform().transform(found), float)


def panels_of(figure: Figure) -> list[Axes]:
    """Return the panels of a figure that are seen; a bar of colours is none."""
    return [
        axes
        for axes in figure.axes
        if axes.get_visible() and axes.axison and axes.get_label() != "<colorbar>"
    ]


def text_of(text: str) -> str:
    """Return a text as plotly shows it: names are no markup, lines are broken."""
    return html.escape(text, quote=False).replace("\n", "<br>")
