"""One figure of a plan, down to where it comes from: formula, inputs, sources, what moves it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from curbcut import units
from curbcut.accounts.sheet import SAMPLES, Sheet
from curbcut.report import tables
from curbcut.report.tables import Column
from curbcut.spec import codec
from curbcut.spec.estimate import Estimate

if TYPE_CHECKING:
    from rich.console import Console

MOST_INFLUENCES = 6


def print_explanation(sheet: Sheet, key: str, *, console: Console | None = None) -> None:
    """Prints how `key` was come by. Raises UnknownName with the nearest keys."""
    from rich.text import Text

    console = console or tables.plain_console()
    figure, found = sheet[key], sheet.estimates()
    console.print(Text(f"{key} = {_shown(found[key], figure.unit)}", "bold"))
    if figure.formula:
        console.print(Text(f"  = {figure.formula}"))
    if found[key].known and not figure.leaf:
        drawn = sheet.sampled_estimates()[key]
        console.print(Text(f"  {SAMPLES:,} draws: {_interval(drawn, figure.unit)}"))
    console.print()
    for line, style in _lines(sheet, found, key, console.width):
        console.print(Text(line, style))
    moving = sheet.influences(key)[:MOST_INFLUENCES]
    if moving:
        console.print()
        console.print(Text(f"what moves {key} most, each alone at its ends:", "bold"))
        tables.print_rows(console, [Column(""), Column("from", right=True),
                                    Column("to", right=True), Column("drawn as")], [
            [name, _figure(low, figure.unit), _figure(high, figure.unit), sheet[name].distribution]
            for name, low, high in moving])


def as_plain(sheet: Sheet, key: str) -> dict[str, Any]:
    """The explanation as JSON-ready data, SI units."""
    figure, found, drawn = sheet[key], sheet.estimates(), sheet.sampled_estimates()
    return {
        "key": key, "unit": figure.unit, "formula": figure.formula,
        "estimate": codec.plain(found[key]), "drawn": codec.plain(drawn[key]), "samples": SAMPLES,
        "inputs": [{"key": name, "depth": depth, "unit": sheet[name].unit,
                    "formula": sheet[name].formula, "distribution": sheet[name].distribution,
                    "estimate": codec.plain(found[name])} for name, depth in _tree(sheet, key)],
        "influences": [{"key": name, "low": low, "high": high}
                       for name, low, high in sheet.influences(key)]}


def _tree(sheet: Sheet, key: str) -> list[tuple[str, int]]:
    """The figure and what it follows from, depth first; a figure met again is not opened again."""
    seen: set[str] = set()
    rows: list[tuple[str, int]] = []

    def walk(name: str, depth: int) -> None:
        rows.append((name, depth))
        if name not in seen:
            seen.add(name)
            for part in sheet[name].inputs:
                walk(part, depth + 1)

    walk(key, 0)
    return rows


def _lines(sheet: Sheet, found: Mapping[str, Estimate], key: str,
           width: int) -> Iterator[tuple[str, str]]:
    """Each figure with value, interval and basis, and below it its formula or source in full, as
    (text, style).
    """
    rows = [("  " * depth, sheet[name], found[name]) for name, depth in _tree(sheet, key)]
    names = max(len(indent + figure.key) for indent, figure, _ in rows)
    values = max(len(_figure(estimate.value, figure.unit)) for _, figure, estimate in rows)
    for indent, figure, estimate in rows:
        value = _figure(estimate.value, figure.unit)
        span = _interval(estimate, figure.unit)
        yield (f"{indent + figure.key:<{names}}  {value:>{values}}  "
               f"{span + '  ' if span else ''}{estimate.basis}"), ""
        said = f"= {figure.formula}" if figure.formula else estimate.source
        for part in textwrap.wrap(said, max(40, width - len(indent) - 4)):
            yield f"{indent}    {part}", "dim"


def _figure(value: float | None, unit: str) -> str:
    return "unknown" if value is None else units.show(value, unit)


def _interval(estimate: Estimate, unit: str) -> str:
    if estimate.low is None or estimate.high is None or estimate.low == estimate.high:
        return ""
    return f"{units.show(estimate.low, unit)} .. {units.show(estimate.high, unit)}"


def _shown(estimate: Estimate, unit: str) -> str:
    span = _interval(estimate, unit)
    why = f", {estimate.source}" if not estimate.known else ""
    return _figure(estimate.value, unit) + (f"  (90%: {span})" if span else "") + why
