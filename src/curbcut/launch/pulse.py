"""The pulse of a rank: a small file that says where it is, written by a thread of its own.

The thread beats while the rank waits for others, but not while the process is stopped: that tells
a rank that hangs from those that only wait for it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import IO

BEAT_SECONDS = 0.5
RECENT_STEPS = 20
WAITS, ENDING = "waits", "ending"
"""Phases beside the kinds of seconds: in an agreement of all ranks; after the last step."""


@dataclass(frozen=True)
class Beat:
    """Where a rank is. Seconds are of the system's monotonic clock, the same for all processes."""

    rank: int
    host: str
    pid: int
    attempt: int
    step: int = 0
    """Steps done by this rank, those of the checkpoint included."""
    phase: str = "start"
    """What it is doing: "start", or a kind of seconds that the session books."""
    steps_here: int = 0
    """Steps done since this process started."""
    moved_seconds: float = 0.0
    """When step or phase last changed."""
    beat_seconds: float = 0.0
    """When this was written."""
    moved_time: float = 0.0
    """Wall clock of the last change: seconds since 1970."""
    step_seconds: float | None = None
    """Median of the recent steps; None before the first."""


def path_of(folder: Path, rank: int) -> Path:
    """The file of a rank's pulse."""
    return folder / f"rank-{rank:05d}.json"


def read(folder: Path, rank: int, attempt: int) -> Beat | None:
    """The last beat of a rank in this attempt, or None where there is none yet."""
    try:
        beat = Beat(**json.loads(path_of(folder, rank).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if beat.attempt != attempt:
        return None
    with suppress(OSError, ValueError):
        # A rank that is killed leaves its last step here, in between two beats.
        done = int(path_of(folder, rank).with_suffix(".step").read_text())
        return replace(beat, step=max(beat.step, done))
    return beat


class Pulse:
    """Beats until it is stopped, telling what `where()` says: step and phase."""

    def __init__(self, folder: Path, rank: int, attempt: int,
                 every_seconds: float = BEAT_SECONDS) -> None:
        self.where: Callable[[], tuple[int, str]] = lambda: (0, "start")
        self._path = path_of(folder, rank)
        self._every_seconds = every_seconds
        self._last = Beat(rank, socket.gethostname(), os.getpid(), attempt,
                          moved_seconds=time.monotonic(), moved_time=time.time())
        self._steps_here = 0
        self._steps: IO[bytes] | None = None
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)
        self._ended = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._beat_on, daemon=True, name="pulse")

    def start(self) -> None:
        """Writes the first beat and goes on beating; raises OSError where it cannot be written."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._steps = self._path.with_suffix(".step").open("wb", buffering=0)
        self.beat()
        self._thread.start()

    def stepped(self, step: int, seconds: float) -> None:
        """So many steps are done, the last one took so long."""
        self._recent.append(seconds)
        self._steps_here += 1
        if self._steps is not None:
            with suppress(OSError):
                os.pwrite(self._steps.fileno(), b"%12d" % step, 0)
        if time.monotonic() - self._last.beat_seconds > self._every_seconds / 5:
            self.beat()

    def beat(self) -> None:
        """Writes the file, whole or not at all; a full disk is no reason to end a run."""
        with self._writing:
            (step, phase), now, last = self.where(), time.monotonic(), self._last
            moved = (step, phase, self._steps_here) != (last.step, last.phase, last.steps_here)
            self._last = replace(
                last, step=step, phase=phase, steps_here=self._steps_here, beat_seconds=now,
                moved_seconds=now if moved else last.moved_seconds,
                moved_time=time.time() if moved else last.moved_time,
                step_seconds=median(self._recent) if self._recent else None)
            aside = self._path.with_suffix(".tmp")
            with suppress(OSError):
                aside.write_text(json.dumps(asdict(self._last)), encoding="utf-8")
                aside.replace(self._path)

    def stop(self) -> None:
        """Ends the thread after one last beat."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self.beat()
        if self._steps is not None:
            self._steps.close()
            self._steps = None

    def _beat_on(self) -> None:
        while not self._ended.wait(self._every_seconds):
            self.beat()
