"""TensorBoard's event files, without TensorFlow and without torch."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from curbcut.train.observers.trackers import Tracked

FOLDER = "tensorboard"
FLUSH_SECONDS = 5


class TensorBoardEvents:
    """Writes `runs/NAME/tensorboard/`: `tensorboard --logdir runs` shows all runs."""

    def begin(self, run: Tracked) -> None:
        """A new file; where the run goes on, what an earlier one says of later steps is void."""
        self._writer = EventFileWriter(str(run.folder / FOLDER), flush_secs=FLUSH_SECONDS)
        self._step, now = run.step, clock.time()
        if run.step:
            started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer.add_event(event_pb2.Event(wall_time=now, step=run.step + 1,
                                                   session_log=started))
        self._add(hparams_pb(dict(run.config), trial_id=run.id), 0, now)
        rows = [f"| {key} | {value:.6g} | {low:.6g} to {high:.6g} | {basis} |"
                for key, (value, low, high, basis) in run.promised.items()]
        table = ["| figure | promised | interval | basis |", "|---|---|---|---|", *rows]
        self._add(text_pb("promised", "\n".join(table)), 0, now)
        self.figures(0, {f"promised/{key}": value for key, (value, *_) in run.promised.items()},
                     now)

    def figures(self, step: int, values: Mapping[str, float], time: float) -> None:
        """Points of scalars."""
        self._step = step
        self._add(summary_pb2.Summary(value=[
            summary_pb2.Summary.Value(tag=key, simple_value=value)
            for key, value in values.items()]), step, time)

    def note(self, step: int, text: str, time: float) -> None:
        """A text."""
        self._add(text_pb("note", text), step, time)

    def end(self, state: str, reason: str, measured: Mapping[str, float]) -> None:
        """Finishes it."""
        now = clock.time()
        self.figures(self._step, {f"measured/{key}": value for key, value in measured.items()}, now)
        self._add(text_pb("state", f"{state}: {reason}"), self._step, now)
        self._writer.close()

    def _add(self, summary: Any, step: int, time: float) -> None:
        self._writer.add_event(event_pb2.Event(wall_time=time, step=step, summary=summary))


def make() -> TensorBoardEvents:
    """The tracker."""
    return TensorBoardEvents()
