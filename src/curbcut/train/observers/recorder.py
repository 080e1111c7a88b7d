"""The durable record of one training process: an append-only JSONL that the ledger imports."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curbcut.errors import CurbcutError
from curbcut.evaluate.bits import BitsPerByte
from curbcut.ledger.inbox import Writer
from curbcut.meter.memory import cuda_peak_bytes, peak_bytes
from curbcut.model.experts import busiest, loads
from curbcut.physics.flops import model_flops_per_token
from curbcut.train import charges
from curbcut.train.account import utilisation
from curbcut.train.later import Later
from curbcut.train.launches import Launch
from curbcut.train.observers.beat import Beat, period_seconds
from curbcut.train.session import Session, Silent, StepReport

MOST_STEP_LINES = 20_000
"""Lines of steps in a whole run, about: 10 MB."""


class Recorder(Silent):
    """Writes steps (every so many, and each that is slow), trouble, evaluations, checkpoints, start
    and end; and, while there is nothing of these, signs of life.

    Lines are written in a thread: a slow disk does not slow steps. A long run writes fewer lines
    of steps, so that its record stays small.
    """

    def __init__(self, writer: Writer, every_steps: int = 10) -> None:
        self.writer = writer
        self.every_steps = every_steps
        self._later = Later("record")
        self._slowed = 1.0
        self._step = 0
        self._told = 0.0
        self._period: float | None = None
        self._beat: Beat | None = None

    def start(self, session: Session) -> None:
        """Says where this process took up the run, and how often it will give a sign of life."""
        self._period = period_seconds(charges.promised(session.forecast, "seconds", "total"))
        self._step, self._told = session.step, session.clock.seconds()
        self._beat = Beat(self._tell, self._period)
        self._beat.start()
        self.every_steps = max(self.every_steps, session.run.steps // MOST_STEP_LINES)
        self._write("start", {"step": session.step, "steps": session.run.steps,
                              "run_digest": session.run_digest,
                              "period_seconds": self._period})

    def after_step(self, session: Session, report: StepReport) -> None:
        """Records a step now and then, and each troubled step."""
        self._step = report.step
        if report.trouble:
            self._write("trouble", {"step": report.step, "what": report.trouble,
                                    "applied": report.applied})
        if session.slowed != self._slowed:
            self._slowed = session.slowed
            self._write("straggler", {"step": report.step, "times": session.slowed})
        now = session.clock.seconds()
        slow = self._period is not None and now - self._told >= self._period
        if slow or report.step % self.every_steps == 0 or report.step == session.run.steps:
            self._told = now
            self._write("step", {
                "step": report.step, "tokens": session.tokens, "loss": report.loss,
                "gradient_norm": report.gradient_norm, "learning_rate": report.learning_rate,
                "step_seconds": report.seconds, "seconds": dict(session.seconds),
                "joules": session.joules,
                "unmetered_seconds": session.unmetered_seconds,
                **_spent(session, report), **_expert_load(session)})

    def evaluated(self, session: Session, result: BitsPerByte) -> None:
        """Records an evaluation."""
        self._write("evaluation", {"step": session.step,
                                   "bits_per_byte": result.bits_per_byte,
                                   "nats_per_token": result.nats_per_token})

    def saved(self, session: Session, path: Path) -> None:
        """Records a checkpoint."""
        self._write("checkpoint", {"step": session.step, "path": path.name})

    def forecast(self, body: Mapping[str, Any]) -> None:
        """Records a corrected forecast."""
        self._write("forecast", body)

    def launched(self, before: Launch) -> None:
        """Records how the launch before this one ended: what was at fault, and what it cost."""
        self._write("launch", asdict(before))

    def note(self, text: str) -> None:
        """Records a remark: a damaged checkpoint, another thread count."""
        self._write("note", {"text": text})

    def finish(self, session: Session) -> None:
        """Says why the loop ended."""
        reason = session.stop.reason if session.stop else "all tokens trained"
        self._write("end", {"step": session.step, "reason": reason,
                            "resumable": bool(session.stop and session.stop.resumable),
                            "seconds": dict(session.seconds), "joules": session.joules})

    def _write(self, kind: str, body: Mapping[str, Any]) -> None:
        if self._beat is not None:
            self._beat.heard()
        self._later.do(lambda: self.writer.write(kind, body))

    def _tell(self) -> None:
        # What is wrong with the record is raised where the next line is written, in the loop.
        with contextlib.suppress(CurbcutError):
            self.writer.write("beat", {"step": self._step, "period_seconds": self._period})

    def close(self) -> None:
        """Waits until all is written, and closes the file."""
        try:
            if self._beat is not None:
                self._beat.close()
            self._later.finish()
        finally:
            self.writer.close()


def _spent(session: Session, report: StepReport) -> dict[str, float | None]:
    """What all steps so far took of money and energy, and how busy this one kept the machine."""
    run = session.run
    flops = model_flops_per_token(run.model, run.recipe.sequence_tokens) * report.tokens
    return {"usd": charges.usd(session), "kwh": charges.kwh(session),
            "mfu": utilisation(flops, report.seconds, run.machine, run.recipe.precision).value,
            "memory_bytes": cuda_peak_bytes() or peak_bytes()}


def _expert_load(session: Session) -> dict[str, float]:
    """How many times its even share the busiest expert got on this rank since the last line."""
    found = busiest(loads(session.model))
    return {} if found is None else {"busiest_expert": found}
