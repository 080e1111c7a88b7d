"""Saves every so many steps and whenever the loop ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from curbcut.train import checkpoint
from curbcut.train.session import Session, Silent, StepReport


class Checkpointer(Silent):
    """Keeps `recipe.keep_checkpoints` verified checkpoints in `root`; `after` hears each one."""

    def __init__(self, root: Path, after: Callable[[Session, Path], None]) -> None:
        self.root = root
        self.after = after
        self._last_step = -1

    def start(self, session: Session) -> None:
        """A resumed run has its own checkpoint already."""
        self._last_step = session.step if session.step else -1

    def after_step(self, session: Session, report: StepReport) -> None:
        """Asks all ranks to save when it is time."""
        if report.step % session.run.recipe.checkpoint_every_steps == 0:
            session.ask_to_save()

    def agreed(self, session: Session) -> None:
        """Saves with all other ranks."""
        if session.save_due:
            self._save(session)

    def finish(self, session: Session) -> None:
        """Saves where the loop ended."""
        if self._last_step != session.step:
            self._save(session)

    def _save(self, session: Session) -> None:
        with session.timed("checkpoint"):
            path = checkpoint.save(self.root, session.progress(), session.tensors(),
                                   session.run.recipe.keep_checkpoints)
        self._last_step = session.step
        self.after(session, path)
