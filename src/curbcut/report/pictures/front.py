"""The Pareto front of a budget run backwards: expected loss against money and against time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from curbcut import units
from curbcut.report.pictures import canvas
from curbcut.report.pictures.canvas import BLUE, GREY, INK, PALE, VERMILION
from curbcut.report.tables import quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

    from curbcut.spec import Estimate, Machine, ModelShape


@dataclass(frozen=True)
class Drawn:
    """A point of figures that somebody else computed."""

    machine: Machine
    shape: ModelShape
    costs: Mapping[str, Estimate]
    bits: Estimate


class Choice(Protocol):
    """What is drawn of a point of the front."""

    @property
    def machine(self) -> Machine:
        """What it runs on."""

    @property
    def shape(self) -> ModelShape:
        """The model."""

    @property
    def costs(self) -> Mapping[str, Estimate]:
        """`usd`, `kwh`, `kgco2e` and `seconds`."""

    @property
    def bits(self) -> Estimate:
        """Expected bits a byte."""


TITLE = "Pareto front: what nothing beats in loss, money, time, energy and carbon"
LINE_INCHES = 0.17
"""Of the list of points."""
ALIKE = 0.02
"""Relative difference in money of what is not drawn twice."""


def draw(points: Sequence[Choice], chosen: Choice, path: Path, *, title: str = "",
         currency: str = "USD") -> None:
    """Draws the front with what was chosen. Raises as `canvas.draw`."""
    canvas.draw(path, lambda figure: paint(figure, points, chosen, title, currency),
                height_inches=inches(points))


def inches(points: Sequence[Choice]) -> float:
    """Height that the picture needs."""
    return 3.9 + LINE_INCHES * -(-(len(points) + 1) // 2)


def paint(figure: FigureBase, points: Sequence[Choice], chosen: Choice, title: str = "",
          currency: str = "USD") -> None:
    """Paints it onto a figure, or a part of one."""
    points = sorted((chosen, *(one for one in points if not _alike(one, chosen))),
                    key=lambda one: (one.bits.value or 0.0, one.costs["usd"].value or 0.0))
    lines = -(-len(points) // 2)
    figure.suptitle(title or TITLE, x=0.01, ha="left", fontsize=10, fontweight="bold")
    axes = figure.subplot_mosaic([["usd", "seconds"], ["list", "list"]],
                                 height_ratios=[3.4, LINE_INCHES * lines])
    axes["seconds"].sharey(axes["usd"])
    for name, unit in (("usd", "usd"), ("seconds", "seconds")):
        one = axes[name]
        _front(one, points, chosen, name, currency)
        one.set_xlabel(canvas.named(unit, currency))
        canvas.units_of(one.xaxis, unit, currency)
        one.grid(True, color=PALE, linewidth=0.5)
        one.set_axisbelow(True)
    axes["usd"].set_ylabel("expected bits a byte (less is better)")
    axes["list"].set_axis_off()
    for i, point in enumerate(points):
        axes["list"].text(0.5 * (i // lines), 1.0 - (i % lines) / lines, _line(i, point, chosen,
                                                                              currency),
                          va="top", fontsize=7.5, transform=axes["list"].transAxes)
    figure.supxlabel("star: chosen; whiskers: 90% interval of the cost", x=0.01, ha="left",
                     fontsize=7, color=GREY)


def _alike(one: Choice, other: Choice) -> bool:
    """Whether two are the same model on the same machine for about as much."""
    mine, theirs = one.costs["usd"].value or 0.0, other.costs["usd"].value or 0.0
    return ((one.machine.name, one.shape) == (other.machine.name, other.shape)
            and abs(mine - theirs) <= ALIKE * theirs)


def _line(i: int, one: Choice, chosen: Choice, currency: str) -> str:
    usd = quantity(one.costs["usd"].value, "usd", currency)
    return (f"{i + 1}: {units.show(one.shape.parameters, 'count')} on {one.machine.name}, {usd}"
            + (" (chosen)" if one is chosen else ""))


def _front(axes: Axes, points: Sequence[Choice], chosen: Choice, name: str,
           currency: str) -> None:
    axes.set_xscale("log")
    for i, one in enumerate(points):
        if not one.costs[name].value:
            continue
        value, low, high = canvas.ends(one.costs[name], name, currency)
        bits = one.bits.value or 0.0
        axes.plot([low, high], [bits, bits], color=GREY, linewidth=0.8)
        star = one is chosen
        axes.plot(value, bits, "*" if star else "o", color=VERMILION if star else BLUE,
                  markersize=13 if star else 5, markeredgecolor=INK, markeredgewidth=0.5,
                  zorder=5 if star else 3)
        axes.annotate(str(i + 1), (value, bits), xytext=(0, 7 if i % 2 == 0 else -13),
                      textcoords="offset points", ha="center", fontsize=7.5, bbox=canvas.PAPER,
                      zorder=6)
    axes.margins(x=0.08, y=0.12)
