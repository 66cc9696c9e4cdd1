"""What is drawn in a panel of a matplotlib figure, as traces and shapes of plotly."""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.container import ErrorbarContainer
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
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

#: Scales that plotly has too.
SCALES = ("linear", "log")

# A formula of matplotlib, and a power in it.
_FORMULA = re.compile(r"\$(?:\\mathdefault\{(?=[^$]*\}\$))?([^$]*?)\}?\$")
_POWER = re.compile(r"\^\{?([-/\d.]+)\}?")

type _Dict = dict[str, Any]


class Panel(NamedTuple):
    """An axes of the figure as plotly knows it.

    Attributes:
        axes: of matplotlib.
        suffix: of its axes' names in plotly: "" for the first, then "2", "3", …
    """

    axes: Axes
    suffix: str

    def x(self, values: Any) -> np.ndarray:
        """Return places along the x axis as plotly takes them: bent where it lacks the scale."""
        return _bent(self.axes.xaxis, values)

    def y(self, values: Any) -> np.ndarray:
        """Return places along the y axis."""
        return _bent(self.axes.yaxis, values)

    def places(self) -> _Dict:
        """Return what a trace says of the axes that it is drawn in."""
        return {"xaxis": f"x{self.suffix}", "yaxis": f"y{self.suffix}"}


