"""Where a server's joules and money went, by stretches of time.

Lines of kind `requests` went to requests (each one's share stands with its use), `idle` to nobody,
`lost` to work whose request was never settled; `correction` makes the sum of a stretch equal what
the counter said, and may be negative. A line belongs to the time at which it starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import sqlalchemy as sa

from curbcut.errors import UnknownName
from curbcut.ledger.schema import meterings

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

MeteringKind = Literal["requests", "idle", "lost", "correction"]
KINDS: tuple[MeteringKind, ...] = get_args(MeteringKind)


@dataclass(frozen=True, kw_only=True)
class Metering:
    """One line; figures that are not known are None."""

    server: str
    """Id of the serving process."""
    model: str
    """Empty where it is of no model, as an idle shelf."""
    kind: MeteringKind
    start: float
    """Seconds since 1970."""
    end: float
    seconds: float
    """Of work, or of waiting, within the stretch."""
    millijoules: int | None
    cost_nanousd: int | None
    kgco2e: float | None
    basis: str
    """measured, modelled, default, given."""
    source: str


@dataclass(frozen=True, kw_only=True)
class MeteringSum:
    """Lines of one model, kind and basis together."""

    model: str
    kind: MeteringKind
    basis: str
    lines: int
    seconds: float
    millijoules: int | None
    """None where no line knows it."""
    cost_nanousd: int | None
    kgco2e: float | None
    without_millijoules: int
    """Lines that do not know it."""


def record_meterings(ledger: Ledger, lines: Sequence[Metering]) -> None:
    """Adds lines, all or none; durable on return. Raises UnknownName for a kind there is not."""
    for line in lines:
        if line.kind not in KINDS:
            raise UnknownName("kind of metering", line.kind, KINDS, where="meterings")
    if lines:
        with ledger.writing() as connection:
            connection.execute(meterings.insert(), [vars(line) for line in lines])


def sum_meterings(ledger: Ledger, start: float | None = None,
                  end: float | None = None) -> list[MeteringSum]:
    """Lines that start from `start` on and before `end` (seconds since 1970), added up by model,
    kind and basis.
    """
    row = meterings.c
    group = (row.model, row.kind, row.basis)
    counted = (sa.func.count().label("lines"),
               *(sa.func.sum(row[name]).label(name)
                 for name in ("seconds", "millijoules", "cost_nanousd", "kgco2e")),
               sa.func.count(row.millijoules).label("with_millijoules"))
    query = sa.select(*group, *counted).where(*_chosen(start, end))
    with ledger.reading() as connection:
        return [MeteringSum(
            model=line.model, kind=line.kind, basis=line.basis, lines=line.lines,
            seconds=float(line.seconds), millijoules=_whole(line.millijoules),
            cost_nanousd=_whole(line.cost_nanousd), kgco2e=line.kgco2e,
            without_millijoules=line.lines - line.with_millijoules)
            for line in connection.execute(query.group_by(*group).order_by(*group))]


def sources(ledger: Ledger, start: float | None = None, end: float | None = None) -> list[str]:
    """How the figures of the same lines are known, each way once, in the order of the alphabet."""
    query = sa.select(meterings.c.source).distinct().where(*_chosen(start, end))
    with ledger.reading() as connection:
        return list(connection.scalars(query.order_by(meterings.c.source)))


def _whole(value: Any) -> int | None:
    # PostgreSQL adds whole numbers up as decimals.
    return None if value is None else int(value)


def _chosen(start: float | None, end: float | None) -> list[sa.ColumnElement[bool]]:
    tests = []
    if start is not None:
        tests.append(meterings.c.start >= start)
    if end is not None:
        tests.append(meterings.c.start < end)
    return tests
