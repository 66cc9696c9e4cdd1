"""How every figure looks: colours that colour-blind readers can tell apart, lines that print in grey."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

import matplotlib
import matplotlib.pyplot as plt
import matplotlib.style
import xarray as xr
from cycler import cycler
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation
from matplotlib.typing import ColorType, LineStyleType

from analyses.core import outputs
from analyses.page.page import View, view_of
from inference.intervals import interval, interval_percent
from mixture_models.validation import InputError

#: Of what is not to be trusted.
UNTRUSTED = "crimson"

_DASHES: list[LineStyleType] = ["-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1))]
_MARKERS = "osD^vP*X<>"

_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    # Of lines; another style may bring its own.
    "axes.prop_cycle": cycler(color=matplotlib.color_sequences["petroff10"]),
    "axes.grid": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "grid.alpha": 0.25,
    "figure.constrained_layout.use": True,
    "figure.labelsize": 10,
    "figure.titlesize": 10,
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

# Characters in an inch of text, the width of a line in a legend, and the height of one that figures have
# room for [inch].
_CHARACTERS_AN_INCH, _HANDLE, _LEGEND_ROOM = 12, 0.8, 0.6

# Characters of a power of ten.
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

# Styles that an error names as examples.
_STYLES_NAMED = ("ggplot", "grayscale", "tableau-colorblind10")

#: Keyword arguments of matplotlib's artists.
type Look = dict[str, Any]
#: Colour, dash and marker by name.
type Styles = dict[str, Look]


# The style on top of the house style: a name that matplotlib knows, or the path of a file.
_on_top: ContextVar[str | None] = ContextVar("style on top of the house style", default=None)


@contextmanager
def style() -> Iterator[None]:
    """Draw in the house style, without a window, and leave the caller's settings alone."""
    # Loads what shows figures: what that sets, as a notebook's does, must not end with the block.
    plt.draw_if_interactive()
    with matplotlib.rc_context(_STYLE):
        on_top = _on_top.get()
        if on_top is not None:
            matplotlib.style.use(on_top)
        yield


@contextmanager
def styled(name: str | None) -> Iterator[None]:
    """Draw within the block in a style on top of the house style.

    Args:
        name: of a style of matplotlib, or the path of a file that sets its parameters; None for none.

    Raises:
        InputError: there is no such style, or a line of the file is none of matplotlib's.
    """
    if name is not None:
        _check_style(name)
    before = _on_top.set(name)
    try:
        yield
    finally:
        _on_top.reset(before)


def _check_style(name: str) -> None:
    if name in matplotlib.style.available:
        return
    if not Path(name).is_file():
        raise InputError(
            "a style must be a name of matplotlib's, such as "
            f"{', '.join(_STYLES_NAMED)}, or a file; got {name!r}"
        )
    told = _Told()
    log = logging.getLogger("matplotlib")
    log.addHandler(told)
    propagates, log.propagate = log.propagate, False
    try:
        matplotlib.rc_params_from_file(name, use_default_template=False)
    except (OSError, ValueError) as error:
        told.words.append(str(error))
    finally:
        log.removeHandler(told)
        log.propagate = propagates
    if told.words:
        raise InputError(f"a style file must hold parameters of matplotlib; {name}: {told.words[0]}")


