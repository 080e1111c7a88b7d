"""Tables: one way to say what is in them, four ways to write them.

Everything in a table that people see is a frozen `Table(title, columns, rows, notes)`:

    Table("Ways to pay", (Column("way"), Column("cost", unit="usd", interval=True),
                          Column("source", least=12)),
          [("spot", Estimate(120.0, 90.0, 170.0), "price book"), ("own", None, "no price known")],
          notes=["prices of 2026-03"], currency="EUR")

A cell is text, a number in the inner unit of its column (`units.show`: seconds, usd, kwh, bytes,
count, fraction), an `Estimate`, True or False, None for what is not known, a `Figure` where the
units of a column differ, or a `Cell` where what a person reads and what a program reads
(`Cell.plain`) differ. `show(tables, format)` writes them all:

    text       aligned in the console's width, numbers as people read them ("4.00 min", "$1.96M");
               a column with `interval` is two: value, and 90% interval; long text is cut, goes on
               below (`Column.wrap`) or has lines of its own under its row (`Column.below`)
    markdown   the same words between pipes
    csv        figures in full in their inner unit (money in USD) under `Column.key`; one with
               `interval` is KEY, KEY_low, KEY_high; what is not known is empty. Several tables:
               each under a line with its title, parted by an empty line
    json       {"tables": [{"title", "columns": [{"key", "title", "unit"}], "rows": [{KEY: value}],
               "notes"}]}; an estimate is {"value", "low", "high", "basis", "source"}

A verb whose JSON says more than its tables hands it as `plain` to `show`; `--json` is short for
`--format json` (`cli.formats.add` and `cli.formats.chosen`). All works at 80 columns, in a pipe (no
colour, 100 columns) and where a terminal knows only ASCII. rich is imported inside the functions,
`report.aligned` (text) and `report.formats` (Markdown, CSV, JSON) too: importing this module costs
nothing.
"""

from __future__ import annotations

import math
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING, Literal, NamedTuple, TextIO

from curbcut import units
from curbcut.spec import UNIT_OF, Estimate

if TYPE_CHECKING:
    from rich.console import Console

MIN_WIDTH = 80
PIPE_WIDTH = 100

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


def figure(value: float | None, section: str, currency: str = "USD") -> str:
    """One value as a person reads it, in the unit of its section; "unknown" for None."""
    return quantity(value, UNIT_OF[section], currency)


def quantity(value: float | None, unit: str, currency: str = "USD") -> str:
    """One value as a person reads it, given in the inner unit `unit`; "unknown" for None."""
    if value is None:
        return "unknown"
    if not math.isfinite(value):
        return "no bound" if value > 0 else "-no bound"
    if unit == "usd":
        return money(value, currency)
    if unit == "tokens/s":
        return f"{units.sig(value)} tok/s"
    return units.show(value, unit)


def money(usd: float, currency: str = "USD") -> str:
    """`usd` in a currency, at the facts' rate; raises UnknownName for one without a rate.

    From 1,000 on no cents are said, from 10,000 on three digits: a forecast knows no more.
    """
    if currency == "USD":
        return f"${_large(usd)}" if abs(usd) >= 1e3 else units.show(usd, "usd")
    from curbcut.facts.currency import usd_per

    amount = usd / usd_per(currency).value
    if abs(amount) >= 1e3:
        return f"{_large(amount)} {currency}"
    text = f"{amount:,.2f}" if abs(amount) >= 0.1 else units.small(amount)
    return f"{text} {currency}"


def _large(amount: float) -> str:
    factor, letter = next(((f, n) for f, n in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k"))
                           if abs(amount) >= f), (0.0, ""))
    return f"{units.sig(amount / (1e3 if letter == 'k' else factor))}{letter}" if letter else (
        f"{amount:,.0f}")


def interval(estimate: Estimate, section: str, currency: str = "USD", *,
             beside_value: bool = False) -> str:
    """Low to high; the unit is said once where both have it. Empty without an interval.

    With `beside_value` it is not said at all where the value, printed next to it, has it too.
    """
    return span(estimate, UNIT_OF[section], currency, beside_value=beside_value)


def span(estimate: Estimate, unit: str, currency: str = "USD", *,
         beside_value: bool = False) -> str:
    """`interval` of a figure that is in the inner unit `unit`."""
    if estimate.low is None or estimate.high is None or estimate.low == estimate.high:
        return ""
    assert estimate.value is not None
    near = estimate.low > 0 and estimate.high < FAR * estimate.low
    like = estimate.value if beside_value and near and unit in _LIKE else None
    low, high, value = (units.show(end, unit, like) if like else quantity(end, unit, currency)
                        for end in (estimate.low, estimate.high, estimate.value))
    unit = _unit(low)
    if unit and unit == _unit(high):
        low = low.removesuffix(unit)
        if beside_value and unit == _unit(value):
            high = high.removesuffix(unit)
    if beside_value and {low[:1], high[:1], value[:1]} == {"$"}:
        low, high = low[1:], high[1:]
    return f"{low} .. {high}"


_LIKE = frozenset({"kwh", "kgco2e", "watts", "joules", "litres", "bytes"})
"""Dimensions of which both ends of an interval are said in the unit of the value beside it."""
FAR = 1000
"""Ends that are this many times apart each keep their own."""


