"""Signs of life of a training process that has nothing else to say.

Who reads a run's record cannot ask its process, which may run on another machine: a record that
is silent for longer than a few periods is that of a process which is no more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

LEAST_SECONDS, MOST_SECONDS = 15.0, 60.0
"""Between two signs: of a short run, and of one that takes weeks."""
SIGNS = 20_000
"""Signs of a whole run, about, where `MOST_SECONDS` allows: its record stays small."""


def period_seconds(promised_seconds: float | None) -> float:
    """The period for a run that is to take so long; None where nothing was promised."""
    return min(MOST_SECONDS, max(LEAST_SECONDS, (promised_seconds or 0.0) / SIGNS))


class Beat:
    """Calls `tell` on a thread of its own once in a period in which `heard` was not called."""

    def __init__(self, tell: Callable[[], object], seconds: float) -> None:
        self._tell, self._seconds = tell, seconds
        self._spoke, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._go, name="beat", daemon=True)

    def start(self) -> None:
        """From now on somebody listens."""
        self._thread.start()

    def heard(self) -> None:
        """The process said something: it is known to live."""
        self._spoke.set()

    def close(self) -> None:
        """Ends the thread, if it was started; once this returns `tell` is not called again."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _go(self) -> None:
        while not self._over.wait(self._seconds):
            if not self._spoke.is_set():
                self._tell()
            self._spoke.clear()
