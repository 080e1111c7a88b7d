"""How figures look in a console: one vocabulary for all tables.

Works at 80 columns, in a pipe (no colour, 100 columns) and where a terminal knows only ASCII.
rich is imported inside the functions: importing this module costs nothing.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TextIO

from curbcut import units
from curbcut.spec import UNIT_OF, Estimate

if TYPE_CHECKING:
    from rich.console import Console

MIN_WIDTH = 80
PIPE_WIDTH = 100

GROUPS: Mapping[str, tuple[str, ...]] = {
    "time": ("seconds", "tokens", "tokens_per_second", "flops"),
    "memory": ("memory_bytes",),
    "use": ("mfu", "hfu", "goodput"),
    "money": ("usd",),
    "ways to pay": ("usd_ways",),
    "energy": ("watts", "kwh", "kwh_modelled", "joules_per_token"),
    "carbon": ("kgco2e",),
    "water": ("litres",),
    "loss": ("loss",),
}
"""Sections of an account, as a person groups them."""

_LABELS = {
    ("tokens", "trained"): "tokens", ("tokens_per_second", "steps"): "speed",
    ("tokens_per_second", "answers"): "asked to serve",
    ("tokens_per_second", "most"): "most to serve", ("memory_bytes", "server"): "to serve",
    ("mfu", "run"): "MFU", ("hfu", "run"): "HFU", ("goodput", "run"): "goodput",
    ("loss", "nats_per_token"): "nats a token", ("loss", "bits_per_byte"): "bits a byte",
}


def plain_console(file: TextIO | None = None) -> Console:
    """A console that prints text as it stands, at least 80 columns wide."""
    from rich.console import Console

    stream = file or sys.stdout
    if not _speaks_unicode(stream) and hasattr(stream, "reconfigure"):
        # Better a question mark in a source than no table at all.
        stream.reconfigure(errors="replace")
    width = max(MIN_WIDTH, shutil.get_terminal_size((PIPE_WIDTH, 24)).columns)
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False,
                   soft_wrap=False)


def _speaks_unicode(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def label(section: str, kind: str) -> str:
    """What a person calls one figure of an account."""
    known = _LABELS.get((section, kind))
    if known:
        return known
    kind = kind.replace("_", " ")
    return {"flops": f"{kind} FLOPs", "watts": f"{kind} power",
            "kwh_modelled": f"{kind} (model)"}.get(section, kind)


def figure(value: float | None, section: str, currency: str = "USD") -> str:
    """One value as a person reads it, in the unit of its section; "unknown" for None."""
    if value is None:
        return "unknown"
    if not math.isfinite(value):
        return "no bound" if value > 0 else "-no bound"
    if section == "usd" and currency != "USD":
        return money(value, currency)
    if section == "tokens_per_second":
        return f"{units.sig(value)} tok/s"
    return units.show(value, UNIT_OF[section])


def money(usd: float, currency: str) -> str:
    """`usd` in another currency, at the facts' rate; raises UnknownName for one without a rate."""
    from curbcut.facts.currency import usd_per

    amount = usd / usd_per(currency).value
    text = f"{amount:,.2f}" if abs(amount) >= 0.1 else units.small(amount)
    return f"{text} {currency}"


def interval(estimate: Estimate, section: str, currency: str = "USD", *,
             beside_value: bool = False) -> str:
    """Low to high; the unit is said once where both have it. Empty without an interval.

    With `beside_value` it is not said at all where the value, printed next to it, has it too.
    """
    if estimate.low is None or estimate.high is None or estimate.low == estimate.high:
        return ""
    low, high, value = (figure(end, section, currency)
                        for end in (estimate.low, estimate.high, estimate.value))
    unit = _unit(low)
    if unit and unit == _unit(high):
        low = low.removesuffix(unit)
        if beside_value and unit == _unit(value):
            high = high.removesuffix(unit)
    if beside_value and {low[:1], high[:1], value[:1]} == {"$"}:
        low, high = low[1:], high[1:]
    return f"{low} .. {high}"


def _unit(text: str) -> str:
    """What follows the number, its space included; "" where nothing does."""
    return text.lstrip("-$0123456789.,e+") if text[:1] in "-$0123456789" else ""


class Cell(NamedTuple):
    """A piece of text and its rich style."""

    text: str
    style: str = ""


class Column(NamedTuple):
    """A column's heading, its side, and the width below which it is not cut (0: never cut)."""

    title: str
    right: bool = False
    least: int = 0


def print_rows(console: Console, columns: Sequence[Column],
               rows: Sequence[Sequence[Cell | str]]) -> None:
    """Prints aligned columns in the console's width; the last columns are cut first, with "…"."""
    from rich.text import Text

    table = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    head = [Cell(column.title, "dim") for column in columns]
    gap = "  "
    if sum(_natural([head, *table])) + len(gap) * (len(columns) - 1) > console.width:
        gap = " "
    widths = _widths([head, *table], columns, console.width - len(gap) * (len(columns) - 1))
    for row in [head, *table]:
        line = Text(no_wrap=True, overflow="crop")
        for column, width, cell in zip(columns, widths, row, strict=True):
            text = cell.text if len(cell.text) <= width else cell.text[:width - 1] + "…"
            line.append(text.rjust(width) if column.right else text.ljust(width), cell.style)
            line.append(gap)
        line.rstrip()
        console.print(line)


def _natural(rows: Sequence[Sequence[Cell]]) -> list[int]:
    return [max(len(cell.text) for cell in column) for column in zip(*rows, strict=True)]


def _widths(rows: Sequence[Sequence[Cell]], columns: Sequence[Column], limit: int) -> list[int]:
    widths = _natural(rows)
    excess = sum(widths) - limit
    for i in reversed(range(len(columns))):
        if excess > 0 and columns[i].least:
            cut = min(excess, max(0, widths[i] - columns[i].least))
            widths[i] -= cut
            excess -= cut
    return widths
