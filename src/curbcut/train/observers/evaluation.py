"""Held-out bits per byte while training, and whether the target loss is reached."""

from __future__ import annotations

from collections.abc import Callable

from curbcut.evaluate.bits import BitsPerByte
from curbcut.train.session import Session, Silent, StepReport

Evaluate = Callable[[Session], BitsPerByte]


class Evaluation(Silent):
    """Evaluates every so many steps and at the end; `after` hears each result."""

    def __init__(self, evaluate: Evaluate, every_steps: int,
                 after: Callable[[Session, BitsPerByte], None]) -> None:
        self.evaluate = evaluate
        self.every_steps = every_steps
        self.after = after
        self._last_step = -1

    def after_step(self, session: Session, report: StepReport) -> None:
        """Evaluates when it is time; ends the run when the target loss is reached."""
        if report.step % self.every_steps == 0 and report.step < session.run.steps:
            self._look(session)
            target = session.run.limits.loss
            if target is not None and (session.bits_per_byte or target + 1) <= target:
                session.ask_to_stop(f"held-out loss reached {target:g} bits per byte")

    def finish(self, session: Session) -> None:
        """Evaluates the final weights, unless the run will go on later."""
        resumable = session.stop is not None and session.stop.resumable
        if self._last_step != session.step and not resumable:
            self._look(session)

    def _look(self, session: Session) -> None:
        with session.timed("evaluation"), session.averaged():
            session.model.eval()
            result = self.evaluate(session)
            session.model.train()
        self._last_step = session.step
        session.bits_per_byte = result.bits_per_byte
        session.nats_per_token = result.nats_per_token
        self.after(session, result)
