"""Latency and speed of a server against its load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from curbcut.report.pictures import canvas
from curbcut.report.pictures.canvas import BLUE, GREEN, GREY, INK, PALE, VERMILION
from curbcut.serve.bench.drive import Found
from curbcut.serve.bench.result import Result
from curbcut.spec.account import Account

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = (("ttft", "time to first token"), ("tpot", "time a token"))
LINES = ((50, BLUE, "o"), (99, VERMILION, "s"))
"""Percentiles that are drawn."""


def draw(found: Found, promised: Sequence[Account], path: Path) -> None:
    """Draws TTFT, TPOT and tokens a second against the mean number of requests under way. Raises
    as `canvas.draw`.
    """
    canvas.draw(path, lambda figure: _paint(figure, found, promised), height_inches=2.9)


def _paint(figure: Figure, found: Found, promised: Sequence[Account]) -> None:
    order = sorted(range(len(found.results)), key=lambda n: found.results[n].in_flight)
    results = [found.results[n] for n in order]
    plans = [promised[n] for n in order] if promised else []
    figure.suptitle(f"{found.model}: latency and speed against load", x=0.01, ha="left",
                    fontsize=10, fontweight="bold")
    for axes, (name, title) in zip(figure.subplots(1, 3), (*PANELS, ("", "answer tokens")),
                                   strict=True):
        if name:
            _latency(axes, name, results)
        else:
            _speed(axes, results)
        _promised(axes, name, results, plans)
        axes.set_title(title)
        axes.set_xlabel("requests under way (mean)")
        axes.set_ylim(bottom=0)
        axes.grid(True, color=PALE, linewidth=0.5)
        axes.set_axisbelow(True)
        canvas.units_of(axes.yaxis, "seconds" if name else "tokens/s")
        axes.legend(frameon=False, loc="best")
    figure.supxlabel("whiskers: 90% interval of the plan" if plans else "", x=0.01, ha="left",
                     fontsize=7, color=GREY)


def _latency(axes: Axes, name: str, results: Sequence[Result]) -> None:
    for percent, colour, marker in LINES:
        marks = [(one.in_flight, spread.percentiles[percent]) for one in results
                 if (spread := getattr(one, name)) is not None]
        axes.plot([x for x, _ in marks], [y for _, y in marks], marker=marker, color=colour,
                  markersize=4.5, markeredgecolor=INK, markeredgewidth=0.4,
                  label=f"p{percent}")


def _speed(axes: Axes, results: Sequence[Result]) -> None:
    axes.plot([one.in_flight for one in results], [one.output_per_second for one in results],
              marker="o", color=BLUE, markersize=4.5, markeredgecolor=INK, markeredgewidth=0.4,
              label="measured")


def _promised(axes: Axes, name: str, results: Sequence[Result], plans: Sequence[Account]) -> None:
    section, kind = ("seconds", name) if name else ("tokens_per_second", "answers")
    labelled = False
    for one, plan in zip(results, plans, strict=False):
        estimate = plan.get(section, kind)
        if estimate is None or estimate.value is None:
            continue
        value, low, high = canvas.ends(estimate)
        axes.plot([one.in_flight] * 2, [low, high], color=GREEN, linewidth=1.2)
        axes.plot(one.in_flight, value, marker="D", color=GREEN, markersize=4,
                  markeredgecolor=INK, markeredgewidth=0.4, linestyle="none",
                  label=None if labelled else "plan (mean)")
        labelled = True
