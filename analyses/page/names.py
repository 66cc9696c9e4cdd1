"""By which name what is drawn is switched off: its own, or that of what has its colour."""

from typing import Any

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D

from analyses.page.looks import named


def owners_of(axes: Axes) -> dict[tuple[float, ...], str]:
    """Return the first name that each colour has in a figure."""
    found: dict[tuple[float, ...], str] = {}
    for one in axes.figure.axes:
        names = names_of_containers(one)
        for line in one.lines:
            name = names.get(id(line)) or named(line).get("legendgroup")
            if name:
                found.setdefault(main_color(line), name)
    return found


def owners_by_legend(axes: Axes) -> dict[tuple[float, ...], str]:
    """Return the name that a legend made by hand gives to each colour; greys tell of dashes, not of names."""
    legends = [*axes.figure.legends, *(one.get_legend() for one in axes.figure.axes)]
    found: dict[tuple[float, ...], str] = {}
    for legend in filter(None, legends):
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=False):
            color = main_color(handle)
            if color and np.ptp(color) > 0.02:
                found.setdefault(color, text.get_text())
    return found


def names_of_containers(axes: Axes) -> dict[int, str]:
    """Return the names of points with error bars, whose container has them, by the identity of the points."""
    found = {}
    for container in axes.containers:
        label = str(container.get_label())
        if isinstance(container, ErrorbarContainer) and container.lines[0] is not None and label[:1] != "_":
            found[id(container.lines[0])] = label
    return found


def main_color(artist: object) -> tuple[float, ...]:
    """Return red, green and blue of what is drawn, or nothing where it has several colours."""
    if isinstance(artist, Line2D):
        given: Any = artist.get_color()
    elif isinstance(artist, LineCollection):
        given = artist.get_edgecolor()
    else:
        given = artist.get_facecolor() if isinstance(artist, Collection) else ()
    found = {tuple(np.round(one[:3], 3)) for one in colors.to_rgba_array(given)} if np.size(given) else set()
    return found.pop() if len(found) == 1 else ()
