"""Forecast beside measurement of each finished run: what the next plan is calibrated on.

A plan reads these before it says a word, so the reading uses Python's own sqlite3 (25 ms) where
SQLAlchemy would cost more than the plan. It is one query text for both ways in.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from curbcut.errors import DamagedFile
from curbcut.ledger import codec
from curbcut.spec import Account

Pair = tuple[dict[str, Any], Account, Account]
"""The run as a plain dict, its newest forecast, its newest measurement."""

NEWEST = 200
"""Pairs read at most: the newest ones."""

QUERY = """
WITH ranked AS (
    SELECT run, kind, id, recorded,
           ROW_NUMBER() OVER (PARTITION BY run, kind ORDER BY recorded DESC, id DESC) AS place
    FROM accounts WHERE step = :step AND (kind = 'forecast' OR finished = 1)
), chosen AS (
    SELECT runs.resolved AS resolved, f.id AS forecast, m.id AS measured, m.recorded AS recorded
    FROM runs JOIN ranked f ON f.run = runs.id AND f.kind = 'forecast' AND f.place = 1
              JOIN ranked m ON m.run = runs.id AND m.kind = 'measured' AND m.place = 1
    WHERE runs.resolved IS NOT NULL
      AND (:machine = '' OR runs.machine = :machine OR runs.accelerator = :machine)
    ORDER BY m.recorded DESC, m.id DESC LIMIT :newest
)
SELECT chosen.measured, chosen.forecast, chosen.resolved, figures.account, figures.section,
       figures.figure, figures.position, figures.value, figures.low, figures.high,
       figures.basis, figures.source
FROM chosen LEFT JOIN figures ON figures.account IN (chosen.forecast, chosen.measured)
ORDER BY chosen.recorded DESC, chosen.measured DESC, figures.account, figures.position
"""
"""In the SQL that SQLite and PostgreSQL share; newest measurement first."""

_COLUMNS = ("section", "figure", "position", "value", "low", "high", "basis", "source")


def collect(found: Iterable[Sequence[Any]], where: str) -> list[Pair]:
    """The pairs in the rows of `QUERY`."""
    gathered: dict[int, tuple[int, str, dict[int, list[dict[str, Any]]]]] = {}
    for measured, forecast, resolved, account, *figure in found:
        _, _, figures = gathered.setdefault(measured, (forecast, resolved, {}))
        if account is not None:
            row = dict(zip(_COLUMNS, figure, strict=True))
            figures.setdefault(account, []).append(row)
    return [(json.loads(resolved), codec.account(figures.get(forecast, ()), where),
             codec.account(figures.get(measured, ()), where))
            for measured, (forecast, resolved, figures) in gathered.items()]


def kept_pairs(path: Path, *, machine: str = "", step: str = "train") -> list[Pair]:
    """The pairs of the SQLite ledger at `path`, newest first; none where there is no ledger.

    `machine` narrows to runs on that machine or accelerator name. Nothing is written. Raises
    DamagedFile for a file that is no ledger.
    """
    if not path.is_file():
        return []
    values = {"machine": machine, "step": step, "newest": NEWEST}
    try:
        return collect(read_only(path, QUERY, values), str(path))
    except sqlite3.DatabaseError as error:
        raise DamagedFile(f"the ledger cannot be read ({error})", where=str(path),
                          mend="restore it from a copy, or move it aside") from None


def read_only(path: Path, query: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of one query on the SQLite file at `path`; raises sqlite3.DatabaseError."""
    uri = path.resolve().as_uri()
    try:
        return _query(f"{uri}?mode=ro", query, values)
    except sqlite3.OperationalError:
        # In a folder that may not be written, SQLite cannot make WAL's shared memory; nobody
        # can be writing there either.
        return _query(f"{uri}?immutable=1", query, values)


def _query(uri: str, query: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(uri, uri=True, timeout=5)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()
