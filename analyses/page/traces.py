"""What is drawn in a panel of a matplotlib figure, as traces of plotly."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib import colors
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.contour import ContourSet
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType

from analyses.page.looks import colors_of, name_of, named, numbers, on_scale, rgba, scale_of, stroke
from analyses.page.names import main_color, names_of_containers, owners_by_legend, owners_of
from analyses.page.panel import Panel, Plotly

_SYMBOLS = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "^": "triangle-up",
    "v": "triangle-down",
    "P": "cross",
    "*": "star",
    "X": "x",
    "<": "triangle-left",
    ">": "triangle-right",
    "x": "x-thin",
    "+": "cross-thin",
    ".": "circle",
    "|": "line-ns",
    "_": "line-ew",
}

# Lines that have no text under the pointer.
_LINES: Plotly = {"mode": "lines", "hoverinfo": "skip"}


def traces(panel: Panel) -> Iterator[Plotly]:
    """Yield the traces of a panel: what lies below first.

    What has no name of its own is switched off with the line whose colour it has: its band, its theory.
    """
    owners, legend = owners_of(panel.axes), owners_by_legend(panel.axes)
    names = names_of_containers(panel.axes)
    for artist, trace in _drawn(panel):
        color = main_color(artist)
        if id(artist) in names:
            trace |= name_of(names[id(artist)])
        if "name" not in trace and color in owners:
            trace["legendgroup"] = owners[color]
        elif "name" not in trace and color in legend:
            trace |= name_of(legend[color])
        yield trace


def _drawn(panel: Panel) -> Iterator[tuple[Artist, Plotly]]:
    """Yield every artist that becomes a trace, with it."""
    limits = _limits(panel.axes)
    for artist in sorted(panel.axes.get_children(), key=lambda one: one.get_zorder()):
        if not artist.get_visible():
            continue
        made: Iterator[Plotly] = iter(())
        if isinstance(artist, QuadMesh | AxesImage):
            made = iter([_heatmap(panel, artist)])
        elif isinstance(artist, ContourSet):
            made = _contours(panel, artist)
        elif isinstance(artist, LineCollection):
            made = iter([_segments(panel, artist)])
        elif isinstance(artist, PolyCollection):
            made = _areas(panel, artist)
        elif isinstance(artist, PathCollection):
            made = _points(panel, artist)
        elif isinstance(artist, Line2D) and artist.get_transform() == panel.axes.transData:
            made = _line(panel, artist, limits)
        for trace in made:
            yield artist, trace


def _line(
    panel: Panel, line: Line2D, limits: Callable[[ColorType, np.ndarray], list[str] | None]
) -> Iterator[Plotly]:
    """Yield the trace of a line or of its markers, with the interval around every point where it has one."""
    x, y = (np.asarray(values, float) for values in line.get_data())
    has_line = line.get_linestyle() not in ("None", "none", "", " ") and len(x) > 1
    has_markers = line.get_marker() not in ("None", "none", "", " ", None)
    if not len(x) or not (has_line or has_markers):
        return
    trace: Plotly = (
        panel.places()
        | named(line)
        | {
            "type": "scatter",
            "x": numbers(panel.x(x)),
            "y": numbers(panel.y(y)),
            "mode": "+".join(["lines"] * has_line + ["markers"] * has_markers),
        }
    )
    if has_line:
        trace["line"] = stroke(line)
        if str(line.get_drawstyle()).startswith("steps"):
            trace["line"]["shape"] = "hv"
    if has_markers:
        symbol = _SYMBOLS.get(str(line.get_marker()), "circle")
        size = float(line.get_markersize()) * (0.6 if line.get_marker() == "." else 1.3)
        edge = (
            {"width": 1.5, "color": rgba(line.get_markeredgecolor(), line)} if symbol.endswith("thin") else {}
        )
        trace["marker"] = {"symbol": symbol, "size": size, "color": rgba(line.get_markerfacecolor(), line)}
        trace["marker"] |= {"line": edge} if edge else {}
    found = limits(line.get_color(), x)
    name = trace.get("name")
    words = f"<b>{name}</b><br>" if name else ""
    # What is read is told as it is, where the axes are bent too.
    told = [f"{a:.4g}: {b:.4g}" for a, b in zip(x, y, strict=True)]
    trace["customdata"] = told if found is None else [a + b for a, b in zip(told, found, strict=True)]
    trace["hovertemplate"] = words + "%{customdata}<extra></extra>"
    yield trace


def _limits(axes: Axes) -> Callable[[ColorType, np.ndarray], list[str] | None]:
    """Return what tells the interval around the points of a line: the bands and strokes of its colour."""
    known: list[tuple[tuple[float, ...], dict[float, tuple[float, float]]]] = []
    for artist in axes.collections:
        if isinstance(artist, LineCollection):
            for color, segment in zip(_each(artist.get_edgecolor()), artist.get_segments(), strict=False):
                x, y = np.asarray(segment, float).reshape(-1, 2).T
                if len(x) == 2 and x[0] == x[1]:
                    known.append((color, {_key(x[0]): (min(y), max(y))}))
        elif isinstance(artist, PolyCollection) and not isinstance(artist, QuadMesh):
            edges: dict[float, tuple[float, float]] = {}
            for path in artist.get_paths():
                for x, y in np.asarray(path.vertices, float):
                    low, high = edges.get(_key(x), (np.inf, -np.inf))
                    edges[_key(x)] = (min(low, y), max(high, y))
            known.append((_each(artist.get_facecolor())[0], edges))

    def of_points(color: ColorType, x: np.ndarray) -> list[str] | None:
        own = tuple(colors.to_rgb(color))
        table: dict[float, tuple[float, float]] = {}
        for other, ends in known:
            if np.allclose(own, other[:3], atol=1e-3):
                table |= ends
        told = [table.get(_key(value)) for value in x]
        if not any(told):
            return None
        return [f" [{pair[0]:.3g}, {pair[1]:.3g}]" if pair else "" for pair in told]

    return of_points


def _each(given: object) -> list[tuple[float, ...]]:
    """Return the colours of a collection, one repeated for all its parts."""
    found = [tuple(colors.to_rgb(one)) for one in np.atleast_2d(np.asarray(given, float))]
    return found * 1000 if len(found) == 1 else found or [(0.0, 0.0, 0.0)]


def _key(value: float) -> float:
    """Return a number by which equal places are found again."""
    return float(f"{value:.9g}")


def _trace(panel: Panel, collection: Collection, x: object, y: object, **more: object) -> Plotly:
    """Return what a collection becomes, in the panel's axes and with its name."""
    return panel.places() | named(collection) | {"type": "scatter", "x": x, "y": y} | more


