"""Tells apart seconds of steps that did not move the run on: skipped, compiling, hanging."""

from __future__ import annotations

from collections import deque
from statistics import median

from curbcut.train.session import Session, Silent, StepReport

WARM_STEPS = 5
"""First steps of a process: the last three of them say what a step usually takes."""
WINDOW_STEPS = 50
HANG_FACTOR = 5.0
"""A step so many times as long as usual was held up: by a slow rank, or the process was stopped."""
HANG_LEAST_SECONDS = 1.0
"""Beyond the usual: shorter delays are the machine's ordinary jitter."""


class Attribution(Silent):
    """Moves seconds from `steps` to what they were: `skipped` (the update was not applied),
    `compile` (what the first steps of a compiled model take beyond the usual; of others it is part
    of the `start`), `hang` (beyond the usual, of a step that was held up), `straggler` (what a
    step takes longer for a rank that was named as slow: as many times as its own work does).

    What is left under `steps` is what steps take, and teaches plans that.
    """

    def __init__(self) -> None:
        self._seen = 0.0
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=WINDOW_STEPS)

    def start(self, session: Session) -> None:
        """Steps of earlier attempts were told apart by them."""
        self._seen = session.seconds.get("steps", 0.0)

    def after_step(self, session: Session, report: StepReport) -> None:
        """Looks at the step that was just booked."""
        session.watch.rest("other")
        took = session.seconds.get("steps", 0.0) - self._seen
        if not report.applied:
            _move(session, "skipped", took)
        elif len(self._first) < WARM_STEPS:
            self._first.append(took)
            if len(self._first) == WARM_STEPS:
                self._settle_first(session)
        else:
            waited = took * (1 - 1 / session.slowed)
            _move(session, "straggler", waited)
            took -= waited
            usual = median(self._recent)
            if took > HANG_FACTOR * usual and took - usual > HANG_LEAST_SECONDS:
                _move(session, "hang", took - usual)
                took = usual
            self._recent.append(took)
        self._seen = session.seconds.get("steps", 0.0)

    def finish(self, session: Session) -> None:
        """A run of a few steps has its first ones told apart at its end."""
        if 2 < len(self._first) < WARM_STEPS:
            self._settle_first(session)

    def _settle_first(self, session: Session) -> None:
        usual = median(self._first[2:])
        kind = "compile" if session.run.recipe.compile else "start"
        _move(session, kind, sum(max(0.0, one - usual) for one in self._first[:2]))
        self._recent.extend(min(one, usual) for one in self._first)


def _move(session: Session, kind: str, seconds: float) -> None:
    if seconds > 0:
        session.book(kind, seconds)
        session.book("steps", -seconds)
