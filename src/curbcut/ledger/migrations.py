"""How an older ledger becomes one of this version, in place and in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import sqlalchemy as sa

from curbcut.ledger import schema

DEFAULT = "default"
"""Name of the organisation and the project that stand from the beginning."""


def upgrade(connection: sa.Connection, version: int) -> None:
    """Brings the tables of `version` to `schema.VERSION`, step by step; the caller's transaction
    is writing, and holds whatever keeps others out.
    """
    for before in range(version, schema.VERSION):
        _STEPS[before](connection)
    if version < schema.VERSION:
        connection.execute(schema.about.insert().values(version=schema.VERSION,
                                                        created=time.time()))


def seed(connection: sa.Connection) -> None:
    """The organisation and the project that a ledger begins with."""
    now = time.time()
    connection.execute(schema.organisations.insert().values(name=DEFAULT, created=now))
    connection.execute(schema.projects.insert().values(
        name=DEFAULT, organisation=DEFAULT, created=now))


def _to_2(connection: sa.Connection) -> None:
    """Access came: keys belong to projects, uses know what they cost."""
    new = [table for name, table in schema.metadata.tables.items()
           if name not in sa.inspect(connection).get_table_names()]
    schema.metadata.create_all(connection, tables=new)
    for table in (schema.keys, schema.uses):
        known = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                made = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {made}")
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    seed(connection)
    _place_uses(connection)


def _place_uses(connection: sa.Connection) -> None:
    """Uses by a key are of the default project; and of the last key of the name before them."""
    uses, keys = schema.uses.c, schema.keys.c
    of = sa.select(keys.id).where(keys.name == uses.key, keys.created <= uses.time)
    connection.execute(sa.update(schema.uses).where(uses.key.is_not(None)).values(
        project=DEFAULT, organisation=DEFAULT,
        key_id=of.order_by(keys.created.desc()).limit(1).scalar_subquery()))


_STEPS: Mapping[int, Callable[[sa.Connection], None]] = {1: _to_2}
