"""Serving processes and their leases: who has not said for a while that it lives is dead."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from curbcut.ledger.schema import servers

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

LEASE_SECONDS = 30.0
"""A server that has not said for so long that it lives is dead."""


def clock(connection: sa.Connection) -> float:
    """Seconds since 1970 on the one clock that all who share this ledger go by: the database's, or
    that of the computer that has the file.
    """
    if connection.dialect.name == "postgresql":
        return float(connection.exec_driver_sql(
            "SELECT extract(epoch FROM clock_timestamp())").scalar_one())
    return time.time()


def open_server(ledger: Ledger) -> str:
    """Begins a lease; returns the server's id."""
    id_ = secrets.token_hex(8)
    with ledger.writing() as connection:
        now = clock(connection)
        connection.execute(servers.insert().values(id=id_, started=now, beat=now))
    return id_


def beat(ledger: Ledger, server: str) -> None:
    """The server lives; to be said well within `LEASE_SECONDS`."""
    with ledger.writing() as connection:
        connection.execute(sa.update(servers).where(servers.c.id == server)
                           .values(beat=clock(connection), ended=None))


def end(ledger: Ledger, server: str) -> None:
    """Ends a lease."""
    with ledger.writing() as connection:
        connection.execute(sa.update(servers).where(servers.c.id == server)
                           .values(ended=clock(connection)))


def alive(ledger: Ledger, now: float) -> int:
    """How many servers hold a lease; `now` is seconds since 1970."""
    with ledger.reading() as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(servers).where(
            servers.c.ended.is_(None), servers.c.beat >= now - LEASE_SECONDS)) or 0)


def dead(connection: sa.Connection, lease_seconds: float) -> sa.Select[Any]:
    """Ids of the servers whose lease has ended."""
    return sa.select(servers.c.id).where(sa.or_(
        servers.c.beat < clock(connection) - lease_seconds, servers.c.ended.is_not(None)))
