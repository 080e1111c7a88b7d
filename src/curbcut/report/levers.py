"""The waterfall of levers as tables: the best order, what was left, and the evidence of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from curbcut.facts.levers import Evidence
from curbcut.report.tables import (
    Cell,
    Column,
    Format,
    Table,
    Value,
    plain_console,
    print_table,
    quantity,
    show,
)
from curbcut.spec import Estimate, codec

if TYPE_CHECKING:
    from rich.console import Console

    from curbcut.plan.levers.result import LeverResult, Waterfall

MAYBE = "?"
NOT_HERE = ("not here", "does not fit")
NEARLY_ALL = 0.9995
"""Shares from here on would be rounded to all of it."""


def tables(found: Waterfall, *, full: bool = True) -> list[Table]:
    """The tables of one waterfall. Without `full` those that the text prints: what its list says
    (group, what is set, evidence) is left out.
    """
    made = [_order(found, full)]
    made += [_others(found), _evidence(found)] if full else [_priced(found), _not_here(found)]
    return [table for table in made if table.rows]


def _order(found: Waterfall, full: bool) -> Table:
    unit, currency = found.unit.dimension, found.unit.currency
    more = (Column("group"), Column("sets")) if full else ()
    rows: list[list[Value]] = [
        [str(one.order), Cell(one.name, "bold"), _share(one), _figure(one.marginal, found),
         _figure(one.after, found), MAYBE if one.uncertain else "",
         *((one.group, "; ".join(one.changed)) if full else ())] for one in found.steps]
    columns = (
        Column("#", name="order"), Column("lever"),
        Column("alone", unit="fraction", interval=True, name="saves_alone_share"),
        Column("saves here", right=True, unit=unit, interval=True,
               name=f"saves_after_the_others_{unit}"),
        Column("leaves", right=True, unit=unit, name=f"whole_after_{unit}"),
        Column("", name="uncertain"), *more)
    ends = [_short(one.value, found) for one in (found.start, found.end)]
    title = (f"Levers of {found.run}, {found.scope}: {ends[0]} to {ends[1]}, "
             f"{found.factor:.3g} x less")
    notes = [f"The run: {found.of}.", f"The whole is {found.what}."]
    if rows:
        low, high = (f"{one:.3g}" for one in found.factor_ends)
        notes.append(f"90% intervals: from {_span(found.start, found)}; to "
                     f"{_span(found.end, found)}; {low} .. {high} x less.")
    if not rows:
        return Table(title, (Column("lever"),), [["none saves"]], notes, currency)
    notes.append("alone: saved of the whole by this one; here: priced again on top of those above "
                 "it. Intervals are of the difference: what both runs have in common cancels.")
    if any(one.uncertain for one in found.steps):
        notes.append(f"{MAYBE}: the interval of what it saves here holds nothing: it may save "
                     "none.")
    return Table(title, columns, rows, notes, currency)


def _figure(value: Estimate | float | None, found: Waterfall) -> Cell:
    """A figure that people read to three digits, and programs in full."""
    middle = value.value if isinstance(value, Estimate) else value
    return Cell(_short(middle, found), "", value)


def _short(value: float | None, found: Waterfall) -> str:
    return quantity(value, found.unit.dimension, found.unit.currency)


def _span(whole: Estimate, found: Waterfall) -> str:
    return f"{_short(whole.low, found)} .. {_short(whole.high, found)}"


def _share(one: LeverResult) -> Value:
    share = one.alone_share
    if share is not None and share.value is not None and NEARLY_ALL <= share.value < 1:
        return Cell("> 99.9%", "", share)
    return Cell("", "", None) if share is None else share


def _others(found: Waterfall) -> Table:
    rows: list[list[Value]] = [
        [one.name, one.status, _share(one), _reason(one, found), one.group]
        for one in found.results if one.order is None]
    return Table("Not in the order", (*_COLUMNS, Column("group")), rows, (), found.unit.currency)


_COLUMNS = (Column("lever"), Column("status"),
            Column("saves alone", unit="fraction", interval=True, name="saves_alone_share"),
            Column("why", below=True))


def _priced(found: Waterfall) -> Table:
    """Levers that were priced and not taken."""
    rows = [[one.name, one.status, _share(one), _reason(one, found)]
            for one in found.results if one.order is None and one.status not in NOT_HERE]
    return Table("Not in the order", _COLUMNS, rows, (), found.unit.currency)


def _not_here(found: Waterfall) -> Table:
    """Levers that do not apply, without figures."""
    rows = [[one.name, f"does not fit: {one.reason}" if one.status == "does not fit"
             else one.reason] for one in found.results if one.status in NOT_HERE]
    return Table("Not here", (Column("lever"), Column("why", least=40, wrap=True)), rows)


def _reason(one: LeverResult, found: Waterfall) -> str:
    said = list(one.changed) if one.status in ("costs", "left", "instead", "what-if") else []
    if one.status == "instead" and one.alone and one.alone.value is not None:
        assert found.start.value is not None
        said.insert(0, f"comes to {_short(found.start.value - one.alone.value, found)}")
    return "; ".join([*said, one.reason] if one.reason else said)


def _evidence(found: Waterfall) -> Table:
    rows: list[list[Value]] = [
        [one.name, _ours(one), row.resource, _factor(row), row.kind, row.quote, row.baseline,
         row.year, row.scale, row.regime, row.source]
        for one in found.results for row in one.evidence]
    columns = (Column("lever"), Column("here", name="factor_here"), Column("of", name="resource"),
               Column("published", interval=False, name="factor_published"), Column("kind"),
               Column("as it was stated", least=24, name="quote"),
               Column("baseline", least=1), Column("year", least=1), Column("scale", least=1),
               Column("regime", least=1), Column("source", least=10))
    return Table("Evidence: what we price of this run, beside what was published", columns, rows)


def _ours(one: LeverResult) -> Cell:
    """How many times less of the unit the lever alone comes to here."""
    share = one.alone_share
    if share is None or share.value is None or share.value >= 1:
        return Cell("", "", None)
    factor = 1 / (1 - share.value)
    return Cell(f"{factor:.3g} x", "", factor)


def _factor(row: Evidence) -> Cell:
    if row.factor is None:
        return Cell("", "", None)
    ends = "" if row.low == row.high else f" ({row.low:g}..{row.high:g})"
    return Cell(f"{row.factor:g} x{ends}", "", row.factor)


def as_plain(found: Sequence[Waterfall]) -> dict[str, Any]:
    """Waterfalls for programs; figures in the inner unit (money in USD)."""
    made = []
    for one in found:
        plain: dict[str, Any] = codec.plain(one)
        made.append(plain | {"factor": one.factor})
    return {"waterfalls": made}


def show_levers(found: Sequence[Waterfall], chosen: Format = "text", *, evidence: bool = False,
                console: Console | None = None) -> None:
    """Prints waterfalls in a format. As text, the evidence of levers that were taken is a list;
    with `evidence` that of all.
    """
    if chosen != "text":
        show([table for one in found for table in tables(one)], chosen,
             plain=as_plain(found) if chosen == "json" else None, console=console)
        return
    console = console or plain_console()
    for i, one in enumerate(found):
        if i:
            console.print()
        first, *rest = tables(one, full=False)
        print_table(first, console)
        _print_evidence(one, evidence, console)
        for table in rest:
            console.print()
            print_table(table, console)


def _print_evidence(found: Waterfall, every: bool, console: Console) -> None:
    """What each lever sets, comes to here, and was published to come to."""
    from rich.padding import Padding
    from rich.text import Text

    shown = [one for one in found.results if one.order is not None or (every and one.evidence)]
    if shown:
        console.print("\nWhat each sets and comes to here alone, and what was published of it",
                      style="bold")
    for one in shown:
        line = Text.assemble((one.name, "bold"), f" ({one.group}): {one.what}")
        if one.changed and one.order is not None:
            line.append(f"; sets {'; '.join(one.changed)}")
        ours = _ours(one).text
        if ours:
            line.append(f"; here {ours}", "bold")
        for row in one.evidence:
            line.append(f"; {row.quote}")
            line.append(f" [{row.kind}: {row.source}]", "dim")
        console.print(Padding(line, (0, 0, 0, 2)))
