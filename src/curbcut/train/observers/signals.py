"""SIGTERM, SIGINT and SIGUSR1 (a batch system warns with it) ask for a checkpoint and an end."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from curbcut.train.session import Session, Silent, StepReport

ASKING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1")
               if hasattr(signal, name))


class Signals(Silent):
    """The first signal ends the run, resumable, after the current step; a second one at once."""

    def __init__(self) -> None:
        self.received = ""
        self._before: dict[int, Any] = {}

    def start(self, session: Session) -> None:
        """Takes over the signals (only the main thread may)."""
        if threading.current_thread() is threading.main_thread():
            for number in ASKING:
                self._before[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name

    def after_step(self, session: Session, report: StepReport) -> None:
        """Asks to stop once a signal came."""
        if self.received:
            session.ask_to_stop(f"{self.received} received", resumable=True)

    def close(self) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
