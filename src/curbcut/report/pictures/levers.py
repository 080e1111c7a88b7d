"""The waterfall of a run's levers: what each taken one saves after those before it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from curbcut.plan.levers.result import LeverResult, Waterfall
from curbcut.report.pictures import canvas
from curbcut.report.pictures.canvas import BLUE, GREY, INK, ORANGE, PALE
from curbcut.report.tables import quantity
from curbcut.spec.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LETTERS = 88
"""Of a line below the axis."""
ROW_INCHES = 0.34
FRAME_INCHES = 1.5


def draw(found: Sequence[Waterfall], path: Path) -> None:
    """Draws the levers that were taken, in their order, a panel a waterfall. Raises as
    `canvas.draw`.
    """
    rows = [len(one.steps) + 2 for one in found]
    canvas.draw(path, lambda figure: _paint(figure, found, rows),
                height_inches=FRAME_INCHES * len(found) + ROW_INCHES * sum(rows))


def _paint(figure: Figure, found: Sequence[Waterfall], rows: Sequence[int]) -> None:
    panels = figure.subplots(len(found), 1, squeeze=False, height_ratios=list(rows))
    for axes, waterfall in zip(panels[:, 0], found, strict=True):
        _panel(axes, waterfall)
    figure.supxlabel("whiskers: 90% interval; hatched: what the lever saves; dotted: it may save "
                     "nothing", x=0.01, ha="left", fontsize=7, color=GREY)


def _panel(axes: Axes, waterfall: Waterfall) -> None:
    unit = waterfall.unit
    times = canvas.drawn(unit.dimension, unit.currency)
    start = waterfall.start.value or 0.0
    names = ["as planned", *(one.name for one in waterfall.steps), "with all of these"]
    last = len(names) - 1
    _whole(axes, 0, waterfall.start, waterfall)
    for row, one in enumerate(waterfall.steps, start=1):
        _step(axes, row, one, start, waterfall)
    _whole(axes, last, waterfall.end, waterfall)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(last + 0.6, -0.6)
    widest = max(start, waterfall.start.high or 0.0, *(
        max(one.before or 0.0, one.after or 0.0) for one in waterfall.steps), 0.0)
    axes.set_xlim(0, 1.32 * times * widest if widest else 1.0)
    axes.set_xlabel(textwrap.fill(
        f"{waterfall.what}, {canvas.named(unit.dimension, unit.currency)}", MOST_LETTERS))
    canvas.units_of(axes.xaxis, unit.dimension, unit.currency)
    many = len(waterfall.steps)
    axes.set_title(f"{waterfall.run}, {waterfall.scope}: " + (
        f"{waterfall.factor:.1f} times less with {many} lever{'s' if many > 1 else ''}, each after "
        "those above it" if many else "no lever saves anything"))


def _whole(axes: Axes, row: int, whole: Estimate, waterfall: Waterfall) -> None:
    """The run before, or after all levers: a full bar with its interval."""
    value, low, high = canvas.ends(whole, waterfall.unit.dimension, waterfall.unit.currency)
    axes.barh(row, value, height=0.62, color=PALE, edgecolor=INK, linewidth=0.7)
    _whisker(axes, row, low, high)
    _say(axes, row, max(value, high), _said(whole.value or 0.0, waterfall))


def _step(axes: Axes, row: int, one: LeverResult, start: float, waterfall: Waterfall) -> None:
    """What one lever takes off, where the whole stands then; a lever that costs is orange."""
    times = canvas.drawn(waterfall.unit.dimension, waterfall.unit.currency)
    before, after = times * (one.before or 0.0), times * (one.after or 0.0)
    saves = after <= before
    axes.barh(row, before - after, left=after, height=0.62, color=BLUE if saves else ORANGE,
              hatch="..." if one.uncertain else "///", edgecolor="white" if saves else INK,
              linewidth=0)
    axes.barh(row, before - after, left=after, height=0.62, fill=False, edgecolor=INK,
              linewidth=0.7)
    axes.plot([after, after], [row + 0.31, row + 0.69], color=GREY, linewidth=0.7)
    top = max(before, after)
    if one.marginal is not None and one.marginal.low is not None and one.marginal.high is not None:
        low, high = before - times * one.marginal.high, before - times * one.marginal.low
        _whisker(axes, row, max(low, 0.0), high)
        top = max(top, high)
    less = (one.before or 0.0) - (one.after or 0.0)
    share = less / start if start else 0.0
    said = f"{-share:+.0%}" if abs(share) >= 0.01 else f"{-share:+.1%}"
    _say(axes, row, top, f"{_said(less, waterfall, sign=True)} ({said})")


def _whisker(axes: Axes, row: float, low: float, high: float) -> None:
    # White under black: it is seen on a dark bar and on paper alike.
    axes.plot([low, high], [row, row], color="white", linewidth=3.0, solid_capstyle="butt")
    axes.plot([low, high], [row, row], color=INK, linewidth=1.3, marker="|", markersize=6)


def _say(axes: Axes, row: int, right: float, text: str) -> None:
    axes.annotate(text, (right, row), xytext=(6, 0), textcoords="offset points", va="center",
                  fontsize=7.5)


def _said(value: float, waterfall: Waterfall, *, sign: bool = False) -> str:
    text = quantity(abs(value), waterfall.unit.dimension, waterfall.unit.currency)
    return ("-" if value >= 0 else "+") + text if sign else text
