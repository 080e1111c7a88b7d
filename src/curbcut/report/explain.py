"""One figure of a plan, down to where it comes from: formula, inputs, sources, what moves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curbcut.accounts.sheet import SAMPLES, Figure, Sheet
from curbcut.report import tables
from curbcut.report.tables import Cell, Column, Format, Table, Value
from curbcut.spec import codec
from curbcut.spec.estimate import Estimate

MOST_INFLUENCES = 6


def show_explanation(sheet: Sheet, key: str, chosen: Format = "text", *, currency: str = "USD",
                     samples: int = SAMPLES, seed: int = 0) -> None:
    """Prints how `key` was come by. Raises UnknownName with the nearest keys."""
    if chosen == "json":
        tables.show([], chosen, plain=as_plain(sheet, key, samples=samples, seed=seed))
    else:
        tables.show(explanation(sheet, key, currency=currency, samples=samples, seed=seed), chosen)


def explanation(sheet: Sheet, key: str, *, currency: str = "USD", samples: int = SAMPLES,
                seed: int = 0) -> list[Table]:
    """What a figure follows from, and what moves it most. Raises UnknownName."""
    figure, found = sheet[key], sheet.estimates()
    notes = []
    if found[key].known and not figure.leaf:
        drawn = sheet.sampled_estimates(samples, seed)[key]
        notes.append(f"90% of {samples:,} draws of its leaves: "
                     f"{tables.span(drawn, figure.unit, currency)}")
    rows: list[Sequence[Value]] = [
        (Cell("  " * depth + name, plain=name), tables.Figure(found[name], sheet[name].unit),
         sheet[name].unit, found[name].basis,
         Cell(f"{_said(sheet[name])} ({found[name].basis})", "dim", _said(sheet[name])),
         float(depth), sheet[name].distribution) for name, depth in _tree(sheet, key)]
    made = [Table(f"{key} = {_shown(found[key], figure.unit, currency)}", (
        Column("", name="key"), Column("value", right=True, interval=True),
        Column("unit", only="programs"), Column("basis", only="programs"),
        Column("from", below=True),
        Column("depth", only="programs"), Column("drawn as", only="programs")), rows, notes,
        currency)]
    moving = sheet.influences(key)[:MOST_INFLUENCES]
    if moving:
        made.append(Table(f"What moves {key} most, each alone at its ends", (
            Column("", name="key"), Column("from", unit=figure.unit, name="low"),
            Column("to", unit=figure.unit, name="high"), Column("drawn as")),
            [(name, low, high, sheet[name].distribution) for name, low, high in moving], (),
            currency))
    return made


def _said(figure: Figure) -> str:
    return f"= {figure.formula}" if figure.formula else figure.estimate.source


def as_plain(sheet: Sheet, key: str, *, samples: int = SAMPLES, seed: int = 0) -> dict[str, Any]:
    """The explanation as JSON-ready data, SI units."""
    figure, found = sheet[key], sheet.estimates()
    drawn = sheet.sampled_estimates(samples, seed)
    return {
        "key": key, "unit": figure.unit, "formula": figure.formula,
        "estimate": codec.plain(found[key]), "drawn": codec.plain(drawn[key]), "samples": samples,
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


def _shown(estimate: Estimate, unit: str, currency: str) -> str:
    span = tables.span(estimate, unit, currency)
    why = f", {estimate.source}" if not estimate.known else ""
    said = tables.quantity(estimate.value, unit, currency)
    return said + (f"  (90%: {span})" if span else "") + why