class _Told(logging.Handler):
    """Keeps what matplotlib says of a file, the first lines of it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage().strip().partition("\n")[0])


def line_style(names: Sequence[str]) -> Styles:
    """Return colour, dash and marker of every name: the style's colours, and again with other dashes."""
    with style():
        colours = plt.rcParams["axes.prop_cycle"].by_key().get("color", ["black"])
    return {
        name: {
            "color": colours[index % len(colours)],
            "linestyle": _DASHES[(index + index // len(colours)) % len(_DASHES)],
            "marker": _MARKERS[index % len(_MARKERS)],
        }
        for index, name in enumerate(names)
    }


def line_of(look: Look) -> Look:
    """Return a look without its marker."""
    return {key: value for key, value in look.items() if key != "marker"}


def ordered_colours(count: int) -> list[ColorType]:
    """Return colours for values in order, from dark to light, none of them too light for white paper."""
    return [matplotlib.colormaps["viridis"](0.88 * i / max(1, count - 1)) for i in range(count)]


def bands(axes: Axes, values: xr.DataArray, styles: Styles) -> None:
    """Draw mean and interval over the replicates against ``step``, a line and a band an objective."""
    limits = interval(values)
    mean = values.mean(["chain", "draw"], skipna=True)
    for name in values["objective"].to_numpy():
        look = line_of(styles[name])
        low, high = (limits.sel(objective=name, ci_bound=bound) for bound in ("lower", "upper"))
        axes.fill_between(values["step"], low, high, color=look["color"], alpha=0.25, linewidth=0)
        axes.plot(values["step"], mean.sel(objective=name), label=name, linewidth=1.8, **look)


def points() -> str:
    """Say what points and lines of means and intervals are."""
    return f"point: mean, line: {interval_percent()} interval"


def label(variable: xr.DataArray) -> str:
    """Return the axis label of a variable: its long name, and its unit where it has one."""
    units = variable.attrs["units"]
    return str(variable.attrs["long_name"]) + ("" if units == "1" else f" [{units}]")


def panels(
    count: int,
    size: tuple[float, float],
    *,
    columns: int = 3,
    margin: tuple[float, float] = (0.0, 0.0),
    sharex: bool = False,
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels, row by row, and the panels; what is left of the last row stays blank.

    Args:
        count: of the panels.
        size: width and height of a panel [inch].
        columns: at most as many panels stand side by side.
        margin: what the figure is wider and higher than its panels [inch].
        sharex: whether all panels have the same x axis.
        sharey: likewise.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    (width, height), (beside, above) = size, margin
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(width * columns + beside, height * rows + above),
        squeeze=False,
        sharex=sharex,
        sharey=sharey,
    )
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    return figure, list(grid.flat[:count])


def entry(name: str) -> str:
    """Return a name as a legend shows it: matplotlib leaves out those that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


class _Powers(LogFormatterSciNotation):
    """Numbers of a log axis in plain characters, 2×10⁻³; matplotlib's formulas take a second to set."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        formula = super().__call__(x, pos).removeprefix(r"$\mathdefault{").removesuffix("}$")
        number, _, power = formula.replace(r"\times", "×").partition("^")
        return number.replace("-", "\N{MINUS SIGN}") + power.strip("{}").translate(_RAISED)


def log_scale(axes: Axes, which: Literal["x", "y", "xy"], *, linear_below: float | None = None) -> None:
    """Make an axis of a panel logarithmic, or both; where one is given, it is linear below a number."""
    for name in which:
        axis = axes.xaxis if name == "x" else axes.yaxis
        change = axes.set_xscale if name == "x" else axes.set_yscale
        if linear_below is None:
            change("log")
            axis.set_minor_formatter(_Powers())
        else:
            change("symlog", linthresh=linear_below, linscale=1.0)
        axis.set_major_formatter(_Powers())


def color_bar(figure: Figure, drawn: ScalarMappable, axes: Axes | Sequence[Axes], **options: Any) -> Colorbar:
    """Put a bar of the colours of what is drawn beside panels; ``options`` are those of matplotlib."""
    bar = figure.colorbar(drawn, ax=axes, **options)
    if isinstance(drawn.norm, LogNorm):
        bar.formatter = bar.minorformatter = _Powers()
    return bar


def heading(figure: Figure, *lines: str) -> None:
    """Put lines above all panels, from the left; those that are wider than the figure are broken."""
    width = int(_CHARACTERS_AN_INCH * figure.get_figwidth())
    words = "\n".join(fill(line, width) for line in lines)
    figure.suptitle(words, x=0.1 / figure.get_figwidth(), ha="left")


def legend_below(
    figure: Figure, handles: Sequence[Artist], labels: Sequence[str], *, columns: int = 4, **options: object
) -> None:
    """Put a legend below all panels, whatever its names are: it covers no data, and is not cut off.

    Args:
        figure: grows by what the legend takes beyond two rows or so.
        handles: of what is named.
        labels: their names; those that are wider than the figure are broken.
        columns: at most, fewer where names are long.
        options: of matplotlib's legend.
    """
    width, height = figure.get_size_inches()
    broken = [fill(label, int(_CHARACTERS_AN_INCH * (width - _HANDLE))) for label in labels]
    for count in range(max(1, min(columns, len(broken))), 0, -1):
        legend = figure.legend(handles, broken, loc="outside lower center", ncols=count, **options)
        box = legend.get_window_extent()
        if count > 1 and box.width > figure.bbox.width:
            legend.remove()
        else:
            break
    figure.set_figheight(height + max(0.0, box.height / figure.dpi - _LEGEND_ROOM))


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
    """Write figures in the house style, in which they were drawn."""
    with style(), warnings.catch_warnings():
        # A name may hold signs that the font lacks: they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure in the formats of `outputs.formats`, without a date in the file, and close it."""
    views = _views.get()
    with saving():
        # Laid out once for all formats, which takes as long as to draw.
        layout = figure.get_layout_engine()
        if layout is not None:
            layout.execute(figure)
            figure.set_layout_engine("none")
        for form in outputs.formats():
            dateless: Look | None = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
            figure.savefig(folder / f"{name}.{form}", metadata=dateless)
        if views is not None:
            drawing = folder / f"{name}.svg"
            views[name] = view_of(figure, drawing.read_bytes() if "svg" in outputs.formats() else None)
    plt.close(figure)
