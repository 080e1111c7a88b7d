"""What was asked, word for word, in a file: only where whoever runs the server says so.

It is written into the audit chain that it was said. The file is for its owner alone.
"""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curbcut.errors import InputError
from curbcut.ledger import audit
from curbcut.ledger.access import Caller
from curbcut.ledger.store import Ledger


class PromptLog:
    """One JSON object a line for each request that was read. Threads may share it; close it."""

    def __init__(self, path: Path, ledger: Ledger, *, actor: str) -> None:
        """Raises InputError for a file that cannot be written."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.fchmod(descriptor, 0o600)  # one that was there may have been open to others
        except OSError as error:
            raise InputError(f"prompts cannot be written there ({error.strerror})",
                             where=f"--log-prompts {path}",
                             mend="name a file in a folder that you may write") from None
        self._file = os.fdopen(descriptor, "a", encoding="utf-8")
        self._lock = threading.Lock()
        with ledger.writing() as connection:
            audit.append(connection, actor, "prompts.logged", f"file:{path.resolve()}")

    def write(self, caller: Caller | None, path: str, body: Mapping[str, Any]) -> None:
        """Adds one request."""
        line = json.dumps({"time": time.time(), "key": caller and caller.key,
                           "project": caller and caller.project, "path": path, "body": body})
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        """Writes no more."""
        self._file.close()
