"""Says how the run will end, once enough of it is measured; again when that moves."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from curbcut.train.outlook import Outlook, mends, outlook, said
from curbcut.train.session import Session, Silent, StepReport

SHARE = 0.02
"""Of the run, before anything is said; and between two looks."""
LEAST_STEPS = 20
DRIFT = 0.15
"""It is said again when the expected end has moved by this share of what was said last."""


class ForecastCorrector(Silent):
    """Compares the expected end with the promise; silent while its interval holds it.

    `say` gets a sentence, `record` each look. Levers are priced in a thread: a step is not held up.
    """

    def __init__(self, say: Callable[[str], None],
                 record: Callable[[Mapping[str, Any]], None]) -> None:
        self.say, self.record = say, record
        self._recent: deque[float] = deque(maxlen=50)
        self._seen = 0
        self._said: float | None = None
        self._levers: list[str] | None = None
        self._thread: threading.Thread | None = None
        self._waiting: Outlook | None = None

    def after_step(self, session: Session, report: StepReport) -> None:
        """Looks now and then."""
        self._recent.append(report.seconds)
        self._seen += 1
        self._tell()
        apart = max(LEAST_STEPS, round(SHARE * session.run.steps))
        if self._seen % apart or report.step >= session.run.steps:
            return
        found = outlook(session, median(self._recent))
        if found is None:
            return
        self.record(found.plain())
        if self._said is None:
            tell = not found.inside
        else:
            tell = abs(found.seconds / self._said - 1) > DRIFT
        if tell:
            self._said = found.seconds
            self._waiting = found
            self._price(session)
            self._tell()

    def _price(self, session: Session) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._find, args=(session,), daemon=True,
                                            name="levers")
            self._thread.start()

    def _find(self, session: Session) -> None:
        try:
            self._levers = mends(session.run)
        except Exception:  # a lever that cannot be priced must not end a run
            self._levers = []

    def _tell(self) -> None:
        if self._waiting is not None and self._levers is not None:
            self.say(f"step {self._waiting.step}: {said(self._waiting, self._levers)}")
            self._waiting = None

    def finish(self, session: Session) -> None:
        """Says what is still to be said."""
        if self._thread is not None:
            self._thread.join()
        self._tell()
