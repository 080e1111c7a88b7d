"""Where limits, budgets and texts stand: "organisation:NAME", "project:NAME", "key:ID"; texts also
"model:NAME".
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from curbcut.errors import UnknownName
from curbcut.ledger import schema as tables

KINDS = ("organisation", "project", "key")


def check_scope(connection: sa.Connection, scope: str) -> str:
    """`scope`, of a rotated key that of the first of its line, where limits and budgets of all of
    them stand; raises UnknownName for a scope of nothing that is there.
    """
    kind, _, name = scope.partition(":")
    if kind == "organisation":
        check_organisation(connection, name)
    elif kind == "project":
        check_project(connection, name)
    elif kind == "key":
        row = connection.execute(sa.select(tables.keys.c.id, tables.keys.c.rotated_from).where(
            tables.keys.c.id == name)).first()
        if row is None:
            raise UnknownName("key id", name, connection.scalars(sa.select(tables.keys.c.id)),
                              where="keys")
        return f"key:{row.rotated_from or row.id}"
    else:
        raise UnknownName("kind of scope", kind, KINDS, where=scope)
    return scope


def check_organisation(connection: sa.Connection, name: str) -> None:
    """Raises UnknownName where there is none of this name."""
    known = sa.select(tables.organisations.c.name)
    if connection.scalar(known.where(tables.organisations.c.name == name)) is None:
        raise UnknownName("organisation", name, connection.scalars(known), where="organisations")


def check_project(connection: sa.Connection, name: str) -> str:
    """The organisation of the project; raises UnknownName where none of this name is live."""
    live = sa.select(tables.projects).where(tables.projects.c.archived.is_(None))
    row = connection.execute(live.where(tables.projects.c.name == name)).first()
    if row is None:
        raise UnknownName("project", name, [one.name for one in connection.execute(live)],
                          where="projects")
    return str(row.organisation)


def live_key(connection: sa.Connection, name: str) -> Any:
    """The row of the live key of this name; raises UnknownName."""
    live = sa.select(tables.keys).where(tables.keys.c.revoked.is_(None))
    row = connection.execute(live.where(tables.keys.c.name == name)).first()
    if row is None:
        raise UnknownName("live key", name, [one.name for one in connection.execute(live)],
                          where="keys")
    return row
