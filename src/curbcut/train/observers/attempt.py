"""Leaves the accounts so far beside the metrics, for an attempt that may go on from here."""

from __future__ import annotations

from pathlib import Path

from curbcut.train import attempts
from curbcut.train.later import Later
from curbcut.train.session import Session, Silent, StepReport


class Attempt(Silent):
    """Writes `attempts.Left` about once a second, away from the step's path."""

    def __init__(self, folder: Path, every_seconds: float = 1.0) -> None:
        self.folder, self.every_seconds = folder, every_seconds
        self._later = Later("attempt")
        self._last = 0.0

    def start(self, session: Session) -> None:
        """From here on a death is known of."""
        self._leave(session)

    def after_step(self, session: Session, report: StepReport) -> None:
        """Leaves the accounts, unless an earlier file is still being written."""
        if session.clock.seconds() - self._last >= self.every_seconds and not self._later.waiting:
            self._leave(session)

    def finish(self, session: Session) -> None:
        """The next attempt, if there is one, begins when somebody asks for it."""
        session.watch.lap()
        self._leave(session, ended=True)

    def _leave(self, session: Session, *, ended: bool = False) -> None:
        self._last = session.clock.seconds()
        left = attempts.of(session, attempts.moment(), ended=ended)
        self._later.do(lambda: attempts.write(self.folder, left))

    def close(self) -> None:
        """Waits for the last file."""
        self._later.finish()
