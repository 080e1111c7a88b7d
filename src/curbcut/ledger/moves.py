"""What `holds` moves between what is held and what is spent, gathered and written together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from curbcut.ledger import schema as tables
from curbcut.ledger.amounts import Unit
from curbcut.ledger.budgets import Budget
from curbcut.ledger.periods import Period

_AT_ONCE = 500
"""Ids in one query; databases bound the number of values."""


_ROW = tables.balances.c
_MOVE = sa.update(tables.balances).where(
    *(_ROW[name] == sa.bindparam(f"at_{name}") for name in ("scope", "unit", "period", "start"))
).values(held=_ROW.held + sa.bindparam("more_held"), spent=_ROW.spent + sa.bindparam("more_spent"))


_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
# Statements are put together once: that takes longer than many of them run.
_HOLDS = sa.select(tables.holds).where(tables.holds.c.id.in_(_IDS))
_LINES = sa.select(tables.hold_lines).where(tables.hold_lines.c.hold.in_(_IDS))
_FORGET = (sa.delete(tables.hold_lines).where(tables.hold_lines.c.hold.in_(_IDS)),
           sa.delete(tables.holds).where(tables.holds.c.id.in_(_IDS)))


class Place(NamedTuple):
    """One balance."""

    scope: str
    unit: Unit
    period: Period
    start: int


class Moves:
    """Changes of balances, added up by place, and new lines of holds: either something is taken, or
    what was taken is moved.
    """

    def __init__(self) -> None:
        """Nothing moved yet."""
        self.held: dict[Place, int] = {}
        self.spent: dict[Place, int] = {}
        self._lines: list[dict[str, Any]] = []

    def take(self, hold: str, place: Place, amount: int) -> None:
        """Holds `amount` for a hold."""
        self._lines.append({"hold": hold, **place._asdict(), "amount": amount})
        self.held[place] = self.held.get(place, 0) + amount

    def move(self, place: Place, *, held: int, spent: int) -> None:
        """Changes a balance that is there; both may be negative."""
        self.held[place] = self.held.get(place, 0) + held
        self.spent[place] = self.spent.get(place, 0) + spent

    def write(self, connection: sa.Connection) -> None:
        """Writes all of it."""
        if self._lines:  # what is taken may be the first of its balance
            balances, lines = _takes(connection.dialect.name)
            connection.execute(balances, [{**place._asdict(), "spent": 0, "held": held}
                                          for place, held in self.held.items()])
            connection.execute(lines, self._lines)
        elif self.held:
            connection.execute(_MOVE, [
                {**{f"at_{name}": value for name, value in place._asdict().items()},
                 "more_held": held, "more_spent": self.spent[place]}
                for place, held in self.held.items()])


@cache
def _takes(dialect: str) -> tuple[sa.Insert, sa.Insert]:
    """What adds to balances and to lines of holds, whether they are there or not."""
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    new, line = insert(tables.balances), insert(tables.hold_lines)
    return (new.on_conflict_do_update(
                index_elements=list(Place._fields),
                set_={"held": tables.balances.c.held + new.excluded.held}),
            line.on_conflict_do_update(
                index_elements=["hold", "scope", "unit", "period"],
                set_={"amount": tables.hold_lines.c.amount + line.excluded.amount}))


def place_of(budget: Budget) -> Place:
    """Its balance."""
    return Place(budget.scope, budget.unit, budget.period, budget.start)


def holds(connection: sa.Connection, ids: Sequence[str]) -> list[Any]:
    """The rows of those that are there."""
    return [row for some in _parts(ids) for row in connection.execute(_HOLDS, {"ids": some})]


def lines_of(connection: sa.Connection, ids: Sequence[str]) -> Iterator[tuple[str, Place, int]]:
    """Hold, place and amount of each line of these holds."""
    for some in _parts(ids):
        for line in connection.execute(_LINES, {"ids": some}).all():
            yield (line.hold, Place(line.scope, line.unit, line.period, line.start), line.amount)


def lines(connection: sa.Connection, ids: Sequence[str]) -> list[tuple[Place, int]]:
    """Place and amount of each."""
    return [(place, amount) for _, place, amount in lines_of(connection, ids)]


def left(connection: sa.Connection, place: Place) -> int | None:
    """What is left at a balance, negative where it is overdrawn; None where its budget is ended."""
    budget, row = tables.budgets.c, tables.balances.c
    amount: int | None = connection.scalar(sa.select(budget.amount).where(
        budget.scope == place.scope, budget.unit == place.unit, budget.period == place.period))
    if amount is None:
        return None
    spent, held = connection.execute(sa.select(row.spent, row.held).where(*_at(place))).one()
    return amount - int(spent) - int(held)


def spend(connection: sa.Connection, place: Place, more: int) -> None:
    """Charges `more` that was not held."""
    connection.execute(sa.update(tables.balances).where(*_at(place)).values(
        spent=tables.balances.c.spent + more))


def update_holds(connection: sa.Connection, values: Sequence[dict[str, Any]]) -> None:
    """Sets columns of holds; each of `values` has the same ones, and `of`, the id."""
    if values:
        names = tuple(name for name in values[0] if name != "of")
        connection.execute(_setting(names), [
            {"of": one["of"], **{f"new_{name}": one[name] for name in names}} for one in values])


@cache
def _setting(names: tuple[str, ...]) -> sa.Update:
    return sa.update(tables.holds).where(tables.holds.c.id == sa.bindparam("of")).values(
        {name: sa.bindparam(f"new_{name}") for name in names})


def forget(connection: sa.Connection, ids: Sequence[str]) -> None:
    """Takes out holds that have come to their end."""
    for some in _parts(ids):
        for statement in _FORGET:
            connection.execute(statement, {"ids": some})


def scopes_of(connection: sa.Connection, hold: Any) -> tuple[str, ...]:
    """Scopes of the request that a hold is of."""
    scopes = (f"organisation:{hold.organisation}", f"project:{hold.project}")
    if not hold.key_id:
        return scopes
    first = connection.scalar(sa.select(tables.keys.c.rotated_from).where(
        tables.keys.c.id == hold.key_id))
    return (*scopes, f"key:{first or hold.key_id}")


def _at(place: Place) -> tuple[Any, ...]:
    row = tables.balances.c
    return (row.scope == place.scope, row.unit == place.unit, row.period == place.period,
            row.start == place.start)


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(ids), _AT_ONCE):
        yield ids[first:first + _AT_ONCE]
