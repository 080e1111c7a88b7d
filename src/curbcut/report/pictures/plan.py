"""A plan on one page: memory against the machine, time by part, money, energy, carbon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curbcut import units
from curbcut.report.pictures import canvas, front
from curbcut.report.pictures.canvas import FILLS, HATCHES, INK, VERMILION, Dot, dots
from curbcut.report.pictures.front import Choice
from curbcut.spec import Account, Resolved, unknown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

HEIGHT_INCHES = 6.6
NO_PARTS = ("peak", "server")
"""Of memory: the whole, and what serving holds."""
PARTS = ("total", "steps", "evaluation", "data", "checkpoint", "other")
ENERGY = ("device", "node", "facility", "project")
CARBON = ("total", "operational", "market", "embodied", "project")
WHOLES = ("total", "facility")
"""Black diamonds; what they are made of is blue and round."""
MONEY = ("total", "rent", "ownership", "energy", "staff", "development", "project")


def draw(resolved: Resolved, account: Account, path: Path, *, points: Sequence[Choice] = (),
         chosen: Choice | None = None) -> None:
    """Draws the forecast of a run; and below it, where a budget was run backwards, the front
    (`points`) with what was `chosen`: the run itself where that is left out. Raises as
    `canvas.draw`.
    """
    if not points and chosen is None:
        canvas.draw(path, lambda figure: _paint(figure, resolved, account),
                    height_inches=HEIGHT_INCHES)
        return
    star = chosen or _itself(resolved, account)
    below = front.inches(points)

    def both(figure: Figure) -> None:
        parts: Any = figure.subfigures(2, 1, height_ratios=[HEIGHT_INCHES, below])
        upper, lower = parts
        _paint(upper, resolved, account)
        front.paint(lower, points, star, currency=resolved.run.place.currency)

    canvas.draw(path, both, height_inches=HEIGHT_INCHES + below)


def _itself(resolved: Resolved, account: Account) -> Choice:
    """The run as a point, by its own forecast."""
    nothing = unknown("not forecast")
    return front.Drawn(resolved.run.machine, resolved.run.model, {
        "usd": account.get("usd", "total") or nothing,
        "seconds": account.get("seconds", "total") or nothing},
        account.get("loss", "bits_per_byte") or nothing)


def _paint(figure: FigureBase, resolved: Resolved, account: Account) -> None:
    run = resolved.run
    figure.suptitle(f"{run.name}: {units.show(run.model.parameters, 'count')} parameters, "
                    f"{units.show(run.train.tokens, 'count')} tokens on {run.machine.name}",
                    x=0.01, ha="left", fontsize=10, fontweight="bold")
    axes = figure.subplot_mosaic([["memory", "memory"], ["seconds", "usd"], ["kwh", "kgco2e"]],
                                 height_ratios=[0.8, 1.1, 0.8])
    _memory(axes["memory"], account, run.machine.memory_bytes)
    currency = run.place.currency
    for section, kinds, title in (
            ("seconds", PARTS, "Time, 90% interval"), ("usd", MONEY, "Money, 90% interval"),
            ("kwh", ENERGY, "Energy, 90% interval"), ("kgco2e", CARBON, "Carbon, 90% interval")):
        found = [(kind, account.get(section, kind)) for kind in kinds]
        marks = [Dot(kind, one, "D", INK) if kind in WHOLES else Dot(kind, one)
                 for kind, one in found if one is not None]
        _panel(axes[section], marks, section, title, currency)


def _panel(axes: Axes, marks: list[Dot], section: str, title: str, currency: str) -> None:
    from curbcut.spec import UNIT_OF

    known = [mark for mark in marks if mark.estimate.value]
    missing = [mark.name for mark in marks if mark.estimate.value is None]
    axes.set_title(title)
    if not known:
        axes.text(0.0, 0.5, "not known", transform=axes.transAxes)
        axes.set_axis_off()
        return
    dots(axes, known, UNIT_OF[section], currency)
    if missing:
        axes.text(1.0, 1.02, f"not known: {', '.join(missing)}", transform=axes.transAxes,
                  ha="right", fontsize=6.5, color=canvas.GREY)


def _memory(axes: Axes, account: Account, room_bytes: int) -> None:
    """The stack of one accelerator's memory; what it may hold is a line."""
    place = 0.0
    peak = account.get("memory_bytes", "peak")
    high = peak.high if peak is not None and peak.high else 0.0
    widest = 1.1 * max(room_bytes, high)
    kinds = [(kind, one) for kind, one in account.memory_bytes.items()
             if kind not in NO_PARTS and one.value]
    for i, (kind, one) in enumerate(kinds):
        fill, hatch = FILLS[i % len(FILLS)], HATCHES[i % len(HATCHES)]
        assert one.value is not None
        axes.barh(0, one.value, left=place, height=0.5, color=fill, hatch=hatch, edgecolor=INK,
                  linewidth=0.6, label=f"{kind} {units.show(one.value, 'bytes')}")
        place += one.value
    if peak is not None and peak.value:
        value, low, top = canvas.ends(peak)
        axes.plot([low, top], [0.45, 0.45], color=INK, linewidth=1.6)
        axes.plot(value, 0.45, marker="D", color=INK, markersize=5)
        right = value > widest / 2
        axes.annotate(f"peak {units.show(value, 'bytes')} (90%: {units.show(low, 'bytes')} to "
                      f"{units.show(top, 'bytes')})", (value if right else low, 0.45),
                      xytext=(-8 if right else 0, 6), textcoords="offset points",
                      ha="right" if right else "left", fontsize=7.5, bbox=canvas.PAPER)
    axes.axvline(room_bytes, color=VERMILION, linestyle="--", linewidth=1.4)
    left = room_bytes < widest / 3
    axes.annotate(f"machine: {units.show(room_bytes, 'bytes')}", (room_bytes, -0.44),
                  xytext=(4 if left else -4, 0), textcoords="offset points",
                  ha="left" if left else "right", fontsize=7.5, bbox=canvas.PAPER)
    axes.set_xlim(0, widest)
    axes.set_ylim(-0.55, 0.85)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_title("Memory of one accelerator")
    canvas.bytes_ticks(axes.xaxis, widest)
    axes.legend(ncols=4, loc="upper left", bbox_to_anchor=(0.0, -0.18), frameon=False,
                handlelength=1.6, handleheight=1.1)
