"""Cost of the largest trainings over time, and the map of who can train what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curbcut import units
from curbcut.plan.trend.barrier import Reach
from curbcut.plan.trend.ladder import LONGEST_SECONDS
from curbcut.plan.trend.outlook import Outlook
from curbcut.report.pictures import canvas
from curbcut.report.pictures.canvas import BLUE, GREY, INK, PALE, SKY, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Place = tuple[int, int, str]
"""Where a name stands beside its mark: points right, points up, and the side that touches."""
NAMED_MODELS: Mapping[str, Place] = {
    "GNMT": (-6, 4, "right"), "AlphaGo Zero": (-6, 4, "right"),
    "GPT-3 175B (davinci)": (-6, 4, "right"), "GPT-4": (-6, 3, "right"),
    "Gemini 1.0 Ultra": (-2, 8, "center"), "Falcon-180B": (-6, 3, "right"),
    "Megatron-Turing NLG 530B": (-6, 4, "right"), "BLOOM-176B": (6, -3, "left"),
    "BERT-Large": (6, -3, "left"), "DeepSpeech2 (English)": (6, -3, "left")}
"""Models that are named in the scatter, where the facts have them."""
NAMED_RUNS: Mapping[str, Place] = {
    "GPT-3 175B (davinci)": (2, 7, "right"), "BLOOM-176B": (-6, -9, "right"),
    "PaLM (540B)": (-6, 4, "right"), "T5-11B": (6, -8, "left"),
    "RoBERTa Large": (6, -3, "left")}
"""Dense trainings that are marked on the map at what they cost then."""


def draw(found: Outlook, path: Path) -> None:
    """Draws both. Raises as `canvas.draw`."""
    canvas.draw(path, lambda figure: _paint(figure, found), height_inches=8.6)


def _paint(figure: Figure, found: Outlook) -> None:
    top, bottom = figure.subplots(2, 1, height_ratios=[1.0, 1.25])
    _scatter(top, found)
    _map(bottom, found)


def _scatter(axes: Axes, found: Outlook) -> None:
    headline = found.frontier[0]
    years = [point.year for point in headline.points]
    axes.set_yscale("log")
    axes.plot(years, [point.usd for point in headline.points], "o", color=BLUE, markersize=4.5,
              markeredgecolor=INK, markeredgewidth=0.4)
    line = headline.line
    if line is not None:
        along = np.linspace(line.first, line.last, 60)
        band = [line.at(float(year)) for year in along]
        axes.fill_between(along, [one.low or 0.0 for one in band],
                          [one.high or 0.0 for one in band], color=SKY, alpha=0.35, linewidth=0)
        axes.plot(along, [one.value or 0.0 for one in band], color=INK)
        growth = line.growth
        axes.text(0.02, 0.95, f"{growth.value:.1f} times a year\n(95% interval {growth.low:.1f} to "
                  f"{growth.high:.1f})\nR² {line.r_squared:.2f}, {line.points} models",
                  transform=axes.transAxes, va="top", linespacing=1.4)
    axes.set_title("Cost of training the largest models")
    for point in headline.points:
        if point.name in NAMED_MODELS:
            _name(axes, point.name, (point.year, point.usd), NAMED_MODELS[point.name])
    axes.set_ylabel("dollars of December 2023:\nhardware written off + energy")
    axes.set_xlabel("day of publication (band: 95% interval of the line)")
    canvas.units_of(axes.yaxis, "usd")
    axes.xaxis.set_major_locator(canvas.whole_years())


def _map(axes: Axes, found: Outlook) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    known = _drawn(found.curves[0])
    budgets = [one.budget_usd for one in known]
    ends = [canvas.ends(one.parameters) for one in known]
    axes.fill_between(budgets, [low for _, low, _ in ends], [high for _, _, high in ends],
                      color=SKY, alpha=0.35, linewidth=0)
    axes.plot(budgets, [value for value, _, _ in ends], color=BLUE, marker="o", markersize=4.5,
              linewidth=1.8)
    thumb = [(one.budget_usd, one.rule_of_thumb) for one in known if one.rule_of_thumb]
    axes.plot([usd for usd, _ in thumb], [size for _, size in thumb], color=VERMILION,
              linestyle=":", linewidth=1.6)
    for row in filter(None, map(_drawn, found.curves[1:])):
        axes.plot([one.budget_usd for one in row], [one.parameters.value or 0.0 for one in row],
                  color=GREY, linestyle="--" if row[0].basis == "extrapolated" else "-.",
                  linewidth=0.9)
    _line_names(axes, found, known)
    for one in found.again:
        if one.name in NAMED_RUNS:
            axes.plot(one.owned_usd, one.parameters, marker="^", color="white",
                      markeredgecolor=INK, markersize=5.5)
            _name(axes, f"{one.name.partition(' (')[0]} ({one.published.year})",
                  (one.owned_usd, one.parameters), NAMED_RUNS[one.name])
    basis = found.curves[0][0].basis
    axes.set_title(f"Who can train what in {int(found.year)}"
                   + (f" ({basis})" if found.year != found.ladder.year else "")
                   + ": the largest training-optimal model")
    axes.set_xlabel("budget, US dollars\n(20 tokens a parameter, at most "
                    f"{LONGEST_SECONDS / 86400:.0f} days; band: 90% interval of time and rent; "
                    "triangles: published,\nat what hardware and energy cost them then)")
    axes.set_ylabel("parameters")
    canvas.units_of(axes.xaxis, "usd")
    canvas.units_of(axes.yaxis, "count")
    axes.grid(True, color=PALE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.margins(x=0.06, y=0.08)


def _drawn(row: Sequence[Reach]) -> list[Reach]:
    """Those that have a place on the map."""
    return [one for one in row if one.parameters.value is not None]


def _line_names(axes: Axes, found: Outlook, known: list[Reach]) -> None:
    """Each line by its name, and the sizes on the map's own."""
    for row in filter(None, map(_drawn, found.curves[1:])):
        said = ", extrapolated" if row[0].basis == "extrapolated" else ""
        at = row[min(1, len(row) - 1)]
        _name(axes, f"{int(row[0].year)}{said}", (at.budget_usd, at.parameters.value or 0.0),
              (6, -9, "left") if row[0].year < found.year else (-6, 6, "right"), colour=GREY)
    if not known:
        return
    last = known[-1]
    end = (last.budget_usd, last.parameters.value or 0.0)
    _name(axes, f"{int(found.year)}", end, (7, -3, "left"), colour=BLUE)
    if last.rule_of_thumb:
        _name(axes, "C = 120 P²", (last.budget_usd, last.rule_of_thumb), (-8, 2, "right"))
    asked = _drawn(found.reaches) if found.asked else []
    axes.plot([one.budget_usd for one in asked], [one.parameters.value or 0.0 for one in asked],
              "*", color=VERMILION, markersize=12, markeredgecolor=INK, markeredgewidth=0.5,
              zorder=5)
    for one in asked or known:
        _name(axes, units.show(one.parameters.value or 0.0, "count").replace(" ", ""),
              (one.budget_usd, one.parameters.value or 0.0), (5, -12, "left"), weight="bold")


def _name(axes: Axes, text: str, at: tuple[float, float], place: Place, *, colour: str = INK,
          weight: str = "normal") -> None:
    right, up, side = place
    axes.annotate(text, at, xytext=(right, up), textcoords="offset points", ha=side, fontsize=7,
                  color=colour, fontweight=weight, bbox=canvas.PAPER)