def _bent(axis: Any, values: Any) -> np.ndarray:
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
    """Return a text as plotly shows it: names are no markup, lines are broken, powers are raised."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", "<br>")
    return _FORMULA.sub(lambda found: _POWER.sub(r"<sup>\1</sup>", found[1]), escaped)


def traces(panel: Panel) -> Iterator[_Dict]:
    """Yield the traces of a panel: what lies below first.

    What has no name of its own is switched off with the line whose colour it has: its band, its theory.
    """
    owners, legend = _owners(panel.axes), _owners_by_legend(panel.axes)
    names = _names_of_containers(panel.axes)
    for artist, trace in _drawn(panel):
        color = _main_color(artist)
        if id(artist) in names:
            trace |= _name(names[id(artist)])
        if "name" not in trace and color in owners:
            trace["legendgroup"] = owners[color]
        elif "name" not in trace and color in legend:
            trace |= _name(legend[color])
        yield trace


def _owners(axes: Axes) -> dict[tuple[float, ...], str]:
    """Return the first name that each colour has in a figure."""
    found: dict[tuple[float, ...], str] = {}
    for one in axes.figure.axes:
        names = _names_of_containers(one)
        for line in one.lines:
            name = names.get(id(line)) or _named(line).get("legendgroup")
            if name:
                found.setdefault(_main_color(line), name)
    return found


def _owners_by_legend(axes: Axes) -> dict[tuple[float, ...], str]:
    """Return the name that a legend made by hand gives to each colour; greys tell of dashes, not of names."""
    legends = [*axes.figure.legends, *(one.get_legend() for one in axes.figure.axes)]
    found: dict[tuple[float, ...], str] = {}
    for legend in filter(None, legends):
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=False):
            color = _main_color(handle)
            if color and np.ptp(color) > 0.02:
                found.setdefault(color, text.get_text())
    return found


def _names_of_containers(axes: Axes) -> dict[int, str]:
    """Return the names of points with error bars, whose container has them, by the identity of the points."""
    found = {}
    for container in axes.containers:
        label = str(container.get_label())
        if isinstance(container, ErrorbarContainer) and container.lines[0] is not None and label[:1] != "_":
            found[id(container.lines[0])] = label
    return found


def _main_color(artist: Any) -> tuple[float, ...]:
    """Return red, green and blue of what is drawn, or nothing where it has several colours."""
    if isinstance(artist, Line2D):
        given: Any = artist.get_color()
    elif isinstance(artist, LineCollection):
        given = artist.get_edgecolor()
    else:
        given = artist.get_facecolor() if isinstance(artist, Collection) else ()
    found = {tuple(np.round(one[:3], 3)) for one in colors.to_rgba_array(given)} if np.size(given) else set()
    return found.pop() if len(found) == 1 else ()


def _drawn(panel: Panel) -> Iterator[tuple[Any, _Dict]]:
    """Yield every artist that becomes a trace, with it."""
    limits = _limits(panel.axes)
    for artist in sorted(panel.axes.get_children(), key=lambda one: one.get_zorder()):
        if not artist.get_visible():
            continue
        made: Iterator[_Dict] = iter(())
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


def shapes(panel: Panel) -> Iterator[_Dict]:
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
            "line": _stroke(line),
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


def _edge(patch: Rectangle) -> _Dict:
    """Return the line around a rectangle that is a frame, none around an area."""
    if patch.get_fill():
        return {"width": 0}
    return {"width": float(patch.get_linewidth()), "color": rgba(patch.get_edgecolor(), patch)}


def _corners(panel: Panel, x: np.ndarray, y: np.ndarray, *, upright: bool, level: bool) -> _Dict:
    """Return the ends of a shape; along an axis that it crosses from edge to edge they are shares of it."""
    x, y = (x if level else panel.x(x)), (y if upright else panel.y(y))
    return {"x0": float(x[0]), "x1": float(x[1]), "y0": float(y[0]), "y1": float(y[1])}


def _line(
    panel: Panel, line: Line2D, limits: Callable[[Any, np.ndarray], list[str] | None]
) -> Iterator[_Dict]:
    """Yield the trace of a line or of its markers, with the interval around every point where it has one."""
    x, y = (np.asarray(values, float) for values in line.get_data())
    has_line = line.get_linestyle() not in ("None", "none", "", " ") and len(x) > 1
    has_markers = line.get_marker() not in ("None", "none", "", " ", None)
    if not len(x) or not (has_line or has_markers):
        return
    trace: _Dict = (
        panel.places()
        | _named(line)
        | {
            "type": "scatter",
            "x": _numbers(panel.x(x)),
            "y": _numbers(panel.y(y)),
            "mode": "+".join(["lines"] * has_line + ["markers"] * has_markers),
        }
    )
    if has_line:
        trace["line"] = _stroke(line)
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


def _limits(axes: Axes) -> Callable[[Any, np.ndarray], list[str] | None]:
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

    def of_points(color: Any, x: np.ndarray) -> list[str] | None:
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


def _each(given: Any) -> list[tuple[float, ...]]:
    """Return the colours of a collection, one repeated for all its parts."""
    found = [tuple(colors.to_rgb(one)) for one in np.atleast_2d(np.asarray(given, float))]
    return found * 1000 if len(found) == 1 else found or [(0.0, 0.0, 0.0)]


def _key(value: float) -> float:
    """Return a number by which equal places are found again."""
    return float(f"{value:.9g}")


def _segments(panel: Panel, collection: LineCollection) -> _Dict:
    """Return strokes as one trace, with a gap between them."""
    x: list[float | None] = []
    y: list[float | None] = []
    for segment in collection.get_segments():
        points = np.asarray(segment, float).reshape(-1, 2)
        x += [*_numbers(panel.x(points[:, 0])), None]
        y += [*_numbers(panel.y(points[:, 1])), None]
    width = float(np.atleast_1d(np.asarray(collection.get_linewidth(), float))[0])
    color = _colors_of(collection.get_edgecolor())[0]
    return (
        panel.places()
        | _named(collection)
        | {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": y,
            "line": {"color": rgba(color, collection), "width": width},
            "hoverinfo": "skip",
        }
    )


def _areas(panel: Panel, collection: PolyCollection) -> Iterator[_Dict]:
    """Yield filled areas."""
    fill = _colors_of(collection.get_facecolor())
    for path in collection.get_paths():
        vertices = np.asarray(path.vertices, float)
        if len(vertices):
            yield (
                panel.places()
                | _named(collection)
                | {
                    "type": "scatter",
                    "mode": "lines",
                    "x": _numbers(panel.x(vertices[:, 0])),
                    "y": _numbers(panel.y(vertices[:, 1])),
                    "fill": "toself",
                    "fillcolor": rgba(fill[0], collection),
                    "line": {"width": 0},
                    "hoverinfo": "skip",
                }
            )


def _points(panel: Panel, collection: PathCollection) -> Iterator[_Dict]:
    """Yield scattered points, each of its own colour where they have values."""
    offsets = np.ma.filled(np.ma.asarray(collection.get_offsets(), float), np.nan)
    if not len(offsets):
        return
    sizes = np.sqrt(np.asarray(collection.get_sizes(), float))
    values = collection.get_array()
    marker: _Dict = {"size": float(sizes[0]) if len(sizes) == 1 else _numbers(sizes)}
    if values is None:
        found = [rgba(color, collection) for color in _colors_of(collection.get_facecolor())]
        marker["color"] = found[0] if len(found) == 1 else found
    else:
        shades = np.ma.filled(np.ma.asarray(values, float), np.nan)
        marker |= {"color": _numbers(_on_scale(collection.norm, shades))} | _scale_of(collection)
        edge, width = (
            _colors_of(collection.get_edgecolor())[0],
            np.max(collection.get_linewidth(), initial=0.0),
        )
        marker["line"] = {"color": rgba(edge, collection), "width": float(width)}
    yield (
        panel.places()
        | _named(collection)
        | {
            "type": "scatter",
            "mode": "markers",
            "x": _numbers(panel.x(offsets[:, 0])),
            "y": _numbers(panel.y(offsets[:, 1])),
            "marker": marker,
            "hovertemplate": "%{x:.4g}: %{y:.4g}<extra></extra>",
        }
    )


def _contours(panel: Panel, contours: ContourSet) -> Iterator[_Dict]:
    """Yield the lines of a contour plot."""
    for path, color in zip(contours.get_paths(), _colors_of(contours.get_edgecolor()) * 1000, strict=False):
        x: list[float | None] = []
        y: list[float | None] = []
        for polygon in path.to_polygons(closed_only=False):
            points = np.asarray(polygon, float)
            x += [*_numbers(panel.x(points[:, 0])), None]
            y += [*_numbers(panel.y(points[:, 1])), None]
        if x:
            yield (
                panel.places()
                | _named(contours)
                | {
                    "type": "scatter",
                    "mode": "lines",
                    "x": x,
                    "y": y,
                    "line": {"color": rgba(color, contours), "width": 1.5},
                    "hoverinfo": "skip",
                }
            )


def _heatmap(panel: Panel, mesh: QuadMesh | AxesImage) -> _Dict:
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
    shown = _scale_of(mesh)
    shown["zmin"], shown["zmax"] = shown.pop("cmin"), shown.pop("cmax")
    told = [[f"{v:.3g}" for v in row] for row in values]
    values = _on_scale(mesh.norm, values)
    return (
        panel.places()
        | shown
        | {
            "type": "heatmap",
            "x": _numbers(panel.x(x)),
            "y": _numbers(panel.y(y)),
            "z": [_numbers(row) for row in values],
            "customdata": told,
            "hovertemplate": "%{x:.4g}, %{y:.4g}: %{customdata}<extra></extra>",
        }
    )


def _on_scale(norm: Any, values: np.ndarray) -> np.ndarray:
    """Return values as the scale of `_scale_of` counts them."""
    if not isinstance(norm, colors.LogNorm):
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log10(np.clip(values, norm.vmin, norm.vmax) if norm.clip else values))


def _scale_of(artist: Any) -> _Dict:
    """Return the scale of colours of values, and its bar where the figure shows one."""
    norm, bar = artist.norm, artist.colorbar
    low, high = float(norm.vmin), float(norm.vmax)
    shares = np.linspace(0.0, 1.0, 11)
    places = shares
    if isinstance(norm, colors.LogNorm):
        low, high = float(np.log10(low)), float(np.log10(high))
    else:
        places = (np.asarray(norm.inverse(shares), float) - low) / (high - low)
    shades = [
        [float(place), colors.to_hex(artist.cmap(share))] for place, share in zip(places, shares, strict=True)
    ]
    found: _Dict = {"colorscale": shades, "showscale": bar is not None}
    found |= {"cmin": low, "cmax": high}
    if bar is not None:
        label = bar.ax.get_ylabel() or bar.ax.get_xlabel()
        found["colorbar"] = {"title": {"text": text_of(label), "side": "right"}, "thickness": 14} | _beside(
            bar.ax
        )
        if isinstance(norm, colors.LogNorm):
            powers = np.arange(np.ceil(low), np.floor(high) + 1.0)
            found["colorbar"] |= {
                "tickvals": powers.tolist(),
                "ticktext": [f"10<sup>{p:.0f}</sup>" for p in powers],
            }
    return found


def _beside(bar: Axes) -> _Dict:
    """Return where a bar of colours stands, as a share of the place that all panels take."""
    others = [one.get_position() for one in panels_of(bar.figure.get_figure(root=True))]
    left, low = min(box.x0 for box in others), min(box.y0 for box in others)
    width, height = max(box.x1 for box in others) - left, max(box.y1 for box in others) - low
    box = bar.get_position()
    return {
        "x": float((box.x0 - left) / width),
        "xanchor": "left",
        "xpad": 0,
        "y": float((0.5 * (box.y0 + box.y1) - low) / height),
        "len": float((box.y1 - box.y0) / height),
        "ypad": 0,
    }


def _named(artist: Line2D | Collection | Patch) -> _Dict:
    """Return the name of what is drawn, by which all of it is switched off together."""
    label = str(artist.get_label())
    if not label or label.startswith("_"):
        return {}
    return _name(label)


def _name(label: str) -> _Dict:
    name = label.strip().replace("\n", " ")
    return {"name": text_of(name), "legendgroup": name}


def _stroke(line: Line2D) -> _Dict:
    """Return colour, width and dash of a line."""
    style: Any = line.get_linestyle()
    # What matplotlib calls "--" may be a pattern of its own, which it keeps unscaled.
    pattern = line._unscaled_dash_pattern[1] if style == "--" else None  # type: ignore[attr-defined]
    dash = ",".join(f"{length * 1.5:g}px" for length in pattern) if pattern else _DASHES.get(style, "solid")
    return {
        "color": rgba(line.get_color(), line),
        "width": max(1.0, float(line.get_linewidth())),
        "dash": dash,
    }


def _colors_of(given: Any) -> list[Any]:
    found = list(np.atleast_2d(np.asarray(given, float))) if np.size(given) else []
    return found or [(0.5, 0.5, 0.5, 0.0)]


def rgba(color: Any, artist: Any) -> str:
    """Return a colour for a browser, with the opacity of what has it."""
    red, green, blue, alpha = colors.to_rgba(color)
    own = artist.get_alpha()
    alpha = alpha if own is None or not np.isscalar(own) else float(own)  # type: ignore[arg-type]
    return f"rgba({round(255 * red)},{round(255 * green)},{round(255 * blue)},{alpha:.3g})"


def _numbers(values: np.ndarray) -> list[float | None]:
    """Return numbers for JSON, in six digits, none where there is none."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in np.asarray(values, float)]
