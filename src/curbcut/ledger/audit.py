"""Who changed what, append-only: each row holds the hash of the row before it.

A row is written in the transaction of the change that it tells of: neither is there without the
other. The database refuses to change or delete rows (triggers); who gets round that breaks the
chain, and `verify` says where. Only a cut of the newest rows leaves the rest sound: who keeps the
head (the newest hash) elsewhere finds that too.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from curbcut.ledger.schema import audit

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

START = "0" * 64
"""What the first row has in place of the hash before it."""


@dataclass(frozen=True)
class Entry:
    """One row."""

    sequence: int
    time: float
    actor: str
    """Who: a key's name, or the person at the command line ("cli:ann")."""
    action: str
    """What, as in "key.issued"."""
    subject: str
    """On what, as in "key:00c0ffee"."""
    body: Mapping[str, Any]
    hash: str


@dataclass(frozen=True)
class Verdict:
    """What `verify` found: how many rows are sound, the newest hash, and the first fault."""

    rows: int
    head: str
    fault: str = ""


def append(connection: sa.Connection, actor: str, action: str, subject: str,
           body: Mapping[str, Any] | None = None) -> str:
    """Adds a row within the caller's writing transaction; returns its hash."""
    newest = connection.execute(sa.select(audit.c.sequence, audit.c.hash)
                                .order_by(audit.c.sequence.desc()).limit(1)).first()
    row = {"sequence": newest.sequence + 1 if newest else 1, "time": time.time(), "actor": actor,
           "action": action, "subject": subject,
           "body": json.dumps(dict(body or {}), sort_keys=True),
           "previous": newest.hash if newest else START}
    row["hash"] = _hashed(row)
    connection.execute(audit.insert().values(**row))
    return str(row["hash"])


def entries(ledger: Ledger, *, after: int = 0, limit: int = 1000,
            newest: bool = False) -> list[Entry]:
    """The first `limit` rows beyond the sequence number `after`, or the `newest` ones; the oldest
    first.
    """
    order = audit.c.sequence.desc() if newest else audit.c.sequence
    query = sa.select(audit).where(audit.c.sequence > after).order_by(order)
    with ledger.reading() as connection:
        found = [Entry(row.sequence, row.time, row.actor, row.action, row.subject,
                       json.loads(row.body), row.hash)
                 for row in connection.execute(query.limit(limit))]
    return found[::-1] if newest else found


def verify(ledger: Ledger, head: str = "") -> Verdict:
    """Walks the whole chain. `head`: a hash that was noted before, and must be in it."""
    before, rows, seen = START, 0, not head
    with ledger.reading() as connection:
        found = connection.execution_options(stream_results=True).execute(
            sa.select(audit).order_by(audit.c.sequence))
        for row in found.mappings():
            if row["sequence"] != rows + 1:
                return Verdict(rows, before, f"row {rows + 1} is missing")
            if row["previous"] != before:
                return Verdict(rows, before, f"row {rows + 1} does not follow the row before it")
            if row["hash"] != _hashed(dict(row)):
                return Verdict(rows, before, f"row {rows + 1} is not what was written")
            rows, before = rows + 1, row["hash"]
            seen = seen or before == head
    fault = "" if seen else f"the row that was noted ({head[:12]}...) is gone"
    return Verdict(rows, before, fault)


def _hashed(row: Mapping[str, Any]) -> str:
    told = [row[name] for name in ("sequence", "time", "actor", "action", "subject", "body",
                                   "previous")]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
