"""What a person watches: progress, speed, MFU, power, and the cost so far against the plan."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from curbcut import units
from curbcut.physics.flops import model_flops_per_token
from curbcut.train import charges
from curbcut.train.account import goodput, utilisation
from curbcut.train.session import Session, Silent, StepReport

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


def status(session: Session, report: StepReport, recent_seconds: float) -> str:
    """One line about where the run stands; every figure says if it is not a measurement."""
    rate = report.tokens / recent_seconds
    parts = [f"loss {report.loss:.3f}", f"{rate:,.0f} tok/s", _mfu(session, rate),
             _goodput(session), _watts(session), _cost(session)]
    if session.bits_per_byte is not None:
        parts.append(f"held out {session.bits_per_byte:.3f} bits/byte")
    return " · ".join(part for part in parts if part)


def _mfu(session: Session, tokens_per_second: float) -> str:
    """Model FLOPs a second over the machine's matmul rate; "n/a" where the rate is not known."""
    run = session.run
    flops = model_flops_per_token(run.model, run.recipe.sequence_tokens) * tokens_per_second
    share = utilisation(flops, 1.0, run.machine, run.recipe.precision).value
    return "MFU n/a" if share is None else f"MFU {share:.0%}"


def _goodput(session: Session) -> str:
    """Only once the start is a small part of it."""
    share = goodput(session)["run"].value
    return f"goodput {share:.0%}" if share is not None and session.total_seconds > 60 else ""


def _watts(session: Session) -> str:
    if session.joules is not None and session.total_seconds > 0:
        return f"{session.joules / session.total_seconds:.0f} W measured"
    watts = charges.prices(session.run).facility_watts
    return f"~{watts:.0f} W modelled" if watts else ""


def _cost(session: Session) -> str:
    used, promised = charges.usd(session), charges.promised(session.forecast, "usd", "total")
    if used is None:
        return ""
    planned = f" of {units.show(promised, 'usd')} planned" if promised is not None else ""
    return f"{units.show(used, 'usd')}{planned}"


def _ettr(session: Session) -> str:
    """Goodput, and the share that starting, faults and work done again left over."""
    found = goodput(session)
    run, ettr = found["run"].value, found["ettr"].value
    return f", goodput {run:.0%}, ETTR {ettr:.0%}" if run is not None and ettr is not None else ""


class ConsoleLine(Silent):
    """A progress bar on a terminal; elsewhere a plain line every so many seconds."""

    def __init__(self, console: Console, plain_every_seconds: float = 20.0) -> None:
        self.console = console
        self.plain_every_seconds = plain_every_seconds
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._recent: deque[float] = deque(maxlen=20)
        self._last_print = 0.0

    def start(self, session: Session) -> None:
        """Shows the bar, or says that it begins."""
        self._last_print = session.clock.seconds()
        if session.step:
            self.console.print(f"  resuming at step {session.step} of {session.run.steps}")
        if self.console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(TextColumn("  {task.percentage:>3.0f}%"), BarColumn(24),
                                 TimeRemainingColumn(), TextColumn("{task.description}"),
                                 console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=session.run.steps, completed=session.step)

    def after_step(self, session: Session, report: StepReport) -> None:
        """Moves the bar; trouble is always printed."""
        self._recent.append(report.seconds)
        if report.trouble:
            verb = "applied and recorded" if report.applied else "skipped"
            self.console.print(f"  step {report.step} {verb}: {report.trouble}", highlight=False)
        line = status(session, report, sum(self._recent) / len(self._recent))
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=report.step, description=line)
        elif session.clock.seconds() - self._last_print >= self.plain_every_seconds:
            self._last_print = session.clock.seconds()
            share = report.step / session.run.steps
            self.console.print(f"  {share:>4.0%} step {report.step}: {line}", soft_wrap=True,
                               highlight=False)

    def finish(self, session: Session) -> None:
        """Says how the loop ended."""
        self.close()
        reason = session.stop.reason if session.stop else "all tokens trained"
        self.console.print(
            f"  {reason}: step {session.step} of {session.run.steps}, "
            f"{units.show(session.tokens, 'count')} tokens in "
            f"{units.show(session.total_seconds, 'seconds')}{_ettr(session)}", highlight=False)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