def _unit(text: str) -> str:
    """What follows the number, its space included; "" where nothing does.

    The letter of "64.6k" is none: left out, "64.6 .. 162k" would say something else.
    """
    if text.endswith("%"):
        return "%"
    number, space, unit = text.partition(" ")
    return space + unit if number[:1] in "-$0123456789" else ""


Format = Literal["text", "markdown", "csv", "json"]
Plain = str | float | bool | Estimate | None
"""What a program reads in a cell."""


class Cell(NamedTuple):
    """A piece of text, its rich style, and what a program reads in its place."""

    text: str
    style: str = ""
    plain: Plain | EllipsisType = ...
    """The text itself where nothing else is said."""


class Figure(NamedTuple):
    """A number in a unit of its own, where those of a column differ."""

    value: float | Estimate | None
    unit: str


Value = Plain | Cell | Figure
"""What may stand in a table; an int is a float."""


class Column(NamedTuple):
    """A column's heading, its side, and the width below which it is not cut (0: never cut or
    wrapped).
    """

    title: str
    right: bool = False
    """Numbers stand on the right unasked."""
    least: int = 0
    unit: str = ""
    """Dimension of its numbers (`units.show`)."""
    interval: bool | str = False
    """Whether low and high of its estimates are said too; a heading other than "90% interval"."""
    name: str = ""
    """What programs call it; the title and the unit where it is empty."""
    wrap: bool = False
    """Whether text that is too long goes on below; else it is cut."""
    below: bool = False
    """Whether people read it in lines of its own under its row."""
    only: Literal["", "people", "programs"] = ""
    """Who reads it; "" for both."""

    @property
    def key(self) -> str:
        """What programs call it: "cost" in usd is "cost_usd"."""
        if self.name:
            return self.name
        words = re.sub(r"[^a-z0-9]+", "_", self.title.lower()).strip("_") or "what"
        suffix = _SUFFIXES.get(self.unit, self.unit)
        return f"{words}_{suffix}" if suffix and not words.endswith(suffix) else words


_SUFFIXES = {"count": "", "fraction": "share", "flops/s": "flops_per_second",
             "bytes/s": "bytes_per_second", "tokens/s": "tokens_per_second"}


@dataclass(frozen=True)
class Table:
    """What is printed, in every format. Keys of columns differ within a table; one without columns
    is a heading with sentences, and not in CSV.
    """

    title: str
    """Printed above it; "" for none."""
    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Value]]
    notes: Sequence[str] = ()
    """Sentences below it; not in CSV."""
    currency: str = "USD"
    """What people read money in; programs always read USD."""


def show(tables: Sequence[Table], chosen: Format = "text", *,
         plain: object = None, console: Console | None = None) -> None:
    """Prints tables in one format; JSON is of `plain` in their place where it is given."""
    if chosen == "text":
        console = console or plain_console()
        for i, table in enumerate(tables):
            if i:
                console.print()
            print_table(table, console)
        return
    from curbcut.report import formats

    stream = console.file if console else sys.stdout
    stream.write(formats.written(tables, chosen, plain))


def print_table(table: Table, console: Console) -> None:
    """Prints one table as people read it: title, aligned columns, notes."""
    from rich.text import Text

    from curbcut.report.aligned import print_rows

    if table.title:
        console.print(Text(table.title, "bold"))
    if table.rows:
        print_rows(console, *spelt(table))
    for note in table.notes:
        console.print(Text(note, "dim" if table.columns else ""))


def spelt(table: Table) -> tuple[list[Column], list[list[Cell]]]:
    """Columns and cells as people read them; an interval that some row has is a column."""
    columns: list[Column] = []
    parts: list[list[Cell]] = []
    for i, column in enumerate(table.columns):
        if column.only == "programs":
            continue
        values = [row[i] for row in table.rows]
        columns.append(column._replace(right=column.right or any(map(_is_number, values))))
        parts.append([_said(value, column.unit, table.currency) for value in values])
        spans = [Cell(_span(value, column.unit, table.currency) if column.interval else "")
                 for value in values]
        if any(cell.text for cell in spans):
            heading = column.interval if isinstance(column.interval, str) else "90% interval"
            columns.append(Column(heading, right=True))
            parts.append(spans)
    return columns, [list(row) for row in zip(*parts, strict=True)]


def _is_number(value: Value) -> bool:
    found = read(value)
    return isinstance(found, float | int | Estimate) and not isinstance(found, bool)


def _span(value: Value, unit: str, currency: str) -> str:
    if isinstance(value, Figure):
        value, unit = value
    return span(value, unit, currency, beside_value=True) if isinstance(value, Estimate) else ""


def read(value: Value) -> Plain:
    """What a program reads in a cell."""
    if isinstance(value, Figure):
        return value.value
    if not isinstance(value, Cell):
        return value
    return value.text if value.plain is ... else value.plain


def _said(value: Value, unit: str, currency: str) -> Cell:
    if isinstance(value, Cell):
        return value
    if isinstance(value, str):
        return Cell(" ".join(value.splitlines()))
    if isinstance(value, bool):
        return Cell("yes", "green") if value else Cell("no", "dim")
    if isinstance(value, int) and not unit:
        return Cell(f"{value:,}")
    if isinstance(value, Figure):
        value, unit = value
    if isinstance(value, Estimate):
        value = value.value
    return Cell(quantity(value, unit, currency), "" if value is not None else "dim")
