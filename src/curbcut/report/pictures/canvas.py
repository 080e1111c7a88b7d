"""What all pictures share: sizes, colours, marks, how figures are labelled, and how they are saved.

matplotlib is imported inside the functions, and without its global state. The same figures give the
same bytes: no date, no random identifiers, nobody's fonts but those that come with it.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from curbcut.errors import InputError, MissingExtra
from curbcut.files import put_whole
from curbcut.report.tables import quantity
from curbcut.spec.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".svg", ".png")
WIDTH_INCHES = 7.2
"""Of the text of an A4 page."""
DOTS_PER_INCH = 300

INK, GREY, PALE = "#000000", "#595959", "#D9D9D9"
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, YELLOW = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442")
"""Okabe and Ito's colours (2008): told apart with any colour vision. Text is ink, grey or blue (at
least 4.5:1 on white), lines may be vermilion or green (3:1); the others fill areas with an edge."""
FILLS = (BLUE, ORANGE, GREEN, YELLOW, SKY, VERMILION, PURPLE, PALE)
HATCHES = ("", "///", "..", "\\\\\\", "xxx", "---", "|||", "+++")
"""Told apart where colour is lost."""

PAPER: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.4}
"""Behind a name that may lie on a line."""

STYLE: Any = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 8,
    "axes.titlesize": 9, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.labelsize": 8, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "legend.fontsize": 7.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY,
    "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.grid": False, "hatch.linewidth": 0.6, "lines.linewidth": 1.4,
    "svg.fonttype": "none", "svg.hashsalt": "curbcut", "path.simplify": False,
    "figure.dpi": 100, "savefig.dpi": DOTS_PER_INCH, "axes.unicode_minus": False,
}


class Dot(NamedTuple):
    """One figure with its interval in a `dots` panel."""

    name: str
    estimate: Estimate
    marker: str = "o"
    colour: str = BLUE


def ending(path: Path) -> str:
    """The ending that says the format. Raises InputError for another one, MissingExtra where
    matplotlib is not installed: both before anything was computed.
    """
    found = path.suffix.lower()
    if found not in ENDINGS:
        raise InputError(f"cannot be drawn as {found or 'a file without an ending'}",
                         where=str(path), mend=f"end it in {' or '.join(ENDINGS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("matplotlib", "plot")
    return found


def draw(path: Path, paint: Callable[[Figure], None], height_inches: float,
         width_inches: float = WIDTH_INCHES) -> None:
    """Paints a new figure and saves it whole or not at all. Raises as `ending`, and InputError
    where the file cannot be written.
    """
    form = ending(path)[1:]
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Tags would carry the day and the version: {"Date": None} leaves them out.
    tags: dict[str, Any] = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(wspace=0.06, hspace=0.05)  # type: ignore[call-arg,union-attr]
        paint(figure)
        try:
            put_whole(path, lambda aside: figure.savefig(aside, format=form, metadata=tags))
        except OSError as error:
            raise InputError(f"cannot be written ({error.strerror})", where=str(path),
                             mend="give a file in a folder you may write to") from None


def dots(axes: Axes, marks: Sequence[Dot], unit: str, currency: str = "USD") -> None:
    """Figures above 0 with their intervals, a row each, on a log axis; values beside them."""
    known = [mark for mark in marks if mark.estimate.value is not None and mark.estimate.value > 0]
    left, right = _range([ends(mark.estimate, unit, currency) for mark in known])
    for row, mark in enumerate(reversed(known)):
        value, low, high = ends(mark.estimate, unit, currency)
        axes.plot([low, high], [row, row], color=mark.colour, linewidth=1.6, solid_capstyle="butt")
        axes.plot(value, row, marker=mark.marker, color=mark.colour, markersize=5.5,
                  markeredgecolor=INK, markeredgewidth=0.5)
        # A name grows towards the side that has room.
        inner = value < math.sqrt(left * right)
        axes.annotate(f"{mark.name}: {quantity(mark.estimate.value, unit, currency)}",
                      (low if inner else high, row), xytext=(0, 6), textcoords="offset points",
                      ha="left" if inner else "right", fontsize=7.5)
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(-0.6, max(1, len(known)) - 0.1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    units_of(axes.xaxis, unit, currency, numticks=5)


def _range(found: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Ends of a log axis around all intervals, a decade at least, with room for names."""
    low, high = min(one[1] for one in found), max(one[2] for one in found)
    wider = max(1.4, math.sqrt(10 * low / high))
    return low / wider, high * wider


