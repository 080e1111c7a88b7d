"""The observer of a rank among others: moves its pulse, and finds ranks that are slow."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from curbcut.launch import watch
from curbcut.launch.pulse import ENDING, WAITS, Pulse
from curbcut.train import launches
from curbcut.train.launches import Fault
from curbcut.train.session import Session, Silent, StepReport
from curbcut.train.world import waits

SURE = 2
"""Gatherings on end after which a slow rank is one: a page fault or a busy neighbour passes."""


class Heart(Silent):
    """Tells the pulse each step; now and then all ranks compare their own seconds a step.

    A slow rank is named once, in `alerts.jsonl` and through `say`; with `leave` the run also stops
    at a checkpoint, to be started again.
    """

    def __init__(self, pulse: Pulse, say: Callable[[str], None], *, leave: bool = False,
                 every_steps: int = 20) -> None:
        self._pulse = pulse
        self._say = say
        self._leave = leave
        self._every_steps = every_steps
        self._gathered_own = 0.0
        self._gathered_step = 0
        self._suspect: dict[int, int] = {}
        self._named: set[int] = set()

    def start(self, session: Session) -> None:
        """From now on the pulse says where the session is."""
        self._pulse.where = lambda: (session.step, WAITS if waits() else session.watch.kind)
        self._gathered_own, self._gathered_step = session.own_seconds, session.step

    def after_step(self, session: Session, report: StepReport) -> None:
        """One more step."""
        self._pulse.stepped(report.step, report.seconds)

    def agreed(self, session: Session) -> None:
        """Compares the ranks when it is time: the same step on all of them."""
        steps = session.step - self._gathered_step
        if session.world.alone or steps < self._every_steps:
            return
        own = (session.own_seconds - self._gathered_own) / steps
        self._gathered_own, self._gathered_step = session.own_seconds, session.step
        told = session.world.everybody([own, socket.gethostname(), os.getpid()])
        found = dict(watch.slow([seconds for seconds, _, _ in told]))
        self._suspect = {rank: self._suspect.get(rank, 0) + 1 for rank in found}
        session.slowed = max((found[rank] for rank, times in self._suspect.items()
                              if times >= SURE), default=1.0)
        for rank, times in self._suspect.items():
            if times >= SURE and rank not in self._named:
                self._named.add(rank)
                _, host, pid = told[rank]
                self._tell(session, Fault("slow", rank, host, pid, session.step, "its own work "
                                          f"takes {found[rank]:.1f} times the others'"))

    def _tell(self, session: Session, fault: Fault) -> None:
        if session.world.main:
            launches.alert(session.folder, fault)
            self._say(f"slow: {fault}")
        if self._leave:
            session.ask_to_stop(f"slow: {fault}", resumable=True)

    def close(self) -> None:
        """What comes after the loop, like writing the model, takes as long as it takes."""
        step, _ = self._pulse.where()
        self._pulse.where = lambda: (step, ENDING)
