"""How every figure looks: colours that colour-blind readers can tell apart, lines that print in grey."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.core import outputs
from analyses.page.page import View, view_of
from inference.intervals import interval

_COLOURS = matplotlib.color_sequences["petroff10"]
#: Of what is not to be trusted.
UNTRUSTED = "crimson"

_DASHES: list[Any] = ["-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1))]
_MARKERS = "osD^vP*X<>"

_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "legend.frameon": False,
    "savefig.dpi": 150,
    # Journals take no fonts drawn as programs, matplotlib's default.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "massdrift",
    # A dollar in a name begins no formula.
    "text.parse_math": False,
}

#: Colour, dash and marker by name.
Styles = dict[str, dict[str, Any]]


@contextmanager
def style() -> Iterator[None]:
    """Draw in the house style, without a window, and leave the caller's settings alone."""
    with matplotlib.rc_context(_STYLE):
        yield


def line_style(names: Sequence[str]) -> Styles:
    """Return colour, dash and marker of every name; the tenth and later ones differ in dash and marker."""
    return {
        name: {
            "color": _COLOURS[index % len(_COLOURS)],
            "linestyle": _DASHES[index % len(_DASHES)],
            "marker": _MARKERS[index % len(_MARKERS)],
        }
        for index, name in enumerate(names)
    }


def ordered_colours(count: int) -> list[Any]:
    """Return colours for values in order, from dark to light, none of them too light for white paper."""
    return [matplotlib.colormaps["viridis"](0.88 * i / max(1, count - 1)) for i in range(count)]


def bands(axes: Axes, values: xr.DataArray, styles: Styles) -> None:
    """Draw mean and interval over the replicates against ``step``, a line and a band an objective."""
    limits = interval(values)
    mean = values.mean(["chain", "draw"], skipna=True)
    for name in values["objective"].to_numpy():
        look = {key: value for key, value in styles[name].items() if key != "marker"}
        low, high = (limits.sel(objective=name, ci_bound=bound) for bound in ("lower", "upper"))
        axes.fill_between(values["step"], low, high, color=look["color"], alpha=0.25, linewidth=0)
        axes.plot(values["step"], mean.sel(objective=name), label=name, linewidth=1.8, **look)


def label(variable: xr.DataArray) -> str:
    """Return the axis label of a variable: its long name, and its unit where it has one."""
    units = variable.attrs["units"]
    return str(variable.attrs["long_name"]) + ("" if units == "1" else f" [{units}]")


def entry(name: str) -> str:
    """Return a name as a legend shows it: matplotlib leaves out those that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


#: Figures that are drawn while a report is to be written, by name.
_views: ContextVar[dict[str, View] | None] = ContextVar("views of figures", default=None)


@contextmanager
def collected() -> Iterator[dict[str, View]]:
    """Collect the figures that are saved within the block, as a report shows them."""
    views: dict[str, View] = {}
    before = _views.set(views)
    try:
        yield views
    finally:
        _views.reset(before)


@contextmanager
def saving() -> Iterator[None]:
    """Write in the house style what was drawn in it; ticks of a log axis, made only now, are formulas."""
    with style(), matplotlib.rc_context({"text.parse_math": True}), warnings.catch_warnings():
        # A name may hold signs that the font lacks: they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure in the formats of `outputs.formats`, without a date in the file, and close it."""
    views = _views.get()
    with saving():
        if views is not None:
            views[name] = view_of(figure)
        for form in outputs.formats():
            dateless: Any = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
            figure.savefig(folder / f"{name}.{form}", metadata=dateless)
    plt.close(figure)
