"""What happened to a run, besides steps and signs of life, in the order of time."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any

from curbcut.errors import InputError
from curbcut.web.columns import ends

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

MOST_EVENTS = 1_000
"""Of one answer: the newest ones."""
UNTOLD = ("step", "beat", "run", "account")
"""Kinds of lines that are no news of their own: charts and tables show them."""

_EVENTS = """SELECT process, sequence, time, kind, body FROM events
WHERE run = :run AND kind NOT IN :untold ORDER BY time DESC, process DESC, sequence DESC LIMIT :most
"""


def timeline(ledger: Ledger, run: str, after: str = "") -> dict[str, Any]:
    """Events that came since `after` (a cursor of an earlier answer), the oldest first.

    Raises InputError for a cursor that is none.
    """
    import sqlalchemy as sa

    known = _read(after)
    query = sa.text(_EVENTS).bindparams(sa.bindparam("untold", expanding=True))
    with ledger.reading() as connection:
        last = ends(connection, run)
        if last == known:
            return {"cursor": after, "events": []}
        rows = connection.execute(query, {"run": run, "untold": list(UNTOLD),
                                          "most": MOST_EVENTS}).all()
    new = [row for row in reversed(rows)
           if known.get(row.process, -1) < row.sequence <= last.get(row.process, -1)]
    return {"cursor": _written(last), "events": [
        {"time": row.time, "kind": row.kind, "process": row.process,
         "step": _step(body := json.loads(row.body)), "body": body} for row in new]}


def _step(body: Any) -> int | None:
    step = body.get("step") if isinstance(body, dict) else None
    return step if isinstance(step, int) else None


def _written(last: dict[str, int]) -> str:
    return base64.urlsafe_b64encode(json.dumps(last, sort_keys=True).encode()).decode()


def _read(cursor: str) -> dict[str, int]:
    if not cursor:
        return {}
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor))
        return {str(process): int(sequence) for process, sequence in found.items()}
    except (binascii.Error, ValueError, OverflowError, AttributeError, TypeError, RecursionError):
        raise InputError("is no cursor of these events", where="after",
                         mend="leave it out to begin anew") from None