def _strokes(
    panel: Panel, collection: Collection, pieces: Sequence[object], color: ColorType, width: float
) -> Plotly:
    """Return polygons that are not filled as one trace, with a gap between them."""
    x: list[float | None] = []
    y: list[float | None] = []
    for piece in pieces:
        points = np.asarray(piece, float).reshape(-1, 2)
        x += [*numbers(panel.x(points[:, 0])), None]
        y += [*numbers(panel.y(points[:, 1])), None]
    return _trace(panel, collection, x, y, line={"color": rgba(color, collection), "width": width}, **_LINES)


def _segments(panel: Panel, collection: LineCollection) -> Plotly:
    """Return strokes as one trace."""
    width = float(np.atleast_1d(np.asarray(collection.get_linewidth(), float))[0])
    color = colors_of(collection.get_edgecolor())[0]
    return _strokes(panel, collection, collection.get_segments(), color, width)


def _areas(panel: Panel, collection: PolyCollection) -> Iterator[Plotly]:
    """Yield filled areas."""
    fill = {"fill": "toself", "fillcolor": rgba(colors_of(collection.get_facecolor())[0], collection)}
    for path in collection.get_paths():
        vertices = np.asarray(path.vertices, float)
        if len(vertices):
            x, y = (numbers(values) for values in (panel.x(vertices[:, 0]), panel.y(vertices[:, 1])))
            yield _trace(panel, collection, x, y, line={"width": 0}, **fill, **_LINES)


def _points(panel: Panel, collection: PathCollection) -> Iterator[Plotly]:
    """Yield scattered points, each of its own colour where they have values."""
    offsets = np.ma.filled(np.ma.asarray(collection.get_offsets(), float), np.nan)
    if not len(offsets):
        return
    sizes = np.sqrt(np.asarray(collection.get_sizes(), float))
    values = collection.get_array()
    marker: Plotly = {"size": float(sizes[0]) if len(sizes) == 1 else numbers(sizes)}
    if values is None:
        found = [rgba(color, collection) for color in colors_of(collection.get_facecolor())]
        marker["color"] = found[0] if len(found) == 1 else found
    else:
        shades = np.ma.filled(np.ma.asarray(values, float), np.nan)
        marker |= {"color": numbers(on_scale(collection.norm, shades))} | scale_of(collection)
        edge, width = (
            colors_of(collection.get_edgecolor())[0],
            np.max(collection.get_linewidth(), initial=0.0),
        )
        marker["line"] = {"color": rgba(edge, collection), "width": float(width)}
    x, y = (numbers(values) for values in (panel.x(offsets[:, 0]), panel.y(offsets[:, 1])))
    told = "%{x:.4g}: %{y:.4g}<extra></extra>"
    yield _trace(panel, collection, x, y, mode="markers", marker=marker, hovertemplate=told)


def _contours(panel: Panel, contours: ContourSet) -> Iterator[Plotly]:
    """Yield the lines of a contour plot."""
    for path, color in zip(contours.get_paths(), colors_of(contours.get_edgecolor()) * 1000, strict=False):
        if lines := path.to_polygons(closed_only=False):
            yield _strokes(panel, contours, lines, color, 1.5)


def _heatmap(panel: Panel, mesh: QuadMesh | AxesImage) -> Plotly:
    """Return a map of coloured cells."""
    values = np.ma.filled(np.ma.asarray(mesh.get_array(), float), np.nan)
    if isinstance(mesh, QuadMesh):
        corners = np.asarray(mesh.get_coordinates(), float)
        x, y = corners[0, :, 0], corners[:, 0, 1]
        values = values.reshape(len(y) - 1, len(x) - 1)
    else:
        left, right, bottom, top = mesh.get_extent()
        x = np.linspace(left, right, values.shape[1] + 1)
        y = np.linspace(*((top, bottom) if mesh.origin == "upper" else (bottom, top)), values.shape[0] + 1)
    shown = scale_of(mesh)
    shown["zmin"], shown["zmax"] = shown.pop("cmin"), shown.pop("cmax")
    told = [[f"{v:.3g}" for v in row] for row in values]
    values = on_scale(mesh.norm, values)
    return (
        panel.places()
        | shown
        | {
            "type": "heatmap",
            "x": numbers(panel.x(x)),
            "y": numbers(panel.y(y)),
            "z": [numbers(row) for row in values],
            "customdata": told,
            "hovertemplate": "%{x:.4g}, %{y:.4g}: %{customdata}<extra></extra>",
        }
    )
