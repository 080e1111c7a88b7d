"""What has changed in the ledger since the last look, whoever wrote it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

_INBOXES = "SELECT folder, SUM(offset_bytes), COUNT(*) FROM inbox_files GROUP BY folder"
_ACCOUNTS = "SELECT COALESCE(MAX(id), 0) FROM accounts"
_NEW_ACCOUNTS = """SELECT DISTINCT runs.name FROM accounts JOIN runs ON runs.id = accounts.run
WHERE accounts.id > :known"""
_RUNS = "SELECT name FROM runs WHERE recorded > :known"
_NEWEST_RUN = "SELECT COALESCE(MAX(recorded), 0) FROM runs"


@dataclass
class Watch:
    """Remembers how far the ledger was at the last look."""

    _offsets: dict[str, tuple[int, int]] = field(default_factory=dict)
    _account: int = -1
    _recorded: float = -1.0

    def changed(self, ledger: Ledger) -> set[str]:
        """Names of runs of which anything is new since the last call; all of them at the first."""
        import sqlalchemy as sa

        with ledger.reading() as connection:
            offsets = {row[0]: (int(row[1]), int(row[2]))
                       for row in connection.execute(sa.text(_INBOXES))}
            account = int(connection.scalar(sa.text(_ACCOUNTS)) or 0)
            recorded = float(connection.scalar(sa.text(_NEWEST_RUN)) or 0.0)
            names = {name for name, far in offsets.items() if self._offsets.get(name) != far}
            if account != self._account:
                names |= set(connection.scalars(sa.text(_NEW_ACCOUNTS), {"known": self._account}))
            if recorded != self._recorded:
                names |= set(connection.scalars(sa.text(_RUNS), {"known": self._recorded}))
        self._offsets, self._account, self._recorded = offsets, account, recorded
        return names
