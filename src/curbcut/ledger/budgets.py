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
from curbcut.ledger.access import check_scope
from curbcut.ledger.amounts import UNITS, Unit
from curbcut.ledger.periods import PERIODS, Period, start_of

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

    What is spent already counts. Raises InputError, UnknownName.
    """
    if unit not in UNITS:
        raise UnknownName("unit", unit, UNITS, where="budgets")
    if period not in PERIODS:
        raise UnknownName("period", period, PERIODS, where="budgets")
    if amount is not None and not 0 <= amount < 2**62:
        raise InputError(f"{amount} is no budget", where="budgets", mend="give 0 or more")
    row = tables.budgets.c
    here = sa.and_(row.scope == scope, row.unit == unit, row.period == period)
    with ledger.writing() as connection:
        check_scope(connection, scope)
        connection.execute(sa.delete(tables.budgets).where(here))
        if amount is not None:
            connection.execute(tables.budgets.insert().values(scope=scope, unit=unit,
                                                              period=period, amount=amount))
        audit.append(connection, actor, "budget.set", scope,
                     {"unit": unit, "period": period, "amount": amount})


def budgets(ledger: Ledger, scopes: Sequence[str] = (), *, when: float | None = None
            ) -> list[Budget]:
    """All budgets of `scopes` (of all where none is named) as they stand in the period of `when`
    (now).
    """
    with ledger.reading() as connection:
        return read(connection, scopes, time.time() if when is None else when)


def read(connection: sa.Connection, scopes: Sequence[str], when: float) -> list[Budget]:
    """The same in a transaction of the caller's, in the order in which balances are locked."""
    query = sa.select(tables.budgets)
    query = query.where(tables.budgets.c.scope.in_(scopes)) if scopes else query
    order = (tables.budgets.c.scope, tables.budgets.c.unit, tables.budgets.c.period)
    found = []
    for row in connection.execute(query.order_by(*order)).all():
        start = start_of(row.period, when)
        balance = connection.execute(sa.select(tables.balances).where(
            *place(row.scope, row.unit, row.period, start))).first()
        found.append(Budget(scope=row.scope, unit=row.unit, period=row.period, amount=row.amount,
                            start=start, spent=balance.spent if balance else 0,
                            held=balance.held if balance else 0))
    return found


def place(scope: str, unit: str, period: str, start: int) -> tuple[Any, ...]:
    """What picks one row of the balances."""
    row = tables.balances.c
    return row.scope == scope, row.unit == unit, row.period == period, row.start == start