def ends(estimate: Estimate, unit: str = "", currency: str = "USD") -> tuple[float, float, float]:
    """Value, low and high of a known figure as it is drawn (`drawn`); a low end at or below 0 is
    drawn at the value.
    """
    value = estimate.value
    assert value is not None
    low = estimate.low if estimate.low is not None and estimate.low > 0 else value
    high = value if estimate.high is None else estimate.high
    times = drawn(unit, currency)
    return times * value, times * low, times * high


def drawn(unit: str, currency: str = "USD") -> float:
    """What a figure is multiplied by to be drawn: money stands in its own currency, so that its
    ticks are round.
    """
    if unit != "usd" or currency == "USD":
        return 1.0
    from curbcut.facts.currency import usd_per

    return 1.0 / usd_per(currency).value


def units_of(axis: Any, unit: str, currency: str = "USD", *, numticks: int = 12) -> None:
    """Ticks as people read quantities ("$10k", "4 min", "70 B"), no minor labels; called when all
    is drawn, for the range decides on their number.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    if axis.get_scale() == "log":
        low, high = axis.get_view_interval()
        decades = math.log10(high / low)
        subs = (1.0,) if decades > 2.5 else (1.0, 3.0) if decades > 1.3 else (1.0, 2.0, 5.0)
        axis.set_minor_formatter(NullFormatter())
        if unit == "seconds":
            axis.set_major_locator(FixedLocator(MOMENTS if decades > 2.5 else
                                                sorted(MOMENTS + MOMENTS_BETWEEN)))
            axis.set_minor_locator(FixedLocator([]))
        else:
            axis.set_major_locator(LogLocator(subs=subs, numticks=numticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(float(value), unit, currency)))


MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
MOMENTS = (1e-3, 1e-2, 0.1, 1.0, 10.0, MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY, 7 * DAY, 30 * DAY,
           365 * DAY, 3650 * DAY)
"""Ticks of a log axis of seconds."""
MOMENTS_BETWEEN = (3e-3, 0.03, 0.3, 3.0, 30.0, 3 * MINUTE, 30 * MINUTE, 2 * HOUR, 12 * HOUR,
                   2 * DAY, 4 * DAY, 14 * DAY, 90 * DAY, 180 * DAY)
"""And those of a short one."""


def _tick(value: float, unit: str, currency: str) -> str:
    if unit != "seconds":
        return short(value / drawn(unit, currency), unit, currency)
    # units.show says "60 s" and "24 h": at a tick the larger unit is the round one.
    for seconds, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if value >= seconds:
            return f"{value / seconds:,.10g} {name}"
    return short(value, unit, currency)


def short(value: float, unit: str, currency: str = "USD") -> str:
    """A round figure as a tick says it: without needless zeros."""
    said = quantity(value, unit, currency)
    number = said.lstrip("-$").split(" ")[0].rstrip("kMBT%")
    bare = number.replace(",", "")
    if "." not in bare and "e" not in bare:
        return said
    try:
        lean = f"{float(bare):,.10g}" if "e" not in bare else f"{float(bare):.0e}"
    except ValueError:
        return said
    return said.replace(number, lean, 1)


def bytes_ticks(axis: Any, widest: float) -> None:
    """Ticks at round numbers of one binary unit."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    factor = next(each for each in (2.0**40, 2.0**30, 2.0**20, 2.0**10, 1.0) if widest >= each)
    step = next(each for each in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if
                widest / factor / each <= 8)
    axis.set_major_locator(MultipleLocator(step * factor))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(float(value), "bytes")))


def named(unit: str, currency: str = "USD") -> str:
    """What an axis counts in, in words: "US dollars", "kWh"."""
    known = {"usd": "US dollars" if currency == "USD" else currency, "kwh": "energy",
             "kgco2e": "carbon", "seconds": "time", "litres": "water", "count": "parameters"}
    return known.get(unit, unit)


def whole_years() -> Any:
    """Ticks at whole years."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)
