"""Budgets of organisations, projects and keys, and what is spent and held of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from curbcut.errors import InputError, UnknownName
from curbcut.ledger import audit
from curbcut.ledger import schema as tables
from curbcut.ledger.amounts import MOST, NAMES, UNITS, Unit
from curbcut.ledger.leases import clock
from curbcut.ledger.periods import PERIODS, Period, start_of
from curbcut.ledger.scopes import check_scope

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a scope may take of one unit in a period, and what it has taken in this one."""

    scope: str
    unit: Unit
    period: Period
    amount: int
    """In whole units: tokens, nanodollars, millijoules."""
    start: int = 0
    """When this period began, seconds since 1970."""
    spent: int = 0
    held: int = 0

    @property
    def left(self) -> int:
        """What can still be held; never negative."""
        return max(0, self.amount - self.spent - self.held)


def set_budget(ledger: Ledger, scope: str, unit: Unit, amount: int | None, *,
               period: Period = "all", actor: str) -> None:
    """From now on `scope` may take `amount` of `unit` in each `period`; None ends the budget.

    What was used in this period already counts, and so does what is held. Raises InputError for
    what is no budget, UnknownName for a scope that is not there, and for the end of a budget that
    is not.
    """
    if unit not in UNITS:
        raise UnknownName("unit", unit, UNITS, where="budgets")
    if period not in PERIODS:
        raise UnknownName("period", period, PERIODS, where="budgets")
    if amount is not None and not (isinstance(amount, int) and 0 <= amount < MOST):
        raise InputError(f"{amount} is no budget", where="budgets",
                         mend="give a whole number, 0 or more")
    row = tables.budgets.c
    with ledger.writing() as connection:
        scope = check_scope(connection, scope)
        ended = connection.execute(sa.delete(tables.budgets).where(
            row.scope == scope, row.unit == unit, row.period == period))
        if amount is not None:
            connection.execute(tables.budgets.insert().values(scope=scope, unit=unit,
                                                              period=period, amount=amount))
            if not ended.rowcount:
                _open(connection, scope, unit, period)
        elif not ended.rowcount:
            there = connection.execute(sa.select(row.scope, row.unit, row.period)).all()
            raise UnknownName("budget", f"{scope} {NAMES[unit]} {period}", [
                f"{one.scope} {NAMES[one.unit]} {one.period}" for one in there], where="budgets")
        audit.append(connection, actor, "budget.set", scope,
                     {"unit": unit, "period": period, "amount": amount})


def budgets(ledger: Ledger, scopes: Sequence[str] = (), *, when: float | None = None
            ) -> list[Budget]:
    """All budgets of `scopes` (of all where none is named) as they stand in the period of `when`
    (now).
    """
    with ledger.reading() as connection:
        return read(connection, scopes, time.time() if when is None else when)


def budgeted(ledger: Ledger) -> frozenset[tuple[str, Unit]]:
    """Which scopes have a budget of which unit."""
    with ledger.reading() as connection:
        found = connection.execute(sa.select(tables.budgets.c.scope, tables.budgets.c.unit))
        return frozenset((row.scope, row.unit) for row in found)


def read(connection: sa.Connection, scopes: Sequence[str], when: float) -> list[Budget]:
    """The same in a transaction of the caller's."""
    starts: dict[str, int] = {period: start_of(period, when) for period in PERIODS}
    values: dict[str, Any] = {**starts}
    if scopes:
        values["scopes"] = list(scopes)
    found = connection.execute(_OF_SCOPES if scopes else _ALL, values)
    return [Budget(scope=row.scope, unit=row.unit, period=row.period, amount=row.amount,
                   start=starts[row.period], spent=row.spent or 0, held=row.held or 0)
            for row in found]


def _query() -> sa.Select[Any]:
    """All budgets with their balances in the periods that begin as `PERIODS` are bound to say."""
    budget, balance = tables.budgets.c, tables.balances.c
    now = sa.or_(*(sa.and_(balance.period == period, balance.start == sa.bindparam(period))
                   for period in PERIODS))
    return sa.select(tables.budgets, balance.spent, balance.held).select_from(
        tables.budgets.outerjoin(tables.balances, sa.and_(
            budget.scope == balance.scope, budget.unit == balance.unit,
            budget.period == balance.period, now))).order_by(
        budget.scope, budget.unit, budget.period)


# Put together once: each request reads them.
_ALL = _query()
_OF_SCOPES = _ALL.where(tables.budgets.c.scope.in_(sa.bindparam("scopes", expanding=True)))


def _open(connection: sa.Connection, scope: str, unit: Unit, period: Period) -> None:
    """The balance of a new budget: what its scope used in this period, and what is held for it."""
    start = start_of(period, clock(connection))
    at = {"scope": scope, "unit": unit, "period": period, "start": start}
    tokens = tables.uses.c.prompt_tokens + tables.uses.c.output_tokens
    used = {"tokens": tokens, "nanousd": tables.uses.c.charged_nanousd,
            "millijoules": tables.uses.c.millijoules}[unit]
    spent = connection.scalar(sa.select(sa.func.sum(used)).where(
        _within(tables.uses, scope), tables.uses.c.time >= start))
    column, row = tables.hold_lines.c, tables.balances.c
    here = (column.scope == scope, column.unit == unit, column.period == period)
    connection.execute(sa.delete(tables.hold_lines).where(*here, column.start == start))
    other = sa.select(column.hold).where(*here)  # held since a period before this one
    # Abandoned ones have their line too: they may be held again.
    lines = connection.execute(sa.select(tables.holds.c.id, tables.holds.c[unit].label("amount"),
                                         tables.holds.c.state).where(
        _within(tables.holds, scope), tables.holds.c.state.in_(("held", "abandoned")),
        tables.holds.c.id.not_in(other))).all()
    connection.execute(sa.delete(tables.balances).where(
        *(row[name] == value for name, value in at.items())))
    connection.execute(tables.balances.insert().values(
        **at, spent=int(spent or 0),
        held=sum(line.amount for line in lines if line.state == "held")))
    if lines:
        connection.execute(tables.hold_lines.insert(), [
            {"hold": line.id, **at, "amount": line.amount} for line in lines])


def _within(table: sa.Table, scope: str) -> sa.ColumnElement[bool]:
    """Rows of uses or holds that count for a scope; a key's are those of its whole line."""
    kind, _, name = scope.partition(":")
    if kind != "key":
        return table.c[kind] == name
    line = sa.select(tables.keys.c.id).where(sa.or_(tables.keys.c.id == name,
                                                    tables.keys.c.rotated_from == name))
    return table.c.key_id.in_(line)
