"""Lines and areas that cross a panel of a matplotlib figure, bars and frames, as shapes of plotly."""

from collections.abc import Iterator

import numpy as np
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle

from analyses.page.looks import rgba, stroke
from analyses.page.panel import Panel, Plotly


def shapes(panel: Panel) -> Iterator[Plotly]:
    """Yield lines and areas that cross a panel from one edge to the other, and bars."""
    axes = panel.axes
    across_x, across_y = axes.get_xaxis_transform(), axes.get_yaxis_transform()
    # What lies below a map is not seen.
    layer = "above" if any(isinstance(one, QuadMesh) for one in axes.collections) else "below"
    for line in axes.lines:
        if not line.get_visible() or line.get_transform() == axes.transData:
            continue
        x, y = (np.asarray(values, float) for values in line.get_data())
        if len(x) != 2:
            continue
        upright = line.get_transform() == across_x
        yield {
            "type": "line",
            "xref": f"x{panel.suffix}" + ("" if upright else " domain"),
            "yref": f"y{panel.suffix}" + (" domain" if upright else ""),
            **_corners(panel, x, y, upright=upright, level=not upright),
            "line": stroke(line),
            "layer": layer,
        }
    for patch in axes.patches:
        if not isinstance(patch, Rectangle) or not patch.get_visible():
            continue
        corners = patch.get_bbox()
        ends = patch.get_data_transform()
        upright, level = ends == across_x, ends == across_y
        yield {
            "type": "rect",
            "xref": f"x{panel.suffix}" + (" domain" if level else ""),
            "yref": f"y{panel.suffix}" + (" domain" if upright else ""),
            **_corners(
                panel,
                np.array([corners.x0, corners.x1]),
                np.array([corners.y0, corners.y1]),
                upright=upright,
                level=level,
            ),
            "fillcolor": rgba(patch.get_facecolor(), patch) if patch.get_fill() else "rgba(0,0,0,0)",
            "line": _edge(patch),
            "layer": "below" if patch.get_fill() else "above",
        }


def _edge(patch: Rectangle) -> Plotly:
    """Return the line around a rectangle that is a frame, none around an area."""
    if patch.get_fill():
        return {"width": 0}
    return {"width": float(patch.get_linewidth()), "color": rgba(patch.get_edgecolor(), patch)}


def _corners(panel: Panel, x: np.ndarray, y: np.ndarray, *, upright: bool, level: bool) -> Plotly:
    """Return the ends of a shape; along an axis that it crosses from edge to edge they are shares of it."""
    x, y = (x if level else panel.x(x)), (y if upright else panel.y(y))
    return {"x0": float(x[0]), "x1": float(x[1]), "y0": float(y[0]), "y1": float(y[1])}
