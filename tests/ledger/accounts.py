"""Budgets and requests for tests of holds."""

from __future__ import annotations

from sqlalchemy import func, select

from curbcut.ledger import access, budgets, schema
from curbcut.ledger.amounts import Amount
from curbcut.ledger.holds import Taken, Wanted

UNITS = {"tokens": "tokens", "nanousd": "charged_nanousd", "millijoules": "millijoules"}


def caller(ledger, name="ann", **given):
    return access.verify(ledger, access.issue_key(ledger, name, actor="test", **given))


def wanted(who, tokens=0, nanousd=0, millijoules=0):
    return Wanted(scopes=who.scopes, project=who.project, organisation=who.organisation,
                  model="tiny", key_id=who.key_id, key=who.key,
                  most=Amount(tokens=tokens, nanousd=nanousd, millijoules=millijoules))


def taken(tokens=0, nanousd=0, **given):
    return Taken(prompt_tokens=0, output_tokens=tokens, nanousd=nanousd, **given)


def set_budget(ledger, scope, amount, unit="nanousd", **given):
    budgets.set_budget(ledger, scope, unit, amount, actor="test", **given)


def standing(ledger, scope, unit="nanousd"):
    """Spent, held and left of a scope's one budget of this unit."""
    [found] = [one for one in budgets.budgets(ledger, [scope]) if one.unit == unit]
    return found.spent, found.held, found.left


def uses(ledger, column="charged_nanousd"):
    """Sum of a column over all uses, and how many there are."""
    with ledger.reading() as connection:
        total = select(func.coalesce(func.sum(schema.uses.c[column]), 0), func.count())
        row = connection.execute(total.select_from(schema.uses)).one()
        return int(row[0]), row[1]


def rows(ledger, table):
    with ledger.reading() as connection:
        return connection.scalar(select(func.count()).select_from(table))
