"""Names, strokes, colours and numbers of what a matplotlib figure draws, as plotly takes them."""

from typing import Any

import numpy as np
from matplotlib import colors
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.typing import ColorType
from numpy.typing import ArrayLike

from analyses.page.panel import Plotly, panels_of, text_of

_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}


def named(artist: Line2D | Collection | Patch) -> Plotly:
    """Return the name of what is drawn, by which all of it is switched off together."""
    label = str(artist.get_label())
    if not label or label.startswith("_"):
        return {}
    return name_of(label)


def name_of(label: str) -> Plotly:
    """Return a name of the legend, and the group that is switched off by it."""
    name = label.strip().replace("\n", " ")
    return {"name": text_of(name), "legendgroup": name}


def stroke(line: Line2D) -> Plotly:
    """Return colour, width and dash of a line."""
    style = str(line.get_linestyle())
    # What matplotlib calls "--" may be a pattern of its own, which it keeps unscaled.
    pattern = line._unscaled_dash_pattern[1] if style == "--" else None  # type: ignore[attr-defined]
    dash = ",".join(f"{length * 1.5:g}px" for length in pattern) if pattern else _DASHES.get(style, "solid")
    return {
        "color": rgba(line.get_color(), line),
        "width": max(1.0, float(line.get_linewidth())),
        "dash": dash,
    }


def colors_of(given: ArrayLike) -> list[tuple[float, float, float, float]]:
    """Return the colours of a collection, one that is seen through where it has none."""
    rows = np.atleast_2d(np.asarray(given, float)) if np.size(given) else ()
    return [(red, green, blue, alpha) for red, green, blue, alpha in rows] or [(0.5, 0.5, 0.5, 0.0)]


def rgba(color: ColorType, artist: Artist) -> str:
    """Return a colour for a browser, with the opacity of what has it."""
    red, green, blue, alpha = colors.to_rgba(color)
    own = artist.get_alpha()
    alpha = alpha if own is None or not np.isscalar(own) else float(own)
    return f"rgba({round(255 * red)},{round(255 * green)},{round(255 * blue)},{alpha:.3g})"


def numbers(values: np.ndarray) -> list[float | None]:
    """Return numbers for JSON, in six digits, none where there is none."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in np.asarray(values, float)]


def on_scale(norm: object, values: np.ndarray) -> np.ndarray:
    """Return values as the scale of `_scale_of` counts them."""
    if not isinstance(norm, colors.LogNorm):
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log10(np.clip(values, norm.vmin, norm.vmax) if norm.clip else values))


def scale_of(artist: Any) -> Plotly:
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
    found: Plotly = {"colorscale": shades, "showscale": bar is not None}
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


def _beside(bar: Axes) -> Plotly:
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
