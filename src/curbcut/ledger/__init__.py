"""The durable record: runs, accounts, events, keys and what they used.

Opening a ledger needs SQLAlchemy, which costs more than a whole plan; so this module imports it
only when a ledger is opened. `kept_pairs`, `kept_trainings` and the inbox's `Writer` do without.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from curbcut.ledger.pairs import Pair, kept_pairs
from curbcut.ledger.trainings import Training, kept_trainings

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

__all__ = ["FILE_NAME", "Pair", "Training", "kept_pairs", "kept_trainings", "open_ledger"]

FILE_NAME = "ledger.sqlite"
"""Name of the ledger in a folder of runs."""


def open_ledger(where: str | os.PathLike[str], *, create: bool = True) -> Ledger:
    """Opens the ledger at a path (SQLite) or a URL ("postgresql://host/base").

    The same as `store.open_ledger`, without the cost of SQLAlchemy for who opens none.
    """
    from curbcut.ledger import store

    return store.open_ledger(where, create=create)
