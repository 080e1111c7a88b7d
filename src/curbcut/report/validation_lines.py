"""Rows of a validation one by one, where a table is small and each row has its own method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from curbcut.report.tables import Cell, Column, Format, Table

MOST = 60
"""Rows that people see; more stand in --rows, CSV and JSON."""
_COLUMNS = (Column("row", least=18, wrap=True), Column("reported", right=True), Column("unit"),
            Column("own method", right=True), Column("modelled", right=True),
            Column("90% interval", right=True, only="people"), Column("low", only="programs"),
            Column("high", only="programs"), Column("ratio", right=True))


def table(more: Mapping[str, Any], chosen: Format = "text") -> Table | None:
    """The rows that the outcome wants seen; None where there are none."""
    lines = more.get("lines") or []
    if not lines:
        return None
    notes = ["own method: as its source reckons; ratio: modelled over reported"]
    most = len(lines) if chosen == "csv" else MOST
    if len(lines) > most:
        notes.insert(0, f"and {len(lines) - most} more: --rows, --format csv or --json")
    return Table("Row by row", _COLUMNS, [_line(one) for one in lines[:most]], notes)


def sentences(more: Mapping[str, Any]) -> Iterator[str]:
    """How far off rows are as factors, what was reproduced, and what rows at rated power say."""
    for name, part in (more.get("error_factors") or {}).items():
        found = part["all"]
        if found["typical"]:
            yield (f"{name}: typical error factor x{found['typical']:.2f}, 90% of rows within "
                   f"x{found['p90']:.2f}")
    for name, part in (more.get("reproduced") or {}).items():
        if part["rows"]:
            yield (f"{name}: {part['reproduced']} of {part['rows']} reproduced, largest relative "
                   f"error {part['max_relative_error']:.1e}")
    rated = more.get("rated_power")
    if rated:
        yield (f"Hours x rated power: {rated['reproduced']} of {rated['rows']} reproduced within "
               f"1%; modelled is {rated['median_ratio']:.2f} of it in the middle "
               f"({rated['least_ratio']:.2f} to {rated['most_ratio']:.2f}), "
               f"{rated['inside']:.0%} within {rated['expected'][0]} to {rated['expected'][1]}: "
               f"{rated['why']}")


def _line(one: Mapping[str, Any]) -> list[Cell]:
    low, high = one.get("low"), one.get("high")
    name = one["id"] + (" (from memory)" if one.get("from_memory") else "")
    span = "-" if low is None or high is None else f"{_short(low, 3)} .. {_short(high, 3)}"
    return [Cell(name), _number(one["reported"]), Cell(one["unit"]),
            _number(one.get("reproduced")), _number(one.get("modelled")), Cell(span),
            Cell("", plain=low), Cell("", plain=high), _number(one.get("ratio"), 2)]


def _number(value: float | None, decimals: int | None = None) -> Cell:
    """What people read in four digits, or with so many decimals, and programs in full."""
    if value is None:
        return Cell("-", plain=None)
    return Cell(_short(value) if decimals is None else f"{value:.{decimals}f}", plain=value)


def _short(value: float, digits: int = 4) -> str:
    """Some digits and a suffix: "1.022M"."""
    for suffix, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale:
            return f"{value / scale:.{digits}g}{suffix}"
    return f"{value:.{digits}g}"
