"""Work that must not hold up a training step: done in order, in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Work = Callable[[], object]


class Later:
    """Does what it is given, one after the other, and nothing twice.

    An error is kept and raised by the next call, so nothing fails in silence. The thread begins
    with the first work: a process that forks before that takes nothing with it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def do(self, work: Work) -> None:
        """Has `work` done soon. Raises what earlier work raised."""
        self._raise()
        if self._thread is None:
            self._thread = threading.Thread(target=self._go, name=self._name, daemon=True)
            self._thread.start()
        self._work.put(work)

    @property
    def waiting(self) -> int:
        """How much is not done yet, about."""
        return self._work.qsize()

    def finish(self) -> None:
        """Waits until all is done. Raises what it raised."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
            self._thread = None
        self._raise()

    def _go(self) -> None:
        while (work := self._work.get()) is not None:
            if self._error is None:
                try:
                    work()
                except BaseException as error:  # told to the caller, who can still act
                    self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
