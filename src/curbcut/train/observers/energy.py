"""Measured energy, where a sensor exists; elsewhere nothing, never zero."""

from __future__ import annotations

from curbcut.meter.energy import EnergyMeter
from curbcut.train.session import Session, Silent


class Energy(Silent):
    """Keeps the session's joules: those of earlier attempts and what the sensors of all nodes
    counted since. Collective: one rank a node has a meter, the others have None.

    A stretch that no sensor saw is counted in `session.unmetered_seconds` and leaves the whole
    unknown: a part is not reported as the sum.
    """

    def __init__(self, meter: EnergyMeter | None, every_steps: int = 10) -> None:
        self.meter = meter
        self.every_steps = every_steps
        self._before: float | None = 0.0
        self._unmetered = 0.0

    def start(self, session: Session) -> None:
        """Starts counting on top of what earlier attempts measured."""
        self._before = session.joules if session.step else 0.0
        self._unmetered = session.unmetered_seconds
        if self.meter is not None:
            self.meter.start()

    def agreed(self, session: Session) -> None:
        """Reads the sensors now and then: a read costs up to 10 ms."""
        if session.step % self.every_steps == 0:
            self._read(session)

    def finish(self, session: Session) -> None:
        """Reads them a last time."""
        self._read(session)

    def _read(self, session: Session) -> None:
        counted, missed, gap = 0.0, 0.0, 0.0
        if self.meter is not None:
            self.meter.lap()
            joules = self.meter.total().joules
            counted, missed = joules or 0.0, float(joules is None)
            if self.meter.sensors:
                gap = sum(lap.seconds for lap in self.meter.laps if lap.joules is None)
        counted, missed = session.world.sums([counted, missed])
        session.unmetered_seconds = self._unmetered + session.world.most([gap])[0]
        known = not missed and self._before is not None
        session.joules = (self._before or 0.0) + counted if known else None

    def close(self) -> None:
        """Ends the sensors' own reading."""
        if self.meter is not None:
            self.meter.stop()
