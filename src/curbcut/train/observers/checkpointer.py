"""Saves when it is due and whenever the loop ends: at once, or while training goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from curbcut import units
from curbcut.errors import InputError
from curbcut.ledger.inbox import FOLDER
from curbcut.plan import rules
from curbcut.train.checkpoint import Saver, Writing, identity
from curbcut.train.checkpoint.interval import Rhythm, interruptions
from curbcut.train.session import Session, Silent, StepReport


class Checkpointer(Silent):
    """Keeps `recipe.keep_checkpoints` verified checkpoints in `root`; `after` hears each one, and
    `alert` each that the disk refused: training goes on, and the next one is tried when it is due.

    With `recipe.checkpoint_async` a step waits for a copy in memory only. At most one checkpoint is
    being written; one that comes due meanwhile begins when it is done.
    """

    def __init__(self, root: Path, after: Callable[[Session, Path], None],
                 alert: Callable[[str], None]) -> None:
        self.root, self.after, self.alert = root, after, alert
        self._last_step = -1
        self._last_seconds = 0.0
        self._waited = 0.0
        self._again = False
        self._due = False
        self._writing: Writing | None = None

    def start(self, session: Session) -> None:
        """A resumed run has its own checkpoint already."""
        run = session.run
        self._last_step = session.step if session.step else -1
        self._last_seconds = session.clock.seconds()
        self.saver = Saver(self.root, identity(run), run.recipe.keep_checkpoints, session.world)
        seen = interruptions(session.folder / FOLDER) if session.world.main else 0
        self.rhythm = Rhythm(rules.save_seconds(run.model, run.recipe), run.machine.accelerators,
                             seen)

    def after_step(self, session: Session, report: StepReport) -> None:
        """Asks all ranks to save when it is time: by steps, or by rank 0's clock. Not after a step
        that was not applied: if the weights themselves are unsound, each save would push out one
        that is not.
        """
        recipe = session.run.recipe
        self._due = self._due or report.step % recipe.checkpoint_every_steps == 0 or (
            recipe.checkpoint_interval == "young" and session.world.main
            and self._is_late(session, report))
        if self._due and report.applied:
            self._due = False
            session.ask_to_save()

    def _is_late(self, session: Session, report: StepReport) -> bool:
        """Whether the next step would end further from the due moment than this one did."""
        trained = session.clock.seconds() - self._last_seconds
        return trained + report.seconds / 2 >= self.rhythm.seconds(session.total_seconds)

    def agreed(self, session: Session) -> None:
        """Begins what all ranks agreed on, and completes what all of them have written."""
        self._again = self._again or session.save_due
        if self._writing is not None and not session.world.most(
                [float(not self._writing.done)])[0]:
            self._complete(session)
        if self._again and self._writing is None:
            self._again = False
            self._begin(session)

    def finish(self, session: Session) -> None:
        """Completes what is being written, and saves where the loop ended: here an error is the
        end of the run and raised.
        """
        if self._writing is not None:
            self._complete(session)
        if self._last_step != session.step:
            with session.timed("checkpoint"):
                path = self.saver.save(session.progress(), session.tensors())
            self._last_step = session.step
            self.after(session, path)

    def close(self) -> None:
        """Lets a thread that writes come to its end; what it wrote is no checkpoint yet."""
        if self._writing is not None and self._writing.thread is not None:
            self._writing.thread.join()

    def _begin(self, session: Session) -> None:
        background, before = session.run.recipe.checkpoint_async, self.saver.staging_bytes
        started = session.clock.seconds()
        self._last_seconds = started
        try:
            with session.timed("checkpoint"):
                self._writing = self.saver.begin(session.progress(), session.tensors(),
                                                 background=background)
        except InputError as error:
            self._refused(error)
            return
        self._waited = session.clock.seconds() - started
        held = self.saver.staging_bytes
        if held != before:
            self.alert("checkpoints are written while training goes on: copies of "
                       f"{units.show(held, 'bytes')} stay in host memory")
        if not background:
            self._complete(session)

    def _complete(self, session: Session) -> None:
        writing, self._writing = self._writing, None
        assert writing is not None
        started = session.clock.seconds()
        try:
            with session.timed("checkpoint"):
                path = self.saver.commit(writing)
        except InputError as error:
            self._refused(error)
            return
        finally:
            if not session.run.recipe.checkpoint_async:
                self._last_seconds = session.clock.seconds()
        self._last_step = writing.progress.step
        self.rhythm.saved(self._waited + session.clock.seconds() - started)
        self.after(session, path)

    def _refused(self, error: InputError) -> None:
        self.alert(f"alert: {error.what}; training goes on, and the next save tries again")
