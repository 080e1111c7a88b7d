"""Rows of a validation one by one, where a table is small and each row has its own method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from curbcut.report.tables import Cell, Column, print_rows

if TYPE_CHECKING:
    from rich.console import Console

MOST = 60
"""Rows shown; more stand in --rows and --json."""
_COLUMNS = (Column("row", least=24), Column("reported", right=True), Column("unit"),
            Column("own method", right=True), Column("modelled", right=True),
            Column("90% interval", right=True), Column("ratio", right=True))


def print_lines(console: Console, more: Mapping[str, Any]) -> None:
    """Prints the rows that the outcome wants seen, and what its rows at rated power say."""
    lines = more.get("lines") or []
    if lines:
        print_rows(console, _COLUMNS, [_line(one) for one in lines[:MOST]])
        if len(lines) > MOST:
            console.print(f"  and {len(lines) - MOST} more: --rows or --json")
        console.print("  own method: as its source reckons; ratio: modelled over reported\n")
    for name, part in (more.get("error_factors") or {}).items():
        found = part["all"]
        if found["typical"]:
            console.print(f"{name}: typical error factor x{found['typical']:.2f}, 90% of rows "
                          f"within x{found['p90']:.2f}")
    for name, part in (more.get("reproduced") or {}).items():
        if part["rows"]:
            console.print(f"{name}: {part['reproduced']} of {part['rows']} reproduced, largest "
                          f"relative error {part['max_relative_error']:.1e}")
    rated = more.get("rated_power")
    if rated:
        console.print(
            f"Hours x rated power: {rated['reproduced']} of {rated['rows']} reproduced within 1%; "
            f"modelled is {rated['median_ratio']:.2f} of it in the middle "
            f"({rated['least_ratio']:.2f} to {rated['most_ratio']:.2f}), "
            f"{rated['inside']:.0%} within {rated['expected'][0]} to {rated['expected'][1]}: "
            f"{rated['why']}")


def _line(one: Mapping[str, Any]) -> list[Cell]:
    own, ratio = one.get("reproduced"), one.get("ratio")
    low, high = one.get("low"), one.get("high")
    name = one["id"] + (" (from memory)" if one.get("from_memory") else "")
    return [Cell(name), Cell(_figure(one["reported"])), Cell(one["unit"]), Cell(_figure(own)),
            Cell(_figure(one.get("modelled"))),
            Cell("-" if low is None or high is None else f"{_figure(low)} .. {_figure(high)}"),
            Cell("-" if ratio is None else f"{ratio:.2f}")]


def _figure(value: float | None) -> str:
    """Four digits and a suffix: "1.022M"."""
    if value is None:
        return "-"
    for suffix, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale:
            return f"{value / scale:.4g}{suffix}"
    return f"{value:.4g}"
